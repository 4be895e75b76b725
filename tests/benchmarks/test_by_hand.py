"""Gradients by hand against finite differences in float64, and results against the definitions."""

import functools

import numpy as np
import pytest

from benchmarks import by_hand, check, data, inputs, objectives
from benchmarks.workloads import WORKLOADS

SMALL_TRANSFORMER = {"d": 12, "heads": 3, "time": 5, "batch": 2, "vocabulary": 11}
SMALL = {
    "residual50": functools.partial(data.make_residual, layers=3, d=16),
    "deep_chain": functools.partial(data.make_chain, layers=4, d=16, batch=8),
    "mlp_large": data.make_mlp([12, 16, 8, 10], batch=32),
    "w8": functools.partial(data.make_w8, n=50),  # a sum over a million has no finite difference
    "lstm": functools.partial(data.make_lstm, steps=5, batch=3, width=4),
    "cross_entropy_512x1000": data.make_cross_entropy(9, 31),
    "cross_entropy_2048x32000": data.make_cross_entropy(1, 2),
    "layer_norm_4096x768": data.make_layer_norm(5, 7),
    "layer_norm_512x8192": data.make_layer_norm(1, 33),
    "attention_64": data.make_attention(6, heads=2, features=4),
    "attention_512": data.make_attention(1, heads=1, features=3),
    "attention_2048": data.make_attention(17, heads=3, features=5),
    "heat": functools.partial(data.make_heat, size=7),
    "heat_gradient": functools.partial(data.make_heat, size=9),
    "products_3x3": data.make_products(3, count=5),
    "products_4x4": data.make_products(4, count=1),
    "solve_6x6": functools.partial(data.make_solutions, count=3),
    "mixture": functools.partial(data.make_mixture, points=11, parts=3, n=4),
    "running_sum": functools.partial(data.make_running_sum, rows=3, length=10),
    "recurrence": functools.partial(data.make_recurrence, steps=7, width=5),
    "graph_net": functools.partial(data.make_graph, nodes=9, edges=30, features=4, classes=3),
    "sort": functools.partial(data.make_sorted, rows=3, length=8),
    "add_transposed": functools.partial(data.make_transposed, n=6),
    "elementwise": functools.partial(data.make_elementwise, n=20),
    "elementwise_gradient": functools.partial(data.make_elementwise, n=20),
}
DEPTH = {"residual50": {"layers": 3}, "deep_chain": {"layers": 4}}
WITH_OBJECTIVE = [k for k, w in WORKLOADS.items() if w.kind != "update"]


class Case:
    """A workload in float64, small where that is possible."""

    def __init__(self, name):
        self.workload = WORKLOADS[name]
        make = SMALL.get(name, self.workload.make)
        p, batches = make(np.random.default_rng(1))
        self.params, self.batch = inputs.upcast(p), inputs.upcast(batches[0])
        self.depth = DEPTH.get(name, {})

    def objective(self, p):
        return self.workload.objective(p, self.batch, **self.depth)

    def scalar(self, p):
        """The number whose gradient is asked for: of a pullback, what the cotangent weighs."""
        value = self.objective(p)
        return np.vdot(value, self.batch["ct"]) if self.workload.kind == "pullback" else value

    def by_hand(self, p):
        return by_hand.of(self.workload)(p, self.batch, **self.depth)


@pytest.fixture
def small_transformer(monkeypatch):
    for k, size in SMALL_TRANSFORMER.items():
        monkeypatch.setitem(objectives.TF, k, size)


@pytest.fixture
def case(name, small_transformer):
    return Case(name)


@pytest.mark.filterwarnings("ignore:overflow encountered in exp")
@pytest.mark.parametrize("name", WITH_OBJECTIVE)
def test_result_is_that_of_the_definition(case):
    value, _ = case.by_hand(case.params)
    np.testing.assert_allclose(value, case.objective(case.params), rtol=1e-11, atol=1e-13)


@pytest.mark.filterwarnings("ignore:overflow encountered in exp")
@pytest.mark.parametrize("name", [k for k, w in WORKLOADS.items() if w.derives])
def test_gradient_agrees_with_finite_differences(case):
    p = case.params
    _, grads = case.by_hand(p)
    assert grads.keys() == p.keys()
    rng = np.random.default_rng(2)
    scale = check.norm([np.asarray(g) for g in grads.values()])
    for k, a in p.items():
        direction = rng.standard_normal(np.shape(a))
        direction = direction / np.linalg.norm(direction) if np.ndim(a) else 1.0
        h = 1e-7  # a longer step crosses kinks of relu in the convolution net
        up, down = (case.scalar(p | {k: a + s * h * direction}) for s in (1.0, -1.0))
        slope = np.sum(grads[k] * direction)
        assert np.shape(grads[k]) == np.shape(a), k
        assert slope == pytest.approx((up - down) / (2 * h), rel=2e-5, abs=1e-6 * scale), k


@pytest.mark.parametrize("name", WITH_OBJECTIVE)
def test_gradients_leave_params_and_batch_as_they_are(case):
    before = [{k: np.copy(a) for k, a in d.items()} for d in (case.params, case.batch)]
    first, second = case.by_hand(case.params), case.by_hand(case.params)
    np.testing.assert_array_equal(first[0], second[0])
    for k, g in first[1].items():
        np.testing.assert_array_equal(g, second[1][k])
    for now, then in zip((case.params, case.batch), before, strict=True):
        for k, a in then.items():
            np.testing.assert_array_equal(now[k], a)


FLOAT32 = [k for k in WITH_OBJECTIVE if WORKLOADS[k].dtype == "float32"]


@pytest.mark.parametrize("name", FLOAT32)
def test_results_and_gradients_keep_float32(name, small_transformer):
    workload, make = WORKLOADS[name], SMALL.get(name, WORKLOADS[name].make)
    p, batches = make(np.random.default_rng(0))
    value, grads = by_hand.of(workload)(p, batches[0], **DEPTH.get(name, {}))
    assert {a.dtype for a in (value, *grads.values())} == {np.dtype("float32")}


def test_given_gradients_are_the_gradients():
    p, (batch,) = data.make_many(np.random.default_rng(0), layers=2, width=3)
    _, grads = by_hand.of(WORKLOADS["adam_200_arrays"])(p, batch)
    assert grads is batch
    assert {k: g.shape for k, g in grads.items()} == {k: a.shape for k, a in p.items()}
