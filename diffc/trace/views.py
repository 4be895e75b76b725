"""Lenses: how a view looks into the array it was taken of, and how a write through it goes back.

``get`` reads the view out of the base's value; ``put`` gives the base's value after the view was
overwritten. Both are pure graph. Equal keys mean equal views of one base.
"""

from __future__ import annotations

import math
from typing import Any, Protocol, cast

import numpy as np

from diffc.errors import TraceError
from diffc.ir.aval import aval
from diffc.ir.graph import Literal, Operand, literal
from diffc.trace import operands as o
from diffc.trace.location import line
from diffc.trace.operands import Shape

Strides = tuple[int, ...]


class Lens(Protocol):
    """What a kind of view must say of itself."""

    key: tuple[Any, ...]

    def get(self, base: Operand) -> Operand:
        """The view's value."""
        ...

    def put(self, base: Operand, new: Operand) -> Operand:
        """The base's value after the view became ``new``."""
        ...

    def strides(self, base: Strides, shape: Shape) -> Strides | None:
        """Steps in memory along the view's axes, from those of the base; None: not one view."""
        ...


class Part:
    """Basic indexing: slices, flips of negative steps, dropped and new axes.

    Args:
        start: first position per axis of the base.
        stop: end per axis.
        step: positive step per axis.
        flips: axes of the base that run backwards within their slice.
        shape: final shape, without the axes of integers and with new ones.
        origin: per axis of the view, its axis of the base; None where it is new.
    """

    __slots__ = ("flips", "key", "origin", "shape", "start", "step", "stop")

    def __init__(
        self,
        start: Shape,
        stop: Shape,
        step: tuple[int, ...],
        flips: tuple[int, ...],
        shape: Shape,
        origin: tuple[int | None, ...],
    ) -> None:
        self.start = start
        self.stop = stop
        self.step = step
        self.flips = flips
        self.shape = shape
        self.origin = origin
        self.key = ("part", start, stop, step, flips, shape, origin)

    def get(self, base: Operand) -> Operand:
        """The view's value."""
        part = o.slice_(base, self.start, self.stop, self.step)
        return o.reshape(o.reverse(part, self.flips), self.shape)

    def put(self, base: Operand, new: Operand) -> Operand:
        """The base's value after a write."""
        sizes = tuple(
            -((lo - hi) // s) for lo, hi, s in zip(self.start, self.stop, self.step, strict=True)
        )
        part = o.reverse(o.reshape(new, sizes), self.flips)
        return update(base, part, self.start, self.stop, self.step)

    def strides(self, base: Strides, shape: Shape) -> Strides | None:
        """Steps in memory."""
        return tuple(
            0 if axis is None else base[axis] * self.step[axis] * (-1 if axis in self.flips else 1)
            for axis in self.origin
        )


class Reshaped:
    """The same elements in the same order under another shape."""

    __slots__ = ("key", "shape")

    def __init__(self, shape: Shape) -> None:
        self.shape = shape
        self.key = ("reshaped", shape)

    def get(self, base: Operand) -> Operand:
        """The view's value."""
        return o.reshape(base, self.shape)

    def put(self, base: Operand, new: Operand) -> Operand:
        """The base's value after a write."""
        return o.reshape(new, base.aval.shape)

    def strides(self, base: Strides, shape: Shape) -> Strides | None:
        """Steps in memory."""
        seen = reshaped_strides(base, shape, self.shape)
        assert seen is not None
        return seen


class Permuted:
    """The axes in another order."""

    __slots__ = ("inverse", "key", "perm")

    def __init__(self, perm: tuple[int, ...]) -> None:
        self.perm = perm
        self.inverse = tuple(int(i) for i in np.argsort(perm))
        self.key = ("permuted", perm)

    def get(self, base: Operand) -> Operand:
        """The view's value."""
        return o.transpose(base, self.perm)

    def put(self, base: Operand, new: Operand) -> Operand:
        """The base's value after a write."""
        return o.transpose(new, self.inverse)

    def strides(self, base: Strides, shape: Shape) -> Strides | None:
        """Steps in memory."""
        return tuple(base[i] for i in self.perm)


class Spread:
    """A broadcast view, which NumPy makes read-only."""

    __slots__ = ("key", "shape")

    def __init__(self, shape: Shape) -> None:
        self.shape = shape
        self.key = ("spread", shape)

    def get(self, base: Operand) -> Operand:
        """The view's value."""
        return o.broadcast(base, self.shape)

    def put(self, base: Operand, new: Operand) -> Operand:
        """The base's value after a write."""
        raise TraceError(
            "in-place write to a broadcast array, which is read-only",
            location=line(),
            hint="copy it first: np.array(np.broadcast_to(...))",
        )

    def strides(self, base: Strides, shape: Shape) -> Strides | None:
        """Steps in memory."""
        return None


class Picked:
    """Rows picked by traced integers: ``x[i]``, ``x[i, :, j]``."""

    __slots__ = ("axes", "indices", "key")

    def __init__(self, axes: tuple[int, ...], indices: tuple[Operand, ...]) -> None:
        self.axes = axes
        self.indices = indices
        self.key = ("picked", axes, tuple(map(id, indices)))

    def get(self, base: Operand) -> Operand:
        """The view's value."""
        return o.emit("gather", base, *self.indices, axes=self.axes, mode="check")

    def put(self, base: Operand, new: Operand) -> Operand:
        """The base's value after a write."""
        return o.emit(
            "scatter", base, new, *self.indices, axes=self.axes, mode="check", combine="set"
        )

    def strides(self, base: Strides, shape: Shape) -> Strides | None:
        """Steps in memory."""
        return tuple(stride for axis, stride in enumerate(base) if axis not in self.axes)


def row_major(shape: Shape) -> Strides | None:
    """Steps along the axes of a dense array, in elements; None for symbolic shapes."""
    if not all(isinstance(dim, int) for dim in shape):
        return None
    return tuple(math.prod(shape[i + 1 :]) for i in range(len(shape)))  # type: ignore[arg-type]  # integer dimensions


def reshaped_strides(strides: Strides, shape: Shape, new: Shape) -> Strides | None:
    """Strides of a reshape that needs no copy, by NumPy's own rules; None where it needs one."""
    memory: Any = np.empty(1, np.int8)
    dummy: Any = np.lib.stride_tricks.as_strided(memory, cast(Any, shape), strides)
    try:
        found: Any = np.reshape(dummy, cast(Any, new), copy=False)
    except ValueError:  # it needs a copy
        return None
    strides_: Strides = found.strides
    return strides_


def update(
    base: Operand, part: Operand, start: Shape, stop: Shape, step: tuple[int, ...]
) -> Operand:
    """``base`` with the slice overwritten by ``part``.

    A full overwrite is the part itself; over a literal it is a ``pad``; one contiguous range of
    one axis is a ``concat``; a small part of a large array is a ``dynamic_update_slice``, which can
    happen in place; all else is a ``select`` under a mask that depends on positions only.
    """
    dims = base.aval.shape
    if part.aval.shape == dims:
        return part
    if any(size == 0 for size in part.aval.shape):
        return base
    ends = tuple(
        lo + (size - 1) * s + 1 for lo, s, size in zip(start, step, part.aval.shape, strict=True)
    )
    high = tuple(dim - end for dim, end in zip(dims, ends, strict=True))
    interior = tuple(s - 1 if n != 1 else 0 for s, n in zip(step, part.aval.shape, strict=True))
    if isinstance(base, Literal):
        if isinstance(part, Literal) and part.value == base.value and part.value != 0:
            return base
        return o.pad(part, literal(base.value, aval(base.aval.dtype)), start, high, interior)
    dense = not any(interior)
    if dense and _is_small(part, base):
        starts = [literal(lo, aval("i64")) for lo in start]
        return o.emit("dynamic_update_slice", base, part, *starts)
    partial = [i for i, dim in enumerate(dims) if part.aval.shape[i] != dim]
    if dense and len(partial) == 1:
        (axis,) = partial
        before = o.slice_axis(base, axis, 0, start[axis])
        after = o.slice_axis(base, axis, ends[axis], dims[axis])
        return o.concat([before, part, after], axis)
    zero = literal(0, aval(part.aval.dtype))
    inside = o.pad(
        literal(True, aval("bool", part.aval.shape)),
        literal(False, aval("bool")),
        start,
        high,
        interior,
    )
    return o.select(inside, o.pad(part, zero, start, high, interior), base)


def _is_small(part: Operand, base: Operand) -> bool:
    size, whole = part.aval.size, base.aval.size
    return isinstance(size, int) and isinstance(whole, int) and 8 * size <= whole
