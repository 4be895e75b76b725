"""Lectures on learnable choices, derivatives as arrays of any rank, and Taylor series."""

import math
import warnings

import numpy as np
import pytest
import sympy

import diffc

# --- models whose choices are thresholds, and one that is smooth -------------------------------

W, X = np.array([1.0, -2.0]), np.array([0.5, 0.1])


def perceptron(w, x):
    if w @ x > 0:
        return 1.0
    return 0.0


def tree(limits, x):
    """Two levels: x1 <= 3, then x2 <= 5."""
    if x[0] <= limits[0]:
        return 1.0 if x[1] <= limits[1] else 2.0
    return 3.0 if x[1] <= limits[1] else 4.0


@pytest.mark.parametrize(
    ("model", "params", "x", "value"),
    [
        (perceptron, W, X, 1.0),
        (perceptron, W, -X, 0.0),
        (tree, np.array([3.0, 5.0]), np.array([3.0, 5.0]), 1.0),
        (tree, np.array([3.0, 5.0]), np.array([1.0, 5.5]), 2.0),
        (tree, np.array([3.0, 5.0]), np.array([3.5, 5.0]), 3.0),
        (tree, np.array([3.0, 5.0]), np.array([9.0, 9.0]), 4.0),
    ],
)
def test_s1_thresholds_trace_and_their_gradient_is_zero_and_said_to_be(model, params, x, value):
    compiled = diffc.jit(model, control_flow=True)
    assert compiled(params, x) == value == model(params, x)
    with pytest.warns(diffc.StructuralZeroWarning, match="structurally zero with respect to"):
        gradient = diffc.grad(compiled)(params, x)
    np.testing.assert_array_equal(gradient, np.zeros(2))


def test_s1_logistic_regression():
    """The gradient of a label's log-likelihood by w is x (y - sigma), of sigma itself x sigma'."""

    def sigma(w, x):
        return 1 / (1 + np.exp(-(w @ x)))

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        p = sigma(W, X)
        np.testing.assert_allclose(diffc.grad(sigma)(W, X), X * p * (1 - p), rtol=1e-14)
        for y in (0, 1):
            found = diffc.grad(lambda w, y=y: np.log(np.where(y, sigma(w, X), 1 - sigma(w, X))))(W)
            np.testing.assert_allclose(found, X * (y - p), rtol=1e-13)


# --- scalars, vectors and matrices by scalars, vectors and matrices ----------------------------

KINDS = {"scalar": (), "vector": (3,), "matrix": (2, 4)}
#: the shape of dy/dx, in denominator layout
TABLE = {
    ("scalar", "scalar"): (),
    ("scalar", "vector"): (3,),
    ("scalar", "matrix"): (2, 4),
    ("vector", "scalar"): (3,),
    ("vector", "vector"): (3, 3),
    ("vector", "matrix"): (2, 4, 3),
    ("matrix", "scalar"): (2, 4),
    ("matrix", "vector"): (3, 2, 4),
    ("matrix", "matrix"): (2, 4, 2, 4),
}


def denominator(f):
    return diffc.jacobian(f, layout="denominator")


def numerator(f):
    return diffc.jacobian(f, layout="numerator")


@pytest.mark.parametrize("make", [denominator, numerator, diffc.jacfwd, diffc.jacrev])
@pytest.mark.parametrize(("of", "by"), TABLE)
def test_s33_the_shape_table(of, by, make):
    y, x = KINDS[of], KINDS[by]
    factors = np.random.default_rng(3).standard_normal((*y, *x))
    at = np.random.default_rng(4).standard_normal(x)

    def f(a):
        return np.sum(factors * a**2, axis=tuple(range(len(y), len(y) + len(x))))

    expected = factors * 2 * at
    if make is denominator:
        expected = np.moveaxis(expected, range(len(y)), range(len(x), len(x) + len(y)))
        assert expected.shape == TABLE[of, by]
    found = make(f)(at)
    assert found.shape == (x + y if make is denominator else y + x)
    np.testing.assert_allclose(found, expected, rtol=1e-10)
    if of == "scalar":
        assert found.shape == at.shape  # a gradient has its argument's shape, in both layouts
        np.testing.assert_allclose(diffc.grad(f)(at), found, rtol=1e-14)


def test_s33_the_derivative_is_a_linear_map():
    """What the array does to a change of the argument is what jvp does; turned around, vjp."""
    rng = np.random.default_rng(5)
    at, move, ct = (rng.standard_normal(shape) for shape in ((2, 4), (2, 4), (3,)))

    def f(a):
        return np.array([np.sum(np.sin(a)), np.prod(a[0]), a[1] @ a[0]])

    whole = diffc.jacobian(f)(at)
    np.testing.assert_allclose(
        diffc.jvp(f, (at,), (move,))[1], np.tensordot(whole, move, 2), rtol=1e-12
    )
    turned = diffc.jacobian(f, layout="denominator")(at)
    np.testing.assert_allclose(diffc.vjp(f, at)[1](ct)[0], np.tensordot(turned, ct, 1), rtol=1e-12)


# --- Taylor series -----------------------------------------------------------------------------


def test_s37_taylor_coefficients():
    """Those of x sin 5x at 0 up to order 6 are SymPy's: 5, -125/6 and 3125/120."""
    t = sympy.Symbol("t")
    expected = sympy.Poly(sympy.series(t * sympy.sin(5 * t), t, 0, 7).removeO(), t)
    out, series = diffc.jet(lambda x: x * np.sin(5 * x), (0.0,), ([1.0, 0, 0, 0, 0, 0],))
    found = [float(out), *(float(d) / math.factorial(k) for k, d in enumerate(series, 1))]
    assert found == pytest.approx(
        [float(expected.coeff_monomial(t**k)) for k in range(7)], rel=1e-13
    )
    assert found[2::2] == pytest.approx([5, -125 / 6, 3125 / 120])
