"""Contractions of all trips at once: the values of the loop, whatever it is given."""

from dataclasses import replace

import numpy as np
import pytest

import diffc
from diffc.optimize.whole import GRAPH_RULES

RULES = ("contract_before_scan", "contract_after_scan")


def draw(seed, *shape, dtype="f8"):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def recurrent(p, xs, h):
    """A recurrent layer: its last state and all states."""

    def step(h, x):
        h = np.tanh(x @ p["u"] + h @ p["w"])
        return h, h

    return diffc.scan(step, h, xs)


def loss(p, xs, h):
    last, states = recurrent(p, xs, h)
    return np.sum(last) + np.sum(states * states)


@pytest.fixture(params=[True, False], ids=["moved", "left"])
def moved(request, monkeypatch):
    """Whether the rules are on."""
    if not request.param:
        for name in RULES:
            monkeypatch.setitem(GRAPH_RULES, name, replace(GRAPH_RULES[name], is_on=False))
    return request.param


def by_hand(p, xs, h):
    """Value and gradients of `loss`, in loops of NumPy."""
    states = [h]
    for x in xs:
        states.append(np.tanh(x @ p["u"] + states[-1] @ p["w"]))
    value = states[-1].sum() + sum((s * s).sum() for s in states[1:])
    grads = {name: np.zeros_like(array) for name, array in p.items()}
    g = np.ones_like(h)
    for x, before, after in zip(xs[::-1], states[-2::-1], states[:0:-1], strict=True):
        z = (g + 2 * after) * (1 - after * after)
        grads["u"] += x.T @ z
        grads["w"] += before.T @ z
        g = z @ p["w"].T
    return value, grads


@pytest.mark.parametrize("trips", [1, 2, 5, 37])
@pytest.mark.parametrize("batch", [1, 2, 9])
def test_gradients(trips, batch, moved):
    p = {"u": draw(1, 16, 24) * 0.2, "w": draw(2, 24, 24) * 0.2}
    xs, h = draw(3, trips, batch, 16), draw(4, batch, 24)
    value, grads = diffc.jit(diffc.value_and_grad(loss))(p, xs, h)
    want, wanted = by_hand(p, xs, h)
    np.testing.assert_allclose(value, want, rtol=1e-12)
    for name, grad in grads.items():
        np.testing.assert_allclose(grad, wanted[name], rtol=1e-10, atol=1e-12)


def test_loops_are_left_without_what_moved(moved):
    p = {"u": draw(1, 16, 24), "w": draw(2, 24, 24)}
    xs, h = draw(3, 7, 1, 16), draw(4, 1, 24)
    stages = diffc.jit(diffc.value_and_grad(loss)).stages(p, xs, h, until="optimize")
    text = stages.stage("optimize").text
    inside = [line for line in text.splitlines() if "contract(" in line and line[4] == " "]
    assert len(inside) == (2 if moved else 5)


@pytest.mark.parametrize("value", [np.inf, np.nan])
@pytest.mark.parametrize("dtype", ["f2", "f4", "f8"])
def test_special_values_stay_in_their_trip(value, dtype, moved):
    p = {"u": draw(1, 16, 24, dtype=dtype), "w": np.zeros((24, 24), dtype)}
    xs, h = draw(3, 4, 1, 16, dtype=dtype), draw(4, 1, 24, dtype=dtype)
    xs[1, 0, 3] = value
    with np.errstate(all="ignore"):
        states = diffc.jit(lambda *args: recurrent(*args)[1])(p, xs, h)
    finite = np.isfinite(states).all(axis=(1, 2))
    assert finite[0]
    assert finite[1] == (value == np.inf)  # tanh of it is 1 or -1


def test_integers_wrap(moved):
    def f(w, xs, ys):
        def step(w, xy):
            x, y = xy
            return w + x.T @ y, None

        return diffc.scan(step, w, (xs, ys))[0]

    rng = np.random.default_rng(0)
    w, xs, ys = (
        rng.integers(-128, 128, shape).astype("i1") for shape in ((5, 6), (9, 2, 5), (9, 2, 6))
    )
    want = w.copy()
    for x, y in zip(xs, ys, strict=True):
        want += x.T @ y
    np.testing.assert_array_equal(diffc.jit(f)(w, xs, ys), want)
