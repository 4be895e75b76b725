"""Sweeps, reductions, plain contractions: what partial results there are, how they are joined.

`sequence`: one after the other, in every lane of the vector variable if there is one.

`lanes`: the values, in row-major order, are dealt in turn to `4 * lanes(dtype)` partial results,
which are then halved: partial k joins partial k + half. Two ways to run lead to the same bits.
Without a vector variable, vectors run along the reduced space. With one, each of its lanes has
partial results of its own: a tree in registers for few values, an array on the stack for many.
Partial results that no value reaches are left out, which changes nothing. Folds of bool have as
many partial results as is convenient.

The stores of a sweep run in the same loops: at each point, or vector of points, the values that the
reductions take are computed, then those that are stored, then all is written.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import partial
from math import gcd, prod
from typing import TYPE_CHECKING

from diffc.codegen.emit.folds import Fold, State
from diffc.codegen.emit.frame import Lanes, Value
from diffc.codegen.emit.in_order import nest, over_needed
from diffc.codegen.emit.numbering import is_long
from diffc.codegen.emit.registers import register, slice_lanes
from diffc.codegen.emit.scalars import Ops
from diffc.codegen.emit.text import FunctionText, Loop
from diffc.codegen.loops.contraction import extent_of
from diffc.codegen.loops.nodes import Buffer, Expr, Fetch, Load, Reduce, Store
from diffc.codegen.loops.walk import expressions, varying
from diffc.codegen.targets import ITEM_BYTES, Target
from diffc.errors import InternalError
from diffc.ir.index import Dim, Var, coefficient, ravel, substitute, unravel

if TYPE_CHECKING:
    from diffc.codegen.emit.kernel import KernelWriter

__all__ = ["partial_results", "write_sweep"]

UNROLLED_TREE = 16
# All vectors of a loop that runs over a whole period have at most so many nodes of expressions.
PERIOD_NODES = 500

States = list[State]
Arrays = Sequence[tuple[str, str]]
"""Type and address of the partial results of a fold, an array for each part of its state."""


def partial_results(dtype: str, target: Target) -> int:
    """Among how many partial results a reduction in `lanes` order deals values of `dtype`."""
    return 4 * target.lanes(dtype)


def write_sweep(
    writer: KernelWriter,
    vars: Sequence[Var],
    reduces: Sequence[Reduce],
    stores: Sequence[Store] = (),
    fetches: Sequence[Fetch] = (),
) -> None:
    """Writes reductions of one order and stores over the same points, and binds what was found."""
    total = prod(extent_of(var) for var in vars)
    folds = [Fold.of(reduce, total) for reduce in reduces]
    job = _Job(writer, reduces, folds, stores, fetches, vars, total)
    if total == 0:
        states = [fold.identity(job.ops) for fold in job.folds]
    elif all(reduce.order == "sequence" for reduce in reduces):
        states = job.sequence()
    elif writer.frame.lanes is None:
        _all_needed(writer, vars if len(vars) > 1 else ())
        states = job.along()
    elif total <= UNROLLED_TREE:
        _all_needed(writer, vars)
        states = job.tree()
    else:
        _all_needed(writer, vars[1:])
        states = job.dealt()
    for reduce, fold, state in zip(reduces, job.folds, states, strict=True):
        lanes = job.ops.lanes
        text = fold.finish(job.ops, state)
        writer.frame.bind_scalar(reduce.target.name, Value(text, lanes))


def _all_needed(writer: KernelWriter, vars: Sequence[Var]) -> None:
    if any(var in writer.ranges for var in vars):
        raise InternalError(f"a sweep over {', '.join(map(str, vars))} can leave out no points")


@dataclass(slots=True)
class _Job:
    """Reductions and stores that run together."""

    writer: KernelWriter
    group: Sequence[Reduce]
    folds: Sequence[Fold]
    stores: Sequence[Store]
    fetches: Sequence[Fetch]
    vars: Sequence[Var]
    total: int

    @property
    def ops(self) -> Ops:
        """The ops on results."""
        lanes = self.writer.frame.lanes
        return self.writer.evaluator.ops(1 if lanes is None else lanes.count)

    def flatten(self) -> Var:
        """One variable for all; the others become indices of it."""
        if len(self.vars) == 1:
            return self.vars[0]
        return self.writer.fresh_var(self.total)

    def unflatten(self, flat: Var) -> None:
        """Makes the variables indices of the flat one."""
        if len(self.vars) > 1:
            extents = tuple(extent_of(var) for var in self.vars)
            whole = self.writer.frame.resolve(flat)
            for var, index in zip(self.vars, unravel(whole, extents), strict=True):
                self.writer.frame.alias(var, index)

    @property
    def written(self) -> frozenset[Buffer]:
        """The buffers that the loops of the sweep write."""
        return frozenset(stmt.buffer for stmt in self.stores)

    def values(self) -> list[str]:
        """The values that the reductions take at the current points; then the stores run."""
        found = [self.writer.evaluator.vector(reduce.value) for reduce in self.group]
        for fetch in self.fetches:
            self.writer.memory.fetch(fetch)
        if self.stores:
            self.writer.stores(self.stores)
        return found

    # --- one after the other

    def sequence(self) -> States:
        """Folds in order."""
        ops = self.ops
        position = self._positions(ops)

        def term(carried: list[str]) -> list[str]:
            following: list[str] = []
            states = self._states(carried)
            for fold, state, value in zip(self.folds, states, self.values(), strict=True):
                following += fold.step(ops, state, value, position(fold))
            return following

        carried = self._carried(ops, [fold.identity(ops) for fold in self.folds])
        return self._states(nest(self.writer, self.vars, carried, term, self.written))

    def _positions(self, ops: Ops) -> Callable[[Fold], str]:
        """Gives the position of the current point."""

        def position(fold: Fold) -> str:
            if not fold.has_position:
                return ""
            frame = self.writer.frame
            index = frame.dim(_ravel(self.vars))
            return frame.splat_index(index, fold.position, ops.lanes)

        return position

    def _carried(self, ops: Ops, states: States) -> list[tuple[str, str]]:
        carried: list[tuple[str, str]] = []
        for fold, state in zip(self.folds, states, strict=True):
            carried += zip(fold.kinds(ops), state, strict=True)
        return carried

    def _states(self, texts: Sequence[str]) -> States:
        states: States = []
        at = 0
        for fold in self.folds:
            count = len(fold.dtypes())
            states.append(tuple(texts[at : at + count]))
            at += count
        return states

    # --- vectors along the reduced space

    def along(self) -> States:
        """Deals to vectors of partial results, then halves them."""
        flat = self.flatten()
        room = _round_up(self.total)
        lanes = min(self._lanes(), room)
        widths = [max(lanes, min(self._width(fold, lanes), room)) for fold in self.folds]
        parts = [width // lanes for width in widths]
        ops = self.writer.evaluator.ops(lanes)
        if self.total > lanes and self._is_long(parts):
            partials = self._turning(ops, flat, parts)
        else:
            partials = self._unrolled(ops, flat, parts)
        return [
            self._halve(ops, fold, states, count)
            for fold, states, count in zip(self.folds, partials, parts, strict=True)
        ]

    def _is_long(self, parts: Sequence[int]) -> bool:
        """Whether one vector at a time keeps the registers busy."""
        held = sum(n * len(fold.dtypes()) for n, fold in zip(parts, self.folds, strict=True))
        if held > self.writer.frame.target.vector_registers // 2:
            return True
        return is_long(self._roots())

    def _roots(self) -> list[Expr]:
        return [*(reduce.value for reduce in self.group), *(store.value for store in self.stores)]

    def _unrolled(self, ops: Ops, flat: Var, parts: Sequence[int]) -> list[States]:
        """The partial results of each fold, with a copy of the body for each of their vectors."""
        frame, lanes = self.writer.frame, ops.lanes
        partials: list[States] = [
            [fold.identity(ops)] * count for fold, count in zip(self.folds, parts, strict=True)
        ]
        copies = max(parts)
        trip = copies * lanes
        trips = self._trips_of_period(trip, lanes)
        steps, at = self.total // (trip * trips), 0
        needed = self.writer.ranges.get(flat)
        if needed is not None and (steps <= 1 or trips > 1):
            raise InternalError(f"a sweep over {flat} is too short to leave out points")
        if steps > 1:
            at = steps * trip * trips
            carried = self._flat(ops, partials)
            with (
                frame.level(stores=self.written, is_conditional=needed is not None),
                self._trips(at, trip * trips, carried, needed) as loop,
            ):
                partials = self._dealt(loop.carried, parts)
                block = self.writer.fresh_var(steps)
                if trips > 1:
                    frame.bind(block, frame.fn.value(f"udiv i64 {loop.index}, {trip * trips}"))
                for copy in range(copies * trips):
                    if trips > 1:
                        first, base = trip * trips * block, str(copy * lanes)
                    else:
                        first, base = 0, frame.plus(loop.index, str(copy * lanes))
                    self._deal_vector(ops, flat, base, lanes, copy, partials, first)
                loop.next = [x for states in partials for state in states for x in state]
            partials = self._dealt(loop.results, parts)
        if needed is not None and at < self.total:
            fn, before = frame.fn, self._flat(ops, partials)
            some = fn.value(f"icmp sgt i64 {needed[1]}, {at}")
            with (
                frame.level(stores=self.written, is_conditional=True),
                fn.when(some, before) as arm,
            ):
                self._deal_rest(ops, flat, at, partials)
                arm.values = [text for _, text in self._flat(ops, partials)]
            return self._dealt(arm.merged, parts)
        self._deal_rest(ops, flat, at, partials)
        if not steps:
            for states in partials:
                del states[-(-self.total // lanes) :]
        return partials

    def _trips(
        self,
        stop: int,
        step: int,
        carried: Sequence[tuple[str, str]],
        needed: tuple[str, str] | None,
    ) -> AbstractContextManager[Loop]:
        """A loop by steps below `stop`, over those in which needed points lie."""
        fn = self.writer.frame.fn
        if needed is None:
            return fn.loop(stop, carried, step=step)
        first = fn.scaled(fn.value(f"udiv i64 {needed[0]}, {step}"), step)
        last = fn.call("i64", "llvm.smin.i64", ("i64", needed[1]), ("i64", str(stop)))
        return fn.loop(last, carried, start=first, step=step, may_be_empty=True)

    def _flat(self, ops: Ops, partials: Sequence[States]) -> list[tuple[str, str]]:
        """The partial results of each fold with their types, in one list."""
        return [
            pair
            for fold, states in zip(self.folds, partials, strict=True)
            for state in states
            for pair in zip(fold.kinds(ops), state, strict=True)
        ]

    def _deal_rest(self, ops: Ops, flat: Var, at: int, partials: list[States]) -> None:
        """Folds the values from `at` on, at most one for each partial result."""
        lanes = ops.lanes
        for copy in range(-(-(self.total - at) // lanes)):
            active = min(lanes, self.total - at - copy * lanes)
            self._deal_vector(ops, flat, str(at + copy * lanes), active, copy, partials)

    def _dealt(self, texts: Sequence[str], parts: Sequence[int]) -> list[States]:
        """The partial results of each fold, from a flat list."""
        found: list[States] = []
        rest = iter(texts)
        for fold, count in zip(self.folds, parts, strict=True):
            size = len(fold.dtypes())
            found.append([tuple(next(rest) for _ in range(size)) for _ in range(count)])
        return found

    def _turning(self, ops: Ops, flat: Var, parts: Sequence[int]) -> list[States]:
        """The partial results with one copy of a long body, which needs the registers itself.

        They lie on the stack; each trip folds into the vector that is due.
        """
        frame, fn, lanes = self.writer.frame, self.writer.frame.fn, ops.lanes
        slots = [
            [(kind, self._array(kind, count)) for kind in fold.kinds(ops)]
            for fold, count in zip(self.folds, parts, strict=True)
        ]
        for fold, arrays, count in zip(self.folds, slots, parts, strict=True):
            for part in range(count):
                _write(fn, arrays, str(part), fold.identity(ops))
        whole, rest = divmod(self.total, lanes)
        needed = self.writer.ranges.get(flat)
        with (
            frame.level(stores=self.written, is_conditional=needed is not None),
            self._trips(whole * lanes, lanes, (), needed) as loop,
        ):
            turn = fn.value(f"udiv i64 {loop.index}, {lanes}")
            due = {n: fn.value(f"and i64 {turn}, {n - 1}") for n in sorted(set(parts))}
            self._fold_due(ops, flat, loop.index, lanes, slots, [due[count] for count in parts])
        numbers = [str(whole % count) for count in parts]
        if rest and needed is None:
            self._fold_due(ops, flat, str(whole * lanes), rest, slots, numbers)
        elif rest and needed is not None:
            some = fn.value(f"icmp sgt i64 {needed[1]}, {whole * lanes}")
            with frame.level(stores=self.written, is_conditional=True), fn.when(some):
                self._fold_due(ops, flat, str(whole * lanes), rest, slots, numbers)
        return [
            [_read(fn, arrays, str(part)) for part in range(count)]
            for arrays, count in zip(slots, parts, strict=True)
        ]

    def _fold_due(
        self,
        ops: Ops,
        flat: Var,
        base: str,
        active: int,
        slots: Sequence[Arrays],
        due: Sequence[str],
    ) -> None:
        """Folds a vector into the partial results on the stack whose numbers are given."""
        pairs = list(zip(slots, due, strict=True))
        after = self._dealt_vector(
            ops, flat, base, active, lambda: [_read(ops.fn, *pair) for pair in pairs]
        )
        for (arrays, number), state in zip(pairs, after, strict=True):
            _write(ops.fn, arrays, number, state)

    def _trips_of_period(self, trip: int, lanes: int) -> int:
        """Trips after which the last variable is back at 0, where that is worth a longer loop.

        Then what does not go on from row to row lies at known places: it is shuffled, not gathered.
        """
        if lanes == 1 or len(self.vars) < 2:
            return 1
        last = self.vars[-1]
        trips = extent_of(last) // gcd(extent_of(last), trip)
        many = trip // lanes * trips * len(expressions(self._roots()))
        if trips == 1 or many > PERIOD_NODES:
            return 1
        loads = [expr for expr in expressions(self._roots()) if isinstance(expr, Load)]
        flat = Var("~flat", self.total)
        places = dict(zip(self.vars, unravel(flat, tuple(map(extent_of, self.vars))), strict=True))
        offsets = (substitute(ravel(load.indices, load.buffer.shape), places) for load in loads)
        return trips if any(coefficient(offset, flat) is None for offset in offsets) else 1

    def _deal_vector(
        self,
        ops: Ops,
        flat: Var,
        base: str,
        active: int,
        copy: int,
        partials: list[States],
        first: Dim = 0,
    ) -> None:
        """Folds vector `copy` of a trip into the partial results of each fold."""
        before = [states[copy % len(states)] for states in partials]
        after = self._dealt_vector(ops, flat, base, active, lambda: before, first)
        for states, state in zip(partials, after, strict=True):
            states[copy % len(states)] = state

    def _width(self, fold: Fold, lanes: int) -> int:
        """The number of partial results of a fold."""
        if fold.dtype == "bool":
            return 4 * lanes
        return partial_results(fold.dtype, self.writer.frame.target)

    def _lanes(self) -> int:
        """Lanes that fill one register with the widest numbers that differ from lane to lane."""
        target = self.writer.frame.target
        roots = self._roots()
        nodes = [*varying(roots, self.vars), *roots]
        return max(1, target.vector_bytes // max(map(_width_of, nodes)))

    def _dealt_vector(
        self,
        ops: Ops,
        flat: Var,
        base: str,
        active: int,
        before: Callable[[], States],
        first: Dim = 0,
    ) -> States:
        """Folds the values at base … base + active - 1 into the partial results of one vector.

        Given `first`, they are those that lie so far behind it.
        """
        frame = self.writer.frame
        lanes = ops.lanes
        following: States = []
        with frame.level(stores=self.written):
            if lanes == 1:
                frame.bind(flat, base)
            else:
                prefix = None if active == lanes else active
                lane = flat if isinstance(first, int) else self.writer.fresh_var(int(base) + lanes)
                frame.bind_lanes(Lanes(lane, base, lanes, active=prefix, is_aligned=True))
                if lane is not flat:
                    frame.alias(flat, first + lane)
            self.unflatten(flat)
            values = self.values()
            for fold, state, value in zip(self.folds, before(), values, strict=True):
                position = ""
                if fold.has_position:
                    position = base
                    if lanes > 1:
                        position = frame.lane_dim(flat, fold.position)
                    elif base.startswith("%") and fold.position != "i64":
                        position = ops.fn.value(f"trunc i64 {base} to {fold.position}")
                if active == lanes:
                    following.append(fold.step(ops, state, value, position))
                    continue
                mask = frame.lane_mask()
                assert mask is not None
                after = fold.step(ops, state, value, position)
                following.append(
                    tuple(
                        ops.select(mask, new, old, dtype)
                        for new, old, dtype in zip(after, state, fold.dtypes(), strict=True)
                    )
                )
        return following

    def _halve(self, ops: Ops, fold: Fold, partials: States, parts: int) -> State:
        """Joins partial k with k + half until one is left (missing ones are at the end)."""
        while parts > 1:
            parts //= 2
            for part in range(parts, len(partials)):
                partials[part - parts] = fold.combine(ops, partials[part - parts], partials[part])
            del partials[parts:]
        state, lanes, fn = partials[0], ops.lanes, ops.fn
        while lanes > 1:
            lanes //= 2
            low, high = (
                tuple(
                    slice_lanes(fn, text, register(dtype), 2 * lanes, first, lanes)
                    for text, dtype in zip(state, fold.dtypes(), strict=True)
                )
                for first in (0, lanes)
            )
            state = fold.combine(self.writer.evaluator.ops(lanes), low, high)
        return state

    # --- vectors along other variables, few values

    def tree(self) -> States:
        """Folds each value by itself and joins them as halving would."""
        flat = self.flatten()
        found: dict[int, State] = {}
        widths = self._widths()
        stores = self.stores
        for width in dict.fromkeys(widths):
            numbers = [k for k, each in enumerate(widths) if each == width]
            part = replace(
                self,
                group=[self.group[k] for k in numbers],
                folds=[self.folds[k] for k in numbers],
                stores=stores,
            )
            stores = ()
            found.update(zip(numbers, part._tree(flat, width), strict=True))
        return [found[k] for k in range(len(widths))]

    def _widths(self) -> list[int]:
        """The number of partial results of each fold that a value reaches."""
        lanes, room = self._lanes(), _round_up(self.total)
        return [min(self._width(fold, lanes), room) for fold in self.folds]

    def _tree(self, flat: Var, width: int) -> States:
        ops = self.ops

        def joined(first: int, stride: int) -> States | None:
            """Partial results first, first + stride, … together."""
            if first >= self.total:
                return None
            if stride == width:
                return self._points(ops, flat, first, width)
            left, right = joined(first, 2 * stride), joined(first + stride, 2 * stride)
            assert left is not None
            if right is None:
                return left
            pairs = zip(self.folds, left, right, strict=True)
            return [fold.combine(ops, a, b) for fold, a, b in pairs]

        states = joined(0, 1)
        assert states is not None
        return states

    def _points(self, ops: Ops, flat: Var, first: int, step: int) -> States:
        """Folds every `step`-th value from `first` on."""
        states = [fold.identity(ops) for fold in self.folds]
        for point in range(first, self.total, step):
            with self.writer.frame.level(stores=self.written):
                self.writer.frame.bind(flat, point)
                self.unflatten(flat)
                states = self._step(ops, flat, partial(list, states))
        return states

    def _step(self, ops: Ops, flat: Var, before: Callable[[], States]) -> States:
        frame = self.writer.frame
        following: States = []
        values = self.values()
        for fold, value, state in zip(self.folds, values, before(), strict=True):
            position = ""
            if fold.has_position:
                position = frame.splat_index(frame.dim(flat), fold.position, ops.lanes)
            following.append(fold.step(ops, state, value, position))
        return following

    # --- vectors along other variables, many values

    def dealt(self) -> States:
        """Keeps the partial results on the stack, in the order of their numbers."""
        frame, fn, ops = self.writer.frame, self.writer.frame.fn, self.ops
        flat = self.flatten()
        widths = self._widths()
        slots = [
            [(kind, self._array(kind, width)) for kind in fold.kinds(ops)]
            for fold, width in zip(self.folds, widths, strict=True)
        ]
        for fold, arrays, width in zip(self.folds, slots, widths, strict=True):
            with fn.loop(width) as loop:
                _write(fn, arrays, loop.index, fold.identity(ops))
        with (
            frame.level(stores=self.written),
            over_needed(self.writer, flat, self.total) as loop,
        ):
            frame.bind(flat, loop.index)
            self.unflatten(flat)
            numbers = [
                fn.value(f"and i64 {loop.index}, {width - 1}") if self.total > width else loop.index
                for width in widths
            ]
            pairs = list(zip(slots, numbers, strict=True))
            after = self._step(ops, flat, lambda: [_read(fn, *pair) for pair in pairs])
            for (arrays, number), state in zip(pairs, after, strict=True):
                _write(fn, arrays, number, state)
        for fold, arrays, width in zip(self.folds, slots, widths, strict=True):
            half = width // 2
            while half:
                with fn.loop(half) as loop:
                    other = fn.value(f"add nuw nsw i64 {loop.index}, {half}")
                    near, far = _read(fn, arrays, loop.index), _read(fn, arrays, other)
                    _write(fn, arrays, loop.index, fold.combine(ops, near, far))
                half //= 2
        return [_read(fn, arrays, "0") for arrays in slots]

    def _array(self, kind: str, width: int) -> str:
        with self.writer.frame.at(0):
            return self.writer.frame.fn.value(f"alloca {kind}, i64 {width}, align 64")


def _read(fn: FunctionText, arrays: Arrays, number: str) -> State:
    return tuple(fn.load(kind, fn.index(array, kind, number), 1) for kind, array in arrays)


def _write(fn: FunctionText, arrays: Arrays, number: str, state: State) -> None:
    for (kind, array), text in zip(arrays, state, strict=True):
        fn.store(kind, text, fn.index(array, kind, number), 1)


def _ravel(vars: Sequence[Var]) -> Dim:
    return ravel(tuple(vars), tuple(extent_of(var) for var in vars))


def _width_of(expr: Expr) -> int:
    return ITEM_BYTES[expr.dtype]


def _round_up(count: int) -> int:
    return 1 << (count - 1).bit_length()
