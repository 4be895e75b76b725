"""Terms that are SymPy expressions: the ops' formulas read by their ``sympy`` texts.

Numbers are exact. A float stands for what it was written as: 0.1 is 1/10, and 3.14159... is pi
where all its digits agree.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import sympy

from diffc.ir.aval import DTYPES, HALVES
from diffc.ops.declare import Op
from diffc.ops.registry import find
from diffc.ops.term import Term

NAMES = ("x", "y", "z")


@cache
def constants() -> tuple[Any, ...]:
    """Irrational numbers that formulas hold as floats."""
    pi, log, sqrt = sympy.pi, sympy.log, sympy.sqrt
    parts = [pi * sympy.Rational(n, d) for n, d in ((1, 1), (2, 1), (1, 2), (1, 3), (1, 4), (1, 6))]
    parts += [pi / 180, 180 / pi, 1 / pi, 2 / pi, pi**2, sympy.E]
    parts += [log(2), log(10), 1 / log(2), 1 / log(10), log(2 * pi), log(2 * pi) / 2, log(pi)]
    parts += [sqrt(2), 1 / sqrt(2), sqrt(pi), 1 / sqrt(pi), 2 / sqrt(pi), sqrt(2 / pi)]
    parts += [sqrt(2 * pi), 1 / sqrt(2 * pi), sqrt(3), 1 / sqrt(3)]
    return tuple(parts)


@cache
def _by_value(dtype: str) -> dict[float, Any]:
    kind = DTYPES[dtype].type
    return {float(kind(float(c))): c for c in constants()}


def exact(value: Any, dtype: str = "f64") -> Any:
    """The SymPy number that a scalar of a dtype stands for."""
    if isinstance(value, sympy.Basic):
        return value
    if isinstance(value, (bool, np.bool_)):
        return sympy.true if value else sympy.false
    if isinstance(value, (int, np.integer)):
        return sympy.Integer(int(value))
    number = float(value)
    if np.isnan(number):
        return sympy.nan
    if np.isinf(number):
        return sympy.oo if number > 0 else -sympy.oo
    if number.is_integer() and abs(number) < 2**53:
        return sympy.Integer(int(number))
    if dtype not in HALVES:
        known = _by_value(dtype)
        for sign in (1, -1):
            if sign * number in known:
                return sign * known[sign * number]
    return sympy.Rational(str(DTYPES[dtype].type(value)))


@cache
def parse(text: str) -> Any:
    """The expression of an op's text; operands are symbols without assumptions."""
    plain = {name: sympy.Symbol(name) for name in (*NAMES, "exponent")}
    return sympy.sympify(text, locals=plain, rational=True)


def meaning(op: Op, operands: tuple[Any, ...], params: dict[str, Any]) -> Any:
    """The op's SymPy meaning on expressions.

    Raises:
        TypeError: the op has no SymPy text.
    """
    if not isinstance(op.sympy, str):
        raise TypeError(f"op {op.name} has no SymPy text: {op.sympy.reason}")
    if op.name == "select":  # decided conditions need no Piecewise
        condition, on_true, on_false = operands
        if condition in (sympy.true, sympy.false):
            return on_true if condition == sympy.true else on_false
    if op.name in ("bitwise_and", "bitwise_or", "bitwise_xor", "bitwise_not"):
        operands = tuple(map(_boolean, operands))
    named: dict[str, Any] = {**dict(zip(NAMES, operands, strict=False)), **params}
    replaced = {sympy.Symbol(name): sympy.sympify(value) for name, value in named.items()}
    return parse(op.sympy).xreplace(replaced)


def _boolean(value: Any) -> Any:
    """Numbers stand for no booleans; symbols do."""
    if isinstance(value, sympy.Number):
        raise TypeError("bits of integers have no formula")
    return value


class SymTerm(Term):
    """A term that is a SymPy expression."""

    __slots__ = ("expr",)

    def __init__(self, expr: Any) -> None:
        self.expr = sympy.sympify(expr)

    def lift(self, value: bool | int | float) -> SymTerm:
        """An exact number."""
        return SymTerm(exact(value))

    def call(self, name: str, *others: Any, **params: Any) -> SymTerm:
        """The op's SymPy meaning."""
        terms = (self, *(o if isinstance(o, SymTerm) else self.lift(o) for o in others))
        return SymTerm(meaning(find(name), tuple(term.expr for term in terms), params))
