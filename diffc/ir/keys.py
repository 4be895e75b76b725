"""Structural keys: hashable values that are equal for graphs that compute the same, name for name.

Two graphs have equal keys when their equations are the same ones in the same order, whatever their
values, names and source lines are. Literals and avals are interned, so they stand for themselves.
"""

from __future__ import annotations

from typing import Any

from diffc.ir.graph import Graph, Literal, Operand, graphs_of

Key = tuple[Any, ...]


def structural_key(graph: Graph) -> Key:
    """What a graph computes, as a hashable value: equations by number, regions in their place."""
    known: dict[int, Key] = {}
    for part in graphs_of(graph):  # callees first
        known[id(part)] = _key(part, known)
    return known[id(graph)]


def _key(graph: Graph, regions: dict[int, Key]) -> Key:
    numbers: dict[int, int] = {id(value): i for i, value in enumerate(graph.inputs)}

    def name(operand: Operand) -> Any:
        return operand if isinstance(operand, Literal) else numbers[id(operand)]

    eqns = []
    for eqn in graph.eqns:
        params = tuple(sorted(eqn.params.items())) if eqn.params else ()
        inner = tuple(regions[id(region)] for region in eqn.regions) if eqn.regions else ()
        eqns.append((eqn.op.name, params, inner, *map(name, eqn.operands)))
        for result in eqn.results:
            numbers[id(result)] = len(numbers)
    return graph.input_avals, tuple(eqns), tuple(map(name, graph.outputs))
