"""Chooses what the primal half of a linearized region keeps for the linear half.

Before: every primal value that the linear graph reads is a residual. After: the least set, in
bytes, from which they follow; the rest is computed again in the linear graph. One minimum cut, as
in ``plan.recompute``: keeping costs a store and a load, computing again the price of the op;
contractions, reductions and loops are never computed again.
"""

from __future__ import annotations

import math
from collections.abc import Collection

from diffc.ir.flow import Network
from diffc.ir.graph import Builder, Eqn, Graph, Operand, Value, prune
from diffc.ops.declare import Generate, Map, Move
from diffc.transforms.forward import Linearization

#: what an element of a view or source costs that is computed again, in bytes
MOVE_PRICE = 0.1


def minimized(halves: Linearization, free: Collection[Value]) -> Linearization:
    """The same linearization with the cheapest residuals.

    Args:
        halves: of one region's graph.
        free: values of the primal graph that are at hand later at no cost (constants of a loop,
            operands of a call, results that are returned anyway).
    """
    count = len(halves.primal.outputs) - halves.residuals
    residuals = halves.primal.outputs[count:]
    wanted = [value for value in residuals if isinstance(value, Value) and value.eqn is not None]
    if not wanted:
        return halves
    kept = _cut(wanted, set(free))
    if kept == set(wanted):
        return halves
    return _rebuilt(halves, residuals, kept)


def _price(eqn: Eqn) -> float:
    body = eqn.op.body
    if isinstance(body, Map):
        return body.price
    return MOVE_PRICE if isinstance(body, (Move, Generate)) else math.inf


def _elements(value: Value) -> float:
    size = value.aval.size
    return float(size) if isinstance(size, int) else 1.0


def _cut(wanted: list[Value], free: set[Value]) -> set[Value]:
    """The computed values to keep; inputs that are not free may be among them."""
    network = Network()
    source, sink = network.node(), network.node()
    nodes: dict[Value, tuple[int, int]] = {}
    stack: list[Value] = list(wanted)
    while stack:
        value = stack.pop()
        if value not in nodes:
            nodes[value] = network.node(), network.node()
            if value.eqn is not None and value not in free:
                stack.extend(x for x in value.eqn.operands if isinstance(x, Value))
    for value, (into, out) in nodes.items():
        bytes_ = 2 * _elements(value) * value.aval.numpy.itemsize
        network.edge(into, out, 0.0 if value in free else bytes_)
        if value.eqn is None or value in free:
            network.edge(source, into, math.inf)
            continue
        width = max(value.aval.numpy.itemsize, 4) / 4
        network.edge(source, into, _price(value.eqn) * _elements(value) * width)
        for operand in value.eqn.operands:
            if operand in nodes:
                network.edge(nodes[operand][1], into, math.inf)
    for value in wanted:
        network.edge(nodes[value][1], sink, math.inf)
    reached = network.source_side(source, sink)
    return {v for v, (into, out) in nodes.items() if into in reached and out not in reached}


def _rebuilt(
    halves: Linearization, residuals: tuple[Operand, ...], kept: set[Value]
) -> Linearization:
    """The halves with ``kept`` as residuals and the rest computed again."""
    primal, linear = halves.primal, halves.linear
    count = len(primal.outputs) - halves.residuals
    plain = [r for r in residuals if not isinstance(r, Value) or r.eqn is None]
    order = [*plain, *(v for v in (*primal.inputs, *_results(primal)) if v in kept)]
    order = list(dict.fromkeys(order))
    builder = Builder(linear.name)
    env: dict[Operand, Operand] = {}
    for value in order:
        name = value.name if isinstance(value, Value) else ""
        env[value] = builder.input(value.aval, name or "residual")
    tangents = [builder.input(v.aval, v.name) for v in linear.inputs[halves.residuals :]]
    for residual in residuals:
        _compute(builder, residual, env)
    rename: dict[Operand, Operand] = {
        formal: env[residual]
        for formal, residual in zip(linear.inputs[: halves.residuals], residuals, strict=True)
    }
    rename.update(zip(linear.inputs[halves.residuals :], tangents, strict=True))
    for eqn in linear.eqns:
        builder.loc = eqn.loc
        builder.copy(eqn, rename)
    new_linear = prune(builder.build([rename.get(x, x) for x in linear.outputs]))
    new_primal = Graph(primal.name, primal.inputs, primal.eqns, (*primal.outputs[:count], *order))
    return Linearization(
        prune(new_primal), new_linear, halves.active, halves.active_outputs, len(order)
    )


def _results(graph: Graph) -> list[Value]:
    return [result for eqn in graph.eqns for result in eqn.results]


def _compute(builder: Builder, wanted: Operand, env: dict[Operand, Operand]) -> None:
    """Emits what a residual follows from, down to what is there."""
    stack: list[Operand] = [wanted]
    while stack:
        value = stack[-1]
        if value in env or not isinstance(value, Value):
            env.setdefault(value, value)
            stack.pop()
            continue
        assert value.eqn is not None
        missing = [x for x in value.eqn.operands if isinstance(x, Value) and x not in env]
        if missing:
            stack.extend(missing)
        else:
            builder.loc = value.eqn.loc
            builder.copy(value.eqn, env)
