"""Offsets by lifetime: blocks whose lifetimes overlap never share bytes.

Blocks are placed one by one into the smallest gap that holds them among those placed before that
live at the same time. No order of placing is best for all programs, so a few fixed ones are tried,
and the lowest peak wins; none is below the most that lives at once. That search is quadratic in the
number of blocks: where there are many, they are first placed in order of time, each in the smallest
gap that is free then, and where there are very many only so.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

#: every block starts at a multiple of this, and so does the arena.
ALIGNMENT = 64
#: above so many blocks they are placed in order of time only; in between, fewer orders are tried
MANY = 8192
SEVERAL = 1024


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
    if len(blocks) > MANY:
        return _place_in_time(rounded)
    best: tuple[list[int], int] | None = None
    if len(blocks) > SEVERAL:
        best = _place_in_time(rounded)
        if best[1] == bound:
            return best
    for order in _ORDERS if len(blocks) <= SEVERAL else _ORDERS[:2]:
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
    """Places the blocks in this order; those placed are kept sorted by offset."""
    offsets = [0] * len(blocks)
    starts: list[int] = []
    placed = np.zeros((4, len(blocks)), np.int64)  # starts, stops, first and last steps
    count = peak = 0
    for number in sorted(range(len(blocks)), key=lambda k: (order(blocks[k]), k)):
        block = blocks[number]
        if block.nbytes == 0:
            continue
        taken, stops, first, last = placed[:, :count]
        alive = np.flatnonzero((first <= block.last) & (last >= block.first))
        offset = offsets[number] = _gap(taken[alive], stops[alive], block.nbytes)
        peak = max(peak, offset + block.nbytes)
        at = bisect_left(starts, offset)
        starts.insert(at, offset)
        placed[:, at + 1 : count + 1] = placed[:, at:count]
        placed[:, at] = offset, offset + block.nbytes, block.first, block.last
        count += 1
    return offsets, peak


def _gap(starts: NDArray[np.int64], stops: NDArray[np.int64], nbytes: int) -> int:
    """Start of the smallest gap that is large enough; else after the last."""
    if not len(starts):
        return 0
    ends = np.maximum.accumulate(stops)
    sizes = starts.copy()
    sizes[1:] -= ends[:-1]
    fitting = np.flatnonzero(sizes >= nbytes)
    if not len(fitting):
        return int(ends[-1])
    best = int(fitting[np.argmin(sizes[fitting])])
    return int(ends[best - 1]) if best else 0


def _place_in_time(blocks: Sequence[Block]) -> tuple[list[int], int]:
    """Places blocks as they come to life, each in the smallest gap that is free by then."""
    offsets = [0] * len(blocks)
    gaps: list[tuple[int, int]] = []  # (bytes, start) of what is free below the peak, sorted
    by_start: dict[int, int] = {}
    by_stop: dict[int, int] = {}
    peak = 0

    def release(start: int, stop: int) -> None:
        if start in by_stop:
            start = take(by_stop[start])
        if stop in by_start:
            stop = by_start[stop]
            take(by_stop[stop])
        insort(gaps, (stop - start, start))
        by_start[start], by_stop[stop] = stop, start

    def take(start: int) -> int:
        stop = by_start.pop(start)
        del by_stop[stop]
        gaps.pop(bisect_left(gaps, (stop - start, start)))
        return start

    numbers = [k for k, block in enumerate(blocks) if block.nbytes]
    dying = sorted(numbers, key=lambda k: blocks[k].last, reverse=True)
    for number in sorted(numbers, key=lambda k: (blocks[k].first, -blocks[k].nbytes, k)):
        block = blocks[number]
        while blocks[dying[-1]].last < block.first:
            dead = dying.pop()
            release(offsets[dead], offsets[dead] + blocks[dead].nbytes)
        at = bisect_left(gaps, (block.nbytes, -1))
        if at < len(gaps):
            start = gaps[at][1]
            stop = by_start[start]
            take(start)
        elif peak in by_stop:  # grow the gap that ends the arena
            start = take(by_stop[peak])
            stop = peak = start + block.nbytes
        else:
            start, stop = peak, peak + block.nbytes
            peak = stop
        offsets[number] = start
        if stop > start + block.nbytes:
            release(start + block.nbytes, stop)
    return offsets, peak


def place_guarded(blocks: Sequence[Block], page: int) -> tuple[list[int], int]:
    """As :func:`place`, without sharing: each block ends flush with a page; the next is free."""
    offsets, end = [], 0
    for block in blocks:
        room = max(round_up(block.nbytes, page), page)
        offsets.append(end + room - block.nbytes)
        end += room + page
    return offsets, max(end - page, 0)
