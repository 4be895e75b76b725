"""Movement: each element of the result is an element of an operand (or of a padding value).

The access functions say which, as ``ir.index`` expressions; so movement dissolves in kernels.
Windows have their own file.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import Any

import numpy as np

from diffc.errors import ShapeError
from diffc.ir.aval import ANY, Aval, aval
from diffc.ir.graph import literal
from diffc.ir.index import TRUE, Dim, eq, ge, is_nonnegative, lt, ravel, unravel
from diffc.ops import batching
from diffc.ops.avals import (
    is_known_zero,
    is_less,
    need_axes,
    need_dims,
    need_length,
    need_same_dtype,
    need_scalar,
    product,
    text,
)
from diffc.ops.declare import Linear, Move, Waived, op
from diffc.ops.term import GraphTerm, select

Array = np.ndarray[Any, Any]
Avals = tuple[Aval, ...]
Indices = Sequence[Any]

_ON_SYMBOLS = Waived("its numpy facet runs on arrays of symbols")


def zeros(near: GraphTerm, like: Aval) -> GraphTerm:
    """A zero of an aval, of the class and in the builder of another term."""
    return near.wrap(literal(0, like))


# --- reshape, transpose, broadcast, reverse ---------------------------------------------------


def _reshape_aval(x: Aval, *, shape: tuple[Dim, ...]) -> Aval:
    need_dims(shape)
    if product(shape) != x.size:
        raise ShapeError(
            f"operand 0 is {x} with {x.size} elements; shape {text(shape)} has {product(shape)}"
        )
    return x.with_shape(shape)


def _groups(source: Sequence[Dim], target: Sequence[Dim]) -> Iterator[tuple[slice, slice]]:
    """Runs of axes with equal products: each is reshaped by itself, so the indices stay simple."""
    i = j = 0
    while i < len(source) or j < len(target):
        first_i, first_j = i, j
        have: Dim = 1
        want: Dim = 1
        while have != want or (i, j) == (first_i, first_j):
            if i < len(source) and (is_nonnegative(want - have) or j == len(target)):
                have, i = have * source[i], i + 1
            elif j < len(target):
                want, j = want * target[j], j + 1
            else:
                break
        yield slice(first_i, i), slice(first_j, j)


def _reshape_access(indices: Indices, avals: Avals, params: Any) -> Any:
    source, target = avals[0].shape, params["shape"]
    read: list[Dim] = []
    for run, made_of in _groups(source, target):
        read += unravel(ravel(indices[made_of], target[made_of]), source[run])
    return ((0, tuple(read), TRUE),)


reshape = op(
    "reshape",
    doc="The elements in row-major order under another shape.",
    aval=_reshape_aval,
    numpy=lambda x, *, shape: x.reshape(shape),
    sympy=_ON_SYMBOLS,
    derivative=Linear(
        lambda ct, operands, avals, params, index: ct.call("reshape", shape=avals[0].shape)
    ),
    body=Move(_reshape_access),
    params=("shape",),
    dtypes=ANY,
    batching=batching.reshape,
)


def inverse(perm: Sequence[int]) -> tuple[int, ...]:
    """The permutation that undoes ``perm``."""
    return tuple(sorted(range(len(perm)), key=perm.__getitem__))


def _transpose_aval(x: Aval, *, perm: tuple[int, ...]) -> Aval:
    if sorted(perm) != list(range(x.ndim)):
        raise ShapeError(f"perm {perm} does not permute the {x.ndim} axes of operand 0, {x}")
    return x.with_shape(tuple(x.shape[axis] for axis in perm))


transpose = op(
    "transpose",
    doc="Axes reordered: axis k of the result is axis perm[k] of the operand.",
    aval=_transpose_aval,
    numpy=lambda x, *, perm: x.transpose(perm),
    sympy=_ON_SYMBOLS,
    derivative=Linear(
        lambda ct, operands, avals, params, index: ct.call(
            "transpose", perm=inverse(params["perm"])
        )
    ),
    body=Move(
        lambda indices, avals, params: (
            (0, tuple(indices[axis] for axis in inverse(params["perm"])), TRUE),
        )
    ),
    params=("perm",),
    dtypes=ANY,
    batching=batching.transpose,
)


def _broadcast_aval(x: Aval, *, shape: tuple[Dim, ...], axes: tuple[int, ...]) -> Aval:
    need_dims(shape)
    need_length("axes", axes, x.ndim, f"one for each axis of operand 0, {x}")
    need_axes(axes, len(shape), x)
    found = tuple(shape[axis] for axis in axes)
    if found != x.shape:
        raise ShapeError(
            f"operand 0 is {x}; needs shape {text(found)}, as shape {text(shape)} has at axes "
            f"{axes}"
        )
    return x.with_shape(shape)


def _broadcast(x: Array, *, shape: tuple[int, ...], axes: tuple[int, ...]) -> Array:
    kept = tuple(shape[axis] if axis in axes else 1 for axis in range(len(shape)))
    return np.broadcast_to(x.reshape(kept), shape)


def _broadcast_transpose(
    ct: GraphTerm, operands: Any, avals: Avals, params: Any, index: int
) -> Any:
    others = tuple(k for k in range(len(params["shape"])) if k not in params["axes"])
    return ct.call("sum", axes=others) if others else ct


broadcast = op(
    "broadcast",
    doc="New axes along which the operand repeats; its own axes become `axes` of the result.",
    aval=_broadcast_aval,
    numpy=_broadcast,
    sympy=_ON_SYMBOLS,
    derivative=Linear(_broadcast_transpose),
    body=Move(
        lambda indices, avals, params: ((0, tuple(indices[axis] for axis in params["axes"]), TRUE),)
    ),
    params=("shape", "axes"),
    dtypes=ANY,
    batching=batching.broadcast,
)


def _reverse_aval(x: Aval, *, axes: tuple[int, ...]) -> Aval:
    need_axes(axes, x.ndim, x)
    return x


def _reverse_access(indices: Indices, avals: Avals, params: Any) -> Any:
    shape, axes = avals[0].shape, params["axes"]
    flipped = (
        shape[axis] - 1 - index if axis in axes else index for axis, index in enumerate(indices)
    )
    return ((0, tuple(flipped), TRUE),)


reverse = op(
    "reverse",
    doc="The order of the elements turned around along `axes`.",
    aval=_reverse_aval,
    numpy=lambda x, *, axes: np.flip(x, axes),
    sympy=_ON_SYMBOLS,
    derivative=Linear(
        lambda ct, operands, avals, params, index: ct.call("reverse", axes=params["axes"])
    ),
    body=Move(_reverse_access),
    params=("axes",),
    dtypes=ANY,
    batching=batching.along_axes,
)


# --- slice, pad, concat -----------------------------------------------------------------------


def slice_length(start: Dim, stop: Dim, step: int) -> Dim:
    """How many of ``start, start + step, ...`` lie below ``stop``."""
    return (stop - start + (step - 1)) // step


def _slice_aval(
    x: Aval, *, start: tuple[Dim, ...], stop: tuple[Dim, ...], step: tuple[int, ...]
) -> Aval:
    for name, values in (("start", start), ("stop", stop), ("step", step)):
        need_length(name, values, x.ndim, f"one for each axis of operand 0, {x}")
    shape = []
    for axis, (low, high, stride) in enumerate(zip(start, stop, step, strict=True)):
        if stride < 1 or is_less(low, 0) or is_less(high, low) or is_less(x.shape[axis], high):
            raise ShapeError(
                f"operand 0 is {x}; {low}:{high}:{stride} on axis {axis} needs "
                f"0 <= start <= stop <= {x.shape[axis]} and step >= 1"
            )
        shape.append(slice_length(low, high, stride))
    return x.with_shape(tuple(shape))


def _slice(x: Array, *, start: Any, stop: Any, step: Any) -> Array:
    return x[tuple(map(slice, start, stop, step))]


def _slice_transpose(ct: GraphTerm, operands: Any, avals: Avals, params: Any, index: int) -> Any:
    interior = tuple(step - 1 for step in params["step"])
    high = []
    for dim, start, step, count in zip(
        avals[0].shape, params["start"], params["step"], ct.aval.shape, strict=True
    ):
        used = 0 if is_known_zero(count) else (count - 1) * step + 1
        high.append(dim - start - used)
    value = zeros(ct, aval(ct.aval.dtype))
    return ct.call("pad", value, low=params["start"], high=tuple(high), interior=interior)


def _slice_access(indices: Indices, avals: Avals, params: Any) -> Any:
    read = (
        start + index * step
        for index, start, step in zip(indices, params["start"], params["step"], strict=True)
    )
    return ((0, tuple(read), TRUE),)


slice_ = op(
    "slice",
    doc="Every step-th element from start up to, not including, stop, on each axis.",
    aval=_slice_aval,
    numpy=_slice,
    sympy=_ON_SYMBOLS,
    derivative=Linear(_slice_transpose),
    body=Move(_slice_access),
    params=("start", "stop", "step"),
    dtypes=ANY,
    batching=batching.slice_,
)


def padded_length(dim: Dim, low: Dim, high: Dim, interior: int) -> Dim:
    """Length of an axis after padding; a symbolic one counts as at least 1 for ``interior``."""
    return low + high + (dim if is_known_zero(dim) else dim + (dim - 1) * interior)


def _pad_aval(
    x: Aval, value: Aval, *, low: tuple[Dim, ...], high: tuple[Dim, ...], interior: tuple[int, ...]
) -> Aval:
    need_same_dtype(1, value, x)
    need_scalar(1, value, "the padding")
    for name, values in (("low", low), ("high", high), ("interior", interior)):
        need_length(name, values, x.ndim, f"one for each axis of operand 0, {x}")
        if any(is_less(width, 0) for width in values):
            raise ShapeError(f"{name} {values} needs widths >= 0")
    return x.with_shape(tuple(map(padded_length, x.shape, low, high, interior)))


def _within(x: Array, low: Any, interior: Any) -> tuple[slice, ...]:
    """Where the elements of ``x`` lie in the padded array."""
    return tuple(
        slice(start, start + (count - 1) * (gap + 1) + 1 if count else start, gap + 1)
        for start, count, gap in zip(low, x.shape, interior, strict=True)
    )


def _pad(x: Array, value: Array, *, low: Any, high: Any, interior: Any) -> Array:
    shape: Any = tuple(map(padded_length, x.shape, low, high, interior))
    result: Array = np.empty(shape, x.dtype)
    result[...] = value
    result[_within(x, low, interior)] = x
    return result


def _pad_transpose(ct: GraphTerm, operands: Any, avals: Avals, params: Any, index: int) -> Any:
    if index == 0:
        step = tuple(gap + 1 for gap in params["interior"])
        stop = tuple(
            low if is_known_zero(dim) else low + (dim - 1) * (gap + 1) + 1
            for dim, low, gap in zip(avals[0].shape, params["low"], params["interior"], strict=True)
        )
        return ct.call("slice", start=params["low"], stop=stop, step=step)
    inside = ct.wrap(literal(False, avals[0].with_dtype("bool")))
    outside = inside.call("pad", ct.wrap(literal(True, aval("bool"))), **params)
    return select(outside, ct, 0).call("sum", axes=tuple(range(ct.aval.ndim)))


def _pad_access(indices: Indices, avals: Avals, params: Any) -> Any:
    guard, read = TRUE, []
    for index, dim, low, gap in zip(
        indices, avals[0].shape, params["low"], params["interior"], strict=True
    ):
        offset = index - low
        guard &= ge(offset, 0) & lt(offset, dim + (dim - 1) * gap)
        if gap:
            guard &= eq(offset % (gap + 1), 0)
        read.append(offset // (gap + 1))
    return ((0, tuple(read), guard), (1, (), TRUE))


pad = op(
    "pad",
    doc="The operand with a value before, after and between its elements.",
    aval=_pad_aval,
    numpy=_pad,
    sympy=_ON_SYMBOLS,
    derivative=Linear(_pad_transpose),
    body=Move(_pad_access),
    params=("low", "high", "interior"),
    dtypes=ANY,
    batching=batching.pad,
)


def _concat_aval(*xs: Aval, axis: int) -> Aval:
    if not xs:
        raise ShapeError("found no operands; needs at least one")
    first = xs[0]
    need_axes((axis,), first.ndim, first, "axis")
    total: Dim = 0
    for position, x in enumerate(xs):
        need_same_dtype(position, x, first)
        if x.ndim != first.ndim or any(
            x.shape[k] != first.shape[k] for k in range(first.ndim) if k != axis
        ):
            raise ShapeError(
                f"operand {position} is {x}, but operand 0 is {first}; needs equal dimensions "
                f"except on axis {axis}"
            )
        total = total + x.shape[axis]
    return first.with_shape((*first.shape[:axis], total, *first.shape[axis + 1 :]))


def _offsets(avals: Avals, axis: int) -> tuple[Dim, ...]:
    """Where each operand begins, and where the last one ends."""
    lengths: list[Dim] = [x.shape[axis] for x in avals]
    return tuple(accumulate(lengths, initial=0))


def _concat_transpose(ct: GraphTerm, operands: Any, avals: Avals, params: Any, index: int) -> Any:
    axis = params["axis"]
    offsets = _offsets(avals, axis)
    start: list[Dim] = [0] * ct.aval.ndim
    stop = list(ct.aval.shape)
    start[axis], stop[axis] = offsets[index], offsets[index + 1]
    return ct.call("slice", start=tuple(start), stop=tuple(stop), step=(1,) * ct.aval.ndim)


def _concat_access(indices: Indices, avals: Avals, params: Any) -> Any:
    axis = params["axis"]
    offsets = _offsets(avals, axis)
    pieces = []
    for position in range(len(avals)):
        read = list(indices)
        read[axis] = indices[axis] - offsets[position]
        is_last = position == len(avals) - 1
        guard = TRUE if is_last else lt(indices[axis], offsets[position + 1])
        pieces.append((position, tuple(read), guard))
    return tuple(pieces)


concat = op(
    "concat",
    doc="The operands one after the other along `axis`.",
    aval=_concat_aval,
    numpy=lambda *xs, axis: np.concatenate(xs, axis),
    sympy=_ON_SYMBOLS,
    derivative=Linear(_concat_transpose),
    body=Move(_concat_access),
    params=("axis",),
    dtypes=ANY,
    batching=batching.concat,
)
