"""Cumulative functions of NumPy code: values, derivatives, bits for any number of threads."""

import numpy as np
import pytest

import diffc
from diffc.runtime.pool import use_threads

SHAPES = [((1,), 0), ((17,), 0), ((100,), 0), ((3, 40), 1), ((40, 3), 0), ((20, 300), 0)]
FUNCTIONS = [np.cumsum, np.cumprod, np.maximum.accumulate, np.minimum.accumulate]


def draw(shape, dtype=np.float64):
    return np.random.default_rng(0).uniform(0.8, 1.2, shape).astype(dtype)


@pytest.mark.parametrize("shape,axis", SHAPES)
@pytest.mark.parametrize("function", FUNCTIONS)
def test_values_and_gradients(function, shape, axis):
    x = draw(shape)
    weights = np.random.default_rng(1).standard_normal(shape)

    def f(x):
        return np.sum(function(x * 1.5, axis) * weights)

    value, slope = diffc.jit(diffc.value_and_grad(f))(x)
    np.testing.assert_allclose(value, f(x), rtol=1e-10)
    rng, step = np.random.default_rng(2), 1e-7
    for _ in range(3):
        direction = rng.standard_normal(shape)
        along = (f(x + step * direction) - f(x - step * direction)) / (2 * step)
        np.testing.assert_allclose(np.sum(slope * direction), along, rtol=1e-4, atol=1e-5)
        _, dot = diffc.jvp(f, (x,), (direction,))
        np.testing.assert_allclose(dot, np.sum(slope * direction), rtol=1e-9)


def test_products_at_zeros_have_exact_gradients():
    x = np.array([2.0, 0.0, 3.0, 0.0, 5.0])
    jacobian = diffc.jacobian(np.cumprod)(x)
    expected = [[1, 0, 0, 0, 0], [0, 2, 0, 0, 0], [0, 6, 0, 0, 0], [0] * 5, [0] * 5]
    np.testing.assert_array_equal(jacobian, expected)


def test_of_equal_extrema_the_first_has_the_gradient():
    x = np.array([-np.inf, 1.0, 1.0, 0.0, 2.0, np.nan, 3.0])
    ct = np.array([1.0, 10.0, 100.0, 1000.0, 1e4, 1e5, 1e6])
    _, back = diffc.vjp(np.maximum.accumulate, x)
    np.testing.assert_array_equal(back(ct)[0], [1, 1110, 0, 0, 1e4, 1.1e6, 0])
    _, back = diffc.vjp(np.minimum.accumulate, -x)
    np.testing.assert_array_equal(back(ct)[0], [1, 1110, 0, 0, 1e4, 1.1e6, 0])


def test_second_derivatives():
    x = draw((6,))
    for function in FUNCTIONS:
        hessian = diffc.hessian(lambda x, f=function: np.sum(f(x * x)))(x)
        gradient = diffc.grad(lambda x, f=function: np.sum(f(x * x)))
        step = 1e-6 * np.eye(6)
        rows = [(gradient(x + each) - gradient(x - each)) / 2e-6 for each in step]
        np.testing.assert_allclose(hessian, rows, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("shape,axis", [((700, 300), 1), ((700, 300), 0), ((9, 400, 60), 1)])
def test_threads_give_the_same_bits(shape, axis):
    x = draw(shape, np.float32)
    f = diffc.jit(lambda x: np.cumsum(x, axis))
    found = []
    for count in (1, 2, 4):
        with use_threads(count):
            found.append(f(x).tobytes())
    assert len(set(found)) == 1


@pytest.mark.parametrize("function", FUNCTIONS)
def test_taylor_coefficients(function):
    """Along a line, the derivatives that jet gives are those of jvp of jvp."""
    x, along = draw((9,)), np.random.default_rng(3).standard_normal(9)

    def first(t):
        return diffc.jvp(lambda t: function(x + t * along), (t,), (1.0,))[1]

    value, (slope, bend) = diffc.jet(function, (x,), ((along, np.zeros(9)),))
    np.testing.assert_allclose(value, function(x), rtol=1e-12)
    np.testing.assert_allclose(slope, first(0.0), rtol=1e-10, atol=1e-12)
    second = diffc.jvp(first, (0.0,), (1.0,))[1]
    np.testing.assert_allclose(bend, second, rtol=1e-9, atol=1e-10)
