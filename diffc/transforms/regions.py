"""Derivatives of region ops: ``call`` and ``scan``, as functions on graphs.

A ``call`` becomes a call of the transformed callee. The jvp of a ``scan`` is one scan that carries
values and tangents. Its linearization is a primal scan that stacks what the backward pass reads,
and a linear scan over these; the transpose of the linear scan runs the other way round, carries the
cotangents of the carries and of the constants, and stacks those of the slices. Which carries have
tangents is a fixpoint: a carry is active if its initial value is, or if the body makes it so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar
from weakref import WeakKeyDictionary

from diffc.ir.aval import GROWING, Aval
from diffc.ir.graph import Builder, Eqn, Graph, Literal, Operand, Value, literal
from diffc.transforms.backward import TRANSPOSE_RULES, transpose
from diffc.transforms.forward import JVP_RULES, LINEARIZE_RULES, Linearization, jvp, linearize
from diffc.transforms.residuals import minimized
from diffc.transforms.stores import added


def _mask(count: int, positions: Mapping[int, Operand]) -> tuple[bool, ...]:
    return tuple(i in positions for i in range(count))


def _spread(active: Sequence[bool], dots: Sequence[Operand]) -> list[Operand | None]:
    """Tangents in order, None at the outputs that have none."""
    found = iter(dots)
    return [next(found) if is_active else None for is_active in active]


T = TypeVar("T")

# --- call -------------------------------------------------------------------------------------


def call_jvp(
    builder: Builder, eqn: Eqn, operands: Sequence[Operand], dots: Mapping[int, Operand]
) -> tuple[Sequence[Operand], Sequence[Operand | None]]:
    """A call of the callee's jvp."""
    (callee,) = eqn.regions
    both = jvp(callee, _mask(len(operands), dots))
    given = [*operands, *(dots[i] for i in sorted(dots))]
    results = builder.emit(eqn.op, given, eqn.params, (both.graph,), eqn.loc)
    count = len(eqn.results)
    return results[:count], _spread(both.active_outputs, results[count:])


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
    return results[:count], _spread(halves.active_outputs, found)


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


def call_transpose(
    builder: Builder, eqn: Eqn, operands: Sequence[Operand | None], cts: Mapping[int, Operand]
) -> Mapping[int, Operand]:
    """A call of the callee's transpose."""
    (callee,) = eqn.regions
    linear = [operand is None for operand in operands]
    turned = transpose(callee, linear, _mask(len(eqn.results), cts))
    given = [x for x in operands if x is not None] + [cts[i] for i in sorted(cts)]
    results = builder.emit(eqn.op, given, eqn.params, (turned,), eqn.loc)
    return dict(zip((i for i, is_linear in enumerate(linear) if is_linear), results, strict=True))


# --- scan -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Parts:
    """How many operands of a scan are constants, carries and slices."""

    consts: int
    carry: int
    slices: int

    @classmethod
    def of(cls, eqn: Eqn) -> Parts:
        """The parts of this scan."""
        consts, carry = eqn.params["consts"], eqn.params["carry"]
        return cls(consts, carry, len(eqn.operands) - consts - carry)

    def split(self, items: Sequence[T]) -> tuple[Sequence[T], Sequence[T], Sequence[T]]:
        """``items``, one per operand, by part."""
        first, second = self.consts, self.consts + self.carry
        return items[:first], items[first:second], items[second:]


def _active_body(
    eqn: Eqn, dots: Mapping[int, Operand]
) -> tuple[tuple[bool, ...], tuple[bool, ...]]:
    """Which body inputs are active, by fixpoint over the carries; which outputs to instantiate."""
    (body,) = eqn.regions
    parts = Parts.of(eqn)
    mask = list(_mask(len(eqn.operands), dots))
    while True:
        found = jvp(body, mask).active_outputs[: parts.carry]
        grown = [
            mask[parts.consts + i] or (found[i] and body.inputs[parts.consts + i].aval.is_float)
            for i in range(parts.carry)
        ]
        if grown == mask[parts.consts : parts.consts + parts.carry]:
            wanted = [*grown, *(False for _ in range(len(body.outputs) - parts.carry))]
            return tuple(mask), tuple(wanted)
        mask[parts.consts : parts.consts + parts.carry] = grown


def _instantiated(
    eqn: Eqn, mask: Sequence[bool], dots: Mapping[int, Operand]
) -> list[Operand | None]:
    """A tangent for each active operand; zeros for carries that only the body activates."""
    return [
        dots.get(i, literal(0, operand.aval)) if is_active else None
        for i, (operand, is_active) in enumerate(zip(eqn.operands, mask, strict=True))
    ]


def _present(items: Sequence[Operand | None]) -> list[Operand]:
    return [item for item in items if item is not None]


def permuted(graph: Graph, inputs: Sequence[int], outputs: Sequence[int]) -> Graph:
    """The graph with its inputs and outputs in another order."""
    return Graph(
        graph.name,
        tuple(graph.inputs[i] for i in inputs),
        graph.eqns,
        tuple(graph.outputs[i] for i in outputs),
    )


def _scan_jvp(
    builder: Builder, eqn: Eqn, operands: Sequence[Operand], dots: Mapping[int, Operand]
) -> tuple[Sequence[Operand], Sequence[Operand | None]]:
    (body,) = eqn.regions
    parts = Parts.of(eqn)
    mask, wanted = _active_body(eqn, dots)
    both = jvp(body, mask, wanted)
    tangents = _instantiated(eqn, mask, dots)
    primal_parts = parts.split(range(len(operands)))
    position = {i: len(operands) + n for n, i in enumerate(i for i, a in enumerate(mask) if a)}
    order, given, counts = [], [], []
    for positions in primal_parts:
        active = [i for i in positions if mask[i]]
        order += [*positions, *(position[i] for i in active)]
        given += [operands[i] for i in positions] + _present([tangents[i] for i in active])
        counts.append(len(positions) + len(active))
    outputs = len(body.outputs)
    active_outputs = [i for i, is_active in enumerate(both.active_outputs) if is_active]
    dot_of = {i: outputs + n for n, i in enumerate(active_outputs)}
    carries = [*range(parts.carry), *(dot_of[i] for i in range(parts.carry) if i in dot_of)]
    stacked = [*range(parts.carry, outputs)]
    stacked += [dot_of[i] for i in range(parts.carry, outputs) if i in dot_of]
    new_body = permuted(both.graph, order, [*carries, *stacked])
    params = {**eqn.params, "consts": counts[0], "carry": counts[1]}
    results = builder.emit(eqn.op, given, params, (new_body,), eqn.loc)
    where = {old: new for new, old in enumerate([*carries, *stacked])}
    values = [results[where[i]] for i in range(outputs)]
    found = [results[where[dot_of[i]]] if i in dot_of else None for i in range(outputs)]
    return values, found


def _scan_linearize(
    builder: Builder, eqn: Eqn, operands: Sequence[Operand], dots: Mapping[int, Operand]
) -> tuple[Sequence[Operand], Sequence[Operand | None]]:
    (body,) = eqn.regions
    parts = Parts.of(eqn)
    mask, wanted = _active_body(eqn, dots)
    halves = linearize(body, mask, wanted)
    outputs = len(body.outputs)
    fixed, _, rows = parts.split(halves.primal.inputs)
    stacked_anyway = halves.primal.outputs[parts.carry : outputs]
    free = {*fixed, *rows, *(x for x in stacked_anyway if isinstance(x, Value))}
    halves = minimized(halves, free)
    residuals = halves.primal.outputs[outputs:]
    body_outputs = halves.primal.outputs[:outputs]
    kinds = [_residual_kind(halves, residual, parts, body_outputs) for residual in residuals]
    stacked = [r for r, kind in zip(residuals, kinds, strict=True) if kind == "stacked"]
    primal = Graph(
        halves.primal.name,
        halves.primal.inputs,
        halves.primal.eqns,
        (*halves.primal.outputs[:outputs], *stacked),
    )
    results = builder.emit(eqn.op, operands, eqn.params, (primal,), eqn.loc)
    saved = iter(results[outputs:])
    returned = {x: i for i, x in enumerate(body_outputs) if i >= parts.carry}
    consts: list[int] = []
    slices: list[int] = []
    const_operands: list[Operand] = []
    slice_operands: list[Operand] = []
    for i, (residual, kind) in enumerate(zip(residuals, kinds, strict=True)):
        if kind == "stacked":
            slices.append(i)
            slice_operands.append(next(saved))
        elif kind == "returned":
            slices.append(i)
            slice_operands.append(results[returned[residual]])
        elif kind == "slice":
            slices.append(i)
            slice_operands.append(operands[_input_index(residual)])
        else:
            consts.append(i)
            is_input = isinstance(residual, Value)
            const_operands.append(operands[_input_index(residual)] if is_input else residual)
    tangents = _instantiated(eqn, mask, dots)
    const_dots, carry_dots, slice_dots = map(_present, parts.split(tangents))
    first = len(residuals)
    starts = [first, first + len(const_dots), first + len(const_dots) + len(carry_dots)]
    order = [*consts, *range(starts[0], starts[1]), *range(starts[1], starts[2]), *slices]
    order += range(starts[2], starts[2] + len(slice_dots))
    linear_body = permuted(halves.linear, order, range(len(halves.linear.outputs)))
    steps: list[Operand] = []
    if eqn.params["length"] is GROWING:
        steps.append(operands[0])
        linear_body = counted(linear_body, operands[0].aval)
    params = {
        **eqn.params,
        "consts": len(steps) + len(consts) + len(const_dots),
        "carry": len(carry_dots),
    }
    given = [*steps, *const_operands, *const_dots, *carry_dots, *slice_operands, *slice_dots]
    found = builder.emit(eqn.op, given, params, (linear_body,), eqn.loc)
    return results[:outputs], _spread(halves.active_outputs, found)


def counted(body: Graph, steps: Aval) -> Graph:
    """The body of a scan of length ``*``: it takes the number of steps too, and doesn't read it."""
    builder = Builder(body.name)
    builder.input(steps, "steps")
    inputs = [builder.input(value.aval, value.name) for value in body.inputs]
    return builder.build(builder.inline(body, inputs))


def _residual_kind(
    halves: Linearization, residual: Operand, parts: Parts, outputs: Sequence[Operand]
) -> str:
    """Whether a residual is the same in all steps, a slice that is there, or must be stacked."""
    if isinstance(residual, Literal):
        return "const"
    if residual.eqn is None and residual in halves.primal.inputs:
        if residual.index < parts.consts:
            return "const"
        if residual.index >= parts.consts + parts.carry:
            return "slice"
    return "returned" if residual in outputs[parts.carry :] else "stacked"


def _input_index(residual: Operand) -> int:
    assert isinstance(residual, Value)
    return residual.index


def _scan_transpose(
    builder: Builder, eqn: Eqn, operands: Sequence[Operand | None], cts: Mapping[int, Operand]
) -> Mapping[int, Operand]:
    """Runs backwards; carries (cotangents of carries, sums of the constants' cotangents)."""
    (body,) = eqn.regions
    parts = Parts.of(eqn)
    linear = [operand is None for operand in operands]
    const_at, carry_at, slice_at = map(list, parts.split(range(len(operands))))
    const_res = [i for i in const_at if not linear[i]]
    slice_res = [i for i in slice_at if not linear[i]]
    const_lin = [i for i in const_at if linear[i]]
    slice_lin = [i for i in slice_at if linear[i]]
    # a carry that starts from a literal zero is linear too
    body_linear = [linear[i] or i in carry_at for i in range(len(operands))]
    stacked_cts = [i for i in range(parts.carry, len(eqn.results)) if i in cts]
    present = [i < parts.carry or i in cts for i in range(len(eqn.results))]
    turned = transpose(body, body_linear, present)
    new = Builder(f"{body.name}_transpose")
    res_in = {i: new.input(body.inputs[i].aval, body.inputs[i].name) for i in const_res}
    carry_in = [new.input(body.inputs[i].aval, f"{body.inputs[i].name}_ct") for i in carry_at]
    sums_in = [new.input(body.inputs[i].aval, f"{body.inputs[i].name}_ct") for i in const_lin]
    res_in |= {i: new.input(body.inputs[i].aval, body.inputs[i].name) for i in slice_res}
    cts_in = [new.input(body.outputs[i].aval, f"ct{i}") for i in stacked_cts]
    residuals = [res_in[i] for i in range(len(operands)) if not body_linear[i]]
    found = new.inline(turned, [*residuals, *carry_in, *cts_in])
    by_input = dict(zip((i for i, x in enumerate(body_linear) if x), found, strict=True))
    sums = [added(new, total, by_input[i]) for i, total in zip(const_lin, sums_in, strict=True)]
    outputs = [*(by_input[i] for i in carry_at), *sums, *(by_input[i] for i in slice_lin)]
    new_body = new.build(outputs)
    carry_cts = [cts.get(n, literal(0, eqn.operands[i].aval)) for n, i in enumerate(carry_at)]
    zeros = [literal(0, eqn.operands[i].aval) for i in const_lin]
    given = [
        *_present([operands[i] for i in const_res]),
        *carry_cts,
        *zeros,
        *_present([operands[i] for i in slice_res]),
        *(cts[i] for i in stacked_cts),
    ]
    params = {
        **eqn.params,
        "consts": len(const_res),
        "carry": len(carry_at) + len(const_lin),
        "reverse": not eqn.params["reverse"],
    }
    results = builder.emit(eqn.op, given, params, (new_body,), eqn.loc)
    where = [*carry_at, *const_lin, *slice_lin]
    return {i: ct for i, ct in zip(where, results, strict=True) if linear[i]}


JVP_RULES.update(call=call_jvp, scan=_scan_jvp)
LINEARIZE_RULES.update(call=_call_linearize, scan=_scan_linearize)
TRANSPOSE_RULES.update(call=call_transpose, scan=_scan_transpose)
