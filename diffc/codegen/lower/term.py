"""Terms that build scalar expressions of the loop IR from the formulas of ops."""

from __future__ import annotations

from typing import Any

from diffc.codegen.loops.nodes import SCALARS, Apply, Const, Expr
from diffc.codegen.lower.narrow import COMPARISONS, compared
from diffc.errors import InternalError
from diffc.ir.aval import aval
from diffc.ir.graph import literal
from diffc.ops.declare import Map
from diffc.ops.registry import find
from diffc.ops.term import Term

_PREDICATES = frozenset({"eq", "ne", "lt", "le", "gt", "ge", "is_nan", "is_inf", "is_finite"})


def constant(dtype: str, value: bool | int | float) -> Const:
    """A scalar, rounded to its dtype."""
    return Const(dtype, literal(value, aval(dtype)).value)


def apply(name: str, *args: Expr, dtype: str | None = None) -> Expr:
    """A scalar op on expressions; ``dtype`` is asked for by ``convert`` and ``bitcast`` alone."""
    if dtype is None:
        dtype = "bool" if name in _PREDICATES else args[1 if name == "select" else 0].dtype
    elif name == "convert" and dtype == args[0].dtype:
        return args[0]
    if name in COMPARISONS and args[0].dtype == "i64":
        return compared(name, *args) or Apply(dtype, name, args)
    return Apply(dtype, name, args)


class LoopTerm(Term):
    """A term over one scalar expression of the loop IR.

    Names outside the closed set of scalars are ops whose own formula is expanded.
    """

    __slots__ = ("expr",)

    expr: Expr

    def __init__(self, expr: Expr) -> None:
        self.expr = expr

    def lift(self, value: bool | int | float) -> LoopTerm:
        """A constant of the same dtype."""
        return LoopTerm(constant(self.expr.dtype, value))

    def call(self, name: str, *others: Any, **params: Any) -> Any:
        """The op ``name`` applied to this term and others."""
        terms = (
            self,
            *(other if isinstance(other, LoopTerm) else self.lift(other) for other in others),
        )
        if name in SCALARS:
            return LoopTerm(apply(name, *(term.expr for term in terms), **params))
        body = find(name).body
        if not isinstance(body, Map):
            raise InternalError(f"{name} stands in a formula but is not elementwise")
        return body.formula(*terms, **params)
