"""Arrays made inside a traced function: ``np.zeros``, ``np.arange``, ``np.array``, ...

They are arrays of the trace, so that traced values can be written into them. What is made of
positions is ``iota`` and arithmetic, never data in the program.
"""

from __future__ import annotations

import math
import operator
from typing import Any

import numpy as np

from diffc.errors import ShapeError, TraceError
from diffc.ir.aval import FLOATS
from diffc.ir.graph import Operand
from diffc.trace import operands as o
from diffc.trace import promote
from diffc.trace.arguments import Arg, arg, array_of, default_dtype, operand, tracer
from diffc.trace.location import line
from diffc.trace.operands import Shape
from diffc.trace.table import implements
from diffc.trace.tracer import Tracer, copy_of, read, view, wrap, wrap_array, write
from diffc.trace.views import Spread


@implements("zeros", "empty")
def zeros(shape: Any, dtype: Any = float, order: str = "C") -> Tracer:
    """Zeros; ``np.empty`` too, as undefined memory has no value."""
    return wrap_array(o.fill(0, promote.dtype_arg(dtype), o.shape_of_arg(shape)))


@implements("ones")
def ones(shape: Any, dtype: Any = None, order: str = "C") -> Tracer:
    """Ones."""
    return wrap_array(o.fill(1, promote.dtype_arg(dtype or float), o.shape_of_arg(shape)))


@implements("full")
def full(shape: Any, fill_value: Any, dtype: Any = None, order: str = "C") -> Tracer:
    """An array of one value."""
    value = arg(fill_value, "np.full")
    found = default_dtype(value.key) if dtype is None else promote.dtype_arg(dtype)
    return wrap_array(value.to(found, o.shape_of_arg(shape)))


def _like(x: Any, value: Any, dtype: Any, shape: Any) -> Tracer:
    model = arg(x, "np.*_like")
    found = default_dtype(model.key) if dtype is None else promote.dtype_arg(dtype)
    dims = model.shape if shape is None else o.shape_of_arg(shape)
    return wrap_array(arg(value).to(found, dims))


@implements("zeros_like", "empty_like")
def zeros_like(
    a: Any, dtype: Any = None, order: str = "K", subok: bool = True, shape: Any = None
) -> Tracer:
    """Zeros of the shape and dtype of another array."""
    return _like(a, 0, dtype, shape)


@implements("ones_like")
def ones_like(
    a: Any, dtype: Any = None, order: str = "K", subok: bool = True, shape: Any = None
) -> Tracer:
    """Ones of the shape and dtype of another array."""
    return _like(a, 1, dtype, shape)


@implements("full_like")
def full_like(
    a: Any,
    fill_value: Any,
    dtype: Any = None,
    order: str = "K",
    subok: bool = True,
    shape: Any = None,
) -> Tracer:
    """One value in the shape and dtype of another array."""
    return _like(a, fill_value, dtype, shape)


@implements("array")
def array(
    object: Any,
    dtype: Any = None,
    *,
    copy: Any = True,
    order: str = "K",
    subok: bool = False,
    ndmin: int = 0,
) -> Tracer:
    """An array of its own from anything like an array; tracers in lists are stacked."""
    found = None if dtype is None else promote.dtype_arg(dtype)
    if isinstance(object, (list, tuple)):
        result = array_of(object, found)
        if found is not None and result.aval.dtype != found:
            result = wrap_array(o.cast(read(result), found))
    else:
        source = arg(object, "np.array")
        if copy is not True and isinstance(source.source, Tracer) and _is(source.source, found):
            result = source.source
        else:
            result = wrap_array(source.to(found or default_dtype(source.key)))
    if result.ndim < ndmin:
        shape = (*(1 for _ in range(ndmin - result.ndim)), *result.shape)
        result = wrap_array(o.reshape(read(result), shape))
    return result


def _is(x: Tracer, dtype: str | None) -> bool:
    return not x.scalar and (dtype is None or x.aval.dtype == dtype)


@implements("asarray", "asanyarray", "ascontiguousarray", "asfortranarray")
def asarray(a: Any, dtype: Any = None, order: Any = None, *, copy: Any = None) -> Tracer:
    """The array itself if it is one already."""
    return array(a, dtype, copy=True if copy else None)


@implements("asarray_chkfinite")
def asarray_chkfinite(a: Any, dtype: Any = None, order: Any = None) -> Tracer:
    """Not traced.

    Raises:
        TraceError: always.
    """
    raise TraceError("np.asarray_chkfinite asks for values", location=line(), hint="np.asarray")


@implements("copy", "ndarray.copy")
def copy(a: Any, order: str = "K", subok: bool = False) -> Tracer:
    """An array of its own with the same value."""
    return wrap_array(operand(a, "np.copy"))


@implements("astype")
def astype(x: Any, dtype: Any, /, *, copy: bool = True, device: Any = None) -> Tracer:
    """Another dtype."""
    source = tracer(x, "np.astype")
    found = promote.dtype_arg(dtype)
    if not copy and found == source.aval.dtype and not source.weak:
        return source
    result = copy_of(source)
    if found == source.aval.dtype:
        result.weak = False
        return result
    value = o.cast(read(source), found)
    return wrap(value) if source.scalar else wrap_array(value)


@implements("copyto")
def copyto(dst: Any, src: Any, casting: str = "same_kind", where: Any = True) -> None:
    """Overwrites an array, where a mask says so."""
    from diffc.trace.tracer import store

    if where is True:
        store(dst, tracer(src), "np.copyto")
        return
    value = arg(src).to(dst.aval.dtype, dst.shape)
    store(dst, wrap(o.select(arg(where).to("bool", dst.shape), value, read(dst))), "np.copyto")


@implements("arange")
def arange(start: Any, stop: Any = None, step: Any = 1, dtype: Any = None, **_: Any) -> Tracer:
    """Evenly spaced numbers by step; the length must be known.

    Raises:
        TraceError: the bounds depend on traced values.
    """
    if stop is None:
        start, stop = 0, start
    first, last, by = (_number(x) for x in (start, stop, step))
    empty: Any = np.arange
    model = empty(first * 0, last * 0, by, dtype)  # for the dtype alone
    name = promote.dtype_arg(model.dtype)
    size = max(0, math.ceil((last - first) / by))
    positions = o.iota(name, (size,), 0)
    # NumPy's own step: the difference of the first two elements in their dtype.
    scalar = model.dtype.type
    with np.errstate(all="ignore"):
        origin = scalar(first)
        delta = scalar(scalar(first + by) - origin)
    return wrap_array(_affine(positions, delta.item(), origin.item()))


def _affine(x: Operand, scale: Any, offset: Any) -> Operand:
    if x.aval.shape == (0,):
        return o.fill(0, x.aval.dtype, (0,))
    if scale != 1:
        x = o.emit("mul", x, o.fill(scale, x.aval.dtype, x.aval.shape))
    if offset != 0:
        x = o.emit("add", x, o.fill(offset, x.aval.dtype, x.aval.shape))
    return x


def _number(x: Any) -> Any:
    """A Python number; known tracers give their value."""
    return x.item() if isinstance(x, (Tracer, np.generic, np.ndarray)) else x


@implements("linspace")
def linspace(
    start: Any,
    stop: Any,
    num: Any = 50,
    endpoint: bool = True,
    retstep: bool = False,
    dtype: Any = None,
    axis: int = 0,
) -> Any:
    """Evenly spaced numbers by count, between numbers or arrays, known or not."""
    count = operator.index(num)
    div = count - 1 if endpoint else count
    first, last = tracer(start), tracer(stop)
    kept = promote.common((_float_key(first), _float_key(last)))
    shape = o.common_shape([first.shape, last.shape], "np.linspace")
    x, y = (Arg(kept, a.shape, a).to(kept, shape) for a in (first, last))
    whole = (count, *shape)
    step = o.emit("div", o.emit("sub", y, x), o.fill(max(div, 1), kept, shape))
    tail = tuple(range(1, len(whole)))
    result: Operand = o.fill(0, kept, whole)
    if count:
        ramp = o.emit("mul", o.iota(kept, whole, 0), o.spread(step, whole, tail))
        result = o.emit("add", ramp, o.spread(x, whole, tail))
    if endpoint and count > 1:
        last_row = o.reshape(y, (1, *shape))
        result = o.concat([o.slice_axis(result, 0, 0, count - 1), last_row], 0)
    if dtype is not None:
        name = promote.dtype_arg(dtype)
        result = o.cast(o.emit("floor", result) if name not in FLOATS else result, name)
    if axis:
        order = list(range(1, len(whole)))
        order.insert(o.axis_of(axis, len(whole)), 0)
        result = o.transpose(result, tuple(order))
    array_ = wrap_array(result)
    return (array_, wrap(step)) if retstep else array_


def _float_key(x: Tracer) -> str:
    return x.aval.dtype if x.aval.is_float else "f64"


@implements("logspace")
def logspace(
    start: Any, stop: Any, num: Any = 50, endpoint: bool = True, base: Any = 10.0, dtype: Any = None
) -> Any:
    """Powers of ``base`` with evenly spaced exponents."""
    found = base ** linspace(start, stop, num, endpoint)
    return found if dtype is None else found.astype(dtype)


def band(shape: Shape, offset: int, compare: str) -> Operand:
    """The mask of the last two axes: ``compare(column, row + offset)``."""
    rank = len(shape)
    rows = o.iota("i64", shape, rank - 2)
    columns = o.iota("i64", shape, rank - 1)
    if offset:
        rows = o.emit("add", rows, o.fill(offset, "i64", shape))
    return o.emit(compare, columns, rows)


@implements("eye")
def eye(N: Any, M: Any = None, k: Any = 0, dtype: Any = float, order: str = "C") -> Tracer:
    """Ones on a diagonal."""
    rows = operator.index(N)
    shape = (rows, rows if M is None else operator.index(M))
    return wrap_array(o.cast(band(shape, operator.index(k), "eq"), promote.dtype_arg(dtype)))


@implements("identity")
def identity(n: Any, dtype: Any = None) -> Tracer:
    """The identity matrix."""
    return eye(n, dtype=dtype or float)


@implements("tri")
def tri(N: Any, M: Any = None, k: Any = 0, dtype: Any = float) -> Tracer:
    """Ones at and below a diagonal."""
    rows = operator.index(N)
    shape = (rows, rows if M is None else operator.index(M))
    return wrap_array(o.cast(band(shape, operator.index(k), "le"), promote.dtype_arg(dtype)))


def _triangle(m: Any, k: Any, compare: str) -> Tracer:
    x = operand(m, "np.tril")
    if x.aval.ndim == 0:
        raise ShapeError(f"np.tril and np.triu need matrices, not {x.aval}", location=line())
    if x.aval.ndim == 1:  # a row for each row of the triangle
        x = o.broadcast(x, (*x.aval.shape, *x.aval.shape))
    mask = band(x.aval.shape[-2:], operator.index(k), compare)
    rank = x.aval.ndim
    wide = o.spread(mask, x.aval.shape, (rank - 2, rank - 1))
    return wrap_array(o.select(wide, x, o.fill(0, x.aval.dtype, x.aval.shape)))


@implements("tril")
def tril(m: Any, k: Any = 0) -> Tracer:
    """The lower triangle, zeros above."""
    return _triangle(m, k, "le")


@implements("triu")
def triu(m: Any, k: Any = 0) -> Tracer:
    """The upper triangle, zeros below."""
    return _triangle(m, k, "ge")


@implements("indices")
def indices(dimensions: Any, dtype: Any = int, sparse: bool = False) -> Any:
    """Positions along each axis."""
    shape = o.shape_of_arg(dimensions)
    name = promote.dtype_arg(dtype)
    if sparse:
        return tuple(
            wrap_array(o.reshape(o.iota(name, (dim,), 0), _only(len(shape), axis, dim)))
            for axis, dim in enumerate(shape)
        )
    grids = [o.reshape(o.iota(name, shape, axis), (1, *shape)) for axis in range(len(shape))]
    return wrap_array(o.concat(grids, 0))


def _only(rank: int, axis: int, dim: Any) -> Shape:
    return tuple(dim if i == axis else 1 for i in range(rank))


@implements("meshgrid")
def meshgrid(*xi: Any, copy: bool = True, sparse: bool = False, indexing: str = "xy") -> Any:
    """Coordinate arrays of a grid."""
    rank = len(xi)
    order = list(range(rank))
    if indexing == "xy" and rank > 1:
        order[:2] = [1, 0]
    lines = [o.reshape(v, (v.aval.size,)) for v in map(operand, xi)]
    shape: list[Any] = [1] * rank
    for position, axis in enumerate(order):
        shape[axis] = lines[position].aval.shape[0]
    found = []
    for position, axis in enumerate(order):
        value = lines[position]
        if sparse:
            value = o.reshape(value, _only(rank, axis, shape[axis]))
        else:
            value = o.spread(value, tuple(shape), (axis,))
        found.append(wrap_array(value))
    return tuple(found)


@implements("fromfunction")
def fromfunction(function: Any, shape: Any, *, dtype: Any = float, **kwargs: Any) -> Any:
    """A function of the positions."""
    dims = o.shape_of_arg(shape)
    name = promote.dtype_arg(dtype)
    return function(*(wrap(o.iota(name, dims, axis)) for axis in range(len(dims))), **kwargs)


@implements("diag_indices")
def diag_indices(n: Any, ndim: int = 2) -> tuple[Tracer, ...]:
    """The positions of the main diagonal."""
    positions = wrap_array(o.iota("i64", (operator.index(n),), 0))
    return (positions,) * ndim


@implements("fill_diagonal")
def fill_diagonal(a: Any, val: Any, wrap: bool = False) -> None:
    """Overwrites the main diagonal of a matrix."""
    target = tracer(a)
    if target.ndim != 2 or wrap:
        raise TraceError("np.fill_diagonal can be traced for matrices", location=line())
    mask = band(target.shape, 0, "eq")
    value = arg(val).to(target.aval.dtype, target.shape)
    write(target, o.select(mask, value, read(target)))


@implements("broadcast_to")
def broadcast_to(array: Any, shape: Any, subok: bool = False) -> Tracer:
    """A read-only view with another shape."""
    x = tracer(array)
    wanted = o.shape_of_arg(shape)
    if o.common_shape([x.shape, wanted], "np.broadcast_to") != wanted:
        raise ShapeError(
            f"{x.aval} does not broadcast to {o.text_of_shape(wanted)}", location=line()
        )
    return view(x, Spread(wanted), wanted)


@implements("broadcast_arrays")
def broadcast_arrays(*args: Any, subok: bool = False) -> tuple[Tracer, ...]:
    """Views with the common shape."""
    found = [tracer(x) for x in args]
    shape = o.common_shape([x.shape for x in found], "np.broadcast_arrays")
    return tuple(view(x, Spread(shape), shape) for x in found)
