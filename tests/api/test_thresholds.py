"""Models whose choices are thresholds: they trace, and their zero gradients are warned of."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

import diffc

W, X = np.array([1.0, -2.0]), np.array([0.5, 0.1])


def perceptron(w, x):
    if w @ x > 0:  # threshold
        return 1.0
    return 0.0


def tree(limits, x):
    """Two levels: x1 <= 3, then x2 <= 5."""
    if x[0] <= limits[0]:
        return 1.0 if x[1] <= limits[1] else 2.0
    if x[1] <= limits[1]:
        return 3.0
    return 4.0


def perceptron_where(w, x):
    return np.where(w @ x > 0, 1.0, 0.0)


def tree_where(limits, x):
    low = np.where(x[1] <= limits[1], 1.0, 2.0)
    return np.where(x[0] <= limits[0], low, np.where(x[1] <= limits[1], 3.0, 4.0))


LIMITS = np.array([3.0, 5.0])
POINTS = {(1.0, 1.0): 1.0, (3.0, 5.1): 2.0, (3.1, 5.0): 3.0, (9.0, 9.0): 4.0}


def line_of(text):
    with open(__file__) as file:
        return next(i for i, line in enumerate(file, 1) if text in line)


@pytest.mark.parametrize("function", [diffc.jit(tree, control_flow=True), diffc.jit(tree_where)])
def test_a_tree_of_two_levels(function):
    for point, expected in POINTS.items():
        assert function(LIMITS, np.array(point)) == expected


@pytest.mark.parametrize(
    ("function", "args"),
    [
        (diffc.jit(perceptron, control_flow=True), (W, X)),
        (diffc.jit(tree, control_flow=True), (LIMITS, np.array([1.0, 9.0]))),
        (perceptron_where, (W, X)),
        (tree_where, (LIMITS, np.array([1.0, 9.0]))),
    ],
)
def test_the_gradient_is_zero_and_said_to_be(function, args):
    with pytest.warns(diffc.StructuralZeroWarning) as found:
        gradient = diffc.grad(function)(*args)
    np.testing.assert_array_equal(gradient, [0.0, 0.0])
    text = str(found[0].message)
    name = "w" if args[0] is W else "limits"
    start = f"gradient is structurally zero with respect to {name}: it reaches the result only"
    assert text.startswith(start)
    assert f" at {__file__}:" in text
    assert found[0].filename == __file__


def test_the_warning_names_the_comparison():
    with pytest.warns(diffc.StructuralZeroWarning, match=rf"gt at .*:{line_of('# threshold')},"):
        diffc.grad(diffc.jit(perceptron, control_flow=True))(W, X)


def test_outside_jit_a_path_without_a_derivative_is_no_mistake():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_array_equal(diffc.grad(perceptron)(W, X), [0.0, 0.0])
        np.testing.assert_array_equal(diffc.grad(lambda x: x if x > 0 else 0.0)(-1.0), 0.0)


def test_a_logistic_has_a_slope():
    def logistic(w, x):
        return 1 / (1 + np.exp(-(w @ x)))

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        p = logistic(W, X)
        np.testing.assert_allclose(diffc.grad(logistic)(W, X), X * p * (1 - p))


def test_a_loop_with_thresholds_within():
    @diffc.jit(control_flow=True)
    def count(w, x):
        total = 0.0
        for e in x:
            if e > w[0]:
                total += 1.0
        return total

    with pytest.warns(diffc.StructuralZeroWarning, match="only through gt at"):
        gradient = diffc.grad(count)(W, X)
    np.testing.assert_array_equal(gradient, [0.0, 0.0])
