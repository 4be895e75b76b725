"""Blocks transposed in registers.

A square block of values is computed in vectors along one variable, one vector for each value of
the other. Pairs of these vectors then exchange lanes, first neighbours, then pairs of neighbours,
and so on; that transposes the block, and its vectors are stored along the other variable.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from diffc.codegen.emit.frame import Lanes
from diffc.codegen.emit.registers import register, shuffle
from diffc.codegen.emit.text import FunctionText, vector_type
from diffc.codegen.loops.nodes import Par, Store
from diffc.ir.index import Var

if TYPE_CHECKING:
    from diffc.codegen.emit.kernel import KernelWriter

__all__ = ["write_turn"]


def write_turn(writer: KernelWriter, stmt: Par, lanes: int) -> None:
    """Writes the stores of a nest over two variables of `lanes` points each."""
    first, second = stmt.vars
    assert first.extent == second.extent == lanes, "a block is a square"
    for store in stmt.body:
        assert isinstance(store, Store)
        rows = [_row(writer, store, first, second, lane, lanes) for lane in range(lanes)]
        turned = _turned(writer.frame.fn, rows, store.value.dtype)
        for lane, text in enumerate(turned):
            _stored(writer, store, first, second, lane, lanes, text)
        writer.frame.written((store.buffer,))


def _row(writer: KernelWriter, store: Store, along: Var, other: Var, lane: int, lanes: int) -> str:
    """The values of a store in a vector along one variable, at one value of the other."""
    frame = writer.frame
    with frame.level():
        frame.bind(other, lane)
        frame.bind_lanes(Lanes(along, "0", lanes, is_aligned=True))
        where = writer.evaluator.condition(store.guard)
        return writer.evaluator.vector(store.value, where)


def _stored(
    writer: KernelWriter,
    store: Store,
    other: Var,
    along: Var,
    lane: int,
    lanes: int,
    text: str,
) -> None:
    frame = writer.frame
    with frame.level():
        frame.bind(other, lane)
        frame.bind_lanes(Lanes(along, "0", lanes, is_aligned=True))
        where = writer.evaluator.condition(store.guard)
        writer.memory.write(writer.memory.place(store.buffer, store.indices), text, where)


def _turned(fn: FunctionText, rows: list[str], dtype: str) -> list[str]:
    """The transpose of a square block that is given in rows."""
    size, scalar = len(rows), register(dtype)
    kind = vector_type(scalar, size)
    if dtype == "bool":  # masks have no lanes to move
        rows = [fn.value(f"zext {kind} {row} to {vector_type('i8', size)}") for row in rows]
        kind = vector_type("i8", size)
    found = list(rows)
    step = 1
    while step < size:
        for at in range(size):
            if at & step:
                continue
            pair = found[at], found[at + step]
            low = [j if not j & step else size + j - step for j in range(size)]
            high = [j + step if not j & step else size + j for j in range(size)]
            found[at], found[at + step] = (shuffle(fn, *pair, kind, picks) for picks in (low, high))
        step *= 2
    if dtype == "bool":
        masks = vector_type("i1", size)
        found = [fn.value(f"trunc {kind} {row} to {masks}") for row in found]
    return found
