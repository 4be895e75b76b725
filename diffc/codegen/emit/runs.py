"""Runs of equal steps: a thousand calls of the same routines become one loop over a table.

Before: the entry of an unrolled program calls the same few functions again and again, each time
with other pointers. After: one loop; where its pointers lie stands in a table of constants. So code
does not grow with the number of equal blocks, and neither does the time to compile it.

A run is a stretch of steps that repeats with a period. Each step is known by the function that it
calls; a step that calls none, or that may not move into a loop, is None and equal to no other.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from diffc.codegen.emit.text import FunctionText
from diffc.codegen.loops.module import Address

#: fewer calls in a row stay calls
MIN_CALLS = 16
#: how many candidate periods are tried
MAX_PERIODS = 8
#: bytes of an entry of a table
ENTRY = 8


@dataclass(frozen=True, slots=True)
class Run:
    """Steps ``[start + k * period, start + (k + 1) * period)`` for ``k`` below ``count``."""

    start: int
    period: int
    count: int

    @property
    def stop(self) -> int:
        """Behind the last step."""
        return self.start + self.period * self.count


def find_runs(steps: Sequence[str | None]) -> list[Run]:
    """The stretches that repeat, from left to right, none overlapping another."""
    votes: Counter[int] = Counter()
    last: dict[str, int] = {}
    for i, step in enumerate(steps):
        if step is not None:
            if step in last:
                votes[i - last[step]] += 1
            last[step] = i
    lengths = {p: _lengths(steps, p) for p, _ in votes.most_common(MAX_PERIODS)}
    found: list[Run] = []
    at = 0
    while at < len(steps):
        best: Run | None = None
        for period, equal in sorted(lengths.items()):
            count = equal[at] // period + 1
            is_run = count > 1 and count * period >= MIN_CALLS
            if is_run and (best is None or count * period > best.count * best.period):
                best = Run(at, period, count)
        if best is not None:
            found.append(best)
        at = best.stop if best is not None else at + 1
    return found


def _lengths(steps: Sequence[str | None], period: int) -> list[int]:
    """How many steps from each on are the same ``period`` steps later."""
    lengths = [0] * (len(steps) + 1)
    for i in range(len(steps) - period - 1, -1, -1):
        if steps[i] is not None and steps[i] == steps[i + period]:
            lengths[i] = lengths[i + 1] + 1
    return lengths[:-1]


class Table:
    """Where the pointers of one run lie: ``rows[k][n]`` is the place of the n-th one in trip k.

    A pointer that is the same in all trips is computed before the loop. For the others a row of
    numbers is kept for each trip: bytes from the arena; or which array of pointers, where in it,
    and bytes from what stands there. Numbers that are the same in all trips are left out.

    Args:
        fn: the function that is written; here it must stand before the loop.
        rows: the places.
        pointer: gives the pointer of a place.
        arrays: arrays of pointers that there are: to the inputs, to the outputs.
    """

    def __init__(
        self,
        fn: FunctionText,
        rows: Sequence[Sequence[Address]],
        pointer: Callable[[Address], str],
        arrays: Mapping[str, str],
    ) -> None:
        self._fn = fn
        self._places: list[tuple[Address, ...]] = list(zip(*rows, strict=True))
        self._fixed = [pointer(c[0]) if len(set(c)) == 1 else None for c in self._places]
        self._arena = pointer(Address("arena"))
        self._columns: list[list[int]] = []
        self._own: dict[Address, int] = {}  # what stands in an array of this function
        self._arrays: list[str] = list(arrays.values())
        self._number_of = {kind: number for number, kind in enumerate(arrays)}
        is_mixed = False
        for column, fixed in zip(self._places, self._fixed, strict=True):
            if fixed is not None or _is_in_arena(column):
                continue
            is_mixed |= len({self._number_of.get(at.base) for at in column}) > 1
            for at in column:
                if at.base not in arrays:
                    self._own.setdefault(at.start, len(self._own))
        if self._own:
            self._arrays.append(fn.stack("pointers", ENTRY * len(self._own)))
            self._fill(self._arrays[-1], list(map(pointer, self._own)))
        if is_mixed:
            self._all = fn.stack("arrays", ENTRY * len(self._arrays))
            self._fill(self._all, self._arrays)

    def _fill(self, array: str, pointers: Sequence[str]) -> None:
        for number, pointer in enumerate(pointers):
            self._fn.store("ptr", pointer, self._fn.gep(array, ENTRY * number), ENTRY)

    def pointers(self, row: str) -> list[str]:
        """All pointers of a trip, within the loop, where ``row`` points to the trip's numbers."""
        return [
            fixed if fixed is not None else self._pointer(row, column)
            for column, fixed in zip(self._places, self._fixed, strict=True)
        ]

    def _pointer(self, row: str, column: Sequence[Address]) -> str:
        fn = self._fn
        offsets = self._number(row, [at.offset for at in column])
        if _is_in_arena(column):
            return fn.gep(self._arena, offsets)
        last = len(self._arrays) - 1
        numbers = [self._number_of.get(at.base, last) for at in column]
        array = self._arrays[numbers[0]]
        if len(set(numbers)) > 1:
            which = self._number(row, [ENTRY * number for number in numbers])
            array = fn.load("ptr", fn.gep(self._all, which), ENTRY)
        own = self._own
        places = (
            [own.get(at.start, at.index) for at in column] if own else [at.index for at in column]
        )
        where = fn.gep(array, self._number(row, [ENTRY * place for place in places]))
        return fn.gep(fn.load("ptr", where, ENTRY), offsets)

    def _number(self, row: str, column: list[int]) -> str | int:
        """The trip's number of a column, which is added to the table if it varies."""
        if len(set(column)) == 1:
            return column[0]
        place = self._fn.gep(row, len(self._columns) * ENTRY * len(column))
        self._columns.append(column)
        return self._fn.load("i64", place, ENTRY)

    def data(self) -> bytes:
        """The table's bytes, known after :meth:`pointers`: one column after another."""
        return b"".join(n.to_bytes(ENTRY, "little") for column in self._columns for n in column)


def _is_in_arena(column: Sequence[Address]) -> bool:
    return all(at.base == "arena" for at in column)
