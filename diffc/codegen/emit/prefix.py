"""Cumulative folds along a row: in vectors along it, or one point after the other.

In `lanes` order a block is one vector. It is shifted by 1, 2, 4, ... lanes, what comes in being
neutral, and joined with itself each time. From block to block only one operation waits for another:
what the blocks before have come to joins the last lane of this one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from diffc.codegen.emit.expr import ALWAYS
from diffc.codegen.emit.frame import Lanes
from diffc.codegen.emit.registers import shuffle
from diffc.codegen.emit.scalars import Ops
from diffc.codegen.loops.monoids import OPS, neutral
from diffc.codegen.loops.nodes import Prefix
from diffc.errors import InternalError

if TYPE_CHECKING:
    from diffc.codegen.emit.kernel import KernelWriter

__all__ = ["write_prefix"]


def write_prefix(writer: KernelWriter, stmt: Prefix) -> None:
    """Writes a `Prefix`."""
    extent = stmt.var.extent
    assert isinstance(extent, int), f"{stmt.var} has no fixed extent"
    frame = writer.frame
    if extent == 0:
        return
    if stmt.order == "sequence":
        ops = writer.evaluator.ops(1 if frame.lanes is None else frame.lanes.count)
        _sequence(writer, stmt, ops, extent)
    elif frame.lanes is None:
        lanes = frame.target.lanes(stmt.value.dtype)
        _blocks(writer, stmt, writer.evaluator.ops(lanes), extent)
    else:
        raise InternalError("vectors along a row do not nest")


def _join(stmt: Prefix, ops: Ops, before: str, after: str) -> str:
    dtype = stmt.value.dtype
    return ops.apply(OPS[stmt.monoid], dtype, (dtype, dtype), (before, after))


def _start(stmt: Prefix, ops: Ops) -> str:
    return ops.literal(neutral(stmt.monoid, stmt.value.dtype), stmt.value.dtype)


def _store(writer: KernelWriter, stmt: Prefix, ops: Ops, text: str) -> None:
    found = ops.convert(text, stmt.value.dtype, stmt.buffer.dtype)
    writer.memory.write(writer.memory.place(stmt.buffer, stmt.indices), found, ALWAYS)


def _sequence(writer: KernelWriter, stmt: Prefix, ops: Ops, extent: int) -> None:
    frame, written = writer.frame, frozenset({stmt.buffer})
    carried = [(ops.kind(stmt.value.dtype), _start(stmt, ops))]
    with frame.level(stores=written), frame.fn.loop(extent, carried) as loop:
        frame.bind(stmt.var, loop.index)
        total = _join(stmt, ops, loop.carried[0], writer.evaluator.vector(stmt.value))
        _store(writer, stmt, ops, total)
        loop.next = [total]


def _blocks(writer: KernelWriter, stmt: Prefix, ops: Ops, extent: int) -> None:
    frame, written, lanes = writer.frame, frozenset({stmt.buffer}), ops.lanes
    whole, before = extent // lanes * lanes, _start(stmt, ops)
    if whole:
        carried = [(ops.kind(stmt.value.dtype), before)]
        with (
            frame.level(stores=written),
            frame.fn.loop(whole, carried, step=lanes) as loop,
        ):
            loop.next = [_block(writer, stmt, ops, loop.index, lanes, loop.carried[0])]
        before = loop.results[0]
    if whole < extent:
        with frame.level(stores=written):
            _block(writer, stmt, ops, str(whole), extent - whole, before)


def _block(
    writer: KernelWriter, stmt: Prefix, ops: Ops, base: str, active: int, before: str
) -> str:
    """Writes one block; what all blocks up to this one come to, in all lanes."""
    frame, lanes, dtype = writer.frame, ops.lanes, stmt.value.dtype
    if lanes == 1:
        frame.bind(stmt.var, base)
    else:
        prefix = None if active == lanes else active
        frame.bind_lanes(Lanes(stmt.var, base, lanes, active=prefix, is_aligned=True))
    found, start, kind = writer.evaluator.vector(stmt.value), _start(stmt, ops), ops.kind(dtype)
    step = 1
    while step < lanes:
        shifted = shuffle(ops.fn, start, found, kind, range(lanes - step, 2 * lanes - step))
        found = _join(stmt, ops, shifted, found)
        step *= 2
    _store(writer, stmt, ops, _join(stmt, ops, before, found))
    if lanes > 1:
        found = shuffle(ops.fn, found, "poison", kind, [lanes - 1] * lanes)
    return _join(stmt, ops, before, found)
