"""Terms of SymPy expressions: the ops' formulas, read by their ``sympy`` texts."""

from __future__ import annotations

from functools import cache
from typing import Any

import sympy

from diffc.ops.declare import Op
from diffc.ops.registry import find
from diffc.ops.term import Term

NAMES = ("x", "y", "z")


@cache
def parse(text: str) -> sympy.Basic:
    """The expression of a text; a boolean op's operands are symbols without assumptions."""
    plain = {name: sympy.Symbol(name) for name in (*NAMES, "exponent")}
    return sympy.sympify(text, locals=plain, rational=True)


def meaning(op: Op, operands: tuple[Any, ...], params: dict[str, Any]) -> Any:
    """The op's SymPy meaning on expressions."""
    assert isinstance(op.sympy, str)
    replaced = dict(zip(map(sympy.Symbol, NAMES), operands, strict=False))
    replaced |= {sympy.Symbol(name): value for name, value in params.items()}
    exact = {name: sympy.sympify(value) for name, value in replaced.items()}
    return parse(op.sympy).xreplace(exact)


class SymbolTerm(Term):
    """A term that is a SymPy expression."""

    __slots__ = ("expr",)

    def __init__(self, expr: Any) -> None:
        self.expr = sympy.sympify(expr)

    def lift(self, value: bool | int | float) -> SymbolTerm:
        return SymbolTerm(_exact(value))

    def call(self, name: str, *others: Any, **params: Any) -> SymbolTerm:
        terms = (self, *(o if isinstance(o, SymbolTerm) else self.lift(o) for o in others))
        return SymbolTerm(meaning(find(name), tuple(term.expr for term in terms), params))


def _exact(value: bool | int | float) -> Any:
    """Constants of formulas as what they stand for: 0.69314... is log(2)."""
    if isinstance(value, float) and not value.is_integer():
        for meant in (sympy.log(2), 1 / sympy.log(2), 1 / sympy.log(10), 2 / sympy.sqrt(sympy.pi)):
            if float(meant) == value:
                return meant
        assert (value * 64).is_integer(), f"what does the constant {value} stand for?"
        return sympy.Rational(value)
    return sympy.sympify(value)
