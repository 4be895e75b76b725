"""Derivatives of ``cond``, as functions on graphs.

The jvp is a ``cond`` of the branches' jvps. The linearization is a primal ``cond`` whose branches
return what their linear halves read, and a linear ``cond`` on the same index. Branches keep
different things, so they share slots: one for each aval, as many as the branch needs that keeps
most of it; what a branch doesn't use is zero. The transpose is a ``cond`` of transposed branches.
A tangent has a support if it has one in any branch; in the others it is True, or False where the
branch gives zero.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from diffc.ir.aval import Aval
from diffc.ir.graph import Builder, Eqn, Graph, Literal, Operand, Value, literal
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
from diffc.transforms.regions import (
    given_to,
    is_zero,
    spread,
    with_supports,
    without_stores,
)
from diffc.transforms.residuals import minimized
from diffc.transforms.rules import Tangent

Found = tuple[Sequence[Operand], Sequence[Tangent | None]]


def _any(rows: Sequence[Sequence[bool]]) -> Mask:
    """Where any row holds."""
    return tuple(any(column) for column in zip(*rows, strict=True))


def _masks(eqn: Eqn, dots: Mapping[int, Tangent]) -> tuple[Mask, Mask, Supports]:
    """Active inputs of the branches, active outputs of any branch, and supports."""
    mask = tuple(i in dots for i in range(1, len(eqn.operands)))
    own = Supports.of(eqn, dots, 1)
    active = _any([jvp(branch, mask).active_outputs for branch in eqn.regions])
    found = [jvp(branch, mask, active, own) for branch in eqn.regions]
    have = _any([each.supports for each in found])
    return mask, active, Supports(own.given, have)


def _cond_jvp(
    builder: Builder, eqn: Eqn, operands: Sequence[Operand], dots: Mapping[int, Tangent]
) -> Found:
    mask, active, supports = _masks(eqn, dots)
    count = len(eqn.results)
    if not any(active):
        results = builder.emit(eqn.op, operands, eqn.params, eqn.regions, eqn.loc)
        return results, [None] * count
    branches = tuple(jvp(branch, mask, active, supports).graph for branch in eqn.regions)
    results = builder.emit(eqn.op, given_to(operands, dots), eqn.params, branches, eqn.loc)
    last = count + sum(active)
    found = with_supports(active, results[count:last], supports.wanted, results[last:])
    return results[:count], found


Source = tuple[str, int]  #: where a residual is: an "input", a "result" or a "slot", and which


def _cond_linearize(
    builder: Builder, eqn: Eqn, operands: Sequence[Operand], dots: Mapping[int, Operand]
) -> tuple[Sequence[Operand], Sequence[Operand | None]]:
    mask = tuple(i in dots for i in range(1, len(eqn.operands)))
    active = _any([jvp(branch, mask).active_outputs for branch in eqn.regions])
    count = len(eqn.results)
    if not any(active):
        results = builder.emit(eqn.op, operands, eqn.params, eqn.regions, eqn.loc)
        return results, [None] * count
    halves = [_minimized(linearize(branch, mask, active), count) for branch in eqn.regions]
    slots, kept = _slots(halves, count)
    primals = tuple(
        _primal(half, count, slots, own) for half, own in zip(halves, kept, strict=True)
    )
    results = builder.emit(eqn.op, operands, eqn.params, primals, eqn.loc)
    sources = [_sources(half, count, own) for half, own in zip(halves, kept, strict=True)]
    used = sorted({place for found in sources for place in found.values()})
    at_hand = {"input": operands[1:], "result": results[:count], "slot": results[count:]}
    residuals = [at_hand[kind][i] for kind, i in used]
    linears = tuple(
        _linear(half, count, used, [x.aval for x in residuals], found)
        for half, found in zip(halves, sources, strict=True)
    )
    given = [operands[0], *residuals, *(dots[i] for i in sorted(dots))]
    found = builder.emit(eqn.op, given, eqn.params, linears, eqn.loc)
    return results[:count], spread(active, found)


def _minimized(halves: Linearization, count: int) -> Linearization:
    """Inputs and results of the branch are there anyway."""
    returned = (x for x in halves.primal.outputs[:count] if isinstance(x, Value))
    return minimized(halves, {*halves.primal.inputs, *returned})


def _residuals(half: Linearization, count: int) -> list[Value]:
    found = dict.fromkeys(half.primal.outputs[count:])
    return [x for x in found if isinstance(x, Value)]


def _slots(
    halves: Sequence[Linearization], count: int
) -> tuple[list[Aval], list[dict[Value, int]]]:
    """The avals of the slots that the branches share, and where each keeps its residuals.

    Stores are not shared, so that a batch which takes both ways knows whose they are.
    """
    slots: list[Aval] = []
    kept: list[dict[Value, int]] = []
    for half in halves:
        there = {*half.primal.inputs, *half.primal.outputs[:count]}
        free = list(range(len(slots)))
        own: dict[Value, int] = {}
        for residual in _residuals(half, count):
            if residual in there:
                continue
            shared = [] if residual.aval.is_store else free
            place = next((k for k in shared if slots[k] is residual.aval), None)
            if place is None:
                place = len(slots)
                slots.append(residual.aval)
            else:
                free.remove(place)
            own[residual] = place
        kept.append(own)
    return slots, kept


def _primal(
    half: Linearization, count: int, slots: Sequence[Aval], own: Mapping[Value, int]
) -> Graph:
    """A branch that returns its results and all slots."""
    filled: list[Operand] = [literal(0, aval) for aval in slots]
    for residual, place in own.items():
        filled[place] = residual
    primal = half.primal
    return Graph(primal.name, primal.inputs, primal.eqns, (*primal.outputs[:count], *filled))


def _sources(half: Linearization, count: int, own: Mapping[Value, int]) -> dict[Value, Source]:
    """Where the linear half of a branch finds each residual."""
    inputs = {value: i for i, value in enumerate(half.primal.inputs)}
    results = {value: i for i, value in enumerate(half.primal.outputs[:count])}
    found: dict[Value, Source] = {}
    for residual in _residuals(half, count):
        if residual in inputs:
            found[residual] = "input", inputs[residual]
        elif residual in results:
            found[residual] = "result", results[residual]
        else:
            found[residual] = "slot", own[residual]
    return found


def _linear(
    half: Linearization,
    count: int,
    used: Sequence[Source],
    avals: Sequence[Aval],
    sources: Mapping[Value, Source],
) -> Graph:
    """The linear half of a branch, on what all branches are given."""
    builder = Builder(half.linear.name)
    given = {
        source: builder.input(aval, "residual") for source, aval in zip(used, avals, strict=True)
    }
    formals = half.linear.inputs[half.residuals :]
    dots = [builder.input(value.aval, value.name) for value in formals]
    residuals = [
        x if isinstance(x, Literal) else given[sources[x]] for x in half.primal.outputs[count:]
    ]
    return builder.build(builder.inline(half.linear, [*residuals, *dots]))


def _cond_transpose(
    builder: Builder, eqn: Eqn, operands: Sequence[Operand | None], cts: Mapping[int, Tangent]
) -> Mapping[int, Tangent]:
    cts = without_stores(cts)
    linear = [operand is None for operand in operands[1:]]
    positions = [i for i, is_linear in enumerate(linear, 1) if is_linear]
    present = [i in cts for i in range(len(eqn.results))]
    given = tuple(i in cts and cts[i].support is not None for i in range(len(eqn.results)))
    own = Supports(given, (False,) * len(positions))
    have = _any([transposed(branch, linear, present, own).supports for branch in eqn.regions])
    supports = Supports(given, have)
    turned = [transposed(branch, linear, present, supports).graph for branch in eqn.regions]
    columns = list(zip(*(graph.outputs for graph in turned), strict=True))
    count = len(positions)
    kept = [k for k, column in enumerate(columns[:count]) if not all(map(is_zero, column))]
    at = {k: count + n for n, k in enumerate(k for k, has in enumerate(have) if has)}
    masked = [at[k] for k in kept if k in at]
    regions = tuple(
        Graph(
            graph.name,
            graph.inputs,
            graph.eqns,
            tuple(graph.outputs[k] for k in (*kept, *masked)),
        )
        for graph in turned
    )
    residuals = [x for x in operands if x is not None]
    results = builder.emit(eqn.op, given_to(residuals, cts), eqn.params, regions, eqn.loc)
    found = with_supports(
        [True] * len(kept), results[: len(kept)], [k in at for k in kept], results[len(kept) :]
    )
    return {positions[k]: ct for k, ct in zip(kept, found, strict=True) if ct is not None}


JVP_RULES["cond"] = _cond_jvp
LINEARIZE_RULES["cond"] = plain(_cond_linearize)
TRANSPOSE_RULES["cond"] = _cond_transpose
