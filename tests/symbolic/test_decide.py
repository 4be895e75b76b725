"""Proved, checked or failed: each where it belongs."""

import numpy as np
import pytest
import sympy
from sympy import Abs, Heaviside, Max, Piecewise, Rational, exp, log, sin, sqrt

from diffc.symbolic.check import Check, measured, worst
from diffc.symbolic.decide import decide, distance, is_zero, to_mpf

x, y, z = sympy.symbols("x y z", real=True)
POINTS = [[Rational(7, 5), Rational(-3, 4), Rational(2, 3)], [Rational(-1, 3), 2, 1]]


def verdict(left, right):
    return decide([left], [right], [x, y, z], POINTS)[0]


@pytest.mark.parametrize(
    ("left", "right"),
    [
        (x + y, y + x),
        ((x + y) ** 2, x**2 + 2 * x * y + y**2),
        (sin(x) ** 2 + sympy.cos(x) ** 2, sympy.Integer(1)),
        (1 / (1 + exp(-x)), exp(x) / (1 + exp(x))),
        (sympy.diff(sympy.tanh(x), x), 1 - sympy.tanh(x) ** 2),
        (Max(x, y), Piecewise((x, x > y), (y, True))),
        (sympy.diff(Max(x, 0), x), Piecewise((1, x > 0), (0, True))),
        (Abs(x) * sympy.sign(x), x),
        (Heaviside(x - y), Piecewise((0, x < y), (1, True))),
        (Piecewise((x, x >= 0), (-x, True)), Abs(x)),
        (Piecewise((1, sympy.Eq(x, y)), (2, True)), sympy.Integer(2)),  # away from ties
        (log(1 + exp(x)), Max(x, 0) + log(1 + exp(-Abs(x)))),
    ],
)
def test_proved(left, right):
    assert verdict(left, right) == "proved"


@pytest.mark.parametrize(
    ("left", "right"),
    [
        (x, x + Rational(1, 10**9)),
        (Max(x, y), Piecewise((x, x < y), (y, True))),
        (sqrt(x**2), x),
        (sin(x), x),
        (Abs(x), x),
        (x / y, y / x),
    ],
)
def test_failed(left, right):
    assert verdict(left, right) == "failed"
    assert not is_zero(left - right)


def test_checked_to_50_digits():
    found = decide([sqrt(x**2 + 2 * x + 1) * z], [z * Piecewise((x + 1, x > -1), (-x - 1, True))],
                   [x, y, z], POINTS)  # fmt: skip
    assert found[0] in ("proved", "checked")
    # needs too many cases to be proved
    big = Max(x, y, z, x + y, y + z, x * z)
    same = Max(Max(x, y), Max(z, x + y), Max(y + z, x * z), evaluate=False)
    chain = big
    for _ in range(3):
        chain = Piecewise((chain, x * y > z), (chain + x - x, True), evaluate=False)
    assert decide([chain], [same], [x, y, z], POINTS)[0] in ("proved", "checked")


def test_products_of_many_functions_are_proved_as_fractions():
    calls = [sympy.tanh(x * k + y) for k in range(1, 6)]
    left = sum((c - z) ** 2 / (1 + z**2) for c in calls)
    right = (sum(c**2 - 2 * c * z for c in calls) + 5 * z**2) / (1 + z**2)
    assert verdict(left, right) == "proved"
    assert verdict(left, right + z / 10**12) == "failed"


def test_no_proof_is_tried_of_what_differs_by_roundings(monkeypatch):
    third = Rational(1 / 3)
    asked = []
    monkeypatch.setattr("diffc.symbolic.decide.is_zero", lambda gap: asked.append(gap))
    kind, error, _ = decide([sin(x) * third], [sin(x) / 3], [x, y, z], POINTS)
    assert kind == "checked"
    assert error > 0
    assert not asked


def test_folded_constants_are_said_to_be():
    kind, error, detail = decide([x * Rational("0.30000000000000004")], [x * Rational(3, 10)],
                                 [x, y, z], POINTS)  # fmt: skip
    assert kind == "checked"
    assert 0 < error < 1e-15
    assert "double precision" in detail


def test_one_wrong_among_many_fails():
    kind, error, detail = decide([x, y, sin(x)], [x, y, sin(y)], [x, y, z], POINTS)
    assert kind == "failed"
    assert error > 0.1
    assert detail == "sin(x) is not sin(y)"
    kind, _, detail = decide([x, y], [x, y], [x, y, z], POINTS)
    assert (kind, detail) == ("proved", "2 equal for all inputs")


def test_undefined_points_are_left_out():
    assert distance([1 / x], [1 / x], [x], [0]) is None
    assert distance([1 / x], [x], [x], [sympy.Integer(0)]) is None
    found = decide([1 / (x - y) ** 2 + sin(x)], [1 / (x - y) ** 2 + x], [x, y], [[1, 1]])
    assert found == ("failed", None, "at no point are both sides finite")


def test_numbers_are_taken_exactly():
    assert to_mpf(Rational(1, 3)) * 3 == 1
    assert to_mpf(np.float64(0.5)) == 0.5


def test_verdicts():
    assert worst([]) == "proved"
    assert worst(["proved", "checked"]) == "checked"
    assert worst(["failed", "checked", "proved"]) == "failed"
    assert measured("a", 1e-3, 1e-2) == Check("a", "checked", 1e-3, "limit 1e-02")
    assert not measured("a", float("nan"), 1e-2).is_good
    assert not measured("a", 2e-2, 1e-2, "here").is_good
    assert measured("a", 2e-2, 1e-2, "here").detail == "limit 1e-02, here"
