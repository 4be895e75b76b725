"""How the accesses of statements move along a loop variable."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from math import prod

from diffc.codegen.loops.lanes import lane_offsets
from diffc.codegen.loops.nodes import (
    Apply,
    Buffer,
    Choose,
    Contract,
    Expr,
    For,
    GatherLoad,
    IndexValue,
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
from diffc.codegen.loops.walk import depends, expressions, operands, statements, varying
from diffc.codegen.targets import ITEM_BYTES, register_bytes
from diffc.ir.index import Atom, Dim, Guard, Var, coefficient, free, ravel, substitute

__all__ = ["Accesses", "is_heavy", "widest"]

# The ops that take one instruction or a few; all others keep many values alive.
LIGHT = frozenset(
    (
        *("neg", "abs", "sign", "floor", "ceil", "round", "trunc", "is_nan", "is_inf"),
        *("is_finite", "bitwise_not", "convert", "bitcast", "add", "sub", "mul", "maximum"),
        *("minimum", "eq", "ne", "lt", "le", "gt", "ge", "bitwise_and", "bitwise_or"),
        *("bitwise_xor", "shift_left", "shift_right", "select", "fma", "div", "sqrt"),
    )
)
HEAVY_NODES = 48
#: lanes at so small a stride are picked from whole vectors.
PICKED = 4


Weighed = tuple[Dim, int]
Computed = tuple[tuple[Expr, ...], Dim, int]


@dataclass(slots=True)
class Accesses:
    """What the statements of a body read and write.

    A weight is how often an access happens for each point of the body. Scratch that no point moves
    in has none: it can lie as suits.

    Attributes:
        loads: Flat offset and weight of each load.
        stores: Flat offset and weight of each store.
        guards: Every guard.
        steps: Those that leave out steps of ordered loops, in all lanes or in none.
        values: Indices that are used as values.
        gathers: For each gather, the expressions that compute indices, the offset of the others,
            and the weight.
        scatters: The same for scatters.
        scratch: Scratch that is stored, with the flat offset of each store.
        has_rows: Whether a statement runs along a row with vectors of its own.
        points: The variables of the nest.
    """

    loads: list[Weighed] = field(default_factory=list)
    stores: list[Weighed] = field(default_factory=list)
    guards: list[Guard] = field(default_factory=list)
    steps: list[Guard] = field(default_factory=list)
    values: list[Dim] = field(default_factory=list)
    gathers: list[Computed] = field(default_factory=list)
    scatters: list[Computed] = field(default_factory=list)
    scratch: list[tuple[Buffer, Dim]] = field(default_factory=list)
    has_rows: bool = False
    points: frozenset[Atom] = frozenset()

    @classmethod
    def of(cls, par: Par) -> Accesses:
        """The accesses of the statements of a nest, and of those inside them."""
        made = cls(points=frozenset[Atom](par.vars))
        made._collect(par.body, 1, set())
        return made

    def _collect(self, body: Iterable[Stmt], weight: int, seen: set[int]) -> None:
        for stmt in body:
            if isinstance(stmt, Par | For):
                vars = stmt.vars if isinstance(stmt, Par) else (stmt.var,)
                if isinstance(stmt, For):
                    self.guards.append(stmt.guard)
                    self.steps.append(stmt.guard)
                self._collect(stmt.body, weight * _points(vars), set())
                continue
            if isinstance(stmt, Sweep):
                self._collect(stmt.stores, weight * _points(stmt.vars), seen)
                self._collect(stmt.reduces, weight, seen)
                continue
            often = weight * _points(stmt.vars) if isinstance(stmt, Reduce | Contract) else weight
            if isinstance(stmt, Prefix):
                often = weight * _points((stmt.var,))
                self.stores.append((ravel(stmt.indices, stmt.buffer.shape), often))
                self.has_rows = self.has_rows or stmt.order == "lanes"
            for expr in expressions(operands(stmt)):
                if id(expr) not in seen:
                    seen.add(id(expr))
                    self._expression(expr, often)
            if isinstance(stmt, Store):
                offset = ravel(stmt.indices, stmt.buffer.shape)
                if stmt.buffer.mode == "scratch":
                    self.scratch.append((stmt.buffer, offset))
                self.stores.append((offset, 0 if self._is_private(stmt.buffer, offset) else weight))
                self.guards.append(stmt.guard)
            elif isinstance(stmt, Scatter):
                self.scatters.append((*_computed(stmt.indices, stmt.buffer.shape), weight))
            elif isinstance(stmt, Sort):
                self.has_rows = True

    def _expression(self, expr: Expr, weight: int) -> None:
        if isinstance(expr, Load):
            offset = ravel(expr.indices, expr.buffer.shape)
            self.loads.append((offset, 0 if self._is_private(expr.buffer, offset) else weight))
        elif isinstance(expr, GatherLoad):
            self.gathers.append((*_computed(expr.indices, expr.buffer.shape), weight))
        elif isinstance(expr, Choose):
            self.guards.append(expr.guard)
        elif isinstance(expr, IndexValue):
            self.values.append(expr.index)

    def _is_private(self, buffer: Buffer, offset: Dim) -> bool:
        """Whether each point has the same place to itself."""
        return buffer.mode == "scratch" and free(offset).isdisjoint(self.points)

    def allow_vectors(self, var: Var) -> bool:
        """Whether points along `var` may run in lanes: no two of them may write one element."""
        if self.has_rows or any(var in guard.free() for guard in self.steps):
            return False
        return all(
            not any(depends(expr, var) for expr in exprs) and coefficient(rest, var) in (1, -1)
            for exprs, rest, _ in self.scatters
        )

    def shared(self, var: Var) -> list[Buffer]:
        """Scratch that belongs to one point along `var` at a time."""
        return list(
            dict.fromkeys(buffer for buffer, at in self.scratch if coefficient(at, var) == 0)
        )

    def score(self, var: Var, lanes: int) -> float:
        """How well vectors along `var` suit: whole vectors count for, gathered lanes against."""
        total = 0.0
        for offset, weight in self.loads:
            total += weight * _score(_lane_stride(offset, var, lanes), uniform=0.1)
        for offset, weight in self.stores:
            total += 2 * weight * _score(stride(offset, var, lanes), uniform=-1.0)
        for exprs, rest, weight in self.gathers:
            if any(depends(expr, var) for expr in exprs):
                total -= 0.5 * weight
            else:
                total += weight * _score(_lane_stride(rest, var, lanes), uniform=0.1)
        for _, rest, weight in self.scatters:
            total += 2 * weight * _score(stride(rest, var, lanes), uniform=-1.0)
        return total


def stride(offset: Dim, var: Var, lanes: int) -> Dim | None:
    """Elements from lane to lane of vectors along `var` that start at a multiple of `lanes`.

    So `i//32*100 + i%32` has stride 1 for up to 32 lanes, where `i` alone has none.
    """
    found = coefficient(offset, var)
    if found is not None or not isinstance(var.extent, int) or var.extent < lanes:
        return found
    at, lane = _in_lanes(offset, var, var.extent, lanes)
    return coefficient(at, lane)


def _in_lanes(offset: Dim, var: Var, extent: int, lanes: int) -> tuple[Dim, Var]:
    """An offset in vectors along `var`, and the variable that is 0, 1, ... in their lanes."""
    chunk, lane = Var(f"~{var.name}", -(-extent // lanes)), Var("~lane", lanes)
    return substitute(offset, {var: lanes * chunk + lane}), lane


def _lane_stride(offset: Dim, var: Var, lanes: int) -> Dim | None:
    """The stride of a load; 2 as well for lanes that are picked from a few vectors otherwise."""
    found = stride(offset, var, lanes)
    if found is not None or not isinstance(var.extent, int) or var.extent < lanes:
        return found
    steps = lane_offsets(*_in_lanes(offset, var, var.extent, lanes), lanes)
    return 2 if steps is not None and max(steps[1]) < PICKED * lanes else None


def _score(stride: Dim | None, uniform: float) -> float:
    if stride == 0:
        return uniform
    if not isinstance(stride, int):
        return -0.5
    return {1: 1.0, 2: 0.3, 3: 0.1, 4: 0.1}.get(abs(stride), -0.5)


def _computed(indices: Sequence[Dim | Expr], shape: Sequence[int]) -> tuple[tuple[Expr, ...], Dim]:
    exprs = tuple(index for index in indices if isinstance(index, Expr))
    plain: list[Dim] = [0 if isinstance(index, Expr) else index for index in indices]
    return exprs, ravel(tuple(plain), tuple(shape))


def widest(body: Iterable[Stmt], var: Var | None = None) -> int:
    """Bytes of the widest number that the statements compute, load or store.

    Args:
        body: The statements.
        var: Counts only what differs from point to point along this variable; None counts all.
    """
    inner = tuple(statements(body))
    sizes = [1]
    sizes += [
        ITEM_BYTES[stmt.buffer.dtype]
        for stmt in inner
        if isinstance(stmt, Store | Scatter | Prefix)
    ]
    roots = [root for stmt in inner for root in operands(stmt)]
    found = {stmt.target.name for stmt in inner if isinstance(stmt, Reduce | Contract)}
    for expr in expressions(roots) if var is None else varying(roots, (var,), found):
        bytes_of = register_bytes if isinstance(expr, Apply) else ITEM_BYTES.__getitem__
        sizes.append(bytes_of(expr.dtype))
    return max(sizes)


def is_heavy(body: Iterable[Stmt]) -> bool:
    """Whether the expressions keep a register file busy with one vector at a time."""
    nodes = expressions(root for stmt in statements(body) for root in operands(stmt))
    if len(nodes) > HEAVY_NODES:
        return True
    return any(isinstance(node, Apply) and node.name not in LIGHT for node in nodes)


def reduced(body: Iterable[Stmt]) -> list[tuple[Reduce, int]]:
    """The reductions in statements, with the number of points of each."""
    inner = (stmt for stmt in statements(body) if isinstance(stmt, Reduce))
    return [(stmt, _points(stmt.vars)) for stmt in inner]


def _points(vars: Iterable[Var]) -> int:
    return prod(var.extent for var in vars if isinstance(var.extent, int))
