"""Reductions of everything, where everything is much: two levels.

The domain is cut into chunks by its shape alone. One nest over the chunks finds a partial result of
each reduction, and stores those full-shape outputs that wait for no reduction of this level; then
the partial results are reduced. Reductions that need others' results follow in a nest of their own.
"""

from __future__ import annotations

from diffc.codegen.loops.nodes import Buffer, Load, Reduce, Scalar, Stmt, Store
from diffc.codegen.lower.cuts import Piece, cut
from diffc.codegen.lower.frame import Frame, par, points, size_of, variables
from diffc.codegen.lower.passes import Pass, join, passes, write_pass
from diffc.codegen.lower.rows import (
    POSITIONS,
    Rows,
    is_full,
    order_of,
    reduction,
    rows_of,
    wide_dtype,
)
from diffc.ir.graph import Eqn

#: beyond this many elements, a reduction of everything runs in chunks.
LARGE = 16384
#: about how many elements a chunk has.
CHUNK = 4096
#: chunks of one axis are multiples of this, which every vector length divides.
_ALIGNED = 64


def is_chunked(folds: list[Eqn]) -> bool:
    """Whether reductions run in chunks."""
    rows = rows_of(folds[0])
    return size_of(rows.kept) == 1 and size_of(rows.shape) > LARGE


def lower_chunks(frame: Frame, folds: list[Eqn]) -> tuple[Stmt, ...]:
    """One nest a level of reductions that wait for each other; then what waits for all."""
    rows = rows_of(folds[0])
    outputs = frame.graph.outputs
    full = [k for k, output in enumerate(outputs) if is_full(output, rows)]
    body: list[Stmt] = []
    for work in passes(frame, folds, full, None):
        if work.folds:
            body += _level(frame, rows, work)
        else:
            at = points("i", rows.shape)
            body += par(at, [frame.store(k, rows.shape, at) for k in work.stored])
    at = points("i", rows.kept)
    body += [frame.store(k, rows.kept, at) for k in range(len(outputs)) if k not in full]
    return tuple(body)


def _level(frame: Frame, rows: Rows, work: Pass) -> list[Stmt]:
    """A nest that finds partial results of reductions, then the reductions of these."""
    body: list[Stmt] = []
    sums = [fold for fold in work.folds if fold.op.body.monoid not in POSITIONS]
    chunks = cut(rows.shape, CHUNK, _ALIGNED)
    partials: dict[Eqn, Buffer] = {}
    for fold in sums:
        partials[fold] = frame.new_scratch("partial", wide_dtype(fold), chunks.chunks)
    for piece in chunks.pieces():
        with frame.elements.scope():
            body += _nest(frame, rows, piece, partials, work)
    whole = points("r", rows.shape)
    zero = (0,) * len(rows.kept)
    for fold in work.folds:
        if fold in partials:
            at = points("p", chunks.chunks)
            dtype = partials[fold].dtype
            target = Scalar(frame.new_scalar(), dtype)
            element = Load(partials[fold], at)
            monoid, order = fold.op.body.monoid, order_of(fold)
            body.append(Reduce(target, monoid, variables(at), element, order))
            frame.define_converted(fold.result, zero, target)
        else:
            found = reduction(frame, fold, rows.shape, whole, whole)
            assert isinstance(found, Reduce)
            body.append(found)
            frame.elements.define(fold.result, zero, found.target)
    return body


def _nest(
    frame: Frame, rows: Rows, piece: Piece, partials: dict[Eqn, Buffer], work: Pass
) -> list[Stmt]:
    """The loop over the chunks of one size."""
    found = {
        buffer: reduction(frame, eqn, rows.shape, piece.full, piece.inner)
        for eqn, buffer in partials.items()
    }
    stores, _ = write_pass(frame, work, piece.full, piece.inner, (rows.shape, piece.extents))
    reduces = [each for each in found.values() if isinstance(each, Reduce)]
    inside = join(piece.inner, reduces, stores)
    for buffer, each in found.items():
        value = each.target if isinstance(each, Reduce) else each
        inside.append(Store(buffer, piece.partial, value))
    return list(par(piece.outer, inside))
