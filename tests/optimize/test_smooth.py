"""Stabilized formulas have the slopes of what they replace, where those are smooth: at 0 too."""

import numpy as np
import pytest

import diffc

X = np.array([-800.0, -1.0, -0.0, 0.0, 1e-300, 1.0, 800.0])


def sigma(x):
    return np.where(x < 0, np.exp(np.minimum(x, 0)), 1.0) / (1.0 + np.exp(-np.abs(x)))


SLOPES = {
    "softplus": (lambda x: np.log(1.0 + np.exp(x)), lambda x: sigma(x)),
    "softplus_log1p": (lambda x: np.log1p(np.exp(x)), lambda x: sigma(x)),
    "log_logistic": (lambda x: np.log(1.0 / (1.0 + np.exp(-x))), lambda x: sigma(-x)),
    "logistic": (lambda x: 1.0 / (1.0 + np.exp(-x)), lambda x: sigma(x) * sigma(-x)),
    "logaddexp": (lambda x: np.logaddexp(x, 0.0), lambda x: sigma(x)),
    "logaddexp of two": (lambda x: np.logaddexp(3.0 * x, x), lambda x: 1.0 + 2.0 * sigma(2.0 * x)),
    "logaddexp2": (lambda x: np.logaddexp2(x, 0.0), lambda x: sigma(x * np.log(2.0))),
}


@pytest.mark.parametrize("name", SLOPES)
def test_slopes(name):
    f, slope = SLOPES[name]
    found = diffc.grad(lambda x: np.sum(f(x)))(X)
    assert np.allclose(found, slope(X), rtol=1e-13, atol=0)
    assert np.allclose(diffc.jvp(f, (X,), (np.ones_like(X),))[1], slope(X), rtol=1e-13, atol=0)


@pytest.mark.parametrize("name", ["softplus", "softplus_log1p", "logaddexp"])
def test_second_derivatives(name):
    f, _ = SLOPES[name]
    once = diffc.grad(lambda x: np.sum(f(x)))
    found = diffc.grad(lambda x: np.sum(once(x)))(X)
    assert np.allclose(found, sigma(X) * sigma(-X), rtol=1e-13, atol=0)


def test_logaddexp_at_infinities():
    inf, nan = np.inf, np.nan
    corners = [inf, -inf, nan, 0.0, -0.0, 1.0, -1e308, 1e308]
    x, y = map(np.ravel, np.meshgrid(corners, corners))
    with np.errstate(all="ignore"):
        expected = np.logaddexp(x, y)
    assert np.array_equal(diffc.jit(np.logaddexp)(x, y), expected, equal_nan=True)
