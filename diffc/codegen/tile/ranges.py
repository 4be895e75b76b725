"""Cuts a nest where its choices change, so that each piece knows them.

`par i in 100: y[i] = choose(i < 10, x[i + 90], x[i - 10])`, a roll, becomes a nest over the first
10 points that reads `x[i + 90]`, and one over the other 90. What would be a comparison, a select
and masked loads at each point (slow, where what the mask hides lies in no page) is gone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import pairwise, product
from math import prod

from diffc.codegen.loops.contraction import extent_of
from diffc.codegen.loops.nodes import Choose, Par, Reduce, Store, Sweep
from diffc.codegen.loops.walk import expressions, operands, statements
from diffc.codegen.tile.collapse import replace_vars
from diffc.ir.index import Cond, Dim, Guard, Var
from diffc.ir.index import Expr as IndexExpr

__all__ = ["by_ranges"]

#: shorter nests stay whole, as do those whose pieces would be too many, or too much code.
LEAST_POINTS = 2048
MOST_PIECES = 9
MOST_NODES = 512
#: a row is not cut into shorter runs than this, unless there are few rows.
LEAST_RUN = 64
FEW_ROWS = 16


def by_ranges(par: Par) -> tuple[Par, ...]:
    """The pieces of a nest of stores and folds, in row-major order; or the nest as it is.

    Only its own variables are cut: each point keeps its folds, and the order in which they sum.
    """
    extents = {var: var.extent for var in par.vars if isinstance(var.extent, int)}
    inner = list(statements(par.body))
    folds = [stmt for stmt in inner if isinstance(stmt, Reduce | Sweep)]
    work = prod(extents.values()) * max((prod(map(extent_of, f.vars)) for f in folds), default=1)
    is_plain = all(isinstance(stmt, Store | Reduce | Sweep) for stmt in inner)
    if len(extents) < len(par.vars) or not is_plain or work < LEAST_POINTS:
        return (par,)
    nodes = expressions(root for stmt in inner for root in operands(stmt))
    guards = [node.guard for node in nodes if isinstance(node, Choose)]
    guards += [stmt.guard for stmt in inner if isinstance(stmt, Store)]
    cuts = {var: _cuts(var, extents[var], guards) for var in par.vars}
    last = par.vars[-1]
    rows = prod(extents.values()) // extents[last]
    if rows > FEW_ROWS and min(map(_length, pairwise(cuts[last]))) < LEAST_RUN:
        cuts[last] = [0, extents[last]]
    count = prod(len(each) - 1 for each in cuts.values())
    if not 1 < count <= MOST_PIECES or count * len(nodes) > MOST_NODES:
        return (par,)
    return tuple(_pieces(par, cuts))


def _cuts(var: Var, extent: int, guards: list[Guard]) -> list[int]:
    """Where conditions on a variable alone change, and both ends of its range."""
    found = {0, extent}
    for guard in guards:
        for cond in guard:
            found.update(at for at in _changes(var, cond) if 0 < at < extent)
    return sorted(found)


def _length(ends: tuple[int, int]) -> int:
    return ends[1] - ends[0]


def _changes(var: Var, cond: Cond) -> tuple[int, ...]:
    """The values of a variable that a condition on it alone tells from the ones before them."""
    expr = cond.expr
    if not isinstance(expr, IndexExpr) or len(expr.terms) != 1 or expr.terms[0][0] is not var:
        return ()
    coef, const = expr.terms[0][1], expr.const
    if cond.kind == "eq":
        return (-const // coef, -const // coef + 1)
    return (-(const // coef),) if coef > 0 else (const // -coef + 1,)


def _pieces(par: Par, cuts: Mapping[Var, list[int]]) -> Iterator[Par]:
    for ranges in product(*(list(pairwise(cuts[var])) for var in par.vars)):
        vars, mapping = [], {}
        for var, (start, stop) in zip(par.vars, ranges, strict=True):
            if (start, stop) == (0, var.extent):
                vars.append(var)
                continue
            made = Var(f"{var.name}_{start}", stop - start)
            vars.append(made)
            place: Dim = start + made
            mapping[var] = place
        yield replace(par, vars=tuple(vars), body=replace_vars(par.body, mapping))
