"""Reads and writes at positions that are data: gather, scatter, dynamic slices.

Indices count from 0 and are never negative by meaning (the tracer normalizes them); what is out of
bounds is clipped, skipped or an error, by ``mode``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from diffc.errors import ExecutionError, ShapeError
from diffc.ir.aval import ANY, INTEGERS, NUMBERS, Aval, aval
from diffc.ir.graph import literal
from diffc.ops import batched_indexing
from diffc.ops.avals import (
    is_known_zero,
    is_less,
    need_axes,
    need_dtype,
    need_length,
    need_same_dtype,
    need_scalar,
    need_shape,
    product,
)
from diffc.ops.declare import (
    ByParams,
    Fact,
    Linear,
    Linearized,
    Special,
    Undefined,
    Waived,
    op,
)
from diffc.ops.generate import positions
from diffc.ops.movement import zeros
from diffc.ops.term import GraphTerm, select

if TYPE_CHECKING:
    from diffc.ir.index import Dim

Array = np.ndarray[Any, Any]
Avals = tuple[Aval, ...]
Axes = tuple[int, ...]
Terms = tuple[GraphTerm | None, ...]

_ON_SYMBOLS = Waived("its numpy facet runs on arrays of symbols")
GATHER_MODES = ("clip", "fill", "check")
SCATTER_MODES = ("drop", "check")
COMBINES = ("set", "add", "mul", "min", "max")


def _need_choice(name: str, found: str, choices: tuple[str, ...]) -> None:
    if found not in choices:
        raise ShapeError(f"{name} {found!r} is not known; needs one of {', '.join(choices)}")


def _need_indices(first: int, indices: Avals, axes: Axes, x: Aval) -> tuple[Dim, ...]:
    """Checks the index operands, of which operand ``first`` is the first; their common shape."""
    need_axes(axes, x.ndim, x)
    if not axes:
        raise ShapeError("axes () needs at least one axis")
    if len(indices) != len(axes):
        raise ShapeError(f"found {len(indices)} index operands; needs one for each of axes {axes}")
    for k, index in enumerate(indices):
        need_dtype(first + k, index, INTEGERS)
        need_shape(first + k, index, indices[0].shape, f"as operand {first}")
    return indices[0].shape


def _rest(x: Aval, axes: Axes) -> tuple[Dim, ...]:
    return tuple(dim for axis, dim in enumerate(x.shape) if axis not in axes)


def _front(x: Array, axes: Axes) -> Array:
    """A view with the indexed axes first."""
    return np.moveaxis(x, axes, tuple(range(len(axes))))


def _inside(x: Array, indices: tuple[Array, ...], axes: Axes, mode: str) -> Array:
    """Which indices are in bounds; with mode "check" they all must be."""
    inside = np.ones(indices[0].shape, np.bool_)
    for axis, index in zip(axes, indices, strict=True):
        inside &= (index >= 0) & (index < x.shape[axis])
    if mode == "check" and not inside.all():
        raise ExecutionError("an index is out of bounds")
    return inside


# --- gather -----------------------------------------------------------------------------------


def _gather_aval(x: Aval, *indices: Aval, axes: Axes, mode: str) -> Aval:
    _need_choice("mode", mode, GATHER_MODES)
    shape = _need_indices(1, indices, axes, x)
    for axis in axes:
        if mode == "clip" and is_known_zero(x.shape[axis]) and not any(map(is_known_zero, shape)):
            raise ShapeError(f"operand 0 is {x}: nothing to read on axis {axis}")
    return x.with_shape(shape + _rest(x, axes))


def _clipped(x: Array, indices: tuple[Array, ...], axes: Axes) -> tuple[Array, ...]:
    return tuple(
        np.clip(index.astype(np.int64) if index.dtype != np.uint64 else index, 0, bound)
        for index, bound in zip(indices, (max(x.shape[a] - 1, 0) for a in axes), strict=True)
    )


def _gather(x: Array, *indices: Array, axes: Axes, mode: str) -> Array:
    inside = _inside(x, indices, axes, mode)
    front = _front(x, axes)
    if not inside.size or any(x.shape[axis] == 0 for axis in axes):
        return np.zeros(inside.shape + front.shape[len(axes) :], x.dtype)
    found = np.asarray(front[_clipped(x, indices, axes)])
    if mode == "fill" and not inside.all():
        found = found.copy()  # indexing by scalars gives a view
        found[~inside] = 0
    return found


def _clip_term(index: GraphTerm, dim: Dim) -> GraphTerm:
    """An index moved into ``0 .. dim-1``."""
    if not isinstance(dim, int):
        raise ShapeError(f"gather: transposing mode clip needs a known dimension, found {dim}")
    low = index.call("maximum", 0) if index.aval.dtype.startswith("i") else index
    if dim - 1 > np.iinfo(index.aval.numpy).max:
        return low
    return low.call("minimum", dim - 1)


def _gather_transpose(ct: GraphTerm, operands: Terms, avals: Avals, params: Any, index: int) -> Any:
    axes, x = params["axes"], avals[0]
    indices = [term for term in operands[1:] if term is not None]
    if params["mode"] == "clip":
        indices = [_clip_term(i, x.shape[axis]) for i, axis in zip(indices, axes, strict=True)]
    return zeros(ct, x).call("scatter", ct, *indices, axes=axes, mode="drop", combine="add")


gather = op(
    "gather",
    doc="Elements (or slices) at index arrays: result[i.., r..] = x at indices[..][i..] and r...",
    aval=_gather_aval,
    numpy=_gather,
    sympy=_ON_SYMBOLS,
    derivative=Linear(_gather_transpose, operands=(0,)),
    body=Special("gather"),
    params=("axes", "mode"),
    dtypes=ANY,
    batching=batched_indexing.gather,
)


# --- scatter ----------------------------------------------------------------------------------


def _scatter_aval(
    x: Aval, updates: Aval, *indices: Aval, axes: Axes, mode: str, combine: str
) -> Aval:
    _need_choice("mode", mode, SCATTER_MODES)
    _need_choice("combine", combine, COMBINES)
    if combine != "set":
        need_dtype(0, x, NUMBERS)
    need_same_dtype(1, updates, x)
    shape = _need_indices(2, indices, axes, x)
    need_shape(1, updates, shape + _rest(x, axes), "that of the indices and the other axes")
    return x


_AT: Mapping[str, Any] = {
    "add": np.add,
    "mul": np.multiply,
    "min": np.minimum,
    "max": np.maximum,
}


def _scatter(
    x: Array, updates: Array, *indices: Array, axes: Axes, mode: str, combine: str
) -> Array:
    inside = _inside(x, indices, axes, mode)
    result = x.copy()
    where = tuple(np.asarray(index)[inside] for index in indices)
    chosen = updates[inside]
    if combine == "set":
        _front(result, axes)[where] = chosen
    else:
        _AT[combine].at(_front(result, axes), where, chosen)
    return result


def _last_writer(near: GraphTerm, indices: list[GraphTerm], x: Aval, axes: Axes) -> Any:
    """Which of the writes of a scatter is the last one at its position: bool[indices' shape]."""
    shape = indices[0].aval.shape
    numbers = positions(near, (product(shape),), 0).call("reshape", shape=shape)
    board = aval("i64", tuple(x.shape[axis] for axis in axes))
    all_axes = tuple(range(len(axes)))
    none = GraphTerm(near.builder, literal(-1, board))
    written = none.call("scatter", numbers, *indices, axes=all_axes, mode="drop", combine="set")
    return written.call("gather", *indices, axes=all_axes, mode="fill").eq(numbers)


def _scatter_transpose(
    ct: GraphTerm, operands: Terms, avals: Avals, params: Any, index: int
) -> Any:
    """Of "add" and "set"; a check has been made by the primal, so here nothing is checked."""
    x, updates, axes = avals[0], avals[1], params["axes"]
    indices = [term for term in operands[2:] if term is not None]
    if index == 0:
        if params["combine"] == "add":
            return ct
        nothing = zeros(ct, updates)
        return ct.call("scatter", nothing, *indices, axes=axes, mode="drop", combine="set")
    found = ct.call("gather", *indices, axes=axes, mode="fill")
    shape = indices[0].aval.shape
    if params["combine"] == "add" or product(shape) == 1:
        return found
    wins = _last_writer(ct, indices, x, axes)
    if found.aval.shape != shape:
        kept = tuple(range(len(shape)))
        wins = wins.call("broadcast", shape=found.aval.shape, axes=kept)
    return select(wins, found, 0)


def _scatter_extremum_jvp(
    operands: tuple[GraphTerm, ...], tangents: Terms, out: GraphTerm, params: Any
) -> Any:
    """The mean of the tangents of those, old elements and updates, that attain the extremum."""
    x, updates, *indices = operands
    x_dot, updates_dot, *_ = tangents
    dtype, axes = x.aval.dtype, params["axes"]

    def add_up(first: GraphTerm, second: GraphTerm) -> GraphTerm:
        return first.call("scatter", second, *indices, axes=axes, mode="drop", combine="add")

    stays = x.eq(out)
    attains = updates.eq(out.call("gather", *indices, axes=axes, mode="fill"))
    count = add_up(stays.call("convert", dtype=dtype), attains.call("convert", dtype=dtype))
    total = zeros(x, x.aval) if x_dot is None else select(stays, x_dot, 0)
    if updates_dot is not None:
        total = add_up(total, select(attains, updates_dot, 0))
    return total / count


_SCATTER_LINEAR = Linear(_scatter_transpose, operands=(0, 1))
_SCATTER_EXTREMUM = Linearized(_scatter_extremum_jvp, source="as max and min; ties: the mean")
_SCATTER_MUL = Undefined(
    "scatter with combine mul has no derivative rule; multiply gathered factors, then scatter"
)


def _scatter_fact(params: Mapping[str, Any]) -> Fact:
    combine = params["combine"]
    if combine in ("set", "add"):
        return _SCATTER_LINEAR
    return _SCATTER_MUL if combine == "mul" else _SCATTER_EXTREMUM


scatter = op(
    "scatter",
    doc="Writes updates at index arrays: set (the last writer wins), add, mul, min or max.",
    aval=_scatter_aval,
    numpy=_scatter,
    sympy=_ON_SYMBOLS,
    derivative=ByParams(_scatter_fact),
    body=Special("scatter"),
    params=("axes", "mode", "combine"),
    dtypes=ANY,
    batching=batched_indexing.scatter,
)


# --- dynamic slices ---------------------------------------------------------------------------


def _need_starts(first: int, starts: Avals, x: Aval) -> None:
    if len(starts) != x.ndim:
        raise ShapeError(f"found {len(starts)} starts; needs one for each axis of operand 0, {x}")
    for k, start in enumerate(starts):
        need_dtype(first + k, start, INTEGERS)
        need_scalar(first + k, start, "a start")


def _dynamic_slice_aval(x: Aval, *starts: Aval, sizes: tuple[Dim, ...]) -> Aval:
    _need_starts(1, starts, x)
    need_length("sizes", sizes, x.ndim, f"one for each axis of operand 0, {x}")
    if any(
        is_less(size, 0) or is_less(dim, size) for dim, size in zip(x.shape, sizes, strict=True)
    ):
        raise ShapeError(f"sizes {sizes} do not fit in operand 0, {x}")
    return x.with_shape(sizes)


def _region(x: Array, starts: tuple[Array, ...], sizes: tuple[int, ...]) -> tuple[slice, ...]:
    """The slice of ``sizes`` at ``starts``, moved into ``x``."""
    clamped = (
        min(max(int(start), 0), dim - size)
        for start, dim, size in zip(starts, x.shape, sizes, strict=True)
    )
    return tuple(slice(start, start + size) for start, size in zip(clamped, sizes, strict=True))


dynamic_slice = op(
    "dynamic_slice",
    doc="The block of `sizes` at starts, which are moved so that it lies inside.",
    aval=_dynamic_slice_aval,
    numpy=lambda x, *starts, sizes: x[_region(x, starts, sizes)],
    sympy=_ON_SYMBOLS,
    derivative=Linear(
        lambda ct, operands, avals, params, index: zeros(ct, avals[0]).call(
            "dynamic_update_slice", ct, *operands[1:]
        ),
        operands=(0,),
    ),
    body=Special("dynamic_slice"),
    params=("sizes",),
    dtypes=ANY,
    batching=batched_indexing.dynamic_slice,
)


def _dynamic_update_slice_aval(x: Aval, update: Aval, *starts: Aval) -> Aval:
    need_same_dtype(1, update, x)
    _need_starts(2, starts, x)
    if update.ndim != x.ndim or any(map(is_less, x.shape, update.shape)):
        raise ShapeError(f"operand 1 is {update}; needs to fit in operand 0, {x}")
    return x


def _dynamic_update_slice(x: Array, update: Array, *starts: Array) -> Array:
    result = x.copy()
    result[_region(x, starts, update.shape)] = update
    return result


def _dynamic_update_slice_transpose(
    ct: GraphTerm, operands: Terms, avals: Avals, params: Any, index: int
) -> GraphTerm:
    starts = operands[2:]
    if index == 0:
        return ct.call("dynamic_update_slice", zeros(ct, avals[1]), *starts)
    return ct.call("dynamic_slice", *starts, sizes=avals[1].shape)


dynamic_update_slice = op(
    "dynamic_update_slice",
    doc="The first operand with a block at starts replaced by the second.",
    aval=_dynamic_update_slice_aval,
    numpy=_dynamic_update_slice,
    sympy=_ON_SYMBOLS,
    derivative=Linear(_dynamic_update_slice_transpose, operands=(0, 1)),
    body=Special("dynamic_update_slice"),
    dtypes=ANY,
    batching=batched_indexing.dynamic_update_slice,
)
