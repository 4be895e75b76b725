"""How much work statements are, in cycles of one core: what decides whether threads share them.

The figures are data and rough: they are right within a factor of two or three, which is enough to
tell a kernel of one microsecond from one of a hundred. Results do not depend on them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import prod

from diffc.codegen.loops.contraction import contraction, extent_of, is_tiled
from diffc.codegen.loops.nodes import (
    Apply,
    Contract,
    Expr,
    For,
    GatherLoad,
    Load,
    Par,
    Prefix,
    Reduce,
    Scatter,
    Sort,
    Stmt,
    Store,
    Sweep,
    Within,
)
from diffc.codegen.loops.walk import expressions, operands
from diffc.codegen.targets import ITEM_BYTES, Target
from diffc.codegen.tile.contract_costs import costs
from diffc.ir.index import Var

__all__ = ["cycles", "packing_cycles"]

# Cycles of one vector, by op; all others take `PLAIN`.
PLAIN = 0.7
VECTOR_CYCLES = {
    **dict.fromkeys(("div", "sqrt"), 10.0),
    **dict.fromkeys(("exp", "exp2", "log", "log2", "logistic", "tanh"), 20.0),
    **dict.fromkeys(("log10", "log1p", "expm1", "sin", "cos", "arctan"), 25.0),
    **dict.fromkeys(("erf", "tan", "sinh", "cosh", "arcsin", "arccos", "arctan2"), 40.0),
    **dict.fromkeys(("floor_divide", "remainder"), 30.0),
    "pow": 70.0,
}
LOAD = 0.7
STORE = 1.0
GATHER_LANE = 1.5
SCATTER = 8.0
#: A reduction in sequence waits for each addition, where no vector of points runs.
STEP = 4.0
SORT_STEP = 2.0
LOOP = 4.0
#: Bytes that one core moves in a cycle, from caches beyond the first.
BYTES = 16.0


def cycles(body: Iterable[Stmt], target: Target, lanes: int = 1) -> float:
    """Cycles of statements, once.

    Args:
        body: The statements.
        target: The machine.
        lanes: Points of the vector variable that is bound around them; 1: none.
    """
    return sum(_cycles(stmt, target, lanes) for stmt in body)


def _cycles(stmt: Stmt, target: Target, lanes: int) -> float:
    if isinstance(stmt, Par):
        if is_tiled(stmt):
            return _contraction(stmt, target)
        inner = stmt.how.lanes if stmt.how is not None and lanes == 1 else lanes
        return _size(stmt.vars) * cycles(stmt.body, target, inner) + LOOP
    if isinstance(stmt, Within):  # where it ends is known at run time only
        return _cycles(stmt.body, target, lanes)
    if isinstance(stmt, For):
        return extent_of(stmt.var) * (cycles(stmt.body, target, lanes) + LOOP)
    if isinstance(stmt, Sweep):
        return _folded(stmt.vars, stmt.reduces, target, lanes) + _size(stmt.vars) * sum(
            _once(store, target, _inner_lanes(stmt.reduces, target, lanes)) for store in stmt.stores
        )
    if isinstance(stmt, Reduce):
        return _folded(stmt.vars, (stmt,), target, lanes)
    if isinstance(stmt, Contract):
        return _size(stmt.vars) * max(_once(stmt, target, lanes), STEP / lanes)
    if isinstance(stmt, Prefix):
        together = target.lanes(stmt.value.dtype) if stmt.order == "lanes" else lanes
        steps = together.bit_length() if stmt.order == "lanes" else 1
        return extent_of(stmt.var) * (_once(stmt, target, together) + STEP * steps / together)
    if isinstance(stmt, Sort):
        length = extent_of(stmt.var)
        return SORT_STEP * length * length.bit_length()
    return _once(stmt, target, lanes)


def _size(vars: Sequence[Var]) -> int:
    return prod(map(extent_of, vars))


def _inner_lanes(reduces: Sequence[Reduce], target: Target, lanes: int) -> int:
    """The lanes in which a sweep runs."""
    if lanes > 1 or any(reduce.order == "sequence" for reduce in reduces):
        return lanes
    return max(1, min((target.lanes(reduce.value.dtype) for reduce in reduces), default=1))


def _folded(vars: Sequence[Var], reduces: Sequence[Reduce], target: Target, lanes: int) -> float:
    inside = _inner_lanes(reduces, target, lanes)
    each = sum(_once(reduce, target, inside) for reduce in reduces)
    if inside == 1:
        each = max(each, STEP)
    return _size(vars) * each + LOOP * len(reduces)


def _once(stmt: Stmt, target: Target, lanes: int) -> float:
    """A statement without loops of its own, for one point of `lanes` at once."""
    roots = operands(stmt)
    nodes = expressions(roots)
    widest = max((ITEM_BYTES[node.dtype] for node in nodes), default=1)
    together = min(lanes, max(1, target.vector_bytes // widest))
    total = sum(_weight(node, together) for node in nodes) / together
    if isinstance(stmt, Store | Prefix):
        total += STORE / together + ITEM_BYTES[stmt.buffer.dtype] / BYTES
    elif isinstance(stmt, Scatter):
        total += SCATTER
    return total + sum(ITEM_BYTES[n.dtype] for n in nodes if isinstance(n, Load)) / BYTES


def _weight(node: Expr, lanes: int) -> float:
    if isinstance(node, Apply):
        return VECTOR_CYCLES.get(node.name, PLAIN)
    if isinstance(node, GatherLoad):
        return GATHER_LANE * lanes
    return LOAD if isinstance(node, Load) else 0.0


def _contraction(par: Par, target: Target) -> float:
    """Multiply-adds, packing and stores of a tiled contraction."""
    c = contraction(par)
    price, lanes = costs(target), c.how.lanes
    points = _size(par.vars)
    vectors = -(-extent_of(c.column) // lanes) * points / max(1, extent_of(c.column))
    products = vectors * c.depth_size if not c.how.dot else points * c.depth_size / lanes
    total = products * price.multiply_add
    total += points * sum(_once(store, target, lanes) for store in c.stores)
    if c.how.pack_rhs:
        times = prod(extent_of(var) for var in c.outer if c.rhs.strides[var])
        total += times * packing_cycles(par, target)
    return total


def packing_cycles(par: Par, target: Target) -> float:
    """Cycles of packing rhs of a tiled contraction once."""
    c = contraction(par)
    price = costs(target)
    is_copy = c.rhs.strides[c.column] == 1
    each = price.copy / c.how.lanes if is_copy else price.transpose
    return each * extent_of(c.column) * c.depth_size
