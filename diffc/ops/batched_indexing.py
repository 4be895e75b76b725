"""Batching of reads and writes at positions that are data.

Batched indices need to know which batch they belong to: an index along the batch axis joins them.
Blocks at starts that differ from batch to batch are gathers and scatters.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from diffc.ir.aval import SIGNED, aval
from diffc.ir.graph import literal
from diffc.ops.batching import Batched, from_front, shifted, to_front
from diffc.ops.generate import positions
from diffc.ops.term import GraphTerm

if TYPE_CHECKING:
    from diffc.ir.index import Dim


def gather(eqn: Batched) -> GraphTerm:
    """One gather; the operand's batch is one more indexed axis if the indices have a batch too."""
    x, axes = eqn.operands[0], eqn.params["axes"]
    if not any(eqn.mask[1:]):
        found = eqn.emit(eqn.operands, axes=shifted(axes))
        return to_front(found, eqn.operands[1].aval.ndim)
    indices = [eqn.front(k) for k in range(1, len(eqn.operands))]
    if not eqn.mask[0]:
        return eqn.emit((x, *indices))
    batch = positions(x, indices[0].aval.shape, 0)
    return eqn.emit((x, batch, *indices), axes=(0, *shifted(axes)))


def scatter(eqn: Batched) -> GraphTerm:
    """One scatter, likewise; batches are written in order, and never into one another."""
    axes = eqn.params["axes"]
    x, updates = eqn.front(0), eqn.front(1)
    if not any(eqn.mask[2:]):
        indices = eqn.operands[2:]
        moved = from_front(updates, indices[0].aval.ndim)
        return eqn.emit((x, moved, *indices), axes=shifted(axes))
    fronts = [eqn.front(k) for k in range(2, len(eqn.operands))]
    batch = positions(x, fronts[0].aval.shape, 0)
    return eqn.emit((x, updates, batch, *fronts), axes=(0, *shifted(axes)))


def _clamped(start: GraphTerm, most: Dim) -> GraphTerm:
    """A start moved into ``0 .. most``, as i64."""
    dtype = start.aval.dtype
    if dtype in SIGNED:
        start = start.call("maximum", 0)
    if not isinstance(most, int) or most <= np.iinfo(start.aval.numpy).max:
        start = start.call("minimum", most)
    return start if dtype == "i64" else start.call("convert", dtype="i64")


def _block(
    eqn: Batched, first: int, sizes: tuple[Dim, ...]
) -> tuple[tuple[int, ...], tuple[GraphTerm, ...]]:
    """The axes on which blocks of ``sizes`` lie inside operand 0, and the indices there.

    Indices have the batch first, then one axis for each of those axes.
    """
    shape = eqn.own_shape(0)
    axes = tuple(k for k, size in enumerate(sizes) if size != shape[k])
    extent = (eqn.size, *(sizes[k] for k in axes))
    indices = []
    for place, axis in enumerate(axes, 1):
        start = _clamped(eqn.front(first + axis), shape[axis] - sizes[axis])
        start = start.call("broadcast", shape=extent, axes=(0,))
        indices.append(start + positions(start, extent, place))
    return axes, tuple(indices)


def dynamic_slice(eqn: Batched) -> GraphTerm:
    """With one start for all, a block of the whole batch; else a gather."""
    x, sizes = eqn.operands[0], eqn.params["sizes"]
    if not any(eqn.mask[1:]):
        return eqn.emit((x, _zero(x), *eqn.operands[1:]), sizes=(eqn.size, *sizes))
    axes, indices = _block(eqn, 1, sizes)
    if not axes:
        return eqn.front(0)
    if eqn.mask[0]:
        batch = positions(x, indices[0].aval.shape, 0)
        axes, indices = (0, *shifted(axes)), (batch, *indices)
        found = x.call("gather", *indices, axes=axes, mode="clip")
        order = [axis - 1 for axis in axes[1:]]
    else:
        found = x.call("gather", *indices, axes=axes, mode="clip")
        order = list(axes)
    order += [k for k in range(len(sizes)) if k not in order]
    perm = (0, *(1 + order.index(k) for k in range(len(sizes))))
    return found.call("transpose", perm=perm)


def dynamic_update_slice(eqn: Batched) -> GraphTerm:
    """With one start for all, a block of the whole batch; else a scatter."""
    x, update = eqn.front(0), eqn.front(1)
    if not any(eqn.mask[2:]):
        return eqn.emit((x, update, _zero(x), *eqn.operands[2:]))
    sizes = update.aval.shape[1:]
    axes, indices = _block(eqn, 2, sizes)
    if not axes:
        return update
    others = (k for k in range(len(sizes)) if k not in axes)
    moved = update.call("transpose", perm=(0, *shifted((*axes, *others))))
    batch = positions(x, indices[0].aval.shape, 0)
    params: dict[str, Any] = {"axes": (0, *shifted(axes)), "mode": "drop", "combine": "set"}
    return x.call("scatter", moved, batch, *indices, **params)


def _zero(near: GraphTerm) -> GraphTerm:
    """The start of a block on the batch axis."""
    return near.wrap(literal(0, aval("i64")))
