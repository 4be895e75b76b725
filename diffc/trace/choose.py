"""Functions that choose, order and look up elements; tests and roundings composed of ufuncs."""

from __future__ import annotations

from typing import Any

import numpy as np

from diffc.errors import ShapeError, TraceError, UsageError
from diffc.ir.aval import DTYPES, FLOATS, limits
from diffc.ir.graph import Operand
from diffc.trace import operands as o
from diffc.trace import promote
from diffc.trace.arguments import NotKnown, arg, broadcast_operands, evaluated, operand, tracer
from diffc.trace.indexing import getitem, setitem
from diffc.trace.location import line
from diffc.trace.operands import Shape
from diffc.trace.shapes import moveaxis, ravel, reshape
from diffc.trace.table import FUNCTIONS, implements
from diffc.trace.tracer import Tracer, read, store, wrap, wrap_array, write


@implements("where")
def where(condition: Any, x: Any = None, y: Any = None, /) -> Any:
    """``x`` where the condition holds, else ``y``.

    Raises:
        TraceError: only a condition is given; the number of positions depends on values.
    """
    if x is None or y is None:
        try:
            return evaluated(np.where, (condition,), {})
        except NotKnown:
            pass
        raise TraceError(
            "np.where(condition) gives positions, whose number depends on values",
            location=line(),
            hint="use np.where(condition, x, y)",
        )
    test, first, second = arg(condition, "np.where"), arg(x, "np.where"), arg(y, "np.where")
    dtype = promote.common((first.key, second.key))
    shape = o.common_shape([test.shape, first.shape, second.shape], "np.where")
    value = o.select(test.to("bool", shape), first.to(dtype, shape), second.to(dtype, shape))
    return wrap(value) if not shape else wrap_array(value)


@implements("nonzero", "argwhere", "flatnonzero", "compress", "extract")
def nonzero(*args: Any, **kwargs: Any) -> Any:
    """Not traced.

    Raises:
        TraceError: always: the number of elements depends on values.
    """
    raise TraceError(
        "the number of elements that fulfil a traced condition is not known",
        location=line(),
        hint="use np.where(condition, x, 0), or find the positions outside the traced function",
    )


@implements("select")
def select(condlist: Any, choicelist: Any, default: Any = 0) -> Any:
    """The first choice whose condition holds."""
    if len(condlist) != len(choicelist) or not condlist:
        raise ShapeError("np.select: as many conditions as choices, at least one", location=line())
    values = [arg(c, "np.select") for c in (*choicelist, default)]
    tests = [arg(c, "np.select") for c in condlist]
    dtype = promote.common(tuple(v.key for v in values))
    shape = o.common_shape([v.shape for v in values] + [t.shape for t in tests], "np.select")
    found = values[-1].to(dtype, shape)
    for test, value in zip(reversed(tests), reversed(values[:-1]), strict=True):
        found = o.select(test.to("bool", shape), value.to(dtype, shape), found)
    return wrap(found)


@implements("piecewise")
def piecewise(x: Any, condlist: Any, funclist: Any) -> Any:
    """Functions or numbers by condition, a last one for the rest."""
    a = tracer(x, "np.piecewise")
    conditions = list(condlist)
    values = [f(a) if callable(f) else f for f in funclist]
    found: Any = values[-1] if len(values) > len(conditions) else 0
    for test, value in zip(conditions, values, strict=False):
        found = where(test, value, found)
    return astype_like(found, a)


def astype_like(x: Any, model: Tracer) -> Tracer:
    """``x`` in the dtype of ``model``."""
    return wrap(arg(x).to(model.aval.dtype, model.shape))


@implements("clip")
def clip(
    a: Any,
    a_min: Any = None,
    a_max: Any = None,
    out: Any = None,
    *,
    min: Any = None,
    max: Any = None,
) -> Any:
    """Not below the least and not above the greatest."""
    if out is not None:
        store(out, clip(a, a_min, a_max, min=min, max=max), "np.clip(..., out=)")
        return out
    low = a_min if min is None else min
    high = a_max if max is None else max
    call = FUNCTIONS["__operator__"]
    found: Any = tracer(a, "np.clip")
    keys = tuple(arg(v).key for v in (a, low, high) if v is not None)
    dtype = promote.common(keys)
    found = found if found.aval.dtype == dtype else found.astype(DTYPES[dtype])
    if low is not None:
        found = call(np.maximum, found, low)
    if high is not None:
        found = call(np.minimum, found, high)
    return found


@implements("round", "around")
def round(a: Any, decimals: int = 0) -> Any:
    """To so many decimals, halves to even."""
    x = operand(a, "np.round")
    if x.aval.dtype == "bool":
        x = o.cast(x, "f16")
    if x.aval.dtype not in FLOATS:
        if decimals < 0:
            raise TraceError("np.round of integers to negative decimals", location=line())
        return wrap(x)
    if decimals == 0:
        return wrap(o.emit("round", x))
    scale = o.fill(10.0 ** abs(decimals), x.aval.dtype, x.aval.shape)
    there, back = ("mul", "div") if decimals > 0 else ("div", "mul")
    return wrap(o.emit(back, o.emit("round", o.emit(there, x, scale)), scale))


@implements("fix")
def fix(x: Any) -> Any:
    """Towards zero."""
    return FUNCTIONS["__operator__"](np.trunc, tracer(x))


@implements("nan_to_num")
def nan_to_num(
    x: Any, copy: bool = True, nan: Any = 0.0, posinf: Any = None, neginf: Any = None
) -> Tracer:
    """Numbers in place of nan and infinities."""
    value = operand(x, "np.nan_to_num")
    if value.aval.dtype not in FLOATS:
        return wrap(value)
    info = limits(value.aval.numpy)
    infinite = o.emit("is_inf", value)
    zero = o.fill(0, value.aval.dtype, value.aval.shape)
    above = o.emit("gt", value, zero)
    high = arg(float(info.max) if posinf is None else posinf).to(value.aval.dtype, value.aval.shape)
    low = arg(float(info.min) if neginf is None else neginf).to(value.aval.dtype, value.aval.shape)
    ends = o.select(above, high, low)
    found = o.select(infinite, ends, value)
    number = arg(nan).to(value.aval.dtype, value.aval.shape)
    return wrap(o.select(o.emit("is_nan", value), number, found))


@implements("sinc")
def sinc(x: Any) -> Tracer:
    """sin(pi x) / (pi x)."""
    value = operand(x, "np.sinc")
    value = value if value.aval.is_float else o.cast(value, "f64")
    aval = value.aval
    zero = o.emit("eq", value, o.fill(0, aval.dtype, aval.shape))
    y = o.emit("mul", value, o.fill(np.pi, aval.dtype, aval.shape))
    safe = o.select(zero, o.fill(1, aval.dtype, aval.shape), y)
    quotient = o.emit("div", o.emit("sin", safe), safe)
    return wrap(o.select(zero, o.fill(1, aval.dtype, aval.shape), quotient))


# --- comparisons of whole arrays


@implements("isclose")
def isclose(a: Any, b: Any, rtol: Any = 1e-5, atol: Any = 1e-8, equal_nan: bool = False) -> Any:
    """|a - b| <= atol + rtol |b|; equal infinities are close."""
    x, y = (
        wrap(v if v.aval.is_float else o.cast(v, "f64")) for v in broadcast_operands([a, b], "")
    )
    near: Any = abs(x - y) <= atol + rtol * abs(y)  # type: ignore[operator, arg-type]  # operators come from a table
    finite = wrap(o.emit("is_finite", read(y)))
    found = (near & finite) | (x == y)
    if equal_nan:
        nans = (wrap(o.emit("is_nan", read(v))) for v in (x, y))
        first, second = nans
        found = found | (first & second)  # type: ignore[operator]  # operators come from a table
    return found


@implements("allclose")
def allclose(a: Any, b: Any, rtol: Any = 1e-5, atol: Any = 1e-8, equal_nan: bool = False) -> Any:
    """Whether all elements are close."""
    return FUNCTIONS["all"](isclose(a, b, rtol, atol, equal_nan))


@implements("array_equal")
def array_equal(a1: Any, a2: Any, equal_nan: bool = False) -> Any:
    """Whether shapes and elements are equal."""
    x, y = tracer(a1), tracer(a2)
    if x.shape != y.shape:
        return False
    return FUNCTIONS["all"](x == y)


@implements("iscomplexobj")
def iscomplexobj(x: Any) -> bool:
    """False: diffc's dtypes are real."""
    return False


@implements("isrealobj")
def isrealobj(x: Any) -> bool:
    """True: diffc's dtypes are real."""
    return True


@implements("isreal")
def isreal(x: Any) -> Tracer:
    """True everywhere."""
    return wrap(o.fill(True, "bool", tracer(x).shape))


@implements("real", "real_if_close")
def real(val: Any) -> Tracer:
    """The array itself."""
    return tracer(val)


# --- looking up


@implements("take")
def take(a: Any, indices: Any, axis: Any = None, mode: str = "raise") -> Any:
    """Elements at positions along an axis."""
    x = tracer(a, "np.take")
    if axis is None:
        x, axis = ravel(x), 0
    place = o.axis_of(axis, x.ndim)
    positions = indices
    if mode != "raise":
        dim: Any = x.shape[place]
        index = tracer(indices)
        positions = clip(index, 0, dim - 1) if mode == "clip" else index % dim
    elif isinstance(indices, (tuple, list)):
        positions = FUNCTIONS["array"](indices)
    return getitem(x, (*(slice(None) for _ in range(place)), positions))


@implements("take_along_axis")
def take_along_axis(arr: Any, indices: Any, axis: Any = -1) -> Any:
    """Elements at positions that an array of the same rank gives along one axis."""
    x, index = tracer(arr), tracer(indices)
    if axis is None:
        x, axis = ravel(x), 0
    return getitem(x, _along_axis(x, index, axis))


@implements("put_along_axis")
def put_along_axis(arr: Any, indices: Any, values: Any, axis: Any) -> None:
    """Writes what ``take_along_axis`` reads."""
    x, index = tracer(arr), tracer(indices)
    setitem(x, _along_axis(x, index, axis), values)


def _along_axis(x: Tracer, index: Tracer, axis: Any) -> tuple[Any, ...]:
    if index.ndim != x.ndim:
        raise ShapeError(
            f"indices {index.aval} for an array {x.aval}: equal ranks", location=line()
        )
    place = o.axis_of(axis, x.ndim)
    key: list[Any] = []
    for i, dim in enumerate(x.shape):
        if i == place:
            key.append(index)
            continue
        shape = tuple(dim if j == i else 1 for j in range(x.ndim))
        key.append(wrap_array(o.reshape(o.iota("i64", (dim,), 0), shape)))
    return tuple(key)


@implements("put")
def put(a: Any, ind: Any, v: Any, mode: str = "raise") -> None:
    """Writes elements of the flattened array."""
    if mode != "raise":
        raise TraceError(f"np.put(mode={mode!r}) can't be traced", location=line())
    x = tracer(a)
    flat = FUNCTIONS["flatten"](x)
    setitem(flat, FUNCTIONS["ravel"](ind), v)
    write(x, o.reshape(read(flat), x.shape))


@implements("choose")
def choose(a: Any, choices: Any) -> Any:
    """By number, one of several arrays; numbers beyond them are clipped."""
    index = tracer(a, "np.choose")
    found: Any = choices[-1]
    for number in reversed(range(len(choices) - 1)):
        found = where(index <= number, choices[number], found)  # type: ignore[operator]  # operators come from a table
    return found


@implements("interp")
def interp(x: Any, xp: Any, fp: Any, left: Any = None, right: Any = None) -> Any:
    """Piecewise linear interpolation at increasing points."""
    at, points, values = (tracer(v, "np.interp") for v in (x, xp, fp))
    wide = reshape(at, (*at.shape, 1))
    count: Any = points.shape[0]
    below = FUNCTIONS["sum"]((wide >= points).astype(np.int64), -1)  # type: ignore[operator]  # operators come from a table
    low = clip(below - 1, 0, max(count - 2, 0))
    high = clip(below, 1 if count > 1 else 0, count - 1)
    x0, x1, y0, y1 = (getitem(v, i) for v in (points, values) for i in (low, high))
    slope: Any = (y1 - y0) / (x1 - x0) if count > 1 else 0.0
    inner: Any = y0 + slope * (at - x0)
    known = where(at == x0, y0, y1 + slope * (at - x1))  # where that is not finite
    known = where((known != known) & (y0 == y1), y0, known)
    inner = where((inner != inner) & (at == at), known, inner)
    found = where(at < points[0], values[0] if left is None else left, inner)
    found = where(at >= points[-1], values[-1], found)
    if right is not None:
        found = where(at > points[-1], right, found)
    return found


# --- order


def _sorted(a: Any, axis: Any, name: str) -> Operand:
    x = tracer(a, f"np.{name}")
    if axis is None:
        x, axis = ravel(x), -1
    return o.emit(name, read(x), axis=o.axis_of(axis, x.ndim))


@implements("sort")
def sort(
    a: Any, axis: Any = -1, kind: Any = None, order: Any = None, *, stable: Any = None
) -> Tracer:
    """Ascending, nan last."""
    return wrap_array(_sorted(a, axis, "sort"))


@implements("argsort")
def argsort(
    a: Any, axis: Any = -1, kind: Any = None, order: Any = None, *, stable: Any = None
) -> Tracer:
    """Positions in ascending order; stable."""
    return wrap_array(_sorted(a, axis, "argsort"))


@implements("ndarray.sort")
def sort_in_place(a: Tracer, axis: Any = -1, kind: Any = None, order: Any = None) -> None:
    """Ascending, in place."""
    write(a, _sorted(a, axis, "sort"))


def _ordered(a: Any, what: str, axis: Any) -> tuple[Tracer, Shape]:
    """Elements in increasing order along the last axis, and the shape with ones for its axes."""
    x = tracer(a, what)
    axes = o.axes_of(axis, x.ndim)
    rest = [i for i in range(x.ndim) if i not in axes]
    front = tuple(x.shape[i] for i in rest)
    count: Any = 1
    for i in axes:
        count = count * x.shape[i]
    flat = reshape(moveaxis(x, rest, range(len(rest))), (*front, count))
    kept = tuple(1 if i in axes else dim for i, dim in enumerate(x.shape))
    return wrap(_sorted(flat, -1, "sort")), kept


def _or_nan(ordered: Tracer, found: Any) -> Any:
    """What was found in ordered rows; nan where they have one, which is last."""
    if not ordered.aval.is_float:
        return found
    last: Any = ordered[..., -1]
    return where(last != last, np.nan, found).astype(found.dtype)


@implements("median")
def median(a: Any, axis: Any = None, *, keepdims: bool = False) -> Any:
    """The middle of the sorted elements, the mean of the middle two; nan wins."""
    ordered, kept = _ordered(a, "np.median", axis)
    n: Any = ordered.shape[-1]
    middle: Any = FUNCTIONS["mean"](ordered[..., max(n - 1, 0) // 2 : n // 2 + 1], -1)
    if n:
        middle = _or_nan(ordered, middle)
    return reshape(middle, kept) if keepdims else middle


@implements("quantile")
def quantile(
    a: Any, q: Any, axis: Any = None, *, method: str = "linear", keepdims: bool = False
) -> Any:
    """Linear interpolation between sorted elements; ``q`` must be known."""
    if method != "linear":
        raise TraceError(f"np.quantile(method={method!r}) can't be traced", location=line())
    ordered, kept = _ordered(a, "np.quantile", axis)
    is_weak = type(q) in (int, float) and ordered.aval.is_float
    levels = np.asarray(q, ordered.dtype if is_weak else None)
    if not np.all((levels >= 0) & (levels <= 1)):
        raise UsageError(
            f"np.quantile at {q}: levels are from 0 to 1 (percentiles from 0 to 100)",
            location=line(),
        )
    n: Any = ordered.shape[-1]
    if n == 0:
        raise ShapeError(f"np.quantile of no elements: {tracer(a).aval}", location=line())
    found = []
    for level in levels.ravel().tolist():
        value = _or_nan(ordered, _between(ordered, level * (n - 1), levels.dtype))
        found.append(reshape(value, kept) if keepdims else value)
    if not levels.shape:
        return found[0]
    stacked = FUNCTIONS["stack"](found, 0)
    return reshape(stacked, (*levels.shape, *found[0].shape))


def _between(ordered: Tracer, place: float, levels: np.dtype[Any]) -> Any:
    """The elements at a place between two; at one of them, where levels are integers."""
    low = int(np.floor(place))
    first: Any = ordered[..., low]
    if levels.kind != "f":
        return first
    dtype, share = np.result_type(ordered.dtype, levels), float(place - low)
    last: Any = ordered[..., low : low + 2][..., -1]
    if not ordered.aval.is_float:
        first, last = first.astype(dtype), last.astype(dtype)
    apart = (last - first).astype(dtype)
    if share < 0.5:  # from the nearer end
        return first.astype(dtype) + apart * share
    return last.astype(dtype) - apart * (1 - share)


@implements("percentile")
def percentile(
    a: Any, q: Any, axis: Any = None, *, method: str = "linear", keepdims: bool = False
) -> Any:
    """As ``np.quantile``, in percent."""
    levels = q / 100 if type(q) in (int, float) else np.true_divide(q, 100)
    return quantile(a, levels, axis, method=method, keepdims=keepdims)


@implements("searchsorted")
def searchsorted(a: Any, v: Any, side: str = "left", sorter: Any = None) -> Any:
    """Where to insert: counts the elements before, which is quadratic but has no branches."""
    if sorter is not None:
        raise TraceError("np.searchsorted(sorter=) can't be traced", location=line())
    x, values = tracer(a), tracer(v)
    wide = reshape(values, (*values.shape, 1))
    return _counted(_comes_before(x, wide) if side == "left" else ~_comes_before(wide, x))


def _comes_before(x: Any, y: Any) -> Any:
    """Whether an element is sorted before another: nan are last."""
    below = x < y
    if not (x.aval.is_float or y.aval.is_float):
        return below
    return below | ((y != y) & (x == x))


def _counted(mask: Any) -> Any:
    return FUNCTIONS["sum"](mask.astype(np.int64), -1)


@implements("digitize")
def digitize(x: Any, bins: Any, right: bool = False) -> Any:
    """The number of each element's bin, for bins that increase, or decrease."""
    values, edges = tracer(x), tracer(bins)
    wide = reshape(values, (*values.shape, 1))
    if edges.shape[0] == 0:
        return searchsorted(edges, values)
    is_falling: Any = edges[0] > edges[-1]
    if right:
        before = _comes_before(edges, wide)
        return _counted(where(is_falling, ~before, before))
    after = _comes_before(wide, edges)
    return _counted(where(is_falling, after, ~after))


@implements("polyval")
def polyval(p: Any, x: Any) -> Any:
    """A polynomial by Horner's scheme, highest power first."""
    point = tracer(x)
    found: Any = FUNCTIONS["zeros_like"](point)
    for coefficient in tracer(p):
        found = found * point + coefficient
    return found


@implements("shape")
def shape(a: Any) -> Any:
    """Dimensions."""
    return arg(a).shape


@implements("ndim")
def ndim(a: Any) -> int:
    """Number of axes."""
    return len(arg(a).shape)


@implements("size")
def size(a: Any, axis: Any = None) -> Any:
    """Number of elements."""
    x = tracer(a)
    return x.size if axis is None else x.shape[axis]
