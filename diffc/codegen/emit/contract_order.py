"""The order in which a contraction goes through its tiles: blocks, places, pieces.

What ``contract`` loops over, as data: neighbouring blocks that are equal become one loop, the first
and the last block of the contracted index stand alone, and contracted variables that both operands
run through as one are one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from diffc.codegen.emit.contract_tiles import Level
from diffc.codegen.loops.contraction import Access, Contraction, Span, extent_of

__all__ = ["Block", "Depth", "Place", "joined", "pieces", "repeated", "strides"]


@dataclass(frozen=True, slots=True)
class Block:
    """Neighbouring tiles, ``count`` times, ``stride`` elements apart."""

    tiles: tuple[Span, ...]
    count: int
    stride: int

    @property
    def start(self) -> int:
        """Where the first tile of the first block begins."""
        return self.tiles[0].start


@dataclass(frozen=True, slots=True)
class Place:
    """A run of tiles along one axis, as values of the code.

    Attributes:
        at: Global index of the current tile's start, an `i64`.
        inside: The same within the block.
        size: Rows or columns of a tile.
        number: Number of the tile in its axis, where threads share that.
    """

    at: str
    inside: str
    size: int
    number: str = "0"


@dataclass(frozen=True, slots=True)
class Depth:
    """A block of the contracted index: its start, an `i64`, and its size."""

    at: str
    size: int
    is_first: bool
    is_last: bool


def repeated(parts: Sequence[tuple[Span, ...]]) -> list[Block]:
    """Blocks, equal neighbours as one."""
    found: list[Block] = []
    for tiles in parts:
        if not tiles:
            continue
        if found:
            last = found[-1]
            stride = tiles[0].start - last.start if last.count == 1 else last.stride
            shift = stride * last.count
            moved = tuple(Span(t.start + shift, t.count, t.size) for t in last.tiles)
            if moved == tiles:
                found[-1] = Block(last.tiles, last.count + 1, stride)
                continue
        found.append(Block(tiles, 1, 0))
    return found


def pieces(spans: Sequence[Span]) -> list[tuple[Span, bool, bool]]:
    """Spans of blocks with whether they are the first and the last; these stand alone."""
    single: list[Span] = []
    total = sum(span.count for span in spans)
    seen = 0
    for span in spans:
        cuts = {0, span.count}
        if seen == 0:
            cuts.add(1)
        if seen + span.count == total:
            cuts.add(span.count - 1)
        order = sorted(cuts)
        for low, high in pairwise(order):
            single.append(Span(span.start + low * span.size, high - low, span.size))
        seen += span.count
    last = len(single) - 1
    return [(span, number == 0, number == last) for number, span in enumerate(single)]


def strides(c: Contraction, one: Access, panel: int | None) -> list[int]:
    """Elements by which a tile's operand moves with each contracted variable."""
    if panel is None:
        return [one.strides[var] for var in c.depth]
    found: list[int] = []
    step = panel
    for var in reversed(c.depth):
        found.append(step)
        step *= extent_of(var)
    return found[::-1]


def joined(levels: Sequence[Level]) -> list[Level]:
    """Levels, neighbours as one where both operands run through them as one."""
    found: list[Level] = []
    for level in levels:
        extent = level.extent
        if found and extent is not None:
            outer = found[-1]
            if (
                outer.extent is not None
                and outer.lhs == level.lhs * extent
                and outer.rhs == level.rhs * extent
            ):
                found[-1] = Level(outer.extent * extent, level.lhs, level.rhs)
                continue
        found.append(level)
    return found
