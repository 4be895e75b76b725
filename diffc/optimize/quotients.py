"""Divisors that are the same for all terms of a contraction divide its result."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from diffc.ir.aval import FLOATS
from diffc.ir.graph import Builder, Eqn, Graph, Operand, Value, rebuild, uses
from diffc.ir.index import Dim, Var, size
from diffc.ops.contraction import split
from diffc.optimize.edit import emit_one, keep

VIEWS = frozenset({"reshape", "transpose", "broadcast"})


@dataclass(frozen=True, slots=True)
class Quotient:
    """An operand of a contraction that is a quotient, whose divisor no summed letter moves.

    Attributes:
        side: Which operand.
        numerator: What is divided.
        views: What the operand is of the quotient, from the inside out.
        divisor: What divides, and ...
        axes: ... for each of its axes that of the result along which it moves (None: no one).
    """

    side: int
    numerator: Operand
    views: tuple[Eqn, ...]
    divisor: Operand
    axes: tuple[int | None, ...]


def quotient_of_contract(graph: Graph) -> Graph:
    """A quotient by what is constant along the summed letters is divided after the sum.

    Before: ``contract(div(e, broadcast(l)), v)``, a division for each weight of an attention.
    After: ``div(contract(e, v), broadcast(l))``, one for each sum: each term is rounded once less.
    And the derivative by ``l`` needs ``contract(e, v)`` alone. Only where nothing else reads the
    quotient, where there are no more sums than there were quotients, and where the sums are as far
    from overflow and underflow as before: ``e`` is ``exp`` of something less its maximum along the
    summed letters, so that all terms of a row are at most 1 and one is 1.
    """
    counts = uses(graph)
    found: dict[Eqn, Quotient] = {}
    for eqn in graph.eqns:
        if eqn.op.name == "contract" and eqn.result.aval.dtype in FLOATS:
            quotient = _quotient(eqn, 0, counts) or _quotient(eqn, 1, counts)
            if quotient is not None:
                found[eqn] = quotient
    if not found:
        return graph

    def step(builder: Builder, eqn: Eqn, env: dict[Operand, Operand]) -> None:
        if eqn in found:
            env[eqn.result] = _divided_late(builder, env, eqn, found[eqn])
        else:
            keep(builder, eqn, env)

    return rebuild(graph, step)


def _quotient(eqn: Eqn, side: int, counts: dict[Value, int]) -> Quotient | None:
    operand = eqn.operands[side]
    letters = split(eqn.params["spec"])
    if not _is_at_most(size(eqn.result.aval.shape), size(operand.aval.shape)):
        return None
    indices: tuple[Dim, ...] = tuple(
        Var(letter, dim) for letter, dim in zip(letters[side], operand.aval.shape, strict=True)
    )
    views: list[Eqn] = []
    while isinstance(operand, Value) and operand.eqn is not None and counts[operand] == 1:
        inner = operand.eqn
        if inner.op.name == "div":
            numerator, divisor = inner.operands
            if not _is_weight(numerator, indices, letters[2]):
                return None
            axes = _axes_of_divisor(divisor, indices, letters[2])
            if axes is None:
                return None
            return Quotient(side, numerator, tuple(reversed(views)), *axes)
        if inner.op.name not in VIEWS - {"broadcast"}:
            return None
        indices = _read(inner, indices)
        views.append(inner)
        operand = inner.operands[0]
    return None


def _is_weight(value: Operand, indices: tuple[Dim, ...], result: str) -> bool:
    """Whether a value is ``exp(s - max(s))``, the maximum along letters that are summed."""
    if not isinstance(value, Value) or value.eqn is None:
        return False
    eqn = value.eqn
    if eqn.op.name in VIEWS:
        return _is_weight(eqn.operands[0], _read(eqn, indices), result)
    shifted = eqn.operands[0] if eqn.op.name == "exp" else None
    if not isinstance(shifted, Value) or shifted.eqn is None or shifted.eqn.op.name != "sub":
        return False
    scores, largest = shifted.eqn.operands
    while isinstance(largest, Value) and largest.eqn is not None:
        if largest.eqn.op.name == "max":
            along = [indices[axis] for axis in largest.eqn.params["axes"]]
            is_summed = all(isinstance(x, Var) and x.name not in result for x in along)
            return largest.eqn.operands[0] is scores and is_summed
        if largest.eqn.op.name not in VIEWS | {"stop_gradient"}:
            return False
        largest = largest.eqn.operands[0]
    return False


def _is_at_most(few: Dim, many: Dim) -> bool:
    return few == many or (isinstance(few, int) and isinstance(many, int) and few <= many)


def _read(eqn: Eqn, indices: tuple[Dim, ...]) -> tuple[Dim, ...]:
    """What an element of a view reads."""
    avals = tuple(operand.aval for operand in eqn.operands)
    ((_, read, _),) = eqn.op.body.access(indices, avals, eqn.params)
    return tuple(read)


def _axes_of_divisor(
    divisor: Operand, indices: tuple[Dim, ...], result: str
) -> tuple[Operand, tuple[int | None, ...]] | None:
    """What the divisor is a view of, and where that moves in the result; None if it moves else."""
    while isinstance(divisor, Value) and divisor.eqn is not None and divisor.eqn.op.name in VIEWS:
        indices = _read(divisor.eqn, indices)
        divisor = divisor.eqn.operands[0]
    if not isinstance(divisor, Value):
        return None
    axes: list[int | None] = []
    for index, dim in zip(indices, divisor.aval.shape, strict=True):
        if dim == 1:
            axes.append(None)
        elif isinstance(index, Var) and index.name in result and index.extent == dim:
            axes.append(result.index(index.name))
        else:
            return None
    return divisor, tuple(axes)


def _divided_late(
    builder: Builder, env: dict[Operand, Operand], eqn: Eqn, quotient: Quotient
) -> Operand:
    operands = [env.get(operand, operand) for operand in eqn.operands]
    numerator = env.get(quotient.numerator, quotient.numerator)
    for view in quotient.views:
        numerator = emit_one(builder, view.op.name, numerator, **view.params)
    operands[quotient.side] = numerator
    total = emit_one(builder, "contract", *operands, **eqn.params)
    divisor = env.get(quotient.divisor, quotient.divisor)
    return emit_one(builder, "div", total, _along_result(builder, divisor, quotient.axes, total))


def _along_result(
    builder: Builder, divisor: Operand, axes: tuple[int | None, ...], total: Value
) -> Operand:
    """The divisor with the shape of the result."""
    shape: Any = tuple(
        dim for dim, axis in zip(divisor.aval.shape, axes, strict=True) if axis is not None
    )
    found = divisor
    if shape != divisor.aval.shape:
        found = emit_one(builder, "reshape", found, shape=shape)
    moving = [axis for axis in axes if axis is not None]
    order = tuple(sorted(range(len(moving)), key=moving.__getitem__))
    if order != tuple(range(len(order))):
        found = emit_one(builder, "transpose", found, perm=order)
    return emit_one(builder, "broadcast", found, shape=total.aval.shape, axes=tuple(sorted(moving)))
