"""Monoids: their identity, and how a value joins what was folded before.

`max` and `min` pass NaN on: of floats in f32 and f64 they carry the extreme of the numbers, and
whether there was a NaN, which takes fewer instructions than a comparison that knows NaN. `argmax`
and `argmin` carry the extreme and its position; of equal ones the first wins, and a NaN is more
extreme than any number.
"""

from __future__ import annotations

from dataclasses import dataclass

from diffc.codegen.emit.registers import FLOATS, is_signed
from diffc.codegen.emit.scalars import Ops
from diffc.codegen.loops.monoids import OPS, identity
from diffc.codegen.loops.nodes import Reduce

__all__ = ["Fold"]

State = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Fold:
    """How one `Reduce` folds.

    Attributes:
        monoid: Its monoid.
        dtype: Dtype of the values that are folded.
        position: Integer dtype of positions (`argmax`, `argmin` only).
    """

    monoid: str
    dtype: str
    position: str

    @classmethod
    def of(cls, reduce: Reduce, total: int) -> Fold:
        """The fold of a reduction over `total` points."""
        return cls(reduce.monoid, reduce.value.dtype, "i32" if total < 2**31 else "i64")

    @property
    def has_position(self) -> bool:
        """Whether the state has a position."""
        return self.monoid in ("argmax", "argmin")

    @property
    def has_flag(self) -> bool:
        """Whether the state has a flag for NaN."""
        return self.monoid in ("max", "min") and self.dtype in ("f32", "f64")

    def kinds(self, ops: Ops) -> tuple[str, ...]:
        """LLVM types of the state."""
        return tuple(ops.kind(dtype) for dtype in self.dtypes())

    def dtypes(self) -> tuple[str, ...]:
        """Dtypes of the state."""
        if self.has_flag:
            return self.dtype, "bool"
        return (self.dtype, self.position) if self.has_position else (self.dtype,)

    def identity(self, ops: Ops) -> State:
        """The state before any value; position 0 is right where nothing beats it."""
        least = ops.literal(identity(self.monoid, self.dtype), self.dtype)
        if self.has_flag:
            return least, ops.literal(False, "bool")
        return (least, ops.literal(0, self.position)) if self.has_position else (least,)

    def step(self, ops: Ops, state: State, value: str, position: str) -> State:
        """The state after one more value."""
        if self.has_flag:
            is_nan = ops.compare("uno", value, value, self.dtype)
            flag = ops.fn.value(f"or {ops.kind('bool')} {state[1]}, {is_nan}")
            return self._further(ops, state[0], value), flag
        if not self.has_position:
            dtype = self.dtype
            return (ops.apply(OPS[self.monoid], dtype, (dtype, dtype), (state[0], value)),)
        better = self._better(ops, value, state[0])
        return (
            ops.select(better, value, state[0], self.dtype),
            ops.select(better, position, state[1], self.position),
        )

    def _further(self, ops: Ops, best: str, value: str) -> str:
        """The extreme of two numbers, the second of equal ones; anything if one is NaN."""
        order = "ogt" if self.monoid == "max" else "olt"
        return ops.select(ops.compare(order, best, value, self.dtype), best, value, self.dtype)

    def _better(self, ops: Ops, value: str, best: str) -> str:
        """Whether `value` is strictly more extreme than `best`."""
        is_max = self.monoid == "argmax"
        if self.dtype not in FLOATS:
            sign = "s" if is_signed(self.dtype) else "u"
            return ops.compare(sign + ("gt" if is_max else "lt"), value, best, self.dtype)
        # unordered or beyond: also a NaN where there was none
        beyond = ops.compare("ugt" if is_max else "ult", value, best, self.dtype)
        number = ops.compare("ord", best, best, self.dtype)
        return ops.fn.value(f"and {ops.kind('bool')} {beyond}, {number}")

    def combine(self, ops: Ops, a: State, b: State) -> State:
        """The state of both together."""
        if self.has_flag:
            flag = ops.fn.value(f"or {ops.kind('bool')} {a[1]}, {b[1]}")
            return self._further(ops, a[0], b[0]), flag
        if not self.has_position:
            return self.step(ops, a, b[0], "")
        fn, masks = ops.fn, ops.kind("bool")
        better = self._better(ops, b[0], a[0])
        if self.dtype in FLOATS:
            equal = ops.compare("oeq", a[0], b[0], self.dtype)
            both = [ops.compare("uno", x, x, self.dtype) for x in (a[0], b[0])]
            nan = fn.value(f"and {masks} {both[0]}, {both[1]}")
            equal = fn.value(f"or {masks} {equal}, {nan}")
        else:
            equal = ops.compare("eq", a[0], b[0], self.dtype)
        earlier = ops.compare("ult", b[1], a[1], self.position)
        tie = fn.value(f"and {masks} {equal}, {earlier}")
        take = fn.value(f"or {masks} {better}, {tie}")
        return (
            ops.select(take, b[0], a[0], self.dtype),
            ops.select(take, b[1], a[1], self.position),
        )

    def finish(self, ops: Ops, state: State) -> str:
        """The result: the folded value, or the position as i64."""
        if self.has_position:
            return ops.convert(state[1], self.position, "i64")
        if self.has_flag:
            nan = ops.literal(float("nan"), self.dtype)
            return ops.select(state[1], nan, state[0], self.dtype)
        return state[0]
