"""Branches and loops compiled: what the interpreter says, plain and between guard pages.

Each program, its vjp, the jvp and vjp of that, and batches of them; on inputs that take few and
many steps; with loops that keep checkpoints, and with loops that keep all.
"""

import numpy as np
import pytest

import diffc
from diffc.ir.check import check
from diffc.ir.graph import Graph
from diffc.ir.text import parse, print_graph
from diffc.ops.interpret import evaluate
from diffc.ops.registry import table
from diffc.optimize import optimize
from diffc.programs import GraphProgram
from diffc.trace import trace
from diffc.trace.loops import STORES, storing
from diffc.transforms import batch, expand, jvp, vjp
from tests.programs.compare import same

RNG = np.random.default_rng(0)


def newton(a):
    def step(c):
        x, _ = c
        return (x + a / x) / 2, x

    return diffc.while_loop(lambda c: np.abs(c[0] - c[1]) > 1e-6, step, (a, a + 1))[0]


def swaps(a, b, n):
    return diffc.fori_loop(0, n, lambda i, c: (c[1] * 2, c[0] + i), (a, b))


def rows(x, n):
    def body(i, x):
        x[i + 1] = np.sin(x[i]) + x[i + 1]
        return x

    return diffc.fori_loop(0, n, body, x)


def choices(x, k):
    branches = [np.sin, lambda x: x * x, lambda x: x[::-1], lambda x: np.cumsum(x)]

    def body(i, x):
        return diffc.switch((i + k) % 5, branches, x)

    return diffc.fori_loop(0, 6, body, x)


def matrices(a, n):
    def body(c):
        i, m = c
        m = diffc.cond(i % 2 == 0, lambda m: m @ a, lambda m: m + a, m)
        return i + 1, m / (1 + np.sum(m * m))

    return diffc.while_loop(lambda c: c[0] < n, body, (0, a))[1]


def nested(x, n):
    def inner(t):
        return diffc.fori_loop(0, n, lambda i, t: np.tanh(t + i * x[0]), t)

    ys = diffc.scan(lambda t, xi: (inner(t) * xi, t), x[1], x)[1]
    return diffc.cond(np.sum(ys) > 0, lambda: np.sum(ys), lambda: np.sum(x * ys))


PROGRAMS = {
    "newton": (newton, [(2.0,), (1e4,)]),
    "swaps": (swaps, [(np.ones(3), np.arange(3.0), n) for n in (0, 1, 2, 7)]),
    "rows": (rows, [(RNG.standard_normal((5, 2)), n) for n in (0, 1, 4)]),
    "choices": (choices, [(RNG.standard_normal(4), k) for k in (0, 2, 3)]),
    "matrices": (matrices, [(RNG.standard_normal((2, 2)), n) for n in (0, 1, 5)]),
    "nested": (nested, [(RNG.standard_normal(3), n) for n in (0, 3)]),
}


def traced(name, store):
    """The program's graph, and its runs."""
    function, runs = PROGRAMS[name]
    with storing(store):
        graph = optimize(trace(function, list(runs[0])).graph)
    return graph, [list(map(np.asarray, run)) for run in runs]


def compiled_is_interpreted(graph: Graph, runs, monkeypatch):
    graph = check(optimize(expand(graph)))
    text = print_graph(graph)
    assert print_graph(parse(text, table())) == text
    program = spread = GraphProgram(graph, graph.name)
    if "*" in text:
        monkeypatch.setenv("DIFFC_GUARD", "1")
        spread = GraphProgram(graph, graph.name)  # each row ends where its memory does
        monkeypatch.delenv("DIFFC_GUARD")
    for arrays in runs:
        expected = evaluate(graph, arrays)
        found = program(arrays)
        monkeypatch.setenv("DIFFC_GUARD", "1")
        guarded = spread(arrays)
        monkeypatch.delenv("DIFFC_GUARD")
        for k, y in enumerate(expected):
            same(found[k], guarded[k], "in guard mode")
            np.testing.assert_allclose(found[k], y, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("store", STORES)
@pytest.mark.parametrize("name", PROGRAMS)
def test_compiled_is_interpreted(name, store, monkeypatch):
    graph, given = traced(name, store)
    compiled_is_interpreted(graph, given, monkeypatch)
    active = [a.is_float for a in graph.input_avals]
    backward = vjp(graph, active)
    cts = [RNG.standard_normal(a.shape) for a in graph.output_avals if a.is_float]
    compiled_is_interpreted(backward.graph, [[*run, *cts] for run in given], monkeypatch)
    both = jvp(backward.graph, [*active, *(False for _ in cts)])
    dots = [RNG.standard_normal(a.shape) for a in graph.input_avals if a.is_float]
    compiled_is_interpreted(both.graph, [[*run, *cts, *dots] for run in given], monkeypatch)


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("name", PROGRAMS)
def test_stores_give_what_checkpoints_give(name, order, monkeypatch):
    """Reverse over reverse, of what is kept and of what is computed again."""
    graphs, given = [], []
    for store in STORES:
        graph, given = traced(name, store)
        for _ in range(order):
            graph = optimize(vjp(graph, [a.is_float for a in graph.input_avals]).graph)
        graphs.append(graph)
    rng = np.random.default_rng(order)
    more = graphs[0].input_avals[len(given[0]) :]
    runs = [[*run, *(rng.standard_normal(a.shape) for a in more)] for run in given]
    compiled_is_interpreted(graphs[-1], runs, monkeypatch)
    for run in runs:
        results = [evaluate(graph, run) for graph in graphs]
        for one, other in zip(results[0], results[-1], strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("name", ["newton", "nested"])
def test_third_derivatives_add_stores(name, monkeypatch):
    """A store that two loops read has two cotangents."""
    graph, given = traced(name, "grow")
    for _ in range(3):
        graph = optimize(vjp(graph, [a.is_float for a in graph.input_avals]).graph)
    rng = np.random.default_rng(0)
    more = graph.input_avals[len(given[0]) :]
    runs = [[*run, *(rng.standard_normal(a.shape) for a in more)] for run in given]
    compiled_is_interpreted(graph, runs, monkeypatch)


@pytest.mark.parametrize("store", STORES)
@pytest.mark.parametrize("name", PROGRAMS)
def test_a_batch_takes_as_many_steps_as_each_needs(name, store, monkeypatch):
    graph, given = traced(name, store)
    batch_is_a_loop(graph, given, monkeypatch)


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_batch_of_stores_has_rows_for_each(name, monkeypatch):
    graph, given = traced(name, "grow")
    rng = np.random.default_rng(0)
    for order in (1, 2):
        known = len(graph.inputs)
        graph = optimize(vjp(graph, [a.is_float for a in graph.input_avals]).graph)
        for run in given:
            run += [rng.standard_normal(a.shape) for a in graph.input_avals[known:]]
        if order == 1 or name in ("newton", "swaps", "nested"):
            batch_is_a_loop(graph, given, monkeypatch)


def batch_is_a_loop(graph, runs, monkeypatch):
    stacked = [np.stack(column) for column in zip(*runs, strict=True)]
    made = check(batch(graph, [True] * len(stacked), len(runs)).graph)
    compiled_is_interpreted(made, [stacked], monkeypatch)
    for k, run in enumerate(runs):
        alone = evaluate(graph, run)
        for one, many in zip(alone, evaluate(made, stacked), strict=True):
            np.testing.assert_allclose(many[k], one, rtol=1e-12, atol=1e-14)


def test_a_carry_is_updated_in_place():
    """A step of a loop costs what it changes, not what is carried."""
    program = diffc.jit(rows).compile(np.zeros((1000, 50)), 3)
    assert program.memory().peak < 1000 * 50 * 8
    body = next(m for m in program.memory().callees if m.in_place)
    assert any(target == "out1" for target, _ in body.in_place)
    assert not [copy for copy in body.copies if copy[2] > 8 * 50]


def test_backward_passes_keep_a_fixed_number_of_carries():
    carry = 100 * 100 * 8

    def f(x, n):
        return np.sum(diffc.fori_loop(0, n, lambda i, x: np.sin(x) + x, x, slots=8))

    short = diffc.grad(f).compile(np.zeros((100, 100)), 3)
    assert short.memory().peak < 16 * carry


@pytest.mark.parametrize("slots", [2, 4, 8])
def test_reverse_over_reverse_keeps_to_the_slots(slots):
    """A few sets of slots for each slot; forward over reverse, two sets."""
    x = np.zeros((64, 64))

    def f(x, n):
        return np.sum(diffc.fori_loop(0, n, lambda i, x: np.sin(x) + x, x, slots=slots))

    g = diffc.grad(f)
    twice = diffc.grad(lambda x, n: np.sum(g(x, n) ** 2)).compile(x, 9)
    assert twice.memory().peak < 6 * (slots + 1) ** 2 * x.nbytes
    mixed = diffc.jit(lambda x, n: diffc.jvp(lambda x: g(x, n), (x,), (x,))).compile(x, 9)
    assert mixed.memory().peak < 3 * (slots + 6) * x.nbytes


def test_branches_share_an_arena():
    x = np.zeros((64, 64))

    def f(i, x):
        def work(k):
            return lambda x: (x @ (x + k)) @ (x - k)

        return diffc.switch(i, [work(k) for k in range(6)], x)

    one = diffc.jit(lambda x: (x @ (x + 1)) @ (x - 1)).compile(x).memory().peak
    assert diffc.jit(f).compile(0, x).memory().peak <= one + 64 * 64 * 8 + 256
