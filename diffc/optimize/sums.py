"""Sums with what is zero nearly everywhere: the few elements are added where they belong.

The cotangent of an array of which a loop reads one row per step is such a sum in every step. The
elements that are added to one place are added one after another, in another order than before, as
those of any scatter.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from diffc.ir.graph import Eqn, Literal, Operand, Value

Emit = Callable[..., Operand]


def add_of_scatter(
    emit: Emit, op: str, operands: tuple[Operand, ...], params: Mapping[str, Any]
) -> Operand | None:
    """``t + scatter(0, u, i; add)`` is ``scatter(t, u, i; add)``."""
    for total, sparse in (operands, operands[::-1]):
        eqn = _made_by(sparse, "scatter")
        if eqn is None or isinstance(total, Literal) or not _is_zero(eqn.operands[0]):
            continue
        if eqn.params["combine"] == "add" and eqn.params["mode"] == "drop":
            return emit("scatter", total, *eqn.operands[1:], **eqn.params)
    return None


def add_of_update(
    emit: Emit, op: str, operands: tuple[Operand, ...], params: Mapping[str, Any]
) -> Operand | None:
    """``t + dynamic_update_slice(0, u, i)`` updates the slice of ``t`` at ``i``."""
    for total, sparse in (operands, operands[::-1]):
        eqn = _made_by(sparse, "dynamic_update_slice")
        if eqn is None or isinstance(total, Literal) or not _is_zero(eqn.operands[0]):
            continue
        _, update, *starts = eqn.operands
        if update.aval.shape == total.aval.shape:
            continue
        there = emit("dynamic_slice", total, *starts, sizes=update.aval.shape)
        return emit("dynamic_update_slice", total, emit("add", there, update), *starts)
    return None


def _made_by(operand: Operand, op: str) -> Eqn | None:
    if isinstance(operand, Value) and operand.eqn is not None and operand.eqn.op.name == op:
        return operand.eqn
    return None


def _is_zero(operand: Operand) -> bool:
    return isinstance(operand, Literal) and operand.value == 0
