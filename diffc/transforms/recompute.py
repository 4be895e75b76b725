"""Derivatives of ``checkpoint``: the backward pass computes the region again.

Linearized, the primal half is the region itself, and keeps nothing but its inputs (with policy
"dots" also the results of contractions). The linear half is one more checkpoint: it computes the
residuals from the inputs and then the tangents. So its transpose computes the residuals and then
the cotangents. A checkpoint stays a call of its own to the end, so that what is computed again is
never merged with what was computed before.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from diffc.ir.graph import Builder, Eqn, Graph, Operand, Value, prune
from diffc.transforms.backward import TRANSPOSE_RULES
from diffc.transforms.batch import BATCH_RULES, batch_call
from diffc.transforms.forward import (
    JVP_RULES,
    LINEARIZE_RULES,
    Linearization,
    linearize,
    plain,
)
from diffc.transforms.regions import call_jvp, call_transpose


def _saved(halves: Linearization, count: int, policy: str) -> list[Value]:
    """What the policy keeps of the values that the residuals are made of."""
    if policy == "nothing":
        return []
    needed = {id(residual) for residual in halves.primal.outputs[count:]}
    found: list[Value] = []
    for eqn in reversed(halves.primal.eqns):
        if any(id(result) in needed for result in eqn.results):
            if eqn.op.name == "contract":
                found.append(eqn.result)
            else:
                needed.update(map(id, eqn.operands))
    return found[::-1]


def _linearize(
    builder: Builder, eqn: Eqn, operands: Sequence[Operand], dots: Mapping[int, Operand]
) -> tuple[Sequence[Operand], Sequence[Operand | None]]:
    (body,) = eqn.regions
    mask = [i in dots for i in range(len(operands))]
    halves = linearize(body, mask)
    count = len(body.outputs)
    primal = halves.primal
    saved = _saved(halves, count, eqn.params["policy"])
    forward = prune(
        Graph(primal.name, primal.inputs, primal.eqns, (*primal.outputs[:count], *saved))
    )
    results = builder.emit(eqn.op, operands, eqn.params, (forward,), eqn.loc)
    again = _again(halves, count, saved)
    given = [*operands, *results[count:], *(dots[i] for i in sorted(dots))]
    found = iter(builder.emit(eqn.op, given, eqn.params, (again,), eqn.loc))
    return results[:count], [next(found) if on else None for on in halves.active_outputs]


def _again(halves: Linearization, count: int, saved: Sequence[Value]) -> Graph:
    """From inputs, what was saved, and tangents: the residuals anew, then the tangents."""
    primal = halves.primal
    builder = Builder(f"{primal.name}_again")
    env: dict[Operand, Operand] = {}
    for value in (*primal.inputs, *saved):
        env[value] = builder.input(value.aval, value.name or "saved")
    dots = [builder.input(v.aval, v.name) for v in halves.linear.inputs[halves.residuals :]]
    kept = set(saved)
    for eqn in primal.eqns:
        if eqn.results[0] not in kept:
            builder.copy(eqn, env)
    residuals = [env.get(residual, residual) for residual in primal.outputs[count:]]
    return prune(builder.build(builder.inline(halves.linear, [*residuals, *dots])))


JVP_RULES.update(checkpoint=call_jvp)
LINEARIZE_RULES.update(checkpoint=plain(_linearize))
TRANSPOSE_RULES.update(checkpoint=call_transpose)
BATCH_RULES.update(checkpoint=batch_call)
