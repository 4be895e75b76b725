"""``batch``: a graph that does for a whole batch what a graph does for one.

Before: ``f(x: f32[3], w: f32[3]) = sum(x * w)``. After, with ``x`` batched by 8:
``f(x: f32[8,3], w: f32[3]) = sum(x * broadcast(w), axes=[1])``. The batch is the first axis of
every batched value, and of the rows of a store (behind its last axis that grows); what no batched
input reaches stays as it is. What an equation becomes is a facet of its op; region ops get batched
regions. Which carries of a scan are batched is a fixpoint. Where a batch can't go one way, the
result carries a note that says so.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from diffc.errors import InternalError
from diffc.ir.aval import GROWING, Aval, aval
from diffc.ir.graph import Builder, Eqn, Graph, Literal, Operand, literal, prune
from diffc.ir.note import Note
from diffc.ops.batching import Batched, from_front, spread_front, to_front
from diffc.ops.term import GraphTerm

if TYPE_CHECKING:
    from diffc.ir.index import Dim

Mask = tuple[bool, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """``graph`` on inputs with a batch axis in front, where ``inputs`` says so.

    ``outputs`` says which of its outputs have a batch axis in front; ``notes``, where elements go
    different ways, here and within regions.
    """

    graph: Graph
    inputs: Mask
    outputs: Mask
    size: Dim
    notes: tuple[Note, ...] = ()


#: a region op's rule: (builder, eqn, operands, which are batched, size) -> (results, which are
#: batched).
RegionRule = Callable[
    [Builder, Eqn, Sequence[Operand], Mask, "Dim"], tuple[Sequence[Operand], Sequence[bool]]
]
BATCH_RULES: dict[str, RegionRule] = {}

_BATCHES: WeakKeyDictionary[Graph, dict[tuple[Mask, Mask, Dim], Batch]] = WeakKeyDictionary()

#: the notes of the graph that is being batched; keys, as each is taken once
_NOTES: ContextVar[dict[Note, None] | None] = ContextVar("notes", default=None)


def note(eqn: Eqn, message: str) -> None:
    """Says something of an equation that is being batched."""
    notes = _NOTES.get()
    assert notes is not None, "batching rules run within batch"
    notes[Note(eqn.loc, message)] = None


def batch(
    graph: Graph, mask: Sequence[bool], size: Dim, instantiate: Sequence[bool] | None = None
) -> Batch:
    """Batches a graph.

    Args:
        graph: what is to be done for each element of the batch.
        mask: which inputs are batched; they get a new first axis.
        size: length of that axis.
        instantiate: outputs that get a batch axis even if no batched input reaches them.
    """
    inputs = tuple(mask)
    wanted = (False,) * len(graph.outputs) if instantiate is None else tuple(instantiate)
    known = _BATCHES.setdefault(graph, {})
    key = (inputs, wanted, size)
    found = known.get(key)
    if found is None:
        token = _NOTES.set({})
        try:
            found = known[key] = _batch(graph, inputs, wanted, size)
        finally:
            _NOTES.reset(token)
    notes = _NOTES.get()
    if notes is not None:  # of the graph around
        notes.update(dict.fromkeys(found.notes))
    return found


def _batch(graph: Graph, mask: Mask, wanted: Mask, size: Dim) -> Batch:
    builder = Builder(f"{graph.name}_batch")
    env: dict[Operand, Operand] = {}
    batched: set[Operand] = set()
    for value, is_batched in zip(graph.inputs, mask, strict=True):
        given = value.aval
        if is_batched:
            given = with_batch(given, size)
            batched.add(value)
        env[value] = builder.input(given, value.name)
    for eqn in graph.eqns:
        flags = tuple(operand in batched for operand in eqn.operands)
        if not any(flags):
            builder.copy(eqn, env)
            continue
        builder.loc = eqn.loc
        operands = [env.get(operand, operand) for operand in eqn.operands]
        results, on = _batch_eqn(builder, eqn, operands, flags, size)
        for old, new, is_batched in zip(eqn.results, results, on, strict=True):
            env[old] = new
            if is_batched:
                batched.add(old)
    outputs = [env.get(output, output) for output in graph.outputs]
    found = tuple(output in batched for output in graph.outputs)
    outputs = [
        _spread(builder, output, size) if want and not on else output
        for output, want, on in zip(outputs, wanted, found, strict=True)
    ]
    both = tuple(map(bool.__or__, wanted, found))
    return Batch(prune(builder.build(outputs)), mask, both, size, tuple(_NOTES.get() or ()))


def _batch_eqn(
    builder: Builder, eqn: Eqn, operands: Sequence[Operand], mask: Mask, size: Dim
) -> tuple[Sequence[Operand], Sequence[bool]]:
    if eqn.op.is_regional:
        return BATCH_RULES[eqn.op.name](builder, eqn, operands, mask, size)
    if eqn.op.batching is None:
        raise InternalError(f"op {eqn.op.name} has no batching")
    terms = tuple(GraphTerm(builder, operand) for operand in operands)
    result: GraphTerm = eqn.op.batching(Batched(eqn.op.name, terms, mask, size, eqn.params))
    needed = (size, *eqn.result.aval.shape)
    if result.aval is not eqn.result.aval.with_shape(needed):
        raise InternalError(f"batching {eqn.op.name} gives {result.aval}, needs shape {needed}")
    return (result.operand,), (True,)


def with_batch(given: Aval, size: Dim) -> Aval:
    """An aval with a batch axis: in front, or behind the last axis of a store that grows."""
    last = max((k + 1 for k, dim in enumerate(given.shape) if dim is GROWING), default=0)
    return given.with_shape((*given.shape[:last], size, *given.shape[last:]))


def _spread(builder: Builder, operand: Operand, size: Dim) -> Operand:
    if operand.aval.is_store:
        if isinstance(operand, Literal):
            return literal(0, with_batch(operand.aval, size))
        raise InternalError(f"a store can't be repeated for a batch: {operand!r}")
    return spread_front(GraphTerm(builder, operand), size).operand


# --- region ops -------------------------------------------------------------------------------


def batch_call(
    builder: Builder, eqn: Eqn, operands: Sequence[Operand], mask: Mask, size: Dim
) -> tuple[Sequence[Operand], Sequence[bool]]:
    """A call of the batched callee."""
    (callee,) = eqn.regions
    made = batch(callee, mask, size)
    return builder.emit(eqn.op, operands, eqn.params, (made.graph,), eqn.loc), made.outputs


def _batch_scan(
    builder: Builder, eqn: Eqn, operands: Sequence[Operand], mask: Mask, size: Dim
) -> tuple[Sequence[Operand], Sequence[bool]]:
    """One scan of the batched body; slices and stacks have the batch behind the steps."""
    if eqn.params["length"] is GROWING and mask[0] and not operands[0].aval.is_store:
        return _batch_counted(builder, eqn, operands, mask, size)
    (body,) = eqn.regions
    first, count = eqn.params["consts"], eqn.params["carry"]
    last = first + count
    flags = list(mask)
    while True:
        made = batch(body, flags, size)
        grown = list(map(bool.__or__, flags[first:last], made.outputs[:count]))
        if grown == flags[first:last]:
            break
        flags[first:last] = grown
    stays = [False] * (len(body.outputs) - count)
    made = batch(body, flags, size, [*grown, *stays])
    given: list[Operand] = []
    for i, (operand, was, on) in enumerate(zip(operands, mask, flags, strict=True)):
        term = GraphTerm(builder, operand)
        if on and not was:
            term = spread_front(term, size)
        if on and i >= last and not operand.aval.is_store:
            term = from_front(term, 1)
        given.append(term.operand)
    results = builder.emit(eqn.op, given, eqn.params, (made.graph,), eqn.loc)
    moved = [
        to_front(GraphTerm(builder, result), 1).operand
        if on and i >= count and not result.aval.is_store
        else result
        for i, (result, on) in enumerate(zip(results, made.outputs, strict=True))
    ]
    return moved, made.outputs


def _batch_counted(
    builder: Builder, eqn: Eqn, operands: Sequence[Operand], mask: Mask, size: Dim
) -> tuple[Sequence[Operand], Sequence[bool]]:
    """A scan of length ``*`` whose elements have a number of steps each.

    As many steps as the longest has. An element that has no such step keeps its carries; its rows
    are never read, as whoever runs over them has the same numbers.
    """
    (body,) = eqn.regions
    first, count = eqn.params["consts"], eqn.params["carry"]
    last = first + count
    flags = [True if first <= i < last else on for i, on in enumerate(mask)]
    made = batch(body, flags, size, [i < count for i in range(len(body.outputs))])
    total = GraphTerm(builder, literal(0, aval("i64")))
    if size != 0:
        total = GraphTerm(builder, operands[0]).call("max", axes=(0,))
    region = _where_counted(made.graph, first, count, eqn.params["reverse"])
    carried = [
        operand if on else spread_front(GraphTerm(builder, operand), size).operand
        for operand, on in zip(operands[first:last], mask[first:last], strict=True)
    ]
    start = total - 1 if eqn.params["reverse"] else total.lift(0)
    given = [total.operand, *operands[:first], *carried, start.operand, *operands[last:]]
    params = {**eqn.params, "consts": first + 1, "carry": count + 1}
    results = builder.emit(eqn.op, given, params, (region,), eqn.loc)
    return [*results[:count], *results[count + 1 :]], made.outputs


def _where_counted(body: Graph, first: int, count: int, is_reverse: bool) -> Graph:
    """The body for those elements that have the step; takes all steps, and carries the step."""
    builder = Builder(body.name)
    integer = aval("i64")
    builder.input(integer, "steps")
    given = [builder.input(value.aval, value.name) for value in body.inputs[: first + count]]
    step = GraphTerm(builder, builder.input(integer, "step"))
    given += [builder.input(value.aval, value.name) for value in body.inputs[first + count :]]
    found = builder.inline(body, given)
    counts = GraphTerm(builder, given[0])
    here = step.call("broadcast", shape=counts.aval.shape, axes=()) < counts
    kept = [
        where_batch(here, GraphTerm(builder, new), GraphTerm(builder, old)).operand
        for new, old in zip(found[:count], given[first:], strict=False)
    ]
    following = step - 1 if is_reverse else step + 1
    return builder.build([*kept, following.operand, *found[count:]])


def where_batch(condition: GraphTerm, on_true: GraphTerm, on_false: GraphTerm) -> GraphTerm:
    """Selection by a condition on the batch alone."""
    shape = on_true.aval.shape
    if condition.aval.shape != shape:
        condition = condition.call("broadcast", shape=shape, axes=(0,))
    return condition.call("select", on_true, on_false)


BATCH_RULES.update(call=batch_call, scan=_batch_scan)
