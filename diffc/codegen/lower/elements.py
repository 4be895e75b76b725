"""One element of a value as a scalar expression: ``element(value, indices)``.

Elementwise ops apply their formula, movement maps the indices, what lies in memory is loaded.
Indices are quasi-affine. An index that is itself computed (below ``gather`` or ``dynamic_slice``)
is named by a variable of its own, so movement below a gather works like everywhere; only where
such a variable reaches a load, a guard or an ``iota`` does it become an expression again.

Every answer is remembered by value and indices, so what the graph shares stays shared. What can't
be had as a function of the indices alone (a reduction) must have been defined before by the
statement that finds it. Nothing recurses along the graph.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from diffc.codegen.loops.nodes import (
    Apply,
    Buffer,
    Choose,
    Const,
    Expr,
    GatherLoad,
    IndexValue,
    Load,
)
from diffc.codegen.lower.messages import Messages
from diffc.codegen.lower.term import LoopTerm, apply, constant
from diffc.errors import InternalError
from diffc.ir.graph import Eqn, Literal, Operand
from diffc.ir.index import Cond, Dim, FloorDiv, Guard, Mod, Var, free, lt, ravel
from diffc.ops.contraction import split
from diffc.ops.declare import Generate, Map, Move, Special
from diffc.ops.generate import threefry
from diffc.plan.forms import normal

#: constants up to this many elements are chosen from by position.
_SMALL_CONSTANT = 16

Indices = tuple[Dim, ...]
Key = tuple[Operand, Indices]
Step = tuple[list[Key], Callable[[list[Expr]], Expr]]


@dataclass(frozen=True, slots=True)
class Computed:
    """Where the value of an index variable comes from: an element, clamped into its extent."""

    source: Key
    extent: int


class Elements:
    """Evaluates elements of one kernel's values.

    Attributes:
        memory: values that lie in a buffer: the kernel's inputs, and what was stored before.
    """

    __slots__ = ("_computed", "_known", "_names", "_values", "memory", "messages")

    def __init__(self, memory: dict[Operand, Buffer], messages: Messages) -> None:
        self.memory = memory
        self.messages = messages
        self._known: dict[Key, Expr] = {}
        self._computed: dict[Var, Computed] = {}
        self._names: dict[tuple[Eqn, int, Indices], Var] = {}
        self._values: dict[Dim, Expr] = {}

    def define(self, value: Operand, indices: Indices, expr: Expr) -> None:
        """Declares what an element is, from now on."""
        self._known[value, normal(indices, value.aval.shape)] = expr

    @contextmanager
    def scope(self) -> Iterator[None]:
        """What is found or defined inside holds inside only."""
        known = dict(self._known)
        yield
        self._known = known

    def element(self, value: Operand, indices: Indices) -> Expr:
        """The expression of an element."""
        wanted: Key = value, normal(indices, value.aval.shape)
        steps: dict[Key, Step] = {}
        stack = [wanted]
        while stack:
            key = stack[-1]
            if key in self._known:
                stack.pop()
                continue
            step = steps.get(key)
            if step is None:
                step = steps[key] = self._step(*key)
            needs, finish = step
            missing = [need for need in needs if need not in self._known]
            if missing:
                stack.extend(reversed(missing))
                continue
            self._known[key] = finish([self._known[need] for need in needs])
            stack.pop()
        return self._known[wanted]

    # --- one step: which elements are needed, and what is made of them

    def _step(self, value: Operand, indices: Indices) -> Step:
        if isinstance(value, Literal):
            const = Const(value.aval.dtype, value.value)
            return [], lambda _: const
        if value in self.memory:
            return self._load(self.memory[value], indices)
        eqn = value.eqn
        if eqn is None:
            raise InternalError(f"input {value!r} of a kernel has no buffer")
        body = eqn.op.body
        if isinstance(body, Map):
            return self._map(eqn, body, indices)
        if isinstance(body, Move):
            return self._move(eqn, body, indices)
        if isinstance(body, Generate):
            return self._generate(eqn, body, indices)
        if isinstance(body, Special) and body.kind == "gather":
            return self._gather(eqn, indices)
        if isinstance(body, Special) and body.kind == "dynamic_slice":
            return self._dynamic_slice(eqn, indices)
        if isinstance(body, Special) and body.kind == "contract":
            return self._product(eqn, indices)
        if isinstance(body, Special) and body.kind == "random_bits":
            return self._random_bits(eqn, indices)
        if isinstance(body, Special) and body.kind == "constant":
            return self._sources(indices), lambda _: self._constant(eqn, indices)
        at = f" at {eqn.loc}" if eqn.loc else ""
        raise InternalError(f"{eqn.op.name}{at} is read at {indices}, where it is not at hand")

    def _map(self, eqn: Eqn, body: Map, indices: Indices) -> Step:
        def finish(args: list[Expr]) -> Expr:
            result = body.formula(*map(LoopTerm, args), **eqn.params)
            assert isinstance(result, LoopTerm), f"the body of {eqn.op.name} gives no term"
            return result.expr

        return [key(operand, indices) for operand in eqn.operands], finish

    def _move(self, eqn: Eqn, body: Move, indices: Indices) -> Step:
        avals = tuple(operand.aval for operand in eqn.operands)
        pieces: list[tuple[Guard, Key]] = []
        for position, read, guard in body.access(indices, avals, eqn.params):
            if guard.is_false:
                continue
            pieces.append((guard, key(eqn.operands[position], tuple(read))))
            if guard.is_true:
                break
        if not pieces:
            raise InternalError(f"{eqn.op.name} has no operand to read at {indices}")
        needs = [need for _, need in pieces]
        for guard, _ in pieces[:-1]:
            needs += self._sources(cond.expr for cond in guard)

        def finish(args: list[Expr]) -> Expr:
            last = len(pieces) - 1
            result = args[last]
            for k in range(last - 1, -1, -1):
                result = self._choose(pieces[k][0], args[k], result)
            return result

        return needs, finish

    def _generate(self, eqn: Eqn, body: Generate, indices: Indices) -> Step:
        dtype = eqn.result.aval.dtype

        def finish(args: list[Expr]) -> Expr:
            result = body.formula(
                indices,
                tuple(map(LoopTerm, args)),
                eqn.params,
                lambda index: LoopTerm(self._index_in(index, dtype)),
            )
            assert isinstance(result, LoopTerm), f"the body of {eqn.op.name} gives no term"
            return result.expr

        return [key(operand, ()) for operand in eqn.operands] + self._sources(indices), finish

    def _random_bits(self, eqn: Eqn, indices: Indices) -> Step:
        (words,) = eqn.operands
        position = ravel(indices, eqn.result.aval.shape)
        high: Dim = 0
        if _int(eqn.result.aval.size) > 1 << 32:
            high, position = position // (1 << 32), position % (1 << 32)

        def finish(args: list[Expr]) -> Expr:
            counter = (LoopTerm(self._index_in(word, "u32")) for word in (high, position))
            result = threefry(LoopTerm(args[0]), LoopTerm(args[1]), *counter)[0]
            assert isinstance(result, LoopTerm)
            return result.expr

        return [key(words, (0,)), key(words, (1,)), *self._sources((position,))], finish

    def _constant(self, eqn: Eqn, indices: Indices) -> Expr:
        """A small constant as a choice by position; large ones are buffers of the program."""
        aval = eqn.result.aval
        data = np.frombuffer(eqn.params["data"], aval.numpy)
        if len(data) > _SMALL_CONSTANT:
            raise InternalError(f"a constant {aval} must be an input of its kernel")
        if not len(data):
            return constant(aval.dtype, 0)
        position = ravel(indices, aval.shape)
        result: Expr = constant(aval.dtype, data[-1])
        for at in range(len(data) - 2, -1, -1):
            if data[at].tobytes() != data[at + 1].tobytes():
                below = lt(position, at + 1)
                if not below.is_false:
                    result = self._choose(below, constant(aval.dtype, data[at]), result)
        return result

    def _product(self, eqn: Eqn, indices: Indices) -> Step:
        """A contraction that sums nothing is a product of two broadcast operands."""
        left, right, result = split(eqn.params["spec"])
        letters = left, right
        if any(letter not in result for group in letters for letter in group):
            raise InternalError(f"contract {eqn.params['spec']} is read at {indices}")
        at = dict(zip(result, indices, strict=True))
        needs = [
            key(operand, tuple(at[letter] for letter in group))
            for operand, group in zip(eqn.operands, letters, strict=True)
        ]
        return needs, lambda args: apply("mul", *args)

    # --- memory and computed indices

    def _load(self, buffer: Buffer, indices: Indices) -> Step:
        sources = self._sources(indices)
        if not sources:
            load = Load(buffer, indices)
            return [], lambda _: load
        return sources, lambda _: GatherLoad(
            buffer,
            tuple(self._mixed(i, n) for i, n in zip(indices, buffer.shape, strict=True)),
        )

    def _gather(self, eqn: Eqn, indices: Indices) -> Step:
        operand, *index_operands = eqn.operands
        axes, mode = eqn.params["axes"], eqn.params["mode"]
        shape = tuple(map(_int, operand.aval.shape))
        count = index_operands[0].aval.ndim
        where, rest = indices[:count], iter(indices[count:])
        sources = [key(index, where) for index in index_operands]
        if operand in self.memory:
            buffer = self.memory[operand]
            kept = [None if axis in axes else next(rest) for axis in range(len(shape))]
            status = self.bounds_status(eqn) if mode == "check" else 0

            def finish(args: list[Expr]) -> Expr:
                found = iter(args)
                mixed = tuple(
                    wide(next(found)) if index is None else self._mixed(index, n)
                    for index, n in zip(kept, shape, strict=True)
                )
                return GatherLoad(buffer, mixed, mode, status)

            return sources + self._sources(indices), finish
        if mode == "check":
            raise InternalError("the operand of a checked gather must be an input of its kernel")
        at = {
            axis: self._variable(eqn, k, where, source, shape[axis])
            for k, (axis, source) in enumerate(zip(axes, sources, strict=True))
        }
        read = tuple(at[axis] if axis in at else next(rest) for axis in range(len(shape)))
        extents = [shape[axis] for axis in axes]
        zero = constant(operand.aval.dtype, 0)

        def select(args: list[Expr]) -> Expr:
            if mode == "clip":
                return args[-1]
            return apply("select", _within(args[: len(axes)], extents), args[-1], zero)

        return [*sources, key(operand, read)], select

    def _dynamic_slice(self, eqn: Eqn, indices: Indices) -> Step:
        operand, *starts = eqn.operands
        read = tuple(
            index + self._variable(eqn, axis, (), key(start, ()), _int(dim) - size + 1)
            for axis, (index, start, size, dim) in enumerate(
                zip(indices, starts, eqn.params["sizes"], operand.aval.shape, strict=True)
            )
        )
        return [key(operand, read)], lambda args: args[0]

    def bounds_status(self, eqn: Eqn) -> int:
        """The status for an index of a checked gather or scatter out of bounds."""
        axes, operand = eqn.params["axes"], eqn.operands[0].aval
        needs = [f"axis {axis} needs 0 <= index < {operand.shape[axis]}" for axis in axes]
        text = f"{eqn.op.name}: index out of bounds of {operand}: {', '.join(needs)}"
        return self.messages.add(text, eqn.loc)

    def clamped_start(self, start: Operand, extent: int) -> Expr:
        """A start clamped into ``0 .. extent - 1``, as i64."""
        return _clamp(self.element(start, ()), extent)

    def _variable(self, eqn: Eqn, position: int, at: Indices, source: Key, extent: int) -> Dim:
        if extent == 1:
            return 0
        name = eqn, position, at
        found = self._names.get(name)
        if found is None:
            found = self._names[name] = Var(f"g{len(self._names)}", extent)
            self._computed[found] = Computed(source, extent)
        return found

    def _sources(self, indices: Iterable[Dim]) -> list[Key]:
        """The elements that computed indices are made of."""
        if not self._computed:
            return []
        return [
            self._computed[atom].source
            for index in indices
            for atom in sorted(free(index), key=lambda atom: atom.key)
            if isinstance(atom, Var) and atom in self._computed
        ]

    def _mixed(self, index: Dim, dim: int) -> Dim | Expr:
        """An index of a gathering load, which moves what is out of bounds back in by itself."""
        if isinstance(index, Var) and index in self._computed:
            computed = self._computed[index]
            if computed.extent == dim:
                return wide(self._known[computed.source])
        return self._index_value(index) if self._sources((index,)) else index

    def _index_value(self, index: Dim) -> Expr:
        """The i64 value of an index; its computed variables are clamped."""
        known = self._values.get(index)
        if known is not None:
            return known
        if not self._sources((index,)):
            result: Expr = IndexValue("i64", index)
        elif isinstance(index, Var):
            computed = self._computed[index]
            result = _clamp(self._known[computed.source], computed.extent)
        elif isinstance(index, FloorDiv | Mod):
            name = "floor_divide" if isinstance(index, FloorDiv) else "remainder"
            divisor = Const("i64", index.divisor)
            result = apply(name, self._index_value(index.base), divisor)
        else:
            assert not isinstance(index, int)
            total: Dim = index.const
            parts: list[Expr] = []
            for atom, coef in index.terms:
                if self._sources((atom,)):
                    part = self._index_value(atom)
                    parts.append(part if coef == 1 else apply("mul", part, Const("i64", coef)))
                else:
                    total = total + coef * atom
            result = parts[0]
            for part in parts[1:]:
                result = apply("add", result, part)
            if total != 0:
                result = apply("add", result, IndexValue("i64", total))
        self._values[index] = result
        return result

    def _index_in(self, index: Dim, dtype: str) -> Expr:
        """The value of an index in a dtype."""
        if self._sources((index,)):
            return apply("convert", self._index_value(index), dtype=dtype)
        return constant(dtype, index) if isinstance(index, int) else IndexValue(dtype, index)

    def _choose(self, guard: Guard, on_true: Expr, on_false: Expr) -> Expr:
        """Conditions on loop indices choose before loading, those on computed ones select."""
        static: list[Cond] = []
        test: Expr | None = None
        for cond in guard:
            if self._sources((cond.expr,)):
                value, zero = self._index_value(cond.expr), Const("i64", 0)
                holds = apply("ge" if cond.kind == "ge" else "eq", value, zero)
                test = holds if test is None else apply("bitwise_and", test, holds)
            else:
                static.append(cond)
        if guard.is_true:
            return on_true
        result = on_true if test is None else apply("select", test, on_true, on_false)
        return Choose(Guard(static), result, on_false) if static else result


def key(operand: Operand, indices: Indices) -> Key:
    """What an element is remembered by."""
    return operand, normal(indices, operand.aval.shape)


def wide(expr: Expr) -> Expr:
    """A computed index as i64."""
    return apply("convert", expr, dtype="i64")


def _clamp(expr: Expr, extent: int) -> Expr:
    low = Apply("i64", "maximum", (wide(expr), Const("i64", 0)))
    return Apply("i64", "minimum", (low, Const("i64", extent - 1)))


def _within(indices: list[Expr], extents: list[int]) -> Expr:
    result: Expr | None = None
    for index, extent in zip(indices, extents, strict=True):
        value = wide(index)
        above = apply("ge", value, Const("i64", 0))
        holds = apply("bitwise_and", above, apply("lt", value, Const("i64", extent)))
        result = holds if result is None else apply("bitwise_and", result, holds)
    assert result is not None
    return result


def _int(dim: Any) -> int:
    assert isinstance(dim, int), f"dimension {dim} of a kernel is not known"
    return dim
