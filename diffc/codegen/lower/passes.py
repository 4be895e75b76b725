"""Passes over the reduced axes of a row: what one sweep finds and stores.

Reductions that wait for no other stand in the first pass, those that wait for its results in the
second, and so on. An output of the domain's shape is stored by the first pass that knows it. A
costly value that several passes use is computed by the first of them: later ones load it from the
output that it is, else from a scratch row.

A reduction over rows rather than along them adds each row's elements to its partial results in
memory, in the pass that has the most of what they are made of.

Before: `m = max(x)`, `e = exp(x - m)`, `s = sum(e)`, `y = e / s`. After: a reduction for `m`; a
sweep that finds `s` and stores the row `e`; a loop that stores `y = e / s`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from diffc.codegen.loops.monoids import OPS
from diffc.codegen.loops.nodes import Buffer, Load, Reduce, Stmt, Store, Sweep
from diffc.codegen.loops.walk import depends
from diffc.codegen.lower.elements import Indices
from diffc.codegen.lower.frame import Frame, Shape, par, reindex, shape_of, variables
from diffc.codegen.lower.term import apply
from diffc.ir.graph import Eqn, Operand, Value
from diffc.ops.declare import Fold, Map

__all__ = ["Across", "Pass", "join", "passes", "write_pass"]


@dataclass(frozen=True, slots=True)
class Across:
    """A reduction over rows, and where a row's element is added to its partial results."""

    fold: Eqn
    partial: Buffer
    place: Indices


@dataclass(slots=True)
class Pass:
    """What one pass does.

    Attributes:
        folds: the reductions that it finds.
        saved: values of which it stores a row for later passes.
        stored: positions of the outputs that it stores.
        across: reductions over rows, to which it adds.
    """

    folds: list[Eqn] = field(default_factory=list)
    saved: list[Eqn] = field(default_factory=list)
    stored: list[int] = field(default_factory=list)
    across: list[Across] = field(default_factory=list)


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
    frame: Frame,
    folds: Iterable[Eqn],
    stored: Iterable[int],
    row_of: Shape | None,
    across: Sequence[Across] = (),
) -> list[Pass]:
    """The passes in order.

    Args:
        frame: the kernel.
        folds: its reductions along rows.
        stored: positions of the outputs that have the domain's shape.
        row_of: the domain's shape where rows may be saved from pass to pass.
        across: its reductions over rows.
    """
    depth, stored = _depths(frame), list(stored)
    outputs = frame.graph.outputs
    level_of = {fold: depth[fold.operands[0]] for fold in folds}
    levels = [*level_of.values(), *(depth[outputs[k]] for k in stored)]
    levels += [depth[each.fold.operands[0]] for each in across]
    last = max(levels, default=-1)
    found = [Pass() for _ in range(last + 1)]
    for fold, level in level_of.items():
        found[level].folds.append(fold)
    for k in stored:
        found[depth[outputs[k]]].stored.append(k)
    for each, level in _fitting(frame, level_of, depth, stored, across).items():
        found[level].across.append(each)
        level_of[each.fold] = level
    if row_of is not None:
        for eqn, level in _saved(frame, row_of, level_of, depth, stored).items():
            found[level].saved.append(eqn)
    return [each for each in found if each.folds or each.stored or each.across]


def _fitting(
    frame: Frame,
    level_of: Mapping[Eqn, int],
    depth: Mapping[Operand, int],
    stored: Iterable[int],
    across: Sequence[Across],
) -> dict[Across, int]:
    """The pass for each reduction over rows: where the least has to be computed or loaded anew.

    Of equal ones the first; a pass of its own only where there is none that is late enough.
    """
    computed: dict[int, set[Operand]] = {}
    for fold, level in level_of.items():
        computed.setdefault(level, set()).update(_row_values(fold.operands[0]))
    for k in stored:
        output = frame.graph.outputs[k]
        computed.setdefault(depth[output], set()).update(_row_values(output))
    found: dict[Across, int] = {}
    for each in across:
        (operand,) = each.fold.operands
        needed = _row_values(operand)
        late = [level for level in computed if level >= depth[operand]]
        found[each] = min(
            late or [depth[operand]],
            key=lambda level: (len(needed - computed.get(level, set())), level),
        )
        computed.setdefault(found[each], set()).update(needed)
    return found


def _row_values(operand: Operand) -> set[Operand]:
    """What a pass computes or loads for each element of a value: all but results of reductions."""
    found: set[Operand] = set()
    stack = [operand]
    while stack:
        value = stack.pop()
        if value in found or not isinstance(value, Value):
            continue
        found.add(value)
        if value.eqn is not None and not isinstance(value.eqn.op.body, Fold):
            stack += value.eqn.operands
    return found


def _saved(
    frame: Frame,
    shape: Shape,
    level_of: Mapping[Eqn, int],
    depth: Mapping[Operand, int],
    stored: Iterable[int],
) -> dict[Eqn, int]:
    """Costly values of the domain's shape that several passes use, and the first of these."""
    outputs = [frame.graph.outputs[k] for k in stored]
    users: dict[Operand, set[int]] = {output: {depth[output]} for output in outputs}
    found: dict[Eqn, int] = {}
    for eqn in reversed(frame.graph.eqns):
        levels = set().union(*(users.get(result, ()) for result in eqn.results))
        if isinstance(eqn.op.body, Fold):
            levels = {level_of[eqn]}
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
    stores += [_added(frame, each, full, shapes[0]) for each in work.across]
    return stores, rows


def _added(frame: Frame, across: Across, full: Indices, shape: Shape) -> Store:
    """Adds a point's element to the partial results of a reduction over rows."""
    (operand,), monoid = across.fold.operands, across.fold.op.body.monoid
    element = frame.elements.element(operand, reindex(full, shape, shape_of(operand)))
    element = apply("convert", element, dtype=across.partial.dtype)
    before = Load(across.partial, across.place)
    return Store(across.partial, across.place, apply(OPS[monoid], before, element))


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
