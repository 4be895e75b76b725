"""Contractions to LLVM: loops over tiles that call micro-kernels.

``write_contraction`` writes the nest that ``tile`` prepared. Around the tiles run, outermost first:
the variables that neither row nor column stand for, blocks of columns, blocks of the contracted
index, blocks of rows, columns of tiles, rows of tiles; extents are cut evenly, so that at most two
heights and three widths of tiles exist. Tiles are shared functions (``contract_tiles``).

Sums go one of four ways: small epilogues follow in registers; large ones read a tile from the
stack; where the contracted index is blocked, tiles wait in scratch for the last block; dot tiles
write a strip of rows. The bits of a sum do not depend on which way, nor on any block.

Threads share what is around the tiles, or the rows or columns of tiles; a part (see `shares`) is a
job of its own, which goes through a range of them. Panels of rhs are packed before, by all.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from math import prod
from typing import TYPE_CHECKING

from diffc.codegen.emit.contract_epilogue import Epilogue
from diffc.codegen.emit.contract_loops import Loops
from diffc.codegen.emit.contract_order import (
    Block,
    Depth,
    Place,
    joined,
    pieces,
    repeated,
    strides,
)
from diffc.codegen.emit.contract_pack import Packing
from diffc.codegen.emit.contract_tiles import Level, Tiles
from diffc.codegen.emit.shares import Part, part
from diffc.codegen.loops.contraction import (
    Access,
    Contraction,
    Span,
    accumulator,
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
from diffc.codegen.loops.nodes import Buffer, Par, Split
from diffc.codegen.loops.scratch import lent_scratch, private_scratch
from diffc.codegen.loops.walk import stored
from diffc.codegen.targets import ITEM_BYTES
from diffc.errors import InternalError
from diffc.ir.index import Var

if TYPE_CHECKING:
    from diffc.codegen.emit.kernel import KernelWriter

__all__ = ["write_contraction"]


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
        job = _Job(writer, Loops(frame), c, epilogue, par)
        for var in epilogue.vars:
            if var not in c.outer:
                job.values[var] = frame.dim(var)
        axes = {"rows": c.row, "columns": c.column}
        axes |= {"depth": c.depth[0]} if len(c.depth) == 1 else {}
        job.loops.ranges.update(
            {k: writer.ranges[v] for k, v in axes.items() if v in writer.ranges}
        )
        if len(job.loops.ranges) < sum(var in writer.ranges for var in (*par.vars, *c.depth)):
            raise InternalError("a contraction cannot leave out points of these variables")
        lhs = frame.pointer(c.lhs.buffer, c.lhs.rest)
        rhs = frame.pointer(c.rhs.buffer, c.rhs.rest)
        job.start(lhs, rhs)
    frame.written(changed)


@dataclass(slots=True)
class _Job:
    """Writes one contraction into the kernel's function."""

    writer: KernelWriter
    loops: Loops
    c: Contraction
    epilogue: Epilogue
    par: Par
    values: dict[Var, str] = field(default_factory=dict)
    is_packed: bool = False
    is_part: bool = False

    def _scratch(self, what: str) -> str:
        name = panel_name(self.c.target, what)
        for buffer, pointer in self.writer.frame.pointers.items():
            if buffer.name == name and buffer.mode == "scratch":
                return pointer
        raise InternalError(f"the kernel has no scratch {name}; the contraction needs it")

    # --- parts

    @contextmanager
    def _part(self, over: str, units: int, lhs: str, rhs: str, *more: str) -> Iterator[_Part]:
        """A job of its own for a range of units; `more` are further values that it needs."""
        split = self.par.split
        assert split is not None, "threads share this contraction"
        if over == "pack":
            split = Split("columns", split.pack)
            passed = [self.c.rhs.buffer, self._panel("rhs")]
            private: list[Buffer] = []
            lent: list[Buffer] = []
        else:
            names = {panel_name(self.c.target, what) for what in ("lhs", "rhs", "sums")}
            used = {*self.epilogue.buffers, self.c.lhs.buffer, self.c.rhs.buffer}
            lent = lent_scratch(self.writer.kernel, self.par)
            own = private_scratch(self.writer.kernel, self.par)
            private = [buffer for buffer in own if buffer not in lent]
            passed = [
                buffer
                for buffer in self.writer.frame.pointers
                if buffer not in private
                and (buffer in used or (buffer.mode == "scratch" and buffer.name in names))
            ]
        vars = list(self.values)
        values = [("ptr", lhs), ("ptr", rhs), *(("i64", self.values[var]) for var in vars)]
        values += [("i64", text) for text in more]
        with part(self.writer, passed, values, units, split, private, lent) as inside:
            left, right, *rest = inside.values
            known = dict(zip(vars, rest, strict=False))
            epilogue = Epilogue(inside.writer, self.c)
            loops = Loops(inside.writer.frame)
            job = _Job(
                inside.writer, loops, self.c, epilogue, self.par, known, self.is_packed, True
            )
            if over != "points":
                axis = "columns" if over == "pack" else over
                job.loops.limits[axis] = inside.begin, inside.end
            yield _Part(job, inside, left, right, rest[len(vars) :])

    def _panel(self, what: str) -> Buffer:
        name = panel_name(self.c.target, what)
        for buffer in self.writer.frame.pointers:
            if buffer.name == name and buffer.mode == "scratch":
                return buffer
        raise InternalError(f"the kernel has no scratch {name}; the contraction needs it")

    def _is_shared(self, over: str) -> bool:
        """Whether threads share this axis, and this is not yet a part."""
        split = self.par.split
        return split is not None and split.over == over and not self.is_part

    def start(self, lhs: str, rhs: str) -> None:
        """Everything; threads share what is around the tiles if that is said."""
        split = self.par.split
        if split is None or split.over != "points":
            self.outer(0, lhs, rhs)
            return
        self._pack_ahead(0, rhs)
        vars = self.c.outer[: split.count]
        units = prod(extent_of(var) for var in vars)
        with self._part("points", units, lhs, rhs) as share:
            inside, job = share.inside, share.job
            with job.writer.frame.fn.loop(inside.end, start=inside.begin) as loop:
                rest, left, right = loop.index, share.lhs, share.rhs
                fn = job.writer.frame.fn
                for var in reversed(vars):
                    size = extent_of(var)
                    index = rest if var is vars[0] else fn.value(f"urem i64 {rest}, {size}")
                    rest = "0" if var is vars[0] else fn.value(f"udiv i64 {rest}, {size}")
                    left, right = job._outer_moved(var, index, left, right)
                job.outer(len(vars), left, right)

    # --- loops around the tiles

    def _outer_moved(self, var: Var, number: str, lhs: str, rhs: str) -> tuple[str, str]:
        """The operands at a value of a variable around the tiles."""
        c = self.c
        self.values[var] = number
        left = self.loops.moved(
            lhs, c.lhs.buffer.dtype, self.loops.times(number, c.lhs.strides[var])
        )
        right = self.loops.moved(
            rhs, c.rhs.buffer.dtype, self.loops.times(number, c.rhs.strides[var])
        )
        return left, right

    def _pack_ahead(self, index: int, rhs: str) -> None:
        """Packs rhs at once where no further variable around the tiles moves it."""
        c = self.c
        stays = not any(c.rhs.strides[var] for var in c.outer[index:])
        if stays and not self.is_packed and c.how.pack_rhs and self._is_whole():
            self.is_packed = True
            for block in repeated(self._column_blocks()):
                self._pack_rhs(block.tiles, "0", rhs, Depth("0", c.depth_size, True, True))

    def outer(self, index: int, lhs: str, rhs: str) -> None:
        """The variables around the tiles, those that move rhs first."""
        c, packed = self.c, self.is_packed
        self._pack_ahead(index, rhs)
        if index == len(c.outer):
            self._columns(lhs, rhs)
            self.is_packed = packed
            return
        var = c.outer[index]
        with self.loops.loop(extent_of(var)) as number:
            left, right = self._outer_moved(var, number, lhs, rhs)
            self.outer(index + 1, left, right)
        self.is_packed = packed

    def _is_whole(self) -> bool:
        """Whether rhs is packed at once."""
        return len(self._column_blocks()) == 1 and not self.c.how.depth_block

    def _column_blocks(self) -> tuple[tuple[Span, ...], ...]:
        return blocks(column_tiles(self.c), self.c.how.column_block)

    def _columns(self, lhs: str, rhs: str) -> None:
        if self._is_shared("columns"):
            # a share has the tiles of its numbers in each block
            tiles = max(sum(span.count for span in block) for block in self._column_blocks())
            with self._part("columns", tiles, lhs, rhs) as share:
                share.job._columns(share.lhs, share.rhs)
            return
        if self.c.how.dot:
            self._dots(lhs, rhs)
            return
        for block in repeated(self._column_blocks()):
            with self.loops.blocks(block) as column:
                if self._is_open:
                    self._open_depth(block, column, lhs, rhs)
                    continue
                for piece in pieces(depth_tiles(self.c)):
                    self._depth(piece, block, column, lhs, rhs)

    @property
    def _is_open(self) -> bool:
        """Whether it is known at run time only which blocks of the contracted index there are."""
        return "depth" in self.loops.ranges and self.c.how.depth_block > 0

    def _open_depth(self, block: Block, column: str, lhs: str, rhs: str) -> None:
        """Adds the needed blocks of the contracted index to zeroes; stores follow."""
        fn, rows = self.writer.frame.fn, row_tiles(self.c)
        sums = self._scratch("sums")
        nbytes = extent_of(self.c.row) * self._widest() * ITEM_BYTES[self.epilogue.dtype]
        size = ("i64", str(nbytes))
        fn.call("void", "llvm.memset.p0.i64", ("ptr", sums), ("i8", "0"), size, ("i1", "false"))
        for span in depth_tiles(self.c):
            low, high = self.loops.touched(span, str(span.start), self.loops.ranges["depth"])
            with self.loops.range(low, high) as number:
                start = self.loops.plus(self.loops.times(number, span.size), str(span.start))
                self._depth_block(Depth(start, span.size, False, False), block, column, lhs, rhs)
        for wide in self.loops.along("columns", block.tiles, column):
            with wide as across:
                for tall in self.loops.along("rows", rows, "0"):
                    with tall as down:
                        width = padded(across.size, self.c.how.lanes)
                        self._finish(self._sums_of(down, across), down, across, width)

    def _widest(self) -> int:
        """Columns for which there are sums."""
        if self._has_own_columns():
            return padded(extent_of(self.c.column), self.c.how.lanes)
        return max(padded(length(part), self.c.how.lanes) for part in self._column_blocks())

    def _sums_of(self, down: Place, across: Place) -> str:
        """Where the sums of a tile wait for the next block of the contracted index."""
        first = across.at if self._has_own_columns() else across.inside
        offsets = self.loops.times(down.at, self._widest()), self.loops.times(first, down.size)
        return self.loops.moved(self._scratch("sums"), self.epilogue.dtype, *offsets)

    def _depth(
        self, piece: tuple[Span, bool, bool], block: Block, column: str, lhs: str, rhs: str
    ) -> None:
        """Some blocks of the contracted index."""
        span, is_first, is_last = piece
        with self.loops.loop(span.count) as number:
            start = self.loops.plus(self.loops.times(number, span.size), str(span.start))
            depth = Depth(start, span.size, is_first, is_last)
            self._depth_block(depth, block, column, lhs, rhs)

    def _depth_block(self, depth: Depth, block: Block, column: str, lhs: str, rhs: str) -> None:
        """A block of the contracted index."""
        c = self.c
        if c.how.pack_rhs and not self.is_packed:
            self._pack_rhs(block.tiles, column, rhs, depth)
        if self._is_shared("rows"):
            self._shared_rows(block, column, depth, lhs, rhs)
            return
        for rows in repeated(blocks(row_tiles(c), c.how.row_block)):
            with self.loops.blocks(rows) as row:
                if c.how.pack_lhs:
                    self._pack_lhs(rows.tiles, row, lhs, depth)
                self._block(rows, row, block, column, depth, lhs, rhs)

    def _shared_rows(self, columns: Block, column: str, depth: Depth, lhs: str, rhs: str) -> None:
        """The rows of tiles in parts, each with panels of lhs of its own."""
        tiles = row_tiles(self.c)
        number = sum(span.count for span in tiles)
        with self._part("rows", number, lhs, rhs, column, depth.at) as share:
            job, (across, at) = share.job, share.values
            here = replace(depth, at=at)
            if self.c.how.pack_lhs:
                job._pack_lhs(tiles, "0", share.lhs, here)
            job._block(Block(tiles, 1, 0), "0", columns, across, here, share.lhs, share.rhs)

    def _block(
        self, rows: Block, row: str, columns: Block, column: str, depth: Depth, lhs: str, rhs: str
    ) -> None:
        for wide in self.loops.along("columns", columns.tiles, column):
            with wide as across:
                for tall in self.loops.along("rows", rows.tiles, row):
                    with tall as down:
                        self._tile(down, across, depth, lhs, rhs)

    # --- tiles

    def _functions(self, height: int, width: int) -> Tiles:
        """The micro-kernels for tiles of a size."""
        c = self.c
        lhs = strides(c, c.lhs, height if c.how.pack_lhs else None)
        rhs = strides(c, c.rhs, padded(width, c.how.lanes) if c.how.pack_rhs else None)
        extents: Sequence[int | None] = [extent_of(var) for var in c.depth] or [1]
        if c.depth_size == 0:
            extents = [*extents[:-1], 0]
        levels = joined(
            [Level(*parts) for parts in zip(extents, lhs or [0], rhs or [0], strict=True)]
        )
        if c.how.depth_block or "depth" in self.loops.ranges:
            if len(levels) != 1:
                raise InternalError("only one contracted variable can be blocked")
            levels = [Level(None, levels[0].lhs, levels[0].rhs)]
        return Tiles(
            self.epilogue,
            tuple(levels),
            accumulator(c.lhs.buffer.dtype) if c.how.pack_lhs else c.lhs.buffer.dtype,
            accumulator(c.rhs.buffer.dtype) if c.how.pack_rhs else c.rhs.buffer.dtype,
            1 if c.how.pack_lhs else c.lhs.strides[c.row],
            1 if c.how.pack_rhs else c.rhs.strides[c.column],
            c.how.pack_rhs,
            c.how.prefetch_lhs and not c.how.pack_lhs and c.lhs.strides[c.row] == 1,
            c.how.prefetch_rhs and not c.how.pack_rhs,
        )

    def _operand(self, which: str, pointer: str, place: Place, depth: Depth) -> str:
        """Where a tile's operand begins."""
        c = self.c
        one = c.lhs if which == "lhs" else c.rhs
        if c.how.pack_lhs if which == "lhs" else c.how.pack_rhs:
            return self._panel_of(which, place, depth)
        var = c.row if which == "lhs" else c.column
        offsets = [self.loops.times(place.at, one.strides[var])]
        if c.depth:
            offsets.append(self.loops.times(depth.at, one.strides[c.depth[-1]]))
        return self.loops.moved(pointer, one.buffer.dtype, *offsets)

    def _panel_of(self, which: str, place: Place, depth: Depth) -> str:
        """Where the panel of a tile begins; the last vector may reach beyond its end."""
        dtype = accumulator((self.c.lhs if which == "lhs" else self.c.rhs).buffer.dtype)
        offset = self.loops.times(place.inside, depth.size)
        if which == "rhs" and self._has_own_columns():
            deepest = max(span.size for span in depth_tiles(self.c))
            offset = self.loops.times(place.at, deepest)
        slack = "0"
        if which == "lhs" and "rows" in self.loops.limits:
            slack = self.loops.times(place.number, self.c.how.lanes)
        return self.loops.moved(self._scratch(which), dtype, offset, slack)

    def _has_own_columns(self) -> bool:
        """Whether every column has a place of its own in panels and sums.

        Shares of columns are at different blocks of columns and of the contracted index at once.
        """
        split = self.par.split
        return split is not None and split.over == "columns"

    def _tile(self, down: Place, across: Place, depth: Depth, lhs: str, rhs: str) -> None:
        c, fn = self.c, self.writer.frame.fn
        functions = self._functions(down.size, across.size)
        width = padded(across.size, c.how.lanes)
        left = self._operand("lhs", lhs, down, depth)
        right = self._operand("rhs", rhs, across, depth)
        counts: list[tuple[str, str]] = []
        if "depth" in self.loops.ranges:
            skipped, count = self._needed_steps(depth)
            (level,) = functions.levels
            left = self.loops.moved(left, c.lhs.buffer.dtype, self.loops.times(skipped, level.lhs))
            right = self.loops.moved(
                right, c.rhs.buffer.dtype, self.loops.times(skipped, level.rhs)
            )
            trips = fn.value(f"udiv i64 {count}, {c.how.unroll}")
            counts = [("i64", trips), ("i64", fn.value(f"urem i64 {count}, {c.how.unroll}"))]
        elif c.how.depth_block:
            whole, rest = divmod(depth.size, c.how.unroll)
            counts = [("i64", str(whole)), ("i64", str(rest))]
        operands = [("ptr", left), ("ptr", right)]
        if not c.how.depth_block:
            is_inline = not c.how.turn and self.epilogue.is_small(down.size, width // c.how.lanes)
            name = functions.register(down.size, across.size, has_sums=False, is_inline=is_inline)
            if is_inline:
                more = self.epilogue.arguments(self.values, down.at, across.at)
                fn.call("void", name, *operands, *counts, *more, declare=False)
                return
            nbytes = down.size * width * ITEM_BYTES[self.epilogue.dtype]
            sums = fn.stack("sums", nbytes)
            fn.call("void", name, *operands, ("ptr", sums), *counts, declare=False)
            self._finish(sums, down, across, width)
            return
        name = functions.register(down.size, across.size, has_sums=True, is_inline=False)
        sums = self._sums_of(down, across)
        old = sums
        if depth.is_first:
            nbytes = down.size * width * ITEM_BYTES[self.epilogue.dtype]
            definition = f"internal constant [{nbytes} x i8] zeroinitializer, align 64"
            old = fn.module.add_global(f"zeros{nbytes}", definition)
        fn.call("void", name, *operands, ("ptr", old), ("ptr", sums), *counts, declare=False)
        if depth.is_last:
            self._finish(sums, down, across, width)

    def _needed_steps(self, depth: Depth) -> tuple[str, str]:
        """Steps of a block that are left out at its start, and how many there are then."""
        fn = self.writer.frame.fn
        back = "0" if depth.at == "0" else fn.value(f"sub nsw i64 0, {depth.at}")
        low, high = (
            self.loops.clamped(self.loops.plus(border, back), 0, depth.size)
            for border in self.loops.ranges["depth"]
        )
        return low, fn.value(f"sub nsw i64 {high}, {low}")

    def _finish(self, sums: str, down: Place, across: Place, stride: int) -> None:
        """Runs the stores on a tile in memory."""
        fn = self.writer.frame.fn
        more = self.epilogue.arguments(self.values, down.at, across.at)
        if self.c.how.turn:
            name = self.epilogue.turned(down.size, across.size, stride)
            fn.call("void", name, ("ptr", sums), *more, declare=False)
            return
        name = self.epilogue.function(across.size, stride)
        rows = ("i64", str(down.size))
        fn.call("void", name, ("ptr", sums), rows, *more, declare=False)

    def _dots(self, lhs: str, rhs: str) -> None:
        """Strips of rows by dot tiles, each followed by its stores."""
        c, fn = self.c, self.writer.frame.fn
        if self._is_shared("rows"):
            tiles = sum(span.count for span in row_tiles(c))
            with self._part("rows", tiles, lhs, rhs) as share:
                share.job._dots(share.lhs, share.rhs)
            return
        columns = extent_of(c.column)
        stride = padded(columns, c.how.lanes)
        sums, whole = self._scratch("sums"), Depth("0", c.depth_size, True, True)
        for tall in self.loops.along("rows", row_tiles(c), "0"):
            with tall as down:
                left = self._operand("lhs", lhs, down, whole)
                for wide in column_tiles(c):
                    with self.loops.tiles(wide, "0", 0) as across:
                        functions = self._functions(down.size, wide.size)
                        name = functions.dot(down.size, wide.size, stride)
                        right = self._operand("rhs", rhs, across, whole)
                        place = self.loops.moved(sums, self.epilogue.dtype, across.at)
                        pointers = [("ptr", text) for text in (left, right, place)]
                        fn.call("void", name, *pointers, declare=False)
                self._finish(sums, down, Place("0", "0", columns), stride)

    # --- packing

    def _pack_rhs(self, tiles: Sequence[Span], base: str, rhs: str, depth: Depth) -> None:
        split = self.par.split
        if split is not None and split.pack and not self.is_part:
            number = sum(span.count for span in tiles)
            with self._part("pack", number, rhs, rhs, base, depth.at) as share:
                column, at = share.values
                share.job._pack_rhs(tiles, column, share.rhs, replace(depth, at=at))
            return
        for tile in self.loops.along("columns", tiles, base):
            with tile as across:
                stride = padded(across.size, self.c.how.lanes)
                self._pack("rhs", rhs, across, stride, depth)

    def _pack_lhs(self, tiles: Sequence[Span], base: str, lhs: str, depth: Depth) -> None:
        for tile in self.loops.along("rows", tiles, base):
            with tile as down:
                self._pack("lhs", lhs, down, down.size, depth)

    def _pack(self, which: str, pointer: str, place: Place, stride: int, depth: Depth) -> None:
        """Packs the panel of one tile."""
        c = self.c
        one = c.lhs if which == "lhs" else c.rhs
        var = c.row if which == "lhs" else c.column
        across, dtype = one.strides[var], one.buffer.dtype
        along = one.strides[c.depth[-1]] if c.depth else 0
        module, target = self.writer.frame.fn.module, self.writer.frame.target
        packing = Packing(module, target, dtype, across, along, which == "rhs", c.how.lanes)
        source = self.loops.moved(pointer, dtype, self.loops.times(place.at, across))
        panel = self._panel_of(which, place, depth)
        if c.how.depth_block or not c.depth:
            source = self.loops.moved(source, dtype, self.loops.times(depth.at, along))
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
        with self.loops.loop(extent) as number:
            offset = self.loops.times(number, one.strides[depth[level]])
            here = self.loops.moved(source, packing.dtype, offset)
            there = self.loops.moved(panel, packing.panel, self.loops.times(number, steps))
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
            with self.loops.tiles(span, "0", 0) as group:
                here = self.loops.moved(
                    source, packing.dtype, self.loops.times(group.at, packing.across)
                )
                there = self.loops.moved(panel, packing.panel, group.at)
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
            here = self.loops.moved(source, packing.dtype, str(last * packing.along))
            there = self.loops.moved(panel, packing.panel, str(last * stride))
            pointers = [("ptr", here), ("ptr", there)]
            fn.call("void", name, *pointers, ("i64", "1"), declare=False)


@dataclass(frozen=True, slots=True)
class _Part:
    """A job for a range of units, the operands as it knows them, and further values."""

    job: _Job
    inside: Part
    lhs: str
    rhs: str
    values: list[str]
