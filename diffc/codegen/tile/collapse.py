"""Makes one loop of several, where every access then still moves by one stride.

`par i in 8, j in 4: y[i, j] = x[i, j]` becomes `par f in 32: y[f//4, f%4] = x[f//4, f%4]`, whose
flat offsets are `f`. Variables of extent 1 are replaced by 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from diffc.codegen.loops.nodes import Par, Stmt
from diffc.codegen.loops.walk import map_body
from diffc.codegen.tile.access import Accesses
from diffc.ir.index import Dim, Guard, Var, free, linear_in, substitute

__all__ = ["collapse", "drop_units", "replace_vars"]


def replace_vars(body: Sequence[Stmt], mapping: Mapping[Var, Dim]) -> tuple[Stmt, ...]:
    """Statements with loop variables replaced by indices of others."""

    def on_index(index: Dim) -> Dim:
        return substitute(index, mapping)

    def on_guard(guard: Guard) -> Guard:
        return guard.substitute(mapping)

    return map_body(body, on_index, on_guard)


def drop_units(par: Par) -> Par:
    """A nest without its variables of extent 1."""
    units = {var: 0 for var in par.vars if var.extent == 1}
    if not units:
        return par
    kept = tuple(var for var in par.vars if var not in units)
    return replace(par, vars=kept, body=replace_vars(par.body, units))


def collapse(par: Par) -> Par:
    """A nest whose last variables are merged as long as the accesses allow it."""
    while len(par.vars) > 1:
        merged = _merge_last(par)
        if merged is None:
            return par
        par = merged
    return par


def _merge_last(par: Par) -> Par | None:
    outer, inner = par.vars[-2:]
    assert isinstance(outer.extent, int)
    assert isinstance(inner.extent, int)
    accesses = Accesses.of(par)
    pair = {outer, inner}
    if any(pair & guard.free() for guard in accesses.guards):
        return None
    if any(pair & free(index) for index in accesses.values):
        return None
    if accesses.gathers or accesses.scatters:
        return None
    flat = Var(f"{outer.name}_{inner.name}", outer.extent * inner.extent)
    mapping = {outer: flat // inner.extent, inner: flat % inner.extent}
    for offset, _ in (*accesses.loads, *accesses.stores):
        if linear_in(substitute(offset, mapping), (flat,)) is None:
            return None
    return replace(par, vars=(*par.vars[:-2], flat), body=replace_vars(par.body, mapping))
