"""``associative_scan``: all partial results of an associative function, in a logarithm of steps.

The work-efficient scheme of Ladner and Fischer (1980): neighbours are combined in pairs, the scan
of the pairs gives every second result, and one more combination gives the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from diffc import tree
from diffc.control.outside import run_outside
from diffc.control.region import VALUE, Function, flat, need_arguments, need_function
from diffc.errors import ShapeError, UsageError
from diffc.leaves import abstract_leaf
from diffc.trace import Tracer, active, emit, line


def associative_scan(
    function: Function, elems: Any, *, reverse: bool = False, axis: int = 0
) -> Any:
    """All partial results of an associative function along an axis: ``cumsum`` for any function.

    Args:
        function: combines two pytrees like ``elems`` element by element along ``axis``: it is
            given whole blocks of elements at once. It must be associative.
        elems: a pytree of arrays with one common length on ``axis``.
        reverse: start from the last element.
        axis: the axis to run along; negative ones count from the end.

    Returns:
        A pytree like ``elems``; element k combines elements 0 to k (with ``reverse``: k to the
        last). The combination takes about 2 log2 n steps, all of them in parallel over elements.

    Raises:
        ShapeError: lengths differ, or ``function`` changes structure, shapes or dtypes.

    Example:
        >>> import numpy as np, diffc
        >>> diffc.associative_scan(np.maximum, np.array([1.0, 3.0, 2.0, 5.0]))
        array([1., 3., 3., 5.])
    """
    need_function(function, "the function of associative_scan")
    need_arguments(function, 2, "the function of associative_scan", "two pytrees like elems")
    leaves, structure = flat(elems, "elems")
    if not active():
        call = partial(associative_scan, reverse=reverse, axis=axis)
        return run_outside(call, [function], elems)
    arrays = [_as_tracer(leaf) for leaf in leaves]
    if not arrays:
        return elems
    axes = _axes(arrays, structure.paths("elems"), axis)
    if reverse:
        arrays = [_reversed(x, k) for x, k in zip(arrays, axes, strict=True)]
    found = _Scanner(function, structure, axes).scan(arrays)
    if reverse:
        found = [_reversed(x, k) for x, k in zip(found, axes, strict=True)]
    return structure.build(found)


class _Scanner:
    """Combines blocks of elements by the user's function."""

    def __init__(self, function: Function, structure: tree.TreeDef, axes: Sequence[int]) -> None:
        self.function = function
        self.structure = structure
        self.axes = axes

    def scan(self, arrays: list[Tracer]) -> list[Tracer]:
        """All partial results; halves the length until it is below 2, then goes back up."""
        levels = []
        while self._length(arrays) > 1:
            levels.append(arrays)
            count = self._length(arrays)
            pairs = self._part(arrays, 0, count - 1, 2), self._part(arrays, 1, count, 2)
            arrays = self._combine(*pairs)
        for elems in reversed(levels):
            arrays = self._between(elems, arrays)
        return arrays

    def _between(self, elems: list[Tracer], odd: list[Tracer]) -> list[Tracer]:
        """The results at all places, from those at odd ones."""
        count, half = self._length(elems), self._length(odd)
        first = self._part(elems, 0, 1)
        if count == 2:
            return self._joined(first, odd)
        before = self._part(odd, 0, half - 1) if count % 2 == 0 else odd
        even = self._joined(first, self._combine(before, self._part(elems, 2, count, 2)))
        return [_interleaved(x, y, axis) for x, y, axis in zip(even, odd, self.axes, strict=True)]

    def _combine(self, left: list[Tracer], right: list[Tracer]) -> list[Tracer]:
        result = self.function(self.structure.build(left), self.structure.build(right))
        found, structure = flat(result, "result")
        if structure is not self.structure:
            differs = tree.first_mismatch(self.structure, structure, "result", VALUE)
            assert differs is not None
            path, given, back = differs
            raise ShapeError(
                f"{path} of the function of associative_scan is {back} for elements of which it is "
                f"{given}",
                location=line(),
                hint="return the containers that the elements came in",
            )
        tracers = [_as_tracer(x) for x in found]
        for path, x, y in zip(structure.paths("result"), tracers, left, strict=True):
            if x.aval is not y.aval:
                raise ShapeError(
                    f"{path} of the function of associative_scan is {x.aval} for elements {y.aval}",
                    location=line(),
                    hint="it combines blocks of elements one by one, and keeps shapes and dtypes",
                )
        return tracers

    def _length(self, arrays: Sequence[Tracer]) -> int:
        shape: Any = arrays[0].aval.shape
        return int(shape[self.axes[0]])

    def _part(self, arrays: Sequence[Tracer], start: int, stop: int, step: int = 1) -> list[Tracer]:
        return [
            _slice(x, axis, start, stop, step) for x, axis in zip(arrays, self.axes, strict=True)
        ]

    def _joined(self, left: Sequence[Tracer], right: Sequence[Tracer]) -> list[Tracer]:
        return [
            emit("concat", x, y, axis=axis)[0]
            for x, y, axis in zip(left, right, self.axes, strict=True)
        ]


def _as_tracer(leaf: Any) -> Tracer:
    """A leaf as an array of the current trace."""
    if isinstance(leaf, Tracer):
        return leaf
    aval = abstract_leaf(leaf).aval
    return emit("reshape", leaf, shape=aval.shape)[0]


def _axes(arrays: Sequence[Tracer], paths: Sequence[str], axis: int) -> list[int]:
    """The axis of each array, counted from the front."""
    if not isinstance(axis, int) or isinstance(axis, bool):
        raise UsageError(f"axis of associative_scan is {axis!r}, needs an int", location=line())
    found: list[int] = []
    lengths = []
    for path, x in zip(paths, arrays, strict=True):
        ndim = x.aval.ndim
        if not -ndim <= axis < ndim:
            raise ShapeError(
                f"associative_scan names axis {axis} of {path}, which has "
                f"{ndim} {'axis' if ndim == 1 else 'axes'}",
                location=line(),
            )
        found.append(axis % ndim)
        lengths.append(x.aval.shape[axis % ndim])
        if lengths[-1] != lengths[0]:
            raise ShapeError(
                f"associative_scan needs one length, but {paths[0]} has {lengths[0]} and {path} "
                f"has {lengths[-1]}",
                location=line(),
            )
    return found


def _slice(x: Tracer, axis: int, start: int, stop: int, step: int) -> Tracer:
    shape = x.aval.shape
    starts = tuple(start if k == axis else 0 for k in range(len(shape)))
    stops = tuple(stop if k == axis else dim for k, dim in enumerate(shape))
    steps = tuple(step if k == axis else 1 for k in range(len(shape)))
    return emit("slice", x, start=starts, stop=stops, step=steps)[0]


def _interleaved(even: Tracer, odd: Tracer, axis: int) -> Tracer:
    """``even[0], odd[0], even[1], ...``; there may be one more even element."""
    shape: Any = odd.aval.shape
    longer: Any = even.aval.shape
    half, count = shape[axis], longer[axis]
    behind = (*shape[: axis + 1], 1, *shape[axis + 1 :])
    first = _slice(even, axis, 0, half, 1)
    columns = [emit("reshape", x, shape=behind)[0] for x in (first, odd)]
    (paired,) = emit("concat", *columns, axis=axis + 1)
    doubled = (*shape[:axis], 2 * half, *shape[axis + 1 :])
    (found,) = emit("reshape", paired, shape=doubled)
    if count == half:
        return found
    return emit("concat", found, _slice(even, axis, half, count, 1), axis=axis)[0]


def _reversed(x: Tracer, axis: int) -> Tracer:
    return emit("reverse", x, axes=(axis,))[0]
