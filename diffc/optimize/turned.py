"""Contractions whose result is turned around write it as it is wanted."""

from __future__ import annotations

from diffc.ir.graph import Builder, Eqn, Graph, Operand, Value, rebuild, uses
from diffc.ir.index import Dim, Var
from diffc.ops.contraction import split
from diffc.optimize.edit import emit_one, keep


def transpose_of_contract(graph: Graph) -> Graph:
    """The transpose of a contraction is a contraction with the result's letters in another order.

    Before: ``transpose(contract(q, ds; "ia,ij->aj"))``, the gradient by a key that was turned
    around. After: ``contract(q, ds; "ia,ij->ja")``. Reshapes that add or drop axes of one element
    may stand in between. Only where nothing else reads the contraction. The sums and their order
    stay.
    """
    counts = uses(graph)
    found: dict[Eqn, tuple[Eqn, str]] = {}
    for eqn in graph.eqns:
        if eqn.op.name == "transpose":
            turned = _turned(eqn, counts)
            if turned is not None:
                found[eqn] = turned
    if not found:
        return graph

    def step(builder: Builder, eqn: Eqn, env: dict[Operand, Operand]) -> None:
        if eqn not in found:
            keep(builder, eqn, env)
            return
        contract, spec = found[eqn]
        operands = (env.get(operand, operand) for operand in contract.operands)
        total: Operand = emit_one(builder, "contract", *operands, spec=spec)
        if total.aval.shape != eqn.result.aval.shape:
            total = emit_one(builder, "reshape", total, shape=eqn.result.aval.shape)
        env[eqn.result] = total

    return rebuild(graph, step)


def _turned(eqn: Eqn, counts: dict[Value, int]) -> tuple[Eqn, str] | None:
    """The contraction below a transpose, and its spec with the result's letters as wanted."""
    shape = eqn.result.aval.shape
    if 0 in shape:
        return None
    wanted = tuple(Var(f"i{axis}", dim) for axis, dim in enumerate(shape))
    indices: tuple[Dim, ...] = wanted
    while eqn.op.name in ("transpose", "reshape"):
        (operand,) = eqn.operands
        ((_, read, _),) = eqn.op.body.access(indices, (operand.aval,), eqn.params)
        indices = tuple(read)
        if not isinstance(operand, Value) or operand.eqn is None or counts[operand] > 1:
            return None
        eqn = operand.eqn
    if eqn.op.name != "contract":
        return None
    left, right, result = split(eqn.params["spec"])
    letters: dict[Dim, str] = {}
    rest = ""
    for letter, index, dim in zip(result, indices, eqn.result.aval.shape, strict=True):
        if dim == 1:
            rest += letter
        elif index in wanted and index not in letters:
            letters[index] = letter
        else:
            return None
    order = [letters[index] for index in wanted if index in letters]
    if order == [letter for letter in result if letter not in rest]:
        return None
    return eqn, f"{left},{right}->{rest}{''.join(order)}"
