"""Reductions over leading axes: sums of columns, alone or in the nest that computes the rows.

The rows are cut into blocks by the shape alone. A block folds its rows from the first to the last;
the partial results of the blocks are then folded in order. So threads have blocks to share. Of
short rows several are folded side by side: they are dealt to groups in turn. The bits are the same
in both forms:

- *Columns alone.* Each column of a block finds its partial result in a register, with what is
  stored on the way (``sweep``).
- *Beside reductions along the rows.* A block runs row by row, and each row adds its elements to
  partial results in memory, which stay in a cache near the core. So the gradient of a layer norm
  passes over its operands once.
"""

from __future__ import annotations

from dataclasses import dataclass

from diffc.codegen.loops.monoids import OPS, identity
from diffc.codegen.loops.nodes import (
    Buffer,
    Const,
    Expr,
    For,
    Load,
    Reduce,
    Scalar,
    Stmt,
    Store,
)
from diffc.codegen.lower.cuts import Cut, Piece, cut
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
from diffc.codegen.lower.passes import Across, join
from diffc.codegen.lower.rows import Rows, reduction, row_body, wide_dtype
from diffc.codegen.lower.term import apply
from diffc.ir.graph import Eqn, Operand
from diffc.plan.forms import block_rows, fold_axes, is_column_fold

__all__ = ["lower_columns"]


#: narrow rows are dealt to groups that have so many elements together at most: a few vectors, as
#: one alone would wait for each addition.
GROUPED = 64


@dataclass(frozen=True, slots=True)
class Layout:
    """The domain of a kernel with reductions over leading axes, which are one axis here.

    Attributes:
        rows: How many rows there are.
        groups: Row n belongs to group n modulo this; groups have partial results of their own.
        rest: The shape of a row, to which columns are reduced.
        along: Its number of last axes, along which rows are reduced too (0: none are).
    """

    rows: int
    groups: int
    rest: Shape
    along: int

    @property
    def row(self) -> Shape:
        """The shape of a row, or of those of all groups."""
        return (self.groups, *self.rest) if self.groups > 1 else self.rest

    @property
    def shape(self) -> Shape:
        """The shape of the domain."""
        return (self.rows // self.groups, *self.row)

    @property
    def between(self) -> Shape:
        """The axes of `row` along which rows are not reduced."""
        return self.row[: len(self.row) - self.along]

    def by_row(self) -> Rows:
        """The domain for the reductions along rows."""
        shape = self.shape
        start = len(shape) - self.along
        return Rows(shape, tuple(range(start, len(shape))), shape[:start])

    def cut(self) -> Cut:
        """The blocks of rows."""
        return cut(self.shape[:1], block_rows(size_of(self.row)))


@dataclass(frozen=True, slots=True)
class Parts:
    """What the kernel computes: reductions and positions of outputs, by where they belong."""

    columns: list[Eqn]
    folds: list[Eqn]
    full: list[int]
    by_row: list[int]
    after: list[int]


def lower_columns(frame: Frame, folds: list[Eqn]) -> tuple[Stmt, ...]:
    """The blocks, then what follows from the reductions over them."""
    columns = [fold for fold in folds if is_column_fold(fold)]
    others = [fold for fold in folds if not is_column_fold(fold)]
    layout = _layout(columns[0], others[0] if others else None)
    parts = _parts(frame, layout, columns, others)
    body = _row_by_row(frame, layout, parts) if others else _by_columns(frame, layout, parts)
    return (*body, *_anywhere(frame, parts))


def _layout(column: Eqn, fold: Eqn | None) -> Layout:
    """The domain of both kinds of reductions; how rows are dealt follows from ``column`` alone."""
    shape, count = shape_of(column.operands[0]), _reduced_size(column)
    lead = _axes_of(shape, count)
    assert lead is not None, "a reduction over leading axes"
    rest, along = shape[lead:], 0
    if fold is not None:
        length = _reduced_size(fold)
        axes = _axes_of(rest[::-1], length)
        if axes is None:
            rest, axes = (size_of(rest) // length, length), 1
        along = axes
    return Layout(count, _groups(count, size_of(rest)), rest, along)


def _groups(rows: int, columns: int) -> int:
    """Into how many groups rows are dealt: a power of two that divides their number."""
    groups = 1
    while 2 * groups * columns <= GROUPED and rows % (2 * groups) == 0:
        groups *= 2
    return groups


def _reduced_size(fold: Eqn) -> int:
    shape = shape_of(fold.operands[0])
    return size_of(shape[axis] for axis in fold_axes(fold))


def _axes_of(shape: Shape, size: int) -> int | None:
    """How many first axes have so many elements together."""
    count, axis = 1, 0
    while count < size and axis < len(shape):
        count *= shape[axis]
        axis += 1
    return axis if count == size else None


def _parts(frame: Frame, layout: Layout, columns: list[Eqn], others: list[Eqn]) -> Parts:
    """Sorts the outputs by what they follow from."""
    follows: dict[Operand, set[Eqn]] = {}
    for eqn in frame.graph.eqns:
        found: set[Eqn] = set().union(*(follows.get(x, ()) for x in eqn.operands))
        if eqn in columns or eqn in others:
            found.add(eqn)
        follows.update(dict.fromkeys(eqn.results, found))
    parts = Parts(columns, others, [], [], [])
    size = layout.rows * size_of(layout.rest)
    for k, output in enumerate(frame.graph.outputs):
        reasons = follows.get(output, set())
        if not reasons.isdisjoint(columns):
            parts.after.append(k)
        elif size_of(shape_of(output)) == size:
            parts.full.append(k)
        elif reasons:
            parts.by_row.append(k)
    return parts


def _anywhere(frame: Frame, parts: Parts) -> list[Stmt]:
    """The outputs that are neither of the domain's shape nor follow from a reduction."""
    placed = {*parts.full, *parts.by_row, *parts.after}
    body: list[Stmt] = []
    for k, output in enumerate(frame.graph.outputs):
        if k not in placed:
            at = points("o", shape_of(output))
            body += par(at, [frame.store(k, shape_of(output), at)])
    return body


def _partials(frame: Frame, layout: Layout, parts: Parts, cut: Cut) -> dict[Eqn, Buffer]:
    shape = (*cut.chunks, *layout.row)
    return {fold: frame.new_scratch("partial", wide_dtype(fold), shape) for fold in parts.columns}


# --- columns alone ----------------------------------------------------------------------------


def _by_columns(frame: Frame, layout: Layout, parts: Parts) -> list[Stmt]:
    blocks = layout.cut()
    if size_of(blocks.chunks) == layout.groups == 1:
        (piece,) = blocks.pieces()
        at = points("j", layout.row)
        inside, found = _swept(frame, layout, parts, piece, at)
        for fold, value in found.items():
            frame.define_converted(fold.result, _result_place(layout, fold, at), value)
        stores = [frame.store(k, layout.rest, at) for k in parts.after]
        return list(par((*piece.outer, *at), [*inside, *stores]))
    partials = _partials(frame, layout, parts, blocks)
    body: list[Stmt] = []
    for piece in blocks.pieces():
        at = points("j", layout.row)
        with frame.elements.scope():
            inside, found = _swept(frame, layout, parts, piece, at)
        for fold, value in found.items():
            inside.append(Store(partials[fold], (*piece.partial, *at), value))
        body += par((*piece.outer, *at), inside)
    return [*body, *_joined(frame, layout, parts, partials, blocks)]


def _swept(
    frame: Frame, layout: Layout, parts: Parts, piece: Piece, at: Indices
) -> tuple[list[Stmt], dict[Eqn, Expr]]:
    """One pass over the rows of a block at a column, and what it finds."""
    full = (*piece.full, *at)
    found = {
        fold: reduction(frame, fold, layout.shape, full, piece.inner) for fold in parts.columns
    }
    stores = [frame.store(k, layout.shape, full) for k in parts.full]
    inside = join(piece.inner, [x for x in found.values() if isinstance(x, Reduce)], stores)
    values: dict[Eqn, Expr] = {}
    for fold, each in found.items():
        if isinstance(each, Reduce):
            values[fold] = each.target
        else:  # a block of one row, which a fold starts with nothing
            values[fold] = apply(OPS[fold.op.body.monoid], _start(fold), each)
    return inside, values


def _start(fold: Eqn) -> Const:
    """What a fold starts with."""
    dtype = wide_dtype(fold)
    return Const(dtype, identity(fold.op.body.monoid, dtype))


def _result_place(layout: Layout, fold: Eqn, at: Indices) -> Indices:
    return reindex(at, layout.rest, shape_of(fold.result))


def _joined(
    frame: Frame, layout: Layout, parts: Parts, partials: dict[Eqn, Buffer], blocks: Cut
) -> list[Stmt]:
    """Folds the partial results of blocks and groups, and stores what follows from that."""
    groups = (layout.groups,) if layout.groups > 1 else ()
    at, over = points("j", layout.rest), points("p", (*blocks.chunks, *groups))
    body: list[Stmt] = []
    for fold, partial in partials.items():
        value = Load(partial, (*over, *at))
        target = Scalar(frame.new_scalar(), partial.dtype)
        place = _result_place(layout, fold, at)
        if variables(over):
            monoid = fold.op.body.monoid
            body.append(Reduce(target, monoid, variables(over), value, "sequence"))
            frame.define_converted(fold.result, place, target)
        else:
            frame.define_converted(fold.result, place, value)
    return list(par(at, [*body, *(frame.store(k, layout.rest, at) for k in parts.after)]))


# --- beside reductions along the rows ---------------------------------------------------------


def _row_by_row(frame: Frame, layout: Layout, parts: Parts) -> list[Stmt]:
    blocks = layout.cut()
    partials = _partials(frame, layout, parts, blocks)
    piece, rows = blocks.whole(), layout.by_row()
    at = points("j", layout.row)
    starts = [
        Store(partial, (*piece.partial, *at), _start(fold)) for fold, partial in partials.items()
    ]
    between, reduced = points("m", layout.between), points("r", rows.reduced)
    added = [
        Across(fold, partial, (*piece.partial, *between, *reduced))
        for fold, partial in partials.items()
    ]
    with frame.elements.scope():
        kept = (*piece.full, *between)
        inside = row_body(frame, rows, kept, reduced, parts.folds, parts.full, parts.by_row, added)
        loop = _in_order(piece, list(par(between, inside)))
    body = list(par(piece.outer, [*par(at, starts), *loop]))
    return [*body, *_joined(frame, layout, parts, partials, blocks)]


def _in_order(piece: Piece, body: list[Stmt]) -> list[Stmt]:
    """A loop over the rows of a block."""
    for var in variables(piece.inner):
        body = [For(var, tuple(body), guard=piece.guard)]
    return body
