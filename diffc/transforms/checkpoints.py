"""Running a ``while`` backwards: checkpoints in a fixed number of slots, built from plain ops.

A loop of unknown length can't keep all that it passes through. So the forward pass keeps some
carries, and the backward pass computes those between again, from the nearest one before.

Forward (:func:`checkpointed`): checkpoints stand at every ``stride`` steps, from 0 on; the stride
starts at 1. When half of the slots are full, every second checkpoint is dropped, and the stride
doubles. The other half is left to the backward pass.

Backward (:func:`reversed_steps`): the checkpoints are a stack, the latest on top. To undo step t,
the carry before it must be on top: as long as it is not, the loop runs on from the top and pushes a
checkpoint on the way, where the binomial rule of Griewank ("Achieving logarithmic growth of
temporal and spatial complexity in reverse automatic differentiation", 1992) puts it: with s slots,
binomial(s + r, s) steps can be undone if none is run more than r times. Then the step is undone,
and its checkpoint taken off.

All loops are ``while`` equations on slots that are updated in place.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from diffc.ir.aval import aval
from diffc.ir.graph import Builder, Graph, Operand, Value, literal
from diffc.ops.branching import default_slots
from diffc.ops.registry import find
from diffc.ops.term import GraphTerm

INT = aval("i64")

#: columns of the table of binomials, at most: how often steps are run again, by the rule
_REPEATS = 32
_LARGEST, _LONG = 1 << 62, 1 << 40


@dataclass(frozen=True, slots=True)
class Loop:
    """A ``while`` on given operands.

    ``test`` takes ``tests`` and the carries, ``body`` takes ``consts`` and the carries. ``slots``
    is 0 where all is kept.
    """

    test: Graph
    body: Graph
    tests: tuple[Operand, ...]
    consts: tuple[Operand, ...]
    carry: tuple[Operand, ...]
    slots: int

    @property
    def rows(self) -> int:
        """Slots, and one more for the carry of the step that is being undone."""
        return self.slots + 1

    @property
    def first_rows(self) -> int:
        """How many of them the forward pass fills: an even number."""
        return max(2, self.slots // 4 * 2)


@dataclass(frozen=True, slots=True)
class Checkpoints:
    """What the forward pass leaves: counts, the slots of each carry, and the last carries."""

    steps: Operand
    count: Operand
    stride: Operand
    slots: tuple[Operand, ...]
    carry: tuple[Operand, ...]


Body = Callable[[Builder, list[Operand], list[Operand]], Sequence[Operand]]


def emit_while(
    builder: Builder,
    name: str,
    test: Body,
    body: Body,
    tests: Sequence[Operand],
    consts: Sequence[Operand],
    carry: Sequence[Operand],
    slots: int,
) -> tuple[Value, ...]:
    """Emits a ``while`` whose regions are built by functions of (builder, constants, carries).

    With ``slots`` 0 it keeps all, and only then it has results beyond its carries; else it has at
    most as many, so that derivatives of derivatives keep to what the user's loop may keep.
    """
    regions = (
        region(builder, f"{name}_test", test, tests, carry),
        region(builder, name, body, consts, carry),
    )
    params = {
        "tests": len(tests),
        "consts": len(consts),
        "slots": min(slots, default_slots(x.aval for x in carry)) if slots else None,
    }
    return builder.emit(find("while"), [*tests, *consts, *carry], params, regions)


def region(
    outer: Builder, name: str, build: Body, consts: Sequence[Operand], carry: Sequence[Operand]
) -> Graph:
    """A region that takes what lends its avals and names, built by a function."""
    builder = Builder(name)
    builder.loc = outer.loc
    fixed: list[Operand] = [builder.input(x.aval, x.name_hint) for x in map(_Named, consts)]
    moving: list[Operand] = [builder.input(x.aval, x.name_hint) for x in map(_Named, carry)]
    return builder.build(build(builder, fixed, moving))


class _Named:
    """The aval and name that an operand lends to an input."""

    __slots__ = ("aval", "name_hint")

    def __init__(self, operand: Operand) -> None:
        self.aval = operand.aval
        self.name_hint = operand.name if isinstance(operand, Value) and operand.name else "x"


def _number(builder: Builder, value: int) -> GraphTerm:
    return GraphTerm(builder, literal(value, INT))


# --- slots ------------------------------------------------------------------------------------


def _empty(rows: int, operand: Operand) -> Operand:
    return literal(0, operand.aval.with_shape((rows, *operand.aval.shape)))


def _put(builder: Builder, slots: Operand, place: Operand, value: Operand) -> Operand:
    """The slots with one replaced."""
    row = GraphTerm(builder, value).call("reshape", shape=(1, *value.aval.shape))
    zeros = [literal(0, INT)] * value.aval.ndim
    operands = (slots, row.operand, place, *zeros)
    return builder.emit(find("dynamic_update_slice"), operands)[0]


def _get(builder: Builder, slots: Operand, place: Operand) -> Operand:
    """What one slot holds."""
    shape = slots.aval.shape[1:]
    zeros = [literal(0, INT)] * len(shape)
    sizes = {"sizes": (1, *shape)}
    (row,) = builder.emit(find("dynamic_slice"), (slots, place, *zeros), sizes)
    return GraphTerm(builder, row).call("reshape", shape=shape).operand


# --- forward ----------------------------------------------------------------------------------


def checkpointed(builder: Builder, loop: Loop) -> Checkpoints:
    """Emits the loop, with checkpoints on the way."""
    tests, half = len(loop.tests), loop.first_rows // 2

    def test(inner: Builder, fixed: list[Operand], moving: list[Operand]) -> Sequence[Operand]:
        return inner.inline(loop.test, [*fixed, *moving[-len(loop.carry) or len(moving) :]])

    def body(inner: Builder, fixed: list[Operand], moving: list[Operand]) -> Sequence[Operand]:
        steps, count, stride = (GraphTerm(inner, x) for x in moving[:3])
        slots, carry = _halved(moving[3:])
        is_full = count.eq(loop.first_rows)
        last = is_full.call("select", _number(inner, half), _number(inner, 1))
        slots = _thinned(inner, loop, slots, last.operand)
        count = is_full.call("select", _number(inner, half), count)
        stride = is_full.call("select", stride + stride, stride)
        slots = [_put(inner, s, count.operand, c) for s, c in zip(slots, carry, strict=True)]
        ran, *following = _stride(inner, loop, fixed[:tests], fixed[tests:], stride, carry)
        total = steps + GraphTerm(inner, ran)
        return [total.operand, (count + 1).operand, stride.operand, *slots, *following]

    initial: list[Operand] = [literal(n, INT) for n in (0, 0, 1)]
    initial += [_empty(loop.rows, x) for x in loop.carry]
    found = emit_while(
        builder,
        f"{loop.body.name}_checkpointed",
        test,
        body,
        loop.tests,
        [*loop.tests, *loop.consts],
        [*initial, *loop.carry],
        loop.slots,
    )
    slots, carry = _halved(list(found[3:]))
    return Checkpoints(found[0], found[1], found[2], tuple(slots), tuple(carry))


def _halved(items: list[Operand]) -> tuple[list[Operand], list[Operand]]:
    middle = len(items) // 2
    return items[:middle], items[middle:]


def _thinned(builder: Builder, loop: Loop, slots: list[Operand], last: Operand) -> list[Operand]:
    """Moves every second slot to the front, up to place ``last``."""

    def test(inner: Builder, fixed: list[Operand], moving: list[Operand]) -> Sequence[Operand]:
        return [(GraphTerm(inner, moving[0]) < GraphTerm(inner, fixed[0])).operand]

    def body(inner: Builder, fixed: list[Operand], moving: list[Operand]) -> Sequence[Operand]:
        place, *own = moving
        source = (GraphTerm(inner, place) * 2).operand
        moved = [_put(inner, s, place, _get(inner, s, source)) for s in own]
        return [(GraphTerm(inner, place) + 1).operand, *moved]

    carry = [literal(1, INT), *slots]
    found = emit_while(builder, "thin", test, body, [last], [], carry, loop.slots)
    return list(found[1:])


def _stride(
    builder: Builder,
    loop: Loop,
    tests: Sequence[Operand],
    consts: Sequence[Operand],
    stride: GraphTerm,
    carry: Sequence[Operand],
) -> tuple[Value, ...]:
    """Runs up to ``stride`` steps of the loop; gives their number and the carries."""

    def test(inner: Builder, fixed: list[Operand], moving: list[Operand]) -> Sequence[Operand]:
        (again,) = inner.inline(loop.test, [*fixed[1:], *moving[1:]])
        is_below = GraphTerm(inner, moving[0]) < GraphTerm(inner, fixed[0])
        return [(is_below & GraphTerm(inner, again)).operand]

    def body(inner: Builder, fixed: list[Operand], moving: list[Operand]) -> Sequence[Operand]:
        following = inner.inline(loop.body, [*fixed, *moving[1:]])
        return [(GraphTerm(inner, moving[0]) + 1).operand, *following]

    given = [literal(0, INT), *carry]
    name = f"{loop.body.name}_stride"
    bounds = [stride.operand, *tests]
    return emit_while(builder, name, test, body, bounds, consts, given, loop.slots)


# --- backward ---------------------------------------------------------------------------------

#: undoes one step: (builder, constants, carries before it, cotangents) -> cotangents
Undo = Callable[[Builder, list[Operand], list[Operand], list[Operand]], Sequence[Operand]]


def reversed_steps(
    builder: Builder,
    loop: Loop,
    kept: Checkpoints,
    undo: Undo,
    consts: Sequence[Operand],
    cts: Sequence[Operand],
) -> tuple[Operand, ...]:
    """Emits the loop that undoes the steps from the last one on.

    Args:
        builder: where to.
        loop: the loop forward.
        kept: what its forward pass left.
        undo: what to do for each step, with ``consts``.
        consts: more constants, for ``undo``.
        cts: what is carried from step to step, backwards.

    Returns:
        The last ``cts``.
    """
    own, count = len(loop.consts), len(loop.carry)

    def test(inner: Builder, fixed: list[Operand], moving: list[Operand]) -> Sequence[Operand]:
        return [(GraphTerm(inner, moving[0]) > 0).operand]

    def body(inner: Builder, fixed: list[Operand], moving: list[Operand]) -> Sequence[Operand]:
        step = GraphTerm(inner, moving[0]) - 1
        top, marks, *slots = _brought_up(inner, loop, fixed[:own], step, moving[1 : 3 + count])
        carry = [_get(inner, s, top) for s in slots]
        following = undo(inner, fixed[own:], carry, moving[3 + count :])
        return [step.operand, (GraphTerm(inner, top) - 1).operand, marks, *slots, *following]

    top = GraphTerm(builder, kept.count) - 1
    places = builder.emit(find("iota"), (), {"dtype": "i64", "shape": (loop.rows,), "axis": 0})[0]
    spread = GraphTerm(builder, kept.stride).call("broadcast", shape=(loop.rows,), axes=())
    marks = GraphTerm(builder, places) * spread
    found = emit_while(
        builder,
        f"{loop.body.name}_reversed",
        test,
        body,
        [],
        [*loop.consts, *consts],
        [kept.steps, top.operand, marks.operand, *kept.slots, *cts],
        loop.slots,
    )
    return found[3 + count :]


def _brought_up(
    builder: Builder,
    loop: Loop,
    consts: Sequence[Operand],
    step: GraphTerm,
    stack: Sequence[Operand],
) -> tuple[Value, ...]:
    """Runs on from the top of the stack until the carry before ``step`` is there.

    The stack: the place of its top, which step each slot stands before, slots of each carry.
    """

    def test(inner: Builder, fixed: list[Operand], moving: list[Operand]) -> Sequence[Operand]:
        mark = GraphTerm(inner, _get(inner, moving[1], moving[0]))
        return [mark.ne(GraphTerm(inner, fixed[0])).operand]

    def body(inner: Builder, fixed: list[Operand], moving: list[Operand]) -> Sequence[Operand]:
        top, marks, *slots = moving
        mark = GraphTerm(inner, _get(inner, marks, top))
        count = _next_distance(inner, loop, top, (GraphTerm(inner, fixed[0]) - mark + 1))
        carry = [_get(inner, s, top) for s in slots]
        following = _run(inner, loop, fixed[1:], count.operand, carry)
        place = (GraphTerm(inner, top) + 1).operand
        marks = _put(inner, marks, place, (mark + count).operand)
        pushed = [_put(inner, s, place, x) for s, x in zip(slots, following, strict=True)]
        return [place, marks, *pushed]

    name = f"{loop.body.name}_again"
    given = [step.operand, *consts]
    return emit_while(builder, name, test, body, [step.operand], given, stack, loop.slots)


def _run(
    builder: Builder,
    loop: Loop,
    consts: Sequence[Operand],
    count: Operand,
    carry: Sequence[Operand],
) -> tuple[Value, ...]:
    """Runs a number of steps that is known to be in the loop."""

    def test(inner: Builder, fixed: list[Operand], moving: list[Operand]) -> Sequence[Operand]:
        return [(GraphTerm(inner, moving[0]) < GraphTerm(inner, fixed[0])).operand]

    def body(inner: Builder, fixed: list[Operand], moving: list[Operand]) -> Sequence[Operand]:
        following = inner.inline(loop.body, [*fixed, *moving[1:]])
        return [(GraphTerm(inner, moving[0]) + 1).operand, *following]

    given = [literal(0, INT), *carry]
    name = f"{loop.body.name}_run"
    return emit_while(builder, name, test, body, [count], consts, given, loop.slots)[1:]


def _next_distance(builder: Builder, loop: Loop, top: Operand, steps: GraphTerm) -> GraphTerm:
    """How far to run from the top before the next checkpoint, to undo ``steps`` (two at least).

    With s slots to hand (the top one included), let r be the least number of repeats for which
    binomial(s + r, s) >= steps. The part before the checkpoint will have s slots and r - 1 repeats,
    the part behind it s - 1 slots and r repeats. See ``distance`` for the same on numbers.
    """
    table = _table(loop.slots)
    columns = table.shape[1]
    params = {"dtype": "i64", "shape": table.shape, "data": table.tobytes()}
    (numbers,) = builder.emit(find("constant"), (), params)
    slots = loop.slots - GraphTerm(builder, top)

    def row(place: GraphTerm) -> GraphTerm:
        return GraphTerm(builder, _get(builder, numbers, place.operand))

    own, fewer = row(slots), row(slots - 1)
    spread = steps.call("broadcast", shape=(columns,), axes=())
    repeats = (own < spread).call("convert", dtype="i64").call("sum", axes=(0,))
    before = GraphTerm(builder, _get(builder, own.operand, (repeats - 2).operand))
    behind = GraphTerm(builder, _get(builder, fewer.operand, repeats.operand))
    wanted = before.call("maximum", steps - behind)
    return wanted.call("maximum", 1).call("minimum", steps - 1)


def _table(slots: int) -> np.ndarray[tuple[int, int], np.dtype[np.int64]]:
    """binomial(s + r, s) in row s and column r + 2, behind two columns of zeros.

    As many repeats as undo the longest of loops when half of the slots are free.
    """
    enough = (r for r in range(_REPEATS) if math.comb(slots // 2 + r, r) >= _LONG)
    repeats = next(enough, _REPEATS)
    numbers = np.zeros((slots + 1, repeats + 2), np.int64)
    for s in range(slots + 1):
        for r in range(repeats):
            numbers[s, r + 2] = min(math.comb(s + r, s), _LARGEST)
    return numbers


def distance(slots: int, steps: int) -> int:
    """How far to run before the next checkpoint; what ``_next_distance`` emits, on numbers."""
    table = _table(slots)
    repeats = int(np.sum(table[slots] < steps))
    last = table.shape[1] - 1
    before = table[slots, min(max(repeats - 2, 0), last)]
    behind = table[slots - 1, min(repeats, last)]
    return int(min(max(before, steps - behind, 1), steps - 1))
