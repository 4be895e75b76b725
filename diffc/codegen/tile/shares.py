"""Which nests threads share, and in what units.

A nest that stands directly in a kernel is shared where it is so much work that dealing it out pays
(some ten microseconds), over whatever has enough units: the first variables of a nest of points,
vectors of a flat one, rows or columns of tiles of a contraction. Points are independent, and a unit
is computed in one piece wherever it runs, so no bit depends on how units are dealt out. Reductions
are never split here: where that is wanted, `lower` has cut them by their shape.

Scratch that only one nest uses is private to each share; a nest that needs more than fits on the
stack of a helper stays with one thread.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from math import ceil, prod

from diffc.codegen.loops.contraction import (
    Contraction,
    column_tiles,
    contraction,
    extent_of,
    is_tiled,
    row_tiles,
    workspace,
)
from diffc.codegen.loops.nodes import Buffer, Kernel, Par, Split, Stmt
from diffc.codegen.loops.scratch import (
    LENT_BYTES,
    PRIVATE_BYTES,
    lent_scratch,
    nbytes_of,
    private_scratch,
)
from diffc.codegen.targets import Target
from diffc.codegen.tile.work import cycles, packing_cycles

__all__ = ["LEAST_CYCLES", "SHARE_CYCLES", "share"]

LEAST_CYCLES = 30_000
"""Less work than this stays with one thread: about ten microseconds."""
SHARE_CYCLES = 10_000
"""The least share of a thread: dealing one out and waiting for it costs about a microsecond."""
ENOUGH_UNITS = 64
"""More variables join the units until there are so many."""
FEW_UNITS = 8


def share(kernel: Kernel, target: Target) -> Kernel:
    """The kernel with the nests marked that threads share.

    Before: `par i in 512, j in 100 with vector=16 {...}`. After, where that is enough work:
    `par i in 512, j in 100 with vector=16 split=points grain=60 count=1 {...}`.
    """
    body = tuple(_shared(kernel, stmt, target) for stmt in kernel.body)
    if body == kernel.body:
        return kernel
    sized = {buffer.name: buffer for stmt in body for buffer in _workspace(stmt)}
    scratch = tuple(_sized(buffer, sized) for buffer in kernel.scratch)
    return replace(kernel, body=body, scratch=scratch)


def _workspace(stmt: Stmt) -> tuple[Buffer, ...]:
    """The workspace of a contraction that is shared: panels of tiles that run at once."""
    if isinstance(stmt, Par) and stmt.split is not None and is_tiled(stmt):
        return workspace(stmt)
    return ()


def _sized(buffer: Buffer, sized: dict[str, Buffer]) -> Buffer:
    """A workspace in its new size; nothing but the name refers to it."""
    found = sized.get(buffer.name, buffer)
    return buffer if found.shape == buffer.shape else found


def _shared(kernel: Kernel, stmt: Stmt, target: Target) -> Stmt:
    if not isinstance(stmt, Par) or any(extent_of(var) == 0 for var in stmt.vars):
        return stmt
    work = cycles((stmt,), target)
    if work < LEAST_CYCLES:
        return stmt
    found = _tiles(stmt, work, target) if is_tiled(stmt) else _points(stmt, work)
    if found is None:
        return stmt
    marked = replace(stmt, split=found)
    alone = replace(kernel, body=tuple(marked if s is stmt else s for s in kernel.body))
    lent = lent_scratch(alone, marked)
    private = [buffer for buffer in private_scratch(alone, marked) if buffer not in lent]
    fits = _nbytes(private) <= PRIVATE_BYTES and _nbytes(lent) <= LENT_BYTES
    return marked if fits else stmt


def _nbytes(buffers: Iterable[Buffer]) -> int:
    return sum(map(nbytes_of, buffers))


def _grain(work: float, units: int) -> int:
    """The least number of units of a share."""
    return max(1, ceil(SHARE_CYCLES * units / work))


def _points(par: Par, work: float) -> Split | None:
    """Units of a nest of points: its first variables, or the vectors of its last one."""
    is_vector = par.how is not None
    plain = par.vars[:-1] if is_vector else par.vars
    count, units = 0, 1
    while count < len(plain) and units < ENOUGH_UNITS:
        units *= extent_of(plain[count])
        count += 1
    if par.how is not None:
        vectors = extent_of(par.vars[-1]) // par.how.lanes
        if units < FEW_UNITS and vectors > units:
            return _of_enough("vectors", vectors, work)
    return _of_enough("points", units, work, count=count)


def _of_enough(over: str, units: int, work: float, count: int = 0, **more: int) -> Split | None:
    """The split over units, if there is more than one share."""
    grain = _grain(work, units)
    if units < 2 * grain:
        return None
    return Split(over, grain, count, **more)  # type: ignore[arg-type]  # one of its names


def _tiles(par: Par, work: float, target: Target) -> Split | None:
    """Units of a contraction: points of what is around the tiles, or rows or columns of tiles."""
    c = contraction(par)
    rows = sum(span.count for span in row_tiles(c))
    columns = sum(span.count for span in column_tiles(c))
    count = _outer_count(c)
    outer = prod(extent_of(var) for var in c.outer[:count])
    pack = 0
    if c.how.pack_rhs:
        packing = packing_cycles(par, target)
        pack = _grain(packing, columns) if packing >= LEAST_CYCLES else 0
    inside = work / prod(extent_of(var) for var in c.outer)
    if outer >= FEW_UNITS and not c.how.depth_block and not c.how.pack_lhs:
        return _of_enough("points", outer, work, count, pack=pack)
    if inside < LEAST_CYCLES:
        return None
    if c.how.dot or c.how.pack_lhs:
        return _of_enough("rows", rows, inside, most=_row_block(c), pack=pack)
    if c.how.depth_block:
        return _of_enough("columns", columns, inside)
    if columns > rows and rows < FEW_UNITS and not (c.how.pack_rhs and c.how.column_block):
        return _of_enough("columns", columns, inside, pack=pack)
    return _of_enough("rows", rows, inside, pack=pack)


def _outer_count(c: Contraction) -> int:
    """How many variables around the tiles are dealt out: rhs is not packed more often for it."""
    moving = sum(c.rhs.strides[var] != 0 for var in c.outer)
    most = moving if c.how.pack_rhs and moving else len(c.outer)
    count, units = 0, 1
    while count < most and units < ENOUGH_UNITS:
        units *= extent_of(c.outer[count])
        count += 1
    return count


def _row_block(c: Contraction) -> int:
    """Tiles of rows whose panels stay in the cache."""
    return max(1, c.how.row_block // c.how.rows) if c.how.row_block else 0
