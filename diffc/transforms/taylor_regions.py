"""Taylor mode of region ops: regions on polynomials, coefficients beside what they belong to.

Which carries of a loop have coefficients is a fixpoint, and which of these have supports another.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from diffc.ir.graph import Builder, Eqn, Graph, Operand
from diffc.transforms.forward import Supports
from diffc.transforms.rules import Tangent
from diffc.transforms.scan_rules import permuted
from diffc.transforms.supported import (
    Order,
    given_supports,
    kept_supports,
    start_of,
    support_of,
)
from diffc.transforms.taylor import TAYLOR_RULES, Series, Taylor, filled, taylor


def _flat(terms: Sequence[Series], mask: Sequence[bool], given: Sequence[bool]) -> list[Operand]:
    """Values, coefficients of the active ones, and the supports that are given."""
    found: list[Operand] = [term.operand for term in terms]
    found += [c for term, on in zip(terms, mask, strict=True) if on for c in filled(term)]
    dots = [Tangent(x.operand, x.support) if not x.is_constant else None for x in terms]
    starts = [start_of(x.operand, dot) for x, dot in zip(terms, dots, strict=True)]
    return found + [support_of(x) for x, has in zip(starts, given, strict=True) if has]


def _results(
    builder: Builder, count: int, made: Taylor, found: Mapping[int, Operand]
) -> list[Series]:
    """Results as polynomials, from what there is at each output of the region.

    Stores have no supports.
    """
    at = Order(count, made.active_outputs, made.supports, made.order)
    at.support = {k: i for k, i in at.support.items() if not found[k].aval.is_store}
    powers = range(made.order)
    return [
        Series(
            builder,
            found[k],
            tuple(found[at.dot[k] + n] if k in at.dot else None for n in powers),
            support=found.get(at.support[k]) if k in at.support else None,
        )
        for k in range(count)
    ]


def _active(terms: Sequence[Series]) -> list[bool]:
    return [not term.is_constant for term in terms]


def _own_supports(terms: Sequence[Series], results: int) -> Supports:
    given = tuple(not x.is_constant and x.support is not None for x in terms)
    return Supports(given, (False,) * results)


def _call(builder: Builder, eqn: Eqn, terms: Sequence[Series], order: int) -> list[Series]:
    mask, count = _active(terms), len(eqn.results)
    own = _own_supports(terms, count)
    made = taylor(eqn.regions[0], mask, order, None, own)
    given = _flat(terms, mask, own.given)
    results = builder.emit(eqn.op, given, eqn.params, (made.graph,), eqn.loc)
    return _results(builder, count, made, dict(enumerate(results)))


def _cond(builder: Builder, eqn: Eqn, terms: Sequence[Series], order: int) -> list[Series]:
    index, *rest = terms
    mask, count = _active(rest), len(eqn.results)
    own = _own_supports(rest, count)
    masks = [taylor(region, mask, order).active_outputs for region in eqn.regions]
    on = tuple(map(any, zip(*masks, strict=True)))
    found = [taylor(region, mask, order, on, own) for region in eqn.regions]
    have = tuple(map(any, zip(*(each.supports for each in found), strict=True)))
    both = Supports(own.given, have)
    made = [taylor(region, mask, order, on, both) for region in eqn.regions]
    given = [index.operand, *_flat(rest, mask, own.given)]
    regions = tuple(each.graph for each in made)
    results = builder.emit(eqn.op, given, eqn.params, regions, eqn.loc)
    return _results(builder, count, made[0], dict(enumerate(results)))


def _grown(
    body: Graph, terms: Sequence[Series], first: int, count: int, order: int
) -> tuple[Taylor, Supports]:
    """The body with the carries that it makes active, by fixpoint, and supports likewise."""
    mask = _active(terms)
    while True:
        found = taylor(body, mask, order).active_outputs[:count]
        grown = [a or b for a, b in zip(mask[first : first + count], found, strict=True)]
        if grown == mask[first : first + count]:
            break
        mask[first : first + count] = grown
    wanted = [*grown, *(False for _ in body.outputs[count:])]
    dots = {i: Tangent(x.operand, x.support) for i, x in enumerate(terms) if not x.is_constant}
    carries = [i for i in range(first, first + count) if not terms[i].aval.is_store]
    supports = kept_supports(
        given_supports(mask, dots, carries),
        first,
        count,
        lambda given: taylor(body, mask, order, wanted, given).supports[:count],
        len(body.outputs),
    )
    return taylor(body, mask, order, wanted, supports), supports


def _in_groups(
    made: Taylor, supports: Supports, parts: Sequence[Sequence[int]], carry: int
) -> tuple[list[list[int]], list[int]]:
    """Positions in a body's Taylor graph so that all that belongs to a part stands together.

    Args:
        made: the body on polynomials.
        supports: its supports.
        parts: constants, carries and slices.
        carry: how many carries there are.

    Returns:
        The inputs of each part, and the outputs.
    """
    total, count = sum(map(len, parts)), len(made.active_outputs)
    ins = Order(total, made.active, supports.given, made.order)
    out = Order(count, made.active_outputs, made.supports, made.order)
    kept = {k for k in range(carry) if supports.given[parts[1][k]]}
    out.support = {k: i for k, i in out.support.items() if k in kept or k >= carry}
    outputs = [*out.group(range(carry)), *out.group(range(carry, count))]
    return [ins.group(part) for part in parts], outputs


def _scan(builder: Builder, eqn: Eqn, terms: Sequence[Series], order: int) -> list[Series]:
    (body,) = eqn.regions
    first, count = eqn.params["consts"], eqn.params["carry"]
    made, supports = _grown(body, terms, first, count, order)
    positions = range(len(terms))
    parts = [positions[:first], positions[first : first + count], positions[first + count :]]
    groups, outputs = _in_groups(made, supports, parts, count)
    inputs = [i for group in groups for i in group]
    flat = _flat(terms, made.active, supports.given)
    region = permuted(made.graph, inputs, outputs)
    params = {**eqn.params, "consts": len(groups[0]), "carry": len(groups[1])}
    results = builder.emit(eqn.op, [flat[i] for i in inputs], params, (region,), eqn.loc)
    return _results(builder, len(eqn.results), made, dict(zip(outputs, results, strict=True)))


def _while(builder: Builder, eqn: Eqn, terms: Sequence[Series], order: int) -> list[Series]:
    test, body = eqn.regions
    tests, consts = eqn.params["tests"], eqn.params["consts"]
    own = terms[tests:]
    count = len(own) - consts
    made, supports = _grown(body, own, consts, count, order)
    positions = range(len(own))
    groups, outputs = _in_groups(made, supports, [positions[:consts], positions[consts:]], count)
    inputs = [i for group in groups for i in group]
    flat = _flat(own, made.active, supports.given)
    region = permuted(made.graph, inputs, outputs)
    tested = Builder(test.name)
    given = [tested.input(value.aval, value.name) for value in test.inputs]
    for value in region.inputs[len(groups[0]) + count :]:
        tested.input(value.aval, value.name)
    new_test = tested.build(tested.inline(test, given))
    params = {**eqn.params, "consts": len(groups[0])}
    operands = [*(t.operand for t in terms[:tests]), *(flat[i] for i in inputs)]
    results = builder.emit(eqn.op, operands, params, (new_test, region), eqn.loc)
    return _results(builder, len(eqn.results), made, dict(zip(outputs, results, strict=True)))


TAYLOR_RULES.update(call=_call, checkpoint=_call, cond=_cond, scan=_scan)
TAYLOR_RULES["while"] = _while
