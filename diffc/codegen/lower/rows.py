"""Kernels with reductions: a nest over the kept points, with a few passes over each row.

One nest ``Par(kept) { statements; stores }``. The reductions along rows share a domain and its
reduced axes: what they and the full-shape outputs ask for is done in as few passes over a row as
there are reductions that wait for each other (``passes``). Reductions over leading axes, alone or
beside these, are lowered by ``columns``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal as Choice

from diffc.codegen.loops.contraction import accumulator
from diffc.codegen.loops.nodes import Expr, Monoid, Reduce, Scalar, Stmt
from diffc.codegen.lower.elements import Indices
from diffc.codegen.lower.frame import (
    Frame,
    Shape,
    par,
    points,
    reindex,
    shape_of,
    size_of,
    variables,
)
from diffc.codegen.lower.passes import Across, join, passes, write_pass
from diffc.codegen.lower.term import apply, constant
from diffc.errors import InternalError
from diffc.ir.graph import Eqn, Operand
from diffc.ops.declare import Fold
from diffc.plan.forms import fold_axes

#: reductions whose result is a position.
POSITIONS: frozenset[Monoid] = frozenset({"argmax", "argmin"})


def is_fold(eqn: Eqn) -> bool:
    """Whether the equation reduces axes."""
    return isinstance(eqn.op.body, Fold)


def order_of(eqn: Eqn) -> Choice["lanes", "sequence"]:
    """The order of a reduction, a function of the equation alone: along rows by lanes."""
    shape = shape_of(eqn.operands[0])
    long = [axis for axis, n in enumerate(shape) if n != 1]
    return "lanes" if not long or long[-1] in fold_axes(eqn) else "sequence"


def wide_dtype(eqn: Eqn) -> str:
    """The dtype in which partial results of a reduction are kept: 16 bits in f32."""
    return accumulator(eqn.result.aval.dtype)


@dataclass(frozen=True, slots=True)
class Rows:
    """The domain of a kernel with reductions.

    ``shape`` is that of the reduced operand, ``axes`` are reduced; ``kept`` the shape of results.
    """

    shape: Shape
    axes: tuple[int, ...]
    kept: Shape

    @property
    def reduced(self) -> Shape:
        """Extents of the reduced axes."""
        return tuple(self.shape[axis] for axis in self.axes)

    def join(self, kept: Indices, reduced: Indices) -> Indices:
        """The indices of the domain."""
        rest, inner = iter(kept), iter(reduced)
        return tuple(next(inner if k in self.axes else rest) for k in range(len(self.shape)))


def rows_of(eqn: Eqn) -> Rows:
    """The domain that a reduction asks for."""
    shape, axes = shape_of(eqn.operands[0]), fold_axes(eqn)
    return Rows(shape, axes, shape_of(eqn.result))


def lower_rows(frame: Frame, folds: list[Eqn]) -> tuple[Stmt, ...]:
    """The kept points; at each, the reductions in the order of the graph, then the stores."""
    rows = rows_of(folds[0])
    kept, reduced = points("i", rows.kept), points("r", rows.reduced)
    outputs = frame.graph.outputs
    inner = [k for k, output in enumerate(outputs) if is_full(output, rows)]
    outer = [k for k in range(len(outputs)) if k not in inner]
    return tuple(par(kept, row_body(frame, rows, kept, reduced, folds, inner, outer)))


def row_body(
    frame: Frame,
    rows: Rows,
    kept: Indices,
    reduced: Indices,
    folds: Sequence[Eqn],
    inner: Sequence[int],
    outer: Sequence[int],
    across: Sequence[Across] = (),
) -> list[Stmt]:
    """What is done at one kept point: the passes over its row, then the stores of its results.

    Args:
        frame: The kernel.
        rows: The domain.
        kept: The point.
        reduced: Indices of the row.
        folds: The reductions along the row.
        inner: Positions of the outputs of the domain's shape.
        outer: Positions of the outputs that have one element here.
        across: Reductions over rows, to which this row adds its elements.
    """
    full, shapes = rows.join(kept, reduced), (rows.shape, rows.reduced)
    body: list[Stmt] = []
    saves = rows.shape if variables(reduced) else None
    for work in passes(frame, folds, inner, saves, across):
        with frame.elements.scope():
            found = [reduction(frame, eqn, rows.shape, full, reduced) for eqn in work.folds]
            stores, saved = write_pass(frame, work, full, reduced, shapes)
        body += join(reduced, [each for each in found if isinstance(each, Reduce)], stores)
        for value, load in saved:
            frame.elements.define(value, full, load)
        for eqn, each in zip(work.folds, found, strict=True):
            target = each.target if isinstance(each, Reduce) else each
            at = reindex(kept, rows.kept, shape_of(eqn.result))
            frame.define_converted(eqn.result, at, target)
    return body + [frame.store(k, rows.kept, kept) for k in outer]


def reduction(
    frame: Frame,
    eqn: Eqn,
    shape: Shape,
    full: Indices,
    reduced: Indices,
) -> Reduce | Expr:
    """The statement that reduces over the variables in ``reduced``, or the value if there are none.

    ``full`` are indices into ``shape``, the domain. What is found is of ``wide_dtype``.
    """
    operand, monoid = eqn.operands[0], eqn.op.body.monoid
    element = frame.elements.element(operand, reindex(full, shape, shape_of(operand)))
    element = apply("convert", element, dtype=accumulator(element.dtype))
    loop = variables(reduced)
    if not loop:
        return constant("i64", 0) if monoid in POSITIONS else element
    target = Scalar(frame.new_scalar(), wide_dtype(eqn))
    return Reduce(target, monoid, loop, element, order_of(eqn))


def is_full(output: Operand, rows: Rows) -> bool:
    """Whether an output has the shape of the domain; else it has that of the reductions."""
    if output.aval.shape == rows.kept:
        return False
    count = size_of(shape_of(output))
    if output.aval.shape == rows.shape:
        return True
    if count == size_of(rows.kept):
        return False
    if count != size_of(rows.shape):
        raise InternalError(f"output {output!r} fits neither {rows.shape} nor {rows.kept}")
    return True
