"""What a tile of a contraction costs, in cycles.

Arithmetic and loads run side by side: of the two, the longer counts, and a share of the shorter.
Loads are counted by lines and by where these come from. An operand comes from the first cache if
everything that is read between two uses of it fits there, else from the second, and so on; near a
border the price goes from one level to the next smoothly. Rows of lines that lie apart cost a jump
each, as no prefetcher of the processor follows them; tiles may ask for such lines themselves. Where
rows are a multiple of a large power of two apart, they find room in a part of a cache alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from math import ceil, gcd

from diffc.codegen.loops.contraction import Span, accumulator, spans
from diffc.codegen.loops.nodes import Order, Tile
from diffc.codegen.targets import ITEM_BYTES, Target
from diffc.codegen.tile.contract_costs import Costs, costs

__all__ = ["Operand", "Price", "Problem", "lanes_of"]

LINE, PAGE = 64, 4096
WAYS = 8
"""Lines with equal last bits of their address that a cache holds."""
MANY_SUMS = 14
"""Vectors of a tile from which on its stores are not hidden behind the next tile."""
MANY_STEPS = 512
"""More runs than these meet what the others meet."""
SMALL = 0.15
"""Of the lines that are read, so few from beyond the second cache don't count."""
TURNED = 8
"""Side of the squares in which sums are transposed."""


@dataclass(frozen=True, slots=True)
class Operand:
    """How an operand lies in memory.

    Attributes:
        dtype: Of its elements.
        across: Bytes from a row (of lhs) or column (of rhs) to the next; negative if they run back.
        along: Bytes from a step of the innermost contracted variable to the next.
        runs: How many different ones there are in all runs.
    """

    dtype: str
    across: int
    along: int
    runs: int = 1

    @property
    def item(self) -> int:
        """Bytes of an element."""
        return ITEM_BYTES[self.dtype]

    @property
    def panel(self) -> int:
        """Bytes of an element in a panel, which is of the sums' dtype."""
        return ITEM_BYTES[accumulator(self.dtype)]

    @property
    def is_across(self) -> bool:
        """Whether rows (columns) are neighbours."""
        return self.across == self.item

    @property
    def is_along(self) -> bool:
        """Whether steps of the contracted index are neighbours."""
        return self.along == self.item


@dataclass(frozen=True, slots=True)
class Problem:
    """What the price of a contraction depends on.

    Attributes:
        rows: Extent of the row.
        columns: Extent of the column.
        depth: Number of products in a sum.
        inner_depth: Extent of the last contracted variable.
        outer: How often the tiles of rows and columns run.
        dtype: Of the sums.
        lhs: The operand by rows.
        rhs: The operand by columns.
        strided: How many accesses of the stores have a stride other than 0 or 1 along columns.
        turned: The same along rows; -1 if lanes can't run along rows.
        is_single_depth: Whether there is one contracted variable.
        packs_rhs: Whether rhs is packed in any case.
        goes_on: Whether sums go on with what was summed before.
        order: Of the sums, where it is given.
    """

    rows: int
    columns: int
    depth: int
    inner_depth: int
    outer: int
    dtype: str
    lhs: Operand
    rhs: Operand
    strided: int = 0
    turned: int = -1
    is_single_depth: bool = True
    packs_rhs: bool = False
    goes_on: bool = False
    order: Order | None = None

    @property
    def must_pack(self) -> bool:
        """Whether a register tile can't read rhs as it lies."""
        return self.packs_rhs or not (self.rhs.is_across or self.depth == 0)


def lanes_of(dtype: str, target: Target) -> int:
    """Lanes of a vector of sums."""
    return max(2, target.lanes(accumulator(dtype)))


def beyond(nbytes: float, room: float) -> float:
    """How much of data is not found in a cache: 0 far below its size, 1 far above."""
    ratio = room / nbytes if nbytes > 0 else 1e9
    return 1.0 / (1.0 + ratio * ratio * ratio * ratio)


@lru_cache(maxsize=4096)
def covered(stride: int, nbytes: int, way: int, steps: int) -> int:
    """How many bytes of a `way` of a cache are met by runs of `nbytes`, `stride` bytes apart."""
    starts = sorted({step * stride % way for step in range(min(steps, MANY_STEPS))})
    gaps = [end - start for start, end in pairwise([*starts, starts[0] + way])]
    return sum(min(gap, nbytes) for gap in gaps)


def usable(stride: int, nbytes: float, room: int, steps: float) -> float:
    """The share of a cache in which `steps` runs of `nbytes`, `stride` bytes apart, find room."""
    way, nbytes = room // WAYS, max(LINE, int(nbytes))
    return covered(stride, nbytes, way, max(1, int(steps))) / way


Levels = tuple[float, float]
"""Shares of lines that come from the third cache and from memory; the others from the second."""


class Price:
    """Prices of the tiles of one problem on one target.

    Attributes:
        problem: The contraction.
        figures: The target's.
    """

    def __init__(self, problem: Problem, target: Target) -> None:
        self.problem = problem
        self.figures: Costs = costs(target)
        self.target = target
        self.lanes = lanes_of(problem.dtype, target)
        self.first = target.l1_bytes * self.figures.first
        self.second = target.l2_bytes * self.figures.second
        self.third = target.l3_bytes * self.figures.third
        rows, columns, depth = problem.rows, problem.columns, problem.depth
        self.lhs_bytes = rows * depth * problem.lhs.item
        self.rhs_bytes = columns * depth * problem.rhs.item
        self.out_bytes = rows * columns * ITEM_BYTES[problem.dtype]
        once = self.lhs_bytes + self.rhs_bytes + self.out_bytes
        every = self.lhs_bytes * problem.lhs.runs + self.rhs_bytes * problem.rhs.runs
        self.home = self._levels(every + self.out_bytes * problem.outer)
        self.again = self._levels(once)
        self.vectors = -(-columns // self.lanes)
        rest = columns % self.lanes
        self.has_half = self.figures.half < 1.0 and 0 < rest <= self.lanes // 2

    @property
    def is_large(self) -> bool:
        """Whether some of what is read comes from beyond the second cache."""
        return self.home[0] > SMALL

    def arithmetic(self, height: int, width: int, narrow: bool) -> float:
        """A bound for all register tiles of a size."""
        problem, figures = self.problem, self.figures
        total = 0.0
        rows, widths = spans(problem.rows, height), self._widths(width, narrow)
        for wide, count in widths:
            for tall in rows:
                loads = wide * figures.load + tall.size * figures.broadcast
                step = max(tall.size * wide * figures.multiply_add, loads, figures.latency)
                total += tall.count * count * (problem.depth * step + figures.call)
        return total * (1 + self._compiled(rows, widths))

    def _levels(self, nbytes: float, share: float = 1.0) -> Levels:
        """Where data is found of which so much is used in between; `share` of the second cache."""
        return beyond(nbytes, self.second * share), beyond(nbytes, self.third)

    def _lines(self, levels: Levels, lines: float) -> float:
        """Lines in a row."""
        figures, (third, memory) = self.figures, levels
        far = third - memory
        return lines * ((1.0 - third) * figures.near + far * figures.far + memory * figures.deep)

    def _jump(self, levels: Levels, lines: float, page: float, asked: bool) -> float:
        """A few neighbouring lines, the next ones being elsewhere."""
        figures, (third, memory) = self.figures, levels
        far = third - memory
        if asked:
            each = (1.0 - third) * figures.near + far * figures.far_asked
            return lines * (each + memory * figures.deep_asked)
        jumps = far * figures.far_jump + memory * figures.deep_jump
        return jumps + page + self._lines(levels, lines)

    def _page(self, one: Operand, steps: float) -> float:
        """What a jump costs for its page."""
        apart = abs(one.along)
        if apart < PAGE // 4:
            return 0.0
        used = steps * min(1.0, apart / PAGE)
        return self.figures.page * beyond(used, self.figures.pages)

    # --- register tiles

    def register(self, how: Tile) -> float:
        """A register tile with all that belongs to it: packing, blocks, stores."""
        problem, figures = self.problem, self.figures
        depth = problem.depth
        blocks = -(-depth // how.depth_block) if how.depth_block else 1
        rows = spans(problem.rows, how.rows)
        widths = self._widths(how.vectors, how.narrow)
        arithmetic = self._ports(how, rows, widths, blocks)
        lines, stalls = self._traffic(how, rows, depth / blocks, blocks)
        shorter = min(arithmetic, lines)
        hidden = min(shorter, stalls)
        cycles = max(arithmetic, lines) + figures.overlap * (shorter - hidden)
        cycles += figures.stall * hidden
        cycles += self._stores(how, rows) + self._spilled_runs(how)
        if blocks > 1:
            kept = problem.rows * problem.columns * ITEM_BYTES[accumulator(problem.dtype)]
            cycles += (blocks - 1) * self._lines(self._levels(kept), 2 * kept / LINE)
        cycles *= problem.outer
        cycles += self._packing(how, depth / blocks)
        share = self._compiled(rows, widths) + figures.pack * (how.pack_lhs + how.pack_rhs)
        return cycles * (1 + share)

    def _compiled(self, rows: tuple[Span, ...], widths: list[tuple[float, int]]) -> float:
        """What code for so many distinct tiles costs, as a share."""
        sums = sum(span.size for span in rows) * sum(width for width, _ in widths)
        return self.figures.kind * len(rows) * len(widths) + self.figures.code * sums

    def _widths(self, most: int, narrow: bool) -> list[tuple[float, int]]:
        """Vectors of tiles, and how many have so many; where narrow, half a vector stands alone."""
        if narrow and self.has_half:
            whole = spans(self.vectors - 1, most)
            return [*((float(span.size), span.count) for span in whole), (self.figures.half, 1)]
        widths = [(float(span.size), span.count) for span in spans(self.vectors, most)]
        if self.problem.columns % self.lanes and widths[-1][1] > 1:
            size, count = widths.pop()
            widths += [(size, count - 1), (size, 1)]
        return widths

    def _splits(self, stride: int) -> float:
        """The share of vectors that lie in two lines, where runs of them start so far apart."""
        vector = self.target.vector_bytes
        return (1.0 - gcd(stride, LINE) / LINE) * min(1.0, vector / LINE) if stride else 0.0

    def _ports(
        self, how: Tile, rows: tuple[Span, ...], widths: list[tuple[float, int]], blocks: int
    ) -> float:
        """Multiply-adds, or the loads that they wait for."""
        problem, figures = self.problem, self.figures
        load, widen_lhs, widen_rhs = figures.load, 0.0, 0.0
        if not how.pack_rhs:
            load += figures.split * self._splits(problem.rhs.along)
            widen_rhs = figures.widened(problem.rhs.dtype)
        if not how.pack_lhs:
            widen_lhs = figures.widened(problem.lhs.dtype)
        total = 0.0
        for tall in rows:
            height = tall.size
            spread = height * figures.broadcast
            if how.prefetch_lhs:
                spread += (1 + height * problem.lhs.item // LINE) * figures.ask
            for width, count in widths:
                loads = width * load + spread
                if how.prefetch_rhs:
                    loads += (width + 1) * figures.ask
                step = max(height * width * figures.multiply_add, loads, figures.latency)
                step += width * widen_rhs + height * widen_lhs
                each = problem.depth * step + blocks * figures.call
                if blocks > 1:
                    each += blocks * figures.keep * height * width
                total += tall.count * count * each
        return total

    def _traffic(
        self, how: Tile, rows: tuple[Span, ...], depth: float, blocks: int
    ) -> tuple[float, float]:
        """Lines of both operands that come from beyond the first cache, in one run.

        Of them also those that nobody asks for: they are far off and lie apart.
        """
        problem, lanes = self.problem, self.lanes
        lhs, rhs = problem.lhs, problem.rhs
        lhs_item = lhs.panel if how.pack_lhs else lhs.item
        rhs_item = rhs.panel if how.pack_rhs else rhs.item
        tiles = sum(span.count for span in rows)
        height = problem.rows / tiles
        width = min(how.vectors, self.vectors)
        strips = self.vectors / width
        row_blocks = ceil(problem.rows / how.row_block) if how.row_block else 1
        column_blocks = ceil(problem.columns / how.column_block) if how.column_block else 1
        strip = depth * width * lanes * rhs_item
        tile = height * depth * lhs_item
        block = problem.rows / row_blocks * depth * lhs_item
        rhs_block = depth * problem.columns / column_blocks * rhs_item
        # strips of rhs: from home, from its block for further blocks of rows, else just used
        lines = strip / depth / LINE if depth else 0.0
        page = 0.0 if how.pack_rhs else self._page(rhs, depth)
        run = width * lanes * rhs_item
        share_1, share_2 = (1.0, 1.0) if how.pack_rhs else self._usable(rhs.along, run, depth)
        kept = self._levels(rhs_block + block, share_2)
        used = beyond(strip + 1.5 * tile, self.first * share_1)
        near = self._levels(strip + 1.5 * tile, share_2)
        if how.pack_rhs:
            new = again = self._lines(kept, lines)
            later = used * self._lines(near, lines)
        else:
            lines += 0.5
            fresh = rhs.runs / problem.outer
            asked = how.prefetch_rhs
            new = fresh * self._jump(self.home, lines, page, asked)
            new += (1.0 - fresh) * self._jump(self.again, lines, page, asked)
            again = self._jump(kept, lines, page, asked)
            later = used * self._jump(near, lines, page, asked=False)
        steps = problem.depth * strips
        total = steps * (new + (row_blocks - 1) * again + (tiles - row_blocks) * later)
        stalls = 0.0
        if not how.pack_rhs:
            some = 0.0 if how.prefetch_rhs else new * self.home[0]
            some += (row_blocks - 1) * again * kept[0] + (tiles - row_blocks) * later * near[0]
            stalls += steps * some
        # tiles of lhs: from home, later from their block
        is_strided = not (how.pack_lhs or lhs.is_along)
        broad = height * lhs.item
        share_1, share_2 = self._usable(lhs.along, broad, depth) if is_strided else (1.0, 1.0)
        used = beyond(block + strip, self.first * share_1)
        near = self._levels(block + strip, share_2)
        home = self._levels(block) if how.pack_lhs else self.home
        if not is_strided:
            lines = tile / LINE + (0.0 if how.pack_lhs else height)
            first, later = self._lines(home, lines), used * self._lines(near, lines)
            if not how.pack_lhs and self.meet(height):
                first += self.figures.conflict * height * depth
                later += self.figures.conflict * height * depth
        else:
            lines = height * lhs.item / LINE + 0.5
            page = self._page(lhs, depth)
            asked = how.prefetch_lhs
            used = max(used, page / self.figures.page)
            first = depth * self._jump(home, lines, page, asked)
            later = depth * used * self._jump(near, lines, page, asked)
        times = max(0.0, max(1.0, strips) - column_blocks)
        total += blocks * tiles * (column_blocks * first + times * later)
        if is_strided and not how.prefetch_lhs:
            stalls += blocks * tiles * (column_blocks * first * home[0] + times * later * near[0])
        return total + self._written_runs(width * lanes), stalls

    def _written_runs(self, columns: int) -> float:
        """Lines of the result, in runs of some columns."""
        problem, figures = self.problem, self.figures
        item = ITEM_BYTES[problem.dtype]
        runs = problem.rows * max(1.0, problem.columns / columns)
        lines = min(columns, problem.columns) * item / LINE + 0.5
        memory = self.home[1]
        each = figures.write_jump + lines * figures.write + memory * lines * figures.spill
        return beyond(self.out_bytes + 0.5 * self.first, self.first) * runs * each

    def _spilled_runs(self, how: Tile) -> float:
        """Runs of a result that goes to memory, which nothing hides."""
        problem = self.problem
        tiles = max(1.0, self.vectors / min(how.vectors, self.vectors))
        memory = beyond(self.out_bytes, self.third)
        return memory * problem.rows * tiles * self.figures.spill_jump

    def _usable(self, stride: int, nbytes: float, steps: float) -> tuple[float, float]:
        """Shares of the first and the second cache."""
        sizes = self.target.l1_bytes, self.target.l2_bytes
        first, second = (usable(stride, nbytes, size, steps) for size in sizes)
        return first, second

    def meet(self, height: float) -> bool:
        """Whether the rows of a tile of lhs push each other out of the first cache."""
        way = self.target.l1_bytes // WAYS
        lhs = self.problem.lhs
        if not lhs.is_along or not lhs.across:
            return False
        return height * LINE > WAYS * covered(lhs.across, LINE, way, ceil(height))

    def _stores(self, how: Tile, rows: tuple[Span, ...]) -> float:
        """The stores of one run."""
        problem, figures = self.problem, self.figures
        sums = how.rows * min(how.vectors, self.vectors)
        finish = figures.finish + figures.drain * beyond(sums, MANY_SUMS)
        total = finish * problem.rows * self.vectors
        strided = problem.strided
        if how.turn:
            strided = problem.turned
            side = min(self.lanes, TURNED)
            for span in rows:
                high = -(-span.size // side) * side
                total += span.count * self.vectors * self.lanes * high * figures.turn
                vectors = problem.columns * -(-span.size // self.lanes)
                total += span.count * vectors * figures.finish
        return total + figures.scatter * strided * problem.rows * problem.columns

    def _packing(self, how: Tile, depth: float) -> float:
        """Packing both operands, in all runs."""
        problem = self.problem
        total = 0.0
        if how.pack_rhs:
            size = problem.columns * problem.depth * problem.rhs.runs
            total += self._pack(problem.rhs, size, self.lanes)
            nbytes = problem.columns * problem.depth * problem.rhs.panel
            if how.depth_block or how.column_block:
                nbytes = int(depth * min(how.column_block or nbytes, problem.columns))
                nbytes *= problem.rhs.panel
            total += self._written(nbytes, size * problem.rhs.panel)
        if how.pack_lhs:
            times = ceil(problem.columns / how.column_block) if how.column_block else 1
            size = problem.rows * problem.depth * problem.outer * times
            tall = min(how.rows, self.lanes)
            total += self._pack(problem.lhs, size, tall)
            rows = min(how.row_block or problem.rows, problem.rows)
            total += self._written(int(rows * depth) * problem.lhs.panel, size * problem.lhs.panel)
        return total

    def _pack(self, one: Operand, size: int, lanes: int) -> float:
        figures = self.figures
        if one.is_across:
            each = (figures.copy + figures.widened(one.dtype)) / lanes
            jumps = self._jump(self.home, lanes * one.item / LINE, 0.0, asked=False) / lanes
            return size * (each + jumps)
        each = figures.transpose if one.is_along else figures.gather
        return size * each + self._lines(self.home, size * one.item / LINE)

    def _written(self, block: int, nbytes: int) -> float:
        """Writing panels beyond the second cache."""
        third, memory = self._levels(block)
        return nbytes / LINE * (third * self.figures.far + memory * self.figures.deep)

    # --- dot tiles

    def dot(self, how: Tile) -> float:
        """A dot tile with its stores."""
        problem, figures = self.problem, self.figures
        lhs, rhs = problem.lhs, problem.rhs
        rows, columns = spans(problem.rows, how.rows), spans(problem.columns, how.vectors)
        outside = problem.depth // max(1, problem.inner_depth)
        steps = outside * -(-problem.inner_depth // self.lanes)
        load_lhs, load_rhs = (
            figures.load + figures.split * self._splits(one.across) for one in (lhs, rhs)
        )
        widen_lhs, widen_rhs = (figures.widened(one.dtype) for one in (lhs, rhs))
        total = 0.0
        for tall in rows:
            for wide in columns:
                sums = tall.size * wide.size
                loads = tall.size * load_lhs + wide.size * load_rhs
                step = max(sums * figures.multiply_add, loads, figures.latency)
                step += tall.size * widen_lhs + wide.size * widen_rhs
                each = steps * step + figures.call + figures.reduce * sums
                total += tall.count * wide.count * each
        total += figures.finish * problem.rows * self.vectors
        lines_lhs = outside * (problem.inner_depth * lhs.item / LINE + 1)
        lines_rhs = outside * (problem.inner_depth * rhs.item / LINE + 1)
        tile = how.rows * problem.depth * lhs.item
        strip = how.vectors * problem.depth * rhs.item
        moved = self._lines(self.home, problem.rows * lines_lhs + problem.columns * lines_rhs)
        tall_tiles, wide_tiles = (sum(span.count for span in part) for part in (rows, columns))
        between = self.rhs_bytes + tile
        share = (tall_tiles - 1) * beyond(between, self.first)
        moved += share * self._lines(self._levels(between), problem.columns * lines_rhs)
        between = tile + strip
        share = tall_tiles * (wide_tiles - 1) * beyond(between, self.first)
        moved += share * self._lines(self._levels(between), how.rows * lines_lhs)
        cycles = max(total, moved) + figures.overlap * min(total, moved)
        cycles += figures.scatter * problem.strided * problem.rows * problem.columns
        code = sum(tall.size for tall in rows) * sum(wide.size for wide in columns)
        share = figures.kind * len(rows) * len(columns) + figures.code * code
        return cycles * problem.outer * (1 + share)
