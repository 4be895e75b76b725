"""Windows: an axis as overlapping pieces, and the sum of overlapping pieces.

``window`` is movement, ``overlap_add`` its transpose. Convolution is ``contract`` over a window,
pooling a reduction over one.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Any

import numpy as np

from diffc.errors import ShapeError
from diffc.ir.aval import ANY, NUMBERS, Aval, wide
from diffc.ir.index import TRUE, Dim
from diffc.ops.avals import is_less, need_axes, need_dims, need_dtype, need_length, text
from diffc.ops.batching import windows
from diffc.ops.declare import Linear, Move, Special, Waived, op

Array = np.ndarray[Any, Any]
Ints = tuple[int, ...]


def positions(dim: Dim, size: int, stride: int, dilation: int) -> Dim:
    """How many windows fit on an axis."""
    return (dim - ((size - 1) * dilation + 1)) // stride + 1


def _window_shape(
    shape: tuple[Dim, ...], axes: Ints, sizes: Ints, strides: Ints, dilations: Ints
) -> tuple[Dim, ...]:
    result = list(shape)
    for axis, size, stride, dilation in zip(axes, sizes, strides, dilations, strict=True):
        result[axis] = positions(shape[axis], size, stride, dilation)
    return (*result, *sizes)


def _need_windows(x: Aval, axes: Ints, sizes: Ints, strides: Ints, dilations: Ints) -> None:
    need_axes(axes, x.ndim, x)
    for name, values in (("sizes", sizes), ("strides", strides), ("dilations", dilations)):
        need_length(name, values, len(axes), "one for each of axes")
        if any(value < 1 for value in values):
            raise ShapeError(f"{name} {values} needs integers >= 1")
    for axis, size, dilation in zip(axes, sizes, dilations, strict=True):
        span = (size - 1) * dilation + 1
        if is_less(x.shape[axis], span):
            raise ShapeError(f"a window that spans {span} does not fit on axis {axis} of {x}")


def _window_aval(x: Aval, *, axes: Ints, sizes: Ints, strides: Ints, dilations: Ints) -> Aval:
    _need_windows(x, axes, sizes, strides, dilations)
    return x.with_shape(_window_shape(x.shape, axes, sizes, strides, dilations))


def _pieces(
    shape: Ints, axes: Ints, sizes: Ints, strides: Ints, dilations: Ints
) -> Iterator[tuple[Ints, tuple[slice, ...]]]:
    """For each offset within the window, which elements the windows have there."""
    counts: Any = _window_shape(shape, axes, sizes, strides, dilations)
    for offset in product(*map(range, sizes)):
        where = [slice(None)] * len(shape)
        for axis, at, stride, dilation in zip(axes, offset, strides, dilations, strict=True):
            start = at * dilation
            where[axis] = slice(start, start + (counts[axis] - 1) * stride + 1, stride)
        yield offset, tuple(where)


def _window(x: Array, *, axes: Ints, sizes: Ints, strides: Ints, dilations: Ints) -> Array:
    shape: Any = _window_shape(x.shape, axes, sizes, strides, dilations)
    result: Array = np.empty(shape, x.dtype)
    for offset, where in _pieces(x.shape, axes, sizes, strides, dilations):
        at: Any = (..., *offset)
        result[at] = x[where]
    return result


def _window_access(indices: Any, avals: tuple[Aval, ...], params: Any) -> Any:
    ndim = avals[0].ndim
    read = list(indices[:ndim])
    for k, axis in enumerate(params["axes"]):
        stride, dilation = params["strides"][k], params["dilations"][k]
        read[axis] = indices[axis] * stride + indices[ndim + k] * dilation
    return ((0, tuple(read), TRUE),)


_PARAMS = ("axes", "sizes", "strides", "dilations")

window = op(
    "window",
    doc="Pieces of the windowed axes: position p, offset o reads p*stride + o*dilation.",
    aval=_window_aval,
    numpy=_window,
    sympy=Waived("its numpy facet runs on arrays of symbols"),
    derivative=Linear(
        lambda ct, operands, avals, params, index: ct.call(
            "overlap_add", shape=avals[0].shape, **params
        )
    ),
    body=Move(_window_access),
    params=_PARAMS,
    dtypes=ANY,
    batching=windows,
)


def _overlap_add_aval(
    y: Aval, *, axes: Ints, sizes: Ints, strides: Ints, dilations: Ints, shape: tuple[Dim, ...]
) -> Aval:
    need_dtype(0, y, NUMBERS)
    need_dims(shape)
    result = y.with_shape(shape)
    _need_windows(result, axes, sizes, strides, dilations)
    needed = _window_shape(shape, axes, sizes, strides, dilations)
    if y.shape != needed:
        raise ShapeError(f"operand 0 is {y}; windows of {text(shape)} need shape {text(needed)}")
    return result


def _overlap_add(
    y: Array, *, axes: Ints, sizes: Ints, strides: Ints, dilations: Ints, shape: Ints
) -> Array:
    """Adds in the order of the offsets; 16 bits in f32, rounded once."""
    result: Array = np.zeros(shape, wide(y.dtype))
    for offset, where in _pieces(shape, axes, sizes, strides, dilations):
        at: Any = (..., *offset)
        result[where] += y[at]
    return result.astype(y.dtype, copy=False)


overlap_add = op(
    "overlap_add",
    doc="Sums pieces where they overlap: the transpose of `window`.",
    aval=_overlap_add_aval,
    numpy=_overlap_add,
    sympy=Waived("its numpy facet runs on arrays of symbols"),
    derivative=Linear(
        lambda ct, operands, avals, params, index: ct.call(
            "window", **{name: params[name] for name in _PARAMS}
        )
    ),
    body=Special("overlap_add"),
    params=(*_PARAMS, "shape"),
    dtypes=NUMBERS,
    batching=windows,
)
