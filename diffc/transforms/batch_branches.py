"""Batching of ``cond`` and ``while``.

If all elements take the same way, the op stays what it is, with batched regions. If they differ, a
``cond`` computes all branches and selects; a ``while`` runs as long as any element wants to, and
those that are done keep their values. Both are noted. What such a loop keeps for an element that is
done is never read: all who run over it have the element's number of trips.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from diffc.errors import InternalError
from diffc.ir.graph import Builder, Eqn, Graph, Literal, Operand
from diffc.ops.batching import spread_front
from diffc.ops.term import GraphTerm
from diffc.transforms.batch import BATCH_RULES, Mask, batch, note, where_batch

if TYPE_CHECKING:
    from diffc.ir.index import Dim

Found = tuple[Sequence[Operand], Sequence[bool]]

BRANCHES = "all {} branches of this choice are computed, as what chooses differs within the batch"
LOOP = "this loop runs until the last element of the batch is done, as its test differs within it"


def _batch_cond(
    builder: Builder, eqn: Eqn, operands: Sequence[Operand], mask: Mask, size: Dim
) -> Found:
    index, given = GraphTerm(builder, operands[0]), operands[1:]
    if mask[0]:
        note(eqn, BRANCHES.format(len(eqn.regions)))
        wanted = [True] * len(eqn.results)
        made = [batch(region, mask[1:], size, wanted).graph for region in eqn.regions]
        found = [builder.inline(graph, given) for graph in made]
        return [_chosen(index, column) for column in zip(*found, strict=True)], wanted
    masks = [batch(region, mask[1:], size).outputs for region in eqn.regions]
    joined = [any(column) for column in zip(*masks, strict=True)]
    regions = tuple(batch(region, mask[1:], size, joined).graph for region in eqn.regions)
    return builder.emit(eqn.op, operands, eqn.params, regions, eqn.loc), joined


def _chosen(index: GraphTerm, results: Sequence[Operand]) -> Operand:
    """Of each element, the result that its index names; indices are clamped."""
    if results[0].aval.is_store:
        return _only(results)
    found, *others = (GraphTerm(index.builder, result) for result in results)
    if index.aval.dtype == "bool":
        return (where_batch(index, others[0], found) if others else found).operand
    for k, term in enumerate(others, 1):
        found = where_batch(index.call("ge", k), term, found)
    return found.operand


def _only(stores: Sequence[Operand]) -> Operand:
    """The store that one branch keeps, and no other; those that didn't take it never read it."""
    found = [store for store in stores if not isinstance(store, Literal)]
    if len(found) > 1:
        raise InternalError("two branches of a batched cond return a store")
    return (found or stores)[0]


def _batch_while(
    builder: Builder, eqn: Eqn, operands: Sequence[Operand], mask: Mask, size: Dim
) -> Found:
    test, body = eqn.regions
    tests = eqn.params["tests"]
    first = tests + eqn.params["consts"]
    flags = list(mask)
    while True:
        differ = batch(test, [*flags[:tests], *flags[first:]], size).outputs[0]
        made = batch(body, flags[tests:], size)
        found = made.outputs[: len(flags) - first]
        grown = [on or now or differ for on, now in zip(flags[first:], found, strict=True)]
        if grown == flags[first:]:
            break
        flags[first:] = grown
    rows = len(body.outputs) - len(grown)
    made = batch(body, flags[tests:], size, [*grown, *(False for _ in range(rows))])
    tested = batch(test, [*flags[:tests], *flags[first:]], size).graph
    carried = [
        spread_front(GraphTerm(builder, x), size).operand if on and not was else x
        for x, on, was in zip(operands[first:], grown, mask[first:], strict=True)
    ]
    params = dict(eqn.params)
    consts = list(operands[tests:first])
    regions = tested, made.graph
    if differ:
        note(eqn, LOOP)
        consts = [*operands[:tests], *consts]
        params["consts"] = len(consts)
        regions = _any(tested), _where_tested(tested, made.graph, tests, first)
    given = [*operands[:tests], *consts, *carried]
    return builder.emit(eqn.op, given, params, regions, eqn.loc), made.outputs


def _any(tested: Graph) -> Graph:
    """Whether any element wants to go on."""
    builder = Builder(tested.name)
    inputs = [builder.input(value.aval, value.name) for value in tested.inputs]
    (again,) = builder.inline(tested, inputs)
    return builder.build([GraphTerm(builder, again).call("any", axes=(0,)).operand])


def _where_tested(tested: Graph, body: Graph, tests: int, first: int) -> Graph:
    """The body for those elements that want to go on; it takes what the test takes, too."""
    builder = Builder(body.name)
    own = [builder.input(value.aval, value.name) for value in tested.inputs[:tests]]
    rest = [builder.input(value.aval, value.name) for value in body.inputs]
    carried = rest[first - tests :]
    (again,) = builder.inline(tested, [*own, *carried])
    found = builder.inline(body, rest)
    condition = GraphTerm(builder, again)
    kept = [
        where_batch(condition, GraphTerm(builder, new), GraphTerm(builder, old)).operand
        for new, old in zip(found, carried, strict=False)
    ]
    return builder.build([*kept, *found[len(carried) :]])


BATCH_RULES["cond"] = _batch_cond
BATCH_RULES["while"] = _batch_while
