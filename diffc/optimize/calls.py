"""Calls without what nobody uses: a callee's results that no call of it needs, and its inputs.

Before: fifty calls of one backward block, each of which also gives a mask that only the mask of the
next block is made of. After: no masks. What is needed is a least fixpoint over all calls of a
callee in one graph, so a chain of values that only feed each other goes; the callee stays one.
"""

from __future__ import annotations

from collections.abc import Sequence
from weakref import WeakKeyDictionary

from diffc.ir.graph import Builder, Eqn, Graph, Operand, rebuild
from diffc.optimize.edit import keep
from diffc.optimize.regions import read_by, with_inputs

#: ops that are calls by value, whose callee may be shared
CALLS = ("call", "checkpoint")

Places = tuple[int, ...]
#: what callees became, by the inputs and outputs that are left
_TRIMMED: WeakKeyDictionary[Graph, dict[tuple[Places, Places], Graph]] = WeakKeyDictionary()


def unused_in_calls(graph: Graph) -> Graph:
    """The graph with its calls trimmed; the same one where everything is used."""
    calls = [eqn for eqn in graph.eqns if eqn.op.name in CALLS]
    if not calls:
        return graph
    wanted = _wanted(graph, calls)
    reads = {callee: read_by(callee, outputs) for callee, outputs in wanted.items()}
    if all(
        len(outputs) in (0, len(callee.outputs))
        and (not outputs or len(reads[callee]) == len(callee.inputs))
        for callee, outputs in wanted.items()
    ):
        return graph

    def step(builder: Builder, eqn: Eqn, env: dict[Operand, Operand]) -> None:
        outputs = sorted(wanted[eqn.regions[0]]) if eqn.op.name in CALLS else []
        if not outputs:
            keep(builder, eqn, env)
            return
        inputs = sorted(reads[eqn.regions[0]])
        callee = _trimmed(eqn.regions[0], tuple(inputs), tuple(outputs))
        operands = [env.get(eqn.operands[i], eqn.operands[i]) for i in inputs]
        results = builder.emit(eqn.op, operands, eqn.params, (callee,), eqn.loc)
        for k, new in zip(outputs, results, strict=True):
            old = eqn.results[k]
            env[old] = new
            new.name, new.of = new.name or old.name, new.of or old.of

    return rebuild(graph, step)


def _wanted(graph: Graph, calls: Sequence[Eqn]) -> dict[Graph, set[int]]:
    """The outputs of each callee that something needs; none of one whose calls are all unused."""
    wanted: dict[Graph, set[int]] = {eqn.regions[0]: set() for eqn in calls}
    reads: dict[tuple[Graph, int], set[int]] = {}
    live: set[Operand] = set(graph.outputs)
    grown = True
    while grown:
        grown = False
        for eqn in reversed(graph.eqns):
            if live.isdisjoint(eqn.results):
                continue
            if eqn.op.name not in CALLS:
                live.update(eqn.operands)
                continue
            callee = eqn.regions[0]
            outputs = wanted[callee]
            found = {k for k, result in enumerate(eqn.results) if result in live}
            if not found <= outputs:
                outputs |= found
                grown = True
            key = callee, len(outputs)  # outputs only grow
            if key not in reads:
                reads[key] = read_by(callee, outputs)
            live.update(eqn.operands[i] for i in reads[key])
    return wanted


def _trimmed(callee: Graph, inputs: Places, outputs: Places) -> Graph:
    if len(inputs) == len(callee.inputs) and len(outputs) == len(callee.outputs):
        return callee
    known = _TRIMMED.setdefault(callee, {})
    found = known.get((inputs, outputs))
    if found is None:
        found = known[inputs, outputs] = with_inputs(callee, inputs, outputs)
    return found
