"""What runs along one axis: cumulative functions and sorting."""

from __future__ import annotations

from typing import Any

import numpy as np

from diffc.errors import ShapeError
from diffc.ir.aval import ANY, NUMBERS, Aval, wide
from diffc.ir.graph import literal
from diffc.ops.arithmetic import greater, less
from diffc.ops.avals import is_known_zero, need_axes, need_dtype
from diffc.ops.batching import along_axes
from diffc.ops.declare import Linear, Linearized, Special, Waived, Zero, op
from diffc.ops.generate import positions
from diffc.ops.term import GraphTerm, select

Array = np.ndarray[Any, Any]

_ON_SYMBOLS = Waived("its numpy facet runs on arrays of symbols")


def _cumsum_aval(x: Aval, *, axis: int, reverse: bool) -> Aval:
    need_dtype(0, x, NUMBERS)
    need_axes((axis,), x.ndim, x, "axis")
    return x


def _cumsum(x: Array, *, axis: int, reverse: bool) -> Array:
    source = np.flip(x, axis) if reverse else x
    result = np.cumsum(source, axis, dtype=wide(x.dtype)).astype(x.dtype, copy=False)
    return np.flip(result, axis) if reverse else result


cumsum = op(
    "cumsum",
    doc="Sums of the elements up to each one along `axis`; from the end if `reverse`.",
    aval=_cumsum_aval,
    numpy=_cumsum,
    sympy=_ON_SYMBOLS,
    derivative=Linear(
        lambda ct, operands, avals, params, index: ct.call(
            "cumsum", axis=params["axis"], reverse=not params["reverse"]
        )
    ),
    body=Special("cumulative"),
    params=("axis", "reverse"),
    dtypes=NUMBERS,
    batching=along_axes,
)


def _shifted(x: GraphTerm, axis: int, by: int, fill: Any) -> GraphTerm:
    """What lies ``by`` before each element along ``axis``, ``fill`` at the start."""
    shape = x.aval.shape
    ahead = tuple(by if k == axis else dim for k, dim in enumerate(shape))
    none, ones = (0,) * len(shape), (1,) * len(shape)
    stop = tuple(dim - by if k == axis else dim for k, dim in enumerate(shape))
    start = x.wrap(literal(fill, x.aval.with_shape(ahead)))
    return start.call("concat", x.call("slice", start=none, stop=stop, step=ones), axis=axis)


def _cumprod_jvp(
    operands: tuple[GraphTerm, ...],
    tangents: tuple[GraphTerm | None, ...],
    out: GraphTerm,
    params: Any,
) -> Any:
    """Products and their tangents of 1, 2, 4, ... elements up to each one."""
    (x,), (x_dot,), axis = operands, tangents, params["axis"]
    assert x_dot is not None
    size = x.aval.shape[axis]
    if not isinstance(size, int):
        raise ShapeError(f"cumprod: no derivative along a symbolic dimension, found {x.aval}")
    by = 1
    while by < size:
        before, before_dot = _shifted(x, axis, by, 1), _shifted(x_dot, axis, by, 0)
        x, x_dot = before * x, before_dot * x + before * x_dot
        by *= 2
    return x_dot


cumprod = op(
    "cumprod",
    doc="Products of the elements up to each one along `axis`; its derivative is exact at zeros.",
    aval=lambda x, *, axis: _cumsum_aval(x, axis=axis, reverse=False),
    numpy=lambda x, *, axis: np.cumprod(x, axis, dtype=wide(x.dtype)).astype(x.dtype, copy=False),
    sympy=_ON_SYMBOLS,
    derivative=Linearized(_cumprod_jvp, source="product rule, for 1, 2, 4, ... elements"),
    body=Special("cumulative"),
    params=("axis",),
    dtypes=NUMBERS,
    batching=along_axes,
)


def _taken_along(x: GraphTerm, places: GraphTerm, axis: int) -> GraphTerm:
    """For each place along an axis, the element that stands there."""
    shape = x.aval.shape
    indices = [places if k == axis else positions(x, shape, k) for k in range(len(shape))]
    return x.call("gather", *indices, axes=tuple(range(len(shape))), mode="clip")


def _running_extremum(name: str, doc: str, beats: str, choose: Any) -> None:
    def numpy(x: Array, *, axis: int) -> Array:
        result = np.array(x)
        rows = np.moveaxis(result, axis, 0)
        for row in range(1, len(rows)):
            rows[row] = choose(rows[row - 1], rows[row])
        return result

    def jvp(
        operands: tuple[GraphTerm, ...],
        tangents: tuple[GraphTerm | None, ...],
        out: GraphTerm,
        params: Any,
    ) -> Any:
        """The tangent of the element that is the extremum: the first of equal ones."""
        (x,), (x_dot,), axis = operands, tangents, params["axis"]
        assert x_dot is not None
        shape = x.aval.shape
        if any(is_known_zero(dim) for dim in shape):
            return x_dot
        before = _shifted(out, axis, 1, 0)
        is_new = x.call(beats, before) | (x.ne(x) & before.eq(before))
        place = positions(x, shape, axis)
        taken = select(is_new, place, 0).call("cummax", axis=axis)
        return _taken_along(x_dot, taken, axis)

    op(
        name,
        doc=doc,
        aval=lambda x, *, axis: _cumsum_aval(x, axis=axis, reverse=False),
        numpy=numpy,
        sympy=_ON_SYMBOLS,
        domain="distinct(x)",
        derivative=Linearized(jvp, source="the tangent of the extremum; of equal ones the first"),
        body=Special("cumulative"),
        params=("axis",),
        dtypes=NUMBERS,
        batching=along_axes,
    )


_running_extremum(
    "cummax",
    "Greatest element up to each one along `axis`; nan from a nan on.",
    "gt",
    greater,
)
_running_extremum(
    "cummin", "Least element up to each one along `axis`; nan from a nan on.", "lt", less
)


def _sortable(x: Array) -> Array:
    """Floats that NumPy sorts with nan last: it does not know the nan of bfloat16."""
    return x.astype(wide(x.dtype), copy=False)


def _sort_aval(x: Aval, *, axis: int) -> Aval:
    need_axes((axis,), x.ndim, x, "axis")
    return x


def _sort_jvp(
    operands: tuple[GraphTerm, ...],
    tangents: tuple[GraphTerm | None, ...],
    out: GraphTerm,
    params: Any,
) -> Any:
    (x,), (x_dot,), axis = operands, tangents, params["axis"]
    assert x_dot is not None
    return _taken_along(x_dot, x.call("argsort", axis=axis), axis)


sort = op(
    "sort",
    doc="Elements in increasing order along `axis`; nan last.",
    aval=_sort_aval,
    numpy=lambda x, *, axis: np.sort(_sortable(x), axis, kind="stable").astype(x.dtype, copy=False),
    sympy=_ON_SYMBOLS,
    domain="distinct(x)",
    derivative=Linearized(_sort_jvp, source="a permutation is linear: tangents in the same order"),
    body=Special("sort"),
    params=("axis",),
    dtypes=ANY,
    batching=along_axes,
)


def _argsort_aval(x: Aval, *, axis: int) -> Aval:
    need_axes((axis,), x.ndim, x, "axis")
    return x.with_dtype("i64")


argsort = op(
    "argsort",
    doc="Indices that sort along `axis`; equal elements keep their order.",
    aval=_argsort_aval,
    numpy=lambda x, *, axis: np.argsort(_sortable(x), axis, kind="stable"),
    sympy=_ON_SYMBOLS,
    derivative=Zero("its results are indices"),
    body=Special("sort"),
    params=("axis",),
    dtypes=ANY,
    batching=along_axes,
)
