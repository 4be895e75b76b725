"""Which tile a contraction gets: every choice priced in cycles, the cheapest taken.

A choice is a register tile (rows by vectors) over unpacked or packed operands, or a dot tile (rows
by columns, vectors along the contracted index). The result is a function of sizes, layouts, dtype
and target alone, so the order of summation is too.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from math import gcd

from diffc.codegen.loops.contraction import accumulator, spans
from diffc.codegen.loops.nodes import Order, Tile
from diffc.codegen.targets import ITEM_BYTES, Target
from diffc.codegen.tile.contract_costs import Costs, costs

__all__ = ["Choice", "Problem", "choose", "column_block"]

TRIP_SUMS, MOST_UNROLL = 16, 4
WAY_BYTES, MOST_WAYS, LINE_BYTES = 4096, 6, 64
MOST_DOT_ROWS, MOST_DOT_COLUMNS = 8, 8


@dataclass(frozen=True, slots=True)
class Problem:
    """What the price of a contraction depends on.

    Attributes:
        rows: Extent of the row.
        columns: Extent of the column.
        depth: Number of products in a sum.
        inner_depth: Extent of the last contracted variable.
        outer: How often the tiles of rows and columns run.
        outer_rhs: How many different rhs there are in these runs.
        dtype: Of the sums.
        operand: Of rhs.
        rhs_by_column: Whether rhs has unit stride along columns.
        rhs_by_depth: Whether rhs has unit stride along the last contracted variable.
        lhs_by_depth: Whether lhs has.
        strided: How many accesses of the stores have a stride other than 0 or 1 along columns.
        is_single_depth: Whether there is one contracted variable.
        row_bytes: Bytes from row to row of lhs.
        packs_rhs: Whether rhs is packed in any case.
        goes_on: Whether sums go on with what was summed before.
        order: Of the sums, where it is given.
    """

    rows: int
    columns: int
    depth: int
    inner_depth: int
    outer: int
    outer_rhs: int
    dtype: str
    operand: str
    rhs_by_column: bool
    rhs_by_depth: bool
    lhs_by_depth: bool
    strided: int
    is_single_depth: bool
    row_bytes: int = 0
    packs_rhs: bool = False
    goes_on: bool = False
    order: Order | None = None


@dataclass(frozen=True, slots=True)
class Choice:
    """A tile and its price in cycles."""

    cycles: float
    tile: Tile


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
    price = costs(target)
    runs = problem.outer // max(1, problem.outer_rhs)
    if not _is_large(problem, price) or problem.rows >= price.many_rows:
        return 0
    if problem.rows * runs < price.many_rows or not problem.rhs_by_column:
        return 0
    lanes = max(2, target.lanes(accumulator(problem.dtype)))
    room = target.l2_bytes * 5 // 8 // (ITEM_BYTES[problem.operand] * problem.depth)
    for block in range(room // lanes * lanes, lanes, -lanes):
        if problem.columns % block == 0:
            return block
    return 0


@lru_cache(maxsize=4096)
def choose(problem: Problem, target: Target) -> Choice | None:
    """The cheapest tile; None where no tile sums in the order that is asked for.

    Args:
        problem: Sizes, all at least 1 except `depth`, and layouts.
        target: The machine.
    """
    choices: list[Choice] = []
    if problem.order != "lanes":
        choices.append(_register_tile(problem, target))
    dot = _dot_tile(problem, target) if problem.order != "sequence" else None
    if dot is not None:
        choices.append(dot)
    return min(choices, key=lambda choice: choice.cycles, default=None)


def _register_tile(problem: Problem, target: Target) -> Choice:
    """The best tile with columns along the lanes, and what is packed for it."""
    price = costs(target)
    lanes = max(2, target.lanes(accumulator(problem.dtype)))
    vectors = -(-problem.columns // lanes)
    room = registers_for_tiles(target)
    packs_lhs = _is_large(problem, price) and problem.rows >= price.many_rows
    best: tuple[float, int, int] | None = None
    for width in range(1, min(vectors, room // 2) + 1):
        for height in range(1, min(problem.rows, (room - 1 - width) // width) + 1):
            cycles = _tile_cycles(problem, target, lanes, height, width)
            if not packs_lhs and _has_conflicts(problem, height):
                cycles *= price.conflict
            if best is None or cycles < best[0]:
                best = cycles, height, width
    assert best is not None
    cycles, height, width = best
    how = Tile(height, width, lanes, unroll_of(problem.inner_depth, height * width))
    cycles *= problem.outer
    cycles += price.scatter * problem.strided * problem.rows * problem.columns * problem.outer
    how = _packed(problem, how, price)
    if how.pack_rhs:
        each = price.copy
        if not problem.rhs_by_column:
            each = price.transpose if problem.rhs_by_depth else price.gather
        cycles += each * problem.columns * problem.depth * problem.outer_rhs
        cycles *= 1 + price.pack
    return Choice(cycles, how)


def _tile_cycles(problem: Problem, target: Target, lanes: int, height: int, width: int) -> float:
    """Cycles of all tiles of one run, where tiles are at most `height` by `width`."""
    price = costs(target)
    rows = spans(problem.rows, height)
    columns = spans(-(-problem.columns // lanes), width)
    nbytes = ITEM_BYTES[problem.operand] * problem.columns * problem.depth
    is_streamed = nbytes > target.l2_bytes
    total = 0.0
    for wide in columns:
        stream = price.jump + price.stream * wide.size if is_streamed else 0.0
        for number, tall in enumerate(rows):
            sums = tall.size * wide.size
            step = max(
                sums * price.multiply_add,
                wide.size * price.load + tall.size * price.broadcast,
                price.latency,
            )
            each = problem.depth * step + price.call + price.finish * sums
            total += tall.count * wide.count * each
            if number == 0:  # the first rows bring a strip of rhs into the cache
                total += wide.count * problem.depth * max(0.0, stream - step)
    is_split = problem.columns % lanes != 0 and columns[-1].count > 1
    tall_sums, wide_sums = (sum(span.size for span in part) for part in (rows, columns))
    kinds = len(rows) * (len(columns) + is_split)
    code = tall_sums * (wide_sums + is_split * columns[-1].size)
    return total * (1 + price.kind * kinds + price.code * code)


def _has_conflicts(problem: Problem, height: int) -> bool:
    """Whether rows of lhs meet in the same sets of the first cache, more than it has ways."""
    apart = gcd(problem.row_bytes, WAY_BYTES)
    return problem.row_bytes > 0 and height * max(apart, LINE_BYTES) > WAY_BYTES * MOST_WAYS


def _is_large(problem: Problem, price: Costs) -> bool:
    """Whether rhs is so large that it is packed although its columns are neighbours."""
    return ITEM_BYTES[problem.operand] * problem.columns * problem.depth >= price.pack_bytes


def _packed(problem: Problem, how: Tile, price: Costs) -> Tile:
    """The tile with what is packed, and with cache blocks."""
    must = not problem.rhs_by_column or problem.packs_rhs
    can_block = problem.is_single_depth and not problem.goes_on
    is_large = _is_large(problem, price)
    if problem.rows < price.many_rows:  # rhs is read a few times: packing would cost more
        can_stream = problem.rows <= 2 and can_block and not must
        if can_stream and is_large and problem.depth > 2 * price.stream_depth:
            return replace(how, depth_block=price.stream_depth)
        return replace(how, pack_rhs=must)
    if not is_large:
        return replace(how, pack_rhs=must)
    how = replace(
        how,
        pack_rhs=True,
        pack_lhs=True,
        column_block=price.column_block,
        row_block=price.row_block,
    )
    if can_block and problem.depth > price.depth_block * 5 // 4:
        how = replace(how, depth_block=price.depth_block)
    return how


def _dot_tile(problem: Problem, target: Target) -> Choice | None:
    """The best tile with vectors along the contracted index, where both operands have that."""
    if problem.goes_on or not (problem.rhs_by_depth and problem.lhs_by_depth):
        return None
    price = costs(target)
    lanes = max(2, target.lanes(accumulator(problem.dtype)))
    room = registers_for_tiles(target)
    steps = problem.depth // max(1, problem.inner_depth) * -(-problem.inner_depth // lanes)
    best: tuple[float, int, int] | None = None
    for width in range(1, min(problem.columns, MOST_DOT_COLUMNS) + 1):
        most = min(problem.rows, MOST_DOT_ROWS, (room - 1 - width) // width)
        for height in range(1, most + 1):
            rows, columns = spans(problem.rows, height), spans(problem.columns, width)
            total = 0.0
            for tall in rows:
                for wide in columns:
                    sums = tall.size * wide.size
                    step = max(
                        sums * price.multiply_add,
                        (tall.size + wide.size) * price.load,
                        price.latency,
                    )
                    each = steps * step + price.call + price.reduce * sums
                    total += tall.count * wide.count * each
            code = sum(tall.size for tall in rows) * sum(wide.size for wide in columns)
            total *= 1 + price.kind * len(rows) * len(columns) + price.code * code
            if best is None or total < best[0]:
                best = total, height, width
    assert best is not None
    cycles, height, width = best
    cycles += price.finish * problem.rows * -(-problem.columns // lanes)
    cycles *= problem.outer
    cycles += price.scatter * problem.strided * problem.rows * problem.columns * problem.outer
    vectors = -(-problem.inner_depth // lanes)
    unroll = 2 if vectors % 2 == 0 and vectors > 2 else 1
    return Choice(cycles, Tile(height, width, lanes, unroll, dot=True))
