"""Structural rewrites: small functions with names, beside the algebra of the table.

Each looks at one equation and returns what replaces its result, or None. ``emit`` emits (and
rewrites) what it builds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from diffc.ir.aval import Aval, aval
from diffc.ir.graph import Eqn, Literal, Operand, Value, literal
from diffc.ir.index import Dim, Var
from diffc.ops.declare import Map
from diffc.optimize.predicates import any_of_indices, compare_of_choice
from diffc.optimize.sums import add_of_scatter, add_of_update, reduce_by_rows

Emit = Callable[..., Operand]
Shape = tuple[Dim, ...]
Apply = Callable[[Emit, str, tuple[Operand, ...], Mapping[str, Any]], Operand | None]


@dataclass(frozen=True, slots=True)
class Structure:
    """A structural rewrite: the ops at whose equations it looks, and what it does."""

    roots: tuple[str, ...]
    apply: Apply
    why: str
    is_on: bool = True


def made_by(operand: Operand, op: str) -> Eqn | None:
    """The equation that computes the operand, if its op is this one."""
    if isinstance(operand, Value) and operand.eqn is not None and operand.eqn.op.name == op:
        return operand.eqn
    return None


# --- movement ---------------------------------------------------------------------------------


def _reshape(
    emit: Emit, op: str, operands: tuple[Operand, ...], params: Mapping[str, Any]
) -> Operand | None:
    (x,) = operands
    if x.aval.shape == params["shape"]:
        return x
    inner = made_by(x, "reshape")
    return None if inner is None else emit("reshape", *inner.operands, shape=params["shape"])


def _transpose(
    emit: Emit, op: str, operands: tuple[Operand, ...], params: Mapping[str, Any]
) -> Operand | None:
    (x,) = operands
    perm = params["perm"]
    if perm == tuple(range(len(perm))):
        return x
    inner = made_by(x, "transpose")
    if inner is None:
        return None
    composed = tuple(inner.params["perm"][axis] for axis in perm)
    return emit("transpose", *inner.operands, perm=composed)


def _broadcast(
    emit: Emit, op: str, operands: tuple[Operand, ...], params: Mapping[str, Any]
) -> Operand | None:
    (x,) = operands
    if x.aval.shape == params["shape"]:
        return x
    inner = made_by(x, "broadcast")
    if inner is None:
        return None
    axes = tuple(params["axes"][axis] for axis in inner.params["axes"])
    return emit("broadcast", *inner.operands, shape=params["shape"], axes=axes)


def _slice(
    emit: Emit, op: str, operands: tuple[Operand, ...], params: Mapping[str, Any]
) -> Operand | None:
    (x,) = operands
    whole = all(start == 0 for start in params["start"]) and params["stop"] == x.aval.shape
    return x if whole and all(step == 1 for step in params["step"]) else None


def _pad(
    emit: Emit, op: str, operands: tuple[Operand, ...], params: Mapping[str, Any]
) -> Operand | None:
    is_empty = all(n == 0 for key in ("low", "high", "interior") for n in params[key])
    return operands[0] if is_empty else None


def _reverse(
    emit: Emit, op: str, operands: tuple[Operand, ...], params: Mapping[str, Any]
) -> Operand | None:
    (x,) = operands
    inner = made_by(x, "reverse")
    if inner is not None and inner.params["axes"] == params["axes"]:
        return inner.operands[0]
    return None if params["axes"] else x


def _concat(
    emit: Emit, op: str, operands: tuple[Operand, ...], params: Mapping[str, Any]
) -> Operand | None:
    return operands[0] if len(operands) == 1 else None


def _reduce_nothing(
    emit: Emit, op: str, operands: tuple[Operand, ...], params: Mapping[str, Any]
) -> Operand | None:
    return None if params["axes"] else operands[0]


def _reduce_ones(
    emit: Emit, op: str, operands: tuple[Operand, ...], params: Mapping[str, Any]
) -> Operand | None:
    """Reducing axes of one element drops them."""
    (x,) = operands
    shape, axes = x.aval.shape, params["axes"]
    if not axes or any(shape[axis] != 1 for axis in axes):
        return None
    return emit("reshape", x, shape=tuple(d for k, d in enumerate(shape) if k not in axes))


def _unary_of_broadcast(
    emit: Emit, op: str, operands: tuple[Operand, ...], params: Mapping[str, Any]
) -> Operand | None:
    """``exp(broadcast(x))`` is ``broadcast(exp(x))``: fewer elements."""
    inner = made_by(operands[0], "broadcast")
    if inner is None:
        return None
    return emit("broadcast", emit(op, *inner.operands, **params), **inner.params)


# --- sums of exponentials ---------------------------------------------------------------------


def _through_views(operand: Operand) -> tuple[Operand, list[Eqn]]:
    """What a chain of reshapes and broadcasts looks at, and the chain from the outside in."""
    chain = []
    while isinstance(operand, Value) and operand.eqn is not None:
        if operand.eqn.op.name not in ("reshape", "broadcast"):
            break
        chain.append(operand.eqn)
        operand = operand.eqn.operands[0]
    return operand, chain


def _is_along(chain: Sequence[Eqn], shape: Shape, axes: tuple[int, ...]) -> bool:
    """Whether a chain of views gives each element of ``shape`` that of its own row.

    The rows are what a reduction of ``axes`` leaves. ``e / e.sum(1)`` of a square ``e`` divides by
    the sum of another row.
    """
    if not chain:
        return False
    indices: tuple[Any, ...] = tuple(Var(f"i{k}", dim) for k, dim in enumerate(shape))
    kept = [index for axis, index in enumerate(indices) if axis not in axes]
    for eqn in chain:
        avals = tuple(operand.aval for operand in eqn.operands)
        ((_, indices, _),) = eqn.op.body.access(indices, avals, eqn.params)
    dims = [dim for axis, dim in enumerate(shape) if axis not in axes]
    return len(indices) == len(kept) and all(
        dim == 1 or found == wanted for found, wanted, dim in zip(indices, kept, dims, strict=True)
    )


def _is_shifted(x: Operand) -> bool:
    """Whether ``x`` is something minus (a broadcast of) a maximum already."""
    minus = made_by(x, "sub")
    if minus is None:
        return False
    shift, _ = _through_views(minus.operands[1])
    for _ in range(2):
        inner = made_by(shift, "stop_gradient") or made_by(shift, "select")
        if inner is not None:
            shift, _ = _through_views(inner.operands[-2 if inner.op.name == "select" else 0])
    return made_by(shift, "max") is not None


def _shift(emit: Emit, x: Operand, axes: tuple[int, ...]) -> Operand:
    """The finite maximum of ``x`` over ``axes``, cut off from derivatives (it cancels)."""
    top = emit("stop_gradient", emit("max", x, axes=axes))
    zero = literal(0, top.aval)
    return emit("select", emit("is_finite", top), top, zero)


def _spread(emit: Emit, value: Operand, like: Aval, axes: tuple[int, ...]) -> Operand:
    kept = tuple(axis for axis in range(like.ndim) if axis not in axes)
    return emit("broadcast", value, shape=like.shape, axes=kept)


def _log_sum_exp(
    emit: Emit, op: str, operands: tuple[Operand, ...], params: Mapping[str, Any]
) -> Operand | None:
    """``log(sum(exp(x)))`` is ``m + log(sum(exp(x - m)))``."""
    total, chain = _through_views(operands[0])
    summed = made_by(total, "sum")
    exponential = None if summed is None else made_by(summed.operands[0], "exp")
    if summed is None or exponential is None:
        return None
    (x,) = exponential.operands
    axes = summed.params["axes"]
    if not axes or isinstance(x, Literal) or _is_shifted(x) or x.aval.size == 0:
        return None
    top = _shift(emit, x, axes)
    shifted = emit("exp", emit("sub", x, _spread(emit, top, x.aval, axes)))
    found = emit("add", top, emit("log", emit("sum", shifted, axes=axes)))
    for eqn in reversed(chain):
        found = emit(eqn.op.name, found, **eqn.params)
    return found


def _softmax(
    emit: Emit, op: str, operands: tuple[Operand, ...], params: Mapping[str, Any]
) -> Operand | None:
    """``exp(x) / sum(exp(x))`` shifts ``x`` by its maximum first."""
    exponential = made_by(operands[0], "exp")
    total, chain = _through_views(operands[1])
    summed = made_by(total, "sum")
    if exponential is None or summed is None or summed.operands[0] is not operands[0]:
        return None
    (x,) = exponential.operands
    axes = summed.params["axes"]
    if not axes or isinstance(x, Literal) or _is_shifted(x) or x.aval.size == 0:
        return None
    if not _is_along(chain, x.aval.shape, axes):
        return None
    top = _shift(emit, x, axes)
    shifted = emit("exp", emit("sub", x, _spread(emit, top, x.aval, axes)))
    below = emit("sum", shifted, axes=axes)
    for eqn in reversed(chain):
        below = emit(eqn.op.name, below, **eqn.params)
    return emit("div", shifted, below)


def _unshift(emit: Emit, s: Operand, axes: tuple[int, ...]) -> Operand | None:
    """``z - m`` with ``m`` cut off from derivatives; None unless it is constant along ``axes``."""
    minus = made_by(s, "sub")
    if minus is None:
        return None
    z, shift = minus.operands
    below, chain = _through_views(shift)
    broadcasts = [eqn for eqn in chain if eqn.op.name == "broadcast"]
    if not broadcasts or chain[0] is not broadcasts[0] or made_by(below, "max") is None:
        return None
    if any(axis in chain[0].params["axes"] and s.aval.shape[axis] != 1 for axis in axes):
        return None
    found = emit("stop_gradient", below)
    for eqn in reversed(chain):
        found = emit(eqn.op.name, found, **eqn.params)
    return emit("sub", z, found)


def _log_softmax_shift(
    emit: Emit, op: str, operands: tuple[Operand, ...], params: Mapping[str, Any]
) -> Operand | None:
    """``s - log(sum(exp(s)))`` does not depend on what ``s`` is shifted by."""
    s, total = operands
    inner, chain = _through_views(total)
    logarithm = made_by(inner, "log")
    if logarithm is None:
        return None
    inner, between = _through_views(logarithm.operands[0])
    summed = made_by(inner, "sum")
    exponential = None if summed is None else made_by(summed.operands[0], "exp")
    if summed is None or exponential is None or exponential.operands[0] is not s:
        return None
    axes = summed.params["axes"]
    if not _is_along([*chain, *between], s.aval.shape, axes):
        return None
    unshifted = _unshift(emit, s, axes)
    if unshifted is None:
        return None
    found = emit("sum", emit("exp", unshifted), axes=axes)
    for eqn in reversed(between):
        found = emit(eqn.op.name, found, **eqn.params)
    found = emit("log", found)
    for eqn in reversed(chain):
        found = emit(eqn.op.name, found, **eqn.params)
    return emit("sub", unshifted, found)


def _softmax_shift(
    emit: Emit, op: str, operands: tuple[Operand, ...], params: Mapping[str, Any]
) -> Operand | None:
    """``exp(s) / sum(exp(s))`` does not depend on what ``s`` is shifted by."""
    exponential = made_by(operands[0], "exp")
    total, chain = _through_views(operands[1])
    summed = made_by(total, "sum")
    if exponential is None or summed is None or summed.operands[0] is not operands[0]:
        return None
    s, axes = exponential.operands[0], summed.params["axes"]
    if not _is_along(chain, s.aval.shape, axes):
        return None
    unshifted = _unshift(emit, s, axes)
    if unshifted is None:
        return None
    above = emit("exp", unshifted)
    below = emit("sum", above, axes=axes)
    for eqn in reversed(chain):
        below = emit(eqn.op.name, below, **eqn.params)
    return emit("div", above, below)


# --- products by reciprocals ------------------------------------------------------------------


def _div_by_power_of_two(
    emit: Emit, op: str, operands: tuple[Operand, ...], params: Mapping[str, Any]
) -> Operand | None:
    """``x / 8`` is ``x * 0.125``, bit for bit."""
    from diffc.optimize.table import is_power_of_two

    x, c = operands
    if not isinstance(c, Literal) or not is_power_of_two(c) or isinstance(x, Literal):
        return None
    if not c.aval.is_float or abs(c.value) > 2.0**13 or abs(c.value) < 2.0**-13:
        return None
    return emit("mul", x, literal(1.0 / c.value, c.aval))


# --- scatters that are choices ----------------------------------------------------------------


def _scatter_one_per_row(
    emit: Emit, op: str, operands: tuple[Operand, ...], params: Mapping[str, Any]
) -> Operand | None:
    """Adding one element per row to zeros is a choice by comparing positions.

    ``scatter(0, u, iota, y; axes=[0, 1], combine="add")`` on ``[n, c]`` is
    ``select(y[i] == j, u[i], 0)``: it fuses with what surrounds it. What is out of bounds is
    dropped by both.
    """
    x, updates, *indices = operands
    if params["combine"] not in ("add", "set") or params["mode"] != "drop":
        return None
    if not isinstance(x, Literal) or x.value != 0 or x.aval.ndim != 2 or len(indices) != 2:
        return None
    rows, columns = indices
    counter = made_by(rows, "iota")
    if counter is None or rows.aval.shape != x.aval.shape[:1]:
        return None
    shape = x.aval.shape
    if not _counts_to(shape[0], rows.aval) or not _counts_to(shape[1], columns.aval):
        return None
    where = emit("iota", dtype=columns.aval.dtype, shape=shape, axis=1)
    hit = emit("eq", where, emit("broadcast", columns, shape=shape, axes=(0,)))
    return emit("select", hit, emit("broadcast", updates, shape=shape, axes=(0,)), x)


def _gather_one_per_row(
    emit: Emit, op: str, operands: tuple[Operand, ...], params: Mapping[str, Any]
) -> Operand | None:
    """Picking one element per row of an elementwise result picks from its operands.

    ``gather(sub(z, broadcast(m)), iota, y; axes=[0, 1])`` on ``[n, c]`` is
    ``sub(gather(z, iota, y), m)``: the rows need not lie in memory to be picked from.
    """
    x, *indices = operands
    if params["mode"] not in ("clip", "check") or x.aval.ndim != 2 or len(indices) != 2:
        return None
    eqn = x.eqn if isinstance(x, Value) else None
    rows, columns = indices
    if eqn is None or made_by(rows, "iota") is None or rows.aval.shape != x.aval.shape[:1]:
        return None
    if not _counts_to(x.aval.shape[0], rows.aval):
        return None
    if not isinstance(eqn.op.body, Map):
        return None
    whole = [part for part in eqn.operands if _along(part) is None]
    if not whole:
        return None  # nobody would check the index
    picked: list[Operand] = []
    for part in eqn.operands:
        axes = _along(part)
        if isinstance(part, Literal):
            picked.append(literal(part.value, aval(part.aval.dtype, rows.aval.shape)))
        elif axes is None:
            picked.append(emit("gather", part, rows, columns, **params))
        else:
            assert isinstance(part, Value)
            assert part.eqn is not None
            (inner,) = part.eqn.operands
            if axes == (1,):
                inner = emit("gather", inner, columns, axes=(0,), mode="clip")
            elif not axes:
                inner = emit("broadcast", inner, shape=rows.aval.shape, axes=())
            picked.append(inner)
    return emit(eqn.op.name, *picked, **eqn.params)


def _along(operand: Operand) -> tuple[int, ...] | None:
    """The axes along which a literal or a broadcast of fewer axes differs; None for others."""
    if isinstance(operand, Literal):
        return ()
    eqn = made_by(operand, "broadcast")
    return None if eqn is None else tuple(eqn.params["axes"])


def _counts_to(length: Dim, indices: Aval) -> bool:
    """Whether integers of this dtype hold all positions below ``length``: counting would wrap."""
    return isinstance(length, int) and length - 1 <= np.iinfo(indices.numpy).max


_UNARY_FLOAT = (
    "neg abs sign sqrt exp exp2 log log2 log10 log1p expm1 tanh logistic erf sin cos tan sinh cosh "
    "arctan arcsin arccos convert is_finite is_nan is_inf bitwise_not stop_gradient"
)

STRUCTURE: dict[str, Structure] = {
    "reshape_chain": Structure(("reshape",), _reshape, "views of views"),
    "transpose_chain": Structure(("transpose",), _transpose, "transposing a transpose"),
    "broadcast_chain": Structure(("broadcast",), _broadcast, "keepdims, then broadcasting"),
    "slice_whole": Structure(("slice",), _slice, "x[:]"),
    "pad_nothing": Structure(("pad",), _pad, "cotangents of whole slices"),
    "reverse_twice": Structure(("reverse",), _reverse, "cotangents of x[::-1]"),
    "concat_one": Structure(("concat",), _concat, "stacks of one"),
    "reduce_nothing": Structure(
        ("sum", "max", "min", "prod", "any", "all"), _reduce_nothing, "cotangents of broadcasts"
    ),
    "reduce_ones": Structure(
        ("sum", "max", "min", "prod", "any", "all"), _reduce_ones, "products with one channel"
    ),
    "any_of_indices": Structure(
        ("any",), any_of_indices, "where cotangents through causal and banded masks may be non-zero"
    ),
    "compare_of_choice": Structure(
        ("eq", "ne", "lt", "le", "gt", "ge"), compare_of_choice, "np.tril(np.ones((n, n))) == 0"
    ),
    "reduce_by_rows": Structure(
        ("sum", "max", "min", "prod", "any", "all"),
        reduce_by_rows,
        "losses of batches, in the passes that compute their rows",
    ),
    "unary_of_broadcast": Structure(
        tuple(_UNARY_FLOAT.split()), _unary_of_broadcast, "functions of keepdims statistics"
    ),
    "log_sum_exp": Structure(("log",), _log_sum_exp, "exp overflows from x = 89 on in f32"),
    "softmax": Structure(("div",), _softmax, "exp overflows from x = 89 on in f32"),
    "log_softmax_shift": Structure(
        ("sub",), _log_softmax_shift, "the derivative of the maximum that is subtracted cancels"
    ),
    "softmax_shift": Structure(
        ("div",), _softmax_shift, "the derivative of the maximum that is subtracted cancels"
    ),
    "div_power_of_two": Structure(("div",), _div_by_power_of_two, "means over powers of two"),
    "scatter_one_per_row": Structure(
        ("scatter",), _scatter_one_per_row, "cotangents of picking one class per row"
    ),
    "gather_one_per_row": Structure(
        ("gather",), _gather_one_per_row, "losses that pick one class per row"
    ),
    "add_of_scatter": Structure(
        ("add",), add_of_scatter, "loops that read one row per step, in reverse"
    ),
    "add_of_update": Structure(
        ("add",), add_of_update, "loops that read one slice per step, in reverse"
    ),
}
