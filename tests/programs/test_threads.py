"""Programs give the same bits for any number of threads; calls at once, limits, memory."""

import threading

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import diffc
import diffc.ops
from benchmarks import data, objectives
from diffc.errors import ExecutionError, UsageError
from diffc.programs import GraphProgram
from diffc.runtime import pool
from tests.ops.samples import samples
from tests.programs.compare import arrays_of, one_op_graph, same
from tests.programs.drawn import Drawer, operands_for
from tests.shares import needs_pool, shared_anyway, steady

__all__ = ["shared_anyway", "steady"]

pytestmark = needs_pool
COUNTS = (1, 2, 3)


def alike(program, arrays, expected):
    """The program's outputs are the expected bits, for any number of threads."""
    for count in COUNTS:
        with pool.use_threads(count):
            for found, wanted in zip(program(arrays), expected, strict=True):
                same(found, wanted, f"{count} threads")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
@given(st.integers(0, 2**32 - 1), st.integers(1, 30))
def test_drawn_programs(shared_anyway, seed, count):
    graph = Drawer(seed).graph(count)
    arrays = operands_for(graph.input_avals, seed)
    with shared_anyway():
        expected = GraphProgram(graph, "plain")(arrays)
    alike(GraphProgram(graph, "shared"), arrays, expected)


@pytest.mark.parametrize("op", list(diffc.ops.every_op()), ids=lambda op: op.name)
def test_every_op(shared_anyway, monkeypatch, op):
    some = samples(op)[::3][:60]
    graph, arrays = one_op_graph(some, op.name), arrays_of(some)
    with shared_anyway():
        expected = GraphProgram(graph, "plain")(arrays)
    program = GraphProgram(graph, "shared")
    alike(program, arrays, expected)
    monkeypatch.setenv("DIFFC_GUARD", "1")
    with pool.use_threads(3):
        for found, wanted in zip(program(arrays), expected, strict=True):
            same(found, wanted, "in guard mode")


SMALL = {
    "lecture_net": lambda rng: data.make_lecture_net("float64")(rng),
    "mlp3": lambda rng: (
        data.dense(rng, [40, 64, 32, 10]),
        [{"x": data.normal(rng, "float32", 70, 40), "y": rng.integers(0, 10, 70)}],
    ),
    "residual_mlp": lambda rng: data.make_residual(rng, layers=3, d=16),
    "deep_chain": lambda rng: data.make_chain(rng, layers=4, d=32, batch=24),
    "transformer": lambda rng: data.make_transformer(rng),
}


@pytest.mark.parametrize("name", list(SMALL))
def test_workloads(shared_anyway, monkeypatch, name):
    """A step of training, shares as small as can be and as they are chosen."""
    small = {"d": 24, "heads": 2, "time": 12, "batch": 3, "vocabulary": 40}
    for key, size in small.items():
        monkeypatch.setitem(objectives.TF, key, size)
    params, batches = SMALL[name](np.random.default_rng(3))
    layers = {"residual_mlp": {"layers": 3}, "deep_chain": {"layers": 4}}.get(name, {})

    def objective(p, b):
        return getattr(objectives, name)(p, b, **layers)

    def step():
        function = diffc.jit(diffc.value_and_grad(objective))
        results = []
        for count in COUNTS:
            with diffc.threads(count):
                value, grads = function(params, batches[0])
                results.append([np.asarray(value), *(grads[key] for key in sorted(grads))])
        return results

    with shared_anyway():
        expected = step()[0]
    for found in step():
        for x, y in zip(found, expected, strict=True):
            same(x, y)


@pytest.mark.parametrize("size", [(300, 700, 1100), (1100, 520, 300), (5, 900, 1100)])
def test_large_products(steady, size):
    """Packed and blocked, in shares as they are chosen; rows, then columns."""
    rng = np.random.default_rng(0)
    m, k, n = size
    x, w, b = (rng.standard_normal(shape, np.float32) for shape in ((m, k), (k, n), (n,)))
    function = diffc.jit(lambda x, w, b: np.maximum(x @ w + b, 0))
    before = pool.pool().regions()
    with diffc.threads(1):
        expected = function(x, w, b)
    assert pool.pool().regions() == before
    np.testing.assert_allclose(expected, np.maximum(x @ w + b, 0), rtol=1e-3, atol=1e-3)
    for count in (2, 3, 8):
        with diffc.threads(count):
            for _ in range(3):
                same(function(x, w, b), expected)
    assert pool.pool().regions() > before


def test_reductions_of_everything():
    x = np.random.default_rng(1).standard_normal(300_001)
    function = diffc.jit(lambda x: (np.sum(np.exp(x) * x), np.max(x), np.argmax(x), x - np.mean(x)))
    with diffc.threads(1):
        expected = function(x)
    for count in (2, 3, 5):
        with diffc.threads(count):
            for found, wanted in zip(function(x), expected, strict=True):
                same(np.asarray(found), np.asarray(wanted))


def test_memory_is_as_planned_for_any_number_of_threads():
    x = np.ones((600, 600), np.float32)
    compiled = diffc.jit(lambda x: np.tanh(x @ x.T) @ x).compile(x)
    for count in (1, 2, 8):
        with diffc.threads(count):
            compiled(x)
    assert compiled.executable.resident == compiled.memory().peak


def test_jit_limits_its_threads(steady):
    x = np.linspace(0.0, 1.0, 400_000)
    alone = diffc.jit(lambda x: np.sum(np.exp(x)), threads=1)
    several = diffc.jit(lambda x: np.sum(np.exp(x)), threads=5)
    state = pool.pool()
    with diffc.threads(3):
        expected, before = alone(x), state.regions()
        assert alone(x) == expected
        assert state.regions() == before
        assert several(x) == expected
        assert several(x) == expected
        assert state.regions() > before
        assert state.word("PARTIES") <= 3
    with pytest.raises(UsageError, match="no number of threads"):
        diffc.jit(lambda x: x, threads=0)


def test_calls_at_once(shared_anyway):
    function = diffc.jit(lambda x, w: np.tanh(x @ w).sum(axis=0))
    rng = np.random.default_rng(0)
    cases = [(rng.standard_normal((50, 40)), rng.standard_normal((40, 30))) for _ in range(4)]
    with diffc.threads(1):
        expected = [function(*case) for case in cases]
    wrong = []

    def work(number):
        for _ in range(300):
            if not np.array_equal(function(*cases[number]), expected[number]):
                wrong.append(number)

    with diffc.threads(3):
        callers = [threading.Thread(target=work, args=(number,)) for number in range(4)]
        for caller in callers:
            caller.start()
        for caller in callers:
            caller.join()
    assert wrong == []


@pytest.mark.parametrize("count", COUNTS)
def test_an_index_out_of_bounds_in_a_share(shared_anyway, count):
    function = diffc.jit(lambda x, i: np.exp(x[i]) + 1.0)
    x, index = np.arange(50.0), np.arange(3000) % 50
    with diffc.threads(count):
        function(x, index)
        for place in (0, 1499, 2999):
            wrong = index.copy()
            wrong[place] = 50
            with pytest.raises(ExecutionError, match="out of bounds"):
                function(x, wrong)
        np.testing.assert_array_equal(function(x, index), function(x, index))
