"""Passes over the reduced axes of a row: what one sweep finds and stores.

Reductions that wait for no other stand in the first pass, those that wait for its results in the
second, and so on. An output of the domain's shape is stored by the first pass that knows it. A
costly value that several passes use is computed by the first of them: later ones load it from the
output that it is, else from a scratch row.

Before: `m = max(x)`, `e = exp(x - m)`, `s = sum(e)`, `y = e / s`. After: a reduction for `m`; a
sweep that finds `s` and stores the row `e`; a loop that stores `y = e / s`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from diffc.codegen.loops.nodes import Load, Reduce, Stmt, Store, Sweep
from diffc.codegen.loops.walk import depends
from diffc.codegen.lower.elements import Indices
from diffc.codegen.lower.frame import Frame, Shape, par, variables
from diffc.ir.graph import Eqn, Operand, Value
from diffc.ops.declare import Fold, Map

__all__ = ["Pass", "join", "passes", "write_pass"]


@dataclass(slots=True)
class Pass:
    """What one pass does.

    Attributes:
        folds: the reductions that it finds.
        saved: values of which it stores a row for later passes.
        stored: positions of the outputs that it stores.
    """

    folds: list[Eqn] = field(default_factory=list)
    saved: list[Eqn] = field(default_factory=list)
    stored: list[int] = field(default_factory=list)


def _depths(frame: Frame) -> dict[Operand, int]:
    """How many reductions one after the other each value waits for."""
    depth: dict[Operand, int] = {}
    for eqn in frame.graph.eqns:
        before = max((depth.get(operand, 0) for operand in eqn.operands), default=0)
        depth.update(dict.fromkeys(eqn.results, before + isinstance(eqn.op.body, Fold)))
        for operand in eqn.operands:
            depth.setdefault(operand, 0)
    for output in frame.graph.outputs:
        depth.setdefault(output, 0)
    return depth


def passes(
    frame: Frame, folds: Iterable[Eqn], stored: Iterable[int], row_of: Shape | None
) -> list[Pass]:
    """The passes in order.

    Args:
        frame: the kernel.
        folds: its reductions.
        stored: positions of the outputs that have the domain's shape.
        row_of: the domain's shape where rows may be saved from pass to pass.
    """
    depth, stored = _depths(frame), list(stored)
    outputs = frame.graph.outputs
    levels = [depth[fold.operands[0]] for fold in folds] + [depth[outputs[k]] for k in stored]
    found = [Pass() for _ in range(max(levels, default=-1) + 1)]
    for fold in folds:
        found[depth[fold.operands[0]]].folds.append(fold)
    for k in stored:
        found[depth[outputs[k]]].stored.append(k)
    if row_of is not None:
        for eqn, level in _saved(frame, row_of, depth, [outputs[k] for k in stored]).items():
            found[level].saved.append(eqn)
    return [each for each in found if each.folds or each.stored]


def _saved(
    frame: Frame, shape: Shape, depth: Mapping[Operand, int], outputs: Iterable[Operand]
) -> dict[Eqn, int]:
    """Costly values of the domain's shape that several passes use, and the first of these."""
    users: dict[Operand, set[int]] = {output: {depth[output]} for output in outputs}
    found: dict[Eqn, int] = {}
    for eqn in reversed(frame.graph.eqns):
        levels = set().union(*(users.get(result, ()) for result in eqn.results))
        if isinstance(eqn.op.body, Fold):
            levels = {depth[eqn.operands[0]]}
        elif len(levels) > 1 and _is_costly(eqn) and eqn.result.aval.shape == shape:
            found[eqn] = min(levels)
            levels = {found[eqn]}
        for operand in eqn.operands:
            users.setdefault(operand, set()).update(levels)
    return dict(reversed(found.items()))


def _is_costly(eqn: Eqn) -> bool:
    return isinstance(eqn.op.body, Map) and not eqn.op.body.cheap


def write_pass(
    frame: Frame, work: Pass, full: Indices, reduced: Indices, shapes: tuple[Shape, Shape]
) -> tuple[list[Store], list[tuple[Value, Load]]]:
    """What a pass stores at a point, and from where later passes load the saved values.

    Args:
        frame: the kernel.
        work: what the pass does.
        full: indices into the domain.
        reduced: those of the reduced axes.
        shapes: the domain's shape, and that of its reduced axes.
    """
    stores: list[Store] = []
    rows: list[tuple[Value, Load]] = []
    outputs = {frame.graph.outputs[k]: frame.outputs[k] for k in reversed(work.stored)}
    for eqn in work.saved:
        value = eqn.result
        if value in outputs:
            rows.append((value, Load(outputs[value], full)))
            continue
        element = frame.elements.element(value, full)
        if not any(depends(element, var) for var in variables(reduced)):
            continue  # one value for the whole row: it is computed before the loops
        row = frame.new_scratch(value.name or "row", value.aval.dtype, shapes[1])
        stores.append(Store(row, reduced, element))
        rows.append((value, Load(row, reduced)))
    stores += [frame.store(k, shapes[0], full) for k in work.stored]
    return stores, rows


def join(reduced: Indices, reduces: Sequence[Reduce], stores: Sequence[Store]) -> list[Stmt]:
    """Reductions and stores over the same variables, as few passes as there are orders."""
    loop = variables(reduced)
    orders = dict.fromkeys(reduce.order for reduce in reduces)
    groups = [tuple(r for r in reduces if r.order == order) for order in orders]
    if not groups or not loop:
        return list(par(reduced, stores))
    body: list[Stmt] = []
    for group in groups[:-1]:
        body.append(group[0] if len(group) == 1 else Sweep(loop, group))
    last: tuple[Reduce | Store, ...] = (*groups[-1], *stores)
    body += last if len(last) == 1 else [Sweep(loop, last)]
    return body
