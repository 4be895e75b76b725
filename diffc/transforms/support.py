"""Where a tangent or cotangent may be non-zero.

A support is a boolean operand of the tangent's shape, or None: everywhere. ``select``, routes,
slices and pads seed supports, movement ops map them, a sum asks whether *any* summed element has
one, and where cotangents add up supports are joined by OR. A product with a partial derivative
that may be infinite or NaN is then taken only inside the support, so a branch that was not taken
contributes exactly nothing. Indexing maps supports too; what a scatter, a cumulative sum or
overlapping windows add up is non-zero where any summand may be. Supports go into regions and come
out of them beside the tangents. Ops that mix elements otherwise (``contract``) and users' own rules
end a support: it becomes None.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from diffc.ir.aval import Aval
from diffc.ir.graph import Builder, Literal, Operand, literal
from diffc.ops.registry import find
from diffc.ops.term import GraphTerm

#: what an op on cotangents is on supports; movement ops map supports as they map values.
ON_SUPPORTS = {"sum": "any", "add": "bitwise_or"}
#: ops whose first operands are tangents, and how many; integers follow, which stay as they are.
INDEXING = {"gather": 1, "dynamic_slice": 1, "dynamic_update_slice": 2, "scatter": 2}
#: sums of which each element has its own summands; counted, as booleans can't be added.
COUNTED = ("cumsum", "overlap_add")


class SupportEndsError(Exception):
    """Raised while mapping a support through an op that ends it."""


class SupportTerm(GraphTerm):
    """A term on supports: runs a linear op's own formulas on booleans.

    Splat literals pass through movement without emitting anything; a pad brings in False.
    """

    __slots__ = ()

    def lift(self, value: Any) -> SupportTerm:
        """True or False of this term's shape: a zero becomes False."""
        return SupportTerm(self.builder, literal(bool(value), self.aval))

    def calls(self, name: str, *others: Any, **params: Any) -> tuple[GraphTerm, ...]:
        """The op on supports.

        Raises:
            SupportEndsError: the op mixes elements.
        """
        if name == "convert":
            return (self,)
        if name in INDEXING:
            return (self._indexed(name, others, params),)
        if name in COUNTED:
            return (self._counted(name, params),)
        op = find(ON_SUPPORTS.get(name, name))
        if not (op.is_movement or name in ON_SUPPORTS):
            raise SupportEndsError(name)
        operands = [self.operand]
        for other in others:
            if isinstance(other, GraphTerm):
                operands.append(_as_support(other.operand))
            else:
                operands.append(literal(bool(other), self.aval))
        if any(operand.aval.dtype != "bool" for operand in operands):
            raise SupportEndsError(name)
        values = {operand.value for operand in operands if isinstance(operand, Literal)}
        if len(values) == 1 and all(isinstance(operand, Literal) for operand in operands):
            avals = op.infer(tuple(operand.aval for operand in operands), params, ())
            return tuple(SupportTerm(self.builder, literal(values.copy().pop(), a)) for a in avals)
        results = self.builder.emit(op, operands, params)
        return tuple(SupportTerm(self.builder, result) for result in results)

    def _counted(self, name: str, params: Mapping[str, Any]) -> SupportTerm:
        """Where any summand may be non-zero. No sum has so many that 32 bits don't hold them."""
        op = find(name)
        if isinstance(self.operand, Literal):
            (aval,) = op.infer((self.aval.with_dtype("u32"),), params, ())
            return SupportTerm(self.builder, literal(self.operand.value, aval.with_dtype("bool")))
        (count,) = self.builder.emit(op, (_converted(self.builder, self.operand, "u32"),), params)
        zero = literal(0, count.aval)
        return SupportTerm(self.builder, self.builder.emit(find("ne"), (count, zero))[0])

    def _indexed(
        self, name: str, others: Sequence[GraphTerm], params: Mapping[str, Any]
    ) -> SupportTerm:
        """An op of ``INDEXING``: the first terms are supports, the others integers."""
        count = INDEXING[name]
        indices = [term.operand for term in others[count - 1 :]]
        supports = [_as_support(self.operand)]
        supports += [_as_support(term.operand) for term in others[: count - 1]]
        values = {x.value if isinstance(x, Literal) else None for x in supports}
        if any(x.aval.dtype != "bool" for x in supports):
            raise SupportEndsError(name)
        op = find(name)
        if len(values) == 1 and None not in values:
            aval = supports[0].aval
            if count == 1:
                (aval,) = op.infer((aval, *(x.aval for x in indices)), params, ())
            return SupportTerm(self.builder, literal(values.pop(), aval))
        if params.get("combine", "set") == "set":
            return SupportTerm(
                self.builder, self.builder.emit(op, (*supports, *indices), params)[0]
            )
        # Booleans can't be compared: 1 is greater than 0.
        numbers = [_converted(self.builder, x, "u8") for x in supports]
        (found,) = self.builder.emit(op, (*numbers, *indices), {**params, "combine": "max"})
        return SupportTerm(self.builder, _converted(self.builder, found, "bool"))


def _converted(builder: Builder, x: Operand, dtype: str) -> Operand:
    if isinstance(x, Literal):
        return literal(int(x.value), x.aval.with_dtype(dtype))
    return builder.emit(find("convert"), (x,), {"dtype": dtype})[0]


def _as_support(operand: Operand) -> Operand:
    """A formula's own zeros (what a pad fills in) are nowhere non-zero."""
    if isinstance(operand, Literal) and operand.aval.dtype != "bool" and operand.value == 0:
        return literal(False, operand.aval.with_dtype("bool"))
    return operand


def everywhere(builder: Builder, aval: Aval, support: Operand | None) -> SupportTerm:
    """The support as a term; None becomes True."""
    shape = aval.with_dtype("bool")
    return SupportTerm(builder, literal(True, shape) if support is None else support)


def nowhere(builder: Builder, aval: Aval) -> SupportTerm:
    """The support of an absent tangent."""
    return SupportTerm(builder, literal(False, aval.with_dtype("bool")))


def mapped(formula: Callable[[], Any]) -> Operand | None:
    """The support that ``formula`` computes; None where it ends or is True everywhere."""
    try:
        operand: Operand = formula().operand
    except SupportEndsError:
        return None
    return None if isinstance(operand, Literal) and operand.value is True else operand


def join(builder: Builder, supports: Sequence[Operand | None]) -> Operand | None:
    """Where any of the supports holds."""
    joined: Operand | None = None
    for support in supports:
        if support is None:
            return None
        if joined is None or joined is support:
            joined = support
        else:
            (joined,) = builder.emit(find("bitwise_or"), (joined, support))
    return joined


def meet(builder: Builder, left: Operand | None, right: Operand) -> Operand:
    """Where both supports hold."""
    if left is None or left is right:
        return right
    (both,) = builder.emit(find("bitwise_and"), (left, right))
    return both


def confine(product: GraphTerm, support: Operand | None) -> GraphTerm:
    """``product`` inside the support, an exact zero outside."""
    if support is None:
        return product
    return GraphTerm(product.builder, support).call("select", product, product.lift(0))
