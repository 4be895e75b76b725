"""Comparisons of positions in 32 bits: as many lanes as the numbers beside them have.

NumPy counts in 64 bits, so masks by position (one class per row, causal attention, the rest of a
ragged row) would halve the vectors of everything computed with them. Where both sides are known to
fit 32 bits, they are compared there. A side that is the same at all positions of the other one is
moved into reach first: a number beyond all positions stays beyond them.

Before: `eq(index(j):i64, y[i])`. After, for `j` in 1000:
`eq(index(j):i32, convert(minimum(maximum(y[i], -1:i64), 1000:i64)):i32)`.
"""

from __future__ import annotations

from dataclasses import dataclass

from diffc.codegen.loops.nodes import Apply, Const, Expr, IndexValue
from diffc.codegen.loops.walk import varying
from diffc.ir.index import Var, bounds, free

__all__ = ["COMPARISONS", "compared"]

COMPARISONS = frozenset(("eq", "ne", "lt", "le", "gt", "ge"))
LOW, HIGH = -(2**31), 2**31 - 1
RANGES = {
    "bool": (0, 1),
    **{f"u{bits}": (0, 2**bits - 1) for bits in (8, 16)},
    **{f"i{bits}": (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) for bits in (8, 16, 32)},
}
#: expressions of positions that are nested deeper are left alone
DEPTH = 6


@dataclass(frozen=True, slots=True)
class Small:
    """An i64 that fits 32 bits: the same in i32, its range, the variables of its positions."""

    expr: Expr
    low: int
    high: int
    vars: frozenset[Var]


def compared(name: str, left: Expr, right: Expr) -> Expr | None:
    """A comparison of two i64 in 32 bits; None where that is not known to be the same."""
    sides = _small(left, DEPTH), _small(right, DEPTH)
    first, second = sides
    vars = frozenset[Var]().union(*(side.vars for side in sides if side is not None))
    if not vars:
        return None  # at one position it is cheap
    if first is None and second is not None:
        first = _within(left, second)
    elif second is None and first is not None:
        second = _within(right, first)
    if first is None or second is None:
        return None
    return Apply("bool", name, (first.expr, second.expr))


def _within(expr: Expr, other: Small) -> Small | None:
    """A number moved to just beyond the other side's range, if it is the same for all of it."""
    low, high = other.low - 1, other.high + 1
    if low < LOW or high > HIGH or varying((expr,), other.vars):
        return None
    least = Apply("i64", "maximum", (expr, Const("i64", low)))
    moved = Apply("i64", "minimum", (least, Const("i64", high)))
    return Small(Apply("i32", "convert", (moved,)), low, high, frozenset())


def _small(expr: Expr, depth: int) -> Small | None:
    found = _narrowed(expr, depth)
    return found if found is not None and found.low >= LOW and found.high <= HIGH else None


def _narrowed(expr: Expr, depth: int) -> Small | None:
    if isinstance(expr, Const):
        value = int(expr.value)
        return Small(Const("i32", value), value, value, frozenset())
    if isinstance(expr, IndexValue):
        low, high = bounds(expr.index)
        if low is None or high is None:
            return None
        vars = frozenset(atom for atom in free(expr.index) if isinstance(atom, Var))
        return Small(IndexValue("i32", expr.index), low, high, vars)
    if not isinstance(expr, Apply) or not depth:
        return None
    if expr.name == "convert":
        (source,) = expr.args
        known = RANGES.get(source.dtype)
        if known is None:
            return None
        narrow = source if source.dtype == "i32" else Apply("i32", "convert", (source,))
        return Small(narrow, *known, frozenset())
    if expr.name not in ("add", "sub"):
        return None
    left, right = (_small(arg, depth - 1) for arg in expr.args)
    if left is None or right is None:
        return None
    low, high = left.low + right.low, left.high + right.high
    if expr.name == "sub":
        low, high = left.low - right.high, left.high - right.low
    narrow = Apply("i32", expr.name, (left.expr, right.expr))
    return Small(narrow, low, high, left.vars | right.vars)
