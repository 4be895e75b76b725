"""Floor division and modulo, simplified by ranges; recombination of the two in sums.

`q, r = e divmod k` always satisfies `e == k*q + r` with 0 <= r < k, and every step below maps that
pair to the pair of a smaller problem:

    multiples    (k*x + y)          -> x + y div k,            y mod k
    range        m*k <= e < m*k + k -> m,                      e - m*k
    negation     -x + c             -> -((x + k-1-c) div k),   k-1 - (x + k-1-c) mod k
    common part  g*x + y, g | k     -> x div k/g,              g*(x mod k/g) + y    where 0 <= y < g
    nesting      x//a + y           -> (x + a*y) div a*k
                 x%a, k | a         -> (x//k) mod a/k,         x mod k

What is left are the atoms `FloorDiv(y, k)` and `Mod(y, k)`, with the coefs of y in 1 .. k-1.
`recombine` undoes a division when a sum holds both halves, which is what makes chains of reshapes
collapse to strides. Division by a named dimension leaves no atom: it is exact or an error, and the
divisor counts as >= 1 there.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from math import gcd
from typing import cast

from diffc.ir.index.bounds import bounds, is_nonnegative
from diffc.ir.index.expr import (
    Atom,
    Dim,
    Expr,
    FloorDiv,
    Mod,
    Quotient,
    dim,
    install,
    linear,
    product,
)

Pair = tuple[Dim, Dim]


def divide(expr: Dim, divisor: Dim) -> Pair:
    """Returns (expr // divisor, expr % divisor).

    Raises:
        ZeroDivisionError: the divisor is 0.
        ValueError: it is negative, or a dimension by which the quotient is not exact.
    """
    expr, divisor = dim(expr), dim(divisor)
    if isinstance(divisor, Expr):
        return _divide_by_size(expr, divisor)
    if divisor <= 0:
        if divisor == 0:
            raise ZeroDivisionError(f"division of {expr} by zero")
        raise ValueError(f"division of {expr} by the negative number {divisor}")
    return _pair(expr, divisor)


def _pair(expr: Dim, k: int) -> Pair:
    if not isinstance(expr, Expr):
        return divmod(expr, k)
    return (expr, 0) if k == 1 else _divide(expr, k)


@lru_cache(maxsize=1 << 15)
def _divide(expr: Expr, k: int) -> Pair:
    split = _multiples(expr, k)
    if split is not None:
        whole, rest = split
        quotient, remainder = _pair(rest, k)
        return whole + quotient, remainder
    low, high = bounds(expr)
    if low is not None and high is not None and low // k == high // k:
        return low // k, expr - low // k * k
    if all(coef < 0 for _, coef in expr.terms):
        quotient, remainder = _pair(k - 1 - expr, k)
        return -quotient, k - 1 - remainder
    if any(not 0 < coef < k for _, coef in expr.terms):
        whole = linear(0, {atom: coef // k for atom, coef in expr.terms})
        rest = linear(expr.const, {atom: coef % k for atom, coef in expr.terms})
        quotient, remainder = _pair(rest, k)  # not `expr - k * whole`: whole may have recombined
        return whole + quotient, remainder
    common = _common_part(expr, k)
    if common is not None:
        g, inner, outer = common
        quotient, remainder = _pair(inner, k // g)
        return quotient, g * remainder + outer
    return _floor(expr, k), _remainder(expr, k)


def _multiples(expr: Expr, k: int) -> Pair | None:
    """Splits off the terms and the part of the constant that k divides; None if there are none."""
    whole, const = divmod(expr.const, k)
    if not whole and all(coef % k for _, coef in expr.terms):
        return None
    inside = linear(whole, {atom: coef // k for atom, coef in expr.terms if coef % k == 0})
    return inside, linear(const, {atom: coef for atom, coef in expr.terms if coef % k})


def _common_part(expr: Expr, k: int) -> tuple[int, Dim, Dim] | None:
    """Finds g | k such that expr == g*inner + outer and 0 <= outer < g."""
    for g in sorted({gcd(coef, k) for _, coef in expr.terms} - {1}, reverse=True):
        outer = linear(expr.const, {atom: coef for atom, coef in expr.terms if coef % g})
        low, high = bounds(outer)
        if low is not None and high is not None and low // g == high // g:
            shift = low // g
            inside = {atom: coef // g for atom, coef in expr.terms if coef % g == 0}
            return g, linear(shift, inside), outer - shift * g
    return None


def _floor(expr: Expr, k: int) -> Dim:
    for atom, coef in expr.terms:
        if coef == 1 and isinstance(atom, FloorDiv):
            a = atom.divisor
            return _pair(atom.base + a * (expr - atom), a * k)[0]
    if isinstance(expr, Mod) and expr.divisor % k == 0:
        return _pair(_pair(expr.base, k)[0], expr.divisor // k)[1]
    return FloorDiv(expr, k)


def _remainder(expr: Expr, k: int) -> Dim:
    for atom, coef in expr.terms:
        if isinstance(atom, Mod) and coef * atom.divisor % k == 0:
            others = expr - coef * atom  # first: base - atom might recombine to a quotient
            return _pair(others + coef * atom.base, k)[1]
    return Mod(expr, k)


# --- recombination


def recombine(const: int, coefs: dict[Atom, int]) -> Dim | None:
    """Returns `const + Σ coef·atom` with fewer quotients, or None when no rule applies.

    With q = x//k and r = x%k, any two of x, q, r in the ratio of `x == k*q + r` become the third;
    and `g*((w + x//g) % m) + x%g` becomes `(g*w + x) % (g*m)`.
    """
    for atom, coef in coefs.items():
        if isinstance(atom, Quotient):
            for removed, factor, added in _replacements(atom, coef, coefs):
                rest = dict(coefs)
                rest[atom] -= coef
                for part, count in removed.terms:
                    rest[part] -= factor * count
                return linear(const - factor * removed.const, rest) + added
    return None


def _replacements(
    atom: Quotient, coef: int, coefs: dict[Atom, int]
) -> Iterator[tuple[Expr, int, Dim]]:
    """Yields (removed, factor, added): coef*atom + factor*removed == added.

    All terms of factor*removed stand in the sum, with just those coefs.
    """
    x, k = atom.base, atom.divisor
    quotient, remainder = _pair(x, k)
    if isinstance(atom, Mod):
        if _contains(coefs, quotient, coef * k):
            yield cast(Expr, quotient), coef * k, coef * x
        if _contains(coefs, x, -coef):
            yield x, -coef, -coef * k * quotient
        for other, factor in coefs.items():
            if not isinstance(other, Mod) or factor != coef * k:
                continue
            if _contains(dict(other.base.terms), quotient, 1):
                whole = k * (other.base - quotient) + x
                yield other, factor, coef * _pair(whole, k * other.divisor)[1]
    elif coef % k == 0:
        count = coef // k
        if _contains(coefs, remainder, count):
            yield cast(Expr, remainder), count, count * x
        if _contains(coefs, x, -count):
            yield x, -count, -count * remainder


def _contains(coefs: dict[Atom, int], part: Dim, factor: int) -> bool:
    """Whether every term of factor*part stands in the sum with just that coef."""
    if not isinstance(part, Expr):
        return False
    return all(coefs.get(atom) == factor * coef for atom, coef in part.terms)


# --- division by a named dimension


def _divide_by_size(expr: Dim, divisor: Expr) -> Pair:
    """Divides polynomials in the dimensions; the remainder must lie in 0 .. divisor - 1."""
    if not all(atom.is_size for atom, _ in divisor.terms):
        raise ValueError(f"division of {expr} by {divisor}, which depends on an index")
    lead, lead_coef = max(divisor.terms, key=lambda term: (len(term[0].factors), term[0].key))
    whole: Dim = 0
    rest = expr
    for _ in range(64):  # each step removes a leading term; no sum of dimensions is that long
        step = _step(rest, lead, lead_coef)
        if step is None:
            break
        whole, rest = whole + step, rest - step * divisor
    if rest == 0:
        return whole, 0
    if (bounds(rest)[1] or 0) < 0:
        whole, rest = whole - 1, rest + divisor
    above = divisor - 1 - rest
    # divisor - 1 >= 0 by assumption, so `rest <= 0` bounds it too, as does its mirror image
    if (is_nonnegative(rest) or is_nonnegative(-above)) and (
        is_nonnegative(above) or is_nonnegative(-rest)
    ):
        return whole, rest
    raise ValueError(f"{expr} divided by {divisor} is not known to be a whole expression")


def _step(rest: Dim, lead: Atom, lead_coef: int) -> Dim | None:
    """The quotient of the first term of rest that the leading term of the divisor divides."""
    if isinstance(rest, Expr):
        for atom, coef in rest.terms:
            others = list(atom.factors)
            for factor in lead.factors:
                if factor not in others:
                    break
                others.remove(factor)
            else:
                if coef % lead_coef == 0:
                    return coef // lead_coef * product(others)
    return None


install(divide, recombine)
