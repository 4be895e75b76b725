"""Gradients by hand against finite differences in float64, and values against the definitions."""

import numpy as np
import pytest

from benchmarks import check, inputs
from benchmarks import workloads as defined
from benchmarks.by_hand import BY_HAND
from benchmarks.workloads import WORKLOADS

SMALL_DEPTH = {"residual_mlp": 3, "deep_chain": 4}


def shrink(p, b):
    """Return a w8 of a few elements: the sum over a million has no finite difference."""
    return ({k: a[:50] for k, a in p.items()}, b) if "z" in p and np.ndim(p["x"]) else (p, b)


@pytest.fixture(params=list(WORKLOADS))
def case(request, monkeypatch):
    """Objective and gradient by hand, small where that is possible, and float64 inputs."""
    small = {"d": 12, "heads": 3, "time": 5, "batch": 2, "vocabulary": 11}
    for k, size in small.items():
        monkeypatch.setitem(defined.TF, k, size)
    name = WORKLOADS[request.param].objective.__name__
    depth = {"layers": SMALL_DEPTH[name]} if name in SMALL_DEPTH else {}
    if request.param == "deep_chain":
        p, batches = defined.make_chain(np.random.default_rng(1), layers=4, d=16, batch=8)
    elif request.param == "residual50":
        p, batches = defined.make_residual(np.random.default_rng(1), layers=3, d=16)
    elif request.param == "mlp_large":
        rng = np.random.default_rng(1)
        p = defined.dense(rng, [12, 16, 8, 10])
        batches = [{"x": rng.standard_normal((32, 12)), "y": rng.integers(0, 10, 32)}]
    else:
        p, batches = shrink(*inputs.draw(request.param, seed=1))
    p, b = inputs.upcast(p), inputs.upcast(batches[0])
    return (
        lambda p: getattr(defined, name)(p, b, **depth),
        lambda p: BY_HAND[name](p, b, **depth),
        p,
    )


@pytest.mark.filterwarnings("ignore:overflow encountered in exp")
def test_value_is_that_of_the_definition(case):
    objective, by_hand, p = case
    value, _ = by_hand(p)
    assert value == pytest.approx(objective(p), rel=1e-12)


@pytest.mark.filterwarnings("ignore:overflow encountered in exp")
def test_gradient_agrees_with_finite_differences(case):
    objective, by_hand, p = case
    _, grads = by_hand(p)
    assert grads.keys() == p.keys()
    rng = np.random.default_rng(2)
    scale = check.norm([np.asarray(g) for g in grads.values()])
    for k, a in p.items():
        direction = rng.standard_normal(np.shape(a))
        direction = direction / np.linalg.norm(direction) if np.ndim(a) else 1.0
        h = 1e-7  # a longer step crosses kinks of relu in the convolution net
        up, down = (objective(p | {k: a + s * h * direction}) for s in (1.0, -1.0))
        slope = np.sum(grads[k] * direction)
        assert np.shape(grads[k]) == np.shape(a), k
        assert slope == pytest.approx((up - down) / (2 * h), rel=2e-5, abs=1e-6 * scale), k


def test_gradients_leave_params_and_batch_as_they_are(case):
    _, by_hand, p = case
    before = {k: np.copy(a) for k, a in p.items()}
    first, second = by_hand(p), by_hand(p)
    assert first[0] == second[0]
    for k, a in p.items():
        np.testing.assert_array_equal(a, before[k])
        np.testing.assert_array_equal(first[1][k], second[1][k])


@pytest.mark.parametrize("name", ["lecture_net_f32", "digits", "conv_net", "transformer"])
def test_gradients_keep_float32(name):
    p, batches = inputs.draw(name)
    value, grads = BY_HAND[WORKLOADS[name].objective.__name__](p, batches[0])
    assert value.dtype == np.float32
    assert {g.dtype for g in grads.values()} == {np.dtype("float32")}
