"""Sorting a row, stably, nan last: networks on vectors, as a function per dtype and length.

Keys become integers of the same order (`loops/sorting.py`). Blocks are sorted by a bitonic network
(Batcher) whose comparators all look the same way: the first stage of each merge compares with the
mirror image. Sorted runs are then merged in passes over the row: of two runs, the one whose next
item is less gives the next vector, which a network joins with the vector at hand; the lesser half
is stored. No step depends on values but which run gives the next vector.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from diffc.codegen.emit.registers import FLOATS, is_signed, reverse_lanes, shuffle
from diffc.codegen.emit.text import (
    FunctionText,
    ModuleText,
    constant,
    intrinsic_suffix,
    vector_type,
)
from diffc.codegen.loops.nodes import Sort
from diffc.codegen.loops.sorting import Items, block_of, component_bytes, padded
from diffc.codegen.targets import ITEM_BYTES, Target
from diffc.errors import InternalError
from diffc.ir.index import coefficient, ravel

if TYPE_CHECKING:
    from diffc.codegen.emit.kernel import KernelWriter

__all__ = ["write_sort"]

#: of a float dtype: all bits but the sign, and those of inf.
MAGNITUDE = {"bf16": 0x7FFF, "f16": 0x7FFF, "f32": 0x7FFFFFFF, "f64": 0x7FFFFFFFFFFFFFFF}
INFINITY = {"bf16": 0x7F80, "f16": 0x7C00, "f32": 0x7F800000, "f64": 0x7FF0000000000000}

Item = tuple[str, ...]
"""A vector of items, or a scalar one: a name for each component."""


def write_sort(writer: KernelWriter, stmt: Sort) -> None:
    """Writes a `Sort`: a call of the function for its dtype and length."""
    length = stmt.var.extent
    assert isinstance(length, int), f"{stmt.var} has no fixed extent"
    if length == 0:
        return
    frame, fn = writer.frame, writer.frame.fn
    if frame.lanes is not None:
        raise InternalError("rows are sorted one by one")
    places: list[tuple[str, str]] = []
    strides: list[int] = []
    with frame.level():
        frame.bind(stmt.var, 0)
        for buffer in (stmt.keys, stmt.buffer):
            offset = ravel(stmt.indices, buffer.shape)
            stride = coefficient(offset, stmt.var)
            if not isinstance(stride, int):
                raise InternalError(f"the row {offset} has no stride")
            strides.append(stride)
            places.append(("ptr", frame.pointer(buffer, offset)))
        row = _Row(stmt.keys.dtype, length, stmt.positions, strides == [1, 1])
        passed = [("i64", str(stride)) for stride in strides]
        work = ("ptr", writer.workspace)
        name = _function(fn.module, row, frame.target)
        fn.call("void", name, *places, *passed, work, declare=False)


@dataclass(frozen=True, slots=True)
class _Row:
    """What is sorted: `is_dense` where keys and results lie side by side."""

    dtype: str
    length: int
    positions: bool
    is_dense: bool

    @property
    def name(self) -> str:
        """The name of its function."""
        what = "argsort" if self.positions else "sort"
        return f"{what}_{self.dtype}_{self.length}{'' if self.is_dense else '_strided'}"


def _function(module: ModuleText, row: _Row, target: Target) -> str:
    """The function that sorts rows, defined at its first use."""
    if module.fresh_name(row.name) != row.name:
        return row.name
    parameters = [
        ("ptr readonly", "%keys"),
        ("ptr", "%result"),
        ("i64", "%key_stride"),
        ("i64", "%result_stride"),
        ("ptr noalias", "%work"),
    ]
    attributes = f"noinline {target.attributes}"
    fn = module.function(row.name, "void", parameters, attributes=attributes, internal=True)
    items = Items.of(row.dtype, row.positions)
    job = _Sorting(fn, row, items, target.lanes(items.dtype), MAGNITUDE.get(row.dtype, 0))
    job.run()
    fn.ret()
    return row.name


@dataclass(frozen=True, slots=True)
class _Sorting:
    """Writes the function for one kind of row.

    Attributes:
        fn: The function.
        row: What is sorted.
        items: Its items.
        lanes: Items in a vector.
        magnitude: For floats, all bits but the sign.
    """

    fn: FunctionText
    row: _Row
    items: Items
    lanes: int
    magnitude: int

    @property
    def kind(self) -> str:
        """LLVM type of a component of one item."""
        return self.items.dtype

    @property
    def wide(self) -> str:
        """LLVM type of a component of a vector of items."""
        return vector_type(self.kind, self.lanes)

    def run(self) -> None:
        """The whole function."""
        length, block, whole = self.row.length, block_of(self.row.length), padded(self.row.length)
        size = component_bytes(length, self.items)
        areas = [
            tuple(
                self.fn.gep("%work", (copy * self.items.components + part) * size)
                for part in range(self.items.components)
            )
            for copy in range(1 if whole == block else 2)
        ]
        signed_zero = self.read(areas[0])
        with self.fn.loop(whole, step=block) as loop:
            self.network(self.moved(areas[0], loop.index), block)
        source = areas[0]
        passes = (whole // block - 1).bit_length()
        if passes:
            source = self.merge(areas[0], areas[1], block, whole, passes)
        self.write(source)
        if signed_zero is not None:
            with self.fn.when(signed_zero, unlikely=True):
                self.order_zeros(source)

    # --- items

    def moved(self, area: Item, offset: str) -> Item:
        """An area from an item on."""
        return tuple(self.fn.index(part, self.kind, offset) for part in area)

    def load(self, area: Item, offset: str) -> Item:
        """A vector of items."""
        align = ITEM_BYTES[self.kind]
        return tuple(self.fn.load(self.wide, p, align) for p in self.moved(area, offset))

    def store(self, area: Item, offset: str, item: Item) -> None:
        """Stores a vector of items."""
        align = ITEM_BYTES[self.kind]
        for part, text in zip(self.moved(area, offset), item, strict=True):
            self.fn.store(self.wide, text, part, align)

    def reverse(self, item: Item) -> Item:
        """A vector with its items in the other order."""
        return tuple(reverse_lanes(self.fn, text, self.kind, self.lanes) for text in item)

    def is_after(self, a: Item, b: Item) -> str:
        """Where an item comes after another: by the key, then by the position."""
        fn, masks = self.fn, vector_type("i1", self.lanes)
        after = fn.value(f"icmp sgt {self.wide} {a[0]}, {b[0]}")
        for x, y in zip(a[1:], b[1:], strict=True):
            tie = fn.value(f"icmp eq {self.wide} {a[0]}, {b[0]}")
            later = fn.value(f"icmp sgt {self.wide} {x}, {y}")
            both = fn.value(f"and {masks} {tie}, {later}")
            after = fn.value(f"or {masks} {after}, {both}")
        return after

    def select(self, mask: str, a: Item, b: Item) -> Item:
        """The one or the other item by lane."""
        masks, wide = vector_type("i1", self.lanes), self.wide
        return tuple(
            self.fn.value(f"select {masks} {mask}, {wide} {x}, {wide} {y}")
            for x, y in zip(a, b, strict=True)
        )

    def compare(self, a: Item, b: Item) -> tuple[Item, Item]:
        """The lesser items and the greater ones, lane by lane."""
        if len(a) > 1:
            swap = self.is_after(a, b)
            return self.select(swap, b, a), self.select(swap, a, b)
        low, high = (
            self.fn.call(
                self.wide,
                f"llvm.{name}.{intrinsic_suffix(self.kind, self.lanes)}",
                (self.wide, a[0]),
                (self.wide, b[0]),
            )
            for name in ("smin", "smax")
        )
        return (low,), (high,)

    def stage(self, item: Item, flip: int, half: int) -> Item:
        """Compares lane i with lane `i ^ flip`; the lesser goes where `i & half` is 0."""
        lanes = range(self.lanes)
        other = tuple(
            shuffle(self.fn, text, "poison", self.wide, [lane ^ flip for lane in lanes])
            for text in item
        )
        if len(item) > 1:
            after = self.is_after(item, other)
            upper = ", ".join(f"i1 {int(bool(lane & half))}" for lane in lanes)
            masks = vector_type("i1", self.lanes)
            mask = self.fn.value(f"xor {masks} {after}, <{upper}>")
            return self.select(mask, other, item)
        (low,), (high,) = self.compare(item, other)
        picks = [lane + self.lanes * bool(lane & half) for lane in lanes]
        return (shuffle(self.fn, low, high, self.wide, picks),)

    def merged_lanes(self, item: Item) -> Item:
        """A bitonic vector, sorted."""
        half = self.lanes // 2
        while half:
            item, half = self.stage(item, half, half), half // 2
        return item

    def sorted_lanes(self, item: Item) -> Item:
        """A vector, sorted."""
        width = 2
        while width <= self.lanes:
            item, half = self.stage(item, width - 1, width // 2), width // 4
            while half:
                item, half = self.stage(item, half, half), half // 2
            width *= 2
        return item

    # --- sorting

    def network(self, area: Item, block: int) -> None:
        """Sorts a block in memory."""
        fn, lanes = self.fn, self.lanes
        with fn.loop(block, step=lanes) as loop:
            self.store(area, loop.index, self.sorted_lanes(self.load(area, loop.index)))
        levels = (block // lanes).bit_length() - 1
        if not levels:
            return
        with fn.loop(levels, [("i64", str(lanes))]) as level:
            (half,) = level.carried
            below = fn.value(f"sub nuw nsw i64 {half}, 1")
            with fn.loop(block // 2, step=lanes) as loop:
                at, start = self.split(loop.index, below)
                low = fn.value(f"add nuw nsw i64 {start}, {at}")
                doubled = fn.value(f"shl nuw nsw i64 {half}, 1")
                end = fn.value(f"add nuw nsw i64 {start}, {doubled}")
                back = fn.value(f"add nuw nsw i64 {at}, {lanes}")
                high = fn.value(f"sub nuw nsw i64 {end}, {back}")
                a, b = self.load(area, low), self.reverse(self.load(area, high))
                less, more = self.compare(a, b)
                self.store(area, low, less)
                self.store(area, high, self.reverse(more))
            first = fn.value(f"lshr i64 {half}, 1")
            with fn.loop(level.index, [("i64", first)], may_be_empty=True) as step:
                (distance,) = step.carried
                inside = fn.value(f"sub nuw nsw i64 {distance}, 1")
                with fn.loop(block // 2, step=lanes) as loop:
                    at, start = self.split(loop.index, inside)
                    low = fn.value(f"add nuw nsw i64 {start}, {at}")
                    high = fn.value(f"add nuw nsw i64 {low}, {distance}")
                    less, more = self.compare(self.load(area, low), self.load(area, high))
                    self.store(area, low, less)
                    self.store(area, high, more)
                step.next = [fn.value(f"lshr i64 {distance}, 1")]
            with fn.loop(block, step=lanes) as loop:
                self.store(area, loop.index, self.merged_lanes(self.load(area, loop.index)))
            level.next = [fn.value(f"shl nuw nsw i64 {half}, 1")]

    def split(self, index: str, mask: str) -> tuple[str, str]:
        """The place within a half, and the start of the pair of halves."""
        fn = self.fn
        at = fn.value(f"and i64 {index}, {mask}")
        rest = fn.value(f"sub nuw nsw i64 {index}, {at}")
        return at, fn.value(f"shl nuw nsw i64 {rest}, 1")

    def merge(self, source: Item, target: Item, block: int, whole: int, passes: int) -> Item:
        """Merges sorted blocks until one run is left; where it lies."""
        fn, count = self.fn, len(source)
        carried = [("i64", str(block)), *(("ptr", part) for part in (*source, *target))]
        with fn.loop(passes, carried) as loop:
            width, *areas = loop.carried
            there, here = tuple(areas[:count]), tuple(areas[count:])
            pairs = fn.value(f"shl nuw nsw i64 {width}, 1")
            some = fn.value(f"add nuw nsw i64 {pairs}, {whole - 1}")
            runs = fn.value(f"udiv i64 {some}, {pairs}")
            with fn.loop(runs) as run:
                low = fn.value(f"mul nuw nsw i64 {run.index}, {pairs}")
                middle = self.least(fn.value(f"add nuw nsw i64 {low}, {width}"), str(whole))
                high = self.least(fn.value(f"add nuw nsw i64 {low}, {pairs}"), str(whole))
                self.merge_pair(there, here, low, middle, high)
            loop.next = [pairs, *here, *there]
        return tuple(loop.results[1 : 1 + count])

    def least(self, a: str, b: str) -> str:
        """The lesser of two offsets."""
        return self.fn.call("i64", "llvm.umin.i64", ("i64", a), ("i64", b))

    def merge_pair(self, source: Item, target: Item, low: str, middle: str, high: str) -> None:
        """Merges the runs from `low` to `middle` and from there to `high`."""
        fn, lanes = self.fn, self.lanes
        begun = fn.value(f"add nuw nsw i64 {low}, {lanes}")
        held = self.load(source, low)
        carried = [("i64", begun), ("i64", middle), *((self.wide, text) for text in held)]
        with fn.loop(high, carried, start=begun, step=lanes, may_be_empty=True) as loop:
            left, right, *texts = loop.carried
            align = ITEM_BYTES[self.kind]
            heads = [
                fn.load(self.kind, fn.index(source[0], self.kind, at), align)
                for at in (left, right)
            ]
            is_less = fn.value(f"icmp sle {self.kind} {heads[0]}, {heads[1]}")
            is_left = fn.value(f"icmp ult i64 {left}, {middle}")
            is_done = fn.value(f"icmp uge i64 {right}, {high}")
            takes = fn.value(f"or i1 {is_done}, {fn.value(f'and i1 {is_left}, {is_less}')}")
            taken = fn.value(f"select i1 {takes}, i64 {left}, i64 {right}")
            following = self.reverse(self.load(source, taken))
            less, more = self.compare(tuple(texts), following)
            at = fn.value(f"sub nuw nsw i64 {loop.index}, {lanes}")
            self.store(target, at, self.merged_lanes(less))
            step = fn.value(f"select i1 {takes}, i64 {lanes}, i64 0")
            other = fn.value(f"sub nuw nsw i64 {lanes}, {step}")
            loop.next = [
                fn.value(f"add nuw nsw i64 {left}, {step}"),
                fn.value(f"add nuw nsw i64 {right}, {other}"),
                *self.merged_lanes(more),
            ]
        last = fn.value(f"sub nuw nsw i64 {high}, {lanes}")
        self.store(target, last, tuple(loop.results[2:]))

    # --- keys

    def read(self, area: Item) -> str | None:
        """Makes items of the keys; whether there is a -0.0 whose place among zeros matters."""
        fn, length, lanes = self.fn, self.row.length, self.lanes
        start = length // lanes * lanes if self.row.is_dense else 0
        with fn.loop(padded(length), start=start, step=lanes, may_be_empty=True) as loop:
            last = constant((1 << (8 * ITEM_BYTES[self.kind] - 1)) - 1, self.kind, lanes)
            self.store(area, loop.index, (last,) * len(area))
        watches = self.row.dtype in FLOATS and not self.row.positions
        found = "false"
        if start:
            masks = vector_type("i1", lanes)
            with fn.loop(start, [(masks, "zeroinitializer")], step=lanes) as loop:
                item, zeros = self.item(self.keys(loop.index, lanes), loop.index, lanes)
                self.store(area, loop.index, item)
                loop.next = [fn.value(f"or {masks} {loop.carried[0]}, {zeros}")]
            name = f"llvm.vector.reduce.or.{intrinsic_suffix('i1', lanes)}"
            found = fn.call("i1", name, (masks, loop.results[0]))
        if start < length:
            with fn.loop(length, [("i1", found)], start=start) as loop:
                item, zeros = self.item(self.keys(loop.index, 1), loop.index, 1)
                for part, text in zip(self.moved(area, loop.index), item, strict=True):
                    fn.store(self.kind, text, part, ITEM_BYTES[self.kind])
                loop.next = [fn.value(f"or i1 {loop.carried[0]}, {zeros}")]
            found = loop.results[0]
        return found if watches else None

    def bits(self) -> str:
        """LLVM type of a key in memory, as an integer."""
        return f"i{8 * ITEM_BYTES[self.row.dtype]}"

    def keys(self, index: str, lanes: int) -> str:
        """Keys from an index on, as integers of at least 4 bytes."""
        fn, bits, itemsize = self.fn, self.bits(), ITEM_BYTES[self.row.dtype]
        if not self.row.is_dense:
            index = fn.value(f"mul nsw i64 {index}, %key_stride")
        wide = vector_type(bits, lanes)
        text = fn.load(wide, fn.index("%keys", bits, index), itemsize)
        if itemsize >= 4:
            return text
        is_plain = self.row.dtype in FLOATS or is_signed(self.row.dtype)
        return fn.value(
            f"{'s' if is_plain else 'z'}ext {wide} {text} to {vector_type('i32', lanes)}"
        )

    def item(self, key: str, index: str, lanes: int) -> tuple[Item, str]:
        """Items of keys whose positions start at an index, and where a key is -0.0."""
        fn, dtype, positions = self.fn, self.row.dtype, self.row.positions
        kind = "i64" if ITEM_BYTES[dtype] == 8 else "i32"
        zeros = constant(False, "i1", lanes)
        if dtype in FLOATS:
            key, zeros = self.ordered(key, kind, lanes)
        elif dtype in ("u32", "u64"):
            least = constant(-(1 << (8 * ITEM_BYTES[dtype] - 1)), kind, lanes)
            key = fn.value(f"xor {vector_type(kind, lanes)} {key}, {least}")
        if not positions:
            return (key,), zeros
        wide, places = vector_type("i64", lanes), index
        if lanes > 1:
            steps = ", ".join(f"i64 {lane}" for lane in range(lanes))
            places = fn.value(f"add {wide} {fn.broadcast(index, 'i64', lanes)}, <{steps}>")
        if kind == "i64":
            return (key, places), zeros
        key = fn.value(f"sext {vector_type(kind, lanes)} {key} to {wide}")
        key = fn.value(f"shl {wide} {key}, {constant(32, 'i64', lanes)}")
        return (fn.value(f"or {wide} {key}, {places}"),), zeros

    def ordered(self, key: str, kind: str, lanes: int) -> tuple[str, str]:
        """The bits of floats as integers of their order, nan last, and where they are -0.0.

        With positions all nans are one, and both zeros are.
        """
        fn, wide, masks = self.fn, vector_type(kind, lanes), vector_type("i1", lanes)
        rest = constant(self.magnitude, kind, lanes)
        size = fn.value(f"and {wide} {key}, {rest}")
        inf, zero = constant(INFINITY[self.row.dtype], kind, lanes), constant(0, kind, lanes)
        is_nan = fn.value(f"icmp sgt {wide} {size}, {inf}")
        sign = fn.value(f"ashr {wide} {key}, {constant(8 * ITEM_BYTES[kind] - 1, kind, lanes)}")
        flipped = fn.value(f"xor {wide} {key}, {fn.value(f'and {wide} {sign}, {rest}')}")
        is_zero = fn.value(f"icmp eq {wide} {size}, {zero}")
        if not self.row.positions:
            found = fn.value(f"select {masks} {is_nan}, {wide} {size}, {wide} {flipped}")
            negative = fn.value(f"icmp slt {wide} {key}, {zero}")
            return found, fn.value(f"and {masks} {is_zero}, {negative}")
        nan = constant(INFINITY[self.row.dtype] + 1, kind, lanes)
        found = fn.value(f"select {masks} {is_nan}, {wide} {nan}, {wide} {flipped}")
        found = fn.value(f"select {masks} {is_zero}, {wide} {zero}, {wide} {found}")
        return found, constant(False, "i1", lanes)

    # --- results

    def write(self, area: Item) -> None:
        """Stores the values or positions of the sorted items."""
        fn, length, lanes = self.fn, self.row.length, self.lanes
        whole = length // lanes * lanes if self.row.is_dense else 0
        if whole:
            with fn.loop(whole, step=lanes) as loop:
                self.put(loop.index, self.result(self.load(area, loop.index), lanes), lanes)
        if whole < length:
            with fn.loop(length, start=whole) as loop:
                align = ITEM_BYTES[self.kind]
                parts = self.moved(area, loop.index)
                item = tuple(fn.load(self.kind, part, align) for part in parts)
                self.put(loop.index, self.result(item, 1), 1)

    def put(self, index: str, text: str, lanes: int) -> None:
        """Stores results from an index on."""
        fn = self.fn
        bits, itemsize = self.bits(), ITEM_BYTES[self.row.dtype]
        if self.row.positions:
            bits, itemsize = "i64", 8
        if not self.row.is_dense:
            index = fn.value(f"mul nsw i64 {index}, %result_stride")
        fn.store(vector_type(bits, lanes), text, fn.index("%result", bits, index), itemsize)

    def result(self, item: Item, lanes: int) -> str:
        """Positions, or the bits of the values."""
        fn, dtype = self.fn, self.row.dtype
        wide = vector_type(self.kind, lanes)
        if self.row.positions:
            if len(item) > 1:
                return item[1]
            return fn.value(f"and {wide} {item[0]}, {constant(0xFFFFFFFF, 'i64', lanes)}")
        text, width = item[0], 8 * ITEM_BYTES[self.kind]
        if dtype in FLOATS:
            sign = fn.value(f"ashr {wide} {text}, {constant(width - 1, self.kind, lanes)}")
            rest = constant(self.magnitude, self.kind, lanes)
            text = fn.value(f"xor {wide} {text}, {fn.value(f'and {wide} {sign}, {rest}')}")
        elif dtype in ("u32", "u64"):
            text = fn.value(f"xor {wide} {text}, {constant(-(1 << (width - 1)), self.kind, lanes)}")
        if ITEM_BYTES[dtype] < 4:
            text = fn.value(f"trunc {wide} {text} to {vector_type(self.bits(), lanes)}")
        return text

    def order_zeros(self, area: Item) -> None:
        """Stores zeros of both signs anew, in the order in which they stood."""
        fn, kind = self.fn, self.kind
        with fn.loop(self.row.length, [("i64", "0")]) as loop:
            item = fn.load(kind, self.moved(area, loop.index)[0], ITEM_BYTES[kind])
            is_less = fn.value(f"icmp slt {kind} {item}, -1")
            step = fn.value(f"zext i1 {is_less} to i64")
            loop.next = [fn.value(f"add nuw nsw i64 {loop.carried[0]}, {step}")]
        with fn.loop(self.row.length, [("i64", loop.results[0])]) as walk:
            key = self.keys(walk.index, 1)
            size = fn.value(f"and {kind} {key}, {self.magnitude}")
            is_zero = fn.value(f"icmp eq {kind} {size}, 0")
            with fn.when(is_zero):
                text = key
                if ITEM_BYTES[self.row.dtype] < 4:
                    text = fn.value(f"trunc {kind} {key} to {self.bits()}")
                self.put(walk.carried[0], text, 1)
            step = fn.value(f"zext i1 {is_zero} to i64")
            walk.next = [fn.value(f"add nuw nsw i64 {walk.carried[0]}, {step}")]
