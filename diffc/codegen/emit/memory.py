"""Reading and writing buffers: which instruction an access becomes.

An element offset is the row-major ravel of the indices. By its stride along the lanes an access is
a scalar (0), a vector (1), a reversed vector (-1), lanes picked from a few vectors (loads with a
small stride), or a gather or scatter of lanes (anything else).
An access under a condition touches memory only where it holds: vectors by a mask, scalars by moving
the address of a load to the start of the buffer, so that no branch is needed. Nothing outside of
a buffer is ever touched. `bool` is one byte in memory and `i1` in registers.

Whole lines of a streamed buffer are stored past the caches. Such stores are not ordered with what
other threads do: whoever wrote some puts a fence (`Memory.finish`) before it is done.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

from diffc.codegen.emit.frame import Frame, Value
from diffc.codegen.emit.registers import (
    fenced,
    is_signed,
    register,
    reverse_lanes,
    shuffle,
    store_some,
)
from diffc.codegen.emit.text import LLVM_TYPES, constant, intrinsic_suffix, vector_type
from diffc.codegen.loops.nodes import Buffer, Expr, Fetch, GatherLoad, Load
from diffc.codegen.targets import ITEM_BYTES
from diffc.ir.index import Dim, bounds, ravel
from diffc.ir.index import Expr as IndexExpr

__all__ = ["Computed", "Condition", "Memory", "Place"]

# A computed index: its value, and the depth of the level that knows it.
Computed = tuple[Value, int]

GATHER_LIMIT = 2**30
STATUS_LIMIT = 2**62
"""The status slot holds 0, or this less the least status that was met."""
PICKED_STRIDE = 4
LINE = 64


@dataclass(frozen=True, slots=True)
class Condition:
    """Where something is done: in all lanes if `uniform` holds, and by lane where `varying` does.

    Attributes:
        uniform: An `i1`, None for always.
        varying: A mask of lanes, None for all.
        depth: Depth of the level that knows both.
    """

    uniform: str | None = None
    varying: str | None = None
    depth: int = 0


@dataclass(frozen=True, slots=True)
class Place:
    """An element, or one for each lane.

    Attributes:
        buffer: The buffer.
        pointer: Address of the element in lane 0.
        stride: Elements from lane to lane; None where only `offsets` say it.
        steps: Elements from lane 0 to each lane, where the code knows them and they are near.
        offsets: Offsets of the lanes from `start`, with their integer type; known where the stride
            is none of 0, 1 and -1.
        start: Where `offsets` count from.
        broken: The first lane behind a jump, and by how much more than 1 that is, where all other
            lanes follow each other; None where they do not.
        is_line: Whether the lanes are whole lines of the memory.
    """

    buffer: Buffer
    pointer: str
    stride: int | None
    steps: tuple[int, ...] = ()
    offsets: tuple[str, str] = ("", "")
    start: str = ""
    broken: tuple[str, int] | None = None
    is_line: bool = False


@dataclass(slots=True)
class Memory:
    """Reads and writes the buffers of a frame.

    Attributes:
        frame: The environment.
        streamed: The buffers, at a multiple of `LINE` bytes, that are stored past the caches.
    """

    frame: Frame
    streamed: frozenset[Buffer] = frozenset()
    _has_streamed: bool = False

    def finish(self) -> None:
        """Lets other threads see what was stored past the caches."""
        if self._has_streamed:
            self.frame.fn.call("void", "llvm.x86.sse.sfence")

    # --- places

    def place(self, buffer: Buffer, indices: Sequence[Dim]) -> Place:
        """The place of an access by indices alone."""
        frame = self.frame
        offset = ravel(tuple(indices), buffer.shape)
        stride = frame.lane_stride(offset)
        if stride in (0, 1, -1):
            is_line = buffer in self.streamed and stride == 1 and self._is_line(buffer, offset)
            return Place(buffer, frame.pointer(buffer, offset), stride, is_line=is_line)
        kind = frame.lane_kind(offset)
        offsets = kind, frame.lane_dim(offset, kind)
        steps = frame.lane_steps(offset)
        if steps is not None and max(steps) - min(steps) < PICKED_STRIDE * len(steps):
            pointer = frame.pointer(buffer, offset)
            return Place(buffer, pointer, stride, steps, offsets, frame.pointers[buffer])
        broken = (
            frame.lane_break(offset) if frame.target.can_mask(ITEM_BYTES[buffer.dtype]) else None
        )
        pointer = "" if broken is None else frame.pointer(buffer, offset)
        return Place(buffer, pointer, None, (), offsets, frame.pointers[buffer], broken)

    def _is_line(self, buffer: Buffer, offset: Dim) -> bool:
        """Whether consecutive lanes are whole lines, if the buffer starts at one."""
        lanes, width = self.frame.lanes, LINE // ITEM_BYTES[buffer.dtype]
        if lanes is None or not lanes.is_aligned or lanes.count % width:
            return False
        rest = self.frame.resolve(offset) - lanes.var
        if not isinstance(rest, IndexExpr):
            return rest % width == 0
        return rest.const % width == 0 and all(coef % width == 0 for _, coef in rest.terms)

    # --- loads

    def load(self, expr: Load, where: Condition) -> Value:
        """The element of a `Load`."""
        ends = zip(map(bounds, expr.indices), expr.buffer.shape, strict=True)
        inside = where.varying is not None and all(
            low is not None and high is not None and low >= 0 and high < extent
            for (low, high), extent in ends
        )
        return self.read(self.place(expr.buffer, expr.indices), where, inside=inside)

    def read(self, place: Place, where: Condition, *, inside: bool = False) -> Value:
        """The elements at a place, where a condition holds; anything elsewhere.

        Args:
            place: The place.
            where: The condition.
            inside: Whether no lane is outside of the buffer where the condition fails either.
        """
        size = prod(place.buffer.shape)
        if size == 0:
            return Value(constant(0, register(place.buffer.dtype)))
        if place.stride == 0:
            return Value(self._read_scalar(place, where))
        lanes = self.frame.lanes
        assert lanes is not None
        if place.stride in (1, -1):
            return Value(self._read_vector(place, where, size), lanes.count)
        if place.steps and self._can_pick(place, where, inside=inside):
            return Value(self._read_picked(place, where), lanes.count)
        if place.broken is not None:
            return Value(self._read_broken(place, place.broken, where), lanes.count)
        return Value(self._read_gather(place, where), lanes.count)

    def _read_scalar(self, place: Place, where: Condition) -> str:
        fn, buffer = self.frame.fn, place.buffer
        held = where.uniform
        if where.varying is not None:
            some = self.any_lane(where.varying)
            held = some if held is None else fn.value(f"and i1 {held}, {some}")
        pointer = place.pointer
        start = self.frame.pointers[buffer]
        if held is not None and pointer != start:
            pointer = fn.value(f"select i1 {held}, ptr {pointer}, ptr {start}")
        text = fn.load(LLVM_TYPES[buffer.dtype], pointer, ITEM_BYTES[buffer.dtype])
        return self._loaded(text, buffer.dtype, 1)

    def _loaded(self, text: str, dtype: str, lanes: int) -> str:
        if dtype != "bool":
            return text
        return self.frame.fn.value(f"icmp ne {vector_type('i8', lanes)} {text}, {_zero(lanes)}")

    def any_lane(self, mask: str) -> str:
        """Whether a mask has a lane."""
        lanes = self.frame.lanes
        assert lanes is not None
        kind = vector_type("i1", lanes.count)
        return self.frame.fn.call("i1", f"llvm.vector.reduce.or.v{lanes.count}i1", (kind, mask))

    def mask(self, where: Condition) -> str | None:
        """The lanes in which something is done, None for all."""
        lanes = self.frame.lanes
        assert lanes is not None
        kind, fn = vector_type("i1", lanes.count), self.frame.fn
        parts = [self.frame.lane_mask(), where.varying]
        if where.uniform is not None:
            parts.append(fn.broadcast(where.uniform, "i1", lanes.count))
        mask: str | None = None
        for part in parts:
            if part is not None:
                mask = part if mask is None else fn.value(f"and {kind} {mask}, {part}")
        return mask

    def _read_vector(self, place: Place, where: Condition, size: int) -> str:
        lanes, fn, buffer = self.frame.lanes, self.frame.fn, place.buffer
        assert lanes is not None
        count, scalar = lanes.count, LLVM_TYPES[buffer.dtype]
        pointer = place.pointer
        if place.stride == -1:
            pointer = self.frame.step(pointer, scalar, str(1 - count))
        needed = count if lanes.active is None else lanes.active
        if where.uniform is not None and place.stride == 1 and size >= needed:
            start = self.frame.pointers[buffer]
            pointer = fn.value(f"select i1 {where.uniform}, ptr {pointer}, ptr {start}")
            where = Condition(None, where.varying, where.depth)
        mask = self.mask(where)
        if mask is not None and place.stride == -1:
            mask = reverse_lanes(fn, mask, "i1", count)
        text = self._load_lanes(scalar, count, pointer, mask, ITEM_BYTES[buffer.dtype])
        if place.stride == -1:
            text = reverse_lanes(fn, text, scalar, count)
        return self._loaded(text, buffer.dtype, count)

    def _load_lanes(
        self,
        scalar: str,
        count: int,
        pointer: str,
        mask: str | None,
        align: int,
        others: str = "zeroinitializer",
    ) -> str:
        fn, kind = self.frame.fn, vector_type(scalar, count)
        if mask is None:
            return fn.load(kind, pointer, align)
        name = f"llvm.masked.load.{intrinsic_suffix(scalar, count)}.p0"
        masks = vector_type("i1", count)
        return fn.call(
            kind,
            name,
            ("ptr", pointer),
            ("i32", str(align)),
            (masks, mask),
            (kind, others),
        )

    def _ends(self, place: Place) -> tuple[int, int]:
        """The least and the greatest step to a lane that counts."""
        lanes = self.frame.lanes
        assert lanes is not None
        steps = place.steps[: lanes.active]
        return min(steps), max(steps)

    def _can_pick(self, place: Place, where: Condition, *, inside: bool) -> bool:
        """Whether lanes may be picked from whole vectors: none of them has to be masked by itself.

        What a condition alone would mask is read, if it lies inside of the buffer anyway.
        """
        lanes = self.frame.lanes
        assert lanes is not None
        if lanes.mask is not None or not (inside or where.varying is None):
            return False
        low, high = self._ends(place)
        return where.uniform is None or prod(place.buffer.shape) > high - low

    def _read_picked(self, place: Place, where: Condition) -> str:
        """Loads everything between the first and the last lane, and picks the lanes."""
        lanes, fn, buffer = self.frame.lanes, self.frame.fn, place.buffer
        assert lanes is not None
        (low, high), scalar = self._ends(place), LLVM_TYPES[buffer.dtype]
        span = high - low + 1
        pointer = self.frame.step(place.pointer, scalar, str(low))
        if where.uniform is not None:
            start = self.frame.pointers[buffer]
            pointer = fn.value(f"select i1 {where.uniform}, ptr {pointer}, ptr {start}")
        count = 1 << (span - 1).bit_length()
        bits = ", ".join(f"i1 {int(lane < span)}" for lane in range(count))
        mask = None if span == count else f"<{bits}>"
        text = self._load_lanes(scalar, count, pointer, mask, ITEM_BYTES[buffer.dtype])
        steps = place.steps[: lanes.active]
        picks = [steps[min(lane, len(steps) - 1)] - low for lane in range(lanes.count)]
        if count == 1:
            text = fn.broadcast(text, scalar, lanes.count)
        else:
            text = shuffle(fn, text, "poison", vector_type(scalar, count), picks)
            text = fenced(fn, text, scalar, lanes.count)
        return self._loaded(text, buffer.dtype, lanes.count)

    def _read_broken(self, place: Place, broken: tuple[str, int], where: Condition) -> str:
        """Loads the lanes before a jump, and those behind it."""
        lanes, fn, buffer = self.frame.lanes, self.frame.fn, place.buffer
        assert lanes is not None
        (lane, jump), count, scalar = broken, lanes.count, LLVM_TYPES[buffer.dtype]
        text, mask, align = "zeroinitializer", self.mask(where), ITEM_BYTES[buffer.dtype]
        for is_behind in (False, True):
            here = self._side(lane, is_behind=is_behind)
            if mask is not None:
                here = fn.value(f"and {vector_type('i1', count)} {mask}, {here}")
            pointer = self.frame.step(place.pointer, scalar, str(jump if is_behind else 0))
            text = self._load_lanes(scalar, count, pointer, here, align, text)
        return self._loaded(text, buffer.dtype, count)

    def _side(self, lane: str, *, is_behind: bool) -> str:
        """The lanes before one, or from it on."""
        frame, lanes = self.frame, self.frame.lanes
        assert lanes is not None
        wide = vector_type("i32", lanes.count)
        steps = ", ".join(f"i32 {number}" for number in range(lanes.count))
        predicate = "uge" if is_behind else "ult"
        first = frame.splat_index(lane, "i32", lanes.count)
        return frame.fn.value(f"icmp {predicate} {wide} <{steps}>, {first}")

    def _lane_pointers(self, place: Place) -> str:
        lanes = self.frame.lanes
        assert lanes is not None
        kind, offsets = place.offsets
        scalar, start = LLVM_TYPES[place.buffer.dtype], place.start
        wide = vector_type(kind, lanes.count)
        return self.frame.fn.value(f"getelementptr {scalar}, ptr {start}, {wide} {offsets}")

    def _read_gather(self, place: Place, where: Condition) -> str:
        lanes, buffer = self.frame.lanes, place.buffer
        assert lanes is not None
        count, scalar = lanes.count, LLVM_TYPES[buffer.dtype]
        kind, masks = vector_type(scalar, count), vector_type("i1", count)
        pointers = self._lane_pointers(place)
        mask = self.mask(where) or constant(True, "i1", count)
        text = self.frame.fn.call(
            kind,
            f"llvm.masked.gather.{intrinsic_suffix(scalar, count)}.v{count}p0",
            (vector_type("ptr", count), pointers),
            ("i32", str(ITEM_BYTES[buffer.dtype])),
            (masks, mask),
            (kind, "zeroinitializer"),
        )
        return self._loaded(text, buffer.dtype, count)

    def fetch(self, stmt: Fetch, *, is_written: bool = False) -> None:
        """Asks for the lines of a `Fetch`, to write them if that is said."""
        frame = self.frame
        lanes = 1 if frame.lanes is None else frame.lanes.count
        pointer = frame.pointer(stmt.buffer, ravel(stmt.indices, stmt.buffer.shape))
        for start in range(0, lanes * ITEM_BYTES[stmt.buffer.dtype], LINE):
            hints = ("i32", str(int(is_written))), ("i32", "3" if stmt.near else "2"), ("i32", "1")
            frame.fn.call(
                "void", "llvm.prefetch.p0", ("ptr", frame.step(pointer, "i8", str(start))), *hints
            )

    # --- stores

    def write(self, place: Place, text: str, where: Condition) -> None:
        """Stores a value (a vector where there is a vector variable) where a condition holds.

        Without a vector variable the condition has to be met already.
        """
        lanes, buffer = self.frame.lanes, place.buffer
        if lanes is None:
            assert where.uniform is None and where.varying is None, "a scalar store is bare"
            text = self._stored(text, buffer.dtype, 1)
            kind = LLVM_TYPES[buffer.dtype]
            self.frame.fn.store(kind, text, place.pointer, ITEM_BYTES[buffer.dtype])
            return
        text = self._stored(text, buffer.dtype, lanes.count)
        if place.stride in (1, -1):
            self._write_vector(place, text, where)
        else:
            self._write_scatter(place, text, where)

    def _stored(self, text: str, dtype: str, lanes: int) -> str:
        if dtype != "bool":
            return text
        old, new = vector_type("i1", lanes), vector_type("i8", lanes)
        return self.frame.fn.value(f"zext {old} {text} to {new}")

    def _write_vector(self, place: Place, text: str, where: Condition) -> None:
        lanes, fn, buffer = self.frame.lanes, self.frame.fn, place.buffer
        assert lanes is not None
        count, scalar, align = lanes.count, LLVM_TYPES[buffer.dtype], ITEM_BYTES[buffer.dtype]
        kind, pointer, mask = vector_type(scalar, count), place.pointer, self.mask(where)
        if place.stride == -1:
            pointer = self.frame.step(pointer, scalar, str(1 - count))
            text = reverse_lanes(fn, text, scalar, count)
            mask = None if mask is None else reverse_lanes(fn, mask, "i1", count)
        if mask is None:
            if place.is_line:
                self._has_streamed = True
                hint = fn.module.metadata("!{i32 1}")
                fn.emit(f"store {kind} {text}, ptr {pointer}, align {LINE}, !nontemporal {hint}")
            else:
                fn.store(kind, text, pointer, align)
            return
        store_some(fn, scalar, count, text, pointer, align, mask)

    def _write_scatter(self, place: Place, text: str, where: Condition) -> None:
        lanes, buffer = self.frame.lanes, place.buffer
        assert lanes is not None
        count, scalar = lanes.count, LLVM_TYPES[buffer.dtype]
        if place.stride == 0:  # all points write the same element, so they agree: one lane does it
            kind = vector_type("ptr", count)
            pointers = self.frame.fn.broadcast(place.pointer, "ptr", count)
        else:
            kind, pointers = vector_type("ptr", count), self._lane_pointers(place)
        mask = self.mask(where) or constant(True, "i1", count)
        self.frame.fn.call(
            "void",
            f"llvm.masked.scatter.{intrinsic_suffix(scalar, count)}.v{count}p0",
            (vector_type(scalar, count), text),
            (kind, pointers),
            ("i32", str(ITEM_BYTES[buffer.dtype])),
            (vector_type("i1", count), mask),
        )

    # --- computed indices

    def gather(self, expr: GatherLoad, computed: Sequence[Computed], where: Condition) -> Value:
        """The elements of a `GatherLoad` with computed indices."""
        buffer = expr.buffer
        if prod(buffer.shape) == 0:
            if expr.mode == "check":
                self.report(Value("0"), self.frame.depth, where, expr.status)
            return Value(constant(0, register(buffer.dtype)))
        place, inside = self.computed_place(buffer, expr.indices, computed)
        if expr.mode == "check":
            for bits, depth in inside:
                self.report(bits, depth, where, expr.status)
        result = self.read(place, where)
        if expr.mode != "fill":
            return result
        held = self.all_of(inside)
        fn, lanes = self.frame.fn, max(result.lanes, held.lanes)
        dtype = register(buffer.dtype)
        text = result.text
        if result.lanes < lanes:
            text = fn.broadcast(text, dtype, lanes)
        kind, bits_kind = vector_type(dtype, lanes), vector_type("i1", held.lanes)
        zero = constant(0, dtype, lanes)
        chosen = fn.value(f"select {bits_kind} {held.text}, {kind} {text}, {kind} {zero}")
        return Value(chosen, lanes)

    def computed_place(
        self, buffer: Buffer, indices: Sequence[Dim | Expr], computed: Sequence[Computed]
    ) -> tuple[Place, list[tuple[Value, int]]]:
        """The place of an access with computed indices, moved into bounds.

        Args:
            buffer: The buffer.
            indices: The indices.
            computed: Value and depth of each that is an expression.

        Returns:
            The place, and for each computed index whether it was in bounds, with its depth.
        """
        frame, fn = self.frame, self.frame.fn
        plain = [0 if isinstance(index, Expr) else index for index in indices]
        offset = ravel(tuple(plain), buffer.shape)
        stride = frame.lane_stride(offset)
        start, start_depth, varying = frame.pointers[buffer], 0, ""
        inside: list[tuple[Value, int]] = []
        kind = "i32" if prod(buffer.shape) < GATHER_LIMIT else "i64"
        if stride is None:
            kind = frame.lane_kind(offset) if kind == "i32" else kind
        known = iter(computed)
        for axis, index in enumerate(indices):
            if not isinstance(index, Expr):
                continue
            value, depth = next(known)
            weight, extent = prod(buffer.shape[axis + 1 :]), buffer.shape[axis]
            number, bits = self._bounded(value, depth, index.dtype, extent, kind)
            inside.append((bits, depth))
            if value.lanes == 1:
                start_depth = max(start_depth, depth)
                start = self._moved(buffer, start, start_depth, number.text, weight)
                continue
            wide, text = vector_type(kind, value.lanes), number.text
            if weight != 1:
                text = fn.value(f"mul {wide} {text}, {constant(weight, kind, value.lanes)}")
            varying = fn.value(f"add {wide} {varying}, {text}") if varying else text
        if not varying and stride in (0, 1, -1):
            pointer = frame.pointer(buffer, offset, (start, start_depth))
            return Place(buffer, pointer, stride), inside
        lanes = frame.lanes
        assert lanes is not None
        total = frame.lane_dim(offset, kind)
        if varying:
            total = fn.value(f"add {vector_type(kind, lanes.count)} {total}, {varying}")
        return Place(buffer, "", None, (), (kind, total), start), inside

    def _moved(self, buffer: Buffer, start: str, depth: int, number: str, weight: int) -> str:
        """A start moved by a computed index."""
        frame, kind = self.frame, LLVM_TYPES[buffer.dtype]

        def make() -> Value:
            return Value(frame.step(start, kind, frame.times(number, weight)))

        return frame.cached(("moved", start, number, weight), depth, make).text

    def all_of(self, inside: Sequence[tuple[Value, int]]) -> Value:
        """Whether all indices were in bounds."""
        held = Value("1")
        for bits, _ in inside:
            held = bits if held.text == "1" else self._both(held, bits)
        return held

    def _both(self, a: Value, b: Value) -> Value:
        fn, lanes = self.frame.fn, max(a.lanes, b.lanes)
        texts = [
            fn.broadcast(value.text, "i1", lanes) if value.lanes < lanes else value.text
            for value in (a, b)
        ]
        return Value(fn.value(f"and {vector_type('i1', lanes)} {texts[0]}, {texts[1]}"), lanes)

    def _bounded(
        self, value: Value, depth: int, dtype: str, extent: int, kind: str
    ) -> tuple[Value, Value]:
        """An index clipped to [0, extent), `i64` or lanes of `kind`; and whether it was inside."""
        frame, key = self.frame, (value.text, dtype, extent)
        inside = frame.cached(
            ("inside", *key), depth, lambda: self._clip(value, dtype, extent, kind)[1]
        )
        number = frame.cached(
            ("clipped", *key, kind), depth, lambda: self._clip(value, dtype, extent, kind)[0]
        )
        return number, inside

    def _clip(self, value: Value, dtype: str, extent: int, kind: str) -> tuple[Value, Value]:
        fn, lanes = self.frame.fn, value.lanes
        signed = is_signed(dtype)
        text, old = value.text, LLVM_TYPES[dtype]
        if old in ("i8", "i16"):
            wide = vector_type("i32", lanes)
            text = fn.value(
                f"{'sext' if signed else 'zext'} {vector_type(old, lanes)} {text} to {wide}"
            )
            old, signed = "i32", True
        full, masks = vector_type(old, lanes), vector_type("i1", lanes)
        size = min(extent, 2**31 - 1) if old == "i32" else extent
        limit, last = constant(size, old, lanes), constant(size - 1, old, lanes)
        inside = fn.value(f"icmp ult {full} {text}, {limit}")
        low = text
        if signed:
            zero = constant(0, old, lanes)
            negative = fn.value(f"icmp slt {full} {text}, {zero}")
            low = fn.value(f"select {masks} {negative}, {full} {zero}, {full} {text}")
        clipped = fn.value(f"icmp ult {full} {low}, {limit}")
        text = fn.value(f"select {masks} {clipped}, {full} {low}, {full} {last}")
        new = kind if lanes > 1 else "i64"
        if old != new:
            name = "zext" if new == "i64" else "trunc"
            text = fn.value(f"{name} {full} {text} to {vector_type(new, lanes)}")
        return Value(text, lanes), Value(inside, lanes)

    def report(self, inside: Value, depth: int, where: Condition, status: int) -> None:
        """Reports a status if an index was out of bounds where it counts.

        Threads may do so at once: the slot keeps the greatest of `STATUS_LIMIT - status`, which
        stands for the least status, whoever comes first.

        Args:
            inside: Whether it was in bounds.
            depth: Depth of the level that knows that.
            where: Where it counts.
            status: What to report.
        """
        depth = max(depth, where.depth, self.frame.bound.load_floor)
        key = "reported", inside.text, where.uniform, where.varying, status

        def make() -> Value:
            self._report(inside, where, status)
            return inside

        self.frame.cached(key, depth, make)

    def _report(self, inside: Value, where: Condition, status: int) -> None:
        fn, lanes = self.frame.fn, self.frame.lanes
        kind = vector_type("i1", inside.lanes)
        bad = fn.value(f"xor {kind} {inside.text}, {constant(True, 'i1', inside.lanes)}")
        if inside.lanes > 1:
            mask = self.mask(where)
            bad = bad if mask is None else fn.value(f"and {kind} {bad}, {mask}")
            bad = self.any_lane(bad)
        else:
            if where.uniform is not None:
                bad = fn.value(f"and i1 {bad}, {where.uniform}")
            if lanes is not None and where.varying is not None:
                bad = fn.value(f"and i1 {bad}, {self.any_lane(where.varying)}")
        with fn.when(bad, unlikely=True):
            code, slot = STATUS_LIMIT - status, self.frame.status
            fn.value(f"atomicrmw umax ptr {slot}, i64 {code} monotonic, align 8")


def _zero(lanes: int) -> str:
    return "0" if lanes == 1 else "zeroinitializer"
