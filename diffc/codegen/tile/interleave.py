"""Columns side by side: results of short rows, computed column by column.

Points are stacked from their coordinates, images from their channels. A vector along such a row is
mostly empty; along a column it is full, but its lanes lie a row apart in the result. Where operands
are contiguous along the columns, a block of as many rows as a vector has lanes is computed in one
vector for each column. Their lanes, shuffled into the order of the result, are whole vectors again.
What a column chooses is known in its vector.

Before: ``par i in 100, j in 3: y[i, j] = x[j, i]``. After, on 16 lanes: ``par i in 6 { par i_b in
16, j in 3 turned: y[16*i + i_b, j] = x[j, 16*i + i_b] }``, then four rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from diffc.codegen.loops.nodes import Load, Par, Store, Turn
from diffc.codegen.loops.walk import expressions
from diffc.codegen.targets import Target
from diffc.codegen.tile.access import stride, widest
from diffc.codegen.tile.collapse import replace_vars
from diffc.ir.index import Var, coefficient, ravel

__all__ = ["interleaved"]

#: a row of at least two, which fills no block of its own
MOST_COLUMNS = 7
#: lanes of a block at most
MOST_LANES = 16


def interleaved(par: Par, target: Target) -> tuple[Par, Par | None] | None:
    """The nest in blocks, and the rows that make none; None where columns are not contiguous."""
    stores = [stmt for stmt in par.body if isinstance(stmt, Store)]
    if len(par.vars) < 2 or len(stores) < len(par.body):
        return None
    column, lanes = par.vars[-1], min(MOST_LANES, target.vector_bytes // widest(par.body))
    count = _extent(column)
    if not 2 <= count <= min(MOST_COLUMNS, lanes - 1):
        return None
    row = next((var for var in par.vars if all(_is_row(s, var, column) for s in stores)), None)
    if row is None or _extent(row) < lanes or not _reads_columns(stores, row, column, lanes):
        return None
    blocks, rest = divmod(_extent(row), lanes)
    block, inner = Var(f"{row.name}_t", blocks), Var(f"{row.name}_b", lanes)
    at = lanes * block + inner if blocks > 1 else inner
    others = [var for var in par.vars if var not in (row, column)]
    outer = (*others, block) if blocks > 1 else tuple(others)
    made = Par((inner, column), replace_vars(stores, {row: at}), Turn(lanes))
    whole = replace(par, vars=outer, body=(made,)) if outer else made
    if not rest:
        return whole, None
    last = Var(row.name, rest)
    vars = tuple(last if var is row else var for var in par.vars)
    return whole, Par(vars, replace_vars(stores, {row: lanes * blocks + last}))


def _extent(var: Var) -> int:
    assert isinstance(var.extent, int)
    return var.extent


def _is_row(store: Store, row: Var, column: Var) -> bool:
    """Whether a result goes on from row to row, and is stored everywhere."""
    offset = ravel(store.indices, store.buffer.shape)
    steps = coefficient(offset, column), coefficient(offset, row)
    return store.guard.is_true and steps == (1, column.extent)


def _reads_columns(stores: Sequence[Store], row: Var, column: Var, lanes: int) -> bool:
    """Whether most of what differs from row to row is contiguous along columns."""
    loads = [e for e in expressions(store.value for store in stores) if isinstance(e, Load)]
    found = {(load.buffer, load.indices): load for load in loads}.values()
    offsets = [ravel(load.indices, load.buffer.shape) for load in found]
    along = [stride(offset, row, lanes) for offset in offsets]
    good = sum(
        step == 1 and coefficient(offset, column) != 1
        for step, offset in zip(along, offsets, strict=True)
    )
    return 2 * good > sum(step != 0 for step in along)
