"""Derivatives of ``call``, as functions on graphs; and what all region ops share.

A ``call`` becomes a call of the transformed callee.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from weakref import WeakKeyDictionary

from diffc.ir.graph import Builder, Eqn, Graph, Literal, Operand, Value
from diffc.optimize.calls import unused_in_calls
from diffc.transforms.backward import TRANSPOSE_RULES, VJP_PASSES, transposed
from diffc.transforms.forward import (
    JVP_RULES,
    LINEARIZE_RULES,
    Linearization,
    Mask,
    Supports,
    jvp,
    linearize,
    plain,
)
from diffc.transforms.residuals import minimized
from diffc.transforms.rules import Tangent


def _mask(count: int, positions: Mapping[int, object]) -> Mask:
    return tuple(i in positions for i in range(count))


def given_to(operands: Sequence[Operand], dots: Mapping[int, Tangent]) -> list[Operand]:
    """Operands, tangents and supports of tangents, as a region's derivative takes them."""
    tangents = [dots[i].operand for i in sorted(dots)]
    return [*operands, *tangents, *supports_of(dots)]


def supports_of(dots: Mapping[int, Tangent]) -> list[Operand]:
    """The supports that there are, in order."""
    return [support for i in sorted(dots) if (support := dots[i].support) is not None]


def with_supports(
    active: Sequence[bool], dots: Sequence[Operand], have: Sequence[bool], masks: Sequence[Operand]
) -> list[Tangent | None]:
    """Tangents in order, with their supports; None at the outputs that have none."""
    found, supports = iter(dots), iter(masks)
    return [
        Tangent(next(found), next(supports) if has else None) if is_active else None
        for is_active, has in zip(active, have, strict=True)
    ]


def call_jvp(
    builder: Builder, eqn: Eqn, operands: Sequence[Operand], dots: Mapping[int, Tangent]
) -> tuple[Sequence[Operand], Sequence[Tangent | None]]:
    """A call of the callee's jvp."""
    (callee,) = eqn.regions
    both = jvp(callee, _mask(len(operands), dots), None, Supports.of(eqn, dots))
    results = builder.emit(eqn.op, given_to(operands, dots), eqn.params, (both.graph,), eqn.loc)
    count = len(eqn.results)
    last = count + sum(both.active_outputs)
    found = with_supports(both.active_outputs, results[count:last], both.supports, results[last:])
    return results[:count], found


def _call_linearize(
    builder: Builder, eqn: Eqn, operands: Sequence[Operand], dots: Mapping[int, Operand]
) -> tuple[Sequence[Operand], Sequence[Operand | None]]:
    (callee,) = eqn.regions
    halves, primal = _split(callee, _mask(len(operands), dots))
    count = len(eqn.results)
    results = builder.emit(eqn.op, operands, eqn.params, (primal,), eqn.loc)
    env: dict[Operand, Operand] = dict(zip(primal.outputs, results, strict=True))
    env.update(zip(primal.inputs, operands, strict=True))
    kept = [env.get(residual, residual) for residual in halves.primal.outputs[count:]]
    given = [*kept, *(dots[i] for i in sorted(dots))]
    found = builder.emit(eqn.op, given, eqn.params, (halves.linear,), eqn.loc)
    return results[:count], spread(halves.active_outputs, found)


_SPLITS: WeakKeyDictionary[Graph, dict[tuple[bool, ...], tuple[Linearization, Graph]]] = (
    WeakKeyDictionary()
)


def _split(callee: Graph, mask: tuple[bool, ...]) -> tuple[Linearization, Graph]:
    """The linearization of a callee, and the primal graph that returns no more than it must.

    That graph has the callee's outputs and the residuals that are neither operands nor outputs.
    Calls of one graph share both, and so all that is made of them later.
    """
    known = _SPLITS.setdefault(callee, {})
    found = known.get(mask)
    if found is None:
        halves = linearize(callee, mask)
        outputs = halves.primal.outputs[: len(callee.outputs)]
        returned = (x for x in outputs if isinstance(x, Value))
        halves = minimized(halves, {*halves.primal.inputs, *returned})
        primal = halves.primal
        at_hand = {*primal.inputs, *outputs}
        own = [
            residual
            for residual in dict.fromkeys(primal.outputs[len(outputs) :])
            if isinstance(residual, Value) and residual not in at_hand
        ]
        split = Graph(primal.name, primal.inputs, primal.eqns, (*outputs, *own))
        found = known[mask] = halves, split
    return found


def spread(active: Sequence[bool], dots: Sequence[Operand]) -> list[Operand | None]:
    """Tangents in order, None at the outputs that have none."""
    found = iter(dots)
    return [next(found) if is_active else None for is_active in active]


def call_transpose(
    builder: Builder, eqn: Eqn, operands: Sequence[Operand | None], cts: Mapping[int, Tangent]
) -> Mapping[int, Tangent]:
    """A call of the callee's transpose."""
    (callee,) = eqn.regions
    cts = without_stores(cts)
    linear = [operand is None for operand in operands]
    positions = [i for i, is_linear in enumerate(linear) if is_linear]
    given = tuple(i in cts and cts[i].support is not None for i in range(len(eqn.results)))
    supports = Supports(given, (False,) * len(positions))
    turned = transposed(callee, linear, _mask(len(eqn.results), cts), supports)
    residuals = [x for x in operands if x is not None]
    results = builder.emit(eqn.op, given_to(residuals, cts), eqn.params, (turned.graph,), eqn.loc)
    count = len(positions)
    found = with_supports([True] * count, results[:count], turned.supports, results[count:])
    return {
        i: ct
        for i, ct, inner in zip(positions, found, turned.graph.outputs, strict=False)
        if ct is not None and not is_zero(inner)
    }


def without_stores(cts: Mapping[int, Tangent]) -> dict[int, Tangent]:
    """Cotangents without the supports of stores, of which no literal says "everywhere"."""
    return {i: Tangent(x.operand) if x.operand.aval.is_store else x for i, x in cts.items()}


def is_zero(operand: Operand) -> bool:
    """Whether the operand is a literal zero, as absent cotangents are."""
    return isinstance(operand, Literal) and operand.value == 0


JVP_RULES["call"] = call_jvp
LINEARIZE_RULES["call"] = plain(_call_linearize)
TRANSPOSE_RULES["call"] = call_transpose
VJP_PASSES.append(unused_in_calls)
