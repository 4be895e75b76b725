"""Contractions to LLVM: loops over tiles that call micro-kernels.

``write_contraction`` writes the nest that ``tile`` prepared. Around the tiles run, outermost first:
the variables that neither row nor column stand for, blocks of columns, blocks of the contracted
index, blocks of rows, columns of tiles, rows of tiles; extents are cut evenly, so that at most two
heights and three widths of tiles exist. Tiles are shared functions (``contract_tiles``).

Sums go one of four ways: small epilogues follow in registers; large ones read a tile from the
stack; where the contracted index is blocked, tiles wait in scratch for the last block; dot tiles
write a strip of rows. The bits of a sum do not depend on which way, nor on any block.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING

from diffc.codegen.emit.contract_epilogue import Epilogue
from diffc.codegen.emit.contract_pack import Packing
from diffc.codegen.emit.contract_tiles import Level, Tiles
from diffc.codegen.emit.text import LLVM_TYPES
from diffc.codegen.loops.contraction import (
    Access,
    Contraction,
    Span,
    blocks,
    column_tiles,
    contraction,
    depth_tiles,
    extent_of,
    length,
    padded,
    panel_name,
    row_tiles,
)
from diffc.codegen.loops.nodes import Par
from diffc.codegen.loops.walk import stored
from diffc.codegen.targets import ITEM_BYTES
from diffc.errors import InternalError
from diffc.ir.index import Var

if TYPE_CHECKING:
    from diffc.codegen.emit.kernel import KernelWriter

__all__ = ["write_contraction"]


@dataclass(frozen=True, slots=True)
class Block:
    """Neighbouring tiles, ``count`` times, ``stride`` elements apart."""

    tiles: tuple[Span, ...]
    count: int
    stride: int

    @property
    def start(self) -> int:
        """Where the first tile of the first block begins."""
        return self.tiles[0].start


@dataclass(frozen=True, slots=True)
class Place:
    """A run of tiles along one axis, as values of the code.

    Attributes:
        at: Global index of the current tile's start, an `i64`.
        inside: The same within the block.
        size: Rows or columns of a tile.
    """

    at: str
    inside: str
    size: int


@dataclass(frozen=True, slots=True)
class Depth:
    """A block of the contracted index: its start, an `i64`, and its size."""

    at: str
    size: int
    is_first: bool
    is_last: bool


def write_contraction(writer: KernelWriter, par: Par) -> None:
    """Writes a tiled contraction with its stores.

    Args:
        writer: The writer of the kernel; its frame has no vector variable.
        par: The nest, as `tile` made it.
    """
    c = contraction(par)
    if any(extent_of(var) == 0 for var in par.vars):
        return
    frame = writer.frame
    changed = stored(par.body)
    with frame.level(stores=changed):
        epilogue = Epilogue(writer, c)
        job = _Job(writer, c, epilogue)
        for var in epilogue.vars:
            if var not in c.outer:
                job.values[var] = frame.dim(var)
        lhs = frame.pointer(c.lhs.buffer, c.lhs.rest)
        rhs = frame.pointer(c.rhs.buffer, c.rhs.rest)
        job.outer(0, lhs, rhs)
    frame.written(changed)


@dataclass(slots=True)
class _Job:
    """Writes one contraction into the kernel's function."""

    writer: KernelWriter
    c: Contraction
    epilogue: Epilogue
    values: dict[Var, str] = field(default_factory=dict)
    is_packed: bool = False

    # --- values

    def _plus(self, a: str, b: str) -> str:
        return self.writer.frame.plus(a, b)

    def _times(self, a: str, factor: int) -> str:
        return "0" if factor == 0 else self.writer.frame.times(a, factor)

    def _moved(self, pointer: str, dtype: str, *offsets: str) -> str:
        """A pointer moved by elements."""
        for offset in offsets:
            pointer = self.writer.frame.step(pointer, LLVM_TYPES[dtype], offset)
        return pointer

    @contextmanager
    def _loop(self, count: int) -> Iterator[str]:
        if count == 1:
            yield "0"
            return
        with self.writer.frame.fn.loop(count) as loop:
            yield loop.index

    @contextmanager
    def _tiles(self, span: Span, base: str, start: int) -> Iterator[Place]:
        """The tiles of a span in a block that begins at `base` (its first tile at `start`)."""
        with self._loop(span.count) as number:
            moved = self._times(number, span.size)
            inside = self._plus(moved, str(span.start - start))
            yield Place(self._plus(inside, base), inside, span.size)

    @contextmanager
    def _blocks(self, block: Block) -> Iterator[str]:
        with self._loop(block.count) as number:
            yield self._plus(self._times(number, block.stride), str(block.start))

    def _scratch(self, what: str) -> str:
        name = panel_name(self.c.target, what)
        for buffer, pointer in self.writer.frame.pointers.items():
            if buffer.name == name and buffer.mode == "scratch":
                return pointer
        raise InternalError(f"the kernel has no scratch {name}; the contraction needs it")

    # --- loops around the tiles

    def outer(self, index: int, lhs: str, rhs: str) -> None:
        """The variables around the tiles, those that move rhs first."""
        c = self.c
        stays = not any(c.rhs.strides[var] for var in c.outer[index:])
        if stays and not self.is_packed and c.how.pack_rhs and self._is_whole():
            self.is_packed = True
            for block in _repeated(self._column_blocks()):
                self._pack_rhs(block.tiles, "0", rhs, Depth("0", c.depth_size, True, True))
        if index == len(c.outer):
            self._columns(lhs, rhs)
            return
        var, packed = c.outer[index], self.is_packed
        with self._loop(extent_of(var)) as number:
            self.values[var] = number
            left = self._moved(lhs, c.lhs.buffer.dtype, self._times(number, c.lhs.strides[var]))
            right = self._moved(rhs, c.rhs.buffer.dtype, self._times(number, c.rhs.strides[var]))
            self.outer(index + 1, left, right)
        self.is_packed = packed

    def _is_whole(self) -> bool:
        """Whether rhs is packed at once."""
        return len(self._column_blocks()) == 1 and not self.c.how.depth_block

    def _column_blocks(self) -> tuple[tuple[Span, ...], ...]:
        return blocks(column_tiles(self.c), self.c.how.column_block)

    def _columns(self, lhs: str, rhs: str) -> None:
        if self.c.how.dot:
            self._dots(lhs, rhs)
            return
        for block in _repeated(self._column_blocks()):
            with self._blocks(block) as column:
                for piece in _pieces(depth_tiles(self.c)):
                    self._depth(piece, block, column, lhs, rhs)

    def _depth(
        self, piece: tuple[Span, bool, bool], block: Block, column: str, lhs: str, rhs: str
    ) -> None:
        """Some blocks of the contracted index."""
        span, is_first, is_last = piece
        c = self.c
        with self._loop(span.count) as number:
            start = self._plus(self._times(number, span.size), str(span.start))
            depth = Depth(start, span.size, is_first, is_last)
            if c.how.pack_rhs and not self.is_packed:
                self._pack_rhs(block.tiles, column, rhs, depth)
            for rows in _repeated(blocks(row_tiles(c), c.how.row_block)):
                with self._blocks(rows) as row:
                    if c.how.pack_lhs:
                        self._pack_lhs(rows.tiles, row, lhs, depth)
                    self._block(rows, row, block, column, depth, lhs, rhs)

    def _block(
        self, rows: Block, row: str, columns: Block, column: str, depth: Depth, lhs: str, rhs: str
    ) -> None:
        for wide in columns.tiles:
            with self._tiles(wide, column, columns.start) as across:
                for tall in rows.tiles:
                    with self._tiles(tall, row, rows.start) as down:
                        self._tile(down, across, depth, lhs, rhs)

    # --- tiles

    def _functions(self, height: int, width: int) -> Tiles:
        """The micro-kernels for tiles of a size."""
        c = self.c
        lhs = _strides(c, c.lhs, height if c.how.pack_lhs else None)
        rhs = _strides(c, c.rhs, padded(width, c.how.lanes) if c.how.pack_rhs else None)
        extents: Sequence[int | None] = [extent_of(var) for var in c.depth] or [1]
        if c.depth_size == 0:
            extents = [*extents[:-1], 0]
        levels = _joined(
            [Level(*parts) for parts in zip(extents, lhs or [0], rhs or [0], strict=True)]
        )
        if c.how.depth_block:
            if len(levels) != 1:
                raise InternalError("only one contracted variable can be blocked")
            levels = [Level(None, levels[0].lhs, levels[0].rhs)]
        return Tiles(
            self.epilogue,
            tuple(levels),
            c.lhs.buffer.dtype,
            c.rhs.buffer.dtype,
            1 if c.how.pack_lhs else c.lhs.strides[c.row],
            1 if c.how.pack_rhs else c.rhs.strides[c.column],
            c.how.pack_rhs,
        )

    def _operand(self, which: str, pointer: str, place: Place, depth: Depth) -> str:
        """Where a tile's operand begins."""
        c = self.c
        one = c.lhs if which == "lhs" else c.rhs
        if c.how.pack_lhs if which == "lhs" else c.how.pack_rhs:
            offset = self._times(place.inside, depth.size)
            return self._moved(self._scratch(which), one.buffer.dtype, offset)
        var = c.row if which == "lhs" else c.column
        offsets = [self._times(place.at, one.strides[var])]
        if c.depth:
            offsets.append(self._times(depth.at, one.strides[c.depth[-1]]))
        return self._moved(pointer, one.buffer.dtype, *offsets)

    def _tile(self, down: Place, across: Place, depth: Depth, lhs: str, rhs: str) -> None:
        c, fn = self.c, self.writer.frame.fn
        functions = self._functions(down.size, across.size)
        width = padded(across.size, c.how.lanes)
        operands = [
            ("ptr", self._operand("lhs", lhs, down, depth)),
            ("ptr", self._operand("rhs", rhs, across, depth)),
        ]
        if not c.how.depth_block:
            is_inline = self.epilogue.is_small(down.size, width // c.how.lanes)
            name = functions.register(down.size, across.size, has_sums=False, is_inline=is_inline)
            if is_inline:
                more = self.epilogue.arguments(self.values, down.at, across.at)
                fn.call("void", name, *operands, *more, declare=False)
                return
            nbytes = down.size * width * ITEM_BYTES[self.epilogue.dtype]
            sums = fn.stack("sums", nbytes)
            fn.call("void", name, *operands, ("ptr", sums), declare=False)
            self._finish(sums, down, across, width)
            return
        name = functions.register(down.size, across.size, has_sums=True, is_inline=False)
        widest = max(padded(length(part), c.how.lanes) for part in self._column_blocks())
        offsets = self._times(down.at, widest), self._times(across.inside, down.size)
        sums = self._moved(self._scratch("sums"), self.epilogue.dtype, *offsets)
        old = sums
        if depth.is_first:
            nbytes = down.size * width * ITEM_BYTES[self.epilogue.dtype]
            definition = f"internal constant [{nbytes} x i8] zeroinitializer, align 64"
            old = fn.module.add_global(f"zeros{nbytes}", definition)
        trips, steps = divmod(depth.size, c.how.unroll)
        counts = [("i64", str(trips)), ("i64", str(steps))]
        fn.call("void", name, *operands, ("ptr", old), ("ptr", sums), *counts, declare=False)
        if depth.is_last:
            self._finish(sums, down, across, width)

    def _finish(self, sums: str, down: Place, across: Place, stride: int) -> None:
        """Runs the stores on a tile in memory."""
        name = self.epilogue.function(across.size, stride)
        more = self.epilogue.arguments(self.values, down.at, across.at)
        rows = ("i64", str(down.size))
        self.writer.frame.fn.call("void", name, ("ptr", sums), rows, *more, declare=False)

    def _dots(self, lhs: str, rhs: str) -> None:
        """Strips of rows by dot tiles, each followed by its stores."""
        c, fn = self.c, self.writer.frame.fn
        columns = extent_of(c.column)
        stride = padded(columns, c.how.lanes)
        sums, whole = self._scratch("sums"), Depth("0", c.depth_size, True, True)
        for tall in row_tiles(c):
            with self._tiles(tall, "0", 0) as down:
                left = self._operand("lhs", lhs, down, whole)
                for wide in column_tiles(c):
                    with self._tiles(wide, "0", 0) as across:
                        functions = self._functions(tall.size, wide.size)
                        name = functions.dot(tall.size, wide.size, stride)
                        right = self._operand("rhs", rhs, across, whole)
                        place = self._moved(sums, self.epilogue.dtype, across.at)
                        pointers = [("ptr", text) for text in (left, right, place)]
                        fn.call("void", name, *pointers, declare=False)
                self._finish(sums, down, Place("0", "0", columns), stride)

    # --- packing

    def _pack_rhs(self, tiles: Sequence[Span], base: str, rhs: str, depth: Depth) -> None:
        for tile in tiles:
            with self._tiles(tile, base, tiles[0].start) as across:
                stride = padded(tile.size, self.c.how.lanes)
                self._pack("rhs", rhs, across, stride, depth)

    def _pack_lhs(self, tiles: Sequence[Span], base: str, lhs: str, depth: Depth) -> None:
        for tile in tiles:
            with self._tiles(tile, base, tiles[0].start) as down:
                self._pack("lhs", lhs, down, tile.size, depth)

    def _pack(self, which: str, pointer: str, place: Place, stride: int, depth: Depth) -> None:
        """Packs the panel of one tile."""
        c = self.c
        one = c.lhs if which == "lhs" else c.rhs
        var = c.row if which == "lhs" else c.column
        across, dtype = one.strides[var], one.buffer.dtype
        along = one.strides[c.depth[-1]] if c.depth else 0
        module, target = self.writer.frame.fn.module, self.writer.frame.target
        packing = Packing(module, target, dtype, across, along, which == "rhs", c.how.lanes)
        source = self._moved(pointer, dtype, self._times(place.at, across))
        panel = self._moved(self._scratch(which), dtype, self._times(place.inside, depth.size))
        if c.how.depth_block or not c.depth:
            source = self._moved(source, dtype, self._times(depth.at, along))
            self._pack_run(packing, source, panel, place.size, stride, depth.size)
            return
        self._pack_nest(packing, one, 0, source, panel, place.size, stride)

    def _pack_nest(
        self,
        packing: Packing,
        one: Access,
        level: int,
        source: str,
        panel: str,
        width: int,
        stride: int,
    ) -> None:
        depth = self.c.depth
        extent = extent_of(depth[level])
        if extent == 0:
            return
        if level == len(depth) - 1:
            self._pack_run(packing, source, panel, width, stride, extent)
            return
        steps = stride
        for var in depth[level + 1 :]:
            steps *= extent_of(var)
        with self._loop(extent) as number:
            offset = self._times(number, one.strides[depth[level]])
            here = self._moved(source, packing.dtype, offset)
            there = self._moved(panel, packing.dtype, self._times(number, steps))
            self._pack_nest(packing, one, level + 1, here, there, width, stride)

    def _pack_run(
        self, packing: Packing, source: str, panel: str, width: int, stride: int, count: int
    ) -> None:
        """Packs a run of the contracted index."""
        fn, lanes = self.writer.frame.fn, packing.square
        if lanes == 1:
            arguments = [("ptr", source), ("ptr", panel), ("i64", str(count))]
            fn.call("void", packing.whole(width, stride), *arguments, declare=False)
            return
        # the ragged group first: whole vectors are written, beyond its end too
        groups = [Span(width // lanes * lanes, 1, width % lanes), Span(0, width // lanes, lanes)]
        for span in groups:
            if not span.count or not span.size:
                continue
            with self._tiles(span, "0", 0) as group:
                here = self._moved(source, packing.dtype, self._times(group.at, packing.across))
                there = self._moved(panel, packing.dtype, group.at)
                self._pack_squares(packing, here, there, span.size, stride, count)

    def _pack_squares(
        self, packing: Packing, source: str, panel: str, rows: int, stride: int, count: int
    ) -> None:
        """Packs a run for one vector of the panel; the last square may overlap the one before."""
        fn, lanes = self.writer.frame.fn, packing.square
        pointers = [("ptr", source), ("ptr", panel)]
        if count < lanes:
            fn.call("void", packing.rest(rows, stride, count), *pointers, declare=False)
            return
        name = packing.squares(rows, stride)
        fn.call("void", name, *pointers, ("i64", str(count // lanes)), declare=False)
        if count % lanes:
            last = count - lanes
            here = self._moved(source, packing.dtype, str(last * packing.along))
            there = self._moved(panel, packing.dtype, str(last * stride))
            pointers = [("ptr", here), ("ptr", there)]
            fn.call("void", name, *pointers, ("i64", "1"), declare=False)


def _repeated(parts: Sequence[tuple[Span, ...]]) -> list[Block]:
    """Blocks, equal neighbours as one."""
    found: list[Block] = []
    for tiles in parts:
        if not tiles:
            continue
        if found:
            last = found[-1]
            stride = tiles[0].start - last.start if last.count == 1 else last.stride
            shift = stride * last.count
            moved = tuple(Span(t.start + shift, t.count, t.size) for t in last.tiles)
            if moved == tiles:
                found[-1] = Block(last.tiles, last.count + 1, stride)
                continue
        found.append(Block(tiles, 1, 0))
    return found


def _pieces(spans: Sequence[Span]) -> list[tuple[Span, bool, bool]]:
    """Spans of blocks with whether they are the first and the last; these stand alone."""
    single: list[Span] = []
    total = sum(span.count for span in spans)
    seen = 0
    for span in spans:
        cuts = {0, span.count}
        if seen == 0:
            cuts.add(1)
        if seen + span.count == total:
            cuts.add(span.count - 1)
        order = sorted(cuts)
        for low, high in pairwise(order):
            single.append(Span(span.start + low * span.size, high - low, span.size))
        seen += span.count
    last = len(single) - 1
    return [(span, number == 0, number == last) for number, span in enumerate(single)]


def _strides(c: Contraction, one: Access, panel: int | None) -> list[int]:
    """Elements by which a tile's operand moves with each contracted variable."""
    if panel is None:
        return [one.strides[var] for var in c.depth]
    found: list[int] = []
    step = panel
    for var in reversed(c.depth):
        found.append(step)
        step *= extent_of(var)
    return found[::-1]


def _joined(levels: Sequence[Level]) -> list[Level]:
    """Levels, neighbours as one where both operands run through them as one."""
    found: list[Level] = []
    for level in levels:
        extent = level.extent
        if found and extent is not None:
            outer = found[-1]
            if (
                outer.extent is not None
                and outer.lhs == level.lhs * extent
                and outer.rhs == level.rhs * extent
            ):
                found[-1] = Level(outer.extent * extent, level.lhs, level.rhs)
                continue
        found.append(level)
    return found
