"""Running a ``while`` backwards from all that it keeps: one row in each store for each trip.

The primal loop is the loop itself, which counts its trips and keeps what the linear half reads of
each (the least that it follows from, see ``residuals``). The linear half is a ``scan`` over these
stores, of as many steps as there were trips, so that all further derivatives are those of scans.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from diffc.ir.aval import GROWING, aval
from diffc.ir.graph import Builder, Eqn, Graph, Literal, Operand, Value, literal
from diffc.ops.registry import find
from diffc.transforms.checkpoints import Loop, Undo, emit_while, region
from diffc.transforms.forward import Linearization
from diffc.transforms.residuals import minimized
from diffc.transforms.scan_rules import counted, permuted

_INT = aval("i64")


def linearized(
    builder: Builder,
    eqn: Eqn,
    operands: Sequence[Operand],
    dots: Mapping[int, Operand],
    halves: Linearization,
) -> tuple[Sequence[Operand], Sequence[Operand | None]]:
    """Emits the loop and the linear scan; ``halves`` are those of its body.

    Before: ``while(x; test, body)``, whose trips have residuals ``r`` and tangents linear in them.
    After: ``x, n, rs = while(x, 0; test, body')`` and ``x_dot = scan(n, x_dot, rs; linear)``.
    """
    first, consts = eqn.params["tests"] + eqn.params["consts"], eqn.params["consts"]
    carry, total = len(operands) - first, len(eqn.results)
    primal = halves.primal
    rows = (x for x in primal.outputs[carry:total] if isinstance(x, Value))
    halves = minimized(halves, {*primal.inputs[:consts], *rows})
    primal, residuals = halves.primal, halves.primal.outputs[total:]
    fixed = set(primal.inputs[:consts])
    same = [i for i, x in enumerate(residuals) if isinstance(x, Literal) or x in fixed]
    stored = [i for i in range(len(residuals)) if i not in same]
    returned = {x: k for k, x in enumerate(primal.outputs[carry:total])}
    new = [i for i in stored if residuals[i] not in returned]
    kept, steps, more = _emit_primal(builder, eqn, operands, primal, [total + i for i in new])
    own = dict(zip(new, more[total - carry :], strict=True))
    slices = [own[i] if i in own else more[returned[residuals[i]]] for i in stored]
    given = [_outside(residuals[i], operands[eqn.params["tests"] :]) for i in same]
    positions = [i for i, is_active in enumerate(halves.active) if is_active]
    places = {i: len(residuals) + n for n, i in enumerate(positions)}
    order = [*same, *(places[i] for i in positions), *stored]
    body = permuted(halves.linear, order, range(len(halves.linear.outputs)))
    tests = eqn.params["tests"]
    tangents = [dots.get(tests + i, literal(0, primal.inputs[i].aval)) for i in positions]
    count = sum(i < consts for i in positions)
    params = {
        "consts": 1 + len(same) + count,
        "carry": len(positions) - count,
        "length": GROWING,
        "reverse": False,
    }
    regions = (counted(body, _INT),)
    found = builder.emit(
        find("scan"), [steps, *given, *tangents, *slices], params, regions, eqn.loc
    )
    spread = iter(found)
    ends = [next(spread) if is_active else None for is_active in halves.active_outputs]
    return [*kept, *more[: total - carry]], ends


def _outside(residual: Operand, given: Sequence[Operand]) -> Operand:
    """What a residual is outside of the loop that is the same in all trips."""
    return residual if isinstance(residual, Literal) else given[residual.index]


def _emit_primal(
    builder: Builder, eqn: Eqn, operands: Sequence[Operand], primal: Graph, new: Sequence[int]
) -> tuple[tuple[Value, ...], Value, tuple[Value, ...]]:
    """The loop with new stores: its carries, the number of trips, and its stores."""
    test = eqn.regions[0]
    carry = len(test.inputs) - eqn.params["tests"]
    body = Graph(
        primal.name,
        primal.inputs,
        primal.eqns,
        (*primal.outputs[: len(eqn.results)], *(primal.outputs[i] for i in new)),
    )
    place = _counter(body, operands[len(operands) - carry :])
    if place is not None:
        results = builder.emit(eqn.op, operands, eqn.params, (test, body), eqn.loc)
        return results[:carry], results[place], results[carry:]
    inner = Builder(primal.name)
    given: list[Operand] = [inner.input(value.aval, value.name) for value in primal.inputs]
    trips = inner.input(_INT, "trips")
    found = inner.inline(body, given)
    (following,) = inner.emit(find("add"), (trips, literal(1, _INT)))
    body = inner.build([*found[:carry], following, *found[carry:]])
    tested = Builder(test.name)
    inputs = [tested.input(value.aval, value.name) for value in test.inputs]
    tested.input(_INT, "trips")
    regions = (tested.build(tested.inline(test, inputs)), body)
    results = builder.emit(eqn.op, [*operands, literal(0, _INT)], eqn.params, regions, eqn.loc)
    return results[:carry], results[carry], results[carry + 1 :]


def _counter(body: Graph, initial: Sequence[Operand]) -> int | None:
    """The carry that counts the trips already: it starts at zero, and each trip adds one."""
    zero, one = literal(0, _INT), literal(1, _INT)
    formals = body.inputs[len(body.inputs) - len(initial) :]
    for k, (start, formal, output) in enumerate(zip(initial, formals, body.outputs, strict=False)):
        if start is not zero or not isinstance(output, Value) or output.eqn is None:
            continue
        if output.eqn.op.name == "add" and set(output.eqn.operands) == {formal, one}:
            return k
    return None


def reversed_rows(
    builder: Builder,
    loop: Loop,
    undo: Undo,
    consts: Sequence[Operand],
    rows: Sequence[Operand],
    cts: Sequence[Operand],
) -> tuple[Operand, ...]:
    """Emits the loop forward, all of its carries kept, and the scan that undoes its trips.

    Args:
        builder: where to.
        loop: the loop forward.
        undo: what to do for each trip; see ``checkpoints.reversed_steps``. Its cotangents are a row
            of each of ``rows``, then ``cts``.
        consts: constants of ``undo``.
        rows: stores of cotangents.
        cts: what is carried from trip to trip, backwards.

    Returns:
        The last ``cts``.
    """
    tests, own, count = len(loop.tests), len(loop.consts), len(loop.carry)

    def test(inner: Builder, fixed: list[Operand], moving: list[Operand]) -> Sequence[Operand]:
        return inner.inline(loop.test, [*fixed, *moving[:count]])

    def body(inner: Builder, fixed: list[Operand], moving: list[Operand]) -> Sequence[Operand]:
        following = inner.inline(loop.body, [*fixed, *moving[:count]])
        (trips,) = inner.emit(find("add"), (moving[count], literal(1, _INT)))
        return [*following, trips, *moving[:count]]

    def step(inner: Builder, fixed: list[Operand], moving: list[Operand]) -> Sequence[Operand]:
        now, carry = moving[: len(cts)], moving[len(cts) : len(cts) + count]
        return undo(inner, fixed[1:], carry, [*moving[len(cts) + count :], *now])

    assert len(loop.test.inputs) == tests + count and len(loop.body.inputs) == own + count
    found = emit_while(
        builder,
        f"{loop.body.name}_kept",
        test,
        body,
        loop.tests,
        loop.consts,
        [*loop.carry, literal(0, _INT)],
        slots=0,
    )
    given, slices = [found[count], *consts], [*found[count + 1 :], *rows]
    lent = [*cts, *(_row(x) for x in slices)]
    regions = (region(builder, f"{loop.body.name}_reversed", step, given, lent),)
    params = {"consts": len(given), "carry": len(cts), "length": GROWING, "reverse": True}
    return builder.emit(find("scan"), [*given, *cts, *slices], params, regions)


def _row(store: Operand) -> Operand:
    """A value that lends the aval of a store's rows."""
    name = store.name if isinstance(store, Value) else ""
    return Value(store.aval.with_shape(store.aval.shape[1:]), None, 0, name)
