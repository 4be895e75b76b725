"""Whether two expressions are equal: by SymPy, or at points to 50 digits by mpmath."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import mpmath
import sympy

from diffc.symbolic.check import Verdict

DIGITS = 50
#: errors up to here are rounding of the 50 digits
EXACT_TO = mpmath.mpf(10) ** -(DIGITS - 10)
#: errors up to here come from constants that were folded in double precision
FOLDED_TO = 1e-12
#: SymPy is asked to simplify expressions up to this many operations
SIMPLIFY_UP_TO = 160

_MODULES: list[Any] = [
    {
        "Heaviside": lambda x, at_zero=None: mpmath.mpf(x > 0),
        "DiracDelta": lambda *args: mpmath.mpf(0),
        "sign": mpmath.sign,
    },
    "mpmath",
]


def is_zero(gap: Any) -> bool:
    """Whether SymPy shows that an expression is zero (away from ties)."""
    if gap == 0 or sympy.expand(gap) == 0:
        return True
    if gap.count_ops() > SIMPLIFY_UP_TO:
        return False
    forms = [gap, without_ties(gap), gap.rewrite(sympy.exp)]
    return any(sympy.simplify(form) == 0 for form in forms)


def without_ties(expr: Any) -> Any:
    """The expression where nothing ties: equalities that are open are false.

    They hold on a set of measure zero, where functions with ties have no derivative.
    """
    open_ones = expr.atoms(sympy.Eq, sympy.Ne)
    return expr.xreplace(
        {r: sympy.Ne(1, 1) if r.func == sympy.Eq else sympy.true for r in open_ones}
    )


def decide(
    left: Sequence[Any],
    right: Sequence[Any],
    variables: Sequence[Any],
    points: Sequence[Sequence[Any]],
) -> tuple[Verdict, float | None, str]:
    """Compares expressions in order.

    Args:
        left: the expressions.
        right: what they should equal.
        variables: the symbols in them.
        points: values of all variables, at which what SymPy can't decide is compared.

    Returns:
        The verdict on all, the greatest error at the points (None if all is proved), and a detail.
    """
    open_ones = [k for k, (a, b) in enumerate(zip(left, right, strict=True)) if not is_zero(a - b)]
    if not open_ones:
        return "proved", None, f"{len(left)} equal for all inputs" if len(left) > 1 else ""
    error = max(
        distance([left[k] for k in open_ones], [right[k] for k in open_ones], variables, point)
        for point in points
    )
    proved = f"{len(left) - len(open_ones)} of {len(left)} proved, " if len(left) > 1 else ""
    if error <= EXACT_TO:
        return "checked", float(error), f"{proved}the rest to {DIGITS} digits"
    if error <= FOLDED_TO:
        return "checked", float(error), f"{proved}constants folded in double precision"
    return "failed", float(error), f"{left[open_ones[0]]} is not {right[open_ones[0]]}"[:300]


def distance(
    left: Sequence[Any], right: Sequence[Any], variables: Sequence[Any], point: Sequence[Any]
) -> Any:
    """The greatest relative difference at a point, to 50 digits; inf if one is not finite."""
    with mpmath.workdps(DIGITS + 10):
        values = values_at([*left, *right], variables, point)
        count = len(left)
        worst = mpmath.mpf(0)
        for a, b in zip(values[:count], values[count:], strict=True):
            if not (mpmath.isfinite(a) and mpmath.isfinite(b)):
                return mpmath.inf
            scale = max(abs(a), abs(b), mpmath.mpf(10) ** -30)
            worst = max(worst, abs(a - b) / scale)
        return worst


def values_at(exprs: Sequence[Any], variables: Sequence[Any], point: Sequence[Any]) -> list[Any]:
    """Values of expressions at a point in mpmath's current precision."""
    function = sympy.lambdify(list(variables), list(exprs), modules=_MODULES, cse=True)
    found = function(*(to_mpf(value) for value in point))
    return [mpmath.mpmathify(value) for value in found]


def to_mpf(value: Any) -> Any:
    """A number exactly, in mpmath's current precision."""
    if isinstance(value, sympy.Rational):
        return mpmath.mpf(value.p) / mpmath.mpf(value.q)
    return mpmath.mpf(value)
