"""``checkpoint``: the same values and gradients, less memory, and computed again."""

import numpy as np
import pytest

import diffc
from diffc.errors import UsageError
from diffc.transforms import linearize

RNG = np.random.default_rng(0)
WEIGHTS = [RNG.standard_normal((8, 8)) / 3 for _ in range(6)]
X = RNG.standard_normal((4, 8))


def layer(w, x):
    return np.tanh(np.sin(x @ w) * x)


def network(block):
    def loss(ws, x):
        for w in ws:
            x = block(w, x)
        return np.sum(x * x)

    return loss


BLOCKS = {
    "nothing": diffc.checkpoint(layer),
    "dots": diffc.checkpoint(layer, policy="dots"),
    "jit": diffc.checkpoint(diffc.jit(layer)),
    "nested": diffc.checkpoint(lambda w, x: diffc.checkpoint(layer)(w, layer(w, x) * 0 + x)),
}


def close(found, expected):
    np.testing.assert_allclose(found, expected, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("name", BLOCKS)
def test_values_and_gradients_are_the_same(name):
    plain, kept = network(layer), network(BLOCKS[name])
    close(kept(WEIGHTS, X), plain(WEIGHTS, X))
    close(diffc.jit(kept)(WEIGHTS, X), plain(WEIGHTS, X))
    for found, expected in zip(
        diffc.grad(kept)(WEIGHTS, X), diffc.grad(plain)(WEIGHTS, X), strict=True
    ):
        close(found, expected)
    dots = [np.ones_like(w) for w in WEIGHTS]
    close(
        diffc.jvp(lambda ws: kept(ws, X), (WEIGHTS,), (dots,))[1],
        diffc.jvp(lambda ws: plain(ws, X), (WEIGHTS,), (dots,))[1],
    )


@pytest.mark.parametrize("name", BLOCKS)
def test_second_derivatives_and_batches(name):
    block = BLOCKS[name]
    w, x, v = WEIGHTS[0], X, RNG.standard_normal(X.shape)
    plain, kept = network(layer), network(block)
    close(
        diffc.hvp(lambda x: kept([w], x), (x,), (v,)),
        diffc.hvp(lambda x: plain([w], x), (x,), (v,)),
    )
    twice = diffc.grad(lambda x: np.sum(diffc.grad(lambda y: kept([w], y))(x) * v))
    close(twice(x), diffc.hvp(lambda x: plain([w], x), (x,), (v,)))
    per_row = diffc.vmap(diffc.grad(kept), (None, 0))([w], X)[0]
    close(per_row, np.stack([diffc.grad(plain)([w], row)[0] for row in X]))


def test_within_a_scan():
    stacked = np.stack(WEIGHTS)

    def run(block):
        def loss(ws, x):
            carry, _ = diffc.scan(lambda c, w: (block(w, c), None), x, ws)
            return np.sum(carry**2)

        return diffc.grad(loss)(stacked, X)

    for block in BLOCKS.values():
        close(run(block), run(layer))


def residuals(f, x):
    """Shapes of what the backward pass of ``f`` reads."""
    graph = diffc.jit(f).stages(x, until="trace").stage("trace").value
    halves = linearize(graph, [True] * len(graph.inputs))
    return [value.aval.shape for value in halves.linear.inputs[: halves.residuals]]


def test_only_arguments_are_kept():
    w = WEIGHTS[0]

    def f(x):
        return np.sin(np.exp(np.tanh(x @ w) @ w)) * 2

    shapes = residuals(diffc.checkpoint(f), X)
    assert sorted(shapes) == [(4, 8), (8, 8)]  # x, and w, which is captured
    assert len(residuals(f, X)) > len(shapes)
    assert len(residuals(diffc.checkpoint(f, "dots"), X)) == 4  # and both products


def test_it_is_computed_again():
    """The backward pass holds the elementary functions of the forward pass once more."""
    text = (
        diffc.jit(diffc.grad(network(diffc.checkpoint(layer))))
        .stages(WEIGHTS[:1], X, until="optimize")
        .stage("optimize")
        .text
    )
    assert text.count(" sin(") == 2
    assert text.count(" checkpoint(") == 2


def test_it_takes_less_memory():
    x = RNG.standard_normal((64, 64))
    weights = [RNG.standard_normal((64, 64)) / 8 for _ in range(8)]

    def deep(w, x):
        for _ in range(6):
            x = np.tanh(np.sin(x @ w))
        return x

    plain = diffc.grad(network(deep)).compile(weights, x).memory().peak
    kept = diffc.grad(network(diffc.checkpoint(deep))).compile(weights, x).memory().peak
    assert kept < plain / 2


def test_writes_go_through():
    def f(x):
        x[0] = 5.0
        return np.sum(x)

    def outer(x):
        y = x * 1.0
        total = diffc.checkpoint(f)(y)
        return total + y[0]

    close(diffc.jit(outer)(np.ones(3)), 12.0)


def test_policies_are_known():
    with pytest.raises(UsageError, match="policy 'all' is not known"):
        diffc.checkpoint(layer, policy="all")
