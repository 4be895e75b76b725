"""Derivatives of ``scan``, as functions on graphs.

The jvp is one scan that carries values and tangents. The linearization is a primal scan that stacks
what the backward pass reads, and a linear scan over these; the transpose of the linear scan runs
the other way round, carries the cotangents of the carries and of the constants, and stacks those of
the slices.

Which carries have tangents is a fixpoint: a carry is active if its initial value is, or if the body
makes it so. Which carries have supports is another one: a carry has, if it starts with one (zeros
do) and the body keeps it. Supports of carries are carried, those of slices are slices.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from diffc.ir.aval import GROWING, Aval
from diffc.ir.graph import Builder, Eqn, Graph, Literal, Operand, Value, literal
from diffc.ops.registry import find
from diffc.transforms.backward import TRANSPOSE_RULES, transposed
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
from diffc.transforms.regions import is_zero, spread
from diffc.transforms.residuals import minimized
from diffc.transforms.rules import Tangent
from diffc.transforms.stores import added
from diffc.transforms.supported import (
    Order,
    given_supports,
    kept_supports,
    start_of,
    support_of,
)

T = TypeVar("T")
Found = tuple[Sequence[Operand], Sequence[Tangent | None]]


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

    @property
    def carries(self) -> range:
        """The positions of the carries."""
        return range(self.consts, self.consts + self.carry)

    def split(self, items: Sequence[T]) -> tuple[Sequence[T], Sequence[T], Sequence[T]]:
        """``items``, one per operand, by part."""
        first, second = self.consts, self.consts + self.carry
        return items[:first], items[first:second], items[second:]


def _active(eqn: Eqn, dots: Mapping[int, object]) -> tuple[Mask, Mask]:
    """Which inputs of the body are active, and which of its outputs to instantiate."""
    (body,) = eqn.regions
    parts = Parts.of(eqn)
    mask = [i in dots for i in range(len(eqn.operands))]
    first, last = parts.consts, parts.consts + parts.carry
    while True:
        found = jvp(body, mask).active_outputs[: parts.carry]
        grown = [
            mask[first + i] or (found[i] and body.inputs[first + i].aval.is_float)
            for i in range(parts.carry)
        ]
        if grown == mask[first:last]:
            return tuple(mask), (*grown, *(False for _ in body.outputs[parts.carry :]))
        mask[first:last] = grown


def _plain_carries(eqn: Eqn) -> list[int]:
    """The positions of the carries that are no stores: these have no supports."""
    return [i for i in Parts.of(eqn).carries if not eqn.operands[i].aval.is_store]


def permuted(graph: Graph, inputs: Sequence[int], outputs: Sequence[int]) -> Graph:
    """The graph with some of its outputs, inputs and outputs in another order."""
    return Graph(
        graph.name,
        tuple(graph.inputs[i] for i in inputs),
        graph.eqns,
        tuple(graph.outputs[i] for i in outputs),
    )


# --- forward ----------------------------------------------------------------------------------


def _scan_jvp(
    builder: Builder, eqn: Eqn, operands: Sequence[Operand], dots: Mapping[int, Tangent]
) -> Found:
    (body,) = eqn.regions
    parts, count = Parts.of(eqn), len(operands)
    mask, wanted = _active(eqn, dots)
    supports = kept_supports(
        given_supports(mask, dots, _plain_carries(eqn)),
        parts.consts,
        parts.carry,
        lambda given: jvp(body, mask, wanted, given).supports[: parts.carry],
        len(body.outputs),
    )
    both = jvp(body, mask, wanted, supports)
    starts = {i: start_of(operands[i], dots.get(i)) for i in range(count) if mask[i]}
    flat: list[Operand] = [*operands, *(starts[i].operand for i in sorted(starts))]
    flat += [support_of(starts[i]) for i in range(count) if supports.given[i]]
    ins = Order(count, mask, supports.given)
    groups = [ins.group(positions) for positions in parts.split(range(count))]
    order = [i for group in groups for i in group]
    outs = len(body.outputs)
    carried = supports.given[parts.consts : parts.consts + parts.carry]
    out = Order(outs, both.active_outputs, both.supports)
    for k in range(outs):  # stores have no supports
        if eqn.results[k].aval.is_store or (k < parts.carry and not carried[k]):
            out.support.pop(k, None)
    picked = [*out.group(range(parts.carry)), *out.group(range(parts.carry, outs))]
    new_body = permuted(both.graph, order, picked)
    params = {**eqn.params, "consts": len(groups[0]), "carry": len(groups[1])}
    given = [flat[i] for i in order]
    results = builder.emit(eqn.op, given, params, (new_body,), eqn.loc)
    at = dict(zip(picked, results, strict=True))
    return [at[k] for k in range(outs)], [
        Tangent(at[out.dot[k]], at[out.support[k]] if k in out.support else None)
        if k in out.dot
        else None
        for k in range(outs)
    ]


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


def _scan_linearize(
    builder: Builder, eqn: Eqn, operands: Sequence[Operand], dots: Mapping[int, Operand]
) -> tuple[Sequence[Operand], Sequence[Operand | None]]:
    (body,) = eqn.regions
    parts = Parts.of(eqn)
    mask, wanted = _active(eqn, dots)
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
    return results[:outputs], spread(halves.active_outputs, found)


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


# --- backward ---------------------------------------------------------------------------------


def _scan_transpose(
    builder: Builder, eqn: Eqn, operands: Sequence[Operand | None], cts: Mapping[int, Tangent]
) -> Mapping[int, Tangent]:
    """Runs backwards; carries (cotangents of carries, sums of the constants' cotangents)."""
    (body,) = eqn.regions
    parts, outs = Parts.of(eqn), len(eqn.results)
    linear = [operand is None for operand in operands]
    const_at, carry_at, slice_at = map(list, parts.split(range(len(operands))))
    fixed, rows = ([i for i in at if not linear[i]] for at in (const_at, slice_at))
    const_lin, slice_lin = ([i for i in at if linear[i]] for at in (const_at, slice_at))
    # a carry that starts from a literal zero is linear too
    turned_by = [linear[i] or i in carry_at for i in range(len(operands))]
    order = {i: n for n, i in enumerate(i for i, is_on in enumerate(turned_by) if is_on)}
    present = [k < parts.carry or k in cts for k in range(outs)]
    carries = [i - parts.consts for i in _plain_carries(eqn)]
    given = given_supports([True] * outs, cts, carries)

    def kept(supports: Supports) -> list[bool]:
        have = transposed(body, turned_by, present, supports).supports
        return [have[order[i]] for i in carry_at]

    supports = kept_supports(given, 0, parts.carry, kept, len(order))
    turned = transposed(body, turned_by, present, supports)
    have = {i for i, n in order.items() if turned.supports[n]}
    have -= {i for k, i in enumerate(carry_at) if not supports.given[k]}
    have -= {i for i in (*const_at, *carry_at) if eqn.operands[i].aval.is_store}
    new_body = _undo(body, turned.graph, turned.supports, supports, parts, turned_by, have, present)
    starts = [start_of(body.outputs[k], cts.get(k)) for k in range(parts.carry)]
    sums = [start_of(body.inputs[i], None) for i in const_lin]
    stacked = [cts[k] for k in range(parts.carry, outs) if k in cts]
    carry = [*(x.operand for x in starts), *_masks(starts, supports.given[: parts.carry])]
    carry += [*(x.operand for x in sums), *_masks(sums, [i in have for i in const_lin])]
    arguments = [
        *(x for i in fixed if (x := operands[i]) is not None),
        *carry,
        *(x for i in rows if (x := operands[i]) is not None),
        *(ct.operand for ct in stacked),
        *(ct.support for ct in stacked if ct.support is not None),
    ]
    params = {
        **eqn.params,
        "consts": len(fixed),
        "carry": len(carry),
        "reverse": not eqn.params["reverse"],
    }
    results = iter(builder.emit(eqn.op, arguments, params, (new_body,), eqn.loc))
    found: dict[int, Tangent] = {}
    for group in (carry_at, const_lin, slice_lin):
        values = [next(results) for _ in group]
        masks = {i: next(results) for i in group if i in have}
        found.update({i: Tangent(x, masks.get(i)) for i, x in zip(group, values, strict=True)})
    length = eqn.params["length"]
    runs = isinstance(length, int) and length > 0  # else a carry's cotangent may be the given one
    absent = {i for i, n in order.items() if is_zero(turned.graph.outputs[n])}
    absent -= set() if runs else set(carry_at)
    return {i: ct for i, ct in found.items() if linear[i] and i not in absent}


def _masks(tangents: Sequence[Tangent], have: Sequence[bool]) -> list[Operand]:
    return [support_of(x) for x, has in zip(tangents, have, strict=True) if has]


def _undo(
    body: Graph,
    turned: Graph,
    given_back: Sequence[bool],
    supports: Supports,
    parts: Parts,
    linear: Sequence[bool],
    have: set[int],
    present: Sequence[bool],
) -> Graph:
    """The body of the transposed scan: one step undone, and sums over the steps."""
    const_at, carry_at, slice_at = parts.split(range(len(body.inputs)))
    builder = Builder(f"{body.name}_transpose")

    def inputs(positions: Sequence[int], name: str, dtype: str | None = None) -> dict[int, Value]:
        made = {}
        for i in positions:
            aval = body.inputs[i].aval
            wide = aval if dtype is None else aval.with_dtype(dtype)
            made[i] = builder.input(wide, f"{body.inputs[i].name}{name}")
        return made

    const_lin, slice_lin = ([i for i in at if linear[i]] for at in (const_at, slice_at))
    given = [i for k, i in enumerate(carry_at) if supports.given[k]]
    summed = [i for i in const_lin if i in have]
    residuals = inputs([i for i in const_at if not linear[i]], "")
    carried, masks = inputs(carry_at, "_ct"), inputs(given, "_support", "bool")
    sums, any_ = inputs(const_lin, "_ct"), inputs(summed, "_support", "bool")
    residuals |= inputs([i for i in slice_at if not linear[i]], "")
    stacked = [k for k in range(parts.carry, len(body.outputs)) if present[k]]
    cts = [builder.input(body.outputs[k].aval, f"ct{k}") for k in stacked]
    on = [
        builder.input(body.outputs[k].aval.with_dtype("bool"), f"support{k}")
        for k in stacked
        if supports.given[k]
    ]
    found = builder.inline(
        turned,
        [
            *(residuals[i] for i in sorted(residuals)),
            *carried.values(),
            *cts,
            *masks.values(),
            *on,
        ],
    )
    positions = [i for i, is_linear in enumerate(linear) if is_linear]
    back = dict(zip(positions, found, strict=False))
    had = (i for i, has in zip(positions, given_back, strict=True) if has)
    where = dict(zip(had, found[len(positions) :], strict=True))
    either = find("bitwise_or")
    outputs: list[Operand] = [*(back[i] for i in carry_at), *(where[i] for i in given)]
    outputs += [added(builder, sums[i], back[i]) for i in const_lin]
    outputs += [builder.emit(either, (any_[i], where[i]))[0] for i in summed]
    outputs += [*(back[i] for i in slice_lin), *(where[i] for i in slice_lin if i in have)]
    return builder.build(outputs)


JVP_RULES["scan"] = _scan_jvp
LINEARIZE_RULES["scan"] = plain(_scan_linearize)
TRANSPOSE_RULES["scan"] = _scan_transpose
