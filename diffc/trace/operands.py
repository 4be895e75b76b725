"""Operands of the current trace: one short function per primitive, with the folding of literals.

Everything NumPy-like is composed of these. They take and give operands (values and literals), not
tracers, and like the ops they neither promote nor broadcast by themselves.
"""

from __future__ import annotations

import itertools
import operator
from collections.abc import Sequence
from typing import Any

import numpy as np

from diffc.errors import DiffcError, DtypeError, ShapeError, TraceError
from diffc.ir.aval import DTYPES, as_dtype, aval, dtype_name
from diffc.ir.graph import Graph, Literal, Operand, Value, literal
from diffc.ir.index import Dim, Expr
from diffc.trace.context import current
from diffc.trace.location import line

Shape = tuple[Dim, ...]


def emit(name: str, *operands: Operand, **params: Any) -> Value:
    """The only result of op ``name``."""
    return current().emit(name, operands, params)[0]


def emit_all(
    name: str, operands: Sequence[Operand], params: dict[str, Any], regions: tuple[Graph, ...] = ()
) -> tuple[Value, ...]:
    """All results of op ``name``."""
    return current().emit(name, tuple(operands), params, regions)


def fill(value: Any, dtype: str, shape: Shape = ()) -> Literal:
    """A literal of this dtype and shape.

    Raises:
        DtypeError: an integer that the dtype can't hold.
    """
    try:
        return literal(value, aval(dtype, shape))
    except (OverflowError, TypeError, ValueError) as error:
        raise DtypeError(f"{value!r} is no {DTYPES[dtype]}: {error}", location=line()) from None


def constant(array: np.ndarray[Any, Any]) -> Operand:
    """A constant of the program: a literal if all elements are the same, bit for bit."""
    try:
        name = dtype_name(array.dtype)
    except ValueError as error:
        raise DtypeError(str(error), location=line()) from None
    array = np.ascontiguousarray(array, DTYPES[name]).reshape(array.shape)
    data = array.tobytes()
    if array.size:
        first = data[: array.itemsize]
        if data == first * array.size:
            return fill(array.flat[0], name, array.shape)
    elif array.size == 0:
        return fill(0, name, array.shape)
    return emit("constant", dtype=name, shape=array.shape, data=data)


def cast(x: Operand, dtype: str) -> Operand:
    """``x`` with another dtype."""
    if x.aval.dtype == dtype:
        return x
    if isinstance(x, Literal):
        with np.errstate(all="ignore"):
            value = as_dtype(np.asarray(x.value, x.aval.numpy), dtype)[()]
        return literal(value, x.aval.with_dtype(dtype))
    return emit("convert", x, dtype=dtype)


def reshape(x: Operand, shape: Shape) -> Operand:
    """``x`` with another shape of the same size."""
    if x.aval.shape == shape:
        return x
    if isinstance(x, Literal):
        return literal(x.value, x.aval.with_shape(shape))
    if x.eqn is not None and x.eqn.op.name == "reshape":
        return reshape(x.eqn.operands[0], shape)
    return emit("reshape", x, shape=shape)


def transpose(x: Operand, perm: tuple[int, ...]) -> Operand:
    """``x`` with its axes in the order ``perm``."""
    if perm == tuple(range(len(perm))):
        return x
    if isinstance(x, Literal):
        return literal(x.value, x.aval.with_shape(tuple(x.aval.shape[i] for i in perm)))
    if x.eqn is not None and x.eqn.op.name == "transpose":
        first = x.eqn.params["perm"]
        return transpose(x.eqn.operands[0], tuple(first[i] for i in perm))
    return emit("transpose", x, perm=perm)


def broadcast(x: Operand, shape: Shape) -> Operand:
    """``x`` broadcast to ``shape`` by NumPy's rules, which the caller has checked."""
    own = x.aval.shape
    if own == shape:
        return x
    if isinstance(x, Literal):
        return literal(x.value, x.aval.with_shape(shape))
    offset = len(shape) - len(own)
    axes = tuple(i + offset for i, dim in enumerate(own) if dim == shape[i + offset])
    kept = tuple(shape[i] for i in axes)
    return spread(reshape(x, kept), shape, axes)


def spread(x: Operand, shape: Shape, axes: tuple[int, ...]) -> Operand:
    """The op ``broadcast``: the dims of ``x`` become the dims ``axes`` of ``shape``."""
    if len(axes) == len(shape):
        return x
    if isinstance(x, Literal):
        return literal(x.value, x.aval.with_shape(shape))
    return emit("broadcast", x, shape=shape, axes=axes)


def common_shape(shapes: Sequence[Shape], what: str) -> Shape:
    """The shape to which NumPy broadcasts ``shapes``.

    Raises:
        ShapeError: they don't fit.
    """
    first = shapes[0]
    if all(shape == first for shape in shapes):
        return first
    result: list[Dim] = []
    for dims in itertools.zip_longest(*(reversed(shape) for shape in shapes), fillvalue=1):
        found: Dim = 1
        for dim in dims:
            if found == 1:
                found = dim
            elif dim not in (1, found):
                listed = " and ".join(text_of_shape(shape) for shape in shapes)
                raise ShapeError(
                    f"{what}: shapes {listed} do not broadcast ({found} against {dim})",
                    location=line(),
                    hint="axes are matched from the last; of each pair both are equal, or one is 1",
                )
        result.append(found)
    return tuple(reversed(result))


def text_of_shape(shape: Shape) -> str:
    """A shape as Python prints it."""
    return "(" + ", ".join(map(str, shape)) + (",)" if len(shape) == 1 else ")")


def slice_(x: Operand, start: Shape, stop: Shape, step: tuple[int, ...]) -> Operand:
    """Part of ``x``."""
    dims = x.aval.shape
    if all(
        lo == 0 and hi == dim and s == 1
        for lo, hi, s, dim in zip(start, stop, step, dims, strict=True)
    ):
        return x
    if isinstance(x, Literal):
        sizes = tuple(-((lo - hi) // s) for lo, hi, s in zip(start, stop, step, strict=True))
        return literal(x.value, x.aval.with_shape(sizes))
    return emit("slice", x, start=start, stop=stop, step=step)


def slice_axis(x: Operand, axis: int, start: Dim, stop: Dim, step: int = 1) -> Operand:
    """Part of ``x`` along one axis."""
    ndim = x.aval.ndim
    starts: list[Dim] = [0] * ndim
    stops = list(x.aval.shape)
    steps = [1] * ndim
    starts[axis], stops[axis], steps[axis] = start, stop, step
    return slice_(x, tuple(starts), tuple(stops), tuple(steps))


def reverse(x: Operand, axes: tuple[int, ...]) -> Operand:
    """``x`` with some axes turned around."""
    if not axes or isinstance(x, Literal):
        return x
    return emit("reverse", x, axes=axes)


def pad(x: Operand, value: Operand, low: Shape, high: Shape, interior: tuple[int, ...]) -> Operand:
    """``x`` within a larger array of ``value``."""
    if not any(low) and not any(high) and not any(interior):
        return x
    return emit("pad", x, value, low=low, high=high, interior=interior)


def concat(xs: Sequence[Operand], axis: int) -> Operand:
    """Arrays one after another; empty ones are left out."""
    kept = [x for x in xs if x.aval.shape[axis] != 0] or [xs[0]]
    if len(kept) == 1:
        return kept[0]
    first = kept[0]
    if isinstance(first, Literal) and all(
        isinstance(x, Literal) and literal(x.value, first.aval) is first for x in kept
    ):
        total = sum((x.aval.shape[axis] for x in kept), start=0)
        shape = list(first.aval.shape)
        shape[axis] = total
        return literal(first.value, first.aval.with_shape(tuple(shape)))
    return emit("concat", *kept, axis=axis)


def select(condition: Operand, on_true: Operand, on_false: Operand) -> Operand:
    """Elementwise choice between equal avals."""
    if isinstance(condition, Literal):
        return on_true if condition.value else on_false
    return emit("select", condition, on_true, on_false)


def iota(dtype: str, shape: Shape, axis: int) -> Operand:
    """Positions along ``axis``."""
    return emit("iota", dtype=dtype, shape=shape, axis=axis)


def reduce(name: str, x: Operand, axes: tuple[int, ...]) -> Operand:
    """The reduction ``name`` over ``axes``, which are removed."""
    if not axes:
        return x
    return emit(name, x, axes=axes)


def contract(x: Operand, y: Operand, spec: str) -> Operand:
    """A sum of products, ``spec`` as in einsum."""
    return emit("contract", x, y, spec=spec)


def axis_of(axis: Any, ndim: int) -> int:
    """A non-negative axis.

    Raises:
        ShapeError: out of range.
    """
    index = int(operator.index(axis))
    if not -ndim <= index < ndim:
        raise ShapeError(
            f"axis {index} is out of bounds for an array of {ndim} dimensions", location=line()
        )
    return index % ndim if ndim else 0


def axes_of(axis: Any, ndim: int) -> tuple[int, ...]:
    """Sorted, non-negative axes; None means all."""
    if axis is None:
        return tuple(range(ndim))
    listed = axis if isinstance(axis, (tuple, list)) else (axis,)
    found = sorted(axis_of(a, ndim) for a in listed)
    if len(set(found)) != len(found):
        raise ShapeError(f"axis {axis} names an axis twice", location=line())
    return tuple(found)


def shape_of_arg(shape: Any) -> Shape:
    """A shape argument: an integer or a sequence of integers (or symbolic dimensions)."""
    if isinstance(shape, Expr):
        return (shape,)
    if hasattr(shape, "__index__") and not getattr(shape, "shape", ()):
        return (_dim(shape),)
    try:
        return tuple(_dim(dim) for dim in shape)
    except DiffcError:
        raise
    except TypeError:
        raise TraceError(f"{shape!r} is no shape", location=line()) from None


def _dim(dim: Any) -> Dim:
    if isinstance(dim, Expr):
        return dim
    found: int = operator.index(dim)
    if found < 0:
        raise ShapeError(f"negative dimension {found} in a shape", location=line())
    return found
