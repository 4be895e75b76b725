"""The checker: what every graph must satisfy, between any two passes.

Values are defined once and before they are read, by the graph that reads them (regions are
isolated); avals are what the op's rule says; inputs have unique names.
"""

from __future__ import annotations

from diffc.errors import InternalError
from diffc.ir.graph import Eqn, Graph, Literal, Value, graphs_of


def check(graph: Graph, stage: str = "check") -> Graph:
    """Returns the graph if it is well formed, regions included, each of which is looked at once.

    Raises:
        InternalError: naming the stage, the equation and the user's line.
    """
    for part in graphs_of(graph):
        _check(part, stage)
    return graph


def _check(graph: Graph, stage: str) -> None:
    defined: set[Value] = set(graph.inputs)
    if len(defined) != len(graph.inputs):
        raise InternalError(f"{stage}: an input of @{graph.name} stands twice")
    names = [value.name for value in graph.inputs]
    if len(set(names)) != len(names):
        raise InternalError(f"{stage}: inputs of @{graph.name} share a name: {names}")
    for eqn in graph.eqns:
        _check_eqn(eqn, defined, graph, stage)
        for result in eqn.results:
            if result in defined:
                raise _error(stage, graph, eqn, "its result is defined twice")
            defined.add(result)
    for output in graph.outputs:
        if isinstance(output, Value) and output not in defined:
            raise InternalError(f"{stage}: @{graph.name} returns a value it does not define")


def _check_eqn(eqn: Eqn, defined: set[Value], graph: Graph, stage: str) -> None:
    for i, operand in enumerate(eqn.operands):
        if isinstance(operand, Literal):
            continue
        if operand not in defined:
            raise _error(stage, graph, eqn, f"operand {i} is not defined before it is read")
    avals = tuple(operand.aval for operand in eqn.operands)
    found = eqn.op.infer(avals, eqn.params, eqn.regions)
    declared = tuple(result.aval for result in eqn.results)
    if tuple(found) != declared:
        raise _error(stage, graph, eqn, f"its avals are {declared}, the rule says {tuple(found)}")


def _error(stage: str, graph: Graph, eqn: Eqn, problem: str) -> InternalError:
    place = None if eqn.loc is None else str(eqn.loc)
    return InternalError(f"{stage}: {eqn.op.name} in @{graph.name}: {problem}", location=place)
