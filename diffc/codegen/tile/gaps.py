"""Cuts a nest that chooses at one point in many: what lies between first, then those points.

`par i in 1000: y[i] = choose(i%10 == 3, x[i//10], 0)`, the gradient of a slice with steps, becomes
a nest that stores zeros everywhere, and one over 100 points that stores `x[i]` at `10*i + 3`. So no
point computes a remainder to find that it has nothing to do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod

from diffc.codegen.loops.contraction import extent_of
from diffc.codegen.loops.nodes import Choose, Const, Par, Store
from diffc.codegen.loops.walk import expressions, map_body
from diffc.codegen.tile.collapse import replace_vars
from diffc.ir.index import FALSE, Cond, Dim, Guard, Mod, Var, linear_in, unravel
from diffc.ir.index import Expr as IndexExpr

__all__ = ["by_gaps"]

#: shorter nests stay whole
LEAST_POINTS = 2048
#: and so do those that choose at more of their points, if other points take more than a constant
LEAST_GAP = 6


@dataclass(frozen=True, slots=True)
class _Steps:
    """The points of some variables, next to each other, whose flat position is start + n * step."""

    vars: tuple[Var, ...]
    start: int
    step: int

    @property
    def count(self) -> int:
        """How many there are."""
        return max(0, -(-(prod(map(extent_of, self.vars)) - self.start) // self.step))


def by_gaps(par: Par) -> tuple[Par, ...]:
    """The two nests of a nest of stores; the nest itself where it has no such gaps."""
    if prod(map(extent_of, par.vars)) < LEAST_POINTS:
        return (par,)
    stores = [stmt for stmt in par.body if isinstance(stmt, Store) and stmt.guard.is_true]
    nodes = expressions(stmt.value for stmt in stores)
    guards = [node.guard for node in nodes if isinstance(node, Choose)]
    conds = {cond: None for guard in guards for cond in guard if _modulus(cond)}
    if not conds or len(stores) < len(par.body):
        return (par,)
    sparse = [guard for guard in guards if not conds.keys().isdisjoint(guard)]
    if any(not conds.keys() <= set(guard) for guard in sparse):
        return (par,)  # elsewhere some of them may hold
    steps = [_steps(cond, par.vars) for cond in conds]
    found = [each for each in steps if each is not None]
    taken = [var for each in found for var in each.vars]
    if len(found) < len(steps) or len(set(taken)) < len(taken):
        return (par,)
    between = _without(par, set(sparse))
    is_plain = all(isinstance(store.value, Const) for store in between)
    if not is_plain and prod(each.step for each in found) < LEAST_GAP:
        return (par,)
    return (replace(par, body=between), _points(par, found, stores))


def _modulus(cond: Cond) -> int:
    """The divisor of a condition on a remainder alone; else 0."""
    expr = cond.expr
    if cond.kind != "eq" or not isinstance(expr, IndexExpr) or len(expr.terms) != 1:
        return 0
    ((atom, coef),) = expr.terms
    return atom.divisor if isinstance(atom, Mod) and coef == 1 else 0


def _steps(cond: Cond, vars: Sequence[Var]) -> _Steps | None:
    """Where a condition on a remainder holds, if that is a row-major walk by equal steps."""
    expr = cond.expr
    assert isinstance(expr, IndexExpr)
    ((atom, _),) = expr.terms
    assert isinstance(atom, Mod)
    split, step = linear_in(atom.base, vars), atom.divisor
    if split is None or not isinstance(split[1], int):
        return None
    places = [at for at, var in enumerate(vars) if split[0][var]]
    run = tuple(vars[places[0] : places[-1] + 1]) if places else ()
    stride: int = 1
    for var in reversed(run):
        coef = split[0][var]
        if not isinstance(coef, int) or (coef - stride) % step:
            return None
        stride *= extent_of(var)
    return _Steps(run, (-expr.const - split[1]) % step, step) if run else None


def _without(par: Par, sparse: set[Guard]) -> tuple[Store, ...]:
    """The stores as they are where none of the guards holds."""
    body = map_body(
        par.body, lambda index: index, lambda guard: FALSE if guard in sparse else guard
    )
    return tuple(stmt for stmt in body if isinstance(stmt, Store))


def _points(par: Par, found: Sequence[_Steps], stores: Sequence[Store]) -> Par:
    """The nest over the points at which the conditions on remainders hold."""
    mapping: dict[Var, Dim] = {}
    vars = list(par.vars)
    for steps in found:
        made = Var(f"{steps.vars[0].name}_by{steps.step}", steps.count)
        flat = steps.step * made + steps.start
        mapping |= zip(steps.vars, unravel(flat, tuple(map(extent_of, steps.vars))), strict=True)
        vars[vars.index(steps.vars[0])] = made
    kept = tuple(var for var in vars if var not in mapping)
    return replace(par, vars=kept, body=replace_vars(tuple(stores), mapping))
