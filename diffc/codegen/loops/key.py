"""A key of a kernel: equal keys mean the same code, whatever the buffers are called."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple

from diffc.codegen.loops.nodes import (
    Apply,
    Buffer,
    Choose,
    Const,
    Contract,
    Expr,
    Fetch,
    For,
    GatherLoad,
    IndexValue,
    Kernel,
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
from diffc.codegen.loops.walk import expressions, operands, statements
from diffc.ir.index import Dim

__all__ = ["kernel_key"]

Key = tuple[object, ...]


def kernel_key(kernel: Kernel) -> Key:
    """The structure of a kernel: names of buffers and of the kernel are left out."""
    buffers = {id(b): n for n, b in enumerate((*kernel.params, *kernel.scratch))}
    roots = [expr for stmt in statements(kernel.body) for expr in operands(stmt)]
    order = expressions(roots)
    numbers = {id(expr): number for number, expr in enumerate(order)}
    key = _Key(buffers, numbers)
    return (
        tuple((b.dtype, b.shape, b.mode) for b in (*kernel.params, *kernel.scratch)),
        len(kernel.params),
        tuple(key.expression(expr) for expr in order),
        key.body(kernel.body),
    )


class _Key:
    __slots__ = ("buffers", "numbers")

    def __init__(self, buffers: dict[int, int], numbers: dict[int, int]) -> None:
        self.buffers = buffers
        self.numbers = numbers

    def buffer(self, buffer: Buffer) -> int:
        return self.buffers[id(buffer)]

    def index(self, index: Dim | Expr) -> object:
        return ("computed", self.numbers[id(index)]) if isinstance(index, Expr) else index

    def indices(self, indices: Sequence[Dim | Expr]) -> Key:
        return tuple(self.index(index) for index in indices)

    def expression(self, expr: Expr) -> Key:
        if isinstance(expr, Const):
            return "const", expr.dtype, repr(expr.value)
        if isinstance(expr, IndexValue):
            return "index", expr.dtype, expr.index
        if isinstance(expr, Load):
            return "load", self.buffer(expr.buffer), expr.indices
        if isinstance(expr, GatherLoad):
            where = self.buffer(expr.buffer), self.indices(expr.indices)
            return "gather", *where, expr.mode, expr.status
        if isinstance(expr, Apply):
            return expr.name, expr.dtype, tuple(self.numbers[id(arg)] for arg in expr.args)
        if isinstance(expr, Choose):
            branches = self.numbers[id(expr.on_true)], self.numbers[id(expr.on_false)]
            return "choose", expr.guard, *branches
        if isinstance(expr, Scalar):
            return "scalar", expr.dtype, expr.name
        raise TypeError(f"not an expression: {expr!r}")

    def body(self, body: Sequence[Stmt]) -> Key:
        return tuple(self.statement(stmt) for stmt in body)

    def statement(self, stmt: Stmt) -> Key:
        if isinstance(stmt, Par):
            lanes = None if stmt.how is None else (type(stmt.how).__name__, stmt.how.lanes)
            split = None if stmt.split is None else astuple(stmt.split)
            return "par", stmt.vars, lanes, split, self.body(stmt.body)
        if isinstance(stmt, For):
            return "for", stmt.var, stmt.reverse, stmt.guard, self.body(stmt.body)
        if isinstance(stmt, Sweep):
            return "sweep", stmt.vars, self.body(stmt.body)
        values = tuple(self.numbers[id(expr)] for expr in operands(stmt))
        if isinstance(stmt, Within):
            return "within", stmt.var, values, self.statement(stmt.body)
        if isinstance(stmt, Reduce):
            target = stmt.target.name, stmt.target.dtype
            return "reduce", *target, stmt.monoid, stmt.vars, stmt.order, values
        if isinstance(stmt, Contract):
            tile = None if stmt.how is None else astuple(stmt.how)
            target = stmt.target.name, stmt.target.dtype
            return "contract", *target, stmt.vars, stmt.order, tile, values
        if isinstance(stmt, Store):
            return "store", self.buffer(stmt.buffer), stmt.indices, stmt.guard, values
        if isinstance(stmt, Fetch):
            return "fetch", self.buffer(stmt.buffer), stmt.indices, stmt.near
        if isinstance(stmt, Scatter):
            place = self.buffer(stmt.buffer), self.indices(stmt.indices)
            return "scatter", *place, stmt.combine, stmt.mode, stmt.status, values
        if isinstance(stmt, Prefix):
            place = self.buffer(stmt.buffer), stmt.indices
            return "prefix", *place, stmt.var, stmt.monoid, stmt.order, values
        if isinstance(stmt, Sort):
            pair = self.buffer(stmt.buffer), self.buffer(stmt.keys)
            return "sort", *pair, stmt.indices, stmt.var, stmt.positions
        raise TypeError(f"not a statement: {stmt!r}")
