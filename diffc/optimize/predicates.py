"""Masks that are conditions on indices: what is known of them without computing them.

``tril``, bands, ``arange(n) < k`` and their conjunctions compare positions. As a ``Guard`` of
``ir.index`` such a mask says by itself whether a row of it has any element.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from diffc.ir.aval import DTYPES, INTEGERS
from diffc.ir.graph import Literal, Operand, literal
from diffc.ir.index import (
    FALSE,
    TRUE,
    Cond,
    Dim,
    Guard,
    Var,
    bounds,
    eq,
    ge,
    linear_in,
    lt,
)
from diffc.ops.declare import Move

__all__ = ["any_of_indices", "compare_of_choice", "predicate"]

Emit = Callable[..., Operand]
Indices = tuple[Dim, ...]

#: a mask of more equations is none of those that one writes by hand
MAX_DEPTH = 32

_COMPARE: Mapping[str, Callable[[Dim, Dim], Guard]] = {
    "le": lambda a, b: ge(b, a),
    "lt": lt,
    "ge": ge,
    "gt": lambda a, b: lt(b, a),
    "eq": eq,
}


def predicate(mask: Operand, indices: Indices, depth: int = MAX_DEPTH) -> Guard | None:
    """Where an element of a mask is true, as a condition on its indices; None where not known."""
    if isinstance(mask, Literal):
        return TRUE if mask.value else FALSE
    eqn = mask.eqn
    if eqn is None or depth == 0 or mask.aval.dtype != "bool":
        return None
    name, operands = eqn.op.name, eqn.operands
    if name in _COMPARE and all(x.aval.dtype in INTEGERS for x in operands):
        left, right = (_position(x, indices, depth - 1) for x in operands)
        return None if left is None or right is None else _COMPARE[name](left, right)
    if name == "bitwise_and":
        parts = [predicate(x, indices, depth - 1) for x in operands]
        return None if parts[0] is None or parts[1] is None else parts[0] & parts[1]
    if name == "bitwise_not":
        return _opposite(predicate(operands[0], indices, depth - 1))
    read = _looked_at(mask, indices)
    return None if read is None else predicate(read[0], read[1], depth - 1)


def _opposite(guard: Guard | None) -> Guard | None:
    if guard is None or guard.is_true or guard.is_false:
        return None if guard is None else FALSE if guard.is_true else TRUE
    conds = tuple(guard)
    if len(conds) > 1 or conds[0].kind != "ge":
        return None
    return lt(conds[0].expr, 0)


def _looked_at(value: Operand, indices: Indices) -> tuple[Operand, Indices] | None:
    """What a view reads at an element, wherever that is."""
    eqn = None if isinstance(value, Literal) else value.eqn
    if eqn is None or not isinstance(eqn.op.body, Move) or len(eqn.operands) != 1:
        return None
    (operand,) = eqn.operands
    found = list(eqn.op.body.access(indices, (operand.aval,), eqn.params))
    if len(found) != 1 or not found[0][2].is_true:
        return None
    return operand, tuple(found[0][1])


def _position(value: Operand, indices: Indices, depth: int) -> Dim | None:
    """An integer as an index expression that does not wrap around; None where it is none."""
    if isinstance(value, Literal):
        return int(value.value)
    eqn = value.eqn
    if eqn is None or depth == 0:
        return None
    found: Dim | None = None
    if eqn.op.name == "iota":
        found = indices[eqn.params["axis"]]
    elif eqn.op.name in ("add", "sub"):
        left, right = (_position(x, indices, depth - 1) for x in eqn.operands)
        if left is not None and right is not None:
            found = left + right if eqn.op.name == "add" else left - right
    elif eqn.op.name == "convert" and eqn.operands[0].aval.dtype in INTEGERS:
        found = _position(eqn.operands[0], indices, depth - 1)
    else:
        read = _looked_at(value, indices)
        return None if read is None else _position(read[0], read[1], depth - 1)
    return found if found is not None and _fits(found, value.aval.dtype) else None


def _fits(index: Dim, dtype: str) -> bool:
    low, high = bounds(index)
    info = np.iinfo(DTYPES[dtype])
    return low is not None and high is not None and info.min <= low and high <= info.max


# --- the rows of a mask -----------------------------------------------------------------------


def any_of_indices(
    emit: Emit, op: str, operands: tuple[Operand, ...], params: Mapping[str, Any]
) -> Operand | None:
    """``any(j <= i)`` along ``j`` is true: the row of every ``i`` has an element."""
    (mask,) = operands
    if isinstance(mask, Literal) or not all(isinstance(dim, int) for dim in mask.aval.shape):
        return None
    indices = tuple(Var(f"i{axis}", dim) for axis, dim in enumerate(mask.aval.shape))
    guard = predicate(mask, indices)
    for axis in params["axes"]:
        guard = None if guard is None else _exists(indices[axis], guard)
    if guard is None or not (guard.is_true or guard.is_false):
        return None
    shape = tuple(dim for axis, dim in enumerate(mask.aval.shape) if axis not in params["axes"])
    return literal(guard.is_true, mask.aval.with_shape(shape))


def _exists(var: Var, guard: Guard) -> Guard | None:
    """Where some value of the variable meets the guard; None where that is not known.

    Every lower bound has to lie below every upper bound. Exact, as the variable has coefficient 1
    or -1 in each.
    """
    if var.extent == 0 or guard.is_false:
        return FALSE
    lows: list[Dim] = [0]
    highs: list[Dim] = [var.extent - 1]
    rest: list[Cond] = []
    for cond in guard:
        split = linear_in(cond.expr, (var,))
        stride = None if split is None else split[0][var]
        if split is None or stride not in (-1, 0, 1):
            return None
        if stride == 0:
            rest.append(cond)
            continue
        bound = -split[1] if stride == 1 else split[1]
        if cond.kind == "eq" or stride == 1:
            lows.append(bound)
        if cond.kind == "eq" or stride == -1:
            highs.append(bound)
    found = Guard(rest)
    for low in lows:
        for high in highs:
            found &= ge(high, low)
    return found


def compare_of_choice(
    emit: Emit, op: str, operands: tuple[Operand, ...], params: Mapping[str, Any]
) -> Operand | None:
    """``select(c, 1, 0) == 0`` is ``select(c, False, True)``: masks of numbers."""
    for position in (0, 1):
        choice, other = operands[position], operands[1 - position]
        eqn = None if isinstance(choice, Literal) else choice.eqn
        if eqn is None or eqn.op.name != "select" or not isinstance(other, Literal):
            continue
        mask, *branches = eqn.operands
        if all(isinstance(branch, Literal) for branch in branches):
            pairs = ((b, other) if position == 0 else (other, b) for b in branches)
            return emit("select", mask, *(emit(op, *pair) for pair in pairs))
    return None
