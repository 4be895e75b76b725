"""Walks over the loop IR: children, uses, and rebuilding with other indices.

Nothing here recurses over expressions: a fused chain can be longer than Python's stack.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import replace

from diffc.codegen.loops.nodes import (
    Apply,
    Buffer,
    Choose,
    Contract,
    Expr,
    Fetch,
    For,
    GatherLoad,
    IndexValue,
    Load,
    Par,
    Prefix,
    Reduce,
    Scalar,
    Scatter,
    Sort,
    Stmt,
    Store,
    Sweep,
    Within,
)
from diffc.ir.index import Atom, Dim, Guard, Var, free

__all__ = [
    "bodies",
    "bound",
    "buffers",
    "children",
    "depends",
    "expressions",
    "map_body",
    "map_statement",
    "operands",
    "read",
    "rewrite",
    "statements",
    "stored",
    "variables",
    "varying",
]


def children(expr: Expr) -> tuple[Expr, ...]:
    """The expressions that `expr` is made of."""
    if isinstance(expr, Apply):
        return expr.args
    if isinstance(expr, Choose):
        return expr.on_true, expr.on_false
    if isinstance(expr, GatherLoad):
        return tuple(index for index in expr.indices if isinstance(index, Expr))
    return ()


def expressions(roots: Iterable[Expr]) -> list[Expr]:
    """Every expression under `roots` once, operands before their users."""
    order: list[Expr] = []
    done: set[int] = set()
    stack = [(root, False) for root in roots]
    stack.reverse()
    while stack:
        expr, is_open = stack.pop()
        if id(expr) in done:
            continue
        if is_open:
            done.add(id(expr))
            order.append(expr)
            continue
        stack.append((expr, True))
        stack.extend((child, False) for child in reversed(children(expr)))
    return order


def depends(expr: Expr, var: Var) -> bool:
    """Whether an expression mentions a loop variable."""
    return bool(varying((expr,), (var,)))


def varying(
    roots: Iterable[Expr], vars: Collection[Var], scalars: Collection[str] = ()
) -> list[Expr]:
    """Every expression under `roots` that depends on loop variables or scalars, operands first."""
    found: dict[int, Expr] = {}
    for node in expressions(roots):
        indices: Iterable[Dim | Expr] = ()
        if isinstance(node, Load | GatherLoad):
            indices = node.indices
        elif isinstance(node, IndexValue):
            indices = (node.index,)
        if (
            any(id(child) in found for child in children(node))
            or (isinstance(node, Scalar) and node.name in scalars)
            or (isinstance(node, Choose) and not node.guard.free().isdisjoint(vars))
            or any(not isinstance(i, Expr) and not free(i).isdisjoint(vars) for i in indices)
        ):
            found[id(node)] = node
    return list(found.values())


def bodies(stmt: Stmt) -> tuple[Stmt, ...]:
    """The statements inside `stmt`."""
    if isinstance(stmt, Within):
        return (stmt.body,)
    return stmt.body if isinstance(stmt, Par | For | Sweep) else ()


def statements(body: Iterable[Stmt]) -> Iterator[Stmt]:
    """Every statement of a body, outer ones first."""
    for stmt in body:
        yield stmt
        yield from statements(bodies(stmt))


def operands(stmt: Stmt) -> tuple[Expr, ...]:
    """The expressions that a statement itself evaluates."""
    if isinstance(stmt, Store | Reduce | Prefix):
        return (stmt.value,)
    if isinstance(stmt, Contract):
        return (stmt.lhs, stmt.rhs) if stmt.start is None else (stmt.lhs, stmt.rhs, stmt.start)
    if isinstance(stmt, Scatter):
        return (*(index for index in stmt.indices if isinstance(index, Expr)), stmt.value)
    if isinstance(stmt, Within):
        return stmt.first, stmt.stop
    return ()


def stored(body: Iterable[Stmt]) -> frozenset[Buffer]:
    """The buffers that the statements of a body write."""
    return frozenset(
        stmt.buffer
        for stmt in statements(body)
        if isinstance(stmt, Store | Scatter | Prefix | Sort)
    )


def read(body: Iterable[Stmt]) -> frozenset[Buffer]:
    """The buffers that the expressions of a body read."""
    roots = (expr for stmt in statements(body) for expr in operands(stmt))
    found = (e.buffer for e in expressions(roots) if isinstance(e, Load | GatherLoad))
    return frozenset(found)


def buffers(body: Sequence[Stmt]) -> frozenset[Buffer]:
    """The buffers that the statements of a body read or write."""
    keys = {stmt.keys for stmt in statements(body) if isinstance(stmt, Sort)}
    return stored(body) | read(body) | keys


def bound(body: Iterable[Stmt]) -> list[Var]:
    """The variables of independent points and folds in a body, outer ones first."""
    found: list[Var] = []
    for stmt in statements(body):
        if isinstance(stmt, Par | Reduce | Sweep | Contract):
            found += stmt.vars
    return found


def variables(expr: Expr) -> frozenset[Atom]:
    """The index variables on which an expression depends."""
    found: set[Atom] = set()
    for node in expressions((expr,)):
        if isinstance(node, Load | GatherLoad):
            for index in node.indices:
                if not isinstance(index, Expr):
                    found |= free(index)
        elif isinstance(node, IndexValue):
            found |= free(node.index)
        elif isinstance(node, Choose):
            found |= node.guard.free()
    return frozenset(found)


Index = Callable[[Dim], Dim]
Indices = tuple[Dim, ...]
Access = Callable[[Buffer, Indices], tuple[Buffer, Indices]]
Name = Callable[[Scalar], Scalar]


def _same_name(scalar: Scalar) -> Scalar:
    return scalar


def _same_place(buffer: Buffer, indices: Indices) -> tuple[Buffer, Indices]:
    return buffer, indices


def _index_or_expr(index: Dim | Expr, on_index: Index, known: dict[int, Expr]) -> Dim | Expr:
    return known[id(index)] if isinstance(index, Expr) else on_index(index)


def _mapped(
    expr: Expr,
    on_index: Index,
    on_guard: Callable[[Guard], Guard],
    on_access: Access,
    on_scalar: Name,
    known: dict[int, Expr],
) -> Expr:
    if isinstance(expr, Scalar):
        return on_scalar(expr)
    if isinstance(expr, IndexValue):
        return IndexValue(expr.dtype, on_index(expr.index))
    if isinstance(expr, Load):
        return Load(*on_access(expr.buffer, tuple(on_index(index) for index in expr.indices)))
    if isinstance(expr, GatherLoad):
        indices = tuple(_index_or_expr(index, on_index, known) for index in expr.indices)
        return GatherLoad(on_access(expr.buffer, ())[0], indices, expr.mode, expr.status)
    if isinstance(expr, Apply):
        return Apply(expr.dtype, expr.name, tuple(known[id(arg)] for arg in expr.args))
    if isinstance(expr, Choose):
        guard = on_guard(expr.guard)
        on_true, on_false = known[id(expr.on_true)], known[id(expr.on_false)]
        if guard.is_true or guard.is_false:
            return on_true if guard.is_true else on_false
        return Choose(guard, on_true, on_false)
    return expr


def rewrite(
    roots: Iterable[Expr],
    on_index: Index,
    on_guard: Callable[[Guard], Guard],
    on_access: Access = _same_place,
    on_scalar: Name = _same_name,
) -> dict[int, Expr]:
    """Rebuilds expressions with other indices, guards and places; sharing is kept.

    Args:
        roots: The expressions.
        on_index: What becomes of an index.
        on_guard: What becomes of a guard.
        on_access: Where a load or store goes instead, given its new indices. A load at computed
            indices keeps these, and asks for the buffer alone.
        on_scalar: What a scalar is called instead.

    Returns:
        From the `id` of each old expression to the new one.
    """
    known: dict[int, Expr] = {}
    for expr in expressions(roots):
        known[id(expr)] = _mapped(expr, on_index, on_guard, on_access, on_scalar, known)
    return known


def map_statement(
    stmt: Stmt,
    on_index: Index,
    on_guard: Callable[[Guard], Guard],
    known: dict[int, Expr],
    on_access: Access = _same_place,
    on_scalar: Name = _same_name,
) -> Stmt:
    """A statement with other indices; `known` is what `rewrite` gave for its expressions."""
    if isinstance(stmt, Par | For):
        body = tuple(
            map_statement(inner, on_index, on_guard, known, on_access, on_scalar)
            for inner in stmt.body
        )
        if isinstance(stmt, For):
            return replace(stmt, body=body, guard=on_guard(stmt.guard))
        return replace(stmt, body=body)
    if isinstance(stmt, Sweep):
        parts = (
            map_statement(part, on_index, on_guard, known, on_access, on_scalar)
            for part in stmt.body
        )
        return replace(stmt, body=tuple(p for p in parts if isinstance(p, Reduce | Store | Fetch)))
    if isinstance(stmt, Reduce):
        return replace(stmt, target=on_scalar(stmt.target), value=known[id(stmt.value)])
    if isinstance(stmt, Contract):
        lhs, rhs = known[id(stmt.lhs)], known[id(stmt.rhs)]
        start = None if stmt.start is None else known[id(stmt.start)]
        return replace(stmt, target=on_scalar(stmt.target), lhs=lhs, rhs=rhs, start=start)
    if isinstance(stmt, Store):
        place = on_access(stmt.buffer, tuple(on_index(index) for index in stmt.indices))
        return Store(*place, known[id(stmt.value)], on_guard(stmt.guard))
    if isinstance(stmt, Fetch):
        place = on_access(stmt.buffer, tuple(on_index(index) for index in stmt.indices))
        return Fetch(*place, stmt.near)
    if isinstance(stmt, Prefix):
        buffer, at = on_access(stmt.buffer, tuple(on_index(index) for index in stmt.indices))
        return replace(stmt, buffer=buffer, indices=at, value=known[id(stmt.value)])
    if isinstance(stmt, Scatter):
        places = tuple(_index_or_expr(index, on_index, known) for index in stmt.indices)
        return replace(stmt, indices=places, value=known[id(stmt.value)])
    if isinstance(stmt, Sort):
        return replace(stmt, indices=tuple(on_index(index) for index in stmt.indices))
    if isinstance(stmt, Within):
        inner = map_statement(stmt.body, on_index, on_guard, known, on_access, on_scalar)
        first, stop = known[id(stmt.first)], known[id(stmt.stop)]
        return replace(stmt, first=first, stop=stop, body=inner)
    raise TypeError(f"not a statement: {stmt!r}")


def map_body(
    body: Sequence[Stmt],
    on_index: Index,
    on_guard: Callable[[Guard], Guard],
    on_access: Access = _same_place,
    on_scalar: Name = _same_name,
) -> tuple[Stmt, ...]:
    """Statements with other indices, guards, places and names (see `rewrite`)."""
    roots = (expr for stmt in statements(body) for expr in operands(stmt))
    known = rewrite(roots, on_index, on_guard, on_access, on_scalar)
    return tuple(
        map_statement(stmt, on_index, on_guard, known, on_access, on_scalar) for stmt in body
    )
