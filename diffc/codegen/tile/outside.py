"""What expressions are at all points beyond a border: `le(k, q)` is false where k > q.

A mask on indices is a comparison of them. Beyond the border where it is decided, a `select` is one
of its branches, and often a constant: what nests hand on need not be computed there.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from diffc.codegen.loops.interpret import DTYPES, apply
from diffc.codegen.loops.nodes import (
    Apply,
    Buffer,
    Choose,
    Const,
    Expr,
    GatherLoad,
    IndexValue,
    Load,
    Scalar,
)
from diffc.codegen.loops.walk import children, expressions
from diffc.ir.index import Cond, Dim, Var, bounds, free, linear_in, substitute

__all__ = ["Known", "Side", "borders", "outside"]

#: what differs from the index `a` by `b` or more, as `b - a >= 0`, and what is subtracted besides
ORDERS = {"le": (1, 0), "lt": (1, 1), "ge": (-1, 0), "gt": (-1, 1)}
#: of 32 bits
LIMIT = 1 << 31
#: ops that NumPy and compiled code do alike, to the last bit
EXACT = frozenset(
    (
        *("add", "sub", "mul", "div", "neg", "abs", "maximum", "minimum", "select", "convert"),
        *("eq", "ne", "lt", "le", "gt", "ge", "bitwise_and", "bitwise_or", "bitwise_not"),
        *("is_nan", "is_inf", "is_finite"),
    )
)


@dataclass(frozen=True, slots=True)
class Side:
    """The points from a border on, or those before it.

    Attributes:
        border: An index of variables around the nest.
        is_above: Whether it is the points from the border on.
    """

    border: Dim
    is_above: bool

    def decides(self, cond: Cond, var: Var) -> bool | None:
        """Whether a condition holds at all points of this side, or at none; None: at some."""
        beyond = Var("~beyond", var.extent)
        point = self.border + beyond if self.is_above else self.border - 1 - beyond
        low, high = bounds(substitute(cond.expr, {var: point}))
        if high is not None and high < 0:
            return False
        if cond.kind == "eq":
            return False if low is not None and low > 0 else None
        return True if low is not None and low >= 0 else None


@dataclass(frozen=True, slots=True)
class Known:
    """What a buffer holds beyond the borders along one of its axes."""

    axis: int
    value: Const


def position(expr: Expr) -> Dim | None:
    """The index that a signed number is; None where it is none, or might not fit."""
    if expr.dtype not in ("i32", "i64"):
        return None
    if isinstance(expr, Const):
        return int(expr.value)
    if isinstance(expr, IndexValue):
        return expr.index
    if not isinstance(expr, Apply) or expr.name not in ("add", "sub"):
        return None
    a, b = map(position, expr.args)
    if a is None or b is None:
        return None
    found = a + b if expr.name == "add" else a - b
    low, high = bounds(found)
    fits = low is not None and high is not None and -LIMIT <= low <= high < LIMIT
    return found if fits else None


def condition(expr: Expr) -> Cond | None:
    """The condition on indices that a comparison of their values is."""
    if not isinstance(expr, Apply) or expr.name not in ORDERS:
        return None
    a, b = map(position, expr.args)
    if a is None or b is None:
        return None
    sign, less = ORDERS[expr.name]
    return Cond("ge", sign * (b - a) - less)


def borders(roots: Iterable[Expr], var: Var, inner: Collection[Var]) -> list[Side]:
    """Where conditions on a variable in some expressions are decided, for all values of `inner`."""
    found: dict[Side, None] = {}
    for expr in expressions(roots):
        made = condition(expr)
        conds = [made] if made is not None else []
        if isinstance(expr, Choose):
            conds += [cond for cond in expr.guard if cond.kind == "ge"]
        for cond in conds:
            split = linear_in(cond.expr, (var, *inner))
            if split is None or split[0][var] not in (1, -1):
                continue
            least = most = split[1]
            for other in inner:
                stride, extent = split[0][other], other.extent
                assert isinstance(stride, int) and isinstance(extent, int)
                least = least + min(0, stride * (extent - 1))
                most = most + max(0, stride * (extent - 1))
            is_up = split[0][var] == 1  # var >= -rest, else var <= rest
            found[Side(-least if is_up else most + 1, True)] = None
            found[Side(-most if is_up else least + 1, False)] = None
    return list(found)


def outside(
    root: Expr,
    var: Var,
    side: Side,
    known: Mapping[Buffer, Known],
    scalars: Mapping[str, Expr | None],
) -> Expr | None:
    """What an expression is at all points of a side, as an expression without the variable.

    Args:
        root: The expression.
        var: The variable with the border.
        side: Where.
        known: What buffers hold there.
        scalars: What scalars are there, where that is not what they are everywhere.

    Returns:
        A constant, or what is the same at all these points; None where it may differ.
    """
    found: dict[int, Expr | None] = {}
    for expr in expressions((root,)):
        found[id(expr)] = _outside(expr, var, side, known, scalars, found)
    return found[id(root)]


def _outside(
    expr: Expr,
    var: Var,
    side: Side,
    known: Mapping[Buffer, Known],
    scalars: Mapping[str, Expr | None],
    found: Mapping[int, Expr | None],
) -> Expr | None:
    if isinstance(expr, Const):
        return expr
    if isinstance(expr, Scalar):
        return scalars.get(expr.name, expr)
    if isinstance(expr, IndexValue):
        return None if var in free(expr.index) else expr
    if isinstance(expr, Load):
        if expr.buffer in known:
            it = known[expr.buffer]
            return it.value if expr.indices[it.axis] is var else None
        return None if any(var in free(index) for index in expr.indices) else expr
    if isinstance(expr, GatherLoad):
        return None
    if isinstance(expr, Choose):
        return _branch(expr, var, side, found)
    assert isinstance(expr, Apply)
    cond = condition(expr)
    if cond is not None:
        held = side.decides(cond, var)
        if held is not None:
            return Const("bool", held)
    args = [found[id(child)] for child in children(expr)]
    if expr.name == "select" and isinstance(args[0], Const):
        return args[1] if args[0].value else args[2]
    if expr.dtype == "bool" and expr.name in ("bitwise_and", "bitwise_or"):
        deciding = expr.name == "bitwise_or"
        if any(isinstance(arg, Const) and arg.value == deciding for arg in args):
            return Const("bool", deciding)
    if any(arg is None for arg in args):
        return None
    if expr.name in EXACT and all(isinstance(arg, Const) for arg in args):
        arrays = [np.array([a.value], DTYPES[a.dtype]) for a in args if isinstance(a, Const)]
        return Const(expr.dtype, apply(expr.name, expr.dtype, arrays)[0].item())
    return replace(expr, args=tuple(arg for arg in args if arg is not None))


def _branch(expr: Choose, var: Var, side: Side, found: Mapping[int, Expr | None]) -> Expr | None:
    on_true, on_false = found[id(expr.on_true)], found[id(expr.on_false)]
    decided = [side.decides(cond, var) for cond in expr.guard]
    if all(decided):
        return on_true
    if any(held is False for held in decided):
        return on_false
    if var in expr.guard.free() or on_true is None or on_false is None:
        return None
    return replace(expr, on_true=on_true, on_false=on_false)
