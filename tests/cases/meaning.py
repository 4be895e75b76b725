"""What each transform means, in numbers: its graph is run beside the graph that it was made of.

A jvp is what finite differences see; a vjp and a transpose are adjoints; a batch is a Python loop;
Taylor coefficients are derivatives of derivatives. Each graph that comes out also gives the same
numbers when it is compiled. Single precision is checked in double precision, on the same text.
Scalar booleans and integers, which steer branches and loops, take another value in each draw.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextvars import ContextVar
from typing import Any

import numpy as np

from diffc.ir.graph import Builder, Eqn, Graph, Operand, graphs_of, rebuild
from diffc.ir.text import parse, print_graph
from diffc.ops.interpret import evaluate
from diffc.ops.registry import table
from diffc.ops.term import GraphTerm
from diffc.programs import GraphProgram
from diffc.transforms import (
    Batch,
    Jvp,
    Linearization,
    Taylor,
    Vjp,
    expand,
    jvp,
    linearize,
    taylor,
    transpose,
    vjp,
)
from tests.transforms.test_taylor import compare

Array = np.ndarray[Any, Any]
DRAWS = 4
#: whether graphs are also compiled
IS_COMPILED = ContextVar("IS_COMPILED", default=True)


def doubled(graph: Graph) -> Graph:
    """The graph in double precision."""
    text = print_graph(graph)
    return parse(text.replace("f32", "f64"), table()) if "f32" in text else graph


def draw(avals: Sequence[Any], seed: int) -> list[Array]:
    """Arrays for these avals; floats are from 0.4 to 1.4."""
    rng = np.random.default_rng(seed)
    found = []
    for each in avals:
        if each.is_float:
            x = rng.uniform(0.4, 1.4, each.shape)
        elif each.shape:
            x = rng.integers(0, 2 if each.dtype == "bool" else 4, each.shape)
        else:
            x = seed
        found.append(np.asarray(x).astype(each.numpy))
    return found


def moves(avals: Sequence[Any], mask: Sequence[bool], seed: int) -> list[Array]:
    """Tangents for the avals that the mask marks."""
    rng = np.random.default_rng(seed + 100)
    return [rng.standard_normal(a.shape) for a, on in zip(avals, mask, strict=True) if on]


def close(found: Sequence[Array], expected: Sequence[Array], rtol: float = 1e-9) -> None:
    """Asserts that arrays agree up to rounding."""
    for x, y in zip(found, expected, strict=True):
        assert (x.dtype, x.shape) == (y.dtype, y.shape)
        np.testing.assert_allclose(x, y, rtol=rtol, atol=rtol)


def inner(left: Sequence[Array], right: Sequence[Array]) -> float:
    """The sum of all products."""
    return sum(float(np.vdot(a, b)) for a, b in zip(left, right, strict=True))


class Runner:
    """Runs a graph by the interpreter and, where wanted, by compiled code, which must agree."""

    def __init__(self, graph: Graph) -> None:
        plain = expand(graph)
        self.graph = graph
        self.program = GraphProgram(plain, plain.name) if IS_COMPILED.get() else None

    def __call__(self, arrays: Sequence[Array]) -> list[Array]:
        expected = evaluate(self.graph, arrays)
        if self.program is not None:
            close(self.program(list(arrays)), expected)
        return expected


def slopes(graph: Graph, arrays: Sequence[Array], mask: Sequence[bool], dots: Any) -> list[Array]:
    """Central differences of the float outputs."""
    step, ends = 1e-6, []
    for sign in (1, -1):
        rest = iter(dots)
        moved = [
            x + sign * step * next(rest) if on else x for x, on in zip(arrays, mask, strict=True)
        ]
        ends.append(evaluate(graph, moved))
    return [
        (high.astype(float) - low.astype(float)) / (2 * step)
        for high, low in zip(*ends, strict=True)
    ]


def claimed(graph: Graph) -> Graph:
    """The graph with each ``custom`` equation replaced by what has the derivative of its rule.

    The rules of case files claim twice the derivative: ``y + (y - stop_gradient(y))``.
    """
    done: dict[Graph, Graph] = {}

    def step(builder: Builder, eqn: Eqn, env: dict[Operand, Operand]) -> None:
        operands = [env.get(operand, operand) for operand in eqn.operands]
        regions = tuple(done[region] for region in eqn.regions)
        results: Any
        if eqn.op.name == "custom":
            terms = [GraphTerm(builder, y) for y in builder.inline(regions[0], operands)]
            results = [(y + (y - y.call("stop_gradient"))).operand for y in terms]
        else:
            results = builder.emit(eqn.op, operands, eqn.params, regions, eqn.loc)
        env.update(zip(eqn.results, results, strict=True))

    for each in graphs_of(graph):  # callees first
        done[each] = rebuild(each, step)
    return done[graph]


def has_rules(graph: Graph) -> bool:
    """Whether a derivative is what a user's rule says, and not that of the values."""
    return any(eqn.op.name == "custom" for each in graphs_of(graph) for eqn in each.eqns)


def of_jvp(graph: Graph, mask: Sequence[bool], made: Jvp) -> None:
    """Values, and finite differences; where users' rules speak, what they claim."""
    graph = doubled(graph)
    made, simple = jvp(graph, mask), claimed(graph)
    run, count = Runner(made.graph), len(graph.outputs)
    for seed in range(DRAWS):
        arrays, dots = draw(graph.input_avals, seed), moves(graph.input_avals, mask, seed)
        found = run([*arrays, *dots])
        close(found[:count], evaluate(graph, arrays))
        close(found[count:], evaluate(jvp(simple, mask).graph, [*arrays, *dots])[count:])
        if not has_rules(graph):
            seen = zip(slopes(graph, arrays, mask, dots), made.active_outputs, strict=True)
            close(found[count:], [slope for slope, on in seen if on], rtol=2e-6)


def of_linearize(graph: Graph, mask: Sequence[bool], made: Linearization) -> None:
    """One after the other, the halves are the jvp."""
    graph = doubled(graph)
    made = linearize(graph, mask)
    whole, count = jvp(graph, mask), len(graph.outputs)
    first, second = Runner(made.primal), Runner(made.linear)
    for seed in range(DRAWS):
        arrays, dots = draw(graph.input_avals, seed), moves(graph.input_avals, mask, seed)
        expected = evaluate(whole.graph, [*arrays, *dots])
        primal = first(arrays)
        close(primal[:count], expected[:count])
        close(second([*primal[count:], *dots]), expected[count:])


def of_vjp(graph: Graph, mask: Sequence[bool], made: Vjp) -> None:
    """The adjoint of the jvp."""
    graph = doubled(graph)
    made = vjp(graph, mask)
    forward, count = jvp(claimed(graph), mask), len(graph.outputs)
    run = Runner(made.graph)
    for seed in range(DRAWS):
        arrays, dots = draw(graph.input_avals, seed), moves(graph.input_avals, mask, seed)
        cts = moves(graph.output_avals, made.active_outputs, seed)
        pushed = evaluate(forward.graph, [*arrays, *dots])
        pulled = run([*arrays, *cts])
        close(pulled[:count], pushed[:count])
        np.testing.assert_allclose(
            inner(pushed[count:], cts), inner(pulled[count:], dots), rtol=1e-9, atol=1e-12
        )


def of_transpose(graph: Graph, mask: Sequence[bool], made: Graph) -> None:
    """The adjoint of the graph itself."""
    graph = doubled(graph)
    made = transpose(graph, mask)
    run = Runner(made)
    for seed in range(DRAWS):
        arrays, dots = draw(graph.input_avals, seed), moves(graph.input_avals, mask, seed)
        cts = moves(graph.output_avals, [True] * len(graph.outputs), seed)
        rest = iter(dots)
        given = [next(rest) if on else x for x, on in zip(arrays, mask, strict=True)]
        fixed = [x for x, on in zip(arrays, mask, strict=True) if not on]
        np.testing.assert_allclose(
            inner(evaluate(graph, given), cts),
            inner(run([*fixed, *cts]), dots),
            rtol=1e-9,
            atol=1e-12,
        )


def of_batch(graph: Graph, mask: Sequence[bool], made: Batch) -> None:
    """A Python loop."""
    run = Runner(made.graph)
    for seed in range(DRAWS):
        draws = [draw(graph.input_avals, seed * made.size + i) for i in range(made.size)]
        columns = list(zip(*draws, strict=True))
        given = [
            np.stack(column) if on else column[0] for column, on in zip(columns, mask, strict=True)
        ]
        runs = [
            evaluate(graph, [x[i] if on else x for x, on in zip(given, mask, strict=True)])
            for i in range(made.size)
        ]
        found = run(given)
        for results, x, on in zip(zip(*runs, strict=True), found, made.outputs, strict=True):
            close([x], [np.stack(results) if on else results[0]], rtol=1e-5)


def of_taylor(graph: Graph, mask: Sequence[bool], made: Taylor) -> None:
    """Derivatives of derivatives along a curve; the rules of custom functions are not asked."""
    graph = expand(doubled(graph))
    again = taylor(graph, mask, made.order)
    run = Runner(again.graph)
    for seed in range(DRAWS):
        arrays = draw(graph.input_avals, seed)
        compare(graph, arrays, made.order, seed)
        repeated = [on for on in mask for _ in range(made.order)]
        avals = [aval for aval in graph.input_avals for _ in range(made.order)]
        run([*arrays, *moves(avals, repeated, seed)])


def of_checkpoint(graph: Graph, mask: Sequence[bool], made: Graph) -> None:
    """By value nothing at all."""
    run = Runner(made)
    for seed in range(DRAWS):
        arrays = draw(graph.input_avals, seed)
        close(run(arrays), evaluate(graph, arrays), rtol=1e-6)
