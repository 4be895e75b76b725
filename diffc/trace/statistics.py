"""Functions composed of others: covariances, blocks, deletions, polynomials."""

from __future__ import annotations

from typing import Any

import numpy as np

from diffc.errors import ShapeError, TraceError
from diffc.trace import operands as o
from diffc.trace.arguments import NotKnown, arg, known, lifted, tracer
from diffc.trace.indexing import OutOfBoundsError
from diffc.trace.location import line
from diffc.trace.shapes import atleast_2d, concatenate, ravel, reshape
from diffc.trace.table import FUNCTIONS, implements


@implements("cov")
def cov(
    m: Any, y: Any = None, rowvar: bool = True, bias: bool = False, ddof: int | None = None
) -> Any:
    """The covariance matrix of variables in rows (or columns)."""
    x: Any = atleast_2d(tracer(m, "np.cov"))
    if not rowvar and x.shape[0] != 1:
        x = x.T
    if y is not None:
        other: Any = atleast_2d(tracer(y, "np.cov"))
        x = concatenate([x, other if rowvar or other.shape[0] == 1 else other.T], 0)
    x = x if x.aval.is_float else x.astype(np.float64)
    degrees = (0 if bias else 1) if ddof is None else ddof
    centered = x - x.mean(axis=1, keepdims=True)
    found = centered @ centered.T / max(x.shape[1] - degrees, 0)
    return FUNCTIONS["squeeze"](found)


@implements("corrcoef")
def corrcoef(x: Any, y: Any = None, rowvar: bool = True) -> Any:
    """The correlation matrix."""
    c = cov(x, y, rowvar)
    if not c.shape:
        return c / c
    spread = FUNCTIONS["diagonal"](c) ** 0.5
    return FUNCTIONS["clip"](c / spread[:, None] / spread[None, :], -1, 1)


@implements("block")
def block(arrays: Any) -> Any:
    """Nested lists of blocks, the innermost joined along the last axis."""

    def depth(x: Any) -> int:
        return 1 + max(map(depth, x)) if isinstance(x, list) else 0

    deepest = depth(arrays)

    def rank(x: Any) -> int:
        return max(map(rank, x)) if isinstance(x, list) else len(arg(x).shape)

    total = max(deepest, rank(arrays))

    def joined(x: Any, level: int) -> Any:
        if isinstance(x, list):
            return concatenate([joined(item, level + 1) for item in x], level - deepest)
        a = tracer(x, "np.block")
        return reshape(a, (*(1 for _ in range(total - a.ndim)), *a.shape))

    return joined(arrays, 0)


@implements("delete")
def delete(arr: Any, obj: Any, axis: Any = None) -> Any:
    """Without the elements at positions that are known."""
    x = tracer(arr, "np.delete")
    if axis is None:
        x, axis = ravel(x), 0
    place = o.axis_of(axis, x.ndim)
    size: Any = x.shape[place]
    kept = np.delete(np.arange(size), _positions(obj, "np.delete"))
    return FUNCTIONS["take"](x, lifted(kept), axis=place)


@implements("insert")
def insert(arr: Any, obj: Any, values: Any, axis: Any = None) -> Any:
    """With values before one position that is known."""
    x = tracer(arr, "np.insert")
    if axis is None:
        x, axis = ravel(x), 0
    place = o.axis_of(axis, x.ndim)
    position = _positions(obj, "np.insert")
    if not isinstance(position, int):
        raise TraceError("np.insert at several positions can't be traced", location=line())
    new = tracer(values).astype(x.dtype)
    rest = tuple(dim for i, dim in enumerate(x.shape) if i != place)
    front = new.shape[0] if new.ndim == x.ndim else 1
    if new.ndim == x.ndim:
        shape = tuple(front if i == place else dim for i, dim in enumerate(x.shape))
        wide = FUNCTIONS["broadcast_to"](new, shape)
    else:
        row = FUNCTIONS["broadcast_to"](new, rest)
        wide = FUNCTIONS["expand_dims"](row, place)
    size: Any = x.shape[place]
    if not -size <= position <= size:
        raise OutOfBoundsError(
            f"np.insert: position {position} is out of bounds for axis {place} with size {size}",
            location=line(),
        )
    at = position + size if position < 0 else position
    before, after = FUNCTIONS["split"](x, [at], axis=place)
    return concatenate([before, wide, after], place)


def _positions(obj: Any, what: str) -> Any:
    try:
        found = known(obj)
    except NotKnown:
        raise TraceError(
            f"{what} at traced positions gives a shape that depends on values", location=line()
        ) from None
    return int(found) if isinstance(found, np.integer) else found


@implements("vander")
def vander(x: Any, N: int | None = None, increasing: bool = False) -> Any:
    """Powers of a vector as columns."""
    points: Any = tracer(x, "np.vander")
    if points.ndim != 1:
        raise ShapeError(f"np.vander needs a vector, not {points.aval}", location=line())
    count = points.shape[0] if N is None else N
    powers = [points**i for i in range(count)]
    return FUNCTIONS["stack"](powers if increasing else powers[::-1], 1)


@implements("bincount")
def bincount(x: Any, /, weights: Any = None, minlength: int = 0) -> Any:
    """How often each number occurs; numbers beyond a traced array's ``minlength`` are an error.

    Raises:
        TraceError: neither the numbers nor ``minlength`` are known.
    """
    index = tracer(x, "np.bincount")
    size = minlength
    try:
        size = max(minlength, int(known(index).max(initial=-1)) + 1)
    except NotKnown:
        if not minlength:
            raise TraceError(
                "np.bincount of a traced array: the number of bins is not known",
                location=line(),
                hint="give minlength=",
            ) from None
    dtype = np.int64 if weights is None else np.float64
    found = FUNCTIONS["zeros"](size, dtype)
    FUNCTIONS["__scatter__"](found, index, 1 if weights is None else weights, "add")
    return found


@implements("logaddexp.reduce")
def log_sum_exp(x: Any, axis: Any = 0, *, keepdims: bool = False) -> Any:
    """log(sum(exp(x))), from the largest element on."""
    a: Any = tracer(x)
    axes = o.axes_of(axis, a.ndim)
    largest = a.max(axis=axes, keepdims=True)
    finite = FUNCTIONS["where"](abs(largest) < np.inf, largest, 0.0).astype(a.dtype)
    total = FUNCTIONS["__operator__"](np.subtract, a, finite)
    total = np.log(np.exp(total).sum(axis=axes, keepdims=True)) + finite
    return total if keepdims else FUNCTIONS["squeeze"](total, axes)
