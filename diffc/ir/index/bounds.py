"""The range of an expression: what is known of its least and greatest value.

Intervals first. Where they are not finite, indices whose extent is a named dimension are replaced
by the end of their range that matters, and the rest is compared as a polynomial in the dimensions:
so `n - 1 - j` with j < n is known to be >= 0. Bounds are safe, not always tight.
"""

from __future__ import annotations

from diffc.ir.index.expr import Atom, Bounds, Dim, Expr, FloorDiv, Mod, Product, Symbol, Var


def bounds(expr: Dim) -> Bounds:
    """Returns (least, greatest) as ints, None where unknown or unbounded.

    An index with extent 0 has no values; it counts as 0, so that ranges are never empty.

    >>> bounds(4 * Var("i", 3) + 1)
    (1, 9)
    """
    if not isinstance(expr, Expr):
        return expr, expr
    known = expr._range
    if known is None:
        known = expr._range = _atom_bounds(expr) if isinstance(expr, Atom) else _sum_bounds(expr)
    return known


def is_nonnegative(expr: Dim) -> bool:
    """Whether expr >= 0 is known to hold."""
    low = bounds(expr)[0]
    return low is not None and low >= 0


def _atom_bounds(atom: Atom) -> Bounds:
    if isinstance(atom, Symbol):
        return 0, None
    if isinstance(atom, Var):
        greatest = bounds(atom.extent)[1]
        return 0, None if greatest is None else max(greatest - 1, 0)
    if isinstance(atom, FloorDiv):
        low, high = bounds(atom.base)
        k = atom.divisor
        return None if low is None else low // k, None if high is None else high // k
    if isinstance(atom, Mod):
        low, high = bounds(atom.base)
        if low is not None and low >= 0 and high is not None:
            return 0, min(high, atom.divisor - 1)
        return 0, atom.divisor - 1
    assert isinstance(atom, Product)
    least, most = 1, 1
    unbounded = False
    for factor in atom.factors:
        low, high = bounds(factor)
        if low is None or low < 0:
            return None, None
        least *= low
        if high is None:
            unbounded = True
        else:
            most *= high
    return least, None if unbounded else most


def _sum_bounds(expr: Expr) -> Bounds:
    low: int | None = expr.const
    high: int | None = expr.const
    for atom, coef in expr.terms:
        least, most = bounds(atom)
        if coef < 0:
            least, most = most, least
        low = None if low is None or least is None else low + coef * least
        high = None if high is None or most is None else high + coef * most
    if any(_is_bounded_by_size(atom) for atom, _ in expr.terms):
        low = _tighter(low, _least_by_extents(expr))
        high = _tighter(high, _least_by_extents(-expr), -1)
    return low, high


def _tighter(known: int | None, least: int | None, sign: int = 1) -> int | None:
    if known is None or least is None:
        return known if least is None else sign * least
    return sign * max(sign * known, least)


def _symbolic_var(atom: Atom) -> Var | None:
    """The index with a symbolic extent in a product with sizes >= 0."""
    var = None
    for factor in atom.factors:
        if isinstance(factor, Var) and isinstance(factor.extent, Expr):
            var = factor
        elif not is_nonnegative(factor):
            return None
    return var


def _is_bounded_by_size(atom: Atom) -> bool:
    return not atom.is_size and _symbolic_var(atom) is not None


def _least_by_extents(expr: Dim) -> int | None:
    """Puts each index with a symbolic extent at the end of its range that makes expr least."""
    for _ in range(16):  # an extent may itself name an index; that nesting is shallow
        found = _innermost(expr) if isinstance(expr, Expr) else None
        if found is None:
            break
        atom, coef, var = found
        end: Dim = 0 if coef > 0 else var.extent - 1
        for other in atom.factors:
            if other is not var:
                end = end * other
        expr = expr - coef * atom + coef * end
    if not isinstance(expr, Expr):
        return expr
    low = expr.const
    for atom, coef in expr.terms:
        end_of_range = bounds(atom)[0 if coef > 0 else 1]
        if end_of_range is None:
            return None
        low += coef * end_of_range
    return low


def _innermost(expr: Expr) -> tuple[Atom, int, Var] | None:
    """A term with such an index that no other such index has in its extent."""
    found = None
    for atom, coef in expr.terms:
        var = None if atom.is_size else _symbolic_var(atom)
        if var is None or not isinstance(var.extent, Expr):
            continue
        if found is None or found[2] in {part for part, _ in var.extent.terms}:
            found = atom, coef, var
    return found
