"""What one asks of an expression: its value, its variables, its strides; and substitution."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from diffc.ir.index.divide import divide
from diffc.ir.index.expr import Atom, Dim, Expr, FloorDiv, Product, Quotient, Symbol, Var, dim

_NOTHING: frozenset[Atom] = frozenset()


def free(expr: Dim) -> frozenset[Atom]:
    """Returns the `Var`s and `Symbol`s that occur in expr (those in extents do not count)."""
    if not isinstance(expr, Expr):
        return _NOTHING
    found: set[Atom] = set()
    seen: set[Expr] = set()
    stack: list[Expr] = [expr]
    while stack:
        for atom, _ in stack.pop().terms:
            if isinstance(atom, Symbol | Var):
                found.add(atom)
            elif atom not in seen:
                seen.add(atom)
                stack.extend((atom.base,) if isinstance(atom, Quotient) else atom.factors)
    return frozenset(found)


def substitute(expr: Dim, mapping: Mapping[Any, Dim]) -> Dim:
    """Returns expr with `Var`s and `Symbol`s replaced, simplified.

    A `Var` whose extent mentions a replaced dimension becomes the `Var` with the new extent, so
    `{n: 64}` turns `Var("i", n)` into `Var("i", 64)`.
    """
    return _substitute(expr, mapping, {})


def _substitute(expr: Dim, mapping: Mapping[Any, Dim], known: dict[Atom, Dim]) -> Dim:
    if not isinstance(expr, Expr):
        return expr
    total: Dim = expr.const
    for atom, coef in expr.terms:
        value = known.get(atom)
        if value is None:
            value = known[atom] = _replaced(atom, mapping, known)
        total = total + coef * value
    return total


def _replaced(atom: Atom, mapping: Mapping[Any, Dim], known: dict[Atom, Dim]) -> Dim:
    if isinstance(atom, Symbol | Var):
        if atom in mapping:
            return dim(mapping[atom])
        if isinstance(atom, Var) and isinstance(atom.extent, Expr):
            return Var(atom.name, _substitute(atom.extent, mapping, known))
        return atom
    if isinstance(atom, Quotient):
        pair = divide(_substitute(atom.base, mapping, known), atom.divisor)
        return pair[0] if isinstance(atom, FloorDiv) else pair[1]
    value: Dim = 1
    for factor in atom.factors:
        value = value * _substitute(factor, mapping, known)
    return value


def evaluate(expr: Dim, env: Mapping[Any, Any]) -> Any:
    """Returns the value of expr, where env gives each free atom an int or an integer array.

    Raises:
        KeyError: env lacks an atom.
    """
    return _evaluate(expr, env, {})


def _evaluate(expr: Dim, env: Mapping[Any, Any], known: dict[Atom, Any]) -> Any:
    if not isinstance(expr, Expr):
        return expr
    total: Any = expr.const
    for atom, coef in expr.terms:
        value = known.get(atom)
        if value is None:
            value = known[atom] = _value(atom, env, known)
        total = total + coef * value
    return total


def _value(atom: Atom, env: Mapping[Any, Any], known: dict[Atom, Any]) -> Any:
    if isinstance(atom, FloorDiv):
        return _evaluate(atom.base, env, known) // atom.divisor
    if isinstance(atom, Quotient):
        return _evaluate(atom.base, env, known) % atom.divisor
    if isinstance(atom, Product):
        value: Any = 1
        for factor in atom.factors:
            value = value * _evaluate(factor, env, known)
        return value
    return env[atom]


def coefficient(expr: Dim, var: Atom) -> Dim | None:
    """Returns the stride of var in expr (0 where it is absent), None where there is no one stride.

    >>> i, n = Var("i", 8), Symbol("n")
    >>> coefficient(n * i + 4, i)
    n
    """
    split = linear_in(expr, (var,))
    return None if split is None else split[0][var]


def linear_in(expr: Dim, vars: Iterable[Atom]) -> tuple[dict[Atom, Dim], Dim] | None:
    """Splits expr into strides, one for each var, and a rest that has none of them.

    Returns:
        ({var: stride}, rest) with `expr == Σ stride·var + rest`; None when one of the vars stands
        within a quotient.
    """
    strides: dict[Atom, Dim] = dict.fromkeys(vars, 0)
    if not isinstance(expr, Expr):
        return strides, expr
    rest: Dim = expr.const
    for atom, coef in expr.terms:
        if atom in strides:
            strides[atom] = strides[atom] + coef
            continue
        if free(atom).isdisjoint(strides):
            rest = rest + coef * atom
            continue
        if not isinstance(atom, Product):
            return None
        hits = [factor for factor in atom.factors if not free(factor).isdisjoint(strides)]
        if len(hits) != 1 or hits[0] not in strides:
            return None
        stride: Dim = coef
        for factor in atom.factors:
            if factor is not hits[0]:
                stride = stride * factor
        strides[hits[0]] = strides[hits[0]] + stride
    return strides, rest


def divisible(expr: Dim, k: Dim) -> bool:
    """Whether expr is known to be a multiple of k (for a dimension k: by an exact quotient)."""
    try:
        return divide(expr, k)[1] == 0
    except ValueError:
        return False
