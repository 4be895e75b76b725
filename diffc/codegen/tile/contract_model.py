"""Which tile a contraction gets: every choice priced in cycles, the cheapest taken.

A choice is a register tile (rows by vectors) over unpacked or packed operands, in blocks or not, or
a dot tile (rows by columns, vectors along the contracted index). The result is a function of sizes,
layouts, dtype and target alone, so the order of summation is too.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import NamedTuple

from diffc.codegen.loops.nodes import Tile
from diffc.codegen.targets import Target
from diffc.codegen.tile.contract_costs import costs
from diffc.codegen.tile.contract_price import Operand, Price, Problem, lanes_of

__all__ = [
    "Choice",
    "Operand",
    "Problem",
    "choose",
    "column_block",
    "dots",
    "registers_for_tiles",
    "unroll_of",
]

TRIP_SUMS, MOST_UNROLL = 16, 4
MOST_DOT_ROWS, MOST_DOT_COLUMNS = 8, 8
SIZES, APART, TOLERANCE = 14, 4, 1.4
"""So many sizes of tiles are tried, and so many with rows of lhs that do not push each other out of
the cache; their arithmetic takes at most so much of the least."""
SETTINGS = 3
"""So many settings, the best ones of two sizes, are tried with all sizes."""
COLUMN_BLOCK = 1024
"""Columns of rhs that are packed together."""


@dataclass(frozen=True, slots=True)
class Choice:
    """A tile and its price in cycles."""

    cycles: float
    tile: Tile


class Size(NamedTuple):
    """Rows and vectors of a tile, and whether a rest of half a vector stands alone."""

    rows: int
    vectors: int
    narrow: bool


def registers_for_tiles(target: Target) -> int:
    """Vector registers that a tile may take; one less than there are, or LLVM spills."""
    return target.vector_registers - 1


def unroll_of(depth: int, sums: int) -> int:
    """Steps of one trip of the inner loop: enough multiply-adds to hide the loop's own work."""
    least = -(-TRIP_SUMS // sums)
    for steps in range(least, min(2 * least, MOST_UNROLL) + 1):
        if depth % steps == 0:
            return steps
    return min(least, MOST_UNROLL)


def column_block(problem: Problem, target: Target) -> int:
    """Columns that are a run of their own, so that rhs stays in the second cache; 0: all.

    It serves rows in many short runs (the images of a convolution), each of which would stream a
    large rhs. The blocks are equal and whole vectors.
    """
    nbytes = problem.columns * problem.depth * problem.rhs.item
    runs = problem.outer // max(1, problem.rhs.runs)
    few, many = 48, 48
    if nbytes < target.l2_bytes * 3 // 2 or problem.rows >= few or problem.rows * runs < many:
        return 0
    if not problem.rhs.is_across:
        return 0
    lanes = lanes_of(problem.dtype, target)
    room = target.l2_bytes * 5 // 8 // (problem.rhs.item * problem.depth)
    for block in range(room // lanes * lanes, lanes, -lanes):
        if problem.columns % block == 0:
            return block
    return 0


@dataclass(frozen=True, slots=True)
class Setting:
    """What is packed, blocked and prefetched, whatever the size of a tile."""

    depth: int = 0
    pack_rhs: bool = False
    pack_lhs: bool = False
    turn: bool = False
    block_rows: bool = False
    ask_rhs: bool = False
    ask_lhs: bool = False


@lru_cache(maxsize=4096)
def choose(problem: Problem, target: Target) -> Choice | None:
    """The cheapest tile; None where no tile sums in the order that is asked for.

    Args:
        problem: Sizes, all at least 1 except `depth`, and layouts.
        target: The machine.
    """
    price = Price(problem, target)
    found: dict[Tile, float] = {}
    if problem.order != "lanes":
        _add_register_tiles(price, target, found)
    if problem.order != "sequence" and not problem.goes_on:
        for how in dots(problem, target):
            found[how] = price.dot(how)
    if not found:
        return None
    how = min(found, key=lambda how: found[how])
    return Choice(found[how], how)


def _add_register_tiles(price: Price, target: Target, found: dict[Tile, float]) -> None:
    """Prices register tiles: some sizes with all settings, the others with the best of these."""
    sizes = _sizes(price, target)
    apart = [size for size in sizes if not price.meet(size.rows)]
    probes = dict.fromkeys([*sizes[:2], *apart[:1]])

    def cycles(size: Size, setting: Setting) -> float:
        how = _tile(price, size, setting, target)
        if how not in found:
            found[how] = price.register(how)
        return found[how]

    best: dict[Setting, float] = {}
    for size in probes:
        plain = _settings(price, size, target)
        plain.sort(key=lambda setting: cycles(size, setting))
        for setting in plain[:SETTINGS]:
            for more in _refined(price, setting):
                best[more] = min(best.get(more, math.inf), cycles(size, more))
    for setting in sorted(best, key=lambda setting: best[setting])[:SETTINGS]:
        for size in sizes:
            cycles(size, setting)


def _sizes(price: Price, target: Target) -> list[Size]:
    """Sizes of tiles, those with the least arithmetic first; rows of lhs meet in some or none."""
    problem = price.problem
    room = registers_for_tiles(target)
    vectors = -(-problem.columns // price.lanes)
    least = min(room // 3, problem.rows * vectors)
    found: dict[Size, float] = {}
    seen: set[tuple[int, int]] = set()
    for most in range(1, min(vectors, room // 2) + 1):
        width = _even(vectors, most)
        for limit in range(1, min(problem.rows, (room - 1 - width) // width) + 1):
            height = _even(problem.rows, limit)
            is_full = height == problem.rows or width == vectors
            if (height, width) in seen or not (height * width >= least or is_full):
                continue
            seen.add((height, width))
            ways = [Size(height, width, narrow) for narrow in {False, price.has_half}]
            cycles, size = min((price.arithmetic(*way), way) for way in ways)
            found[size] = cycles
    order = sorted(found, key=lambda size: found[size])
    order = [size for size in order if found[size] <= TOLERANCE * found[order[0]]]
    apart = [size for size in order if not price.meet(size.rows)]
    return list(dict.fromkeys([*order[:SIZES], *apart[:APART]]))


def _even(size: int, most: int) -> int:
    """The largest piece where `size` is cut into as few even pieces of at most `most`."""
    pieces = -(-size // most)
    return -(-size // pieces)


def _settings(price: Price, size: Size, target: Target) -> list[Setting]:
    """Ways to pack and to cut the contracted index."""
    problem, (height, width, _) = price.problem, size
    depths = [0]
    if problem.is_single_depth and price.is_large and not problem.goes_on:
        depths += [block for block in costs(target).depth_blocks if block * 5 // 4 < problem.depth]
    can_turn = problem.strided > problem.turned >= 0 and not problem.goes_on
    must, has_strips = problem.must_pack, problem.columns > width * price.lanes
    return [
        Setting(depth, pack_rhs, pack_lhs, turn)
        for depth in depths
        for pack_rhs in sorted({must, must or problem.rows > height})
        for pack_lhs in ((False, True) if has_strips else (False,))
        for turn in ((False, True) if can_turn else (False,))
    ]


def _refined(price: Price, setting: Setting) -> Iterator[Setting]:
    """A setting with blocks of rows, and with what tiles may ask for."""
    problem = price.problem
    yield setting
    if not price.is_large:
        return
    ask_lhs = problem.lhs.is_across and not (setting.pack_lhs or problem.lhs.is_along)
    for block_rows in (False, True):
        for rhs in (False, True) if not setting.pack_rhs else (False,):
            for lhs in (False, True) if ask_lhs else (False,):
                yield replace(setting, block_rows=block_rows, ask_rhs=rhs, ask_lhs=lhs)


def _tile(price: Price, size: Size, setting: Setting, target: Target) -> Tile:
    """A tile of a size with a setting."""
    problem, (height, width, narrow) = price.problem, size
    unroll = unroll_of(problem.inner_depth, height * width)
    row_block = 0
    if setting.block_rows:
        depth = max(1, setting.depth or problem.depth)
        item = problem.lhs.panel if setting.pack_lhs else problem.lhs.item
        row_block = target.l2_bytes // 2 // (depth * item) // height * height
        row_block = 0 if row_block >= problem.rows else row_block
    return Tile(
        rows=height,
        vectors=width,
        lanes=price.lanes,
        unroll=unroll,
        row_block=row_block,
        column_block=COLUMN_BLOCK if setting.pack_rhs and setting.depth else 0,
        depth_block=-(-setting.depth // unroll) * unroll,
        pack_lhs=setting.pack_lhs,
        pack_rhs=setting.pack_rhs,
        narrow=narrow,
        prefetch_lhs=setting.ask_lhs,
        prefetch_rhs=setting.ask_rhs,
        turn=setting.turn,
    )


def dots(problem: Problem, target: Target) -> Iterator[Tile]:
    """Tiles with vectors along the contracted index, where both operands have that."""
    if not (problem.rhs.is_along and problem.lhs.is_along):
        return
    lanes = lanes_of(problem.dtype, target)
    room = registers_for_tiles(target)
    vectors = -(-problem.inner_depth // lanes)
    unroll = 2 if vectors % 2 == 0 and vectors > 2 else 1
    for width in range(1, min(problem.columns, MOST_DOT_COLUMNS) + 1):
        most = min(problem.rows, MOST_DOT_ROWS, (room - 1 - width) // width)
        for height in range(1, most + 1):
            yield Tile(height, width, lanes, unroll, dot=True)
