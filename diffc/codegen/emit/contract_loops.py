"""Loops around the tiles of a contraction: all of them, a part, or those that are needed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field

from diffc.codegen.emit.contract_order import Block, Place
from diffc.codegen.emit.frame import Frame
from diffc.codegen.emit.text import LLVM_TYPES
from diffc.codegen.loops.contraction import Span

__all__ = ["Loops"]

Ends = tuple[str, str]
"""First and end of a range, as `i64`."""


@dataclass(frozen=True, slots=True)
class Loops:
    """Writes loops over tiles, blocks and parts of them.

    Attributes:
        frame: Where code goes.
        limits: The tiles of an axis (`rows`, `columns`) to which a part is limited.
        ranges: The needed points of an axis (`rows`, `columns`, `depth`), where these are not all.
    """

    frame: Frame
    limits: dict[str, Ends] = field(default_factory=dict)
    ranges: dict[str, Ends] = field(default_factory=dict)

    def plus(self, a: str, b: str) -> str:
        """The sum of two `i64`."""
        return self.frame.plus(a, b)

    def times(self, a: str, factor: int) -> str:
        """A multiple of an `i64`."""
        return "0" if factor == 0 else self.frame.times(a, factor)

    def moved(self, pointer: str, dtype: str, *offsets: str) -> str:
        """A pointer moved by elements."""
        for offset in offsets:
            pointer = self.frame.step(pointer, LLVM_TYPES[dtype], offset)
        return pointer

    @contextmanager
    def loop(self, count: int) -> Iterator[str]:
        """Numbers below `count`."""
        if count == 1:
            yield "0"
            return
        with self.frame.fn.loop(count) as loop:
            yield loop.index

    @contextmanager
    def tiles(
        self,
        span: Span,
        base: str,
        start: int,
        limit: Ends | None = None,
        first: int = 0,
        needed: Ends | None = None,
    ) -> Iterator[Place]:
        """The tiles of a span in a block that begins at `base` (its first tile at `start`).

        Only those whose numbers lie within `limit`, where there is one; `first` is that of the
        span's first tile. Only those in which points of the range `needed` lie, if there is one.
        """
        if needed is not None:
            assert limit is None, "threads share no part of a nest"
            loop = self.range(*self.touched(span, self.plus(base, str(span.start - start)), needed))
        elif limit is None:
            loop = self.loop(span.count)
        else:
            low, high = (self.clamped(border, first, span.count) for border in limit)
            loop = self.range(low, high)
        with loop as number:
            moved = self.times(number, span.size)
            inside = self.plus(moved, str(span.start - start))
            tile = "0" if limit is None else self.plus(number, str(first))
            yield Place(self.plus(inside, base), inside, span.size, tile)

    def touched(self, span: Span, origin: str, needed: Ends) -> Ends:
        """First and end of the pieces of a span that begins at `origin` which a range touches."""
        fn = self.frame.fn
        back = "0" if origin == "0" else fn.value(f"sub nsw i64 0, {origin}")
        found: list[str] = []
        for border, more in zip(needed, (0, span.size - 1), strict=True):
            inside = self.clamped(self.plus(border, back), 0, span.count * span.size)
            found.append(fn.value(f"udiv i64 {self.plus(inside, str(more))}, {span.size}"))
        return found[0], found[1]

    def clamped(self, border: str, first: int, count: int) -> str:
        """A border of tiles, counted from tile `first` of `count`."""
        fn = self.frame.fn
        moved = self.plus(border, str(-first))
        above = fn.call("i64", "llvm.smax.i64", ("i64", moved), ("i64", "0"))
        return fn.call("i64", "llvm.smin.i64", ("i64", above), ("i64", str(count)))

    @contextmanager
    def range(self, low: str, high: str) -> Iterator[str]:
        """Numbers from `low` on, below `high`; perhaps none."""
        with self.frame.fn.loop(high, start=low, may_be_empty=True) as loop:
            yield loop.index

    def along(
        self, axis: str, tiles: Sequence[Span], base: str
    ) -> Iterator[AbstractContextManager[Place]]:
        """The tiles of a block, to be entered one by one; a part's own, where it is limited."""
        limit, first, needed = self.limits.get(axis), 0, self.ranges.get(axis)
        for span in tiles:
            yield self.tiles(span, base, tiles[0].start, limit, first, needed)
            first += span.count

    @contextmanager
    def blocks(self, block: Block) -> Iterator[str]:
        """Where each of some neighbouring blocks begins."""
        with self.loop(block.count) as number:
            yield self.plus(self.times(number, block.stride), str(block.start))
