"""Pooling: reductions over windows."""

from __future__ import annotations

import math
from typing import Any

import numpy

import diffc.numpy as np
from diffc.nn.spatial import Padding, PerAxis, Spatial, sizes_of, spatial
from diffc.trace import is_float


def max_pool(
    x: Any,
    size: PerAxis,
    *,
    stride: PerAxis | None = None,
    padding: Padding = "valid",
    dilation: PerAxis = 1,
    layout: str = "NHWC",
) -> Any:
    """The largest element of each window. Equal ones share the gradient.

    Args:
        x: images, axes as in ``layout`` (see :func:`diffc.nn.conv`).
        size: extents of a window.
        stride: distance of windows (default: their size).
        padding: as in :func:`diffc.nn.conv`; what is added is never the largest.
        dilation: distance of elements within a window.
        layout: ``"NHWC"`` or ``"NCHW"``, with as many spatial letters as there are axes.

    Example:
        >>> import numpy as np
        >>> max_pool(np.arange(6.0).reshape(1, 6, 1), 2, layout="NWC").ravel()
        array([1., 3., 5.])
    """
    where = _where("max_pool", x, size, stride, padding, dilation, layout)
    kind = numpy.dtype(x.dtype)
    least = -numpy.inf if is_float(kind) else numpy.iinfo(kind).min
    return _reduced(where, where.padded(x, least), np.max)


def avg_pool(
    x: Any,
    size: PerAxis,
    *,
    stride: PerAxis | None = None,
    padding: Padding = "valid",
    dilation: PerAxis = 1,
    layout: str = "NHWC",
) -> Any:
    """The mean of each window; what is padded does not count.

    Args:
        x: images of floats, axes as in ``layout`` (see :func:`diffc.nn.conv`).
        size: extents of a window.
        stride: distance of windows (default: their size).
        padding: as in :func:`diffc.nn.conv`.
        dilation: distance of elements within a window.
        layout: ``"NHWC"`` or ``"NCHW"``, with as many spatial letters as there are axes.

    Example:
        >>> import numpy as np
        >>> avg_pool(np.arange(3.0).reshape(1, 3, 1), 3, stride=1, padding=1, layout="NWC").ravel()
        array([0.5, 1. , 1.5])
    """
    where = _where("avg_pool", x, size, stride, padding, dilation, layout)
    total = _reduced(where, where.padded(x, 0.0), np.sum)
    if not any(map(any, where.padding)):
        return total / numpy.dtype(x.dtype).type(math.prod(where.sizes))
    return total / _counts(where, x)


def _where(
    name: str,
    x: Any,
    size: PerAxis,
    stride: PerAxis | None,
    padding: Padding,
    dilation: PerAxis,
    layout: str,
) -> Spatial:
    sizes = sizes_of(name, size, x)
    return spatial(name, x, sizes, sizes if stride is None else stride, padding, dilation, layout)


def _reduced(where: Spatial, x: Any, reduce: Any) -> Any:
    """The reduction of each window; windows that touch without overlap are a reshape."""
    if where.strides != where.sizes or any(step != 1 for step in where.dilations):
        offsets = tuple(range(x.ndim, x.ndim + len(where.sizes)))
        return reduce(where.windows(x), axis=offsets)
    shape: list[int] = []
    inner: list[int] = []
    cut = [slice(None)] * x.ndim
    for axis, dim in enumerate(x.shape):
        if axis not in where.axes:
            shape.append(dim)
            continue
        size = where.sizes[where.axes.index(axis)]
        cut[axis] = slice(dim // size * size)
        shape += [dim // size, size]
        inner.append(len(shape) - 1)
    return reduce(x[tuple(cut)].reshape(tuple(shape)), axis=tuple(inner))


def _counts(where: Spatial, x: Any) -> Any:
    """How many elements of each window lie inside, an array that broadcasts against the result."""
    found = numpy.ones((1,) * x.ndim)
    for k, axis in enumerate(where.axes):
        low, high = where.padding[k]
        inside = numpy.pad(numpy.ones(x.shape[axis]), (low, high))
        reach = numpy.arange(where.sizes[k]) * where.dilations[k]
        starts = numpy.arange(0, len(inside) - int(reach[-1]), where.strides[k])
        sums = inside[starts[:, None] + reach].sum(axis=1)
        found = found * sums.reshape([-1 if other == axis else 1 for other in range(x.ndim)])
    return found.astype(x.dtype)
