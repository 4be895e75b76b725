"""Where code goes: nested levels, what is bound at each, and index arithmetic on them.

A `Frame` is the environment in which expressions are computed. It is a stack of levels, one per
loop (or other point where something becomes known). Each loop variable and each bound scalar has
the depth of the level that binds it, and a value is emitted at the deepest level that it depends
on: a level that has been left open behind an inner loop keeps lines aside, which are put in right
before that loop. So whatever does not change in a loop is computed before it, once.

One variable at most is the vector variable: the lanes of vector values are its values `base`,
`base + 1`, … Every other variable is one scalar. `dim` of an index is its value in lane 0.

Invariants: a cached value dominates every place where its level is on the stack; a load is cached
no longer than its buffer keeps its content; nothing is loaded under a condition that was not met.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import numpy as np

from diffc.codegen.emit.text import LLVM_TYPES, FunctionText, constant, vector_type
from diffc.codegen.loops.nodes import Buffer
from diffc.codegen.targets import Target
from diffc.ir.index import (
    Atom,
    Dim,
    FloorDiv,
    Mod,
    Quotient,
    Var,
    bounds,
    evaluate,
    free,
    substitute,
)
from diffc.ir.index import Expr as IndexExpr

__all__ = ["INDEX_LIMIT", "Frame", "Lanes", "Level", "Value", "is_literal"]

INDEX_LIMIT = 2**30


@dataclass(frozen=True, slots=True)
class Value:
    """An SSA name or literal: one scalar (`lanes` 1) or a vector."""

    text: str
    lanes: int = 1


@dataclass(frozen=True, slots=True)
class Lanes:
    """The vector variable and its values in the lanes.

    Attributes:
        var: The variable.
        base: Its value in lane 0, an `i64` name or literal.
        count: Number of lanes, at least 2.
        active: How many lanes count, from lane 0 on; None for all.
        mask: A further mask (`<count x i1>`) of lanes that count; None for all.
        is_aligned: Whether `base` is a multiple of `count`.
    """

    var: Var
    base: str
    count: int
    active: int | None = None
    mask: str | None = None
    is_aligned: bool = False


@dataclass(slots=True)
class Level:
    """One level: what was computed there, and its own lines while an inner level is open."""

    lines: list[str] = field(default_factory=list)
    block: str = ""
    place: int = 0
    cache: dict[object, tuple[Value, frozenset[Buffer]]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Bindings:
    """What is bound; restored when a level is left."""

    vars: dict[Var, tuple[str, int]]
    aliases: dict[Var, Dim]
    scalars: dict[str, tuple[Value, int]]
    memory: dict[Buffer, int]
    lanes: Lanes | None
    lanes_depth: int
    load_floor: int

    def copy(self) -> Bindings:
        return replace(
            self,
            vars=dict(self.vars),
            aliases=dict(self.aliases),
            scalars=dict(self.scalars),
            memory=dict(self.memory),
        )


class Frame:
    """The environment of one kernel function under construction.

    Attributes:
        fn: The function.
        target: The machine.
        pointers: SSA pointer of each buffer.
        bound: What is bound at present.
        status: Pointer to the status slot.
    """

    __slots__ = ("_active", "_levels", "bound", "fn", "pointers", "status", "target")

    def __init__(
        self,
        fn: FunctionText,
        target: Target,
        pointers: Mapping[Buffer, str],
        status: str = "%status",
    ) -> None:
        self.fn = fn
        self.target = target
        self.pointers = dict(pointers)
        self.status = status
        self.bound = Bindings({}, {}, {}, {}, None, 0, 0)
        self._levels = [Level()]
        self._active = 0

    # --- levels

    @property
    def depth(self) -> int:
        """Depth of the innermost level."""
        return len(self._levels) - 1

    @property
    def lanes(self) -> Lanes | None:
        """The vector variable, if there is one."""
        return self.bound.lanes

    @contextmanager
    def level(
        self,
        *,
        stores: Iterable[Buffer] = (),
        is_conditional: bool = False,
    ) -> Iterator[None]:
        """Opens a level; what is bound inside is forgotten after it.

        Args:
            stores: Buffers whose content changes while the level is open (a loop that writes them).
            is_conditional: Whether the code inside may not run; its loads then stay inside.
        """
        assert self._active == self.depth, "a level is opened where code goes"
        outer, saved = self._levels[-1], self.bound
        main, block = self.fn.divert([], "")
        outer.place = len(main)
        main.append("")
        label = self.fn.fresh_label("pre")
        outer.lines, outer.block = [], block
        self.fn.divert(main, block)
        self.fn.jump(label)
        self.fn.label(label)
        self._levels.append(Level())
        self._active = self.depth
        self.bound = saved.copy()
        self.bound.memory.update(dict.fromkeys(stores, self.depth))
        if is_conditional:
            self.bound = replace(self.bound, load_floor=self.depth)
        yield
        assert self._active == self.depth, "a level is left where code goes"
        self._levels.pop()
        self._active = self.depth
        main[outer.place] = "\n".join(outer.lines)
        outer.lines = []
        self.bound = saved

    @contextmanager
    def at(self, depth: int) -> Iterator[None]:
        """Code inside goes to the level `depth`."""
        if depth == self._active:
            yield
            return
        before, level = self._active, self._levels[depth]
        lines, block = self.fn.divert(level.lines, level.block)
        self._active = depth
        yield
        level.block = self.fn.block
        self.fn.divert(lines, block)
        self._active = before

    def cached(
        self,
        key: object,
        depth: int,
        make: Callable[[], Value],
        buffers: frozenset[Buffer] = frozenset(),
    ) -> Value:
        """The value known as `key` at level `depth`, emitted there if it is not known."""
        found = self._levels[depth].cache.get(key)
        if found is not None:
            return found[0]
        with self.at(depth):
            value = make()
        self._levels[depth].cache[key] = value, buffers
        return value

    def known(self, key: object, depth: int) -> Value | None:
        """The value known as `key` at level `depth`."""
        found = self._levels[depth].cache.get(key)
        return None if found is None else found[0]

    def written(self, buffers: Iterable[Buffer]) -> None:
        """Forgets loads of buffers that have just been written."""
        changed = frozenset(buffers)
        for level in self._levels:
            stale = [key for key, (_, read) in level.cache.items() if read & changed]
            for key in stale:
                del level.cache[key]

    # --- bindings

    def bind_lanes(self, lanes: Lanes) -> None:
        """Gives the innermost level its vector variable (there must be none yet)."""
        assert self.bound.lanes is None, "vectors do not nest"
        self.bound = replace(self.bound, lanes=lanes, lanes_depth=self.depth)
        self.bound.vars[lanes.var] = lanes.base, self.depth

    def bind(self, var: Var, value: str | int) -> None:
        """Gives a loop variable its value (an `i64`) at the innermost level."""
        self.bound.vars[var] = str(value), self.depth

    def alias(self, var: Var, index: Dim) -> None:
        """Makes a loop variable stand for an index of bound ones."""
        self.bound.aliases[var] = index

    def bind_scalar(self, name: str, value: Value) -> None:
        """Gives a `Scalar` its value at the innermost level."""
        self.bound.scalars[name] = value, self.depth

    def depth_of(
        self,
        atoms: Iterable[Atom] = (),
        scalars: Iterable[str] = (),
        buffers: Iterable[Buffer] = (),
    ) -> int:
        """Depth of the innermost level that binds any of these.

        A buffer has the depth of the innermost level during which it is written.
        """
        bound, depth = self.bound, 0
        for atom in atoms:
            assert isinstance(atom, Var), f"{atom} has no value in a kernel"
            if atom in bound.aliases:
                depth = max(depth, self.depth_of(free(bound.aliases[atom])))
            else:
                depth = max(depth, bound.vars[atom][1])
        for name in scalars:
            value, at = bound.scalars[name]
            depth = max(depth, at)
            if value.lanes > 1:
                depth = max(depth, bound.lanes_depth)
        for buffer in buffers:
            depth = max(depth, bound.memory.get(buffer, 0))
        return depth

    def resolve(self, index: Dim) -> Dim:
        """An index with aliases replaced."""
        return substitute(index, self.bound.aliases) if self.bound.aliases else index

    # --- index arithmetic, lane 0

    def dim(self, index: Dim) -> str:
        """The value of an index in lane 0, an `i64`."""
        index = self.resolve(index)
        if not isinstance(index, IndexExpr):
            return str(index)
        if isinstance(index, Var):
            return self.bound.vars[index][0]
        depth = self.depth_of(free(index))
        if isinstance(index, Quotient):
            return self.cached(("dim", index), depth, lambda: self._quotient(index)).text
        rest, deep = self._split(index, depth)
        return self.cached(("dim", index), depth, lambda: self._sum(rest, deep)).text

    def _split(self, index: IndexExpr, depth: int) -> tuple[Dim, list[tuple[Atom, int]]]:
        """Separates the terms that are known only at `depth`."""
        rest: Dim = index.const
        deep: list[tuple[Atom, int]] = []
        for atom, coef in index.terms:
            if self.depth_of(free(atom)) < depth:
                rest = rest + coef * atom
            else:
                deep.append((atom, coef))
        return rest, deep

    def _sum(self, rest: Dim, terms: list[tuple[Atom, int]]) -> Value:
        total = self.dim(rest)
        for atom, coef in terms:
            total = self.plus(total, self.times(self.dim(atom), coef))
        return Value(total)

    def plus(self, a: str, b: str) -> str:
        """Sum of two `i64`."""
        if a == "0" or b == "0":
            return b if a == "0" else a
        if is_literal(a) and is_literal(b):
            return str(int(a) + int(b))
        return self.fn.value(f"add nsw i64 {a}, {b}")

    def times(self, a: str, factor: int) -> str:
        """An `i64` times a constant."""
        if factor == 1 or a == "0":
            return a
        if is_literal(a):
            return str(int(a) * factor)
        return self.fn.value(f"mul nsw i64 {a}, {factor}")

    def _quotient(self, atom: Quotient) -> Value:
        base, k = self.dim(atom.base), atom.divisor
        is_floor = isinstance(atom, FloorDiv)
        if is_literal(base):
            return Value(str(int(base) // k if is_floor else int(base) % k))
        shift = _shift(atom)
        base = self.plus(base, str(shift * k))
        if not is_floor:
            return Value(self.fn.value(f"urem i64 {base}, {k}"))
        return Value(self.plus(self.fn.value(f"udiv i64 {base}, {k}"), str(-shift)))

    # --- index arithmetic along the lanes

    def varies(self, index: Dim) -> bool:
        """Whether an index can differ between lanes."""
        return self.lane_stride(index) != 0

    def lane_stride(self, index: Dim) -> int | None:
        """By how much an index grows from lane to lane; None where that is not constant."""
        lanes = self.bound.lanes
        index = self.resolve(index)
        if lanes is None or not isinstance(index, IndexExpr):
            return 0
        stride = 0
        for atom, coef in index.terms:
            if atom is lanes.var:
                stride += coef
            elif isinstance(atom, Quotient):
                inner = self._quotient_stride(atom, lanes)
                if inner is None:
                    return None
                stride += coef * inner
        return stride

    def _quotient_stride(self, atom: Quotient, lanes: Lanes) -> int | None:
        inner = self.lane_stride(atom.base)
        if inner == 0:
            return 0
        # A run of lanes that starts at a multiple of their count stays within one block of k.
        if inner != 1 or not lanes.is_aligned or atom.divisor % lanes.count:
            return None
        if not _is_multiple(atom.base - lanes.var, lanes.count):
            return None
        return 1 if isinstance(atom, Mod) else 0

    def lane_steps(self, index: Dim) -> tuple[int, ...] | None:
        """By how much an index in each lane differs from lane 0; None where that is not constant.

        So `i // 2` grows by one every other lane, where vectors start at even `i`, and `i % 3` has
        a pattern of its own in a vector that starts at a known `i`.
        """
        lanes = self.bound.lanes
        index = self.resolve(index)
        assert lanes is not None
        found = [0] * lanes.count
        for atom, coef in index.terms if isinstance(index, IndexExpr) else ():
            steps = self._atom_steps(atom, lanes)
            if steps is None:
                return None
            found = [total + coef * step for total, step in zip(found, steps, strict=True)]
        return tuple(found)

    def _atom_steps(self, atom: Atom, lanes: Lanes) -> list[int] | None:
        stride = self.lane_stride(atom)
        if stride is not None:
            return [lane * stride for lane in range(lanes.count)]
        assert isinstance(atom, Quotient)
        if is_literal(lanes.base) and free(atom) == {lanes.var}:
            found = evaluate(atom, {lanes.var: int(lanes.base) + np.arange(lanes.count)})
            return (found - found[0]).tolist()  # type: ignore[no-any-return]  # a list of ints
        k = atom.divisor
        if self.lane_stride(atom.base) != 1 or not lanes.is_aligned or lanes.count % k:
            return None
        if not _is_multiple(atom.base - lanes.var, k):
            return None
        is_floor = isinstance(atom, FloorDiv)
        return [lane // k if is_floor else lane % k for lane in range(lanes.count)]

    def lane_break(self, index: Dim) -> tuple[str, int] | None:
        """Where an index that grows by 1 from lane to lane makes one jump at most.

        So `64*(f//62) + f%62`, the columns of a matrix without its borders row by row, where `f`
        grows by 1: it jumps by 2 more where `f%62` comes back to 0.

        Returns:
            The first lane behind the jump, an `i64` above 0, and by how much more than 1 the index
            grows there; None where it moves otherwise.
        """
        lanes = self.bound.lanes
        index = self.resolve(index)
        if lanes is None or not isinstance(index, IndexExpr):
            return None
        turning: Quotient | None = None
        growth = jump = 0
        for atom, coef in index.terms:
            stride = self.lane_stride(atom)
            if stride is not None:
                growth += coef * stride
                continue
            assert isinstance(atom, Quotient)
            if self.lane_stride(atom.base) != 1 or atom.divisor < lanes.count:
                return None
            if turning is None:
                turning = atom
            elif (turning.base, turning.divisor) != (atom.base, atom.divisor):
                return None
            is_floor = isinstance(atom, FloorDiv)
            growth += 0 if is_floor else coef
            jump += coef if is_floor else -coef * atom.divisor
        if turning is None or growth != 1:
            return None
        into = turning.base % turning.divisor
        depth = max(self.depth_of(free(index)), self.bound.lanes_depth)
        key = "break", turning.base, turning.divisor

        def make() -> Value:
            return Value(self.fn.value(f"sub nsw i64 {turning.divisor}, {self.dim(into)}"))

        return self.cached(key, depth, make).text, jump

    def lane_kind(self, *indices: Dim) -> str:
        """The integer type in which indices are computed per lane."""
        return "i32" if all(_is_small(self.resolve(index)) for index in indices) else "i64"

    def lane_dim(self, index: Dim, kind: str) -> str:
        """The values of an index in all lanes, a vector of `kind` (see `lane_kind`)."""
        index = self.resolve(index)
        lanes = self.bound.lanes
        assert lanes is not None
        depth = max(self.depth_of(free(index)), self.bound.lanes_depth)
        key = "lanes", kind, index
        return self.cached(key, depth, lambda: self._lane_dim(index, kind, lanes)).text

    def _lane_dim(self, index: Dim, kind: str, lanes: Lanes) -> Value:
        count = lanes.count
        wide = vector_type(kind, count)
        stride = self.lane_stride(index)
        if stride is not None:
            start = self.splat_index(self.dim(index), kind, count)
            if stride == 0:
                return Value(start, count)
            steps = ", ".join(f"{kind} {lane * stride}" for lane in range(count))
            return Value(self.fn.value(f"add {wide} {start}, <{steps}>"), count)
        assert isinstance(index, IndexExpr)
        if isinstance(index, Quotient):
            shift, k = _shift(index), index.divisor
            base = self.lane_dim(index.base, kind)
            if shift:
                base = self.fn.value(f"add {wide} {base}, {constant(shift * k, kind, count)}")
            name = "udiv" if isinstance(index, FloorDiv) else "urem"
            result = self.fn.value(f"{name} {wide} {base}, {constant(k, kind, count)}")
            if shift and name == "udiv":
                result = self.fn.value(f"sub {wide} {result}, {constant(shift, kind, count)}")
            return Value(result, count)
        uniform: Dim = index.const
        total = ""
        for atom, coef in index.terms:
            if self.lane_stride(atom) == 0:
                uniform = uniform + coef * atom
                continue
            term = self.lane_dim(atom, kind)
            if coef != 1:
                term = self.fn.value(f"mul {wide} {term}, {constant(coef, kind, count)}")
            total = self.fn.value(f"add {wide} {total}, {term}") if total else term
        if uniform != 0:
            start = self.splat_index(self.dim(uniform), kind, count)
            total = self.fn.value(f"add {wide} {total}, {start}")
        return Value(total, count)

    def splat_index(self, value: str, kind: str, count: int) -> str:
        """An `i64` in every lane of a vector of `kind`."""
        if is_literal(value):
            return constant(int(value), kind, count)
        if kind != "i64":
            value = self.fn.value(f"trunc i64 {value} to {kind}")
        return self.fn.broadcast(value, kind, count)

    # --- addresses

    def pointer(self, buffer: Buffer, offset: Dim, start: tuple[str, int] | None = None) -> str:
        """Address of the element at `offset` (in lane 0); it may lie outside of the buffer.

        Args:
            buffer: The buffer.
            offset: The element.
            start: Where to count from instead of the buffer's start, and the depth that knows it.
        """
        root, root_depth = (self.pointers[buffer], 0) if start is None else start
        offset = self.resolve(offset)
        if offset == 0:
            return root
        kind = LLVM_TYPES[buffer.dtype]
        if not isinstance(offset, IndexExpr):
            return self.step(root, kind, str(offset))
        if offset.const:
            # constants stay in the address itself
            base = self.pointer(buffer, offset - offset.const, start)
            return self.step(base, kind, str(offset.const))
        depth = self.depth_of(free(offset))
        rest, deep = self._split(offset, depth)

        def make() -> Value:
            moved = self._sum(0, deep).text
            return Value(self.step(self.pointer(buffer, rest, start), kind, moved))

        key = "pointer", root, buffer.dtype, offset
        return self.cached(key, max(depth, root_depth), make).text

    def step(self, pointer: str, kind: str, offset: str) -> str:
        """`pointer` moved by elements, perhaps out of its object (unlike `FunctionText.index`)."""
        if offset == "0":
            return pointer
        return self.fn.value(f"getelementptr {kind}, ptr {pointer}, i64 {offset}")

    # --- masks

    def lane_mask(self) -> str | None:
        """The lanes that count, None for all."""
        lanes = self.bound.lanes
        if lanes is None:
            return None
        kind = vector_type("i1", lanes.count)
        mask = lanes.mask
        if lanes.active is not None:
            bits = ", ".join(f"i1 {int(lane < lanes.active)}" for lane in range(lanes.count))
            prefix = f"<{bits}>"
            mask = prefix if mask is None else self.fn.value(f"and {kind} {mask}, {prefix}")
        return mask


def is_literal(text: str) -> bool:
    """Whether an operand is an integer literal."""
    return text.lstrip("-").isdigit()


def _is_multiple(index: Dim, k: int) -> bool:
    """Whether an index is a multiple of k whatever its variables are."""
    if not isinstance(index, IndexExpr):
        return index % k == 0
    return index.const % k == 0 and all(coef % k == 0 for _, coef in index.terms)


def _shift(atom: Quotient) -> int:
    """How many divisors make the base non-negative."""
    low = bounds(atom.base)[0]
    assert low is not None, f"{atom} has no known range"
    return 0 if low >= 0 else -(low // atom.divisor)


def _is_small(index: Dim) -> bool:
    low, high = bounds(index)
    if low is None or high is None or low < -INDEX_LIMIT or high > INDEX_LIMIT:
        return False
    if not isinstance(index, IndexExpr):
        return True
    for atom, coef in index.terms:
        if isinstance(atom, Quotient) and not _is_small(atom.base):
            return False
        least, most = bounds(atom)
        if least is None or most is None or max(abs(least), abs(most)) * abs(coef) > INDEX_LIMIT:
            return False
    return True
