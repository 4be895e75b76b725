"""The order of gradients is that of ``argnums``."""

import numpy as np

import diffc


def weighted(p, x):
    return np.sum(p["w"] * x) * p["b"]


def test_gradients_come_in_the_order_of_argnums():
    p, x = {"w": np.ones(2), "b": 2.0}, np.array([3.0, 4.0])
    by_x, by_p = diffc.grad(weighted, (1, 0))(p, x)
    np.testing.assert_array_equal(by_x, [2.0, 2.0])
    np.testing.assert_array_equal(by_p["w"], [6.0, 8.0])
    assert by_p["b"] == 7.0


def test_an_argument_may_be_named_twice():
    first, second = diffc.grad(lambda x, y: x * x * y, (1, 1))(2.0, 3.0)
    assert first == second == 4.0


def test_order_within_a_trace():
    product = diffc.jit(lambda x, y: diffc.grad(lambda a, b: a * a * b, (1, 0))(x, y))
    assert [float(g) for g in product(2.0, 3.0)] == [4.0, 12.0]
