"""Neighbouring loops become one where every access runs through them as through one.

A row-major ``64 x 1000`` map is one loop of 64000; the batch axes of a contraction are one axis of
rows. Only neighbours in one statement merge, in their order, so reductions keep theirs. Buffers
that the merged loops run through get merged axes too.

Two variables merge when, in all that depends on them (offsets into buffers, guards, values of
indices), the outer one's coefficient is the inner one's times the inner extent.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import pairwise

from diffc.codegen.loops.nodes import (
    Apply,
    Buffer,
    Choose,
    Contract,
    Expr,
    For,
    GatherLoad,
    IndexValue,
    Kernel,
    Load,
    Par,
    Prefix,
    Reduce,
    Scatter,
    Sort,
    Stmt,
    Store,
    Sweep,
)
from diffc.codegen.loops.walk import expressions, operands, statements
from diffc.ir.index import Dim, Guard, Var, free, linear_in, ravel, substitute

Mapping = dict[Var, Dim]
Places = tuple[Dim | Expr, ...]


def coalesce(kernel: Kernel) -> Kernel:
    """The kernel with merged loops; the same object where none merge."""
    stmts = list(statements(kernel.body))
    if any(isinstance(stmt, Sort) for stmt in stmts):
        return kernel
    binders = [binder for stmt in stmts if len(binder := _bound(stmt)) > 0]
    if all(len(binder) < 2 for binder in binders):
        return kernel
    exprs = expressions(expr for stmt in stmts for expr in operands(stmt))
    accesses = list(_accesses(stmts, exprs))
    mapping, merged = _merge(binders, _forms(stmts, exprs, accesses))
    if not mapping:
        return kernel
    return _Rewriter(mapping, merged, accesses).kernel(kernel)


def _bound(stmt: Stmt) -> tuple[Var, ...]:
    if isinstance(stmt, Par | Reduce | Sweep | Contract):
        return stmt.vars
    return (stmt.var,) if isinstance(stmt, For | Prefix) else ()


def _accesses(stmts: Iterable[Stmt], exprs: Iterable[Expr]) -> Iterator[tuple[Buffer, Places]]:
    for expr in exprs:
        if isinstance(expr, Load | GatherLoad):
            yield expr.buffer, expr.indices
    for stmt in stmts:
        if isinstance(stmt, Store | Scatter | Prefix):
            yield stmt.buffer, stmt.indices


def _forms(
    stmts: Iterable[Stmt], exprs: Iterable[Expr], accesses: Iterable[tuple[Buffer, Places]]
) -> set[Dim]:
    """All that depends on loop variables: offsets along runs of axes, conditions, values.

    An axis that some access has a computed index for stays by itself in all accesses.
    """
    forms: set[Dim] = set()
    accesses = list(accesses)
    computed: dict[Buffer, set[int]] = {}
    for buffer, places in accesses:
        axes = computed.setdefault(buffer, set())
        axes.update(axis for axis, place in enumerate(places) if isinstance(place, Expr))
    for buffer, places in accesses:
        cuts = computed[buffer]
        starts = [k for k in range(len(places)) if k == 0 or k in cuts or k - 1 in cuts]
        for start, end in zip(starts, [*starts[1:], len(places)], strict=False):
            run = [index for index in places[start:end] if not isinstance(index, Expr)]
            if len(run) == end - start:
                forms.add(ravel(run, buffer.shape[start:end]))
    for expr in exprs:
        if isinstance(expr, IndexValue):
            forms.add(expr.index)
        elif isinstance(expr, Choose):
            forms.update(cond.expr for cond in expr.guard)
    for stmt in stmts:
        if isinstance(stmt, Store | For):
            forms.update(cond.expr for cond in stmt.guard)
    return {form for form in forms if not isinstance(form, int)}


def _merge(binders: list[tuple[Var, ...]], forms: set[Dim]) -> tuple[Mapping, list[set[Var]]]:
    """What each variable becomes, and the sets of variables that became one."""
    mapping: Mapping = {}
    groups: dict[Var, set[Var]] = {}
    pending = True
    while pending:
        pending = False
        for outer, inner in _neighbours(binders):
            if not _run_as_one(outer, inner, forms):
                continue
            whole = Var(outer.name, _extent(outer) * _extent(inner))
            step: Mapping = {outer: 0, inner: whole}
            forms = {substitute(form, step) for form in forms}
            for var, dim in mapping.items():
                mapping[var] = substitute(dim, step)
            mapping.update(step)
            binders = [_without(binder, outer, inner, whole) for binder in binders]
            members = groups.pop(outer, {outer}) | groups.pop(inner, {inner})
            groups[whole] = members
            pending = True
            break
    return mapping, list(groups.values())


def _neighbours(binders: list[tuple[Var, ...]]) -> list[tuple[Var, Var]]:
    """Pairs that stand next to each other, in this order, wherever either is bound."""
    found: dict[tuple[Var, Var], None] = {}
    for binder in binders:
        for pair in pairwise(binder):
            found[pair] = None
    return [
        pair
        for pair in found
        if all(
            pair in pairwise(binder) for binder in binders if pair[0] in binder or pair[1] in binder
        )
        and _extent(pair[0]) > 1
        and _extent(pair[1]) > 1
    ]


def _run_as_one(outer: Var, inner: Var, forms: Iterable[Dim]) -> bool:
    extent = _extent(inner)
    for form in forms:
        split = linear_in(form, (outer, inner))
        if split is None or split[0][outer] != split[0][inner] * extent:
            return False
    return True


def _without(binder: tuple[Var, ...], outer: Var, inner: Var, whole: Var) -> tuple[Var, ...]:
    return tuple(whole if var is inner else var for var in binder if var is not outer)


def _extent(var: Var) -> int:
    assert isinstance(var.extent, int)
    return var.extent


class _Rewriter:
    """Rebuilds a kernel with merged variables and merged axes of buffers."""

    def __init__(
        self, mapping: Mapping, merged: list[set[Var]], accesses: list[tuple[Buffer, Places]]
    ) -> None:
        self.mapping = mapping
        self.groups: dict[Buffer, list[tuple[int, int]]] = {}
        joined: dict[Buffer, set[int]] = {}
        for buffer, places in accesses:
            axes = joined.setdefault(buffer, set())
            for members in merged:
                hit = [
                    axis
                    for axis, place in enumerate(places)
                    if not isinstance(place, Expr) and not free(place).isdisjoint(members)
                ]
                if hit:
                    axes.update(range(hit[0] + 1, hit[-1] + 1))
        self.buffers: dict[Buffer, Buffer] = {}
        for buffer, axes in joined.items():
            if axes:
                starts = [axis for axis in range(len(buffer.shape)) if axis not in axes]
                ends = [*starts[1:], len(buffer.shape)]
                self.groups[buffer] = list(zip(starts, ends, strict=True))
                shape = tuple(_size(buffer.shape[a:b]) for a, b in self.groups[buffer])
                self.buffers[buffer] = replace(buffer, shape=shape)
        self.known: dict[int, Expr] = {}

    def kernel(self, kernel: Kernel) -> Kernel:
        """The whole kernel."""
        return replace(
            kernel,
            params=tuple(map(self.buffer, kernel.params)),
            scratch=tuple(map(self.buffer, kernel.scratch)),
            body=tuple(map(self.stmt, kernel.body)),
        )

    def buffer(self, buffer: Buffer) -> Buffer:
        return self.buffers.get(buffer, buffer)

    def index(self, index: Dim) -> Dim:
        return substitute(index, self.mapping)

    def guard(self, guard: Guard) -> Guard:
        return guard.substitute(self.mapping)

    def places(self, buffer: Buffer, places: Places) -> Places:
        """Indices into the merged axes."""
        found: list[Dim | Expr] = []
        every = [(axis, axis + 1) for axis in range(len(places))]
        for start, end in self.groups.get(buffer, every):
            place = places[start]
            if isinstance(place, Expr):
                found.append(self.known[id(place)])
                continue
            run = [index for index in places[start:end] if not isinstance(index, Expr)]
            found.append(self.index(ravel(run, buffer.shape[start:end])))
        return tuple(found)

    def indices(self, buffer: Buffer, indices: tuple[Dim, ...]) -> tuple[Dim, ...]:
        return tuple(i for i in self.places(buffer, indices) if not isinstance(i, Expr))

    def expr(self, root: Expr) -> Expr:
        for expr in expressions((root,)):
            if id(expr) not in self.known:
                self.known[id(expr)] = self._one(expr)
        return self.known[id(root)]

    def _one(self, expr: Expr) -> Expr:
        if isinstance(expr, IndexValue):
            return replace(expr, index=self.index(expr.index))
        if isinstance(expr, Load):
            return Load(self.buffer(expr.buffer), self.indices(expr.buffer, expr.indices))
        if isinstance(expr, GatherLoad):
            places = self.places(expr.buffer, expr.indices)
            return replace(expr, buffer=self.buffer(expr.buffer), indices=places)
        if isinstance(expr, Apply):
            return replace(expr, args=tuple(self.known[id(arg)] for arg in expr.args))
        if isinstance(expr, Choose):
            on_true, on_false = self.known[id(expr.on_true)], self.known[id(expr.on_false)]
            return Choose(self.guard(expr.guard), on_true, on_false)
        return expr

    def vars(self, loop: tuple[Var, ...]) -> tuple[Var, ...]:
        found = (self.mapping.get(var, var) for var in loop)
        return tuple(var for var in found if isinstance(var, Var))

    def stmt(self, stmt: Stmt) -> Stmt:
        if isinstance(stmt, Par):
            return replace(stmt, vars=self.vars(stmt.vars), body=tuple(map(self.stmt, stmt.body)))
        if isinstance(stmt, For):
            inside = tuple(map(self.stmt, stmt.body))
            return replace(stmt, body=inside, guard=self.guard(stmt.guard))
        if isinstance(stmt, Sweep):
            parts = map(self.stmt, stmt.body)
            body = tuple(part for part in parts if isinstance(part, Reduce | Store))
            return replace(stmt, vars=self.vars(stmt.vars), body=body)
        if isinstance(stmt, Reduce):
            return replace(stmt, vars=self.vars(stmt.vars), value=self.expr(stmt.value))
        if isinstance(stmt, Contract):
            lhs, rhs = self.expr(stmt.lhs), self.expr(stmt.rhs)
            start = None if stmt.start is None else self.expr(stmt.start)
            return replace(stmt, vars=self.vars(stmt.vars), lhs=lhs, rhs=rhs, start=start)
        if isinstance(stmt, Store):
            return Store(
                self.buffer(stmt.buffer),
                self.indices(stmt.buffer, stmt.indices),
                self.expr(stmt.value),
                self.guard(stmt.guard),
            )
        if isinstance(stmt, Prefix):
            buffer, at = self.buffer(stmt.buffer), self.indices(stmt.buffer, stmt.indices)
            return replace(stmt, buffer=buffer, indices=at, value=self.expr(stmt.value))
        assert isinstance(stmt, Scatter)
        value = self.expr(stmt.value)
        for place in stmt.indices:
            if isinstance(place, Expr):
                self.expr(place)
        places = self.places(stmt.buffer, stmt.indices)
        return replace(stmt, buffer=self.buffer(stmt.buffer), indices=places, value=value)


def _size(shape: Iterable[int]) -> int:
    size = 1
    for extent in shape:
        size *= extent
    return size
