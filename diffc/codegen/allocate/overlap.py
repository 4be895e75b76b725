"""Whether a kernel may write a result over an operand.

It may where no element is read after it was written. What is known of a kernel's order: statements
of a body run in order at each point; points of a ``Par`` run in any order; stores that stand next
to each other compute their values before any of them writes. So a read is safe

- when it comes first and shares no loop with the store: it is over by then;
- when it comes first, or stands in the same group of stores or the same sweep, and reads at each
  point just the element that the store writes there (each element is written at one point only);
- when it never touches what the store writes, as their ranges tell.

Contractions read ahead (they run in tiles, and pack), as do computed indices: those are safe only
where they share no loop with the store.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from math import prod

from diffc.codegen.loops.nodes import (
    Buffer,
    Contract,
    Expr,
    For,
    GatherLoad,
    Kernel,
    Load,
    Par,
    Scatter,
    Sort,
    Stmt,
    Store,
    Sweep,
)
from diffc.codegen.loops.walk import expressions, operands
from diffc.codegen.targets import ITEM_BYTES
from diffc.ir.index import Dim, bounds, ravel


@dataclass(frozen=True, slots=True)
class _Access:
    """One access: when, in which loops, and where (None: anywhere)."""

    time: int
    loops: tuple[int, ...]
    offset: Dim | None


def can_overwrite(kernel: Kernel, sources: Iterable[Buffer], target: Buffer) -> bool:
    """Whether output ``target`` may lie in the memory of the input seen as ``sources``."""
    inputs = list(sources)
    itemsize = ITEM_BYTES[target.dtype]
    if any(
        ITEM_BYTES[source.dtype] != itemsize or prod(source.shape) != prod(target.shape)
        for source in inputs
    ):
        return False
    reads, writes = _accesses(kernel, inputs, target)
    return all(_is_safe(read, write) for read in reads for write in writes)


def _is_safe(read: _Access, write: _Access) -> bool:
    if read.time <= write.time:
        if not set(read.loops) & set(write.loops) and read.time < write.time:
            return True
        if read.offset is not None and read.offset == write.offset:
            return True
    return _is_apart(read.offset, write.offset)


def _is_apart(left: Dim | None, right: Dim | None) -> bool:
    if left is None or right is None:
        return False
    (low, high), (least, most) = bounds(left), bounds(right)
    if low is None or high is None or least is None or most is None:
        return False
    return high < least or most < low


def _accesses(
    kernel: Kernel, sources: Sequence[Buffer], target: Buffer
) -> tuple[list[_Access], list[_Access]]:
    """Reads of the sources, and writes of the target."""
    reads: list[_Access] = []
    writes: list[_Access] = []
    time = 0
    stack: list[tuple[tuple[Stmt, ...], tuple[int, ...], int]] = [(kernel.body, (), 0)]
    group: list[Store] = []
    while stack:
        body, loops, position = stack.pop()
        if position == len(body):
            group = []
            continue
        stmt = body[position]
        stack.append((body, loops, position + 1))
        if not _joins(group, stmt):
            time, group = time + 1, []
        if isinstance(stmt, Par | For):
            stack.append((stmt.body, (*loops, id(stmt)), 0))
            continue
        if isinstance(stmt, Sweep):
            inside = (*loops, id(stmt))
            reads += _reads(stmt.body, sources, time, inside)
            writes += [
                _Access(time, inside, ravel(store.indices, target.shape))
                for store in stmt.stores
                if store.buffer is target
            ]
            continue
        if isinstance(stmt, Store):
            group.append(stmt)
            if stmt.buffer is target:
                writes.append(_Access(time, loops, ravel(stmt.indices, target.shape)))
        elif isinstance(stmt, Scatter | Sort) and stmt.buffer is target:
            writes.append(_Access(time, loops, None))
        if isinstance(stmt, Sort) and stmt.keys in sources:
            reads.append(_Access(time, loops, None))
        reads += _reads((stmt,), sources, time, loops)
    return reads, writes


def _reads(
    body: Iterable[Stmt], sources: Sequence[Buffer], time: int, loops: tuple[int, ...]
) -> list[_Access]:
    reads: list[_Access] = []
    for stmt in body:
        ahead = isinstance(stmt, Contract | Scatter)
        for expr in expressions(operands(stmt)):
            if isinstance(expr, Load | GatherLoad) and expr.buffer in sources:
                offset = None if ahead else _offset(expr)
                reads.append(_Access(time, loops, offset))
    return reads


def _offset(expr: Load | GatherLoad) -> Dim | None:
    if isinstance(expr, GatherLoad):
        return None
    return ravel(expr.indices, expr.buffer.shape)


def _joins(group: Sequence[Store], stmt: Stmt) -> bool:
    """Whether a store belongs to the group before it: then all values come before all writes."""
    if not group or not isinstance(stmt, Store) or not stmt.guard.is_true:
        return False
    if not group[0].guard.is_true:
        return False
    written = {store.buffer for store in group}
    return not any(
        isinstance(expr, Load | GatherLoad) and expr.buffer in written
        for expr in expressions((stmt.value,))
    )


def without_copies(kernel: Kernel, source: Buffer, target: Buffer) -> Kernel:
    """The kernel for which both share memory: stores of an element to where it lies are dropped."""

    def keep(stmt: Stmt) -> Stmt | None:
        if isinstance(stmt, Par | For):
            body = tuple(kept for inner in stmt.body if (kept := keep(inner)) is not None)
            if body == stmt.body:
                return stmt
            return replace(stmt, body=body) if body else None
        if isinstance(stmt, Sweep):
            parts = tuple(part for part in stmt.body if not _is_copy(part, source, target))
            return stmt if parts == stmt.body else replace(stmt, body=parts)
        return None if _is_copy(stmt, source, target) else stmt

    body = tuple(kept for stmt in kernel.body if (kept := keep(stmt)) is not None)
    return kernel if body == kernel.body else replace(kernel, body=body)


def _is_copy(stmt: Stmt, source: Buffer, target: Buffer) -> bool:
    if not isinstance(stmt, Store) or stmt.buffer is not target:
        return False
    value: Expr = stmt.value
    if not isinstance(value, Load) or value.buffer is not source or value.dtype != target.dtype:
        return False
    return ravel(value.indices, source.shape) == ravel(stmt.indices, target.shape)
