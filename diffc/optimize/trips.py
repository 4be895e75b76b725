"""Contractions of all trips of a loop at once: before it, or after it.

A trip's contraction reads its constant, or adds to its sum, in full, however few rows it has; that
of all trips does so once. What it reads or gives is then stacked, a slice for each trip: only where
that moves less than it saves, and where the stacks are not much larger than those that are there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from math import inf
from string import ascii_letters

from diffc.ir.aval import Aval
from diffc.ir.graph import Builder, Eqn, Graph, Operand, Value, rebuild, uses
from diffc.ir.index import Dim
from diffc.ops.contraction import split
from diffc.optimize.edit import emit_one, keep

GAIN = 8
"""So much larger is what stays in place than what is stacked instead. With less, a trip has enough
rows to run fast, and the stacks only cost."""
ROOM = 16 * 2**20
"""Bytes that may be stacked anyway; more must not exceed what the loop stacks already."""

Step = Callable[[Builder, Eqn, dict[Operand, Operand]], None]


def _with(graph: Graph, change: Callable[[Eqn], Step | None]) -> Graph:
    """The graph with its loops of several trips changed."""
    steps: dict[Eqn, Step] = {}
    for eqn in graph.eqns:
        length = eqn.params.get("length")
        if eqn.op.name == "scan" and isinstance(length, int) and length > 1:
            found = change(eqn)
            if found is not None:
                steps[eqn] = found
    if not steps:
        return graph
    return rebuild(graph, lambda builder, eqn, env: steps.get(eqn, keep)(builder, eqn, env))


def _size(avals: Iterable[Aval]) -> float:
    """Elements; infinitely many where that is not known, so that nothing is stacked."""
    return sum(aval.size if isinstance(aval.size, int) else inf for aval in avals)


def _bytes(avals: Iterable[Aval]) -> float:
    return sum(aval.nbytes if isinstance(aval.nbytes, int) else inf for aval in avals)


def _room(eqn: Eqn) -> float:
    """Bytes that a loop may stack besides."""
    first, carry = eqn.params["consts"] + eqn.params["carry"], eqn.params["carry"]
    stacks = [x.aval for x in eqn.operands[first:]] + [y.aval for y in eqn.results[carry:]]
    return max(ROOM, _bytes(stacks))


def _by_trip(spec: str, sides: Sequence[bool], *, is_summed: bool) -> str:
    """The spec with a letter in front for the trips, in the operands that have one."""
    letter = next(letter for letter in ascii_letters if letter not in spec)
    left, right = (
        letter + label if has else label for label, has in zip(split(spec)[:2], sides, strict=True)
    )
    return f"{left},{right}->{'' if is_summed else letter}{split(spec)[2]}"


def _origin(operand: Operand) -> Operand:
    """What an operand is, but for its shape."""
    while isinstance(operand, Value) and operand.eqn is not None:
        if operand.eqn.op.name != "reshape":
            break
        (operand,) = operand.eqn.operands
    return operand


def _shaped(builder: Builder, operand: Operand, shape: tuple[Dim, ...]) -> Operand:
    """The operand in another shape, if need be."""
    if operand.aval.shape == shape:
        return operand
    return emit_one(builder, "reshape", operand, shape=shape)


# --- before the loop --------------------------------------------------------------------------


def contract_before_scan(graph: Graph) -> Graph:
    """Contractions of slices with constants of a loop are one contraction before it.

    Before: ``scan(w, h, xs) {.. contract(x, w; "ij,jk->ik") ..}``. After: ``contract(xs, w;
    "aij,jk->aik")``, the slices of which the loop is given. The sums stay, and their order is that
    within a contraction. Where the constant is `GAIN` times as large as the slice of the result.
    """
    return _with(graph, _before)


def _before(eqn: Eqn) -> Step | None:
    (body,) = eqn.regions
    consts, first = eqn.params["consts"], eqn.params["consts"] + eqn.params["carry"]
    place: dict[Operand, int] = {value: i for i, value in enumerate(body.inputs)}
    length, room = eqn.params["length"], _room(eqn)
    found: list[Eqn] = []
    for inner in body.eqns:
        if inner.op.name != "contract":
            continue
        at = [place.get(_origin(x), -1) for x in inner.operands]
        slices, fixed = [i for i in at if i >= first], [i for i in at if 0 <= i < consts]
        nbytes = length * _bytes([inner.result.aval])
        if len(slices) != 1 or len(fixed) != 1 or nbytes > room:
            continue
        if GAIN * _size([inner.result.aval]) <= _size([body.inputs[fixed[0]].aval]):
            found.append(inner)
            room -= nbytes
    if not found:
        return None

    def step(builder: Builder, eqn: Eqn, env: dict[Operand, Operand]) -> None:
        operands = [env.get(operand, operand) for operand in eqn.operands]
        inside = Builder(body.name)
        known: dict[Operand, Operand] = {x: inside.input(x.aval, x.name) for x in body.inputs}
        for inner in found:
            builder.loc = inner.loc
            at = [place[_origin(x)] for x in inner.operands]
            spec = _by_trip(inner.params["spec"], [i >= first for i in at], is_summed=False)
            sides = []
            for i, x in zip(at, inner.operands, strict=True):
                shape = (length, *x.aval.shape) if i >= first else x.aval.shape
                sides.append(_shaped(builder, operands[i], shape))
            stacked = emit_one(builder, "contract", *sides, spec=spec)
            operands.append(stacked)
            known[inner.result] = inside.input(inner.result.aval, inner.result.name)
        for inner in body.eqns:
            if inner not in found:
                inside.loc = inner.loc
                inside.copy(inner, known)
        changed = inside.build(known.get(output, output) for output in body.outputs)
        results = builder.emit(eqn.op, operands, eqn.params, (changed,), eqn.loc)
        env.update(zip(eqn.results, results, strict=True))

    return step


# --- after the loop ---------------------------------------------------------------------------


def contract_after_scan(graph: Graph) -> Graph:
    """Sums of the contractions of all trips are one contraction after the loop.

    Before: ``scan(.., w, ..) {.. add(w, contract(x, g; "ij,ik->jk")) ..}``, the gradient by a
    weight that every trip uses; nothing else reads the carry. After: the loop stacks ``x`` and
    ``g`` where it is not given them as slices, and ``add(w, contract(xs, gs; "aij,aik->jk"))``.
    Where the sum is `GAIN` times as large as the slices that are stacked for it.
    """
    return _with(graph, _after)


def _after(eqn: Eqn) -> Step | None:
    (body,) = eqn.regions
    consts, carry = eqn.params["consts"], eqn.params["carry"]
    first, length, room = consts + carry, eqn.params["length"], _room(eqn)
    counts = uses(body)
    slices: dict[Operand, Operand] = dict(
        zip(body.inputs[first:], eqn.operands[first:], strict=True)
    )
    stacked: list[Operand] = list(body.outputs[carry:])
    found: dict[int, Eqn] = {}
    for k in range(carry):
        inner = _added(body, consts, k, counts)
        if inner is None:
            continue
        origins = dict.fromkeys(map(_origin, inner.operands))
        new = [x for x in origins if x not in slices and x not in stacked]
        avals = [x.aval for x in new]
        nbytes = length * _bytes(avals)
        if nbytes > room or GAIN * _size(avals) > _size([inner.result.aval]):
            continue
        room -= nbytes
        stacked += new
        found[k] = inner
    if not found:
        return None

    def step(builder: Builder, eqn: Eqn, env: dict[Operand, Operand]) -> None:
        operands = [env.get(operand, operand) for operand in eqn.operands]
        inside = Builder(body.name)
        known: dict[Operand, Operand] = {}
        dropped = {consts + k for k in found}
        sums = {body.outputs[k] for k in found} | {inner.result for inner in found.values()}
        for i, value in enumerate(body.inputs):
            if i not in dropped:
                known[value] = inside.input(value.aval, value.name)
        for inner in body.eqns:
            if sums.isdisjoint(inner.results):
                inside.loc = inner.loc
                inside.copy(inner, known)
        others = [k for k in range(carry) if k not in found]
        outputs = [*(body.outputs[k] for k in others), *stacked]
        changed = inside.build(known.get(output, output) for output in outputs)
        params = {**eqn.params, "carry": len(others)}
        left = [operand for i, operand in enumerate(operands) if i not in dropped]
        results = builder.emit(eqn.op, left, params, (changed,), eqn.loc)
        ys = results[len(others) :]
        env.update((eqn.results[k], result) for k, result in zip(others, results, strict=False))
        env.update(zip(eqn.results[carry:], ys, strict=False))
        for k, inner in found.items():
            spec = _by_trip(inner.params["spec"], [True, True], is_summed=True)
            sides = []
            for x in inner.operands:
                at = _origin(x)
                side = ys[stacked.index(at)] if at in stacked else env.get(slices[at], slices[at])
                sides.append(_shaped(builder, side, (length, *x.aval.shape)))
            builder.loc = inner.loc
            total = emit_one(builder, "contract", *sides, spec=spec)
            env[eqn.results[k]] = emit_one(builder, "add", operands[consts + k], total)

    return step


def _added(body: Graph, consts: int, k: int, counts: dict[Value, int]) -> Eqn | None:
    """The contraction that a carry is only added to."""
    carried, result = body.inputs[consts + k], body.outputs[k]
    if not isinstance(result, Value) or result.eqn is None or result.eqn.op.name != "add":
        return None
    if counts.get(carried) != 1 or counts[result] != 1 or carried not in result.eqn.operands:
        return None
    (term,) = (x for x in result.eqn.operands if x is not carried)
    if not isinstance(term, Value) or term.eqn is None or counts[term] != 1:
        return None
    inner = term.eqn
    if inner.op.name != "contract":
        return None
    origins = [_origin(x) for x in inner.operands]
    fixed = body.inputs[:consts]
    is_plain = all(isinstance(x, Value) and x not in fixed for x in origins)
    return inner if is_plain else None
