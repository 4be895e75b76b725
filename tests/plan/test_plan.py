"""What every plan keeps, over drawn programs: order, single writes, buffers of the right avals."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import diffc
import diffc.ops
from diffc.ir.aval import is_float
from diffc.ir.check import check
from diffc.ir.graph import Value, graphs_of
from diffc.ir.text import parse
from diffc.ops.interpret import evaluate
from diffc.optimize import optimize
from diffc.plan.plan import plan
from diffc.plan.program import Call, Copy, Fill, Kernel, Loop
from diffc.plan.text import print_program
from diffc.transforms import vjp
from tests.programs.compare import same
from tests.programs.drawn import Drawer, is_differentiable, operands_for

seeds = st.integers(0, 2**32 - 1)


def reads_of(node):
    return (node.source,) if isinstance(node, Copy) else getattr(node, "reads", ())


def writes_of(node):
    return (node.target,) if isinstance(node, Copy | Fill) else node.writes


def verify(program, donated=()):
    """Every buffer is written once, before it is read; inputs and constants never are."""
    known = set(program.inputs)
    written = set()
    for node in program.nodes:
        for buffer in reads_of(node):
            assert buffer in known or buffer.role == "constant", f"{buffer} is read too early"
        for buffer in writes_of(node):
            assert buffer.role in ("output", "temporary") and buffer not in written
            written.add(buffer)
            known.add(buffer)
        if isinstance(node, Kernel):
            check(node.graph)
            assert tuple(b.aval for b in node.reads) == node.graph.input_avals
            assert tuple(b.aval for b in node.writes) == node.graph.output_avals
        elif isinstance(node, Copy):
            assert node.source.aval is node.target.aval
        elif isinstance(node, Call | Loop):
            verify(node.program if isinstance(node, Call) else node.body)
    assert written == {*program.outputs, *program.temporaries}
    readers = {b for node in program.nodes for b in reads_of(node)}
    assert {b for b in program.temporaries if b.aval.size} <= readers | program_results(program)


def program_results(program):
    """Temporaries that a node has to write though nobody reads them."""
    return {b for node in program.nodes for b in writes_of(node) if len(writes_of(node)) > 1}


def run(program, arrays):
    """The outputs, each node by the interpreter."""
    memory = dict(zip(program.inputs, arrays, strict=True))
    for node in program.nodes:
        given = [
            np.frombuffer(b.data, b.aval.numpy).reshape(b.aval.shape)
            if b.role == "constant"
            else memory[b]
            for b in reads_of(node)
        ]
        if isinstance(node, Kernel):
            found = evaluate(node.graph, given)
        elif isinstance(node, Copy):
            found = given
        elif isinstance(node, Fill):
            found = [np.full(node.target.aval.shape, node.value, node.target.aval.numpy)]
        elif isinstance(node, Call):
            found = run(node.program, given)
        else:
            found = run_loop(node, given)
        memory.update(zip(writes_of(node), found, strict=True))
    return [memory[buffer] for buffer in program.outputs]


def run_loop(node, given):
    first = node.constants + node.carries
    fixed, state, xs = given[: node.constants], given[node.constants : first], given[first:]
    ys = [np.empty(b.aval.shape, b.aval.numpy) for b in node.writes[node.carries :]]
    steps = range(node.length)
    for step in reversed(steps) if node.reverse else steps:
        found = run(node.body, [*fixed, *state, *(x[step] for x in xs)])
        state = found[: node.carries]
        for y, piece in zip(ys, found[node.carries :], strict=True):
            y[step] = piece
    return [*state, *ys]


@given(seeds, st.integers(1, 40))
def test_plans_of_drawn_programs(seed, count):
    graph = optimize(Drawer(seed).graph(count))
    program = plan(graph)
    verify(program)
    assert print_program(program)
    arrays = operands_for(graph.input_avals, seed)
    for x, y in zip(run(program, arrays), evaluate(graph, arrays), strict=True):
        if is_float(y.dtype):  # NumPy's sums depend on how their operand lies in memory
            rough = {2: 1e-2, 4: 1e-4, 8: 1e-9}[y.dtype.itemsize]
            np.testing.assert_allclose(x, y, rtol=rough, atol=rough)
        else:
            same(x, y)


@given(seeds, st.integers(1, 20))
def test_plans_of_drawn_gradients(seed, count):
    graph = optimize(Drawer(seed, smooth=True).graph(count))
    assert is_differentiable(graph)
    made = optimize(vjp(graph, [True] * len(graph.inputs)).graph)
    program = plan(made)
    verify(program)
    arrays = operands_for(made.input_avals, seed)
    for x, y in zip(run(program, arrays), evaluate(made, arrays), strict=True):
        same(x, y)


@given(seeds, st.integers(1, 25))
def test_donated_inputs_are_read_before_they_are_written(seed, count):
    graph = optimize(Drawer(seed).graph(count))
    taken, pairs = set(), {}
    for k, output in enumerate(graph.outputs):
        for i, value in enumerate(graph.inputs):
            is_made = isinstance(output, Value) and output.eqn is not None
            if is_made and value.aval is output.aval and i not in taken and k not in pairs:
                pairs[k] = i
                taken.add(i)
    program = plan(graph, pairs)
    verify(program)
    assert program.donated == pairs
    arrays = operands_for(graph.input_avals, seed)
    for x, y in zip(run(program, arrays), evaluate(graph, arrays), strict=True):
        same(x, y)


def kernels(text):
    graph = parse(text, diffc.ops.table())
    return [node for node in plan(graph).nodes if isinstance(node, Kernel)]


FUSED = {
    "elementwise chain": """
  %0: f32[4,8] = mul(x, x)
  %1: f32[4,8] = tanh(%0)
  %2: f32[4,8] = add(%1, x)
  return %2""",
    "a row's statistics and what uses them": """
  %0: f32[4] = max(x, axes=[1])
  %1: f32[4,8] = broadcast(%0, axes=[0], shape=[4, 8])
  %2: f32[4,8] = sub(x, %1)
  %3: f32[4,8] = exp(%2)
  %4: f32[4] = sum(%3, axes=[1])
  %5: f32[4,8] = broadcast(%4, axes=[0], shape=[4, 8])
  %6: f32[4,8] = div(%3, %5)
  return %6""",
    "movement dissolves": """
  %0: f32[8,4] = transpose(x, perm=[1, 0])
  %1: f32[8,4] = reverse(%0, axes=[0])
  %2: f32[4,8] = reshape(%1, shape=[4, 8])
  %3: f32[4,8] = neg(%2)
  return %3""",
    "an epilogue": """
  %0: f32[4,8] = contract(x, w, spec="ij,jk->ik")
  %1: f32[4,8] = add(%0, x)
  %2: f32[4,8] = maximum(%1, 0.0:f32[4,8])
  return %2""",
}


@pytest.mark.parametrize("name", FUSED)
def test_one_kernel(name):
    text = f"func @f(x: f32[4,8], w: f32[8,8]) -> (f32[4,8]) {{{FUSED[name]}\n}}\n"
    assert len(kernels(text)) == 1


def test_equal_callees_are_planned_once():
    graph = Drawer(3).graph(30)
    regions = [g for g in graphs_of(graph) if g is not graph]
    for region in regions:
        assert plan(region) is plan(region)


@pytest.mark.parametrize("rows", [1, 2, 3])
@pytest.mark.parametrize("fold", [np.sum, np.max, np.cumsum])
def test_the_last_row_of_few(rows, fold):
    """A part of one element, read where its own row is known and at a number: the same element."""

    def function(x):
        found = fold(x, axis=1)
        return np.concatenate([np.zeros_like(found[:-1]), found[-1:]]), found

    x = np.arange(3.0 * rows).reshape(rows, 3)
    for y, z in zip(diffc.jit(function)(x), function(x), strict=True):
        np.testing.assert_array_equal(y, z)
