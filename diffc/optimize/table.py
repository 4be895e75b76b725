"""Algebra: the table of named rules.

The law: never to worse code; strictly smaller in one declared order, so rewriting ends; the same
aval; no work duplicated; narrow before clever; each serves a case that occurs. ``EXACT`` rules, and
rules that lower the error, are on by default. ``tests/optimize`` proves each one.
"""

from __future__ import annotations

import math
from typing import Any

from diffc.ir.aval import BOOLS, FLOATS, INTEGERS, NUMBERS
from diffc.ir.graph import Eqn, Literal, Operand, Value
from diffc.optimize.rule import EXACT, FINITE, REALS, rule, rules


def is_power_of_two(c: Operand, **bound: Any) -> bool:
    """Whether the literal ``c`` has an exact reciprocal."""
    if not isinstance(c, Literal) or not isinstance(c.value, float) or not c.value:
        return False
    return math.isfinite(c.value) and abs(math.frexp(c.value)[0]) == 0.5 and abs(c.value) < 1e30


def is_not_literal(x: Operand, **bound: Any) -> bool:
    """Whether ``x`` is computed (constants stand on the left of no rule)."""
    return isinstance(x, Value)


def is_not_folded(x: Operand, **bound: Any) -> bool:
    """Whether ``x`` is neither ``select(y > 0, -y, y)`` nor ``-abs(y)``: exp(x) may exceed 1."""
    if not isinstance(x, Value) or x.eqn is None:
        return True
    match x.eqn.op.name, x.eqn.operands:
        case "neg", (Value(eqn=Eqn() as inner),):
            return bool(inner.op.name != "abs")
        case "select", (Value(eqn=Eqn() as choice), Value(eqn=Eqn() as turned), y):
            is_sign = choice.op.name == "gt" and choice.operands[0] is y
            return not (is_sign and turned.op.name == "neg" and turned.operands[0] is y)
    return True


ARITHMETIC = rules(
    rule("mul_one", "mul(x, 1)", "x", EXACT, why="seeds of cotangents are ones", dtypes=NUMBERS),
    rule("div_one", "div(x, 1)", "x", EXACT, why="means over one element"),
    rule("sub_zero", "sub(x, 0)", "x", EXACT, why="shifted losses", dtypes=NUMBERS),
    rule("neg_neg", "neg(neg(x))", "x", EXACT, why="transposing a subtraction twice"),
    rule("mul_minus_one", "mul(x, -1)", "neg(x)", EXACT, why="gradients of differences"),
    rule("add_neg", "add(x, neg(y))", "sub(x, y)", EXACT, why="cotangents of subtractions add up"),
    rule("sub_neg", "sub(x, neg(y))", "add(x, y)", EXACT, why="descent along a negated gradient"),
    rule("mul_neg_neg", "mul(neg(x), neg(y))", "mul(x, y)", EXACT, why="second derivatives"),
    rule("abs_neg", "abs(neg(x))", "abs(x)", EXACT, why="even functions of differences"),
    rule("abs_abs", "abs(abs(x))", "abs(x)", EXACT, why="norms of norms"),
    rule("cos_neg", "cos(neg(x))", "cos(x)", EXACT, why="even functions of differences"),
    rule("add_zero", "add(x, 0)", "x", FINITE, why="-0.0 + 0.0 is 0.0; empty heads"),
    rule("mul_zero", "mul(x, 0)", "0", FINITE, why="inf * 0 is nan; unused heads"),
    rule("sub_self", "sub(x, x)", "0", FINITE, why="inf - inf is nan"),
    rule("int_add_zero", "add(x, 0)", "x", EXACT, why="offsets of indices", dtypes=INTEGERS),
    rule("int_mul_zero", "mul(x, 0)", "0", EXACT, why="strides of indices", dtypes=INTEGERS),
    rule("int_sub_self", "sub(x, x)", "0", EXACT, why="offsets of indices", dtypes=INTEGERS),
    rule("exp_log", "exp(log(x))", "x", REALS, why="log-densities"),
    rule("log_exp", "log(exp(x))", "x", REALS, why="log-densities", stabilizes=True),
    rule("sqrt_square", "sqrt(mul(x, x))", "abs(x)", REALS, why="norms in one dimension"),
)

CHOICES = rules(
    rule("select_same", "select(c, x, x)", "x", EXACT, why="both branches equal", dtypes=NUMBERS),
    rule(
        "select_true",
        "select(True, x, y)",
        "x",
        EXACT,
        why="supports that are everywhere",
        dtypes=NUMBERS | BOOLS,
    ),
    rule(
        "select_false",
        "select(False, x, y)",
        "y",
        EXACT,
        why="supports that are nowhere",
        dtypes=NUMBERS | BOOLS,
    ),
    rule(
        "select_true_false",
        "select(c, True, False)",
        "c",
        EXACT,
        why="masks of ones and zeros",
        dtypes=BOOLS,
    ),
    rule(
        "select_false_true",
        "select(c, False, True)",
        "bitwise_not(c)",
        EXACT,
        why="masks that are compared with 0",
        dtypes=BOOLS,
    ),
    rule(
        "select_not",
        "select(bitwise_not(c), x, y)",
        "select(c, y, x)",
        EXACT,
        why="the other route of a choice",
        dtypes=NUMBERS | BOOLS,
    ),
    rule(
        "select_nested_true",
        "select(c, select(c, x, y), z)",
        "select(c, x, z)",
        EXACT,
        why="supports confine what is confined already",
        dtypes=NUMBERS | BOOLS,
    ),
    rule(
        "select_nested_false",
        "select(c, x, select(c, y, z))",
        "select(c, x, z)",
        EXACT,
        why="routes that exclude one another",
        dtypes=NUMBERS | BOOLS,
    ),
    rule(
        "select_confined_product",
        "select(c, mul(select(c, x, y), z), w)",
        "select(c, mul(x, z), w)",
        EXACT,
        why="a routed cotangent times a partial, confined",
    ),
    rule("not_not", "bitwise_not(bitwise_not(c))", "c", EXACT, why="routes", dtypes=BOOLS),
    rule("and_self", "bitwise_and(c, c)", "c", EXACT, why="supports meet", dtypes=BOOLS),
    rule("or_self", "bitwise_or(c, c)", "c", EXACT, why="supports join", dtypes=BOOLS),
    rule("and_true", "bitwise_and(c, True)", "c", EXACT, why="full supports", dtypes=BOOLS),
    rule("or_false", "bitwise_or(c, False)", "c", EXACT, why="empty supports", dtypes=BOOLS),
    rule("and_false", "bitwise_and(c, False)", "False", EXACT, why="no support", dtypes=BOOLS),
    rule("or_true", "bitwise_or(c, True)", "True", EXACT, why="full supports", dtypes=BOOLS),
    rule("max_self", "maximum(x, x)", "x", EXACT, why="clips of clips", dtypes=NUMBERS),
    rule("min_self", "minimum(x, x)", "x", EXACT, why="clips of clips", dtypes=NUMBERS),
)

#: naive formulas that lose digits or overflow, and what computes the same well.
#: They run before a differentiation too, so a replacement must be as smooth as what it replaces:
#: `max(x, 0) + log1p(exp(-|x|))` is softplus, but both kinks have derivative 0 at 0, and softplus
#: has 1/2. Selects by the sign take one smooth branch, which is right at 0 too.
STABLE = rules(
    rule(
        "logistic",
        "div(1, add(1, exp(neg(x))))",
        "logistic(x)",
        REALS,
        why="exp overflows for x far below 0",
        stabilizes=True,
    ),
    rule(
        "logistic_exp",
        "div(exp(x), add(1, exp(x)))",
        "logistic(x)",
        REALS,
        why="inf / inf for large x",
        stabilizes=True,
    ),
    rule(
        "logistic_complement",
        "sub(1, logistic(x))",
        "logistic(neg(x))",
        REALS,
        why="1 - p is 0 from x = 17 on in f32",
        stabilizes=True,
    ),
    rule(
        "log_logistic",
        "log(logistic(x))",
        "sub(select(gt(x, 0), 0, x), log1p(exp(select(gt(x, 0), neg(x), x))))",
        REALS,
        why="log of 0 for x far below 0",
        stabilizes=True,
    ),
    rule(
        "softplus",
        "log(add(1, exp(x)))",
        "add(select(gt(x, 0), x, 0), log1p(exp(select(gt(x, 0), neg(x), x))))",
        REALS,
        why="exp overflows for large x",
        stabilizes=True,
    ),
    rule(
        "softplus_log1p",
        "log1p(exp(x))",
        "add(select(gt(x, 0), x, 0), log1p(exp(select(gt(x, 0), neg(x), x))))",
        REALS,
        why="exp overflows for large x",
        stabilizes=True,
        when=is_not_folded,
    ),
    rule(
        "log1p",
        "log(add(1, x))",
        "log1p(x)",
        REALS,
        why="1 + x drops small x",
        stabilizes=True,
        when=is_not_literal,
    ),
    rule(
        "expm1",
        "sub(exp(x), 1)",
        "expm1(x)",
        REALS,
        why="exp(x) - 1 cancels near 0",
        stabilizes=True,
    ),
    rule(
        "log_quotient_exp",
        "log(div(exp(x), y))",
        "sub(x, log(y))",
        REALS,
        why="log of a softmax underflows",
        stabilizes=True,
    ),
)


TABLE = {**ARITHMETIC, **CHOICES, **STABLE}

__all__ = ["ARITHMETIC", "CHOICES", "FLOATS", "STABLE", "TABLE"]
