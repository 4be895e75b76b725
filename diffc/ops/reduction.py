"""Reductions over axes.

Sums and products keep the dtype; those of f16 and bf16 run in f32 and round once. ``max`` and
``min`` propagate nan and share the cotangent evenly among ties.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from diffc.errors import ShapeError
from diffc.ir.aval import BOOLS, NUMBERS, Aval, aval, wide
from diffc.ir.graph import literal
from diffc.ops.avals import is_known_zero, need_axes, need_dtype, product
from diffc.ops.declare import Fold, Linear, Linearized, Waived, Zero, op
from diffc.ops.term import GraphTerm, select

Array = np.ndarray[Any, Any]
Axes = tuple[int, ...]

_ON_SYMBOLS = Waived("its numpy facet runs on arrays of symbols")


def _reduce_rule(dtypes: frozenset[str], has_identity: bool) -> Callable[..., Aval]:
    """The aval rule of reductions: ``axes`` disappear."""

    def rule(x: Aval, *, axes: Axes) -> Aval:
        need_dtype(0, x, dtypes)
        need_axes(axes, x.ndim, x)
        if not has_identity and any(is_known_zero(x.shape[axis]) for axis in axes):
            raise ShapeError(f"operand 0 is {x}: no elements on axes {axes}, and no identity")
        return x.with_shape(tuple(dim for axis, dim in enumerate(x.shape) if axis not in axes))

    return rule


def spread(reduced: GraphTerm, x: Aval, axes: Axes) -> GraphTerm:
    """A reduced term repeated along the axes it lost."""
    kept = tuple(axis for axis in range(x.ndim) if axis not in axes)
    return reduced.call("broadcast", shape=x.shape, axes=kept) if axes else reduced


def _sum_transpose(
    ct: GraphTerm, operands: Any, avals: tuple[Aval, ...], params: Any, index: int
) -> Any:
    return spread(ct, avals[0], params["axes"])


def _sum(x: Array, *, axes: Axes) -> Array:
    return np.asarray(np.sum(x, axis=axes, dtype=wide(x.dtype))).astype(x.dtype, copy=False)


def _prod(x: Array, *, axes: Axes) -> Array:
    return np.asarray(np.prod(x, axis=axes, dtype=wide(x.dtype))).astype(x.dtype, copy=False)


sum_ = op(
    "sum",
    doc="Sum over axes.",
    aval=_reduce_rule(NUMBERS, has_identity=True),
    numpy=_sum,
    sympy=_ON_SYMBOLS,
    derivative=Linear(_sum_transpose),
    body=Fold("sum"),
    params=("axes",),
    dtypes=NUMBERS,
)


def _others(x: GraphTerm) -> Any:
    """Products of all elements but one, along the last axis, without any quotient.

    A tree: products of pairs going up; going down, what is outside a child is what is outside its
    parent times the other child. So zeros are exact, and so are derivatives of this formula.
    """
    *outer, length = x.aval.shape
    if not isinstance(length, int):
        raise ShapeError(f"prod: differentiating needs a known length, found {length}")
    depth = max(length - 1, 0).bit_length()
    one = GraphTerm(x.builder, literal(1, aval(x.aval.dtype)))
    none = (0,) * x.aval.ndim
    top = (0,) * len(outer) + ((1 << depth) - length,)
    level = x.call("pad", one, low=none, high=top, interior=none) if any(top) else x
    levels = []
    for step in range(depth):
        pairs = level.call("reshape", shape=(*outer, 1 << (depth - 1 - step), 2))
        levels.append(pairs)
        level = pairs.call("prod", axes=(len(outer) + 1,))
    outside = level.lift(1)
    for pairs in reversed(levels):
        kept = tuple(range(len(outer) + 1))
        parent = outside.call("broadcast", shape=pairs.aval.shape, axes=kept)
        outside = parent * pairs.call("reverse", axes=(len(outer) + 1,))
        outside = outside.call("reshape", shape=(*outer, 2 * parent.aval.shape[-2]))
    ones = (1,) * outside.aval.ndim
    if outside.aval.shape == x.aval.shape:
        return outside
    return outside.call("slice", start=none, stop=x.aval.shape, step=ones)


def _prod_jvp(
    operands: tuple[GraphTerm, ...],
    tangents: tuple[GraphTerm | None, ...],
    out: GraphTerm,
    params: Any,
) -> Any:
    (x,), (x_dot,), axes = operands, tangents, params["axes"]
    assert x_dot is not None
    shape = x.aval.shape
    if any(is_known_zero(dim) for dim in shape):
        return (x_dot * x).call("sum", axes=axes)
    kept = tuple(axis for axis in range(len(shape)) if axis not in axes)
    perm = kept + axes
    inverse = tuple(sorted(range(len(perm)), key=perm.__getitem__))
    moved = x.call("transpose", perm=perm)
    length = product(shape[axis] for axis in axes)
    flat = moved.call("reshape", shape=(*(shape[axis] for axis in kept), length))
    others = _others(flat).call("reshape", shape=moved.aval.shape).call("transpose", perm=inverse)
    return (others * x_dot).call("sum", axes=axes)


def _prod_of_pairs_jvp(
    operands: tuple[GraphTerm, ...],
    tangents: tuple[GraphTerm | None, ...],
    out: GraphTerm,
    params: Any,
) -> Any:
    """As ``_prod_jvp``; for one axis of length 2 the other element is the reversed operand."""
    (x,), (x_dot,), axes = operands, tangents, params["axes"]
    assert x_dot is not None
    if len(axes) == 1 and x.aval.shape[axes[0]] == 2:
        return (x.call("reverse", axes=axes) * x_dot).call("sum", axes=axes)
    return _prod_jvp(operands, tangents, out, params)


prod = op(
    "prod",
    doc="Product over axes; its derivative is exact at zeros.",
    aval=_reduce_rule(NUMBERS, has_identity=True),
    numpy=_prod,
    sympy=_ON_SYMBOLS,
    derivative=Linearized(
        _prod_of_pairs_jvp, source="product rule; products of all others by a tree (prefix sums)"
    ),
    body=Fold("prod"),
    params=("axes",),
    dtypes=NUMBERS,
)


def _extremum_jvp(
    operands: tuple[GraphTerm, ...],
    tangents: tuple[GraphTerm | None, ...],
    out: GraphTerm,
    params: Any,
) -> Any:
    """The mean of the tangents of those elements that attain the extremum."""
    (x,), (x_dot,), axes = operands, tangents, params["axes"]
    assert x_dot is not None
    attains = x.eq(spread(out, x.aval, axes))
    count = attains.call("convert", dtype=x.aval.dtype).call("sum", axes=axes)
    return select(attains, x_dot, 0).call("sum", axes=axes) / count


def _extremum(name: str, doc: str, numpy: Any) -> None:
    op(
        name,
        doc=doc,
        aval=_reduce_rule(NUMBERS, has_identity=False),
        numpy=lambda x, *, axes: numpy(x, axis=axes),
        sympy=_ON_SYMBOLS,
        domain="distinct(x)",
        derivative=Linearized(
            _extremum_jvp, source="where one element attains it, its tangent; ties: the mean"
        ),
        body=Fold(name),
        params=("axes",),
        dtypes=NUMBERS,
    )


_extremum("max", "Greatest element over axes; nan if there is one.", np.max)
_extremum("min", "Least element over axes; nan if there is one.", np.min)


def _logical(name: str, doc: str, numpy: Any) -> None:
    op(
        name,
        doc=doc,
        aval=_reduce_rule(BOOLS, has_identity=True),
        numpy=lambda x, *, axes: numpy(x, axis=axes),
        sympy=_ON_SYMBOLS,
        derivative=Zero("its results are booleans"),
        body=Fold(name),
        params=("axes",),
        dtypes=BOOLS,
    )


_logical("any", "Whether any element over axes is true.", np.any)
_logical("all", "Whether all elements over axes are true.", np.all)


def _arg_aval(x: Aval, *, axis: int) -> Aval:
    need_dtype(0, x, NUMBERS)
    need_axes((axis,), x.ndim, x, "axis")
    if is_known_zero(x.shape[axis]):
        raise ShapeError(f"operand 0 is {x}: no elements on axis {axis}")
    return aval("i64", (*x.shape[:axis], *x.shape[axis + 1 :]))


def _arg(name: str, doc: str, numpy: Any) -> None:
    op(
        name,
        doc=doc,
        aval=_arg_aval,
        numpy=lambda x, *, axis: numpy(x, axis=axis),
        sympy=_ON_SYMBOLS,
        derivative=Zero("its results are indices"),
        body=Fold(name),
        params=("axis",),
        dtypes=NUMBERS,
    )


_arg("argmax", "Index of the first greatest element; of the first nan, if any.", np.argmax)
_arg("argmin", "Index of the first least element; of the first nan, if any.", np.argmin)
