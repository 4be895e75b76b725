"""Third derivatives through control flow, Hessians of loops, batches of gradients of loops."""

import itertools

import numpy as np
import pytest

import diffc

X = np.array([0.6, -0.3, 0.8])


def close(found, expected, rtol=1e-9):
    np.testing.assert_allclose(found, expected, rtol=rtol, atol=1e-10)


def slope_forward(f):
    return lambda x: diffc.jvp(f, (x,), (1.0,))[1]


MODES = {"forward": slope_forward, "reverse": diffc.grad}


def squared(c):
    return c * c


#: each is the eighth power
EIGHTH = {
    "scan": lambda x: diffc.scan(lambda c, _: (c * c, None), x, length=3)[0],
    "scan of a product": lambda x: diffc.scan(lambda c, k: (c * x, None), 1.0, np.ones(8))[0],
    "while": lambda x: diffc.while_loop(
        lambda c: c[0] < 3, lambda c: (c[0] + 1, squared(c[1])), (0, x)
    )[1],
    "while with slots": lambda x: diffc.while_loop(
        lambda c: c[0] < 3, lambda c: (c[0] + 1, squared(c[1])), (0, x), slots=2
    )[1],
    "while with stores": lambda x: diffc.while_loop(
        lambda c: c[0] < 3, lambda c: (c[0] + 1, squared(c[1])), (0, x), store="grow"
    )[1],
    "cond": lambda x: diffc.cond(x > 0, lambda x: squared(x**4), np.sin, x),
    "call": lambda x: diffc.jit(squared)(diffc.jit(squared)(diffc.jit(squared)(x))),
    "checkpoint": lambda x: diffc.checkpoint(lambda x: squared(x**4))(x),
    "vmap": lambda x: np.prod(diffc.vmap(lambda k: x * k)(np.ones(8))),
}


#: of what runs steps again for each order of reverse mode, not every combination
FEW = {
    "while": [("reverse", "forward", "forward"), ("forward", "reverse", "forward")],
    "while with slots": [("reverse", "reverse", "reverse")],
}


@pytest.mark.parametrize("name", EIGHTH)
def test_third_derivatives_in_all_orders_of_the_modes(name):
    f = EIGHTH[name]
    for modes in FEW.get(name) or itertools.product(MODES, repeat=3):
        g = f
        for mode in modes:
            g = MODES[mode](g)
        close(diffc.jit(g)(1.1), 8 * 7 * 6 * 1.1**5)
    close(diffc.jet(f, (1.1,), ([1.0, 0.0, 0.0],))[1][2], 8 * 7 * 6 * 1.1**5)


def test_fourth_derivative_of_a_loop_of_unknown_length():
    def root(a):
        step = lambda c: ((c[0] + a / c[0]) / 2, c[0])  # noqa: E731  # short
        return diffc.while_loop(lambda c: abs(c[0] - c[1]) > 1e-13, step, (a, a + 1))[0]

    f = diffc.grad(root)
    for order in range(2, 5):
        f = slope_forward(f)
        exact = np.prod([0.5 - k for k in range(order)]) * 2.0 ** (0.5 - order)
        close(diffc.jit(f)(2.0), exact, 1e-7)


def chain(x, steps, loop):
    def step(c, k):
        return np.tanh(c * x[::-1] + np.roll(c, 1) * k)

    return np.sum(loop(step, steps, x))


def by_scan(step, steps, x):
    return diffc.scan(lambda c, k: (step(c, k), None), x, np.arange(steps) / steps)[0]


def by_hand(step, steps, x):
    for k in np.arange(steps) / steps:
        x = step(x, k)
    return x


def by_while(step, steps, x):
    body = lambda c: (c[0] + 1, step(c[1], c[0] / steps))  # noqa: E731  # short
    return diffc.while_loop(lambda c: c[0] < steps, body, (0, x))[1]


@pytest.mark.parametrize("loop", [by_scan, by_while])
def test_hessian_of_a_loop(loop):
    expected = diffc.hessian(lambda x: chain(x, 7, by_hand))(X)
    f = lambda x: chain(x, 7, loop)  # noqa: E731  # short
    for found in (
        diffc.hessian(f)(X),
        diffc.jacrev(diffc.jacfwd(f))(X),
        diffc.jacrev(diffc.grad(f))(X),
    ):
        close(found, expected)
        close(found, found.T)
    e = 1e-5
    gradient = diffc.grad(f)
    slopes = [(gradient(X + e * u) - gradient(X - e * u)) / (2 * e) for u in np.eye(3)]
    np.testing.assert_allclose(expected, slopes, rtol=1e-6, atol=1e-8)
    close(diffc.hvp(f, (X,), (X,)), expected @ X)
    batch = np.stack([X, X[::-1], 0 * X])
    close(diffc.vmap(diffc.hessian(f))(batch), [diffc.hessian(f)(x) for x in batch])


@pytest.mark.parametrize("store", ["slots", "grow"])
def test_a_batch_of_gradients_of_a_loop(store):
    """Elements that take different numbers of trips."""

    def f(x, n):
        body = lambda c: (c[0] + 1, np.sin(c[1] * x) + x)  # noqa: E731  # short
        return np.sum(diffc.while_loop(lambda c: c[0] < n, body, (0, x), store=store)[1])

    xs, ns = np.linspace(-1, 1, 12).reshape(4, 3), np.array([0, 5, 1, 3])
    gradient = diffc.grad(f)
    close(diffc.vmap(gradient)(xs, ns), [gradient(x, n) for x, n in zip(xs, ns, strict=True)])
    second = diffc.grad(lambda x, n: np.sum(gradient(x, n) ** 2))
    close(diffc.vmap(second)(xs, ns), [second(x, n) for x, n in zip(xs, ns, strict=True)])
