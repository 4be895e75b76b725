"""Blocks transposed in registers, and columns interleaved.

A square block of values is computed in vectors along one variable, one vector for each value of
the other. Pairs of these vectors then exchange lanes, first neighbours, then pairs of neighbours,
and so on; that transposes the block, and its vectors are stored along the other variable.

Of rows that are shorter than a vector, which lie one behind the other in memory, the vectors are
columns. Each vector of the result picks lanes from all of them in turn.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from diffc.codegen.emit.expr import ALWAYS
from diffc.codegen.emit.frame import Lanes
from diffc.codegen.emit.registers import register, shuffle
from diffc.codegen.emit.text import FunctionText, vector_type
from diffc.codegen.loops.nodes import Par, Store
from diffc.codegen.loops.walk import map_body
from diffc.ir.index import Var, substitute

if TYPE_CHECKING:
    from diffc.codegen.emit.kernel import KernelWriter

__all__ = ["write_turn"]


def write_turn(writer: KernelWriter, stmt: Par, lanes: int) -> None:
    """Writes the stores of a nest over two variables of `lanes` points each."""
    first, second = stmt.vars
    count = second.extent
    assert isinstance(count, int) and first.extent == lanes >= count, "a block of whole vectors"
    for store in stmt.body:
        assert isinstance(store, Store)
        if count < lanes:
            alone = [_column(store, second, number) for number in range(count)]
            columns = [_row(writer, each, first, second, 0, lanes) for each in alone]
            _interleaved(writer, store, first, second, columns, lanes)
            continue
        rows = [_row(writer, store, first, second, lane, lanes) for lane in range(lanes)]
        turned = _turned(writer.frame.fn, rows, store.value.dtype)
        for lane, text in enumerate(turned):
            _stored(writer, store, first, second, lane, lanes, text)
        writer.frame.written((store.buffer,))


def _column(store: Store, column: Var, number: int) -> Store:
    """A store at one value of a variable: what is chosen by it is known."""
    mapping = {column: number}
    (made,) = map_body(
        (store,), lambda index: substitute(index, mapping), lambda guard: guard.substitute(mapping)
    )
    assert isinstance(made, Store)
    return made


def _interleaved(
    writer: KernelWriter, store: Store, row: Var, column: Var, columns: list[str], lanes: int
) -> None:
    """Stores columns of short rows in whole vectors."""
    frame, count, scalar = writer.frame, len(columns), register(store.value.dtype)
    kind = vector_type(scalar, lanes)
    if store.value.dtype == "bool":  # masks have no lanes to move
        kind = vector_type("i8", lanes)
        wide = f"{vector_type('i1', lanes)} {{}} to {kind}"
        columns = [frame.fn.value(f"zext {wide.format(text)}") for text in columns]
    made: list[str] = []
    for vector in range(count):
        rows, picked = zip(*(divmod(vector * lanes + n, count) for n in range(lanes)), strict=True)
        text = columns[picked[0]]
        # the lanes of the first column that is needed, then those of one more at a time
        picks = [at if number == picked[0] else 0 for at, number in zip(rows, picked, strict=True)]
        is_in_place = False
        for number in dict.fromkeys(picked[1:]):
            if number == picked[0]:
                continue
            before = range(lanes) if is_in_place else picks
            joined = [
                lanes + at if mine == number else old
                for at, mine, old in zip(rows, picked, before, strict=True)
            ]
            text = shuffle(frame.fn, text, columns[number], kind, joined)
            is_in_place = True
        made.append(text)
    for vector, text in enumerate(made):
        if store.value.dtype == "bool":
            text = frame.fn.value(f"trunc {kind} {text} to {vector_type('i1', lanes)}")
        lane = writer.fresh_var(lanes)
        with frame.level():
            frame.bind_lanes(Lanes(lane, "0", lanes, is_aligned=True))
            at = lane + vector * lanes
            frame.alias(row, at // count)
            frame.alias(column, at % count)
            writer.memory.write(writer.memory.place(store.buffer, store.indices), text, ALWAYS)
    frame.written((store.buffer,))


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
