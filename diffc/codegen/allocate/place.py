"""Offsets by lifetime: blocks whose lifetimes overlap never share bytes.

Blocks are placed one by one into the smallest gap that holds them among those placed before that
live at the same time. No order of placing is best for all programs, so a few fixed ones are tried,
and the lowest peak wins; none is below the most that lives at once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

#: every block starts at a multiple of this, and so does the arena.
ALIGNMENT = 64


@dataclass(frozen=True, slots=True)
class Block:
    """Bytes that are needed from step ``first`` to step ``last``, both included."""

    nbytes: int
    first: int
    last: int


def round_up(number: int, unit: int) -> int:
    """The least multiple of ``unit`` that is not below ``number``."""
    return -(-number // unit) * unit


def most_alive(blocks: Sequence[Block]) -> int:
    """The most bytes that live at one step: no placement needs less."""
    change: dict[int, int] = {}
    for block in blocks:
        change[block.first] = change.get(block.first, 0) + block.nbytes
        change[block.last + 1] = change.get(block.last + 1, 0) - block.nbytes
    alive = most = 0
    for step in sorted(change):
        alive += change[step]
        most = max(most, alive)
    return most


def place(blocks: Sequence[Block]) -> tuple[list[int], int]:
    """The offset of each block, and the bytes of an arena that holds them all."""
    rounded = [Block(round_up(b.nbytes, ALIGNMENT), b.first, b.last) for b in blocks]
    bound = most_alive(rounded)
    best: tuple[list[int], int] | None = None
    for order in _ORDERS:
        offsets, peak = _place(rounded, order)
        if best is None or peak < best[1]:
            best = offsets, peak
        if peak == bound:
            break
    assert best is not None
    return best


_ORDERS: tuple[Callable[[Block], tuple[int, ...]], ...] = (
    lambda block: (-block.nbytes, block.first),
    lambda block: (-block.nbytes * (block.last - block.first + 1), block.first),
    lambda block: (block.first, -block.nbytes),
    lambda block: (block.first - block.last, -block.nbytes, block.first),
)


def _place(
    blocks: Sequence[Block], order: Callable[[Block], tuple[int, ...]]
) -> tuple[list[int], int]:
    offsets = [0] * len(blocks)
    placed: list[int] = []
    peak = 0
    for number in sorted(range(len(blocks)), key=lambda k: (order(blocks[k]), k)):
        block = blocks[number]
        if block.nbytes == 0:
            continue
        taken = sorted(
            (offsets[k], offsets[k] + blocks[k].nbytes)
            for k in placed
            if blocks[k].first <= block.last and block.first <= blocks[k].last
        )
        offsets[number] = _gap(taken, block.nbytes)
        peak = max(peak, offsets[number] + block.nbytes)
        placed.append(number)
    return offsets, peak


def _gap(taken: Sequence[tuple[int, int]], nbytes: int) -> int:
    """Start of the smallest gap that is large enough; else after the last."""
    end, best, best_size = 0, -1, -1
    for start, stop in taken:
        size = start - end
        if size >= nbytes and (best < 0 or size < best_size):
            best, best_size = end, size
        end = max(end, stop)
    return end if best < 0 else best


def place_guarded(blocks: Sequence[Block], page: int) -> tuple[list[int], int]:
    """As :func:`place`, without sharing: each block ends flush with a page; the next is free."""
    offsets, end = [], 0
    for block in blocks:
        room = max(round_up(block.nbytes, page), page)
        offsets.append(end + room - block.nbytes)
        end += room + page
    return offsets, max(end - page, 0)
