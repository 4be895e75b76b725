"""What one equation does to tangents and cotangents, from the one derivative fact of its op.

Both directions use the same facts: forward, a tangent times a partial; backward, a cotangent times
the same partial. See ``support`` for the products that are confined.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from diffc.errors import InternalError
from diffc.ir.graph import Builder, Eqn, Literal, Operand
from diffc.ops.declare import Linear, Linearized, Map, Over, Partials, Routes
from diffc.ops.interpret import by_numpy
from diffc.ops.term import GraphTerm, Term
from diffc.transforms.stores import added
from diffc.transforms.support import confine, everywhere, join, mapped, meet, nowhere


@dataclass(frozen=True, slots=True)
class Tangent:
    """A tangent or cotangent that may be non-zero, and where (None: everywhere)."""

    operand: Operand
    support: Operand | None = None


class Opaque(Term):
    """Stands for an operand whose value the linear part may not read."""

    __slots__ = ()

    def call(self, name: str, *others: Any, **params: Any) -> Opaque:
        """Whatever is computed from it is opaque too."""
        return self

    def lift(self, value: Any) -> Opaque:
        """Opaque: nothing is known of its dtype and shape."""
        return self


def term(builder: Builder, operand: Operand) -> GraphTerm:
    """The operand as a term."""
    return GraphTerm(builder, operand)


def _constant(operand: Operand) -> float | None:
    """The one value that an operand has everywhere, if it is known."""
    if isinstance(operand, Literal):
        return operand.value
    eqn = operand.eqn
    if eqn is None or eqn.regions or not all(isinstance(x, Literal) for x in eqn.operands):
        return None
    if not isinstance(eqn.op.body, Map):
        return None
    scalars = [np.array(x.value, x.aval.numpy) for x in eqn.operands if isinstance(x, Literal)]
    with np.errstate(all="ignore"):
        return float(np.asarray(by_numpy(eqn, scalars)))


def times(builder: Builder, tangent: Tangent, partial: Any, bounded: bool) -> Tangent:
    """``tangent * partial``, confined to the tangent's support unless the partial is finite."""
    if isinstance(partial, Over):
        quotient = confine(term(builder, tangent.operand) / partial.divisor, tangent.support)
        return Tangent(quotient.operand, tangent.support)
    t = term(builder, tangent.operand)
    if isinstance(partial, Opaque):
        raise InternalError("an equation of a linear graph is not linear in its tangents")
    if not isinstance(partial, GraphTerm):
        if partial == 1:
            return tangent
        product = -t if partial == -1 else t * partial
        return Tangent(product.operand, tangent.support)
    constant = _constant(partial.operand)
    if constant is not None:
        if constant == 1:
            return tangent
        bounded = bounded or math.isfinite(constant)
    product = t * partial
    if not bounded:
        product = confine(product, tangent.support)
    return Tangent(product.operand, tangent.support)


def add(builder: Builder, tangents: Sequence[Tangent]) -> Tangent:
    """The sum of at least one tangent; sums of stores have no support."""
    total = tangents[0]
    for other in tangents[1:]:
        operand = added(builder, total.operand, other.operand)
        supports = () if operand.aval.is_store else (total.support, other.support)
        total = Tangent(operand, join(builder, supports))
    return total


def is_differentiable(operand: Operand) -> bool:
    """Whether the operand has a float dtype."""
    return operand.aval.is_float


# --- forward ----------------------------------------------------------------------------------


def push(
    builder: Builder,
    eqn: Eqn,
    operands: Sequence[Operand],
    results: Sequence[Operand],
    tangents: Mapping[int, Tangent],
) -> tuple[Tangent | None, ...]:
    """Tangents of an equation's results; ``tangents`` by operand position, at least one.

    ``operands`` and ``results`` are the equation's own, renamed into ``builder``.
    """
    match eqn.op.fact(eqn.params):
        case Partials() as fact:
            return (_push_partials(builder, fact, eqn, operands, results[0], tangents),)
        case Routes() as fact:
            return (_push_routes(builder, fact, eqn, operands, results[0], tangents),)
        case Linear() as fact:
            return (_push_linear(builder, fact, eqn, operands, tangents),)
        case Linearized() as fact:
            terms = tuple(term(builder, operand) for operand in operands)
            dots = tuple(
                term(builder, tangents[i].operand) if i in tangents else None
                for i in range(len(operands))
            )
            dot = fact.jvp(terms, dots, term(builder, results[0]), eqn.params)
            return (None if dot is None else Tangent(dot.operand),)
    raise InternalError(f"op {eqn.op.name} has no forward rule")


def _push_partials(
    builder: Builder,
    fact: Partials,
    eqn: Eqn,
    operands: Sequence[Operand],
    result: Operand,
    tangents: Mapping[int, Tangent],
) -> Tangent:
    terms = (term(builder, operand) for operand in operands)
    partials = fact.formula(*terms, term(builder, result), **eqn.params)
    return add(
        builder,
        [times(builder, dot, partials[i], fact.bounded) for i, dot in sorted(tangents.items())],
    )


def _shares_ties(fact: Routes, operands: Sequence[Operand]) -> bool:
    choices = [operand for operand in operands if is_differentiable(operand)]
    is_constant = any(isinstance(operand, Literal) for operand in choices)
    return fact.ties is not None and len(choices) > 1 and not is_constant


def _push_routes(
    builder: Builder,
    fact: Routes,
    eqn: Eqn,
    operands: Sequence[Operand],
    result: Operand,
    tangents: Mapping[int, Tangent],
) -> Tangent:
    terms = [term(builder, operand) for operand in operands]
    out = term(builder, result)
    routes = fact.formula(*terms, out, **eqn.params)
    total: GraphTerm = out.lift(0)
    supports: list[Operand | None] = []
    for i, dot in sorted(tangents.items()):
        for condition, factor in routes[i] or ():
            routed = times(builder, dot, factor, bounded=True)
            total = condition.call("select", term(builder, routed.operand), total)
            supports.append(meet(builder, dot.support, condition.operand))
    if _shares_ties(fact, operands) and fact.ties is not None:
        share = 1.0 / sum(map(is_differentiable, operands))
        tie = fact.ties(*terms, out, **eqn.params)
        dots = add(builder, list(tangents.values()))
        total = tie.call("select", term(builder, dots.operand) * share, total)
        supports.append(meet(builder, dots.support, tie.operand))
    differentiable = [i for i, operand in enumerate(operands) if is_differentiable(operand)]
    if all(i in tangents and tangents[i].support is None for i in differentiable) and (
        len(differentiable) > 1
    ):
        return Tangent(total.operand)  # some route is always open
    return Tangent(total.operand, join(builder, supports))


def _push_linear(
    builder: Builder,
    fact: Linear,
    eqn: Eqn,
    operands: Sequence[Operand],
    tangents: Mapping[int, Tangent],
) -> Tangent | None:
    positions = range(len(operands)) if fact.operands is None else fact.operands
    active = [i for i in positions if i in tangents]
    if not active:
        return None
    if fact.jointly:
        mixed = list(operands)
        for i in positions:
            zero = term(builder, operands[i]).lift(0).operand
            mixed[i] = tangents[i].operand if i in tangents else zero
        (dot,) = builder.emit(eqn.op, mixed, eqn.params)

        def on_supports() -> Any:
            terms: list[GraphTerm] = [term(builder, operand) for operand in operands]
            for i in positions:
                aval = operands[i].aval
                if i in tangents:
                    terms[i] = everywhere(builder, aval, tangents[i].support)
                else:
                    terms[i] = nowhere(builder, aval)
            return terms[0].call(eqn.op.name, *terms[1:], **eqn.params)

        return Tangent(dot, mapped(on_supports))
    parts = []
    for i in active:
        mixed = list(operands)
        mixed[i] = tangents[i].operand
        (dot,) = builder.emit(eqn.op, mixed, eqn.params)
        parts.append(Tangent(dot))
    return add(builder, parts)


# --- backward ---------------------------------------------------------------------------------


def pull(
    builder: Builder,
    eqn: Eqn,
    operands: Sequence[Operand | None],
    ct: Tangent,
    active: Sequence[int],
) -> dict[int, Tangent]:
    """Cotangents of the operands at positions ``active``, in which the equation is linear.

    ``operands`` are the equation's own, renamed into ``builder``; None for the active ones.
    """
    terms: list[Any] = [
        Opaque() if operand is None else term(builder, operand) for operand in operands
    ]
    match eqn.op.fact(eqn.params):
        case Partials() as fact:
            partials = fact.formula(*terms, Opaque(), **eqn.params)
            return {i: times(builder, ct, partials[i], fact.bounded) for i in active}
        case Routes() as fact:
            return _pull_routes(builder, fact, eqn, terms, ct, active)
        case Linear() as fact:
            return {i: _pull_linear(builder, fact, eqn, operands, ct, i) for i in active}
    raise InternalError(f"op {eqn.op.name} is not linear and can't be transposed")


def _pull_routes(
    builder: Builder,
    fact: Routes,
    eqn: Eqn,
    terms: Sequence[Any],
    ct: Tangent,
    active: Sequence[int],
) -> dict[int, Tangent]:
    routes = fact.formula(*terms, Opaque(), **eqn.params)
    found = {}
    zero = term(builder, ct.operand).lift(0)
    for i in active:
        total, supports = zero, []
        for condition, factor in routes[i] or ():
            if isinstance(condition, Opaque):
                raise InternalError(f"the choice of {eqn.op.name} depends on a tangent")
            routed = times(builder, ct, factor, bounded=True)
            total = condition.call("select", term(builder, routed.operand), total)
            supports.append(meet(builder, ct.support, condition.operand))
        found[i] = Tangent(total.operand, join(builder, supports))
    return found


def _pull_linear(
    builder: Builder,
    fact: Linear,
    eqn: Eqn,
    operands: Sequence[Operand | None],
    ct: Tangent,
    index: int,
) -> Tangent:
    avals = tuple(operand.aval for operand in eqn.operands)
    linear = range(len(operands)) if fact.operands is None and fact.jointly else fact.operands
    hidden = set(linear or ()) if fact.jointly else {index}
    terms = tuple(
        None if operand is None or i in hidden else term(builder, operand)
        for i, operand in enumerate(operands)
    )
    cotangent = fact.transpose(term(builder, ct.operand), terms, avals, eqn.params, index)

    def on_supports() -> Any:
        start = everywhere(builder, ct.operand.aval, ct.support)
        return fact.transpose(start, terms, avals, eqn.params, index)

    return Tangent(cotangent.operand, mapped(on_supports))
