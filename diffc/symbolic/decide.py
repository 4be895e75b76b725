"""Whether two expressions are equal: by SymPy, or at points to 50 digits by mpmath."""

from __future__ import annotations

import itertools
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
#: proofs by cases split by the signs of up to this many expressions
CASES_UP_TO = 4

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
    if gap == 0 or sympy.expand(gap) == 0 or _is_zero_as_fraction(gap):
        return True
    if gap.has(sympy.Max, sympy.Min):
        gap = gap.rewrite(sympy.Piecewise)
    if gap.has(*CHOICES):
        return _is_zero_in_each_case(gap)
    if gap.count_ops() > SIMPLIFY_UP_TO:
        return False
    if any(sympy.simplify(form) == 0 for form in (gap, gap.rewrite(sympy.exp))):
        return True
    # of real numbers, only 0 has the exponential 1; sums of logarithms become products
    return bool(gap.has(sympy.log)) and sympy.simplify(sympy.exp(sympy.expand(gap))) == 1


def _is_zero_as_fraction(gap: Any) -> bool:
    """Whether an expression is zero for all values that its functions could have.

    Each call of an elementary function is a variable; what is left are sums, products and
    quotients, which SymPy brings into normal form at once, where ``simplify`` searches.
    """
    calls = {call: sympy.Dummy() for call in gap.atoms(*_CALLS) if not call.has(*CHOICES)}
    fraction = gap.xreplace(calls)  # the outermost call is the one that is replaced
    if fraction.has(*CHOICES) or not fraction.is_rational_function():
        return False
    return bool(sympy.together(fraction).as_numer_denom()[0].expand() == 0)


_CALLS = (sympy.exp, sympy.log, sympy.tanh, sympy.sin, sympy.cos, sympy.erf, sympy.atan)
#: functions that choose among expressions
CHOICES = (sympy.Piecewise, sympy.Abs, sympy.sign, sympy.Heaviside, sympy.Rel)


def _is_zero_in_each_case(gap: Any) -> bool:
    """Splits by the signs of all that decides, and asks for zero in each case.

    Ties are left out: they are a set of measure zero, where a choice has no derivative. Cases that
    contradict one another are asked for too, which only makes the proof harder.
    """
    deciders = {_decider(atom)[0] for atom in gap.atoms(*CHOICES[1:])}
    if len(deciders) > CASES_UP_TO:
        return False
    ordered = sorted(deciders, key=str)
    for signs in itertools.product((1, -1), repeat=len(ordered)):
        case = _in_case(gap, dict(zip(ordered, signs, strict=True)))
        if case.has(*CHOICES) or not is_zero(case):
            return False
    return True


def _decider(atom: Any) -> tuple[Any, int]:
    """What an atom depends on the sign of: ``x > y`` on ``x - y``; and by which sign."""
    expr = atom.lhs - atom.rhs if isinstance(atom, sympy.Rel) else atom.args[0]
    expr = sympy.expand(expr)
    return (-expr, -1) if expr.could_extract_minus_sign() else (expr, 1)


def _in_case(gap: Any, signs: dict[Any, int]) -> Any:
    replaced: dict[Any, Any] = {}
    for atom in gap.atoms(*CHOICES[1:]):
        decider, by = _decider(atom)
        is_positive = signs[decider] * by > 0
        if isinstance(atom, (sympy.Eq, sympy.Ne)):
            replaced[atom] = sympy.true if isinstance(atom, sympy.Ne) else sympy.false
        elif isinstance(atom, sympy.Rel):
            is_greater = isinstance(atom, (sympy.Gt, sympy.Ge))
            replaced[atom] = sympy.true if is_greater == is_positive else sympy.false
        elif isinstance(atom, sympy.Abs):
            replaced[atom] = atom.args[0] if is_positive else -atom.args[0]
        elif isinstance(atom, sympy.sign):
            replaced[atom] = sympy.Integer(1 if is_positive else -1)
        else:
            replaced[atom] = sympy.Integer(1 if is_positive else 0)
    return gap.xreplace(replaced)


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
    pairs = list(zip(left, right, strict=True))
    open_ones = [k for k, (a, b) in enumerate(pairs) if a != b]
    # what differs as roundings do has no proof, for which SymPy would search long
    roundings = {k for k in open_ones if _is_rounding(*pairs[k], variables, points)}
    open_ones = [k for k in open_ones if k in roundings or not is_zero(pairs[k][0] - pairs[k][1])]
    if not open_ones:
        return "proved", None, f"{len(left)} equal for all inputs" if len(left) > 1 else ""
    pair = [left[k] for k in open_ones], [right[k] for k in open_ones]
    errors = [distance(*pair, variables, point) for point in points]
    known = [error for error in errors if error is not None]
    if not known:
        return "failed", None, "at no point are both sides finite"
    error = max(known)
    proved = f"{len(left) - len(open_ones)} of {len(left)} proved, " if len(left) > 1 else ""
    if error <= EXACT_TO:
        return "checked", float(error), f"{proved}the rest to {DIGITS} digits"
    if error <= FOLDED_TO:
        return "checked", float(error), f"{proved}constants folded in double precision"
    return "failed", float(error), f"{left[open_ones[0]]} is not {right[open_ones[0]]}"[:300]


def _is_rounding(
    left: Any, right: Any, variables: Sequence[Any], points: Sequence[Sequence[Any]]
) -> bool:
    """Whether two expressions differ, at each of the points, by roundings of doubles."""
    errors = [distance([left], [right], variables, point) for point in points]
    return all(error is not None and EXACT_TO < error <= FOLDED_TO for error in errors)


def distance(
    left: Sequence[Any], right: Sequence[Any], variables: Sequence[Any], point: Sequence[Any]
) -> Any:
    """The greatest relative difference at a point, to 50 digits.

    None if both sides are undefined there, inf if one is.
    """
    with mpmath.workdps(DIGITS + 10):
        try:
            values = values_at([*left, *right], variables, point)
        except ZeroDivisionError:
            return None
        count = len(left)
        worst = mpmath.mpf(0)
        for a, b in zip(values[:count], values[count:], strict=True):
            if not mpmath.isfinite(a) and not mpmath.isfinite(b):
                return None
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
