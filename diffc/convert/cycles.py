"""Loops traced into regions: ``while`` with a test, and ``scan`` over the rows of arrays.

Which variables a trip changes shows when it is traced: first with Python's numbers as traced
scalars and arrays as they are; then again with what was assigned as operands, until nothing new is
assigned, no dtype changes, and no further array around the loop is written. Arrays that a trip
writes in place are carried too, and written after the loop.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from diffc import tree
from diffc.convert.choose import truth
from diffc.convert.site import Undefined
from diffc.convert.state import (
    Hidden,
    State,
    build,
    cast,
    common,
    inlined,
    is_dynamic,
    is_returned,
    label,
    mismatch,
    share,
    spell,
    wrapped,
)
from diffc.convert.steps import Steps
from diffc.ir.graph import Builder, Graph, Literal, Operand, Value, literal
from diffc.leaves import abstract_leaf
from diffc.ops.branching import default_slots
from diffc.trace import Abstract, Traced, Tracer, emit, trace_flat
from diffc.trace import operands as o
from diffc.trace.arguments import argument, tracer
from diffc.trace.context import current
from diffc.trace.loops import default_store
from diffc.trace.tracer import read, write

_PATHS = ("before the loop", "after a trip")
_MOST_PASSES = 12
#: a leaf of a variable, by the positions of both
Slot = tuple[int, int]


def staged_while(test: Callable[[], Any], body: Callable[[], None], state: State) -> None:
    """A loop while a traced test holds; sets the variables to their last values."""
    _Cycle(state, body, test=test).run()


def staged_scan(steps: Steps, body: Callable[[Any], None], state: State) -> None:
    """A loop over the rows of arrays."""
    _Cycle(state, body, steps=steps).run()


class _Trip(NamedTuple):
    """One traced trip: its outputs are the carried leaves, then the carried cells."""

    traced: Traced
    values: list[Any]


class _Cycle:
    """One loop: finds what is carried, and emits it."""

    def __init__(
        self,
        state: State,
        body: Callable[..., None],
        test: Callable[[], Any] | None = None,
        steps: Steps | None = None,
    ) -> None:
        state.check()
        self.state = state
        self.site = state.site
        self.body = body
        self.test = test
        self.steps = steps
        self.rows = [tracer(row) for row in steps.rows or ()] if steps is not None else []
        self.before = state.read()
        self.leaves: list[list[Any]] = []
        self.structures: list[tree.TreeDef] = []
        self.slots: dict[Slot, Abstract] = {}
        self.cells: dict[int, Tracer] = {}
        self.initial: dict[Slot, Any] = {}  # operands: later writes don't change them
        self.last: dict[Slot, Any] = {}  # what a trip leaves
        self.joined: set[Slot] = set()  # which a trip leaves as one array
        for i, value in enumerate(self.before):
            self._take(i, value)

    def _take(self, i: int, value: Any) -> None:
        """A variable's value before the loop; Python's numbers are carried from the start."""
        leaves, structure = tree.flatten(value)
        self.leaves[i : i + 1] = [leaves]
        self.structures[i : i + 1] = [structure]
        if not self.site.live[i]:
            return
        for k, leaf in enumerate(leaves):
            if type(leaf) in (bool, int, float):
                self.slots[i, k] = abstract_leaf(leaf)

    def run(self) -> None:
        """Traces until stable, emits the loop, and sets the variables."""
        try:
            trip = self._stable()
            tested = self._tested() if self.test is not None else None
        except BaseException:
            self.state.put(tuple(self.before))
            raise
        results = self._emit(trip, tested)
        self._finish(trip, results)

    # --- tracing ------------------------------------------------------------------------------

    def _stable(self) -> _Trip:
        for _ in range(_MOST_PASSES):
            trip, slots = self._trace_trip()
            if not self._learn(trip, slots):
                return trip
        raise self.site.error(
            f"the variables of the `{self.site.kind}` change their dtypes with every trip",
            "give them their final dtypes before the loop",
        )

    def _inputs(self) -> list[Abstract]:
        cells = [Abstract(cell._cell.value.aval) for cell in self.cells.values()]
        rows = []
        for row in self.rows:
            one = row.aval.with_shape(row.aval.shape[1:])
            rows.append(Abstract(one, scalar=not one.shape))
        return [*self.slots.values(), *cells, *rows]

    def _names(self) -> list[str]:
        names = [self.site.names[i] for i, _ in self.slots]
        names += [cell._cell.name or "array" for cell in self.cells.values()]
        names += ["row"] * len(self.rows)
        return ["".join(c if c.isalnum() else "_" for c in name) for name in names]

    def _enter(self, given: tuple[Tracer, ...]) -> list[Any]:
        """Sets the variables and the arrays around to what a trip starts with."""
        found = iter(given)
        leaves = [list(own) for own in self.leaves]
        for i, k in self.slots:
            leaves[i][k] = carried = next(found)
            carried._cell.name = ""  # the loop's own
            share(carried, self._others((i, k)), self.site, (i, k) in self.joined)
        values: list[Any] = []
        for i, (own, structure) in enumerate(zip(leaves, self.structures, strict=True)):
            is_kept = self.site.live[i] and not isinstance(self.before[i], Undefined)
            is_kept = is_kept or (bool(own) and any(slot[0] == i for slot in self.slots))
            changed = any(slot[0] == i for slot in self.slots)
            if not is_kept:
                reason = f"the loop in {self.site.where} gives it none before this line"
                values.append(Undefined(self.site.names[i], self.site, reason))
            else:
                values.append(structure.build(own) if changed else self.before[i])
        for cell in self.cells.values():
            local = current().localize(cell._cell)
            local.value = read(next(found))
        self.state.put(tuple(values))
        return values

    def _trace_trip(self) -> tuple[_Trip, list[Slot]]:
        values: list[Any] = []
        slots = list(self.slots)

        def run(*given: Tracer) -> list[Any]:
            start = self._enter(given)
            if self.steps is None:
                self.body()
            else:
                count = len(self.rows)
                self.body(self.steps.element(given[len(given) - count :]))
            values[:] = self.state.read()
            return self._outputs(start, values)

        traced = trace_flat(run, self._inputs(), self._names(), name="body")
        return _Trip(traced, values), slots

    def _outputs(self, start: list[Any], values: list[Any]) -> list[Any]:
        """The carried leaves and cells after a trip; finds newly assigned leaves."""
        found: list[Any] = []
        self._assigned: list[tuple[Slot, Any]] = []
        self._returned: list[int] = []
        for i, value in enumerate(values):
            if not self.site.live[i]:
                continue
            was = start[i]
            if isinstance(value, Undefined):
                if not isinstance(was, Undefined):
                    raise self._lost(i, value)
                continue
            if isinstance(was, Undefined):
                if is_returned(self.site.names[i]):
                    self._returned.append(i)
                continue
            if value is was and not any(slot[0] == i for slot in self.slots):
                continue
            self._compare(i, was, value)
        for i, k in self.slots:
            found.append(tree.leaves(values[i])[k])
        for cell in self.cells.values():
            local = current().localize(cell._cell)
            found.append(Tracer(local, local.value.aval))
        return found

    def _compare(self, i: int, was: Any, value: Any) -> None:
        name = label(self.site.names[i])
        old, structure = tree.flatten(was)
        new, found = tree.flatten(value)
        if structure is not found:
            problem = tree.explain_mismatch(structure, found, name, "one value")
            raise self.site.error(
                f"{name} changes its structure in a trip of the loop: {problem}",
                "give it one structure before the loop and after each trip",
            )
        for k, (a, b) in enumerate(zip(old, new, strict=True)):
            if (i, k) in self.slots or a is b:
                continue
            if is_dynamic(a) and is_dynamic(b):
                self._assigned.append(((i, k), self.leaves[i][k]))
            elif not (type(a) is type(b) and a == b):
                path = structure.paths(name)[k]
                raise mismatch(self.site, path, f"{a!r:.60}", f"{b!r:.60}", _PATHS)

    def _lost(self, i: int, value: Undefined) -> Exception:
        return self.site.error(
            f"{label(self.site.names[i])} has a value before the loop and none after some trips"
            + (f": {value.reason}" if value.reason else ""),
            "assign it on every path through the loop",
        )

    def _learn(self, trip: _Trip, slots: list[Slot]) -> bool:
        """Takes in what a traced trip shows; whether anything is new."""
        is_new = False
        for slot, leaf in self._assigned:
            if slot not in self.slots:
                given = abstract_leaf(_array(leaf))
                self.slots[slot] = Abstract(given.aval, given.weak, given.scalar)
                self.initial[slot] = read(leaf) if isinstance(leaf, Tracer) else leaf
                is_new = True
        for i in self._returned:
            self._adopt(i, trip.values[i])
            is_new = True
        for k, slot in enumerate(slots):
            is_new |= self._settle(slot, trip.traced, k)
        written = {id(target._cell): target for target in trip.traced.effects}
        is_new |= written.keys() != self.cells.keys()
        self.cells = written
        self._refuse_written(slots)
        is_new |= self._join(trip.values)
        self.slots = dict(sorted(self.slots.items()))
        return is_new

    def _adopt(self, i: int, value: Any) -> None:
        """A returned value that only a trip gives: zeros of its kind stand for it before."""
        leaves, structure = tree.flatten(value)
        self.structures[i] = structure
        self.leaves[i] = leaves
        for k, leaf in enumerate(leaves):
            if is_dynamic(leaf):
                found = abstract_leaf(leaf if isinstance(leaf, Tracer) else _array(leaf))
                self.slots[i, k] = found
                self.leaves[i][k] = None

    def _settle(self, slot: Slot, traced: Traced, k: int) -> bool:
        """Widens a Python number that a trip turns into something else; else it is an error."""
        given = self.slots[slot]
        found = (traced.graph.outputs[k].aval, traced.out_weak[k])
        wanted = common((given.aval, given.weak), found)
        if wanted is None:
            i, at = slot
            path = self.structures[i].paths(label(self.site.names[i]))[at]
            was = spell(given.aval, given.weak)
            raise mismatch(self.site, path, was, spell(*found), _PATHS)
        if wanted == (given.aval, given.weak):
            return False
        self.slots[slot] = Abstract(wanted[0], wanted[1], True)
        return True

    def _others(self, slot: Slot) -> list[Any]:
        """Arrays around the loop that a carried leaf may be: before it, and after a trip."""
        i, k = slot
        return [self.leaves[i][k], self.last.get(slot)]

    def _refuse_written(self, slots: list[Slot]) -> None:
        """Raises if a carried leaf is, in the first trip, an array that is written in place."""
        for i, k in slots:
            if id(getattr(self.leaves[i][k], "_cell", None)) in self.cells:
                name = self.site.names[i]
                raise self.site.error(
                    f"{label(name)} is assigned in the loop, and the array that it is before the "
                    "loop is written in place",
                    f"make it an array of its own before the loop: {name} = {name}.copy()",
                )

    def _join(self, values: list[Any]) -> bool:
        """Notes carried leaves that are one array after a trip; whether any are new."""
        seen: dict[int, list[Slot]] = {}
        for i, k in self.slots:
            leaf = tree.leaves(values[i])[k]
            if isinstance(leaf, Tracer) and not leaf.scalar:
                seen.setdefault(id(leaf._cell), []).append((i, k))
                if leaf._cell.trace.alive:
                    self.last[i, k] = leaf
        joined = {slot for slots in seen.values() if len(slots) > 1 for slot in slots}
        is_new = not joined <= self.joined
        self.joined |= joined
        return is_new

    def _tested(self) -> Traced:
        test = self.test
        assert test is not None

        def run(*given: Tracer) -> Any:
            self._enter(given)
            return truth(test())

        traced = trace_flat(run, self._inputs(), self._names(), name="test")
        if traced.written or traced.effects:
            raise self.site.error(
                "the test of a `while` writes to an array in place", "write in the loop's body"
            )
        return traced

    # --- emitting -----------------------------------------------------------------------------

    def _emit(self, trip: _Trip, tested: Traced | None) -> list[Tracer]:
        carry = [self._initial(slot, given) for slot, given in self.slots.items()]
        cells = [read(cell) for cell in self.cells.values()]
        avals = [given.aval for given in self.slots.values()]
        avals += [cell._cell.value.aval for cell in self.cells.values()]
        count = len(avals)
        hidden, body = self._region(trip.traced, count)
        if tested is None:
            assert self.steps is not None
            return emit(
                "scan", *hidden.operands, *carry, *cells, *map(read, self.rows), regions=(body,),
                consts=len(hidden.operands), carry=count, length=self.steps.length, reverse=False,
            )  # fmt: skip
        seen, test = self._region(tested, count, is_test=True)
        slots = None if default_store() == "grow" else default_slots(avals)
        return emit(
            "while", *seen.operands, *hidden.operands, *carry, *cells, regions=(test, body),
            tests=len(seen.operands), consts=len(hidden.operands), slots=slots,
        )  # fmt: skip

    def _initial(self, slot: Slot, given: Abstract) -> Any:
        i, k = slot
        leaf = self.initial.get(slot, self.leaves[i][k])
        if leaf is None:
            return literal(0, given.aval)
        if isinstance(leaf, Value | Literal):
            return o.cast(leaf, given.aval.dtype)
        found = argument(leaf)
        assert found is not None
        return found.to(given.aval.dtype, given.aval.shape)

    def _region(self, traced: Traced, count: int, *, is_test: bool = False) -> tuple[Hidden, Graph]:
        """The region of a trip or test: constants, carried values, rows."""
        hidden = Hidden()
        places = [hidden.position(c) for c in traced.captured]
        builder = Builder("test" if is_test else "body")
        consts: list[Operand] = [builder.input(a, "const") for a in hidden.avals()]
        own = len(traced.graph.inputs) - len(traced.captured)
        rows = own if not is_test else count
        given: list[Operand] = [builder.input(x.aval, x.name) for x in traced.graph.inputs[:rows]]
        unused = [literal(0, x.aval) for x in traced.graph.inputs[rows:own]]
        found = inlined(builder, traced, [*given, *unused, *(consts[k] for k in places)])
        if is_test:
            return hidden, build(builder, found[:1])
        wanted = [given.aval for given in self.slots.values()]
        outputs = [cast(builder, x, a) for x, a in zip(found, wanted, strict=False)]
        return hidden, build(builder, [*outputs, *found[len(outputs) : count]])

    def _finish(self, trip: _Trip, results: list[Tracer]) -> None:
        """Sets the variables and writes the arrays around."""
        leaves = [list(own) for own in self.leaves]
        values: list[Any] = []
        found = iter(results)
        for (i, k), given in self.slots.items():
            result = wrapped(read(next(found)), weak=given.weak, is_scalar=given.scalar)
            share(result, self._others((i, k)), self.site, (i, k) in self.joined)
            leaves[i][k] = result
        for i, structure in enumerate(self.structures):
            if any(slot[0] == i for slot in self.slots):
                values.append(structure.build(leaves[i]))
            elif self.site.live[i] and not isinstance(self.before[i], Undefined):
                values.append(self.before[i])
            else:
                reason = f"the loop in {self.site.where} gives it one only if it makes a trip"
                values.append(Undefined(self.site.names[i], self.site, reason))
        for cell in self.cells.values():
            write(cell, read(next(found)))
        self.state.put(tuple(values))


def _array(leaf: Any) -> Any:
    """NumPy's scalars as arrays."""
    return np.asarray(leaf) if isinstance(leaf, np.generic) else leaf
