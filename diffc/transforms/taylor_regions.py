"""Taylor mode of region ops: regions on polynomials, coefficients beside what they belong to.

Which carries of a loop have coefficients is a fixpoint.
"""

from __future__ import annotations

from collections.abc import Sequence

from diffc.ir.graph import Builder, Eqn, Graph, Operand
from diffc.transforms.taylor import TAYLOR_RULES, Mask, Series, Taylor, filled, taylor


def _coefficients(terms: Sequence[Series], mask: Sequence[bool]) -> list[Operand]:
    return [c for term, on in zip(terms, mask, strict=True) if on for c in filled(term)]


def _results(
    builder: Builder, values: Sequence[Operand], rest: Sequence[Operand], on: Mask, order: int
) -> list[Series]:
    """Results as polynomials, from values and the coefficients of the active ones."""
    found = iter(rest)
    return [
        Series(builder, value, tuple(next(found) for _ in range(order)))
        if is_on
        else Series(builder, value, (None,) * order)
        for value, is_on in zip(values, on, strict=True)
    ]


def _call(builder: Builder, eqn: Eqn, terms: Sequence[Series], order: int) -> list[Series]:
    mask = [not term.is_constant for term in terms]
    made = taylor(eqn.regions[0], mask, order)
    given = [*(term.operand for term in terms), *_coefficients(terms, mask)]
    results = builder.emit(eqn.op, given, eqn.params, (made.graph,), eqn.loc)
    count = len(eqn.results)
    return _results(builder, results[:count], results[count:], made.active_outputs, order)


def _cond(builder: Builder, eqn: Eqn, terms: Sequence[Series], order: int) -> list[Series]:
    index, *rest = terms
    mask = [not term.is_constant for term in rest]
    masks = [taylor(region, mask, order).active_outputs for region in eqn.regions]
    on = tuple(any(column) for column in zip(*masks, strict=True))
    regions = tuple(taylor(region, mask, order, on).graph for region in eqn.regions)
    given = [index.operand, *(term.operand for term in rest), *_coefficients(rest, mask)]
    results = builder.emit(eqn.op, given, eqn.params, regions, eqn.loc)
    count = len(eqn.results)
    return _results(builder, results[:count], results[count:], on, order)


def _grown(
    body: Graph, mask: list[bool], first: int, count: int, order: int
) -> tuple[Taylor, list[bool]]:
    """The body with the carries that it makes active, by fixpoint."""
    while True:
        found = taylor(body, mask, order).active_outputs[:count]
        grown = [a or b for a, b in zip(mask[first : first + count], found, strict=True)]
        if grown == mask[first : first + count]:
            break
        mask[first : first + count] = grown
    wanted = [*grown, *(False for _ in body.outputs[count:])]
    return taylor(body, mask, order, wanted), mask


def _grouped(
    groups: Sequence[Sequence[int]], mask: Sequence[bool], total: int, order: int
) -> list[int]:
    """Positions in a Taylor graph so that coefficients follow the values of their group."""
    starts, at = {}, total
    for i, on in enumerate(mask):
        if on:
            starts[i] = at
            at += order
    found: list[int] = []
    for group in groups:
        found += group
        for i in group:
            if mask[i]:
                found += range(starts[i], starts[i] + order)
    return found


def _scan(builder: Builder, eqn: Eqn, terms: Sequence[Series], order: int) -> list[Series]:
    (body,) = eqn.regions
    first, count = eqn.params["consts"], eqn.params["carry"]
    made, mask = _grown(body, [not t.is_constant for t in terms], first, count, order)
    positions = range(len(terms))
    groups = [positions[:first], positions[first : first + count], positions[first + count :]]
    flat: list[Operand] = [*(t.operand for t in terms), *_coefficients(terms, mask)]
    inputs = _grouped(groups, mask, len(terms), order)
    outs = range(len(body.outputs))
    outputs = _grouped([outs[:count], outs[count:]], made.active_outputs, len(outs), order)
    region = Graph(
        made.graph.name,
        tuple(made.graph.inputs[i] for i in inputs),
        made.graph.eqns,
        tuple(made.graph.outputs[i] for i in outputs),
    )
    sizes = [len(group) + order * sum(mask[i] for i in group) for group in groups]
    params = {**eqn.params, "consts": sizes[0], "carry": sizes[1]}
    results = builder.emit(eqn.op, [flat[i] for i in inputs], params, (region,), eqn.loc)
    return _ordered(builder, results, outputs, made, order)


def _while(builder: Builder, eqn: Eqn, terms: Sequence[Series], order: int) -> list[Series]:
    test, body = eqn.regions
    tests, consts = eqn.params["tests"], eqn.params["consts"]
    own = terms[tests:]
    count = len(own) - consts
    made, mask = _grown(body, [not t.is_constant for t in own], consts, count, order)
    positions = range(len(own))
    groups = [positions[:consts], positions[consts:]]
    inputs = _grouped(groups, mask, len(own), order)
    flat: list[Operand] = [*(t.operand for t in own), *_coefficients(own, mask)]
    outs = range(len(body.outputs))
    outputs = _grouped([outs[:count], outs[count:]], made.active_outputs, len(outs), order)
    region = Graph(
        made.graph.name,
        tuple(made.graph.inputs[i] for i in inputs),
        made.graph.eqns,
        tuple(made.graph.outputs[i] for i in outputs),
    )
    tested = Builder(test.name)
    given = [tested.input(value.aval, value.name) for value in test.inputs]
    for value, on in zip(test.inputs[tests:], mask[consts:], strict=True):
        if on:
            for power in range(1, order + 1):
                tested.input(value.aval, f"{value.name}_{power}")
    new_test = tested.build(tested.inline(test, given))
    params = {**eqn.params, "consts": consts + order * sum(mask[:consts])}
    operands = [*(t.operand for t in terms[:tests]), *(flat[i] for i in inputs)]
    results = builder.emit(eqn.op, operands, params, (new_test, region), eqn.loc)
    return _ordered(builder, results, outputs, made, order)


def _ordered(
    builder: Builder, results: Sequence[Operand], outputs: Sequence[int], made: Taylor, order: int
) -> list[Series]:
    """A loop's results as polynomials; ``outputs``: which output of the region each one is."""
    by_position = dict(zip(outputs, results, strict=True))
    flat = [by_position[i] for i in range(len(results))]
    count = len(made.active_outputs)
    return _results(builder, flat[:count], flat[count:], made.active_outputs, order)


TAYLOR_RULES.update(call=_call, checkpoint=_call, cond=_cond, scan=_scan)
TAYLOR_RULES["while"] = _while
