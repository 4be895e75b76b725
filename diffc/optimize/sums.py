"""Sums of all elements, and sums with what is zero nearly everywhere.

The few elements that are not zero are added where they belong. The cotangent of an array of which a
loop reads one row per step is such a sum in every step. The elements that are added to one place
are added one after another, in another order than before, as those of any scatter.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import prod
from typing import Any

from diffc.ir.aval import HALVES
from diffc.ir.graph import Eqn, Literal, Operand, Value

Emit = Callable[..., Operand]


#: a reduction of more elements than this goes by rows,
MANY = 16384
#: if these have so many elements: shorter ones cost more than the order gives, longer ones are few.
ROW = range(64, 65537)


def reduce_by_rows(
    emit: Emit, op: str, operands: tuple[Operand, ...], params: Mapping[str, Any]
) -> Operand | None:
    """``sum(x, axes=[0, 1])`` of many rows is the sum of the rows' sums.

    So it shares the passes over the rows with what else is computed there. An order of summation is
    diffc's choice; sums of 16 bits are left alone, as each would be rounded.
    """
    (x,) = operands
    shape = tuple(dim for dim in x.aval.shape if isinstance(dim, int))
    if len(shape) < x.aval.ndim or len(params["axes"]) < len(shape) or len(shape) < 2:
        return None
    if prod(shape) <= MANY or x.aval.dtype in HALVES:
        return None
    first = len(shape) - 1
    while first > 1 and prod(shape[first:]) < ROW.start:
        first -= 1
    if prod(shape[first:]) not in ROW or prod(shape[:first]) == 1:
        return None
    inner = emit(op, x, axes=tuple(range(first, len(shape))))
    return emit(op, inner, axes=tuple(range(first)))


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
