"""Micro-kernels: the functions that compute one tile of sums.

A register tile keeps ``height`` x ``width`` vectors of sums while it runs through the contracted
index: rows of rhs are vectors, elements of lhs are spread. A dot tile runs vectors along the
contracted index instead and adds up their lanes at the end. Sums and the two pointers are carried
from trip to trip, every other address is a constant displacement.

Order of summation: in a register tile the (row-major) contracted index, one multiply-add each, one
chain per sum; blocks of it continue the chain. In a dot tile lane ``l`` sums the indices that are
``l`` modulo the lanes, and lanes are combined in pairs at distance 1, 2, 4, ...
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from diffc.codegen.emit.contract_epilogue import Epilogue
from diffc.codegen.emit.contract_numbers import (
    Numbers,
    Piece,
    load_lanes,
    pieces_of,
    store_lanes,
)
from diffc.codegen.emit.registers import shuffle, slice_lanes
from diffc.codegen.emit.text import FunctionText, vector_type
from diffc.codegen.targets import ITEM_BYTES

__all__ = ["Level", "Tiles"]

LINE_BYTES = 64
"""Of a cache; prefetching a line twice or missing one costs time, never bits."""


@dataclass(frozen=True, slots=True)
class Level:
    """One contracted variable.

    Attributes:
        extent: Number of its values; None where the function gets it as trips and single steps.
        lhs: Elements by which lhs moves.
        rhs: Elements by which rhs moves.
    """

    extent: int | None
    lhs: int
    rhs: int


@dataclass(slots=True)
class Running:
    """Sums with their types, and the pointers to the next products."""

    sums: list[str]
    kinds: list[str]
    lhs: str
    rhs: str


Step = Callable[[Running, int], None]
"""Adds the products at a step of the inner loop, the pointers standing at step 0."""
Inner = Callable[[Running], None]


@dataclass(frozen=True, slots=True)
class Tiles:
    """Makes the micro-kernels of one contraction.

    Attributes:
        epilogue: What follows the sums.
        levels: The contracted variables, outermost first, one at least.
        lhs_dtype: Dtype of lhs.
        rhs_dtype: Dtype of rhs.
        lhs_row: Elements between rows of lhs.
        rhs_column: Elements between columns of rhs (1, or anything in a dot tile).
        is_padded: Whether all lanes of rhs may be read.
        prefetch_lhs: Whether register tiles ask for the rows of lhs behind their own.
        prefetch_rhs: Whether they ask for the columns of rhs behind their own.
    """

    epilogue: Epilogue
    levels: tuple[Level, ...]
    lhs_dtype: str
    rhs_dtype: str
    lhs_row: int
    rhs_column: int
    is_padded: bool
    prefetch_lhs: bool = False
    prefetch_rhs: bool = False

    # --- functions

    def register(self, height: int, columns: int, *, has_sums: bool, is_inline: bool) -> str:
        """A register tile; returns the function's name.

        Parameters: pointers to lhs and rhs; to the old sums if `has_sums` (else they start at 0, or
        where the contraction says);
        to the new sums unless `is_inline` (rows of whole vectors, one after the other); trips and
        single steps of the inner loop where that is a parameter; those of the epilogue if
        `is_inline`.
        """
        parameters = [("ptr", "%lhs"), ("ptr", "%rhs")]
        parameters += [("ptr", "%old")] * has_sums + [("ptr", "%new")] * (not is_inline)
        if self.levels[-1].extent is None:
            parameters += [("i64", "%trips"), ("i64", "%steps")]
        if is_inline:
            parameters += self.epilogue.parameters()
        fn, numbers = self._open(parameters)
        pieces = pieces_of(columns, numbers.lanes, narrow=self.epilogue.c.how.narrow)
        width, nbytes = len(pieces), numbers.lanes * ITEM_BYTES[numbers.dtype]
        lanes = [piece.lanes for piece in pieces] * height
        sums = ["zeroinitializer"] * (height * width)
        if has_sums:
            places = [fn.gep("%old", number * nbytes) for number in range(height * width)]
            sums = [
                load_lanes(fn, numbers.dtype, count, place, count)
                for place, count in zip(places, lanes, strict=True)
            ]
        elif self.epilogue.c.start is not None:
            sums = self.epilogue.begun(numbers, height, pieces)
        step = self._register_step(numbers, height, pieces)
        running = Running(sums, [numbers.of(count).kind for count in lanes], "%lhs", "%rhs")
        self._nest(numbers, 0, running, lambda at: self._inner(numbers, self.levels[-1], at, step))
        if is_inline:
            rows = [running.sums[row * width : (row + 1) * width] for row in range(height)]
            self.epilogue.in_registers(numbers, rows, pieces)
        else:
            for number, (total, count) in enumerate(zip(running.sums, lanes, strict=True)):
                place = fn.gep("%new", number * nbytes)
                store_lanes(fn, numbers.dtype, count, total, place, count)
        return self._close(fn, "tile")

    def dot(self, height: int, columns: int, stride: int) -> str:
        """A dot tile; returns the function's name.

        Parameters: pointers to lhs, rhs and the sums, which are rows `stride` elements apart.
        """
        fn, numbers = self._open([("ptr", "%lhs"), ("ptr", "%rhs"), ("ptr", "%new")])
        lanes, extent = numbers.lanes, self.levels[-1].extent
        assert extent is not None, "dot tiles are not blocked along the contracted index"
        whole, rest = divmod(extent, lanes)
        vectors = Level(whole, lanes, lanes)

        def inner(at: Running) -> None:
            if whole:
                self._inner(numbers, vectors, at, self._dot_step(numbers, height, columns, lanes))
            if rest:
                self._dot_step(numbers, height, columns, rest)(at, 0)

        count = height * columns
        running = Running(["zeroinitializer"] * count, [numbers.kind] * count, "%lhs", "%rhs")
        self._nest(numbers, 0, running, inner)
        self._add_lanes(numbers, running.sums, columns, stride)
        return self._close(fn, "dot")

    def _open(self, parameters: Sequence[tuple[str, str]]) -> tuple[FunctionText, Numbers]:
        writer, how = self.epilogue.writer, self.epilogue.c.how
        target, module = writer.frame.target, writer.frame.fn.module
        signature = ", ".join(f"{kind} {name}" for kind, name in parameters)
        head = f"define internal void @SELF({signature}) noinline {target.attributes} {{"
        fn = FunctionText(module, head)
        return fn, Numbers(fn, target, self.epilogue.dtype, how.lanes)

    def _close(self, fn: FunctionText, stem: str) -> str:
        fn.ret()
        return fn.module.add_once(stem, fn.text())

    # --- loops over the contracted index

    def _moved(self, fn: FunctionText, at: Running, lhs: int, rhs: int) -> tuple[str, str]:
        """The pointers, moved by elements."""
        return (
            fn.gep(at.lhs, lhs * ITEM_BYTES[self.lhs_dtype]),
            fn.gep(at.rhs, rhs * ITEM_BYTES[self.rhs_dtype]),
        )

    def _carried(self, at: Running) -> list[tuple[str, str]]:
        return [("ptr", at.lhs), ("ptr", at.rhs), *zip(at.kinds, at.sums, strict=True)]

    def _nest(self, numbers: Numbers, depth: int, at: Running, inner: Inner) -> None:
        """Runs the inner loop for all values of the variables around it."""
        if depth == len(self.levels) - 1:
            inner(at)
            return
        level, fn = self.levels[depth], numbers.fn
        assert level.extent is not None, "only the inner loop is blocked"
        if level.extent == 0:
            return
        with fn.loop(level.extent, self._carried(at)) as loop:
            lhs, rhs, *sums = loop.carried
            here = Running(sums, at.kinds, lhs, rhs)
            self._nest(numbers, depth + 1, here, inner)
            moved = self._moved(fn, Running([], [], lhs, rhs), level.lhs, level.rhs)
            loop.next = [*moved, *here.sums]
        at.lhs, at.rhs, *at.sums = loop.results

    def _inner(self, numbers: Numbers, level: Level, at: Running, step: Step) -> None:
        """The inner loop, some steps a trip, and the steps that are left."""
        unroll = self.epilogue.c.how.unroll
        if level.extent is None:
            self._trips(numbers, level, at, step, "%trips", unroll)
            self._trips(numbers, level, at, step, "%steps", 1)
            return
        trips, rest = divmod(level.extent, unroll)
        if trips > 1:
            self._trips(numbers, level, at, step, trips, unroll)
        else:
            rest = level.extent
        for number in range(rest):
            step(at, number)
        at.lhs, at.rhs = self._moved(numbers.fn, at, rest * level.lhs, rest * level.rhs)

    def _trips(
        self,
        numbers: Numbers,
        level: Level,
        at: Running,
        step: Step,
        trips: int | str,
        unroll: int,
    ) -> None:
        fn = numbers.fn
        may_be_empty = isinstance(trips, str)
        with fn.loop(trips, self._carried(at), may_be_empty=may_be_empty) as loop:
            lhs, rhs, *sums = loop.carried
            here = Running(sums, at.kinds, lhs, rhs)
            for number in range(unroll):
                step(here, number)
            moved = self._moved(fn, here, unroll * level.lhs, unroll * level.rhs)
            loop.next = [*moved, *here.sums]
        at.lhs, at.rhs, *at.sums = loop.results

    # --- one step

    def _register_step(self, numbers: Numbers, height: int, pieces: Sequence[Piece]) -> Step:
        fn, level = numbers.fn, self.levels[-1]
        lhs_bytes, rhs_bytes = ITEM_BYTES[self.lhs_dtype], ITEM_BYTES[self.rhs_dtype]
        width = len(pieces)

        def step(at: Running, number: int) -> None:
            columns = []
            for piece in pieces:
                place = fn.gep(at.rhs, (number * level.rhs + piece.start) * rhs_bytes)
                count = piece.lanes if self.is_padded else piece.active
                columns.append(numbers.of(piece.lanes).vector(self.rhs_dtype, place, count))
            if self.prefetch_rhs:
                columns_bytes = (pieces[-1].start + pieces[-1].lanes) * rhs_bytes
                self._prefetch(fn, at.rhs, number * level.rhs * rhs_bytes, columns_bytes)
            if self.prefetch_lhs:
                self._prefetch(fn, at.lhs, number * level.lhs * lhs_bytes, height * lhs_bytes)
            for row in range(height):
                offset = (number * level.lhs + row * self.lhs_row) * lhs_bytes
                element = numbers.spread(self.lhs_dtype, fn.gep(at.lhs, offset))
                for vector, (piece, column) in enumerate(zip(pieces, columns, strict=True)):
                    where = row * width + vector
                    factor = numbers.first(element, piece.lanes)
                    at.sums[where] = numbers.of(piece.lanes).multiply_add(
                        factor, column, at.sums[where]
                    )

        return step

    def _prefetch(self, fn: FunctionText, pointer: str, offset: int, nbytes: int) -> None:
        """Asks for the lines of the tile behind this one, which may lie outside of the buffer."""
        for line in range(0, nbytes + LINE_BYTES, LINE_BYTES):
            at = offset + nbytes + line
            place = fn.value(f"getelementptr i8, ptr {pointer}, i64 {at}")
            fn.call(
                "void",
                "llvm.prefetch.p0",
                ("ptr", place),
                ("i32", "0"),
                ("i32", "3"),
                ("i32", "1"),
            )

    def _dot_step(self, numbers: Numbers, height: int, columns: int, active: int) -> Step:
        fn, lanes = numbers.fn, numbers.lanes
        lhs_bytes, rhs_bytes = ITEM_BYTES[self.lhs_dtype], ITEM_BYTES[self.rhs_dtype]

        def step(at: Running, number: int) -> None:
            others = []
            for column in range(columns):
                offset = (number * lanes + column * self.rhs_column) * rhs_bytes
                others.append(numbers.vector(self.rhs_dtype, fn.gep(at.rhs, offset), active))
            for row in range(height):
                offset = (number * lanes + row * self.lhs_row) * lhs_bytes
                vector = numbers.vector(self.lhs_dtype, fn.gep(at.lhs, offset), active)
                for column, other in enumerate(others):
                    where = row * columns + column
                    at.sums[where] = numbers.multiply_add(vector, other, at.sums[where])

        return step

    # --- the lanes of dot tiles

    def _add_lanes(self, numbers: Numbers, sums: Sequence[str], columns: int, stride: int) -> None:
        """Adds up the lanes of each vector and stores the sums in rows.

        A round at distance d joins two vectors, one in the lanes with bit d and one in the others,
        so a group of vectors ends as one with a sum in each lane.
        """
        fn, lanes = numbers.fn, numbers.lanes
        nbytes = ITEM_BYTES[numbers.dtype]
        rows_at_once = max(1, lanes // columns)
        rows = len(sums) // columns
        for first in range(0, rows, rows_at_once):
            some = min(rows_at_once, rows - first)
            for start in range(0, columns, lanes):
                count = min(lanes, columns - start)
                group = [
                    sums[row * columns + start + column]
                    for row in range(first, first + some)
                    for column in range(count)
                ]
                packed = self._joined(numbers, group)
                for row in range(some):
                    offset = ((first + row) * stride + start) * nbytes
                    part = slice_lanes(fn, packed, numbers.scalar, lanes, row * count, count)
                    kind = vector_type(numbers.scalar, count)
                    fn.store(kind, part, fn.gep("%new", offset), nbytes)

    def _joined(self, numbers: Numbers, group: Sequence[str]) -> str:
        fn, lanes, kind = numbers.fn, numbers.lanes, numbers.kind
        level, distance = list(group), 1
        while distance < lanes:
            joined = []
            for index in range(0, len(level), 2):
                a = level[index]
                b = level[index + 1] if index + 1 < len(level) else a
                low = [
                    lane if not lane & distance else lane - distance + lanes
                    for lane in range(lanes)
                ]
                high = [
                    lane + distance if not lane & distance else lane + lanes
                    for lane in range(lanes)
                ]
                one, other = shuffle(fn, a, b, kind, low), shuffle(fn, a, b, kind, high)
                joined.append(numbers.add(one, other))
            level, distance = joined, 2 * distance
        return level[0]
