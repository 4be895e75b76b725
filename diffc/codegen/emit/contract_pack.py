"""Packing: functions that copy a panel of an operand so that a tile reads it in one stream.

A panel holds ``width`` neighbouring rows of lhs (or columns of rhs) for a run of the contracted
index: element ``(k, i)`` of it is at ``k * stride + i``. A function packs ``%trips`` steps of the
contracted index: one by one where the panel's elements are neighbours in the operand, by squares of
vectors where the steps are, element by element otherwise.

Squares are written by whole vectors: what they write beyond a row is written over by the next rows,
or lies in the slack behind the panels.
"""

from __future__ import annotations

from dataclasses import dataclass

from diffc.codegen.emit.contract_numbers import load_lanes, store_lanes
from diffc.codegen.emit.registers import shuffle
from diffc.codegen.emit.scalars import Ops
from diffc.codegen.emit.text import LLVM_TYPES, FunctionText, ModuleText, constant, vector_type
from diffc.codegen.loops.contraction import accumulator
from diffc.codegen.targets import ITEM_BYTES, Target

__all__ = ["MOST_SQUARE", "Packing", "transposed"]

MOST_SQUARE = 8
"""Larger squares pack no faster, and take long to compile."""
LANE_BYTES = 16
"""Within so many bytes a shuffle is cheap on every machine."""


@dataclass(frozen=True, slots=True)
class Packing:
    """Makes the packing functions of one operand.

    Attributes:
        module: Where they go.
        target: The machine.
        dtype: Of the operand. Panels are of the sums' dtype.
        across: Elements between neighbours of a panel in the operand.
        along: Elements between steps of the contracted index in the operand.
        is_padded: Whether panels are whole vectors wide, with anything beyond the operand.
        lanes: Lanes of a vector.
    """

    module: ModuleText
    target: Target
    dtype: str
    across: int
    along: int
    is_padded: bool

    lanes: int

    @property
    def panel(self) -> str:
        """Dtype of panels: an element is widened where it is packed, not where it is used."""
        return accumulator(self.dtype)

    @property
    def square(self) -> int:
        """Steps that one trip packs."""
        return min(self.lanes, MOST_SQUARE) if self.along == 1 and self.across != 1 else 1

    def whole(self, width: int, stride: int) -> str:
        """The function that packs `%trips` (at least 1) steps of a panel."""
        fn = self._open([("i64", "%trips")])
        sizes = ITEM_BYTES[self.dtype], ITEM_BYTES[self.panel]
        with fn.loop("%trips") as loop:
            source = fn.gep("%from", self._product(fn, loop.index, self.along * sizes[0]))
            target = fn.gep("%to", fn.scaled(loop.index, stride * sizes[1]))
            if self.across == 1:
                self._neighbours(fn, source, target, width, stride)
            else:
                self._elements(fn, source, target, width, stride)
        return self._close(fn)

    def squares(self, count: int, stride: int) -> str:
        """The function that packs `%trips` (at least 1) squares of `count` rows of the operand."""
        fn = self._open([("i64", "%trips")])
        lanes, sizes = self.square, (ITEM_BYTES[self.dtype], ITEM_BYTES[self.panel])
        with fn.loop("%trips") as loop:
            source = fn.gep("%from", fn.scaled(loop.index, lanes * sizes[0]))
            target = fn.gep("%to", fn.scaled(loop.index, lanes * stride * sizes[1]))
            self._square(fn, source, target, count, stride, lanes)
        return self._close(fn)

    def rest(self, count: int, stride: int, steps: int) -> str:
        """The function that packs fewer steps than a square has."""
        fn = self._open([])
        self._square(fn, "%from", "%to", count, stride, steps)
        return self._close(fn)

    def _open(self, parameters: list[tuple[str, str]]) -> FunctionText:
        parameters = [("ptr", "%from"), ("ptr", "%to"), *parameters]
        signature = ", ".join(f"{kind} {name}" for kind, name in parameters)
        head = f"define internal void @SELF({signature}) noinline {self.target.attributes} {{"
        return FunctionText(self.module, head)

    def _close(self, fn: FunctionText) -> str:
        fn.ret()
        return self.module.add_once("pack", fn.text())

    def _product(self, fn: FunctionText, index: str, factor: int) -> str:
        return fn.scaled(index, factor) if factor >= 0 else fn.value(f"mul i64 {index}, {factor}")

    def _neighbours(
        self, fn: FunctionText, source: str, target: str, width: int, stride: int
    ) -> None:
        """One step, by vectors."""
        lanes, sizes = self.lanes, (ITEM_BYTES[self.dtype], ITEM_BYTES[self.panel])
        for first in range(0, width, lanes):
            count = min(lanes, width - first)
            room = min(lanes, stride - first) if self.is_padded else count
            vector = self._vector(fn, lanes, fn.gep(source, first * sizes[0]), count)
            store_lanes(fn, self.panel, lanes, vector, fn.gep(target, first * sizes[1]), room)

    def _elements(
        self, fn: FunctionText, source: str, target: str, width: int, stride: int
    ) -> None:
        """One step, element by element."""
        kind, size = LLVM_TYPES[self.panel], ITEM_BYTES[self.panel]
        with fn.loop(width) as loop:
            offset = self._product(fn, loop.index, self.across * ITEM_BYTES[self.dtype])
            value = self._vector(fn, 1, fn.gep(source, offset), 1)
            fn.store(kind, value, fn.index(target, kind, loop.index), size)
        if self.is_padded:
            for column in range(width, stride):
                fn.store(kind, constant(0, kind), fn.index(target, kind, column), size)

    def _square(
        self, fn: FunctionText, source: str, target: str, count: int, stride: int, steps: int
    ) -> None:
        """A square of vectors, turned around; rows that do not exist are 0."""
        lanes, sizes = self.square, (ITEM_BYTES[self.dtype], ITEM_BYTES[self.panel])
        rows = ["zeroinitializer"] * lanes
        for row in range(count):
            place = fn.gep(source, row * self.across * sizes[0])
            rows[row] = self._vector(fn, lanes, place, steps)
        columns = transposed(fn, rows, self.panel)
        for step in range(steps):
            place = fn.gep(target, step * stride * sizes[1])
            store_lanes(fn, self.panel, lanes, columns[step], place, lanes)

    def _vector(self, fn: FunctionText, lanes: int, place: str, active: int) -> str:
        """Elements of the operand as those of a panel; lanes from `active` on are 0."""
        vector = load_lanes(fn, self.dtype, lanes, place, active)
        return Ops(fn, self.target, lanes).convert(vector, self.dtype, self.panel)


def transposed(fn: FunctionText, rows: list[str], dtype: str) -> list[str]:
    """The columns of a square of vectors.

    First within 16 bytes: rounds that interleave runs of 1, 2, 4, ... elements of two rows, after
    which vector `c` holds the columns whose number in their 16 bytes is `c` with its bits reversed.
    Then whole runs of 16 bytes: rounds that gather the even and the odd ones of two vectors.
    """
    lanes = len(rows)
    kind = vector_type(LLVM_TYPES[dtype], lanes)
    inner = min(lanes, LANE_BYTES // ITEM_BYTES[dtype])
    vectors, run = list(rows), 1
    while run < inner:
        low = _interleaved(lanes, inner, run, 0)
        high = _interleaved(lanes, inner, run, inner // 2)
        _round(fn, vectors, kind, run, low, high)
        run *= 2
    distance = inner
    while distance < lanes:
        runs = [
            [start + k for start in range(first, 2 * lanes, 2 * inner) for k in range(inner)]
            for first in (0, inner)
        ]
        _round(fn, vectors, kind, distance, *runs)
        distance *= 2
    order = [_reversed_bits(column, inner) for column in range(inner)]
    return [vectors[base + order[c]] for base in range(0, lanes, inner) for c in range(inner)]


def _interleaved(lanes: int, inner: int, run: int, first: int) -> list[int]:
    """Runs of two vectors in turn, from `first` on in each 16 bytes."""
    return [
        base + first + at + k + other
        for base in range(0, lanes, inner)
        for at in range(0, inner // 2, run)
        for other in (0, lanes)
        for k in range(run)
    ]


def _round(
    fn: FunctionText,
    vectors: list[str],
    kind: str,
    distance: int,
    low: list[int],
    high: list[int],
) -> None:
    for row in range(len(vectors)):
        if not row & distance:
            a, b = vectors[row], vectors[row + distance]
            vectors[row] = shuffle(fn, a, b, kind, low)
            vectors[row + distance] = shuffle(fn, a, b, kind, high)


def _reversed_bits(number: int, size: int) -> int:
    bits = size.bit_length() - 1
    return sum(((number >> bit) & 1) << (bits - 1 - bit) for bit in range(bits))
