"""Sums, means, extrema, cumulative functions: NumPy's default dtypes and keywords."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from diffc.errors import ShapeError, TraceError
from diffc.ir.aval import DTYPES, FLOATS, HALVES, SIGNED, UNSIGNED
from diffc.ir.graph import Operand
from diffc.trace import kinks, promote
from diffc.trace import operands as o
from diffc.trace.arguments import arg, default_dtype, mask_operand, operand, tracer
from diffc.trace.formulas import FORMULAS
from diffc.trace.location import line
from diffc.trace.operands import Shape
from diffc.trace.shapes import ravel
from diffc.trace.table import FUNCTIONS, implements
from diffc.trace.tracer import Tracer, read, wrap, wrap_array

_UNSET: Any = np._NoValue


def _widened(dtype: str) -> str:
    """The dtype in which NumPy sums: at least 64 bits for integers."""
    if dtype == "bool" or dtype in SIGNED:
        return "i64"
    return "u64" if dtype in UNSIGNED else dtype


def _kept(x: Operand, shape: Shape, axes: tuple[int, ...], keepdims: Any) -> Operand:
    if keepdims is True or (keepdims is not _UNSET and keepdims):
        return o.reshape(x, tuple(1 if i in axes else dim for i, dim in enumerate(shape)))
    return x


def _finish(x: Operand, shape: Shape, axes: tuple[int, ...], keepdims: Any) -> Tracer:
    return wrap(_kept(x, shape, axes, keepdims))


def _masked(x: Operand, where: Any, neutral: Any) -> Operand:
    if where is True or where is _UNSET:
        return x
    fill = o.fill(neutral, x.aval.dtype, x.aval.shape)
    return o.select(mask_operand(where, x.aval.shape), x, fill)


def _with_initial(x: Operand, initial: Any, ufunc: np.ufunc) -> Operand:
    if initial is _UNSET or initial is None:
        return x
    start = arg(initial).to(x.aval.dtype, x.aval.shape)
    return FORMULAS[ufunc](x, start)  # type: ignore[no-any-return]  # the table is untyped


def _summed(
    name: str, ufunc: np.ufunc, neutral: int
) -> Callable[[Any, Any, Any, Any, Any, Any], Tracer]:
    def apply(a: Any, axis: Any, dtype: Any, keepdims: Any, initial: Any, where: Any) -> Tracer:
        source = arg(a, f"np.{name}")
        own = default_dtype(source.key)
        wanted = _widened(own) if dtype is None else promote.dtype_arg(dtype)
        x = _masked(source.to(wanted), where, neutral)
        axes = o.axes_of(axis, x.aval.ndim)
        found = o.reduce(name, x, axes)
        return _finish(_with_initial(found, initial, ufunc), x.aval.shape, axes, keepdims)

    return apply


_SUM = _summed("sum", np.add, 0)
_PROD = _summed("prod", np.multiply, 1)


@implements("sum")
def sum(
    a: Any,
    axis: Any = None,
    dtype: Any = None,
    *,
    keepdims: Any = False,
    initial: Any = _UNSET,
    where: Any = True,
) -> Tracer:
    """Sum; integers in 64 bits."""
    return _SUM(a, axis, dtype, keepdims, initial, where)


@implements("prod")
def prod(
    a: Any,
    axis: Any = None,
    dtype: Any = None,
    *,
    keepdims: Any = False,
    initial: Any = _UNSET,
    where: Any = True,
) -> Tracer:
    """Product; integers in 64 bits."""
    return _PROD(a, axis, dtype, keepdims, initial, where)


def _least(dtype: str) -> Any:
    return -np.inf if dtype in FLOATS else np.iinfo(DTYPES[dtype]).min


def _greatest(dtype: str) -> Any:
    return np.inf if dtype in FLOATS else np.iinfo(DTYPES[dtype]).max


def _extremum(name: str, ufunc: np.ufunc, neutral: Callable[[str], Any]) -> Callable[..., Tracer]:
    def apply(
        a: Any,
        axis: Any = None,
        *,
        keepdims: Any = False,
        initial: Any = _UNSET,
        where: Any = True,
    ) -> Tracer:
        x = operand(a, f"np.{name}")
        axes = o.axes_of(axis, x.aval.ndim)
        initial = _UNSET if initial is None else initial
        if x.aval.dtype == "bool":
            number = wrap(o.cast(x, "u8"))
            start = initial if initial is _UNSET else arg(initial).to("bool")
            start = start if start is _UNSET else wrap(o.cast(start, "u8"))
            result = apply(number, axis, keepdims=keepdims, initial=start, where=where)
            return result.astype(bool)
        if where is not True and initial is _UNSET:
            raise ShapeError(f"np.{name} with where= needs initial=", location=line())
        x = _masked(x, where, neutral(x.aval.dtype))
        if initial is not _UNSET and any(x.aval.shape[i] == 0 for i in axes):
            kept = tuple(dim for i, dim in enumerate(x.aval.shape) if i not in axes)
            found: Operand = arg(initial).to(x.aval.dtype, kept)
        else:
            found = _with_initial(kinks.reduced_extremum(name, x, axes), initial, ufunc)
        return _finish(found, x.aval.shape, axes, keepdims)

    apply.__name__ = name
    apply.__doc__ = f"As ``np.{name}``; nan wins."
    return apply


max = implements("max", "amax")(_extremum("max", np.maximum, _least))
min = implements("min", "amin")(_extremum("min", np.minimum, _greatest))


def _logical(name: str, neutral: bool) -> Callable[..., Tracer]:
    def apply(a: Any, axis: Any = None, *, keepdims: Any = False, where: Any = True) -> Tracer:
        x = _masked(arg(a, f"np.{name}").to("bool"), where, neutral)
        axes = o.axes_of(axis, x.aval.ndim)
        return _finish(o.reduce(name, x, axes), x.aval.shape, axes, keepdims)

    apply.__name__ = name
    apply.__doc__ = f"As ``np.{name}``."
    return apply


any_ = implements("any")(_logical("any", False))
all_ = implements("all")(_logical("all", True))


@implements("ptp")
def ptp(a: Any, axis: Any = None, *, keepdims: Any = False) -> Any:
    """Maximum minus minimum."""
    return FUNCTIONS["__operator__"](
        np.subtract, max(a, axis, keepdims=keepdims), min(a, axis, keepdims=keepdims)
    )


@implements("count_nonzero")
def count_nonzero(a: Any, axis: Any = None, *, keepdims: bool = False) -> Tracer:
    """How many elements are not zero."""
    x = o.cast(arg(a, "np.count_nonzero").to("bool") if _is_plain_bool(a) else _nonzero(a), "i64")
    axes = o.axes_of(axis, x.aval.ndim)
    return _finish(o.reduce("sum", x, axes), x.aval.shape, axes, keepdims)


def _is_plain_bool(a: Any) -> bool:
    return arg(a).key == "bool"


def _nonzero(a: Any) -> Operand:
    x = operand(a)
    return o.cast(x, "bool")


# --- means


def _mean_dtype(dtype: str, wanted: Any) -> tuple[str, str]:
    """The dtypes in which the mean is computed and returned."""
    if wanted is not None:
        found = promote.dtype_arg(wanted)
        return found, found
    if dtype not in FLOATS:
        return "f64", "f64"
    return ("f32" if dtype in HALVES else dtype, dtype)


def _count(shape: Shape, axes: tuple[int, ...]) -> Any:
    count: Any = 1
    for axis in axes:
        count = count * shape[axis]
    return count


@implements("mean")
def mean(
    a: Any, axis: Any = None, dtype: Any = None, *, keepdims: Any = False, where: Any = True
) -> Tracer:
    """Arithmetic mean; of integers in f64."""
    source = arg(a, "np.mean")
    inner, outer = _mean_dtype(default_dtype(source.key), dtype)
    x = source.to(inner)
    axes = o.axes_of(axis, x.aval.ndim)
    total = o.reduce("sum", _masked(x, where, 0), axes)
    if where is True:
        divisor = arg(_count(x.aval.shape, axes)).to(inner, total.aval.shape)
    else:
        divisor = o.cast(_counted(where, x.aval.shape, axes), inner)
    return _finish(o.cast(o.emit("div", total, divisor), outer), x.aval.shape, axes, keepdims)


def _counted(where: Any, shape: Shape, axes: tuple[int, ...]) -> Operand:
    return o.reduce("sum", o.cast(mask_operand(where, shape), "i64"), axes)


@implements("average")
def average(
    a: Any, axis: Any = None, weights: Any = None, returned: bool = False, *, keepdims: Any = False
) -> Any:
    """Weighted mean."""
    x = tracer(a, "np.average")
    if weights is None:
        found: Any = mean(x, axis, keepdims=keepdims)
        total: Any = FUNCTIONS["zeros_like"](found) + _count(x.shape, o.axes_of(axis, x.ndim))
        return (found, total) if returned else found
    w = tracer(weights, "np.average")
    if w.shape != x.shape:
        if axis is None or isinstance(axis, tuple) or w.ndim != 1:
            raise ShapeError(
                f"np.average: weights {w.aval} for an array {x.aval}: give the axis",
                location=line(),
            )
        place = o.axis_of(axis, x.ndim)
        w = FUNCTIONS["reshape"](w, tuple(-1 if i == place else 1 for i in range(x.ndim)))
    scale = sum(FUNCTIONS["broadcast_to"](w, x.shape), axis, keepdims=keepdims)
    found = sum(x * w, axis, keepdims=keepdims) / scale  # type: ignore[operator]  # operators come from a table
    return (found, scale) if returned else found


@implements("var")
def var(
    a: Any,
    axis: Any = None,
    dtype: Any = None,
    ddof: Any = 0,
    *,
    keepdims: Any = False,
    where: Any = True,
    correction: Any = _UNSET,
) -> Tracer:
    """Variance: the mean of the squared distance to the mean."""
    source = arg(a, "np.var")
    inner, outer = _mean_dtype(default_dtype(source.key), dtype)
    ddof = ddof if correction is _UNSET else correction
    x = source.to(inner)
    axes = o.axes_of(axis, x.aval.ndim)
    center = read(mean(wrap(x), axes, keepdims=True, where=where))
    distance = o.emit("sub", x, o.broadcast(center, x.aval.shape))
    square = _masked(o.emit("mul", distance, distance), where, 0)
    total = o.reduce("sum", square, axes)
    if where is True:
        degrees = _count(x.aval.shape, axes) - ddof
        known = not isinstance(degrees, (int, float)) or degrees > 0
        divisor = arg(degrees if known else 0).to(inner, total.aval.shape)
    else:
        count = o.cast(_counted(where, x.aval.shape, axes), inner)
        degrees = o.emit("sub", count, o.fill(ddof, inner, count.aval.shape))
        divisor = o.emit("maximum", degrees, o.fill(0, inner, count.aval.shape))
    return _finish(o.cast(o.emit("div", total, divisor), outer), x.aval.shape, axes, keepdims)


@implements("std")
def std(
    a: Any,
    axis: Any = None,
    dtype: Any = None,
    ddof: Any = 0,
    *,
    keepdims: Any = False,
    where: Any = True,
    correction: Any = _UNSET,
) -> Tracer:
    """Standard deviation."""
    found = var(a, axis, dtype, ddof, keepdims=keepdims, where=where, correction=correction)
    return wrap(kinks.length(read(found)))


# --- without nan


def _without_nan(a: Any, neutral: Any) -> tuple[Tracer, Tracer]:
    x = operand(a)
    if not x.aval.is_float:
        return wrap(x), wrap(o.fill(True, "bool", x.aval.shape))
    is_nan = o.emit("is_nan", x)
    chosen = o.select(is_nan, o.fill(neutral, x.aval.dtype, x.aval.shape), x)
    return wrap(chosen), wrap(o.emit("bitwise_not", is_nan))


@implements("nansum")
def nansum(a: Any, axis: Any = None, dtype: Any = None, *, keepdims: Any = False) -> Tracer:
    """Sum of what is not nan."""
    return sum(_without_nan(a, 0)[0], axis, dtype, keepdims=keepdims)


@implements("nanmean")
def nanmean(a: Any, axis: Any = None, dtype: Any = None, *, keepdims: Any = False) -> Tracer:
    """Mean of what is not nan."""
    x, valid = _without_nan(a, 0)
    return mean(x, axis, dtype, keepdims=keepdims, where=valid)


@implements("nanmax")
def nanmax(a: Any, axis: Any = None, *, keepdims: Any = False) -> Any:
    """Maximum of what is not nan; nan where nothing is left."""
    x, valid = _without_nan(a, -np.inf)
    found = max(x, axis, keepdims=keepdims)
    if not found.aval.is_float:
        return found
    return FUNCTIONS["where"](any_(valid, axis, keepdims=keepdims), found, np.nan)


@implements("nanmin")
def nanmin(a: Any, axis: Any = None, *, keepdims: Any = False) -> Any:
    """Minimum of what is not nan; nan where nothing is left."""
    x, valid = _without_nan(a, np.inf)
    found = min(x, axis, keepdims=keepdims)
    if not found.aval.is_float:
        return found
    return FUNCTIONS["where"](any_(valid, axis, keepdims=keepdims), found, np.nan)


# --- positions of extrema


def _position(name: str) -> Callable[..., Tracer]:
    def apply(a: Any, axis: Any = None, *, keepdims: Any = False) -> Tracer:
        x = operand(a, f"np.{name}")
        shape = x.aval.shape
        if x.aval.dtype == "bool":
            x = o.cast(x, "i8")
        if axis is None:
            axes = tuple(range(len(shape)))
            x = o.reshape(x, (x.aval.size,))
            place = 0
        else:
            place = o.axis_of(axis, len(shape))
            axes = (place,)
        found = o.emit(name, x, axis=place)
        return _finish(found, shape, axes, keepdims)

    apply.__name__ = name
    apply.__doc__ = f"As ``np.{name}``: the first one; nan wins."
    return apply


argmax = implements("argmax")(_position("argmax"))
argmin = implements("argmin")(_position("argmin"))


# --- cumulative


def _along(a: Any, axis: Any) -> tuple[Tracer, int]:
    x = tracer(a)
    if axis is None:
        return ravel(x), 0
    return x, o.axis_of(axis, x.ndim)


@implements("cumsum")
def cumsum(a: Any, axis: Any = None, dtype: Any = None) -> Tracer:
    """Sums of the elements up to each; integers in 64 bits."""
    x, place = _along(a, axis)
    wanted = _widened(x.aval.dtype) if dtype is None else promote.dtype_arg(dtype)
    return wrap_array(o.emit("cumsum", o.cast(read(x), wanted), axis=place, reverse=False))


@implements("cumulative_sum")
def cumulative_sum(x: Any, /, *, axis: Any = None, dtype: Any = None) -> Tracer:
    """As ``np.cumsum``; the axis must be said if there are several."""
    if axis is None and tracer(x).ndim != 1:
        raise ShapeError("np.cumulative_sum: give the axis", location=line())
    return cumsum(x, axis, dtype)


@implements("cumprod")
def cumprod(a: Any, axis: Any = None, dtype: Any = None) -> Tracer:
    """Products of the elements up to each; integers in 64 bits."""
    x, place = _along(a, axis)
    wanted = _widened(x.aval.dtype) if dtype is None else promote.dtype_arg(dtype)
    return wrap_array(o.emit("cumprod", o.cast(read(x), wanted), axis=place))


@implements("cumulative_prod")
def cumulative_prod(x: Any, /, *, axis: Any = None, dtype: Any = None) -> Tracer:
    """As ``np.cumprod``; the axis must be said if there are several."""
    if axis is None and tracer(x).ndim != 1:
        raise ShapeError("np.cumulative_prod: give the axis", location=line())
    return cumprod(x, axis, dtype)


def _running(name: str) -> Callable[..., Tracer]:
    def apply(a: Any, axis: Any = 0) -> Tracer:
        x, place = _along(a, axis)
        if x.aval.dtype == "bool":
            return apply(x.astype(np.uint8), axis).astype(bool)
        return wrap_array(o.emit(name, read(x), axis=place))

    return apply


implements("maximum.accumulate")(_running("cummax"))
implements("minimum.accumulate")(_running("cummin"))


# --- differences


@implements("diff")
def diff(a: Any, n: int = 1, axis: Any = -1, prepend: Any = None, append: Any = None) -> Tracer:
    """Differences of neighbours, ``n`` times."""
    x = tracer(a, "np.diff")
    place = o.axis_of(axis, x.ndim)
    ends: list[list[Tracer]] = []
    for end in (prepend, append):
        if end is None:
            ends.append([])
            continue
        border = tracer(end)
        if not border.shape:
            shape = tuple(1 if i == place else dim for i, dim in enumerate(x.shape))
            border = FUNCTIONS["broadcast_to"](border, shape)
        ends.append([border])
    if ends[0] or ends[1]:
        x = FUNCTIONS["concatenate"]([*ends[0], x, *ends[1]], place)
    for _ in range(n):
        index = (slice(None),) * place
        later, earlier = x[(*index, slice(1, None))], x[(*index, slice(None, -1))]
        x = later != earlier if x.aval.dtype == "bool" else later - earlier
    return x


@implements("ediff1d")
def ediff1d(ary: Any) -> Tracer:
    """Differences of neighbours of the flattened array."""
    return diff(ravel(ary))


@implements("trapezoid")
def trapezoid(y: Any, x: Any = None, dx: Any = 1.0, axis: Any = -1) -> Any:
    """The integral by trapezoids."""
    values = tracer(y, "np.trapezoid")
    place = o.axis_of(axis, values.ndim)
    if x is None:
        steps: Any = dx
    else:
        points = tracer(x)
        steps = diff(points, axis=place if points.ndim == values.ndim else -1)
        if points.ndim == 1:
            shape = tuple(-1 if i == place else 1 for i in range(values.ndim))
            steps = FUNCTIONS["reshape"](steps, shape)
    index = (slice(None),) * place
    pairs: Any = values[(*index, slice(1, None))] + values[(*index, slice(None, -1))]
    return sum(steps * pairs / 2.0, place)


@implements("gradient")
def gradient(f: Any, *varargs: Any, axis: Any = None, edge_order: int = 1) -> Any:
    """Central differences, one-sided at the ends, for constant spacings.

    Raises:
        TraceError: another ``edge_order``, or spacings by coordinates.
    """
    x = tracer(f, "np.gradient")
    axes = list(o.axes_of(axis, x.ndim))
    spacings = (
        list(varargs) * len(axes) if len(varargs) == 1 else list(varargs) or [1.0] * len(axes)
    )
    if edge_order != 1 or any(arg(h).shape for h in spacings):
        raise TraceError(
            "np.gradient with coordinates or edge_order=2 can't be traced", location=line()
        )
    found = []
    for place, h in zip(axes, spacings, strict=True):
        index = (slice(None),) * place
        last = slice(-1, None), slice(-2, -1)
        inner: Any = (x[(*index, slice(2, None))] - x[(*index, slice(None, -2))]) / (2.0 * h)
        left: Any = (x[(*index, slice(1, 2))] - x[(*index, slice(0, 1))]) / h
        right: Any = (x[(*index, last[0])] - x[(*index, last[1])]) / h
        found.append(FUNCTIONS["concatenate"]([left, inner, right], place))
    return found[0] if len(found) == 1 else tuple(found)
