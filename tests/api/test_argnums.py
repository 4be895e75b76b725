"""The order of gradients is that of ``argnums``."""

import numpy as np
import pytest

import diffc
from diffc.errors import UsageError


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


def product(x, w, *, c=1.0):
    return np.sum(x * w["a"] ** 2 * c)


X, W = np.arange(1.0, 4.0), {"a": np.arange(3.0)}


@pytest.mark.parametrize("call", [lambda f: f(X, W), lambda f: f(X, w=W), lambda f: f(x=X, w=W)])
def test_arguments_by_name_however_they_are_given(call):
    one = call(diffc.grad(product, argnames="w"))
    np.testing.assert_allclose(one["a"], 2 * X * W["a"])
    by_w, by_x = call(diffc.grad(product, argnames=("w", "x")))
    np.testing.assert_allclose(by_w["a"], 2 * X * W["a"])
    np.testing.assert_allclose(by_x, W["a"] ** 2)
    np.testing.assert_allclose(call(diffc.jacrev(product, argnames="x")), W["a"] ** 2)
    hessian = call(diffc.hessian(product, argnames="w"))
    np.testing.assert_allclose(hessian["a"]["a"], np.diag(2 * X))
    value, (by_x,) = call(diffc.value_and_grad(product, argnames=["x"]))
    np.testing.assert_allclose(value, product(X, W))
    np.testing.assert_allclose(by_x, W["a"] ** 2)


def test_keyword_only_arguments_by_name():
    assert diffc.grad(product, argnames="c")(X, W, c=2.0) == product(X, W)


def test_names_that_do_not_exist():
    with pytest.raises(UsageError, match="argnames of grad names 'v'; the arguments are x, w"):
        diffc.grad(product, argnames="v")(X, W)
    with pytest.raises(UsageError, match="both argnums and argnames"):
        diffc.grad(product, 0, argnames="x")
    with pytest.raises(UsageError, match="no argument named 'v'"):
        diffc.jit(product, static_argnames="v")
    with pytest.raises(UsageError, match="no argument 3 of 2"):
        diffc.jit(product, static_argnums=3)


def power(n, x, y):
    return np.sum(x**n * y)


def test_gradients_beside_static_arguments():
    by_x, by_y = diffc.jit(diffc.grad(power, (1, 2)), static_argnums=0)(3, X, X)
    np.testing.assert_allclose(by_x, 3 * X**3)
    np.testing.assert_allclose(by_y, X**3)
    named = diffc.jit(diffc.grad(power, argnames="y"), static_argnames="n")
    np.testing.assert_allclose(named(2, X, X), X**2)
    np.testing.assert_allclose(named(y=X, x=X, n=2), X**2)
    with pytest.raises(UsageError, match="grad is by n, which is static"):
        diffc.jit(diffc.grad(power), static_argnums=0)(3, X, X)


def test_static_and_donated_by_either():
    by_name = diffc.jit(lambda x, n: x * sum(range(n)), static_argnames="n")
    by_number = diffc.jit(lambda x, n: x * sum(range(n)), static_argnums=1)
    assert by_name(2.0, 4) == by_name(2.0, n=4) == by_number(2.0, 4) == by_number(2.0, n=4) == 12
    given = np.arange(4.0)
    updated, _ = diffc.jit(lambda p, q: (p + 1, q), donate_argnames="p")(given, X)
    assert updated is given
    given = np.arange(4.0)
    updated, _ = diffc.jit(lambda p, q: (p + 1, q), donate_argnums=0)(q=X, p=given)
    assert updated is given
