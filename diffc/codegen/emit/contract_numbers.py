"""Arithmetic of contractions on vectors: loads of operands, multiply-adds, sums.

Sums are kept in the accumulator dtype (f32 for 16 bits). One multiply-add is fused where the target
has the instruction, else a product and a sum; integers wrap; `bool` is `or` of `and`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from diffc.codegen.emit.half import spread
from diffc.codegen.emit.registers import FLOATS, slice_lanes, store_some
from diffc.codegen.emit.scalars import Ops
from diffc.codegen.emit.text import LLVM_TYPES, FunctionText, intrinsic_suffix, vector_type
from diffc.codegen.targets import HALVES, ITEM_BYTES, Target

__all__ = ["Numbers", "Piece", "load_lanes", "pieces_of", "prefix_mask", "store_lanes"]


@dataclass(frozen=True, slots=True)
class Piece:
    """Neighbouring columns of a tile in one vector.

    Attributes:
        start: The first of them.
        lanes: Lanes of the vector.
        active: How many lanes are columns, from lane 0 on.
    """

    start: int
    lanes: int
    active: int


def pieces_of(columns: int, lanes: int, *, narrow: bool) -> list[Piece]:
    """Columns dealt to vectors; with `narrow` the last may have half the lanes."""
    found: list[Piece] = []
    for start in range(0, columns, lanes):
        active = min(lanes, columns - start)
        is_narrow = narrow and lanes >= 4 and active <= lanes // 2
        found.append(Piece(start, lanes // 2 if is_narrow else lanes, active))
    return found


def prefix_mask(lanes: int, active: int) -> str:
    """The mask of the first `active` lanes."""
    bits = ", ".join(f"i1 {int(lane < active)}" for lane in range(lanes))
    return f"<{bits}>"


def load_lanes(fn: FunctionText, dtype: str, lanes: int, pointer: str, active: int) -> str:
    """A vector from memory; only the first `active` lanes are read, the others are 0."""
    scalar, align = LLVM_TYPES[dtype], ITEM_BYTES[dtype]
    kind = vector_type(scalar, lanes)
    if active >= lanes:
        return fn.load(kind, pointer, align)
    if dtype == "f16":  # masks of 16 bits are for integers
        bits = load_lanes(fn, "i16", lanes, pointer, active)
        return fn.value(f"bitcast {vector_type('i16', lanes)} {bits} to {kind}")
    return fn.call(
        kind,
        f"llvm.masked.load.{intrinsic_suffix(scalar, lanes)}.p0",
        ("ptr", pointer),
        ("i32", str(align)),
        (vector_type("i1", lanes), prefix_mask(lanes, active)),
        (kind, "zeroinitializer"),
    )


def store_lanes(
    fn: FunctionText, dtype: str, lanes: int, value: str, pointer: str, active: int
) -> None:
    """A vector to memory; only the first `active` lanes are written."""
    scalar, align = LLVM_TYPES[dtype], ITEM_BYTES[dtype]
    kind = vector_type(scalar, lanes)
    if active >= lanes:
        fn.store(kind, value, pointer, align)
        return
    store_some(fn, scalar, lanes, value, pointer, align, prefix_mask(lanes, active))


@dataclass(frozen=True, slots=True)
class Numbers:
    """Vectors of sums of one contraction.

    Attributes:
        fn: The function.
        target: The machine.
        dtype: Of the sums.
        lanes: Of a vector.
    """

    fn: FunctionText
    target: Target
    dtype: str
    lanes: int

    @property
    def scalar(self) -> str:
        """LLVM type of a sum."""
        return LLVM_TYPES[self.dtype]

    @property
    def kind(self) -> str:
        """LLVM type of a vector of sums."""
        return vector_type(self.scalar, self.lanes)

    def _widened(self, value: str, dtype: str, lanes: int) -> str:
        """An operand as a number of the sums' dtype."""
        return Ops(self.fn, self.target, lanes).convert(value, dtype, self.dtype)

    def of(self, lanes: int) -> Numbers:
        """The same with vectors of other lanes."""
        return self if lanes == self.lanes else replace(self, lanes=lanes)

    def first(self, value: str, lanes: int) -> str:
        """The first lanes of a vector."""
        return slice_lanes(self.fn, value, self.scalar, self.lanes, 0, lanes)

    def vector(self, dtype: str, pointer: str, active: int) -> str:
        """Neighbouring elements of an operand; the lanes from `active` on are 0."""
        value = load_lanes(self.fn, dtype, self.lanes, pointer, active)
        return self._widened(value, dtype, self.lanes)

    def spread(self, dtype: str, pointer: str) -> str:
        """One element of an operand in all lanes."""
        value = self.fn.load(LLVM_TYPES[dtype], pointer, ITEM_BYTES[dtype])
        if dtype in HALVES:  # in vectors: each way to or from the other registers costs more
            return spread(Ops(self.fn, self.target, self.lanes), value, dtype)
        value = self._widened(value, dtype, 1)
        return self.fn.broadcast(value, self.scalar, self.lanes)

    def multiply_add(self, a: str, b: str, total: str) -> str:
        """One product more."""
        fn, kind = self.fn, self.kind
        if self.dtype not in FLOATS:
            product = fn.value(f"{'and' if self.dtype == 'bool' else 'mul'} {kind} {a}, {b}")
            return self.add(total, product)
        if self.target.has_fma:
            suffix = intrinsic_suffix(self.scalar, self.lanes)
            return fn.call(kind, f"llvm.fma.{suffix}", (kind, a), (kind, b), (kind, total))
        return self.add(total, fn.value(f"fmul {kind} {a}, {b}"))

    def add(self, a: str, b: str) -> str:
        """Sum of two vectors of sums."""
        name = "fadd" if self.dtype in FLOATS else "or" if self.dtype == "bool" else "add"
        return self.fn.value(f"{name} {self.kind} {a}, {b}")
