"""Comparisons that follow from a maximum."""

from __future__ import annotations

from diffc.ir.graph import Builder, Eqn, Graph, Literal, Operand, rebuild
from diffc.optimize.edit import emit_one, keep


def mask_of_maximum(graph: Graph) -> Graph:
    """Whether ``x`` is above a number is seen in the maximum of both, where there is one.

    Before: ``maximum(x, 0)`` and, in the backward pass, ``gt(x, 0)``, so either ``x`` or the mask
    is kept. After: ``gt(maximum(x, 0), 0)``; the maximum is kept anyway, as the next layer's
    operand. Exact: a NaN passes through the maximum and is above nothing.
    """
    known = {eqn.operands for eqn in graph.eqns if eqn.op.name == "maximum"}
    masks = {eqn for eqn in graph.eqns if eqn.op.name == "gt" and _is_known(eqn, known)}
    if not masks:
        return graph

    def step(builder: Builder, eqn: Eqn, env: dict[Operand, Operand]) -> None:
        if eqn not in masks:
            keep(builder, eqn, env)
            return
        x, number = (env.get(operand, operand) for operand in eqn.operands)
        top = emit_one(builder, "maximum", x, number)
        env[eqn.result] = emit_one(builder, "gt", top, number)

    return rebuild(graph, step)


def _is_known(eqn: Eqn, maxima: set[tuple[Operand, ...]]) -> bool:
    x, number = eqn.operands
    return isinstance(number, Literal) and not isinstance(x, Literal) and (x, number) in maxima
