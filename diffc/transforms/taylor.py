"""Taylor mode: a graph on polynomials in one variable t, cut off after a given order.

Before: ``f(x) = exp(x)``. After, to order 2: ``f(x, x1, x2) = (y, y*x1, y*x2 + y*x1*x1/2)``, the
coefficients of ``f(x + x1 t + x2 t^2)``. All follows from derivative facts of ops: ``y' = p x'``
with a partial ``p``, whose own coefficients come from its formula, run on polynomials; what is
linear acts on each coefficient. Only products and quotients have recurrences of their own (Griewank
and Walther, "Evaluating Derivatives", 2008, chapter 13).

Absent coefficients are None, never arrays of zeros. A polynomial has a support, as tangents have:
where coefficients beyond the first may be non-zero.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from diffc.errors import UsageError
from diffc.ir.graph import Builder, Eqn, Graph, Literal, Operand, Value, literal, prune
from diffc.ops.declare import Linear, Linearized, Op, Partials, Routes, Undefined, Zero, plain
from diffc.ops.registry import find
from diffc.ops.term import GraphTerm
from diffc.transforms.forward import Supports
from diffc.transforms.rules import Tangent, push
from diffc.transforms.support import confine, join

Coefficient = Operand | None
Mask = tuple[bool, ...]


class Series(GraphTerm):
    """A polynomial as a term: ``operand`` at t = 0, and ``higher`` coefficients.

    ``known`` remembers what was computed in one graph, by op and coefficients, since partials are
    asked for again at each order. ``support`` is where higher coefficients may be non-zero (None:
    everywhere).
    """

    __slots__ = ("higher", "known", "support")

    higher: tuple[Coefficient, ...]
    known: dict[Any, tuple[Series, ...]]
    support: Operand | None

    def __init__(
        self,
        builder: Builder,
        operand: Operand,
        higher: tuple[Coefficient, ...] = (),
        known: dict[Any, tuple[Series, ...]] | None = None,
        support: Operand | None = None,
    ) -> None:
        super().__init__(builder, operand)
        self.higher = higher
        self.known = {} if known is None else known
        self.support = support

    @property
    def order(self) -> int:
        """The highest power that is kept."""
        return len(self.higher)

    @property
    def is_constant(self) -> bool:
        """Whether t does not occur."""
        return all(coefficient is None for coefficient in self.higher)

    def at(self, power: int) -> GraphTerm | None:
        """One coefficient as a term."""
        found = self.higher[power - 1] if power else self.operand
        return None if found is None else GraphTerm(self.builder, found)

    def cut(self, order: int) -> Series:
        """Without powers above ``order``."""
        return self.make(self.operand, self.higher[:order], self.support)

    def make(
        self,
        operand: Operand,
        higher: tuple[Coefficient, ...],
        support: Operand | None = None,
    ) -> Series:
        """Another polynomial in the same graph."""
        return Series(self.builder, operand, higher, self.known, support)

    def slope(self) -> Series:
        """The derivative by t."""
        parts = [scaled(self.at(power), power) for power in range(1, self.order + 1)]
        first = literal(0, self.aval) if parts[0] is None else parts[0].operand
        return self.make(first, tuple(None if p is None else p.operand for p in parts[1:]))

    def wrap(self, operand: Operand) -> Series:
        """A constant."""
        return self.make(operand, (None,) * self.order)

    def lift(self, value: bool | int | float) -> Series:
        """A constant number."""
        return self.wrap(literal(value, self.aval))

    def calls(self, name: str, *others: Any, **params: Any) -> tuple[Series, ...]:
        """The op on polynomials."""
        terms = [self]
        for other in others:
            if isinstance(other, Series):
                terms.append(other)
            elif isinstance(other, GraphTerm):
                terms.append(self.wrap(other.operand))
            else:
                terms.append(self.lift(other))
        return apply(find(name), terms, params)


def scaled(term: GraphTerm | None, factor: float) -> GraphTerm | None:
    """A coefficient times a number; None stays."""
    return term if term is None or factor == 1 else term * factor


def _sum(terms: Sequence[GraphTerm | None]) -> GraphTerm | None:
    total: GraphTerm | None = None
    for term in terms:
        if term is not None:
            total = term if total is None else total + term
    return total


def _product(left: GraphTerm | None, right: Any) -> GraphTerm | None:
    if left is None or right is None:
        return None
    found: GraphTerm = left * right
    return found


def apply(op: Op, terms: Sequence[Series], params: Mapping[str, Any]) -> tuple[Series, ...]:
    """The results of an op without regions on polynomials."""
    order = max(term.order for term in terms)
    terms = [
        term.make(term.operand, (*term.higher, *(None,) * (order - term.order)), term.support)
        for term in terms
    ]
    known = terms[0].known
    key = (
        op.name,
        tuple(sorted(params.items())),
        *((t.operand, t.higher, t.support) for t in terms),
    )
    found = known.get(key)
    if found is None:
        builder = terms[0].builder
        results = builder.emit(op, [term.operand for term in terms], params)
        fact = op.fact(params)
        if isinstance(fact, Zero) or all(term.is_constant for term in terms):
            found = tuple(terms[0].wrap(result) for result in results)
        else:
            (result,) = results
            found = (_RULES[type(fact)](op, fact, terms, result, params),)
        known[key] = found
    return found


# --- rules by kind of derivative --------------------------------------------------------------


def _partials(
    op: Op, fact: Partials, terms: Sequence[Series], result: Value, params: Mapping[str, Any]
) -> Series:
    """``k y_k`` is the coefficient k-1 of ``p x'``."""
    if op.name in RECURRENCES:
        return RECURRENCES[op.name](terms, result)
    out = terms[0].make(result, (), _joined(terms))
    for power in range(1, terms[0].order + 1):
        below = [term.cut(power - 1) for term in terms]
        partials = map(plain, fact.formula(*below, out, **params))
        parts: list[GraphTerm | None] = []
        for term, partial in zip(terms, partials, strict=True):
            if term.is_constant:
                continue
            if not isinstance(partial, Series):  # a number
                parts.append(_product(term.at(power), partial) if partial else None)
                continue
            for j in range(power):
                slope = scaled(term.at(power - j), (power - j) / power)
                product = _product(slope, partial.at(j))
                parts.append(
                    product if fact.bounded and j == 0 else _confined(product, term.support)
                )
        out = _extended(out, _sum(parts))
    return out


def _extended(series: Series, coefficient: GraphTerm | None) -> Series:
    last = None if coefficient is None else coefficient.operand
    return series.make(series.operand, (*series.higher, last), series.support)


def _joined(terms: Sequence[Series]) -> Operand | None:
    """Where any of the polynomials may change with t."""
    supports = [term.support for term in terms if not term.is_constant]
    return join(terms[0].builder, supports)


def _confined(product: GraphTerm | None, support: Operand | None) -> GraphTerm | None:
    return None if product is None else confine(product, support)


def _times(terms: Sequence[Series], result: Value) -> Series:
    x, y = terms
    out = x.make(result, (), _joined(terms))
    for power in range(1, x.order + 1):
        parts: list[GraphTerm | None] = []
        for i in range(power + 1):
            product = _product(x.at(i), y.at(power - i))
            product = _confined(product, x.support if i else None)
            parts.append(_confined(product, y.support if i < power else None))
        out = _extended(out, _sum(parts))
    return out


def _over(terms: Sequence[Series], result: Value) -> Series:
    """From ``y * out = x``."""
    x, y = terms
    support = _joined(terms)
    out = x.make(result, (), support)
    bottom = y.at(0)
    for power in range(1, x.order + 1):
        known = _sum(
            [_confined(_product(out.at(i), y.at(power - i)), y.support) for i in range(power)]
        )
        rest = _sum([x.at(power), None if known is None else -known])
        quotient = None if rest is None else rest / bottom
        out = _extended(out, _confined(quotient, support))
    return out


#: ops whose coefficients need no partials.
RECURRENCES: dict[str, Callable[[Sequence[Series], Value], Series]] = {
    "mul": _times,
    "div": _over,
}


def _by_coefficient(
    op: Op, fact: Routes | Linear, terms: Sequence[Series], result: Value, params: Mapping[str, Any]
) -> Series:
    """Choices and joint linearity: each coefficient goes the way of a tangent."""
    assert result.eqn is not None
    operands = [term.operand for term in terms]
    out = terms[0].make(result, ())
    supports: list[Operand | None] = []
    for power in range(1, terms[0].order + 1):
        dots = {
            i: Tangent(coefficient, term.support)
            for i, term in enumerate(terms)
            if (coefficient := term.higher[power - 1]) is not None
        }
        dot = None
        if dots:
            (dot,) = push(terms[0].builder, result.eqn, operands, (result,), dots)
        if dot is not None:
            supports.append(dot.support)
        out = _extended(out, None if dot is None else GraphTerm(out.builder, dot.operand))
    return out.make(result, out.higher, join(out.builder, supports))


def _linear(
    op: Op, fact: Linear, terms: Sequence[Series], result: Value, params: Mapping[str, Any]
) -> Series:
    if fact.jointly:
        return _by_coefficient(op, fact, terms, result, params)
    x, y = terms  # linear in each: a product
    out = x.make(result, ())
    for power in range(1, x.order + 1):
        parts: list[GraphTerm | None] = []
        for i in range(power + 1):
            left, right = x.at(i), y.at(power - i)
            if left is not None and right is not None:
                parts.append(left.call(op.name, right, **params))
        out = _extended(out, _sum(parts))
    return out


def _linearized(
    op: Op, fact: Linearized, terms: Sequence[Series], result: Value, params: Mapping[str, Any]
) -> Series:
    """``k y_k`` is the coefficient k-1 of the jvp along ``x'``."""
    out = terms[0].make(result, ())
    for power in range(1, terms[0].order + 1):
        below = tuple(term.cut(power - 1) for term in terms)
        slopes = tuple(None if t.is_constant else t.cut(power).slope() for t in terms)
        dot = fact.jvp(below, slopes, out, params)
        found = None if dot is None else dot.at(power - 1)
        out = _extended(out, scaled(found, 1 / power))
    return out


def _undefined(op: Op, fact: Undefined, *rest: Any) -> Series:
    raise UsageError(f"{op.name} can't be differentiated: {fact.reason}")


_RULES: dict[type, Callable[..., Series]] = {
    Partials: _partials,
    Routes: _by_coefficient,
    Linear: _linear,
    Linearized: _linearized,
    Undefined: _undefined,
}


#: a region op's rule: (builder, eqn, operands, order) -> results; ``taylor_regions`` fills it.
TAYLOR_RULES: dict[str, Callable[[Builder, Eqn, Sequence[Series], int], list[Series]]] = {}


# --- graphs -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class Taylor:
    """``graph(inputs..., coefficients of each active input...) -> outputs..., coefficients``.

    Coefficients from the first power to ``order``, for active inputs and outputs only. Where
    supports were asked for, those of polynomials stand behind the coefficients, among inputs and
    among outputs; ``supports`` says which outputs have one.
    """

    graph: Graph
    active: Mask
    active_outputs: Mask
    order: int
    supports: Mask = ()


def taylor(
    graph: Graph,
    active: Sequence[bool],
    order: int,
    wanted: Sequence[bool] | None = None,
    supports: Supports | None = None,
) -> Taylor:
    """The graph on polynomials.

    Args:
        graph: what to expand.
        active: which inputs have coefficients beyond the first; only float inputs can.
        order: the highest power that is kept, at least 1.
        wanted: outputs that get coefficients (zeros) even if no active input reaches them.
        supports: which supports go in and come out; None: none.
    """
    mask = tuple(active)
    builder = Builder(f"{graph.name}_taylor")
    inputs = [builder.input(value.aval, value.name) for value in graph.inputs]
    known: dict[Any, tuple[Series, ...]] = {}
    env: dict[Operand, Series] = {}
    for value, new, is_active in zip(graph.inputs, inputs, mask, strict=True):
        higher: tuple[Coefficient, ...] = (None,) * order
        if is_active:
            names = [f"{value.name}_{power}" for power in range(1, order + 1)]
            higher = tuple(builder.input(value.aval, name) for name in names)
        env[value] = Series(builder, new, higher, known)
    for value, is_given in zip(graph.inputs, supports.given if supports else (), strict=False):
        if is_given:
            support = builder.input(value.aval.with_dtype("bool"), f"{value.name}_support")
            env[value] = env[value].make(env[value].operand, env[value].higher, support)

    def series(operand: Operand) -> Series:
        if isinstance(operand, Literal):
            return Series(builder, operand, (None,) * order, known)
        return env[operand]

    for eqn in graph.eqns:
        builder.loc = eqn.loc
        terms = [series(operand) for operand in eqn.operands]
        if all(term.is_constant for term in terms):
            results = builder.emit(
                eqn.op, [t.operand for t in terms], eqn.params, eqn.regions, eqn.loc
            )
            found = tuple(Series(builder, r, (None,) * order, known) for r in results)
        elif eqn.regions:
            found = tuple(TAYLOR_RULES[eqn.op.name](builder, eqn, terms, order))
        else:
            found = apply(eqn.op, terms, eqn.params)
        env.update(zip(eqn.results, found, strict=True))
    outputs = [series(output) for output in graph.outputs]
    flags = [False] * len(outputs) if wanted is None else wanted
    on = tuple(not x.is_constant or want for x, want in zip(outputs, flags, strict=True))
    coefficients = [c for x, is_on in zip(outputs, on, strict=True) if is_on for c in filled(x)]
    masks, have = _output_supports(outputs, on, supports)
    built = prune(builder.build([*(x.operand for x in outputs), *coefficients, *masks]))
    return Taylor(built, mask, on, order, have)


def _output_supports(
    outputs: Sequence[Series], active: Mask, supports: Supports | None
) -> tuple[list[Operand], Mask]:
    """The supports of the outputs, and which outputs have one; constants' are nowhere."""
    if supports is None:
        return [], ()
    masks: list[Operand] = []
    have: list[bool] = []
    for x, is_active, is_wanted in zip(outputs, active, supports.wanted, strict=True):
        is_nowhere = x.is_constant and any(supports.given)
        has = is_active and (x.support is not None or is_wanted or is_nowhere)
        has = has and not x.aval.is_store
        have.append(has)
        if has:
            everywhere = literal(not x.is_constant, x.aval.with_dtype("bool"))
            masks.append(everywhere if x.support is None else x.support)
    return masks, tuple(have)


def filled(series: Series) -> list[Operand]:
    """All coefficients, absent ones as zeros."""
    return [literal(0, series.aval) if c is None else c for c in series.higher]
