"""Proofs of rewrite rules: what a rule replaces equals what it puts there.

As formulas by SymPy, for all real inputs; as numbers bit for bit by the ops' NumPy meaning, where a
rule says that it is exact; and how far from the truth both sides are, where it says that it lowers
the error.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import mpmath
import numpy as np
import sympy

from diffc.ir.aval import BOOLS, DTYPES, FLOATS, is_float
from diffc.ops.registry import find
from diffc.optimize.rule import Node, Number, Pattern, Rule, Variable
from diffc.symbolic.check import Check, Verdict
from diffc.symbolic.decide import decide, values_at
from diffc.symbolic.terms import exact, meaning

Array = np.ndarray[Any, Any]


def variables(pattern: Pattern) -> list[str]:
    """Names of the operands that a pattern binds, in order."""
    match pattern:
        case Variable(name):
            return [name]
        case Number():
            return []
        case Node(_, args, _):
            found = [name for arg in args for name in variables(arg)]
            return list(dict.fromkeys(found))


def booleans(rule: Rule) -> set[str]:
    """Names of the operands that are booleans: conditions, or all in a rule of booleans."""
    if rule.dtypes <= BOOLS:
        return set(variables(rule.pattern))
    return _conditions(rule.pattern)


def _conditions(pattern: Pattern) -> set[str]:
    if not isinstance(pattern, Node):
        return set()
    found = set().union(*map(_conditions, pattern.args)) if pattern.args else set()
    first = pattern.args[0] if pattern.op == "select" else None
    return found | set(variables(first) if first is not None else [])


# --- as formulas ------------------------------------------------------------------------------


def formula(pattern: Pattern, bound: Mapping[str, Any]) -> Any:
    """The pattern as a SymPy expression of what its names are bound to."""
    match pattern:
        case Variable(name):
            return bound[name]
        case Number(value):
            return exact(value)
        case Node(op, args, params):
            operands = tuple(formula(arg, bound) for arg in args)
            if op == "select":  # both sides of a Piecewise; a condition may be a symbol
                return sympy.Piecewise((operands[1], operands[0]), (operands[2], True))
            return meaning(find(op), operands, dict(params))


def prove_rule(rule: Rule) -> Check:
    """Whether both sides of a rule are equal for all real (or boolean) inputs.

    Conditions are split into their two cases; logarithms and roots are of what has them.
    """
    names, flags = variables(rule.pattern), sorted(booleans(rule))
    reals = [name for name in names if name not in flags]
    verdicts: list[tuple[Verdict, float | None, str]] = []
    for case in range(2 ** len(flags)):
        chosen = {
            name: sympy.true if case >> k & 1 else sympy.false for k, name in enumerate(flags)
        }
        verdicts.append(_prove_case(rule, reals, chosen))
    verdict, error, detail = max(
        verdicts, key=lambda v: ("proved", "checked", "failed").index(v[0])
    )
    return Check(f"rule {rule.name}", verdict, error, detail)


def _prove_case(
    rule: Rule, reals: Sequence[str], chosen: Mapping[str, Any]
) -> tuple[Verdict, float | None, str]:
    symbols = {
        name: sympy.Symbol(name, real=True, positive=_is_positive(rule.pattern, name) or None)
        for name in reals
    }
    bound = {**symbols, **chosen}
    left, right = formula(rule.pattern, bound), formula(rule.replacement, bound)
    if left in (sympy.true, sympy.false):
        same = left == right
        return ("proved" if same else "failed", None, "" if same else f"{left} is not {right}")
    values = (sympy.Rational(7, 5), sympy.Rational(3, 11), sympy.Rational(-13, 7), sympy.Integer(3))
    points = [
        [
            abs(v) if symbols[name].is_positive else v
            for name, v in zip(reals, rotated, strict=False)
        ]
        for rotated in (values[k:] + values[:k] for k in range(len(values)))
    ]
    return decide([left], [right], list(symbols.values()), points)


def _is_positive(pattern: Pattern, name: str, under: str = "") -> bool:
    """Whether the operand stands where the pattern needs a positive one (below log, or divides)."""
    match pattern:
        case Variable(found):
            return found == name and under in ("log", "div")
        case Node("log" | "div" as op, args, _):
            return any(_is_positive(arg, name, op) for arg in args)
        case Node(_, args, _):
            return any(_is_positive(arg, name) for arg in args)
    return False


# --- as numbers -------------------------------------------------------------------------------


def compute(pattern: Pattern, bound: Mapping[str, Array], dtype: str) -> Array:
    """The pattern by the ops' NumPy meaning, on arrays of one shape."""
    match pattern:
        case Variable(name):
            return bound[name]
        case Number(value):
            shape = next(iter(bound.values())).shape
            return np.full(shape, value, DTYPES[dtype])
        case Node(op, args, params):
            inner = "bool" if op.startswith("bitwise") and dtype not in BOOLS else dtype
            operands = [compute(arg, bound, inner) for arg in args]
            facet = find(op).numpy
            assert callable(facet)
            with np.errstate(all="ignore"):
                return np.asarray(facet(*operands, **dict(params)))


def counterexample(rule: Rule, dtype: str, values: Array, flags: Array) -> str | None:
    """Where the two sides of a rule are not the same bits (a nan is like another).

    Args:
        rule: the rule.
        dtype: the dtype to compute in.
        values: what its operands run through, all combinations.
        flags: what its boolean operands run through.
    """
    names, conditions = variables(rule.pattern), booleans(rule)
    grid = np.meshgrid(*(flags if name in conditions else values for name in names), indexing="ij")
    bound = {name: axis.ravel() for name, axis in zip(names, grid, strict=True)}
    left, right = (
        np.broadcast_to(compute(side, bound, dtype), next(iter(bound.values())).shape)
        for side in (rule.pattern, rule.replacement)
    )
    differs = _bits(left) != _bits(right)
    if is_float(left.dtype):
        differs &= ~(np.isnan(left) & np.isnan(right))
    if left.dtype != right.dtype:
        return f"{left.dtype} is not {right.dtype}"
    if not differs.any():
        return None
    k = int(np.argmax(differs))
    where = ", ".join(f"{name}={array[k]!r}" for name, array in bound.items())
    return f"{where}: {left[k]!r} is not {right[k]!r}"


def _bits(array: Array) -> Array:
    plain = np.ascontiguousarray(array)
    return plain.view(f"u{plain.dtype.itemsize}")


def errors_in_f32(rule: Rule, points: Sequence[Sequence[float]]) -> tuple[float, float]:
    """The greatest relative errors of both sides in f32, against mpmath: before and after."""
    names = variables(rule.pattern)
    symbols = [sympy.Symbol(name, real=True) for name in names]
    truth = formula(rule.pattern, dict(zip(names, symbols, strict=True)))
    worst = [0.0, 0.0]
    for point in points:
        numbers = [np.float32(value) for value in point]
        with mpmath.workdps(400):  # 1 + exp(-500) needs more digits than 50
            (expected,) = values_at([truth], symbols, [float(number) for number in numbers])
            for k, side in enumerate((rule.pattern, rule.replacement)):
                bound = {n: np.array([x], np.float32) for n, x in zip(names, numbers, strict=True)}
                found = compute(side, bound, "f32")[0]
                worst[k] = max(worst[k], _error(float(found), expected))
    return worst[0], worst[1]


def _error(found: float, expected: Any) -> float:
    if not np.isfinite(found):
        return float("inf")
    scale = max(abs(expected), mpmath.mpf(float(np.finfo(np.float32).tiny)))
    return float(abs(mpmath.mpf(found) - expected) / scale)


#: dtypes in which the families of a rule are tried
FAMILIES = {"floats": tuple(sorted(FLOATS)), "bytes": ("i8", "u8"), "booleans": ("bool",)}


def dtypes_to_try(rule: Rule) -> list[str]:
    """All floats, the integers of 8 bits (exhaustively), booleans: those that the rule takes."""
    return [dtype for family in FAMILIES.values() for dtype in family if dtype in rule.dtypes]
