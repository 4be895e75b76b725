"""What compiling large programs costs, told by sizes, not by clocks; and that nothing is kept."""

import contextlib
import gc
import sys

import numpy as np
import pytest

import diffc
from benchmarks import compile_time
from diffc.ir.graph import Graph
from diffc.plan.program import Call, Kernel, Program, callees
from diffc.trace import trace
from diffc.transforms import batch, jvp, taylor, vjp


def _programs(program: Program) -> list[Program]:
    found, stack = {}, [program]
    while stack:
        current = stack.pop()
        if id(current) not in found:
            found[id(current)] = current
            stack += callees(current)
    return list(found.values())


def _stages(layers, until="emit"):
    loss, args = compile_time.residual(layers)
    return diffc.value_and_grad(loss).stages(*args, until=until)


@pytest.fixture(scope="module")
def blocks():
    """The stages of the residual network, by its number of layers."""
    return {layers: _stages(layers) for layers in (5, 50, 150)}


def test_equal_blocks_share_kernels(blocks):
    kernels = {}
    for layers, stages in blocks.items():
        programs = _programs(stages.stage("plan").value)
        kernels[layers] = sum(isinstance(n, Kernel) for p in programs for n in p.nodes)
    assert len(set(kernels.values())) == 1, kernels


def test_each_block_is_two_calls(blocks):
    for layers, stages in blocks.items():
        nodes = stages.stage("plan").value.nodes
        assert sum(isinstance(node, Call) for node in nodes) == 2 * layers


def test_differentiated_graph_has_two_equations_a_block(blocks):
    few, some, many = (len(blocks[n].stage("transform").value.eqns) for n in (5, 50, 150))
    assert many - some == 2 * 100
    assert some - few == 2 * 45


def test_code_of_many_blocks_is_a_table(blocks):
    code = {
        layers: [
            line
            for line in stages.stage("emit").value.splitlines()
            if not line.startswith("@table") and "getelementptr" not in line  # none at offset 0
        ]
        for layers, stages in blocks.items()
    }
    assert len(code[150]) == len(code[50])
    assert len(code[50]) < 1.2 * len(code[5])


@pytest.mark.parametrize("mixing", [False, True])
def test_gradient_graphs_are_linear_in_the_function(mixing):
    x = np.full((4, 4), 0.3)
    sizes = {}
    for count in (100, 400):
        f = compile_time.random_chain(count, mixing=mixing)
        stages = diffc.value_and_grad(f).stages(x, until="optimize")
        traced = len(stages.stage("trace").value.eqns)
        sizes[count] = len(stages.stage("optimize").value.eqns) / traced
    assert sizes[400] < 1.25 * sizes[100]
    assert sizes[400] < 6


def test_time_steps_are_calls():
    loss, args = compile_time.recurrent(60)
    gradient = diffc.value_and_grad(loss)
    stages = gradient.stages(*args, until="plan")
    calls = [node for node in stages.stage("plan").value.nodes if isinstance(node, Call)]
    assert len(calls) >= 2 * 58
    assert len({id(call.program) for call in calls}) == 2
    value, (w, u, b) = gradient(*args)

    def scanned(p, x):
        def cell(h, row):
            return np.tanh(row @ p[0] + h @ p[1] + p[2]), None

        h, _ = diffc.scan(cell, np.zeros((8, 32)), x)
        return np.mean(h * h)

    wanted, gradients = diffc.value_and_grad(scanned)(*args)
    np.testing.assert_allclose(value, wanted, rtol=1e-12)
    for found, right in zip((w, u, b), gradients, strict=True):
        np.testing.assert_allclose(found, right, rtol=1e-9, atol=1e-12)


@contextlib.contextmanager
def shallow():
    """No more than 300 frames beyond those that are there."""
    limit = sys.getrecursionlimit()
    depth, frame = 0, sys._getframe()
    while frame is not None:
        depth, frame = depth + 1, frame.f_back
    sys.setrecursionlimit(depth + 300)
    try:
        yield
    finally:
        sys.setrecursionlimit(limit)


def test_no_stage_recurses_along_the_graph():
    def f(x):
        for _ in range(34_000):
            x = np.negative(x) * 0.5 + x
        return x

    diffc.jit(np.negative).stages(np.ones(3), until="allocate")  # imports, outside the limit
    with shallow():
        stages = diffc.jit(f).stages(np.ones(3), until="allocate")
    assert len(stages.stage("optimize").value.eqns) == 102_000


def test_gradients_of_long_chains_do_not_recurse():
    def f(x):
        for _ in range(1500):
            x = np.sin(x) * 0.5 + x
        return np.sum(x)

    gradient = diffc.grad(f)
    diffc.grad(lambda x: np.sum(np.sin(x))).stages(np.ones(3))
    with shallow():
        stages = gradient.stages(np.ones(3), until="emit")
    assert len(stages.stage("optimize").value.eqns) > 4500


def chain_of(steps):
    def f(x):
        for k in range(steps):
            x = np.sin(x) * (0.5 + 1 / (k + 2)) + x
        return np.sum(x)

    return trace(f, [np.full(3, 0.3)]).graph


#: a graph of a graph of one input and one output
TRANSFORMS = {
    "jvp": lambda g: jvp(g, [True]).graph,
    "vjp": lambda g: vjp(g, [True]).graph,
    "forward over reverse": lambda g: jvp(vjp(g, [True]).graph, [True, False]).graph,
    "reverse over reverse": lambda g: vjp(vjp(g, [True]).graph, [True, False]).graph,
    "reverse over forward": lambda g: vjp(jvp(g, [True]).graph, [True, False]).graph,
    "third": lambda g: (
        jvp(jvp(vjp(g, [True]).graph, [True, False]).graph, [True, *[False] * 2]).graph
    ),
    "batch": lambda g: batch(vjp(g, [True]).graph, [True, False], 4).graph,
    "taylor": lambda g: taylor(g, [True], 3).graph,
}
#: equations of the derivative for each of the function's, at most
GROWTH = {"jvp": 3, "vjp": 3, "batch": 3, "third": 20, "taylor": 15}


@pytest.mark.parametrize("name", TRANSFORMS)
def test_derivatives_grow_by_the_same_for_each_step(name):
    sizes = [len(TRANSFORMS[name](chain_of(steps)).eqns) for steps in (100, 200, 400)]
    assert sizes[2] - sizes[1] == 2 * (sizes[1] - sizes[0])
    assert sizes[1] - sizes[0] <= 300 * GROWTH.get(name, 8)


@pytest.mark.parametrize("name", ["jvp", "vjp", "forward over reverse", "batch"])
def test_derivatives_of_ten_thousand_equations_do_not_recurse(name):
    graph = chain_of(3400)
    assert len(graph.eqns) > 10_000
    TRANSFORMS[name](chain_of(2))  # what is imported or made once
    with shallow():
        found = TRANSFORMS[name](graph)
    assert 10_000 < len(found.eqns) <= 10_201 * GROWTH.get(name, 8)


# --- nothing is kept --------------------------------------------------------------------------


def _gradient(k):
    w = np.eye(3) * k

    def f(x):
        for _ in range(5):
            x = np.tanh(x @ w) * 0.5 + x / (1.0 + np.sum(x * x)) + k
        return np.sum(x)

    return diffc.value_and_grad(f)


def _loop(k):
    def f(x):
        last, _ = diffc.scan(lambda c, row: (np.tanh(c + row) * k, None), x, np.ones((3, 2, 3)))
        return np.sum(last)

    return diffc.grad(f)


def _batched(k):
    return diffc.jit(lambda x: diffc.vmap(diffc.grad(lambda row: np.sum(np.tanh(row) * k)))(x))


def _twice(k):
    return diffc.hessian(lambda x: np.sum(np.tanh(x) * x * k))


def _again(k):
    g = diffc.checkpoint(lambda x: np.tanh(x) * k)
    return diffc.grad(lambda x: np.sum(g(g(x))))


def _ruled(k):
    g = diffc.custom_vjp(lambda x: np.tanh(x) * k)
    g.defvjp(lambda x: (np.tanh(x) * k, x), lambda x, ct: (ct * x * k,))
    return diffc.grad(lambda x: np.sum(g(g(x))))


def _constant(k):
    table = [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]

    def f(x):
        return x * np.array(table) * k

    return diffc.jit(f)


def _graphs():
    for _ in range(5):  # what is remembered of a graph dies after it: a generation each time
        gc.collect()
    return sum(isinstance(found, Graph) for found in gc.get_objects())


@pytest.mark.parametrize("make", [_gradient, _loop, _batched, _twice, _again, _ruled, _constant])
def test_dropped_functions_leave_no_graphs(make):
    x = np.full((2, 3), 0.5)
    make(1)(x)
    before = _graphs()
    kept = make(2)
    kept(x)
    assert _graphs() > before  # so the count below counts
    del kept
    for k in range(3, 13):
        compiled = make(k).stages if hasattr(make(k), "stages") else make(k)
        compiled(x)
    del compiled
    assert _graphs() <= before
