"""Statements of a kernel to LLVM: loops, stores, scatters; one function per kernel.

`KernelWriter.body` writes statements in order. Stores that stand next to each other compute all
their values before any of them writes (unless a later one reads what an earlier one wrote), so a
result may lie in the memory of an operand that is read at the same points.

Reductions are in `reduce.py`, cumulative folds in `prefix.py`, sorting is in `sort.py`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from math import prod

from diffc.codegen.emit.contract import write_contraction
from diffc.codegen.emit.expr import ALWAYS, Evaluator
from diffc.codegen.emit.frame import INDEX_LIMIT, Frame, Lanes, Value
from diffc.codegen.emit.in_order import write_contract
from diffc.codegen.emit.inlining import is_straight
from diffc.codegen.emit.memory import Condition, Memory, Place
from diffc.codegen.emit.numbering import Numbering, is_long
from diffc.codegen.emit.prefix import write_prefix
from diffc.codegen.emit.reduce import write_sweep
from diffc.codegen.emit.shares import Part, part_of_nest
from diffc.codegen.emit.sort import write_sort
from diffc.codegen.emit.text import ModuleText, constant, vector_type
from diffc.codegen.emit.turn import write_turn
from diffc.codegen.loops.contraction import extent_of, is_tiled
from diffc.codegen.loops.nodes import (
    Buffer,
    Contract,
    Fetch,
    For,
    Kernel,
    Par,
    Prefix,
    Reduce,
    Scatter,
    Sort,
    Stmt,
    Store,
    Sweep,
    Turn,
    Vector,
    Within,
)
from diffc.codegen.loops.scratch import WORKSPACE, scratch_in_arena, scratch_on_stack
from diffc.codegen.loops.walk import operands, statements, stored
from diffc.codegen.targets import ITEM_BYTES, Target
from diffc.errors import InternalError
from diffc.ir.index import Var, unravel

__all__ = ["KernelWriter", "write_kernel"]

COMBINE = {"add": "add", "mul": "mul", "min": "minimum", "max": "maximum"}


class KernelWriter:
    """Writes the statements of one kernel.

    Attributes:
        kernel: The kernel.
        frame: Where code goes and what is bound.
        numbering: Structural numbers of its expressions.
        memory: Accesses.
        evaluator: Expressions.
        ranges: First value and end (`i64`) of variables of which not all points are needed.
        workspace: Pointer to memory for sorting.
        attributes: Type and attributes of each buffer's pointer, where they are known.
    """

    __slots__ = (
        "_fresh",
        "attributes",
        "evaluator",
        "frame",
        "kernel",
        "memory",
        "numbering",
        "ranges",
        "workspace",
    )

    def __init__(
        self,
        kernel: Kernel,
        frame: Frame,
        attributes: Mapping[Buffer, str] | None = None,
        streamed: frozenset[Buffer] = frozenset(),
    ) -> None:
        self.kernel = kernel
        works = [text for buffer, text in frame.pointers.items() if buffer.name == WORKSPACE]
        self.workspace = works[0] if works else "null"
        self.attributes = {} if attributes is None else dict(attributes)
        self.frame = frame
        self.numbering = Numbering()
        self.memory = Memory(frame, streamed)
        self.evaluator = Evaluator(frame, self.numbering, self.memory)
        self.ranges: dict[Var, tuple[str, str]] = {}
        self._fresh = 0

    def inside(self, frame: Frame) -> KernelWriter:
        """A writer for a function of its own with parts of this kernel."""
        return KernelWriter(self.kernel, frame, self.attributes, self.memory.streamed)

    def fresh_var(self, extent: int) -> Var:
        """A loop variable that the kernel does not have."""
        self._fresh += 1
        return Var(f"~{self._fresh}", extent)

    # --- loops

    def body(self, body: Sequence[Stmt]) -> None:
        """Writes statements in order."""
        position = 0
        while position < len(body):
            group = self._group(body, position)
            position += len(group)
            first = group[0]
            if isinstance(first, Store):
                self.stores([stmt for stmt in group if isinstance(stmt, Store)])
            elif isinstance(first, Reduce):
                write_sweep(self, first.vars, [r for r in group if isinstance(r, Reduce)])
            elif isinstance(first, Sweep):
                write_sweep(self, first.vars, first.reduces, first.stores, first.fetches)
            elif isinstance(first, Fetch):
                self.memory.fetch(first)
            elif isinstance(first, Par):
                self.par(first)
            elif isinstance(first, For):
                self._for(first)
            elif isinstance(first, Within):
                self._within(first)
            elif isinstance(first, Contract):
                write_contract(self, first)
            elif isinstance(first, Scatter):
                self._scatter(first)
            elif isinstance(first, Prefix):
                write_prefix(self, first)
            elif isinstance(first, Sort):
                write_sort(self, first)
            else:
                raise InternalError(f"no way to emit {type(first).__name__}")
            self.frame.written(stored(group))

    def _group(self, body: Sequence[Stmt], start: int) -> list[Stmt]:
        """Statements from `start` on that are written together."""
        first = body[start]
        group = [first]
        for stmt in body[start + 1 :]:
            if not self._joins(group, first, stmt):
                break
            group.append(stmt)
        return group

    def _joins(self, group: list[Stmt], first: Stmt, stmt: Stmt) -> bool:
        if isinstance(first, Store) and isinstance(stmt, Store):
            if not (first.guard.is_true and stmt.guard.is_true):
                return False
            return not self.numbering.of(stmt.value).buffers & stored(group)
        if isinstance(first, Reduce) and isinstance(stmt, Reduce):
            names = {before.target.name for before in group if isinstance(before, Reduce)}
            if (first.vars, first.order) != (stmt.vars, stmt.order):
                return False
            return not self.numbering.of(stmt.value).scalars & names
        return False

    @contextmanager
    def loop(
        self, var: Var, stores: frozenset[Buffer], *, is_reverse: bool = False
    ) -> Iterator[None]:
        """Runs what is written inside for each value of `var` (of which there is one at least)."""
        extent = extent_of(var)
        frame = self.frame
        if var in self.ranges:
            assert not is_reverse, "only independent points are left out"
            low, high = self.ranges[var]
            with (
                frame.level(stores=stores, is_conditional=True),
                frame.fn.loop(high, start=low, may_be_empty=True) as loop,
            ):
                frame.bind(var, loop.index)
                yield
            return
        with frame.level(stores=stores):
            if extent == 1:
                frame.bind(var, 0)
                yield
                return
            with frame.fn.loop(extent) as loop:
                index = loop.index
                if is_reverse:
                    index = frame.fn.value(f"sub nsw i64 {extent - 1}, {index}")
                frame.bind(var, index)
                yield

    def _within(self, stmt: Within) -> None:
        """Writes a statement of which not all points are needed."""
        fn, extent = self.frame.fn, extent_of(stmt.var)
        ends = ["0"]  # then the first point, and the end, which is not before it
        for end in (stmt.first, stmt.stop):
            value = self.evaluator.value(end)
            assert value.lanes == 1, "a range is the same at all points"
            least = fn.call("i64", "llvm.smin.i64", ("i64", value.text), ("i64", str(extent)))
            ends.append(fn.call("i64", "llvm.smax.i64", ("i64", least), ("i64", ends[-1])))
        self.ranges[stmt.var] = ends[1], ends[2]
        self.body((stmt.body,))
        del self.ranges[stmt.var]

    def par(self, stmt: Par) -> None:
        """Writes a nest of independent points."""
        if any(extent_of(var) == 0 for var in stmt.vars):
            return
        if is_tiled(stmt):
            write_contraction(self, stmt)
            return
        if isinstance(stmt.how, Turn):
            write_turn(self, stmt, stmt.how.lanes)
            return
        stores = stored(stmt.body)
        plain = len(stmt.vars) - (isinstance(stmt.how, Vector) and self.frame.lanes is None)
        split = stmt.split
        if split is None:
            with self._lanes_first(stmt, plain) as rest:
                self._nest(rest, 0, plain, stores)
        elif split.over == "points":
            extents = tuple(map(extent_of, stmt.vars[: split.count]))
            with part_of_nest(self, stmt, prod(extents)) as part:
                part.writer.points(stmt, extents, plain, part)
        else:
            assert stmt.how is not None, "only vectors are dealt out as such"
            whole = extent_of(stmt.vars[-1]) // stmt.how.lanes
            with part_of_nest(self, stmt, whole) as part:
                part.writer.strips(stmt, plain, part)

    def points(self, stmt: Par, extents: tuple[int, ...], plain: int, part: Part) -> None:
        """Writes a part whose units are points of the first variables of a nest."""
        stores, frame = stored(stmt.body), self.frame
        flat = stmt.vars[0] if len(extents) == 1 else self.fresh_var(prod(extents))
        with (
            self._lanes_first(stmt, plain) as rest,
            frame.level(stores=stores),
            frame.fn.loop(part.end, start=part.begin) as loop,
        ):
            frame.bind(flat, loop.index)
            if len(extents) > 1:
                for var, index in zip(stmt.vars, unravel(flat, extents), strict=False):
                    frame.alias(var, index)
            self._nest(rest, len(extents), plain, stores)

    @contextmanager
    def _lanes_first(self, stmt: Par, plain: int) -> Iterator[Par]:
        """What is left of a nest whose points along the vector variable are one vector.

        That is bound before the loops, so that what depends on nothing else is computed once.
        """
        if not 0 < plain < len(stmt.vars):
            yield stmt
            return
        var = stmt.vars[-1]
        assert stmt.how is not None
        extent, lanes = extent_of(var), stmt.how.lanes
        if extent > lanes:
            yield stmt
            return
        with self.frame.level():
            self._bind_chunk(var, "0", lanes if extent == lanes else round_up(extent), extent)
            yield replace(stmt, vars=stmt.vars[:-1])

    def strips(self, stmt: Par, plain: int, part: Part) -> None:
        """Writes a part whose units are vectors of the last variable of a nest."""
        self._nest(stmt, 0, plain, stored(stmt.body), part)

    def _nest(
        self,
        stmt: Par,
        level: int,
        plain: int,
        stores: frozenset[Buffer],
        part: Part | None = None,
    ) -> None:
        if level < plain:
            with self.loop(stmt.vars[level], stores):
                self._nest(stmt, level + 1, plain, stores, part)
        elif level < len(stmt.vars):
            assert stmt.how is not None
            if part is None:
                self._vectors(stmt, stmt.vars[level], stmt.how.lanes, stores)
            else:
                self._strip(stmt, stmt.vars[level], stmt.how.lanes, stores, part)
        else:
            self.body(stmt.body)

    def _vectors(self, stmt: Par, var: Var, lanes: int, stores: frozenset[Buffer]) -> None:
        """Vectors of `lanes` points, and one more with a mask for the rest.

        A long body is written once, always with a mask: twice would take twice as long to compile.
        """
        frame, extent = self.frame, extent_of(var)
        whole = extent // lanes * lanes
        if var in self.ranges:
            self._ranged_vectors(stmt, var, lanes, stores)
            return
        if lanes < extent != whole and self._is_long(stmt):
            with frame.level(stores=stores), frame.fn.loop(extent, step=lanes) as loop:
                mask = self._below(loop.index, extent, lanes)
                frame.bind_lanes(Lanes(var, loop.index, lanes, mask=mask, is_aligned=True))
                self.body(stmt.body)
            return
        if whole > lanes:
            with frame.level(stores=stores), frame.fn.loop(whole, step=lanes) as loop:
                self._chunk(stmt, var, loop.index, lanes, lanes)
        elif whole:
            with frame.level(stores=stores):
                self._chunk(stmt, var, "0", lanes, lanes)
        if extent > whole:
            with frame.level(stores=stores):
                rest = extent - whole
                self._chunk(stmt, var, str(whole), round_up(rest), rest)

    def _ranged_vectors(self, stmt: Par, var: Var, lanes: int, stores: frozenset[Buffer]) -> None:
        """The vectors of a nest in which a needed point lies."""
        frame, fn, extent = self.frame, self.frame.fn, extent_of(var)
        whole = extent // lanes * lanes
        low, high = self.ranges[var]
        first = fn.scaled(fn.value(f"udiv i64 {low}, {lanes}"), lanes)
        stop = fn.call("i64", "llvm.smin.i64", ("i64", high), ("i64", str(whole)))
        with (
            frame.level(stores=stores, is_conditional=True),
            fn.loop(stop, start=first, step=lanes, may_be_empty=True) as loop,
        ):
            self._chunk(stmt, var, loop.index, lanes, lanes)
        if extent > whole:
            some = fn.value(f"icmp sgt i64 {high}, {whole}")
            with frame.level(stores=stores, is_conditional=True), fn.when(some):
                self._chunk(stmt, var, str(whole), round_up(extent - whole), extent - whole)

    def _strip(
        self, stmt: Par, var: Var, lanes: int, stores: frozenset[Buffer], part: Part
    ) -> None:
        """The vectors of a part; the last one has the points that fill no vector too."""
        frame, fn, extent = self.frame, self.frame.fn, extent_of(var)
        units = extent // lanes
        rest = extent - units * lanes
        start, stop = fn.scaled(part.begin, lanes), fn.scaled(part.end, lanes)
        is_last = fn.value(f"icmp eq i64 {part.end}, {units}") if rest else ""
        if rest and self._is_long(stmt):
            stop = fn.value(f"select i1 {is_last}, i64 {extent}, i64 {stop}")
            with frame.level(stores=stores), fn.loop(stop, start=start, step=lanes) as loop:
                mask = self._below(loop.index, extent, lanes)
                frame.bind_lanes(Lanes(var, loop.index, lanes, mask=mask, is_aligned=True))
                self.body(stmt.body)
            return
        with frame.level(stores=stores), fn.loop(stop, start=start, step=lanes) as loop:
            self._chunk(stmt, var, loop.index, lanes, lanes)
        if rest:
            with frame.level(stores=stores, is_conditional=True), fn.when(is_last):
                self._chunk(stmt, var, str(units * lanes), round_up(rest), rest)

    def _is_long(self, stmt: Par) -> bool:
        """Whether a nest is long, and masks of any kind are cheap for it."""
        target = self.frame.target
        if not all(target.can_mask(ITEM_BYTES[buffer.dtype]) for buffer in self.frame.pointers):
            return False
        return is_long(expr for inner in statements(stmt.body) for expr in operands(inner))

    def _below(self, base: str, extent: int, lanes: int) -> str:
        """Which of the points from `base` on are below `extent`."""
        fn = self.frame.fn
        kind = "i32" if extent < INDEX_LIMIT else "i64"
        wide = vector_type(kind, lanes)
        steps = ", ".join(f"{kind} {lane}" for lane in range(lanes))
        start = self.frame.splat_index(base, kind, lanes)
        points = fn.value(f"add {wide} {start}, <{steps}>")
        return fn.value(f"icmp ult {wide} {points}, {constant(extent, kind, lanes)}")

    def _chunk(self, stmt: Par, var: Var, base: str, lanes: int, active: int) -> None:
        self._bind_chunk(var, base, lanes, active)
        self.body(stmt.body)

    def _bind_chunk(self, var: Var, base: str, lanes: int, active: int) -> None:
        if lanes == 1:
            self.frame.bind(var, base)
        else:
            prefix = None if active == lanes else active
            self.frame.bind_lanes(Lanes(var, base, lanes, active=prefix, is_aligned=True))

    def _for(self, stmt: For) -> None:
        if extent_of(stmt.var) == 0:
            return
        frame, stores = self.frame, stored(stmt.body)
        with self.loop(stmt.var, stores, is_reverse=stmt.reverse):
            if stmt.guard.is_true:
                self.body(stmt.body)
                return
            held = self.evaluator.condition(stmt.guard).uniform
            assert held is not None, "lanes go through a loop together"
            with frame.level(stores=stores, is_conditional=True), frame.fn.when(held):
                self.body(stmt.body)

    # --- stores

    def stores(self, group: Sequence[Store]) -> None:
        """Writes stores of one guard: computes all values, then stores them."""
        guard = group[0].guard
        if guard.is_false or prod(group[0].buffer.shape) == 0:
            return
        if guard.is_true:
            self._write(group, ALWAYS)
            return
        condition = self.evaluator.condition(guard)
        if condition.uniform is None:
            self._write(group, condition)
            return
        frame = self.frame
        with frame.level(is_conditional=True), frame.fn.when(condition.uniform):
            self._write(group, Condition(None, condition.varying, condition.depth))

    def _write(self, group: Sequence[Store], where: Condition) -> None:
        ready: list[tuple[Place, str]] = []
        for stmt in group:
            text = self.evaluator.vector(stmt.value, where)
            ready.append((self.memory.place(stmt.buffer, stmt.indices), text))
        for place, text in ready:
            self.memory.write(place, text, where)

    def _scatter(self, stmt: Scatter) -> None:
        frame, fn = self.frame, self.frame.fn
        if prod(stmt.buffer.shape) == 0:
            if stmt.mode == "check":
                self.memory.report(Value("0"), frame.depth, ALWAYS, stmt.status)
            return
        computed = self.evaluator.computed(stmt.indices)
        place, checks = self.memory.computed_place(stmt.buffer, stmt.indices, computed)
        inside = self.memory.all_of(checks)
        if inside.lanes > 1 or (frame.lanes and place.stride not in (1, -1)):
            raise InternalError("lanes of a scatter may meet: it has to run point by point")
        if stmt.mode == "check":
            for bits, depth in checks:
                self.memory.report(bits, depth, ALWAYS, stmt.status)
        text = self.evaluator.vector(stmt.value)
        lanes = 1 if frame.lanes is None else frame.lanes.count
        with frame.level(is_conditional=True), fn.when(inside.text):
            if stmt.combine != "set":
                dtype, ops = stmt.buffer.dtype, self.evaluator.ops(lanes)
                old = self.memory.read(place, ALWAYS).text
                text = ops.apply(COMBINE[stmt.combine], dtype, (dtype, dtype), (old, text))
            self.memory.write(place, text, ALWAYS)


def round_up(count: int) -> int:
    """The least power of two that is not below `count`."""
    return 1 << (count - 1).bit_length()


def write_kernel(
    module: ModuleText,
    kernel: Kernel,
    name: str,
    target: Target,
    alignments: Sequence[int] = (),
    *,
    is_aliased: bool = False,
    is_internal: bool = True,
    streamed: frozenset[Buffer] = frozenset(),
) -> None:
    """Adds the function of a kernel: its parameters, scratch from the arena, the status slot.

    Args:
        module: The module.
        kernel: The kernel, tiled or not.
        name: Name of the function.
        target: The machine.
        alignments: Known alignment of each parameter, by default that of its elements.
        is_aliased: Whether parameters may share memory.
        is_internal: Whether the function is invisible outside of the module.
        streamed: Parameters that are stored past the caches; they lie at whole lines.
    """
    parameters: list[tuple[str, str]] = []
    pointers: dict[Buffer, str] = {}
    known: dict[Buffer, str] = {}
    for number, buffer in enumerate(kernel.params):
        align = alignments[number] if alignments else ITEM_BYTES[buffer.dtype]
        attributes = "ptr" if is_aliased else "ptr noalias"
        if buffer.mode == "in" and not is_aliased:
            attributes += " readonly"
        known[buffer] = f"{attributes} align {align}"
        parameters.append((known[buffer], f"%p{number}"))
        pointers[buffer] = f"%p{number}"
    for number, buffer in enumerate(scratch_in_arena(kernel)):
        parameters.append(("ptr noalias align 64", f"%s{number}"))
        pointers[buffer] = f"%s{number}"
    parameters.append(("ptr noalias", "%status"))
    place = "alwaysinline" if is_internal and is_straight(kernel) else "noinline"
    attributes = f"{place} {target.attributes}"
    fn = module.function(name, "void", parameters, attributes=attributes, internal=is_internal)
    for buffer in scratch_on_stack(kernel):
        nbytes = max(1, prod(buffer.shape) * ITEM_BYTES[buffer.dtype])
        pointers[buffer] = fn.value(f"alloca [{nbytes} x i8], align 64")
    known |= {buffer: "ptr noalias align 64" for buffer in pointers if buffer not in known}
    writer = KernelWriter(kernel, Frame(fn, target, pointers), known, streamed)
    writer.body(kernel.body)
    writer.memory.finish()
    fn.ret()
