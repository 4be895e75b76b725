"""What convolutions and pooling share: layouts, padding, windows over the spatial axes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy
from numpy.lib.stride_tricks import sliding_window_view

import diffc.numpy as np
from diffc.errors import ShapeError, UsageError
from diffc.trace import active, emit, line

Ints = tuple[int, ...]
Pairs = tuple[tuple[int, int], ...]
PerAxis = int | Sequence[int]
Padding = str | int | Sequence[int | tuple[int, int]]


@dataclass(frozen=True, slots=True)
class Spatial:
    """The spatial axes of an array and how windows lie on them.

    Attributes:
        axes: The spatial axes.
        channel: The channel axis.
        sizes: Extents of a window.
        strides: Distance of windows.
        dilations: Distance of elements within a window.
        padding: Elements added before and after each axis.
    """

    axes: Ints
    channel: int
    sizes: Ints
    strides: Ints
    dilations: Ints
    padding: Pairs

    @property
    def is_last(self) -> bool:
        """Whether channels are the last axis."""
        return self.channel > self.axes[-1]

    @property
    def spans(self) -> Ints:
        """Elements from the first to the last of a window."""
        pairs = zip(self.sizes, self.dilations, strict=True)
        return tuple((size - 1) * dilation + 1 for size, dilation in pairs)

    def padded(self, x: Any, value: float) -> Any:
        """``x`` with the padding around it."""
        if not any(map(any, self.padding)):
            return x
        widths = [(0, 0)] * x.ndim
        for axis, pair in zip(self.axes, self.padding, strict=True):
            widths[axis] = pair
        return np.pad(x, widths, constant_values=x.dtype.type(value))

    def windows(self, x: Any) -> Any:
        """The windows of ``x``: its axes, then one axis of offsets for each spatial axis.

        More axes of channels may stand before the spatial ones than the layout says.
        """
        shift = 0 if self.is_last else x.ndim - len(self.axes) - 2
        axes = tuple(axis + shift for axis in self.axes)
        if active():
            return emit(
                "window",
                x,
                axes=axes,
                sizes=self.sizes,
                strides=self.strides,
                dilations=self.dilations,
            )[0]
        found: Any = sliding_window_view(numpy.asarray(x), self.spans, axes)
        places = [slice(None)] * x.ndim
        for axis, stride in zip(axes, self.strides, strict=True):
            places[axis] = slice(None, None, stride)
        offsets = [slice(None, None, dilation) for dilation in self.dilations]
        return found[(*places, *offsets)]


def spatial(
    name: str,
    x: Any,
    sizes: Ints,
    stride: PerAxis,
    padding: Padding,
    dilation: PerAxis,
    layout: str,
) -> Spatial:
    """Reads the arguments that convolutions and pooling share.

    Raises:
        ShapeError: windows do not fit, or lengths differ from the number of spatial axes.
        UsageError: an unknown layout or padding.
    """
    count = x.ndim - 2
    if count < 1:
        raise ShapeError(
            f"{name}: x has {x.ndim} axes; it needs a batch, spatial axes and channels",
            location=line(),
        )
    if len(layout) != x.ndim or layout[0] != "N" or layout.count("C") != 1:
        raise UsageError(
            f"{name}: layout {layout!r} for an array of {x.ndim} axes",
            hint="N, then one letter for each spatial axis with C before or after them",
            location=line(),
        )
    channel = layout.index("C")
    if channel not in (1, x.ndim - 1):
        raise UsageError(
            f"{name}: layout {layout!r} has channels between spatial axes", location=line()
        )
    axes = tuple(range(2, x.ndim) if channel == 1 else range(1, x.ndim - 1))
    strides = _per_axis(name, "stride", stride, count)
    dilations = _per_axis(name, "dilation", dilation, count)
    spans = tuple((size - 1) * step + 1 for size, step in zip(sizes, dilations, strict=True))
    dims = tuple(x.shape[axis] for axis in axes)
    pairs = _pairs(name, padding, dims, spans, strides)
    for dim, span, (low, high) in zip(dims, spans, pairs, strict=True):
        if dim + low + high < span:
            raise ShapeError(
                f"{name}: a window that spans {span} does not fit on {dim} elements "
                f"padded by {low} and {high}",
                location=line(),
            )
    return Spatial(axes, channel, sizes, strides, dilations, pairs)


def sizes_of(name: str, size: PerAxis, x: Any) -> Ints:
    """Extents of a window, one for each spatial axis of ``x``."""
    return _per_axis(name, "size", size, max(x.ndim - 2, 0))


def _per_axis(name: str, what: str, value: PerAxis, count: int) -> Ints:
    found = (value,) * count if isinstance(value, int) else tuple(value)
    if len(found) != count or any(number < 1 for number in found):
        raise ShapeError(
            f"{name}: {what} {value} for {count} spatial axes: one integer >= 1 for each",
            location=line(),
        )
    return found


def _pairs(name: str, padding: Padding, dims: Ints, spans: Ints, strides: Ints) -> Pairs:
    if padding == "valid":
        return ((0, 0),) * len(dims)
    if padding == "same":
        found = []
        for dim, span, stride in zip(dims, spans, strides, strict=True):
            total = max((-(-dim // stride) - 1) * stride + span - dim, 0)
            found.append((total // 2, total - total // 2))
        return tuple(found)
    if isinstance(padding, str):
        raise UsageError(
            f"{name}: padding {padding!r}", hint='"valid", "same" or numbers', location=line()
        )
    listed = (padding,) * len(dims) if isinstance(padding, int) else tuple(padding)
    pairs = tuple((each, each) if isinstance(each, int) else tuple(each) for each in listed)
    if len(pairs) != len(dims) or any(len(p) != 2 or min(p) < 0 for p in pairs):
        raise ShapeError(
            f"{name}: padding {padding} for {len(dims)} spatial axes: one number or pair >= 0 "
            "for each",
            location=line(),
        )
    return tuple((low, high) for low, high in pairs)
