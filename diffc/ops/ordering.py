"""What runs along one axis: cumulative sums and sorting."""

from __future__ import annotations

from typing import Any

import numpy as np

from diffc.ir.aval import ANY, NUMBERS, Aval
from diffc.ops.avals import need_axes, need_dtype
from diffc.ops.batching import along_axes
from diffc.ops.declare import Linear, Linearized, Special, Waived, Zero, op
from diffc.ops.generate import positions
from diffc.ops.reduction import wide
from diffc.ops.term import GraphTerm

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
    body=Special("cumsum"),
    params=("axis", "reverse"),
    dtypes=NUMBERS,
    batching=along_axes,
)


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
    order = x.call("argsort", axis=axis)
    indices = [order if k == axis else positions(x, x.aval.shape, k) for k in range(x.aval.ndim)]
    axes = tuple(range(x.aval.ndim))
    return x_dot.call("gather", *indices, axes=axes, mode="clip")


sort = op(
    "sort",
    doc="Elements in increasing order along `axis`; nan last.",
    aval=_sort_aval,
    numpy=lambda x, *, axis: np.sort(x, axis, kind="stable"),
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
    numpy=lambda x, *, axis: np.argsort(x, axis, kind="stable"),
    sympy=_ON_SYMBOLS,
    derivative=Zero("its results are indices"),
    body=Special("sort"),
    params=("axis",),
    dtypes=ANY,
    batching=along_axes,
)
