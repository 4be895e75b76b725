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
from typing import TYPE_CHECKING

from diffc.codegen.emit.contract_numbers import Numbers, load_lanes
from diffc.codegen.emit.frame import Frame, Lanes, Value
from diffc.codegen.emit.scalars import Ops
from diffc.codegen.emit.text import FunctionText
from diffc.codegen.loops.contraction import Contraction, accumulator, extent_of
from diffc.codegen.loops.nodes import (
    Apply,
    Buffer,
    Choose,
    GatherLoad,
    IndexValue,
    Load,
    Store,
)
from diffc.codegen.loops.walk import expressions, map_statement, rewrite, stored
from diffc.ir.index import Atom, Dim, Guard, Var, free, substitute

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

    def in_registers(self, numbers: Numbers, sums: Sequence[Sequence[str]], columns: int) -> None:
        """Runs the stores on a tile of vectors, one list for each row."""
        fn, lanes = numbers.fn, numbers.lanes
        writer = self._inside(fn)
        first = Var("first", extent_of(self.c.row))
        writer.frame.bind(first, "%row")
        rows = [self._moved({self.c.row: first + row}) for row in range(len(sums))]
        for vector, (base, active) in enumerate(self._vectors(fn, lanes, columns)):
            with self._lanes(writer, base, lanes, active):
                for row, stores in enumerate(rows):
                    with writer.frame.level(stores=stored(stores)):
                        self._run(writer, numbers, sums[row][vector], stores)

    def begun(self, numbers: Numbers, rows: int, columns: int) -> list[str]:
        """The sums with which those of a tile go on, row by row."""
        fn, lanes = numbers.fn, numbers.lanes
        begun = self.c.start
        assert begun is not None, "these sums start at 0"
        writer = self._inside(fn)
        first = Var("first", extent_of(self.c.row))
        writer.frame.bind(first, "%row")
        starts = [
            rewrite((begun,), *_along({self.c.row: first + row}))[id(begun)] for row in range(rows)
        ]
        found: list[list[str]] = [[] for _ in starts]
        for base, active in self._vectors(fn, lanes, columns):
            with self._lanes(writer, base, lanes, active):
                for texts, start in zip(found, starts, strict=True):
                    texts.append(writer.evaluator.vector(start))
        return [text for texts in found for text in texts]

    def _vectors(self, fn: FunctionText, lanes: int, columns: int) -> Iterator[tuple[str, int]]:
        """The first column of each vector of a tile, and how many lanes of it count."""
        for vector in range(-(-columns // lanes)):
            base = fn.value(f"add nuw nsw i64 %column, {vector * lanes}") if vector else "%column"
            yield base, min(lanes, columns - vector * lanes)

    def _moved(self, mapping: Mapping[Var, Dim]) -> tuple[Store, ...]:
        at = _along(mapping)
        known = rewrite((store.value for store in self.c.stores), *at)
        moved = [map_statement(store, *at, known) for store in self.c.stores]
        return tuple(store for store in moved if isinstance(store, Store))

    @contextmanager
    def _lanes(self, writer: KernelWriter, base: str, lanes: int, active: int) -> Iterator[None]:
        with writer.frame.level():
            prefix = active if active < lanes else None
            bound = Lanes(self.c.column, base, lanes, active=prefix, is_aligned=True)
            writer.frame.bind_lanes(bound)
            yield

    def _run(
        self, writer: KernelWriter, numbers: Numbers, total: str, stores: Sequence[Store]
    ) -> None:
        """Binds a vector of sums and runs the stores."""
        target, fn = self.c.target, numbers.fn
        if target.dtype == "bool":
            total = fn.value(f"icmp ne {numbers.kind} {total}, zeroinitializer")
        else:
            ops = Ops(fn, numbers.target, numbers.lanes)
            total = ops.convert(total, numbers.dtype, target.dtype)
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
        whole = columns // lanes * lanes
        with writer.frame.level(stores=changed), fn.loop("%rows") as loop:
            at = fn.index("%sums", numbers.scalar, fn.scaled(loop.index, stride))
            row = fn.value(f"add nuw nsw i64 %row, {loop.index}")
            writer.frame.bind(self.c.row, row)
            if whole > lanes:
                with writer.frame.level(stores=changed), fn.loop(whole, step=lanes) as vectors:
                    self._from_memory(writer, numbers, at, vectors.index, lanes)
            elif whole:
                self._from_memory(writer, numbers, at, "0", lanes)
            if columns > whole:
                self._from_memory(writer, numbers, at, str(whole), columns - whole)
        fn.ret()
        return module.add_once("epilogue", fn.text())

    def _from_memory(
        self, writer: KernelWriter, numbers: Numbers, at: str, offset: str, active: int
    ) -> None:
        fn, lanes = numbers.fn, numbers.lanes
        base = "%column" if offset == "0" else fn.value(f"add nuw nsw i64 %column, {offset}")
        with writer.frame.level(stores=stored(self.c.stores)):
            prefix = active if active < lanes else None
            bound = Lanes(self.c.column, base, lanes, active=prefix, is_aligned=True)
            writer.frame.bind_lanes(bound)
            pointer = fn.index(at, numbers.scalar, offset)
            total = load_lanes(fn, numbers.dtype, lanes, pointer, lanes)
            self._run(writer, numbers, total, self.c.stores)


def _along(
    mapping: Mapping[Var, Dim],
) -> tuple[Callable[[Dim], Dim], Callable[[Guard], Guard]]:
    """What becomes of indices and guards where variables are replaced."""
    return partial(substitute, mapping=mapping), lambda guard: guard.substitute(mapping)
