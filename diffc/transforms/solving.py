"""Derivatives of ``linear_solve``: of ``x`` with ``A x = b``.

Forward: ``A x_dot = b_dot - A_dot x``, a solve of the same system; backward: a solve of the
transposed one. Neither looks into the method of solution. Batches solve all systems at once. In
Taylor mode, each coefficient of x is a solve with what the lower ones leave over.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from diffc.errors import InternalError
from diffc.ir.graph import Builder, Eqn, Graph, Operand, literal
from diffc.ops.batching import spread_front
from diffc.ops.registry import find
from diffc.ops.term import GraphTerm
from diffc.transforms.backward import TRANSPOSE_RULES, plain_transpose, transpose
from diffc.transforms.batch import BATCH_RULES, batch
from diffc.transforms.forward import JVP_RULES, LINEARIZE_RULES, linearize, plain
from diffc.transforms.taylor import TAYLOR_RULES, Series, taylor

if TYPE_CHECKING:
    from diffc.ir.index import Dim

Found = tuple[Sequence[Operand], Sequence[Operand | None]]


@dataclass(frozen=True, slots=True)
class System:
    """The operands of a ``linear_solve`` by what they are for."""

    products: Sequence[Operand]
    forward: Sequence[Operand]
    backward: Sequence[Operand]
    right: Sequence[Operand]

    @classmethod
    def of(cls, eqn: Eqn, operands: Sequence[Operand]) -> System:
        """Of an equation with its operands renamed."""
        first = eqn.params["products"]
        second = first + eqn.params["forward"]
        third = second + eqn.params["backward"]
        return cls(
            operands[:first], operands[first:second], operands[second:third], operands[third:]
        )

    def solve(self, builder: Builder, eqn: Eqn, right: Sequence[Operand]) -> Sequence[Operand]:
        """The same system with another right-hand side."""
        given = [*self.products, *self.forward, *self.backward, *right]
        return builder.emit(eqn.op, given, eqn.params, eqn.regions, eqn.loc)


def _derivative(
    builder: Builder, eqn: Eqn, operands: Sequence[Operand], dots: Mapping[int, Operand]
) -> Found:
    """Both modes: values and tangents are equations of their own."""
    system = System.of(eqn, operands)
    found = system.solve(builder, eqn, system.right)
    count, total = len(system.products), len(operands)
    right: list[Operand | None] = [dots.get(i) for i in range(total - len(found), total)]
    active = [i in dots for i in range(count)]
    if any(active):
        halves = linearize(eqn.regions[0], [*active, *(False for _ in found)])
        primal = builder.inline(halves.primal, [*system.products, *found])
        residuals = primal[len(primal) - halves.residuals :]
        given = [dots[i] for i in range(count) if active[i]]
        moved = iter(builder.inline(halves.linear, [*residuals, *given]))
        for i, is_on in enumerate(halves.active_outputs):
            if is_on:
                right[i] = _less(builder, right[i], next(moved))
    if all(dot is None for dot in right):
        return found, right
    zeros = [literal(0, value.aval) for value in found]
    filled = [zero if dot is None else dot for dot, zero in zip(right, zeros, strict=True)]
    return found, [*system.solve(builder, eqn, filled)]


def _less(builder: Builder, left: Operand | None, right: Operand) -> Operand:
    if left is None:
        return builder.emit(find("neg"), (right,))[0]
    return builder.emit(find("sub"), (left, right))[0]


def _transpose(
    builder: Builder, eqn: Eqn, operands: Sequence[Operand | None], cts: Mapping[int, Operand]
) -> Mapping[int, Operand]:
    """The transposed system, solved for the cotangents of the solution."""
    first = len(operands) - len(eqn.results)
    given = [operand for operand in operands[:first] if operand is not None]
    if len(given) != first:
        raise InternalError("a linear_solve whose system depends on a tangent is not linear")
    products, forward, backward = eqn.regions
    counts = eqn.params
    unknowns = len(eqn.results)
    turned = transpose(products, [False] * counts["products"] + [True] * unknowns)
    split = counts["products"] + counts["forward"]
    order = [*given[: counts["products"]], *given[split:], *given[counts["products"] : split]]
    right = [cts.get(i, literal(0, value.aval)) for i, value in enumerate(eqn.results)]
    params = {
        "products": counts["products"],
        "forward": counts["backward"],
        "backward": counts["forward"],
    }
    found = builder.emit(eqn.op, [*order, *right], params, (turned, backward, forward), eqn.loc)
    return {i: ct for i, ct in enumerate(found, first) if operands[i] is None}


def _batch(
    builder: Builder, eqn: Eqn, operands: Sequence[Operand], mask: tuple[bool, ...], size: Dim
) -> tuple[Sequence[Operand], Sequence[bool]]:
    """All systems of the batch at once; right-hand sides that are the same are repeated."""
    first = len(operands) - len(eqn.results)
    given = [
        operand if on or i < first else spread_front(GraphTerm(builder, operand), size).operand
        for i, (operand, on) in enumerate(zip(operands, mask, strict=True))
    ]
    everything = [True] * len(eqn.results)
    regions: list[Graph] = []
    at = 0
    for region, name in zip(eqn.regions, ("products", "forward", "backward"), strict=True):
        flags = mask[at : at + eqn.params[name]]
        regions.append(batch(region, [*flags, *everything], size, everything).graph)
        at += eqn.params[name]
    results = builder.emit(eqn.op, given, eqn.params, tuple(regions), eqn.loc)
    return results, everything


def _taylor(builder: Builder, eqn: Eqn, terms: Sequence[Series], order: int) -> list[Series]:
    """``A_0 x_k = b_k - (the k-th coefficient of A x without x_k)``."""
    system = System.of(eqn, [term.operand for term in terms])
    count = len(system.products)
    right = terms[len(terms) - len(system.right) :]
    values = system.solve(builder, eqn, system.right)
    active = [not term.is_constant for term in terms[:count]]
    found: list[list[Operand]] = [[] for _ in values]
    for power in range(1, order + 1):
        made = taylor(eqn.regions[0], [*active, *(True for _ in values)], power)
        given: list[Operand] = [*system.products, *values]
        for term, is_on in zip(terms, active, strict=False):
            if is_on:
                zero = literal(0, term.aval)
                given += [zero if c is None else c for c in term.higher[:power]]
        for value, lower in zip(values, found, strict=True):
            given += [*lower, literal(0, value.aval)]
        rest = builder.inline(made.graph, given)[len(values) :]
        lasts = iter(rest[power - 1 :: power])
        filled = []
        for term, is_on in zip(right, made.active_outputs, strict=True):
            wanted = term.higher[power - 1]
            left = literal(0, term.aval) if wanted is None else wanted
            filled.append(_less(builder, left, next(lasts)) if is_on else left)
        for lower, coefficient in zip(found, system.solve(builder, eqn, filled), strict=True):
            lower.append(coefficient)
    return [Series(builder, v, tuple(cs)) for v, cs in zip(values, found, strict=True)]


JVP_RULES["linear_solve"] = plain(_derivative)
LINEARIZE_RULES["linear_solve"] = plain(_derivative)
TRANSPOSE_RULES["linear_solve"] = plain_transpose(_transpose)
BATCH_RULES["linear_solve"] = _batch
TAYLOR_RULES["linear_solve"] = _taylor
