"""What is sorted with its positions is sorted once."""

from __future__ import annotations

from diffc.ir.graph import Builder, Eqn, Graph, Operand, rebuild
from diffc.optimize.edit import emit_one, keep


def sort_of_argsort(graph: Graph) -> Graph:
    """Where the positions of sorted elements are known, the elements are taken from there.

    Before: ``sort(x)``, and ``argsort(x)`` for its derivative. After: ``argsort(x)``, and a gather.
    Both are stable, so these are the same elements; one nan may stand for another.
    """
    positions = {_key(eqn): eqn for eqn in graph.eqns if eqn.op.name == "argsort"}
    found = {
        eqn: positions[_key(eqn)]
        for eqn in graph.eqns
        if eqn.op.name == "sort" and _key(eqn) in positions
    }
    if not found:
        return graph

    def step(builder: Builder, eqn: Eqn, env: dict[Operand, Operand]) -> None:
        if eqn in found:
            order = found[eqn].result
            if order not in env:
                x = env.get(eqn.operands[0], eqn.operands[0])
                env[order] = emit_one(builder, "argsort", x, **eqn.params)
            env[eqn.result] = _taken(builder, eqn, env)
        elif eqn.op.name != "argsort" or eqn.result not in env:
            keep(builder, eqn, env)

    def _taken(builder: Builder, eqn: Eqn, env: dict[Operand, Operand]) -> Operand:
        (x,), shape = eqn.operands, eqn.result.aval.shape
        order = env[found[eqn].result]
        indices = [
            order
            if axis == eqn.params["axis"]
            else emit_one(builder, "iota", dtype="i64", shape=shape, axis=axis)
            for axis in range(len(shape))
        ]
        axes = tuple(range(len(shape)))
        return emit_one(builder, "gather", env.get(x, x), *indices, axes=axes, mode="clip")

    return rebuild(graph, step)


def _key(eqn: Eqn) -> tuple[Operand, int]:
    return eqn.operands[0], eqn.params["axis"]
