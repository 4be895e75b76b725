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
    Prefix,
    Scatter,
    Sort,
    Stmt,
    Store,
    Sweep,
)
from diffc.codegen.loops.walk import children, operands
from diffc.codegen.targets import ITEM_BYTES
from diffc.ir.index import Dim, bounds, ravel


@dataclass(frozen=True, slots=True)
class _Access:
    """One access: when, in which loops, and where (None: anywhere)."""

    time: int
    loops: tuple[int, ...]
    offset: Dim | None


@dataclass(frozen=True, slots=True)
class _Summary:
    """All accesses of a kernel, by buffer."""

    reads: dict[Buffer, list[_Access]]
    writes: dict[Buffer, list[_Access]]


class Overlap:
    """Answers about kernels, each of which is walked once."""

    def __init__(self) -> None:
        self._known: dict[Kernel, _Summary] = {}

    def can_overwrite(self, kernel: Kernel, sources: Iterable[Buffer], target: Buffer) -> bool:
        """Whether output ``target`` may lie in the memory of the input seen as ``sources``."""
        inputs = list(sources)
        itemsize = ITEM_BYTES[target.dtype]
        if any(
            ITEM_BYTES[source.dtype] != itemsize or prod(source.shape) != prod(target.shape)
            for source in inputs
        ):
            return False
        found = self._known.get(kernel)
        if found is None:
            found = self._known[kernel] = _Walk().run(kernel)
        reads = [read for source in set(inputs) for read in found.reads.get(source, ())]
        writes = found.writes.get(target, ())
        return all(_is_safe(read, write) for read in reads for write in writes)


def can_overwrite(kernel: Kernel, sources: Iterable[Buffer], target: Buffer) -> bool:
    """As the method of :class:`Overlap`, for one question."""
    return Overlap().can_overwrite(kernel, sources, target)


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


class _Walk:
    """Collects the accesses of one kernel."""

    def __init__(self) -> None:
        self.found = _Summary({}, {})
        self.noted: set[tuple[int, int]] = set()
        self.loads: dict[int, frozenset[Load | GatherLoad]] = {}

    def run(self, kernel: Kernel) -> _Summary:
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
            if not self._joins(group, stmt):
                time, group = time + 1, []
            if isinstance(stmt, Par | For):
                stack.append((stmt.body, (*loops, id(stmt)), 0))
                continue
            if isinstance(stmt, Sweep):
                inside = (*loops, id(stmt))
                for part in stmt.body:
                    self._reads(part, time, inside)
                for store in stmt.stores:
                    self._writes(store, time, inside)
                continue
            if isinstance(stmt, Prefix):
                inside = (*loops, id(stmt))
                self._reads(stmt, time, inside)
                self._writes(stmt, time, inside)
                continue
            if isinstance(stmt, Store):
                group.append(stmt)
                self._writes(stmt, time, loops)
            elif isinstance(stmt, Scatter | Sort):
                self._note(self.found.writes, stmt.buffer, _Access(time, loops, None))
            if isinstance(stmt, Sort):
                self._note(self.found.reads, stmt.keys, _Access(time, loops, None))
            self._reads(stmt, time, loops)
        return self.found

    @staticmethod
    def _note(table: dict[Buffer, list[_Access]], buffer: Buffer, access: _Access) -> None:
        table.setdefault(buffer, []).append(access)

    def _writes(self, store: Store | Prefix, time: int, loops: tuple[int, ...]) -> None:
        offset = ravel(store.indices, store.buffer.shape)
        self._note(self.found.writes, store.buffer, _Access(time, loops, offset))

    def _reads(self, stmt: Stmt, time: int, loops: tuple[int, ...]) -> None:
        ahead = isinstance(stmt, Contract | Scatter)
        for load in self._loads(operands(stmt)):
            if not ahead and (time, id(load)) in self.noted:
                continue
            self.noted.add((time, id(load)))
            offset = None if ahead else _offset(load)
            self._note(self.found.reads, load.buffer, _Access(time, loops, offset))

    def _loads(self, roots: Iterable[Expr]) -> frozenset[Load | GatherLoad]:
        """What the expressions read; what they share is looked at once."""
        known, empty = self.loads, frozenset[Load | GatherLoad]()
        roots = tuple(roots)
        stack = list(roots)
        while stack:
            expr = stack[-1]
            if id(expr) in known:
                stack.pop()
                continue
            inner = children(expr)
            waiting = [child for child in inner if id(child) not in known]
            if waiting:
                stack += waiting
                continue
            stack.pop()
            parts = [known[id(child)] for child in inner]
            widest = max(parts, key=len, default=empty)
            loads = widest.union(*parts) if any(not p <= widest for p in parts) else widest
            known[id(expr)] = loads | {expr} if isinstance(expr, Load | GatherLoad) else loads
        return empty.union(*(known[id(root)] for root in roots))

    def _joins(self, group: Sequence[Store], stmt: Stmt) -> bool:
        """Whether a store belongs to the group before it: all values come before all writes."""
        if not group or not isinstance(stmt, Store) or not stmt.guard.is_true:
            return False
        if not group[0].guard.is_true:
            return False
        written = {store.buffer for store in group}
        return not any(load.buffer in written for load in self._loads((stmt.value,)))


def _offset(expr: Load | GatherLoad) -> Dim | None:
    if isinstance(expr, GatherLoad):
        return None
    return ravel(expr.indices, expr.buffer.shape)


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
