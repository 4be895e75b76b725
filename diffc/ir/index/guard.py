"""Conditions `expr >= 0` and `expr == 0`, and their conjunctions.

A `Guard` is in normal form from its construction: a condition that the ranges of its variables
decide is dropped or makes the guard `FALSE`, coefs have no common factor, of several bounds on
the same sum only the tightest stays, and the order is fixed. So equal guards print alike, and
`a & b == a` says that a implies b (as far as the normal form sees).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from math import gcd
from typing import Any, Literal

import numpy as np

from diffc.ir.index.bounds import bounds
from diffc.ir.index.expr import Atom, Dim, Expr, linear
from diffc.ir.index.query import evaluate, free, substitute

Kind = Literal["ge", "eq"]


class Cond:
    """`expr >= 0` (kind "ge") or `expr == 0` (kind "eq"); met as an element of a `Guard`."""

    __slots__ = ("expr", "kind")

    def __init__(self, kind: Kind, expr: Dim) -> None:
        self.kind: Kind = kind
        self.expr = expr

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Cond) and (self.kind, self.expr) == (other.kind, other.expr)

    def __hash__(self) -> int:
        return hash((self.kind, self.expr))

    def __repr__(self) -> str:
        return str(self)

    def __str__(self) -> str:
        expr = self.expr
        if not isinstance(expr, Expr):
            return f"{expr} {'>=' if self.kind == 'ge' else '=='} 0"
        positive = linear(0, {atom: coef for atom, coef in expr.terms if coef > 0})
        negative = linear(0, {atom: -coef for atom, coef in expr.terms if coef < 0})
        if self.kind == "eq":
            return f"{positive} == {negative - expr.const}"
        if negative == 0 or expr.const == 0:
            return f"{positive} >= {negative - expr.const}"
        return f"{negative} < {positive + (expr.const + 1)}"

    def evaluate(self, env: Mapping[Any, Any]) -> Any:
        """Returns a bool, or an array of bools where env has arrays."""
        value = evaluate(self.expr, env)
        return value >= 0 if self.kind == "ge" else value == 0


class Guard:
    """A conjunction of conditions; iterate to get them. `&` joins two."""

    __slots__ = ("_hash", "conds")

    conds: tuple[Cond, ...]

    def __init__(self, conds: Iterable[Cond] = ()) -> None:
        self.conds = _normal(conds)
        self._hash = hash(self.conds)

    @property
    def is_true(self) -> bool:
        """Whether it always holds."""
        return not self.conds

    @property
    def is_false(self) -> bool:
        """Whether it is known never to hold."""
        return len(self.conds) == 1 and not isinstance(self.conds[0].expr, Expr)

    def and_(self, other: Guard) -> Guard:
        """Returns the conjunction of both."""
        if not other.conds or self is other:
            return self
        return Guard(self.conds + other.conds) if self.conds else other

    __and__ = and_

    def substitute(self, mapping: Mapping[Any, Dim]) -> Guard:
        """Returns the guard with variables replaced, simplified."""
        return Guard(Cond(cond.kind, substitute(cond.expr, mapping)) for cond in self.conds)

    def evaluate(self, env: Mapping[Any, Any]) -> Any:
        """Returns a bool, or an array of bools where env has arrays."""
        result: Any = True
        for cond in self.conds:
            result = np.logical_and(result, cond.evaluate(env))
        return result if isinstance(result, np.ndarray) else bool(result)

    def free(self) -> frozenset[Atom]:
        """Returns the variables and dimensions that occur."""
        return frozenset[Atom]().union(*(free(cond.expr) for cond in self.conds))

    def __iter__(self) -> Iterator[Cond]:
        return iter(self.conds)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Guard) and self.conds == other.conds

    def __hash__(self) -> int:
        return self._hash

    def __bool__(self) -> bool:
        raise TypeError("a Guard has no truth value; ask is_true, is_false or evaluate")

    def __str__(self) -> str:
        if self.is_false:
            return "false"
        return " & ".join(map(str, self.conds)) or "true"

    __repr__ = __str__


def ge(a: Dim, b: Dim) -> Guard:
    """The guard `a >= b`."""
    return Guard((Cond("ge", a - b),))


def lt(a: Dim, b: Dim) -> Guard:
    """The guard `a < b`."""
    return Guard((Cond("ge", b - a - 1),))


def eq(a: Dim, b: Dim) -> Guard:
    """The guard `a == b`."""
    return Guard((Cond("eq", a - b),))


_NEVER = (Cond("ge", -1),)


def _normal(conds: Iterable[Cond]) -> tuple[Cond, ...]:
    """Intersects the conditions as ranges of their sums; a sum and its negative share a range."""
    ranges: dict[Expr, tuple[int | None, int | None]] = {}
    for cond in conds:
        expr = cond.expr
        if not isinstance(expr, Expr):
            if expr < 0 or (cond.kind == "eq" and expr):
                return _NEVER
            continue
        common = gcd(*(coef for _, coef in expr.terms))
        sign = 1 if expr.terms[0][1] > 0 else -1
        total = linear(0, {atom: sign * coef // common for atom, coef in expr.terms})
        if not isinstance(total, Expr):
            raise AssertionError(f"{expr} is not in normal form")
        # common*sign*total + const >= 0
        low: int | None = None
        high: int | None = None
        if cond.kind == "eq":
            if expr.const % common:
                return _NEVER
            low = high = -sign * (expr.const // common)
        elif sign > 0:
            low = -(expr.const // common)
        else:
            high = expr.const // common
        known = ranges.get(total, (None, None))
        ranges[total] = _max(low, known[0]), _min(high, known[1])
    result: list[Cond] = []
    for total in sorted(ranges, key=_order):
        low, high = ranges[total]
        least, most = bounds(total)
        tight_low, tight_high = _max(low, least), _min(high, most)
        if tight_low is not None and tight_high is not None and tight_low > tight_high:
            return _NEVER
        if low is not None and low == high:
            if least is None or least != most:
                result.append(Cond("eq", total - low))
            continue
        if low is not None and (least is None or least < low):
            result.append(Cond("ge", total - low))
        if high is not None and (most is None or most > high):
            result.append(Cond("ge", high - total))
    return tuple(result)


def _max(a: int | None, b: int | None) -> int | None:
    return b if a is None else a if b is None else max(a, b)


def _min(a: int | None, b: int | None) -> int | None:
    return b if a is None else a if b is None else min(a, b)


def _order(expr: Expr) -> tuple[tuple[bool, str, int], ...]:
    return tuple((*atom.key, coef) for atom, coef in expr.terms)


TRUE = Guard()
FALSE = Guard(_NEVER)
