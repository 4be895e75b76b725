"""Terms: what the formulas of ops are written in.

A derivative or a loop body is one Python expression on terms. What the terms are decides what the
expression does: on :class:`GraphTerm` it emits equations, elsewhere it runs on SymPy's symbols, on
NumPy arrays, or builds scalar expressions of the loop IR. So each formula is written once.
"""

from __future__ import annotations

from typing import Any, Self

import numpy as np

from diffc.ir.aval import Aval
from diffc.ir.graph import Builder, Literal, Operand, literal


class Term:
    """A value in a formula. Subclasses implement :meth:`call` and :meth:`lift`."""

    __slots__ = ()

    def call(self, name: str, *others: Any, **params: Any) -> Any:
        """The op ``name`` applied to this term and ``others`` (terms or Python scalars)."""
        raise NotImplementedError

    def lift(self, value: bool | int | float) -> Self:
        """A constant of the same dtype and shape as this term."""
        raise NotImplementedError

    def __add__(self, other: Any) -> Any:
        return self.call("add", other)

    def __radd__(self, other: Any) -> Any:
        return self.lift(other).call("add", self)

    def __sub__(self, other: Any) -> Any:
        return self.call("sub", other)

    def __rsub__(self, other: Any) -> Any:
        return self.lift(other).call("sub", self)

    def __mul__(self, other: Any) -> Any:
        return self.call("mul", other)

    def __rmul__(self, other: Any) -> Any:
        return self.lift(other).call("mul", self)

    def __truediv__(self, other: Any) -> Any:
        return self.call("div", other)

    def __rtruediv__(self, other: Any) -> Any:
        return self.lift(other).call("div", self)

    def __neg__(self) -> Any:
        return self.call("neg")

    def __lt__(self, other: Any) -> Any:
        return self.call("lt", other)

    def __le__(self, other: Any) -> Any:
        return self.call("le", other)

    def __gt__(self, other: Any) -> Any:
        return self.call("gt", other)

    def __ge__(self, other: Any) -> Any:
        return self.call("ge", other)

    def eq(self, other: Any) -> Any:
        """Elementwise equality (``==`` itself stays identity, so that terms can be dict keys)."""
        return self.call("eq", other)

    def ne(self, other: Any) -> Any:
        """Elementwise inequality."""
        return self.call("ne", other)

    def __and__(self, other: Any) -> Any:
        return self.call("bitwise_and", other)

    def __or__(self, other: Any) -> Any:
        return self.call("bitwise_or", other)

    def __xor__(self, other: Any) -> Any:
        return self.call("bitwise_xor", other)

    def __lshift__(self, other: Any) -> Any:
        return self.call("shift_left", other)

    def __rshift__(self, other: Any) -> Any:
        return self.call("shift_right", other)

    def __invert__(self) -> Any:
        return self.call("bitwise_not")


class GraphTerm(Term):
    """A term that emits equations into a builder."""

    __slots__ = ("builder", "operand")

    builder: Builder
    operand: Operand

    def __init__(self, builder: Builder, operand: Operand) -> None:
        self.builder = builder
        self.operand = operand

    @property
    def aval(self) -> Aval:
        """Dtype and shape."""
        return self.operand.aval

    def wrap(self, operand: Operand) -> Self:
        """Another operand as a term of this one's class and builder."""
        return type(self)(self.builder, operand)

    def lift(self, value: bool | int | float) -> GraphTerm:
        """A literal of this term's aval."""
        return GraphTerm(self.builder, literal(value, self.aval))

    def call(self, name: str, *others: Any, **params: Any) -> GraphTerm:
        """Emits the op, which has one result."""
        results = self.calls(name, *others, **params)
        (result,) = results
        return result

    def calls(self, name: str, *others: Any, **params: Any) -> tuple[GraphTerm, ...]:
        """As :meth:`call`, for ops with several results."""
        from diffc.ops.registry import find

        operands = [self.operand]
        for other in others:
            term = other if isinstance(other, GraphTerm) else self.lift(other)
            operands.append(term.operand)
        results = self.builder.emit(find(name), operands, params)
        return tuple(GraphTerm(self.builder, result) for result in results)

    def is_literal(self, value: float | None = None) -> bool:
        """Whether this is a literal (equal to ``value``, if one is given)."""
        operand = self.operand
        return isinstance(operand, Literal) and (value is None or operand.value == value)


class ArrayTerm(Term):
    """A term that computes at once, by the ``numpy`` facets."""

    __slots__ = ("array",)

    array: np.ndarray[Any, Any]

    def __init__(self, array: Any) -> None:
        self.array = np.asarray(array)

    def lift(self, value: bool | int | float) -> ArrayTerm:
        """An array of this one's dtype and shape."""
        return ArrayTerm(np.full(self.array.shape, value, self.array.dtype))

    def call(self, name: str, *others: Any, **params: Any) -> ArrayTerm:
        """Computes the op by its ``numpy`` facet."""
        from diffc.ops.registry import find

        facet = find(name).numpy
        terms = (other if isinstance(other, ArrayTerm) else self.lift(other) for other in others)
        assert callable(facet), f"op {name} has no numpy facet"
        with np.errstate(all="ignore"):
            return ArrayTerm(facet(self.array, *(term.array for term in terms), **params))


def unary(name: str) -> Any:
    """An op of one operand as a function on terms."""

    def apply(x: Term) -> Any:
        return x.call(name)

    apply.__name__ = name
    return apply


def select(condition: Term, on_true: Any, on_false: Any) -> Any:
    """``on_true`` where the condition holds, else ``on_false``; one may be a Python scalar."""
    if isinstance(on_true, Term):
        on_false = on_false if isinstance(on_false, Term) else on_true.lift(on_false)
    else:
        on_true = on_false.lift(on_true)
    return condition.call("select", on_true, on_false)


def power(x: Any, exponent: int) -> Any:
    """``x`` to a Python integer, by squaring; the order of the products is part of the meaning.

    ``x`` is a term or anything with ``*`` (and ``/`` if the exponent is negative).
    """
    if exponent < 0:
        return 1 / power(x, -exponent)
    if exponent == 0:
        return x.lift(1) if isinstance(x, Term) else x**0
    result, base = None, x
    while True:
        if exponent & 1:
            result = base if result is None else result * base
        exponent >>= 1
        if not exponent:
            return result
        base = base * base
