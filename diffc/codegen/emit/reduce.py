"""Reductions and plain contractions: which partial results there are, and how they are joined.

`sequence`: one after the other, in every lane of the vector variable if there is one.

`lanes`: the values, in row-major order, are dealt in turn to `4 * lanes(dtype)` partial results,
which are then halved: partial k joins partial k + half. Two ways to run lead to the same bits.
Without a vector variable, vectors run along the reduced space. With one, each of its lanes has
partial results of its own: a tree in registers for few values, an array on the stack for many.
Partial results that no value reaches are left out, which changes nothing. `any`, `all` and folds
of bool have as many partial results as is convenient.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

from diffc.codegen.emit.folds import Fold, State
from diffc.codegen.emit.frame import Lanes, Value
from diffc.codegen.emit.numbering import is_long
from diffc.codegen.emit.registers import register, slice_lanes
from diffc.codegen.emit.scalars import Ops
from diffc.codegen.loops.nodes import Contract, Expr, Reduce
from diffc.codegen.loops.walk import expressions
from diffc.codegen.targets import ITEM_BYTES, Target
from diffc.ir.index import Dim, Var, ravel, unravel

if TYPE_CHECKING:
    from diffc.codegen.emit.kernel import KernelWriter

__all__ = ["partial_results", "write_contract", "write_reduces"]

UNROLLED_TREE = 16
UNROLLED_TERMS = 4

States = list[State]


def partial_results(dtype: str, target: Target) -> int:
    """Among how many partial results a reduction in `lanes` order deals values of `dtype`."""
    return 4 * target.lanes(dtype)


def write_reduces(writer: KernelWriter, group: Sequence[Reduce]) -> None:
    """Writes reductions that share their variables and order, and binds their results."""
    vars = group[0].vars
    extents = [_extent(var) for var in vars]
    total = prod(extents)
    job = _Job(writer, group, [Fold.of(reduce, total) for reduce in group], vars, total)
    if total == 0:
        states = [fold.identity(job.ops) for fold in job.folds]
    elif group[0].order == "sequence":
        states = job.sequence()
    elif writer.frame.lanes is None:
        states = job.along()
    elif total <= UNROLLED_TREE:
        states = job.tree()
    else:
        states = job.dealt()
    for reduce, fold, state in zip(group, job.folds, states, strict=True):
        lanes = job.ops.lanes
        text = fold.finish(job.ops, state)
        writer.frame.bind_scalar(reduce.target.name, Value(text, lanes))


def write_contract(writer: KernelWriter, stmt: Contract) -> None:
    """Writes a contraction as one multiply-add after the other, and binds its result.

    They are fused where the target has the instruction, as in `contract_numbers`.
    """
    frame, evaluator = writer.frame, writer.evaluator
    dtype = stmt.target.dtype
    ops = evaluator.ops(1 if frame.lanes is None else frame.lanes.count)
    kind = ops.kind(dtype)

    def term(carried: list[str]) -> list[str]:
        operands = [evaluator.vector(stmt.lhs), evaluator.vector(stmt.rhs), carried[0]]
        if frame.target.has_fma:
            return [ops.apply("fma", dtype, (dtype,) * 3, operands)]
        product = ops.apply("mul", dtype, (dtype,) * 2, operands[:2])
        return [ops.apply("add", dtype, (dtype,) * 2, [product, carried[0]])]

    start = [(kind, ops.literal(0, dtype))]
    result = start[0][1]
    if all(_extent(var) for var in stmt.vars):
        result = _nest(writer, stmt.vars, start, term)[0]
    frame.bind_scalar(stmt.target.name, Value(result, ops.lanes))


def _extent(var: Var) -> int:
    assert isinstance(var.extent, int), f"{var} has no fixed extent"
    return var.extent


Term = Callable[[list[str]], list[str]]


def _nest(
    writer: KernelWriter, vars: Sequence[Var], carried: list[tuple[str, str]], term: Term
) -> list[str]:
    """Runs `term` for all values of `vars` in row-major order; returns what it carries."""
    frame = writer.frame
    if not vars:
        return term([text for _, text in carried])
    var, rest = vars[0], vars[1:]
    kinds = [kind for kind, _ in carried]
    if _extent(var) <= UNROLLED_TERMS:
        for value in range(_extent(var)):
            with frame.level():
                frame.bind(var, value)
                texts = _nest(writer, rest, carried, term)
            carried = list(zip(kinds, texts, strict=True))
        return [text for _, text in carried]
    with frame.level(), frame.fn.loop(_extent(var), carried) as loop:
        frame.bind(var, loop.index)
        inner = list(zip(kinds, loop.carried, strict=True))
        loop.next = _nest(writer, rest, inner, term)
    return loop.results


@dataclass(slots=True)
class _Job:
    """Reductions that run together."""

    writer: KernelWriter
    group: Sequence[Reduce]
    folds: Sequence[Fold]
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
            extents = tuple(_extent(var) for var in self.vars)
            for var, index in zip(self.vars, unravel(flat, extents), strict=True):
                self.writer.frame.alias(var, index)

    # --- one after the other

    def sequence(self) -> States:
        """Folds in order."""
        ops, evaluator = self.ops, self.writer.evaluator
        position = self._positions(ops)

        def term(carried: list[str]) -> list[str]:
            following: list[str] = []
            at = 0
            for fold, reduce in zip(self.folds, self.group, strict=True):
                state = tuple(carried[at : at + len(fold.dtypes())])
                at += len(state)
                value = evaluator.vector(reduce.value)
                following += fold.step(ops, state, value, position(fold))
            return following

        carried = self._carried(ops, [fold.identity(ops) for fold in self.folds])
        return self._states(_nest(self.writer, self.vars, carried, term))

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
        writer, frame = self.writer, self.writer.frame
        flat = self.flatten()
        width = self._width()
        steps, rest = divmod(self.total, width)
        if not steps:
            width = _round_up(self.total)
        lanes = min(width, self._lanes())
        parts = width // lanes
        ops = writer.evaluator.ops(lanes)
        if self.total > lanes and is_long(reduce.value for reduce in self.group):
            return self._halve(ops, self._turning(ops, flat, lanes, parts), parts)
        partials: list[States] = [[fold.identity(ops) for fold in self.folds] for _ in range(parts)]
        if steps > 1:
            carried = [pair for states in partials for pair in self._carried(ops, states)]
            with frame.level(), frame.fn.loop(steps * width, carried, step=width) as loop:
                each = len(carried) // parts
                partials = []
                for part in range(parts):
                    states = self._states(loop.carried[part * each : (part + 1) * each])
                    base = frame.plus(loop.index, str(part * lanes))
                    partials.append(self._dealt_vector(ops, flat, base, lanes, states))
                loop.next = [text for states in partials for state in states for text in state]
        elif steps:
            for part in range(parts):
                base = str(part * lanes)
                partials[part] = self._dealt_vector(ops, flat, base, lanes, partials[part])
        for part in range(-(-rest // lanes)):
            active = min(lanes, rest - part * lanes)
            base = str(steps * width + part * lanes)
            partials[part] = self._dealt_vector(ops, flat, base, active, partials[part])
        if not steps:
            del partials[-(-rest // lanes) :]
        return self._halve(ops, partials, parts)

    def _turning(self, ops: Ops, flat: Var, lanes: int, parts: int) -> list[States]:
        """The partial results with one copy of a long body: each trip folds into the next part.

        The parts are carried in turned order; the one that is due is the first.
        """
        frame, folds = self.writer.frame, self.folds
        partials: list[States] = [[fold.identity(ops) for fold in folds] for _ in range(parts)]
        chunks, rest = divmod(self.total, lanes)
        if chunks > 1:
            carried = [pair for states in partials for pair in self._carried(ops, states)]
            each = len(carried) // parts
            with frame.level(), frame.fn.loop(chunks * lanes, carried, step=lanes) as loop:
                due = self._states(loop.carried[:each])
                due = self._dealt_vector(ops, flat, loop.index, lanes, due)
                texts = [text for state in due for text in state]
                loop.next = [*loop.carried[each:], *texts]
            for part in range(parts):
                texts = loop.results[part * each : (part + 1) * each]
                partials[(chunks + part) % parts] = self._states(texts)
        else:
            partials[0] = self._dealt_vector(ops, flat, "0", lanes, partials[0])
        if rest:
            due, base = partials[chunks % parts], str(chunks * lanes)
            partials[chunks % parts] = self._dealt_vector(ops, flat, base, rest, due)
        return partials

    def _width(self) -> int:
        reduce = self.group[0]
        target = self.writer.frame.target
        if reduce.value.dtype == "bool":
            return 4 * self._lanes()
        return partial_results(reduce.value.dtype, target)

    def _lanes(self) -> int:
        """Lanes that fill one register with the widest numbers that occur."""
        target = self.writer.frame.target
        widest = max(
            (_width_of(node) for reduce in self.group for node in expressions((reduce.value,))),
            default=1,
        )
        return max(1, target.vector_bytes // widest)

    def _dealt_vector(self, ops: Ops, flat: Var, base: str, active: int, states: States) -> States:
        """Folds the values at base … base + active - 1 into the partial results of one vector."""
        frame, evaluator = self.writer.frame, self.writer.evaluator
        lanes = ops.lanes
        following: States = []
        with frame.level():
            if lanes == 1:
                frame.bind(flat, base)
            else:
                prefix = None if active == lanes else active
                frame.bind_lanes(Lanes(flat, base, lanes, active=prefix, is_aligned=True))
            self.unflatten(flat)
            for fold, reduce, state in zip(self.folds, self.group, states, strict=True):
                value = evaluator.vector(reduce.value)
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

    def _halve(self, ops: Ops, partials: list[States], parts: int) -> States:
        """Joins partial k with k + half until one is left (missing ones are at the end)."""
        while parts > 1:
            parts //= 2
            for part in range(parts, len(partials)):
                partials[part - parts] = self._join(ops, partials[part - parts], partials[part])
            del partials[parts:]
        states, lanes = partials[0], ops.lanes
        fn = ops.fn
        while lanes > 1:
            half = self.writer.evaluator.ops(lanes // 2)
            halves: list[States] = []
            for first in (0, lanes // 2):
                halves.append(
                    [
                        tuple(
                            slice_lanes(fn, text, register(dtype), lanes, first, lanes // 2)
                            for text, dtype in zip(state, fold.dtypes(), strict=True)
                        )
                        for fold, state in zip(self.folds, states, strict=True)
                    ]
                )
            states = self._join(half, halves[0], halves[1])
            lanes //= 2
        return states

    def _join(self, ops: Ops, a: States, b: States) -> States:
        return [
            fold.combine(ops, left, right)
            for fold, left, right in zip(self.folds, a, b, strict=True)
        ]

    # --- vectors along other variables, few values

    def tree(self) -> States:
        """Folds each value by itself and joins them as halving would."""
        flat = self.flatten()
        width = min(self._width(), _round_up(self.total))
        ops = self.ops

        def joined(first: int, stride: int) -> States | None:
            """Partial results first, first + stride, … together."""
            if first >= self.total:
                return None
            if stride == width:
                return self._points(ops, flat, first, width)
            left, right = joined(first, 2 * stride), joined(first + stride, 2 * stride)
            assert left is not None
            return left if right is None else self._join(ops, left, right)

        states = joined(0, 1)
        assert states is not None
        return states

    def _points(self, ops: Ops, flat: Var, first: int, step: int) -> States:
        """Folds every `step`-th value from `first` on."""
        states = [fold.identity(ops) for fold in self.folds]
        for point in range(first, self.total, step):
            with self.writer.frame.level():
                self.writer.frame.bind(flat, point)
                self.unflatten(flat)
                states = self._step(ops, flat, states)
        return states

    def _step(self, ops: Ops, flat: Var, states: States) -> States:
        frame, evaluator = self.writer.frame, self.writer.evaluator
        following: States = []
        for fold, reduce, state in zip(self.folds, self.group, states, strict=True):
            position = ""
            if fold.has_position:
                position = frame.splat_index(frame.dim(flat), fold.position, ops.lanes)
            following.append(fold.step(ops, state, evaluator.vector(reduce.value), position))
        return following

    # --- vectors along other variables, many values

    def dealt(self) -> States:
        """Keeps the partial results on the stack, in the order of their numbers."""
        frame, fn, ops = self.writer.frame, self.writer.frame.fn, self.ops
        flat = self.flatten()
        width = min(self._width(), _round_up(self.total))
        slots = [
            [(kind, self._array(kind, width)) for kind in fold.kinds(ops)] for fold in self.folds
        ]

        def read(number: str) -> States:
            return [
                tuple(fn.load(kind, fn.index(array, kind, number), 1) for kind, array in arrays)
                for arrays in slots
            ]

        def write(number: str, states: States) -> None:
            for arrays, state in zip(slots, states, strict=True):
                for (kind, array), text in zip(arrays, state, strict=True):
                    fn.store(kind, text, fn.index(array, kind, number), 1)

        with fn.loop(width) as loop:
            write(loop.index, [fold.identity(ops) for fold in self.folds])
        with frame.level(), fn.loop(self.total) as loop:
            frame.bind(flat, loop.index)
            self.unflatten(flat)
            number = loop.index
            if self.total > width:
                number = fn.value(f"and i64 {number}, {width - 1}")
            write(number, self._step(ops, flat, read(number)))
        half = width // 2
        while half:
            with fn.loop(half) as loop:
                other = fn.value(f"add nuw nsw i64 {loop.index}, {half}")
                write(loop.index, self._join(ops, read(loop.index), read(other)))
            half //= 2
        return read("0")

    def _array(self, kind: str, width: int) -> str:
        with self.writer.frame.at(0):
            return self.writer.frame.fn.value(f"alloca {kind}, i64 {width}, align 64")


def _ravel(vars: Sequence[Var]) -> Dim:
    return ravel(tuple(vars), tuple(_extent(var) for var in vars))


def _width_of(expr: Expr) -> int:
    return ITEM_BYTES[expr.dtype]


def _round_up(count: int) -> int:
    return 1 << (count - 1).bit_length()
