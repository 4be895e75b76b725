"""Short rows side by side: vectors that run across several rows.

An array of points has rows of three, an image has three channels; a vector along such a row is
mostly empty. Where memory goes on from row to row, a vector may too: so many rows that they fill
whole vectors are one group, and each of its vectors is a copy of the statements. What belongs to a
column, a scale for each channel, repeats with the group: it is read and shuffled once, before the
loop over the groups. What belongs to a row is read for all rows of a vector at once, and spread.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from math import gcd

from diffc.codegen.loops.lanes import lane_offsets
from diffc.codegen.loops.nodes import Par, Reduce, Scalar, Stmt, Store, Sweep, Vector
from diffc.codegen.loops.walk import expressions, map_body, operands, statements
from diffc.codegen.tile.access import Accesses
from diffc.ir.index import Dim, Guard, Var, substitute

__all__ = ["side_by_side"]

#: at most so many vectors make a group
MOST_VECTORS = 8
#: fewer vectors than this are doubled, so that their latencies overlap
FEW_VECTORS = 2
#: how many nodes of expressions all vectors of a group may have
MOST_NODES = 400
#: the least share of lanes that is gained
GAIN = 1.25
#: lanes are shuffled from at most so many vectors
SPAN = 2


def side_by_side(
    par: Par, var: Var, accesses: Accesses, lanes: int
) -> tuple[Par, Par | None] | None:
    """The nest with vectors across rows, and the rows that make no group; None where rows suit.

    Before: ``par i in 100, j in 3: y[i, j] = x[i, j] - g[j]``. After, on 16 lanes, ``par i in 6,
    v in 16`` by one vector, with three stores: ``y[16*i + v//3, v%3] = ...`` for the elements from
    0 on, ``y[16*i + (v + 16)//3, (v + 16)%3] = ...``, and those from 32 on; then four rows.

    Args:
        par: The nest.
        var: Its last variable, along which memory is contiguous.
        accesses: Its accesses.
        lanes: Numbers in a register.
    """
    if len(par.vars) < 2 or var is not par.vars[-1] or lanes < 2:
        return None
    outer, row = par.vars[-2], _extent(var)
    needed = -(-row // lanes) * lanes
    rows = lanes // gcd(row, lanes)
    vectors = row * rows // lanes
    if needed < GAIN * row or vectors > MOST_VECTORS:
        return None
    if vectors < FEW_VECTORS and _extent(outer) >= 2 * rows:
        rows, vectors = 2 * rows, 2 * vectors
    groups, rest = divmod(_extent(outer), rows)
    if not groups or not _is_plain(par.body, accesses):
        return None
    if (
        vectors * len(expressions(x for s in statements(par.body) for x in operands(s)))
        > MOST_NODES
    ):
        return None
    group = Var(outer.name, groups)
    lane = Var(f"{outer.name}_{var.name}", lanes)
    first: Dim = rows * group if groups > 1 else 0
    maps: list[dict[Var, Dim]] = []
    for number in range(vectors):
        at = lane + number * lanes
        maps.append({outer: first + at // row, var: at % row})
    if not all(_runs_along(accesses, mapping, lane, lanes) for mapping in maps):
        return None
    guards = [guard for guard in accesses.guards if {outer, var} & guard.free()]
    if not all(_is_pattern(guard, mapping, lane, lanes) for guard in guards for mapping in maps):
        return None
    others = par.vars[:-2]
    loops = (*others, group) if groups > 1 else others
    body = tuple(_interleaved(par.body, maps))
    made = Par((*loops, lane), body, Vector(lanes))
    if not rest:
        return made, None
    last = Var(outer.name, rest)
    left = _copy(par.body, {outer: rows * groups + last}, None)
    return made, Par((*others, last, var), left)


def _extent(var: Var) -> int:
    assert isinstance(var.extent, int)
    return var.extent


def _is_plain(body: Sequence[Stmt], accesses: Accesses) -> bool:
    """Whether statements are stores and folds, reading what lies at known places."""
    if not all(isinstance(stmt, Store | Reduce | Sweep) for stmt in body):
        return False
    if any(isinstance(stmt, Store) and not stmt.guard.is_true for stmt in statements(body)):
        return False
    return not (accesses.gathers or accesses.scatters or accesses.has_rows)


def _is_pattern(guard: Guard, mapping: dict[Var, Dim], lane: Var, lanes: int) -> bool:
    """Whether a guard holds in the same lanes of every vector."""
    for cond in guard:
        found = lane_offsets(substitute(cond.expr, mapping), lane, lanes)
        if found is None or not isinstance(found[0], int):
            return False
    return True


def _runs_along(accesses: Accesses, mapping: dict[Var, Dim], lane: Var, lanes: int) -> bool:
    """Whether stores are whole vectors, and what is read comes from a few."""
    places = [(offset, False) for offset, _ in accesses.loads]
    places += [(offset, True) for offset, _ in accesses.stores]
    for offset, is_store in places:
        found = lane_offsets(substitute(offset, mapping), lane, lanes)
        if found is None:
            return False
        if found[1] == tuple(range(lanes)):
            continue
        if is_store or max(found[1]) >= SPAN * lanes:
            return False
    return True


def _interleaved(body: Sequence[Stmt], maps: Sequence[dict[Var, Dim]]) -> Iterator[Stmt]:
    """Copies of the statements, those of one statement next to each other: folds share a loop."""
    copies = [_copy(body, mapping, number) for number, mapping in enumerate(maps)]
    for same in zip(*copies, strict=True):
        first = same[0]
        if isinstance(first, Sweep):
            parts = [stmt for stmt in same if isinstance(stmt, Sweep)]
            folds = [fold for part in parts for fold in part.reduces]
            stores = [store for part in parts for store in part.stores]
            yield replace(first, body=(*folds, *stores))
        else:
            yield from same


def _copy(body: Sequence[Stmt], mapping: dict[Var, Dim], number: int | None) -> tuple[Stmt, ...]:
    """The statements with other indices, and names of their own for what their folds find."""
    names = {stmt.target.name for stmt in statements(body) if isinstance(stmt, Reduce)}

    def on_index(index: Dim) -> Dim:
        return substitute(index, mapping)

    def on_guard(guard: Guard) -> Guard:
        return guard.substitute(mapping)

    def on_scalar(scalar: Scalar) -> Scalar:
        if number is None or scalar.name not in names:
            return scalar
        return replace(scalar, name=f"{scalar.name}_{number}")

    return map_body(body, on_index, on_guard, on_scalar=on_scalar)
