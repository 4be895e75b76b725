"""Graphs as formulas: against the interpreter at numbers, and in closed form."""

import math

import numpy as np
import pytest
import sympy
from hypothesis import given
from hypothesis import strategies as st

import diffc
from diffc.ir.aval import aval
from diffc.ir.text import parse
from diffc.ops.interpret import evaluate
from diffc.ops.registry import table
from diffc.symbolic.terms import SymTerm, constants, exact
from diffc.symbolic.unfold import CannotUnfold, flat, symbols, tree_size, unfold
from diffc.trace import trace

X = symbols("x", aval("f64", (3,)))
SAMPLE = np.array([0.75, -1.25, 2.5])


def graph_of(function, *args):
    return trace(function, [*args]).graph


def formulas(function, *inputs):
    args = [np.zeros(x.shape) if x.dtype == object else x for x in inputs]
    return flat(unfold(graph_of(function, *args), inputs).outputs)


FUNCTIONS = {
    "arithmetic": lambda x: (x * 2 - 1 / x) / (x * x + 3),
    "elementary": lambda x: np.exp(-x) + np.sin(x) * np.arctan(x) + np.tanh(x),
    "choices": lambda x: np.maximum(x, 0.5) + np.where(x > 1, x, -x) + np.abs(x),
    "steps": lambda x: np.floor(x) + np.rint(x + 0.3) + np.trunc(x) + x % 0.7,
    "reductions": lambda x: x.sum() * x.max() - x.min() + np.prod(x),
    "movement": lambda x: np.concatenate([x[::-1], np.pad(x, 1)])[1:6:2],
    "contraction": lambda x: np.outer(x, x) @ x,
    "powers": lambda x: x**3 + np.abs(x) ** 1.5 + x**-2,
    "masks": lambda x: np.sum(np.where((x > 0) & ~(x > 2), x, 0.0)),
    "cumulative": lambda x: np.cumsum(x) * np.arange(3),
    "scan": lambda x: diffc.scan(lambda c, v: (c * v + 1, np.sin(c)), x[0], x),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_formulas_have_the_interpreters_values(name):
    graph = graph_of(FUNCTIONS[name], SAMPLE)
    found = flat(unfold(graph, [X]).outputs)
    point = dict(zip(flat([X]), map(sympy.Rational, SAMPLE), strict=True))
    expected = np.concatenate([np.ravel(a) for a in evaluate(graph, [SAMPLE])])
    assert len(found) == expected.size
    for expr, number in zip(found, expected, strict=True):
        assert math.isclose(float(expr.subs(point)), number, rel_tol=1e-13, abs_tol=1e-13)


def test_numbers_are_exact():
    (found,) = formulas(lambda x: np.sum(0.1 * x) + np.pi / 2, X)
    assert sympy.expand(found - sum(X) / 10 - sympy.pi / 2) == 0


def test_integers_stay_numbers():
    index = np.array([2, 0])
    assert formulas(lambda x, i: x[i + 0], X, index) == [X[2], X[0]]
    assert formulas(lambda x: x[np.argsort(np.array([3, 1, 2]))], X) == [X[1], X[2], X[0]]


@pytest.mark.parametrize(
    "function",
    [np.sort, np.argmax, lambda x: x[np.argmin(x)], lambda x: np.arange(9.0)[x.astype(int)]],
)
def test_what_depends_on_values_has_no_formula(function):
    with pytest.raises(CannotUnfold, match="has no formula here"):
        formulas(function, X)


def test_stop_gradient_is_frozen_and_thawed():
    graph = graph_of(lambda x: np.sum(x * diffc.stop_gradient(np.sin(x))), SAMPLE)
    unfolded = unfold(graph, [X], freeze=True)
    (value,) = flat(unfolded.outputs)
    slopes = [sympy.diff(value, x) for x in X]
    assert [unfolded.thawed(slope) for slope in slopes] == [sympy.sin(x) for x in X]
    assert unfolded.thawed(value) == sum(x * sympy.sin(x) for x in X)


def test_sizes_of_shared_expressions():
    x = sympy.Symbol("x")
    expr = x
    for _ in range(60):
        expr = sympy.sin(expr) + sympy.cos(expr)
    assert tree_size([expr]) > 2**60
    assert tree_size([x, x + 1]) == 1 + 3


@given(st.floats(allow_nan=False, allow_infinity=False, width=32))
def test_numbers_come_back(value):
    assert np.float32(float(exact(np.float32(value), "f32"))) == np.float32(value)


def test_constants_are_known():
    for constant in constants():
        assert exact(float(constant)) == constant
        assert exact(-float(constant)) == -constant
    assert exact(math.pi + 1e-12) != sympy.pi
    assert exact(float("-inf")) == -sympy.oo
    assert exact(float("nan")) is sympy.nan
    assert exact(True) is sympy.true
    assert exact(1e-5) == sympy.Rational(1, 100000)


def test_terms_are_expressions():
    x = SymTerm(sympy.Symbol("x"))
    assert (2 * x + 1).expr == 2 * sympy.Symbol("x") + 1
    assert (x > 0).expr == (sympy.Symbol("x") > 0)
    with pytest.raises(TypeError, match="shift_left has no SymPy text"):
        _ = x << 1


def test_a_loop_on_values_has_no_formula_but_one_on_numbers_has():
    text = """
func @f(x: f64[], i: i64[]) -> (f64[]) {
  %0: f64[], %1: i64[] = while(x, i, consts=0, slots=2, tests=0) {
    func @go(x: f64[], i: i64[]) -> (bool[]) {
      %0: bool[] = lt(LEFT, 3RIGHT)
      return %0
    }
    func @step(x: f64[], i: i64[]) -> (f64[], i64[]) {
      %0: f64[] = sin(x)
      %1: i64[] = add(i, 1:i64[])
      return %0, %1
    }
  }
  return %0
}
"""
    x = symbols("x", aval("f64"))
    counted = parse(text.replace("LEFT", "i").replace("RIGHT", ":i64[]"), table())
    (found,) = flat(unfold(counted, [x, np.array(1)]).outputs)
    assert found == sympy.sin(sympy.sin(x.item()))
    valued = parse(text.replace("LEFT", "x").replace("RIGHT", ".0:f64[]"), table())
    with pytest.raises(CannotUnfold, match="a branch or a loop depends on the values"):
        unfold(valued, [x, np.array(1)])
