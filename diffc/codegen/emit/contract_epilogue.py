"""What is done with the sums of a contraction: its stores, at a tile of points.

The stores run in a function of their own frame: it gets the pointers of the buffers and the values
of the loop variables around the tile, and the first row and column of the tile. Small epilogues
follow the sums in registers; large ones read them from memory, in a loop over rows and vectors.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from math import prod
from typing import TYPE_CHECKING

from diffc.codegen.emit import half
from diffc.codegen.emit.contract_numbers import (
    Numbers,
    Piece,
    load_lanes,
    pieces_of,
    store_lanes,
)
from diffc.codegen.emit.contract_pack import MOST_SQUARE, transposed
from diffc.codegen.emit.frame import Frame, Lanes, Value
from diffc.codegen.emit.scalars import Ops
from diffc.codegen.emit.text import FunctionText
from diffc.codegen.loops.contraction import Contraction, accumulator, extent_of, padded
from diffc.codegen.loops.nodes import (
    Apply,
    Buffer,
    Choose,
    Fetch,
    GatherLoad,
    IndexValue,
    Load,
    Store,
)
from diffc.codegen.loops.walk import expressions, map_statement, rewrite, stored
from diffc.codegen.targets import HALVES, ITEM_BYTES
from diffc.ir.index import Atom, Dim, Guard, Var, coefficient, free, ravel, substitute

if TYPE_CHECKING:
    from diffc.codegen.emit.kernel import KernelWriter

__all__ = ["Epilogue"]

INLINE_NODES = 220
"""Up to this many operations an epilogue is unrolled over the registers of a tile."""
COSTLY_NODES = 25
"""What counts for an operation that becomes many instructions."""
COSTLY = frozenset(
    [
        "exp",
        "exp2",
        "log",
        "log2",
        "log10",
        "log1p",
        "expm1",
        "tanh",
        "logistic",
        "erf",
        "sin",
        "cos",
        "tan",
        "sinh",
        "cosh",
        "arctan",
        "arcsin",
        "arccos",
        "arctan2",
        "pow",
        "floor_divide",
        "remainder",
    ]
)


@dataclass(slots=True)
class Epilogue:
    """The stores of a contraction.

    Attributes:
        writer: The writer of the kernel.
        c: The contraction.
        buffers: What the stores read and write, in order of appearance.
        vars: The variables around the tile which occur in the stores.
        size: Operations at a point.
    """

    writer: KernelWriter
    c: Contraction
    buffers: list[Buffer] = field(default_factory=list)
    vars: list[Var] = field(default_factory=list)
    size: int = 0

    def __post_init__(self) -> None:
        buffers: dict[Buffer, None] = {}
        atoms: dict[Atom, None] = {}

        def seen(*indices: Dim) -> None:
            for index in indices:
                atoms.update(dict.fromkeys(sorted(free(index), key=lambda atom: atom.key)))

        for store in self.c.stores:
            buffers[store.buffer] = None
            seen(*store.indices, *(cond.expr for cond in store.guard))
            self.size += 1
        begun = () if self.c.start is None else (self.c.start,)
        for node in expressions((*(store.value for store in self.c.stores), *begun)):
            if isinstance(node, Load | GatherLoad):
                buffers[node.buffer] = None
                seen(*(index for index in node.indices if isinstance(index, Dim)))
            elif isinstance(node, IndexValue):
                seen(node.index)
            elif isinstance(node, Choose):
                seen(*(cond.expr for cond in node.guard))
            is_costly = isinstance(node, Apply) and node.name in COSTLY
            self.size += COSTLY_NODES if is_costly else 1
        self.buffers = list(buffers)
        inner = (self.c.row, self.c.column)
        self.vars = [atom for atom in atoms if isinstance(atom, Var) and atom not in inner]

    @property
    def dtype(self) -> str:
        """The dtype of sums in registers."""
        return accumulator(self.c.target.dtype)

    def is_small(self, rows: int, vectors: int) -> bool:
        """Whether the stores may follow the sums of a tile in registers: if these go on, always."""
        return self.c.start is not None or rows * vectors * self.size <= INLINE_NODES

    # --- the interface of functions with the stores inside

    def parameters(self) -> list[tuple[str, str]]:
        """Parameters of a function that runs the stores of a tile."""
        found = [("ptr", f"%e{number}") for number in range(len(self.buffers))]
        found += [("i64", f"%x{number}") for number in range(len(self.vars))]
        return [*found, ("i64", "%row"), ("i64", "%column"), ("ptr", "%status")]

    def arguments(self, values: Mapping[Var, str], row: str, column: str) -> list[tuple[str, str]]:
        """Arguments for `parameters`: values of the variables, first row and column."""
        frame = self.writer.frame
        found = [("ptr", frame.pointers[buffer]) for buffer in self.buffers]
        found += [("i64", values[var]) for var in self.vars]
        return [*found, ("i64", row), ("i64", column), ("ptr", frame.status)]

    def _inside(self, fn: FunctionText) -> KernelWriter:
        """A writer for the inside of such a function."""
        pointers = {buffer: f"%e{number}" for number, buffer in enumerate(self.buffers)}
        frame = Frame(fn, self.writer.frame.target, pointers, "%status")
        for number, var in enumerate(self.vars):
            frame.bind(var, f"%x{number}")
        return self.writer.inside(frame)

    # --- sums in registers

    def in_registers(
        self, numbers: Numbers, sums: Sequence[Sequence[str]], pieces: Sequence[Piece]
    ) -> None:
        """Runs the stores on a tile of vectors, one list for each row."""
        fn = numbers.fn
        writer = self._inside(fn)
        first = Var("first", extent_of(self.c.row))
        writer.frame.bind(first, "%row")
        rows = [self._moved({self.c.row: first + row}) for row in range(len(sums))]
        for vector, piece in enumerate(pieces):
            with self._lanes(writer, self.c.column, _column(fn, piece), piece):
                for row, stores in enumerate(rows):
                    with writer.frame.level(stores=stored(stores)):
                        self._run(writer, numbers.of(piece.lanes), sums[row][vector], stores)

    def begun(self, numbers: Numbers, rows: int, pieces: Sequence[Piece]) -> list[str]:
        """The sums with which those of a tile go on, row by row."""
        fn = numbers.fn
        begun = self.c.start
        assert begun is not None, "these sums start at 0"
        writer = self._inside(fn)
        first = Var("first", extent_of(self.c.row))
        writer.frame.bind(first, "%row")
        starts = [
            rewrite((begun,), *_along({self.c.row: first + row}))[id(begun)] for row in range(rows)
        ]
        found: list[list[str]] = [[] for _ in starts]
        for piece in pieces:
            with self._lanes(writer, self.c.column, _column(fn, piece), piece):
                for texts, start in zip(found, starts, strict=True):
                    texts.append(writer.evaluator.vector(start))
        return [text for texts in found for text in texts]

    def _moved(self, mapping: Mapping[Var, Dim]) -> tuple[Store, ...]:
        at = _along(mapping)
        known = rewrite((store.value for store in self.c.stores), *at)
        moved = [map_statement(store, *at, known) for store in self.c.stores]
        return tuple(store for store in moved if isinstance(store, Store))

    @contextmanager
    def _lanes(self, writer: KernelWriter, var: Var, base: str, piece: Piece) -> Iterator[None]:
        with writer.frame.level():
            prefix = piece.active if piece.active < piece.lanes else None
            is_aligned = var is self.c.column
            bound = Lanes(var, base, piece.lanes, active=prefix, is_aligned=is_aligned)
            writer.frame.bind_lanes(bound)
            yield

    def _run(
        self, writer: KernelWriter, numbers: Numbers, total: str, stores: Sequence[Store]
    ) -> None:
        """Binds a vector of sums and runs the stores."""
        target, fn = self.c.target, numbers.fn
        if target.dtype == "bool":
            total = fn.value(f"icmp ne {numbers.kind} {total}, zeroinitializer")
        elif target.dtype in HALVES:
            ops = Ops(fn, numbers.target, numbers.lanes)
            total = half.narrow(ops, total, target.dtype, is_plain=True)
        writer.frame.bind_scalar(target.name, Value(total, numbers.lanes))
        writer.body(stores)

    # --- sums in memory

    def function(self, columns: int, stride: int) -> str:
        """The function that runs the stores on sums in memory; returns its name.

        Parameters: pointer to the sums, number of rows (at least 1), then `parameters`.

        Args:
            columns: Columns of the tile.
            stride: Elements from row to row of the sums; rows are padded to whole vectors.
        """
        target = self.writer.frame.target
        module, lanes = self.writer.frame.fn.module, self.c.how.lanes
        parameters = [("ptr", "%sums"), ("i64", "%rows"), *self.parameters()]
        signature = ", ".join(f"{kind} {name}" for kind, name in parameters)
        head = f"define internal void @SELF({signature}) noinline {target.attributes} {{"
        fn = FunctionText(module, head)
        numbers = Numbers(fn, target, self.dtype, lanes)
        writer = self._inside(fn)
        changed = stored(self.c.stores)
        last = pieces_of(columns, lanes, narrow=self.c.how.narrow)[-1]
        whole = columns // lanes * lanes
        with writer.frame.level(stores=changed), fn.loop("%rows") as loop:
            at = fn.index("%sums", numbers.scalar, fn.scaled(loop.index, stride))
            row = fn.value(f"add nuw nsw i64 %row, {loop.index}")
            writer.frame.bind(self.c.row, row)
            if whole > lanes:
                with writer.frame.level(stores=changed), fn.loop(whole, step=lanes) as vectors:
                    self._from_memory(writer, numbers, at, vectors.index, Piece(0, lanes, lanes))
            elif whole:
                self._from_memory(writer, numbers, at, "0", Piece(0, lanes, lanes))
            if columns > whole:
                self._from_memory(writer, numbers, at, str(whole), last)
        fn.ret()
        return module.add_once("epilogue", fn.text())

    # --- sums turned around

    def turned(self, rows: int, columns: int, stride: int) -> str:
        """The function that runs the stores with lanes along rows; returns its name.

        The tile is transposed to the stack by squares, then each of its columns is stored.
        Parameters: pointer to the sums, then `parameters`.

        Args:
            rows: Rows of the tile.
            columns: Columns of the tile.
            stride: Elements from row to row of the sums; rows are padded to whole vectors.
        """
        target = self.writer.frame.target
        module, lanes = self.writer.frame.fn.module, self.c.how.lanes
        parameters = [("ptr", "%sums"), *self.parameters()]
        signature = ", ".join(f"{kind} {name}" for kind, name in parameters)
        head = f"define internal void @SELF({signature}) noinline {target.attributes} {{"
        fn = FunctionText(module, head)
        numbers = Numbers(fn, target, self.dtype, lanes)
        side = min(lanes, MOST_SQUARE)
        height, width = padded(rows, side), padded(columns, side)
        size = ITEM_BYTES[self.dtype]
        area = fn.stack("turned", height * width * size)
        with fn.loop(width // side) as loop:
            source = fn.gep("%sums", fn.scaled(loop.index, side * size))
            goal = fn.gep(area, fn.scaled(loop.index, side * height * size))
            for first in range(0, rows, side):
                some = range(first, min(rows, first + side))
                self._turn(numbers.of(side), source, goal, some, stride, height)
        writer = self._inside(fn)
        changed = stored(self.c.stores)
        with writer.frame.level(stores=changed), fn.loop(columns) as loop:
            writer.frame.bind(self.c.column, fn.value(f"add nuw nsw i64 %column, {loop.index}"))
            at = fn.gep(area, fn.scaled(loop.index, height * size))
            for piece in pieces_of(rows, lanes, narrow=self.c.how.narrow):
                base = fn.value(f"add nuw nsw i64 %row, {piece.start}") if piece.start else "%row"
                bound = self._lanes(writer, self.c.row, base, piece)
                with bound, writer.frame.level(stores=changed):
                    place = fn.gep(at, piece.start * size)
                    total = load_lanes(fn, self.dtype, piece.lanes, place, piece.active)
                    self._run(writer, numbers.of(piece.lanes), total, self.c.stores)
        fn.ret()
        return module.add_once("turned", fn.text())

    def _turn(
        self, numbers: Numbers, source: str, goal: str, rows_at: range, stride: int, height: int
    ) -> None:
        """Transposes a square of the tile: some rows, as many columns as lanes."""
        fn, lanes, size = numbers.fn, numbers.lanes, ITEM_BYTES[numbers.dtype]
        rows = ["zeroinitializer"] * lanes
        for number, row in enumerate(rows_at):
            place = fn.gep(source, row * stride * size)
            rows[number] = load_lanes(fn, numbers.dtype, lanes, place, lanes)
        for column, vector in enumerate(transposed(fn, rows, numbers.dtype)):
            place = fn.gep(goal, (column * height + rows_at.start) * size)
            store_lanes(fn, numbers.dtype, lanes, vector, place, lanes)

    def _from_memory(
        self, writer: KernelWriter, numbers: Numbers, at: str, offset: str, piece: Piece
    ) -> None:
        fn = numbers.fn
        base = "%column" if offset == "0" else fn.value(f"add nuw nsw i64 %column, {offset}")
        changed = stored(self.c.stores)
        lanes = self._lanes(writer, self.c.column, base, piece)
        with lanes, writer.frame.level(stores=changed):
            pointer = fn.index(at, numbers.scalar, offset)
            total = load_lanes(fn, numbers.dtype, piece.lanes, pointer, piece.lanes)
            self._run(writer, numbers.of(piece.lanes), total, self.c.stores)
            self._look_ahead(writer)

    def _look_ahead(self, writer: KernelWriter) -> None:
        """Asks for what the stores on the next tile touch, while its sums are found.

        Neighbouring rows of a tile lie in different pages: the processor does not look ahead here.
        """
        row, column = self.c.row, self.c.column
        loads = (e for e in expressions(s.value for s in self.c.stores) if isinstance(e, Load))
        touched = [(load.buffer, load.indices, False) for load in loads]
        touched += [(store.buffer, store.indices, True) for store in self.c.stores]
        seen: set[tuple[Buffer, Dim]] = set()
        for buffer, indices, is_written in touched:
            offset = ravel(indices, buffer.shape)
            nbytes = prod(buffer.shape) * ITEM_BYTES[buffer.dtype]
            if nbytes < writer.frame.target.l1_bytes or (buffer, offset) in seen:
                continue
            if coefficient(offset, row) not in (None, 0) and coefficient(offset, column) == 1:
                seen.add((buffer, offset))
                later = tuple(substitute(index, {row: row + self.c.how.rows}) for index in indices)
                writer.memory.fetch(Fetch(buffer, later), is_written=is_written)


def _column(fn: FunctionText, piece: Piece) -> str:
    """The first column of a vector of a tile."""
    return fn.value(f"add nuw nsw i64 %column, {piece.start}") if piece.start else "%column"


def _along(
    mapping: Mapping[Var, Dim],
) -> tuple[Callable[[Dim], Dim], Callable[[Guard], Guard]]:
    """What becomes of indices and guards where variables are replaced."""
    return partial(substitute, mapping=mapping), lambda guard: guard.substitute(mapping)
