"""Runs long rows two at a time, where they are added to what all rows have in common.

Before: `for n in 32 { s = reduce sum(r: x[n, r]); par r { p[r] = p[r] + x[n, r] * s } }`. After:
sixteen steps that reduce both rows in one loop, then add both in one nest. So what rows have in
common comes from memory, and goes back, half as often, and what one row waits for at the end of a
reduction the other fills. Each row's own order stays, and so does that in which rows are added.
Rows that lie in the first-level cache gain nothing by it: their passes are short of registers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod

from diffc.codegen.loops.nodes import (
    Apply,
    Buffer,
    Choose,
    Expr,
    For,
    GatherLoad,
    Load,
    Par,
    Reduce,
    Scalar,
    Stmt,
    Store,
    Sweep,
)
from diffc.codegen.loops.walk import expressions, map_body, operands, statements, stored
from diffc.codegen.targets import Target
from diffc.codegen.tile.access import widest
from diffc.ir.index import Dim, Guard, Var, free, substitute

__all__ = ["Jammed", "jam"]

#: rows of at least one part in so many of the first-level cache are long.
PART = 3
#: bodies of more expressions are left alone.
MOST_NODES = 96


@dataclass(frozen=True, slots=True)
class Jammed:
    """The loop over pairs of rows, the last row where their number is odd, and new scratch."""

    loop: For
    last: tuple[Stmt, ...]
    scratch: tuple[Buffer, ...]


def jam(loop: For, target: Target) -> Jammed | None:
    """A loop over rows as one over pairs of rows; None where they go one by one."""
    var, extent = loop.var, loop.var.extent
    if not isinstance(extent, int) or extent < 2 or loop.reverse or not loop.guard.is_true:
        return None
    if not _are_passes(loop.body, target):
        return None
    roles = _roles(loop, var)
    if roles is None:
        return None
    added, own = roles
    half = Var(var.name, extent // 2)
    copies = {buffer: replace(buffer, name=f"{buffer.name}_2") for buffer in own}
    first = _row(loop.body, {var: 2 * half}, {}, "")
    second = _row(loop.body, {var: 2 * half + 1}, copies, "_2")
    pairs = tuple(s for a, b in zip(first, second, strict=True) for s in _both(a, b, added))
    last = _row(loop.body, {var: extent - 1}, {}, "") if extent % 2 else ()
    return Jammed(replace(loop, var=half, body=pairs), last, tuple(copies.values()))


def _are_passes(body: Sequence[Stmt], target: Target) -> bool:
    """Whether a row's statements are passes along long rows, of which one reduces at least."""
    least, reduces = target.l1_bytes // PART, 0
    for stmt in body:
        if isinstance(stmt, Par):
            if stmt.how is not None or not all(isinstance(each, Store) for each in stmt.body):
                return False
        elif not isinstance(stmt, Sweep | Reduce):
            return False
        length = prod(var.extent for var in stmt.vars if isinstance(var.extent, int))
        if length * widest((stmt,)) < least:
            return False
        if any(reduce.order != "lanes" for reduce in _reduces(stmt)):
            return False
        reduces += len(_reduces(stmt))
    roots = [root for stmt in statements(body) for root in operands(stmt)]
    return reduces > 0 and len(expressions(roots)) <= MOST_NODES


def _reduces(stmt: Stmt) -> tuple[Reduce, ...]:
    if isinstance(stmt, Sweep):
        return stmt.reduces
    return (stmt,) if isinstance(stmt, Reduce) else ()


def _roles(loop: For, var: Var) -> tuple[frozenset[Buffer], frozenset[Buffer]] | None:
    """What rows are added to one after the other, and scratch that each row has for itself.

    None where there is nothing that they are added to, or where rows may depend on one another.
    """
    stores = [stmt for stmt in statements(loop.body) if isinstance(stmt, Store)]
    roots = [root for stmt in statements(loop.body) for root in operands(stmt)]
    nodes, written = expressions(roots), stored(loop.body)
    if any(isinstance(node, GatherLoad) and node.buffer in written for node in nodes):
        return None
    added, own = set(), set()
    for buffer in written:
        loads = [node for node in nodes if isinstance(node, Load) and node.buffer is buffer]
        rows = {_moving(stmt.indices, var) for stmt in stores if stmt.buffer is buffer}
        if len(rows) > 1:
            return None
        if rows != {()}:
            if any(_moving(load.indices, var) not in rows for load in loads):
                return None
        elif _is_sum(buffer, stores, loads, roots):
            added.add(buffer)
        elif buffer.mode == "scratch" and _is_stored_first(buffer, loop.body):
            own.add(buffer)
        else:
            return None
    return (frozenset(added), frozenset(own)) if added else None


def _moving(indices: tuple[Dim, ...], var: Var) -> tuple[tuple[int, Dim], ...]:
    """The indices that a variable moves, with their axes."""
    return tuple((axis, each) for axis, each in enumerate(indices) if var in free(each))


def _is_sum(
    buffer: Buffer, stores: Sequence[Store], loads: Sequence[Load], roots: Sequence[Expr]
) -> bool:
    """Whether rows join what is there: a value is read by the store that replaces it alone."""
    mine = [stmt for stmt in stores if stmt.buffer is buffer]
    if len(mine) != 1 or not mine[0].guard.is_true:
        return False
    others = [root for root in roots if root is not mine[0].value]
    if any(isinstance(node, Load) and node.buffer is buffer for node in expressions(others)):
        return False
    return bool(loads) and all(load.indices == mine[0].indices for load in loads)


def _is_stored_first(buffer: Buffer, body: Sequence[Stmt]) -> bool:
    """Whether a row stores its scratch in whole, in one pass, before it reads it."""
    for stmt in body:
        nodes = expressions(root for inner in statements((stmt,)) for root in operands(inner))
        if any(isinstance(node, Load) and node.buffer is buffer for node in nodes):
            return False
        if isinstance(stmt, Par | Sweep) and buffer in stored((stmt,)):
            shape = tuple(var.extent for var in stmt.vars)
            found = [s for s in stmt.body if isinstance(s, Store) and s.buffer is buffer]
            return shape == buffer.shape and all(
                s.guard.is_true and s.indices == stmt.vars for s in found
            )
    return False


def _row(
    body: Sequence[Stmt], mapping: Mapping[Var, Dim], copies: Mapping[Buffer, Buffer], suffix: str
) -> tuple[Stmt, ...]:
    """The statements of one row, with scratch and names of its own."""
    names = {reduce.target.name for stmt in body for reduce in _reduces(stmt)}

    def on_index(index: Dim) -> Dim:
        return substitute(index, mapping)

    def on_guard(guard: Guard) -> Guard:
        return guard.substitute(mapping)

    def on_access(buffer: Buffer, indices: tuple[Dim, ...]) -> tuple[Buffer, tuple[Dim, ...]]:
        return copies.get(buffer, buffer), indices

    def on_scalar(scalar: Scalar) -> Scalar:
        return Scalar(scalar.name + suffix, scalar.dtype) if scalar.name in names else scalar

    return map_body(body, on_index, on_guard, on_access, on_scalar)


def _both(a: Stmt, b: Stmt, added: frozenset[Buffer]) -> tuple[Stmt, ...]:
    """One pass for both rows."""
    if isinstance(a, Sweep) and isinstance(b, Sweep):
        stores = _stores(a.stores, b.stores, added)
        return (Sweep(a.vars, (*a.reduces, *b.reduces, *stores)),)
    if isinstance(a, Par) and isinstance(b, Par):
        return (replace(a, body=_stores(_inner(a), _inner(b), added)),)
    return a, b


def _inner(stmt: Par) -> tuple[Store, ...]:
    return tuple(each for each in stmt.body if isinstance(each, Store))


def _stores(a: Sequence[Store], b: Sequence[Store], added: frozenset[Buffer]) -> tuple[Store, ...]:
    """The stores of both rows; what the second adds to is what the first would have stored."""
    sums = {stmt.buffer: stmt.value for stmt in a if stmt.buffer in added}
    kept = [stmt for stmt in a if stmt.buffer not in added]
    known: dict[int, Expr] = {}
    for expr in expressions(stmt.value for stmt in b):
        known[id(expr)] = _continued(expr, sums, known)
    return (*kept, *(replace(stmt, value=known[id(stmt.value)]) for stmt in b))


def _continued(expr: Expr, sums: Mapping[Buffer, Expr], known: Mapping[int, Expr]) -> Expr:
    if isinstance(expr, Load):
        return sums.get(expr.buffer, expr)
    if isinstance(expr, Apply):
        args = tuple(known[id(arg)] for arg in expr.args)
        return expr if args == expr.args else replace(expr, args=args)
    if isinstance(expr, Choose):
        pair = known[id(expr.on_true)], known[id(expr.on_false)]
        return Choose(expr.guard, *pair) if pair != (expr.on_true, expr.on_false) else expr
    return expr
