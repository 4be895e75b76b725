"""``jet``: derivatives of all orders along a curve, and against nested ones."""

import numpy as np
import pytest

import diffc
from diffc.errors import DtypeError, ShapeError, UsageError

X = np.array([0.3, -1.2, 2.0])


def close(found, expected, rtol=1e-10):
    np.testing.assert_allclose(found, expected, rtol=rtol, atol=1e-11)


def nested(f, x, order):
    """Derivatives of a function of one number, one jvp inside the other."""
    found = []
    for _ in range(order):

        def f(y, g=f):
            return diffc.jvp(g, (y,), (1.0,))[1]

        found.append(f)
    return [diffc.jit(g)(x) for g in found]


@diffc.custom_jvp
def power(x, y):
    """Its rule calls it, and is off by 3 and 5, to tell it from the function's own derivative."""
    return x**y


@power.defjvp
def power_rule(primals, tangents):
    (x, y), (x_dot, y_dot) = primals, tangents
    out = power(x, y)
    return out, 3 * y * out / x * x_dot + 5 * out * np.log(x) * y_dot


@diffc.custom_vjp
def warped(x):
    return np.sin(x), 2


warped.defvjp(lambda x: (warped(x), x), lambda x, cts: (7 * np.cos(3 * x) * cts[0],))


def solved(t):
    """Where x exp(x) is sin(t), by Newton's method from far away."""
    return diffc.root(lambda x: x * np.exp(x) - np.sin(t), 1.5)


def system(t):
    a = np.array([[2.0, 1.0], [0.5, 3.0]]) * t
    return np.prod(diffc.linear_solve(lambda x: a @ x, np.stack([t, t * t])))


FUNCTIONS = {
    "rule": lambda t: power(np.sin(t) + 1, t * t),
    "rule by one argument": lambda t: power(0.7, t) * power(t, 0.3),
    "rule in a scan": lambda t: diffc.scan(lambda c, x: (power(c, 0.5) + x * t, None), t, X**2)[0],
    "rule in a loop": lambda t: diffc.while_loop(
        lambda c: c[0] < 2, lambda c: (c[0] + 1, power(c[1], t)), (0, t + 1)
    )[1],
    "rule in a branch": lambda t: diffc.cond(t > 0, power, lambda x, y: x, t, t),
    "rule in a batch": lambda t: np.sum(diffc.vmap(lambda x: power(x * x + t, t))(X)),
    "rule for cotangents": lambda t: warped(t * t)[0] * t,
    "rule of a gradient": lambda t: diffc.grad(lambda x: warped(x)[0] * x)(t),
    "rule in a rule": lambda t: warped(power(t, t))[0],
    "root": solved,
    "fixed point": lambda t: diffc.fixed_point(lambda x: np.cos(x * t) / 2, 0.0),
    "argmin": lambda t: diffc.argmin(lambda x: (x - t) ** 2 + np.cosh(x * t), 0.0),
    "linear system": system,
    "dense": lambda t: np.sum(np.tanh(np.outer(X, X) @ (X * t)) ** 2),
    "scan": lambda t: diffc.scan(lambda c, x: (np.sin(c + x * t), c), t, X)[0],
    "call": lambda t: diffc.jit(lambda y: np.exp(y) / y)(t * t),
    "choice": lambda t: np.where(t > 0, t**3, 0.0) + np.maximum(t, 0.1) * t,
    "vmap": lambda t: np.prod(diffc.vmap(lambda x: np.cos(x * t))(X)),
    "checkpoint": lambda t: diffc.checkpoint(lambda y: np.sqrt(y) * np.log(y))(t),
    "gradient": lambda t: diffc.grad(lambda y: np.sin(y) * y)(t),
    "sort": lambda t: np.sort(X * t * t)[1] + np.max(X * t),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_against_nested_derivatives(name):
    f, order = FUNCTIONS[name], 4
    series = [1.0] + [0.0] * (order - 1)
    out, found = diffc.jet(f, (0.7,), (series,))
    close(out, diffc.jit(f)(0.7))
    close(found, nested(f, 0.7, order), 1e-9)
    inside = diffc.jit(lambda t: diffc.jet(f, (t,), (series,))[1])
    close(inside(0.7), found)


def test_curves_and_trees():
    # along x = (1 + t, 2 + t^2): f = x0 * x1 = 2 + 2t + t^2 + t^3
    def f(p, k):
        return {"y": p["a"] * p["b"][0], "n": k + 1}

    p = {"a": np.ones(2), "b": [2.0]}
    first = {"a": np.ones(2), "b": [0.0]}
    second = {"a": np.zeros(2), "b": [2.0]}
    third = {"a": np.zeros(2), "b": [0.0]}
    out, series = diffc.jet(f, (p, 3), ([first, second, third], [0, 0, 0]))
    close(out["y"], np.full(2, 2.0))
    assert out["n"] == 4 and series[0]["n"] == 0
    for k, expected in enumerate((2.0, 2.0, 6.0)):
        close(series[k]["y"], np.full(2, expected))


def test_float32_stays():
    x = X.astype(np.float32)
    out, series = diffc.jet(np.exp, (x,), ([x, x * 0],))
    assert out.dtype == np.float32 and series[1].dtype == np.float32
    close(series[1], np.exp(x) * x * x, 1e-5)


def test_derivatives_and_batches_of_it():
    def second(x):
        return diffc.jet(np.sin, (x,), ([1.0, 0.0],))[1][1]

    close(diffc.grad(second)(0.3), -np.cos(0.3))
    close(diffc.vmap(second)(X), -np.sin(X))


def test_a_rule_in_closed_form():
    """``y' = 3 y / x`` along x = t, and so ``y'' = 3 (y' x - y) / x^2``, while y itself is t."""
    out, found = diffc.jet(lambda t: power(t, 1.0), (2.0,), ([1.0, 0.0, 0.0, 0.0],))
    assert out == 2.0
    close(found[0], 3.0)
    close(found[1], 3 * (found[0] * 2 - out) / 4)


def test_errors():
    @diffc.custom_vjp
    def clipped(x):
        return x * 1.0

    clipped.defvjp(lambda x: (x, None), lambda kept, ct: (np.clip(ct, -1, 1),))
    with pytest.raises(UsageError, match="linear in its cotangents"):
        diffc.jet(clipped, (X,), ([X],))
    with pytest.raises(UsageError, match="1 primals and 2 series"):
        diffc.jet(np.sin, (1.0,), ([1.0], [1.0]))
    with pytest.raises(UsageError, match="one and the same number of derivatives"):
        diffc.jet(np.multiply, (1.0, 2.0), ([1.0], [1.0, 2.0]))
    with pytest.raises(UsageError, match="at least 1"):
        diffc.jet(np.sin, (1.0,), ([],))
    with pytest.raises(UsageError, match="a series is a list"):
        diffc.jet(np.sin, (X,), (X,))
    with pytest.raises(ShapeError, match=r"series\[0\]\[1\] has shape \[2\], its primal \[3\]"):
        diffc.jet(np.sin, (X,), ([X, X[:2]],))
    with pytest.raises(UsageError, match="a derivative differs from its primal"):
        diffc.jet(lambda p: p["a"], ({"a": X},), ([X],))
    with pytest.raises(DtypeError, match="dtype f32, its primal f64"):
        diffc.jet(np.sin, (X,), ([X.astype(np.float32)],))
