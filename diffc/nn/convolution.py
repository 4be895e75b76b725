"""Convolution: a contraction over windows of the padded array.

Patches exist as accesses only. The gradients are contractions over windows too: by the weights of
the same windows, by the array of the padded cotangent with the weights turned around (the rewrite
``spread_of_contract``).
"""

from __future__ import annotations

import string
from typing import Any

import diffc.numpy as np
from diffc.errors import ShapeError
from diffc.nn.spatial import Padding, PerAxis, spatial
from diffc.trace import line


def conv(
    x: Any,
    w: Any,
    *,
    stride: PerAxis = 1,
    padding: Padding = "valid",
    dilation: PerAxis = 1,
    groups: int = 1,
    layout: str = "NHWC",
) -> Any:
    """Convolution of any number of spatial axes (as in networks: the kernel is not turned around).

    ``y[n, p, o] = sum over k, i of x[n, p*stride + k*dilation, i] * w[k, i, o]``

    Args:
        x: images, axes as in ``layout``.
        w: weights: spatial axes, input channels of a group, output channels where channels come
            last; output channels, input channels of a group, spatial axes where they come first.
        stride: distance of windows; one number or one for each spatial axis.
        padding: zeros around the spatial axes: ``"valid"`` (none), ``"same"`` (as many positions
            as elements, divided by the stride), a number, or a number or pair for each axis.
        dilation: distance of elements within a window.
        groups: input and output channels in so many groups that do not mix; as many as input
            channels: depthwise.
        layout: ``"NHWC"`` or ``"NCHW"``, with as many spatial letters as there are axes
            (``"NWC"``, ``"NCDHW"``).

    Returns:
        Axes as in ``layout``.

    Raises:
        ShapeError: channels, groups or windows do not fit.

    Example:
        >>> import numpy as np
        >>> x, w = np.arange(5.0).reshape(1, 5, 1), np.ones((3, 1, 1))
        >>> conv(x, w, padding="same", layout="NWC").ravel()
        array([1., 3., 6., 9., 7.])
    """
    if w.ndim != x.ndim:
        raise ShapeError(f"conv: x has {x.ndim} axes, w has {w.ndim}", location=line())
    is_last = layout.endswith("C")
    sizes = tuple(w.shape[:-2] if is_last else w.shape[2:])
    if any(size == 0 for size in sizes):
        raise ShapeError(f"conv: weights of shape {w.shape} have no elements", location=line())
    where = spatial("conv", x, sizes, stride, padding, dilation, layout)
    inputs, outputs = (w.shape[-2], w.shape[-1]) if is_last else (w.shape[1], w.shape[0])
    channels = x.shape[where.channel]
    if groups < 1 or inputs * groups != channels or outputs % groups:
        raise ShapeError(
            f"conv: {channels} channels in {groups} groups do not fit weights of {inputs} input "
            f"and {outputs} output channels",
            location=line(),
        )
    count = len(sizes)
    names = iter(string.ascii_lowercase)
    batch, group, into, out = next(names), next(names), next(names), next(names)
    position = "".join(next(names) for _ in range(count))
    offset = "".join(next(names) for _ in range(count))
    x = where.padded(x, 0.0)
    if groups == 1:
        group = ""
    else:  # split before the windows: their gradient is then one contraction
        x = _split(x, where.channel, groups)
        w = _split(w, w.ndim - 1 if is_last else 0, groups)
    patches = where.windows(x)
    if is_last:
        weights, pixels = offset + into + group + out, batch + position + group + into
        result = batch + position + group + out
    else:
        weights, pixels = group + out + into + offset, batch + group + into + position
        result = batch + group + out + position
    y = np.einsum(f"{weights},{pixels}{offset}->{result}", w, patches)
    if groups == 1:
        return y
    shape = list(y.shape)
    at = where.channel
    return y.reshape((*shape[:at], outputs, *shape[at + 2 :]))


def _split(x: Any, axis: int, groups: int) -> Any:
    """One axis as groups and members."""
    shape = tuple(x.shape)
    return x.reshape((*shape[:axis], groups, shape[axis] // groups, *shape[axis + 1 :]))
