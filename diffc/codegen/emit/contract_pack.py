"""Packing: functions that copy a panel of an operand so that a tile reads it in one stream.

A panel holds ``width`` neighbouring rows of lhs (or columns of rhs) for a run of the contracted
index: element ``(k, i)`` of it is at ``k * stride + i``. A function packs ``%trips`` steps of the
contracted index: one by one where the panel's elements are neighbours in the operand, by squares of
vectors where the steps are, element by element otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass

from diffc.codegen.emit.contract_numbers import load_lanes, store_lanes
from diffc.codegen.emit.registers import shuffle
from diffc.codegen.emit.text import LLVM_TYPES, FunctionText, ModuleText, constant, vector_type
from diffc.codegen.targets import ITEM_BYTES, Target

__all__ = ["Packing"]


@dataclass(frozen=True, slots=True)
class Packing:
    """Makes the packing functions of one operand.

    Attributes:
        module: Where they go.
        target: The machine.
        dtype: Of the operand.
        across: Elements between neighbours of a panel in the operand.
        along: Elements between steps of the contracted index in the operand.
        is_padded: Whether panels are whole vectors wide, what is beyond the operand being 0.
    """

    module: ModuleText
    target: Target
    dtype: str
    across: int
    along: int
    is_padded: bool

    @property
    def lanes(self) -> int:
        """Lanes of a vector of the operand's dtype; panels are padded to those of the sums."""
        return max(2, self.target.lanes(self.dtype))

    @property
    def square(self) -> int:
        """Steps that one trip packs."""
        return self.lanes if self.along == 1 and self.across != 1 else 1

    def whole(self, width: int, stride: int) -> str:
        """The function that packs `%trips` (at least 1) times `square` steps."""
        fn = self._open([("i64", "%trips")])
        size, steps = ITEM_BYTES[self.dtype], self.square
        with fn.loop("%trips") as loop:
            source = fn.gep("%from", self._product(fn, loop.index, steps * self.along * size))
            target = fn.gep("%to", fn.scaled(loop.index, steps * stride * size))
            self._steps(fn, source, target, width, stride, steps)
        return self._close(fn)

    def rest(self, width: int, stride: int, steps: int) -> str:
        """The function that packs fewer steps than a square has."""
        fn = self._open([])
        self._steps(fn, "%from", "%to", width, stride, steps)
        return self._close(fn)

    def _open(self, parameters: list[tuple[str, str]]) -> FunctionText:
        signature = ", ".join(
            f"{k} {n}" for k, n in [("ptr", "%from"), ("ptr", "%to"), *parameters]
        )
        head = f"define internal void @SELF({signature}) noinline {self.target.attributes} {{"
        return FunctionText(self.module, head)

    def _close(self, fn: FunctionText) -> str:
        fn.ret()
        return self.module.add_once("pack", fn.text())

    def _product(self, fn: FunctionText, index: str, factor: int) -> str:
        return fn.scaled(index, factor) if factor >= 0 else fn.value(f"mul i64 {index}, {factor}")

    def _steps(
        self, fn: FunctionText, source: str, target: str, width: int, stride: int, steps: int
    ) -> None:
        size, lanes = ITEM_BYTES[self.dtype], self.lanes
        if self.across != 1 and self.along != 1:
            self._elements(fn, source, target, width, stride)
            return
        for first in range(0, width, lanes):
            count = min(lanes, width - first)
            room = min(lanes, stride - first) if self.is_padded else count
            place = fn.gep(target, first * size)
            if self.across == 1:
                vector = load_lanes(fn, self.dtype, lanes, fn.gep(source, first * size), count)
                store_lanes(fn, self.dtype, lanes, vector, place, room)
                continue
            start = fn.gep(source, first * self.across * size)
            vectors = self._transposed(fn, start, count, steps)
            for step in range(steps):
                to = fn.gep(place, step * stride * size)
                store_lanes(fn, self.dtype, lanes, vectors[step], to, room)

    def _transposed(self, fn: FunctionText, start: str, rows: int, steps: int) -> list[str]:
        """A square of vectors, turned around; rows and steps beyond are 0."""
        lanes, size = self.lanes, ITEM_BYTES[self.dtype]
        kind = vector_type(LLVM_TYPES[self.dtype], lanes)
        vectors = [
            load_lanes(fn, self.dtype, lanes, fn.gep(start, row * self.across * size), steps)
            if row < rows
            else "zeroinitializer"
            for row in range(lanes)
        ]
        distance = 1
        while distance < lanes:
            low = [k if not k & distance else k - distance + lanes for k in range(lanes)]
            high = [k + distance if not k & distance else k + lanes for k in range(lanes)]
            for row in range(lanes):
                if not row & distance:
                    a, b = vectors[row], vectors[row + distance]
                    vectors[row] = shuffle(fn, a, b, kind, low)
                    vectors[row + distance] = shuffle(fn, a, b, kind, high)
            distance *= 2
        return vectors

    def _elements(
        self, fn: FunctionText, source: str, target: str, width: int, stride: int
    ) -> None:
        """One step, element by element."""
        kind, size = LLVM_TYPES[self.dtype], ITEM_BYTES[self.dtype]
        with fn.loop(width) as loop:
            place = fn.gep(source, self._product(fn, loop.index, self.across * size))
            value = fn.load(kind, place, size)
            fn.store(kind, value, fn.index(target, kind, loop.index), size)
        if self.is_padded:
            for column in range(width, stride):
                fn.store(kind, constant(0, kind), fn.index(target, kind, column), size)
