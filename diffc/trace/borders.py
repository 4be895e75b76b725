"""``np.pad``: borders around an array."""

from __future__ import annotations

from typing import Any

import numpy as np

from diffc.errors import ShapeError, TraceError
from diffc.ir.graph import Operand
from diffc.trace import operands as o
from diffc.trace.arguments import arg, operand
from diffc.trace.location import line
from diffc.trace.table import implements
from diffc.trace.tracer import Tracer, wrap_array


@implements("pad")
def pad(array: Any, pad_width: Any, mode: Any = "constant", *, constant_values: Any = 0) -> Tracer:
    """Borders: ``constant``, ``edge``, ``reflect``, ``symmetric``, ``wrap``."""
    x = operand(array, "np.pad")
    widths = _pairs(pad_width, x.aval.ndim)
    if mode == "constant":
        values = _value_pairs(constant_values, x.aval.ndim)
        return wrap_array(_pad_constant(x, widths, values))
    if mode not in _BORDERS:
        raise TraceError(
            f"np.pad(mode={mode!r}) can't be traced",
            location=line(),
            hint="modes: constant, " + ", ".join(_BORDERS),
        )
    for axis, (low, high) in enumerate(widths):
        x = _BORDERS[mode](x, axis, low, high)
    return wrap_array(x)


def _pairs(widths: Any, rank: int) -> list[tuple[int, int]]:
    if isinstance(widths, dict):
        table = {o.axis_of(axis, rank): width for axis, width in widths.items()}
        both = [table.get(i, 0) for i in range(rank)]
        return [(w, w) if isinstance(w, int) else (w[0], w[1]) for w in both]
    found = np.broadcast_to(np.asarray(widths), (rank, 2)).tolist()
    if any(width < 0 for pair in found for width in pair):
        raise ShapeError("np.pad: widths can't be negative", location=line())
    return [(low, high) for low, high in found]


def _value_pairs(values: Any, rank: int) -> list[tuple[Any, Any]]:
    if isinstance(values, (list, tuple)) and any(isinstance(v, (list, tuple)) for v in values):
        pairs = [tuple(v) if len(v) == 2 else (v[0], v[0]) for v in values]
        return [(a, b) for a, b in (pairs * rank if len(pairs) == 1 else pairs)]
    if isinstance(values, (list, tuple)):
        low, high = (values[0], values[-1])
        return [(low, high)] * rank
    return [(values, values)] * rank


def _pad_constant(
    x: Operand, widths: list[tuple[int, int]], values: list[tuple[Any, Any]]
) -> Operand:
    first = values[0][0] if values else 0
    none = tuple(0 for _ in widths)
    if all(v is first or (type(v) is type(first) and v == first) for pair in values for v in pair):
        low, high = (tuple(pair[i] for pair in widths) for i in (0, 1))
        return o.pad(x, arg(first).to(x.aval.dtype), low, high, none)
    for axis, ((low_width, high_width), (before, after)) in enumerate(
        zip(widths, values, strict=True)
    ):
        lows = tuple(low_width if i == axis else 0 for i in range(len(widths)))
        highs = tuple(high_width if i == axis else 0 for i in range(len(widths)))
        x = o.pad(x, arg(before).to(x.aval.dtype), lows, none, none)
        x = o.pad(x, arg(after).to(x.aval.dtype), none, highs, none)
    return x


def _edge(x: Operand, axis: int, low: int, high: int) -> Operand:
    size: Any = x.aval.shape[axis]
    if size == 0 and (low or high):
        raise ShapeError("np.pad: no edge on an empty axis", location=line())

    def border(position: int, width: int) -> Operand:
        line_ = o.slice_axis(x, axis, position, position + 1)
        shape = tuple(width if i == axis else dim for i, dim in enumerate(x.aval.shape))
        return o.broadcast(line_, shape)

    parts = [border(0, low)] if low else []
    return o.concat([*parts, x, *([border(size - 1, high)] if high else [])], axis)


def _mirrored(skip: int) -> Any:
    def apply(x: Operand, axis: int, low: int, high: int) -> Operand:
        """The array turned around at its edge (``skip``: without the edge), again and again."""
        size: Any = x.aval.shape[axis]
        if not low and not high:
            return x
        if size == 0 or (size == 1 and skip):
            return _edge(x, axis, low, high)
        period = 2 * size - 2 * skip
        ring = o.concat([x, o.reverse(o.slice_axis(x, axis, skip, size - skip), (axis,))], axis)
        return _cyclic(ring, axis, -low, size + high, period)

    return apply


def _wrap(x: Operand, axis: int, low: int, high: int) -> Operand:
    size: Any = x.aval.shape[axis]
    return _cyclic(x, axis, -low, size + high, size) if low or high else x


def _cyclic(ring: Operand, axis: int, start: int, stop: int, period: int) -> Operand:
    """Positions ``start .. stop`` of a periodic array."""
    parts = []
    position = start
    while position < stop:
        offset = position % period
        width = min(period - offset, stop - position)
        parts.append(o.slice_axis(ring, axis, offset, offset + width))
        position += width
    return o.concat(parts, axis)


_BORDERS = {"edge": _edge, "reflect": _mirrored(1), "symmetric": _mirrored(0), "wrap": _wrap}
