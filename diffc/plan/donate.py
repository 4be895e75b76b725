"""Which output takes over the memory of which donated input.

An output and an input of one aval can be a pair. Outputs that are computed from an input at equal
elements (an updated weight) come first, as they can replace it in place; the others take what is
left, in order.
"""

from __future__ import annotations

from collections.abc import Collection

from diffc.ir.aval import Aval
from diffc.ir.graph import Graph, Operand, Value

#: how many elementwise steps back an output is followed
DEPTH = 12


def match_donations(graph: Graph, donated: Collection[int], count: int) -> dict[int, int]:
    """Pairs the first ``count`` outputs with donated inputs: output index -> input index."""
    free: dict[Aval, list[int]] = {}
    for i in sorted(donated):
        free.setdefault(graph.inputs[i].aval, []).append(i)
    outputs = [
        (i, output)
        for i, output in enumerate(graph.outputs[:count])
        if isinstance(output, Value) and output.aval in free
    ]
    pairs: dict[int, int] = {}
    for i, output in outputs:
        near = _inputs_in_place(output)
        for given in free[output.aval]:
            if graph.inputs[given] in near:
                pairs[i] = given
                free[output.aval].remove(given)
                break
    for i, output in outputs:
        if i not in pairs and free[output.aval]:
            pairs[i] = free[output.aval].pop(0)
    return pairs


def _inputs_in_place(output: Operand) -> set[Value]:
    """The inputs from which the output follows elementwise."""
    found: set[Value] = set()
    level = [output]
    seen: set[Operand] = set()
    for _ in range(DEPTH):
        following: list[Operand] = []
        for value in level:
            if not isinstance(value, Value) or value in seen:
                continue
            seen.add(value)
            if value.eqn is None:
                found.add(value)
            elif value.eqn.op.is_elementwise:
                following += value.eqn.operands
        level = following
    return found
