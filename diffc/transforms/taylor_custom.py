"""Taylor mode of ``custom`` and ``custom_linear``: the coefficients that their rules give.

Along ``x(t)`` a rule for tangents says ``y' = j(x, x')``. So the coefficient of ``t^k`` in ``y``
is that of ``t^(k-1)`` in ``j(x, x')``, over k: one expansion of the rule to one order less. What is
custom within the rule is expanded in the same way, until no order is left. The value is the rule's.
"""

from __future__ import annotations

from collections.abc import Sequence

from diffc.ir.graph import Builder, Eqn, Graph, Operand
from diffc.transforms.custom_rules import dots_of, meaning_of, rule_of
from diffc.transforms.taylor import TAYLOR_RULES, Series, filled, scaled, taylor


def _custom(builder: Builder, eqn: Eqn, terms: Sequence[Series], order: int) -> list[Series]:
    rule = rule_of(eqn)
    inner = Builder(f"{rule.title}_jvp")
    args = [inner.input(term.aval) for term in terms[: rule.arguments]]
    moving = {i: inner.input(x.aval) for i, x in enumerate(terms) if not x.is_constant}
    outs, dots = rule.jvp(inner, args, dots_of(rule, eqn, moving))
    graph = inner.build([*outs, *(dot for dot in dots if dot is not None)])
    slopes = [terms[i].slope() for i in moving]
    found = expanded(builder, graph, [*terms[: rule.arguments], *slopes], order - 1)
    derivatives = iter(found[len(outs) :])
    results = []
    for value, dot in zip(found, dots, strict=False):
        higher: list[Operand | None] = [None] * order
        if dot is not None:
            slope = next(derivatives)
            parts = [scaled(slope.at(power), 1 / (power + 1)) for power in range(order)]
            higher = [None if part is None else part.operand for part in parts]
        results.append(Series(builder, value.operand, tuple(higher)))
    return results


def _custom_linear(builder: Builder, eqn: Eqn, terms: Sequence[Series], order: int) -> list[Series]:
    return expanded(builder, meaning_of(eqn), terms, order)


def expanded(builder: Builder, graph: Graph, terms: Sequence[Series], order: int) -> list[Series]:
    """A graph's outputs on polynomials, of which powers above ``order`` are dropped."""
    terms = [term.cut(order) for term in terms]
    operands = [term.operand for term in terms]
    mask = [not term.is_constant for term in terms]
    if not any(mask):
        values = builder.inline(graph, operands)
        return [Series(builder, value, (None,) * order) for value in values]
    made = taylor(graph, mask, order)
    coefficients = [c for term, on in zip(terms, mask, strict=True) if on for c in filled(term)]
    found = builder.inline(made.graph, [*operands, *coefficients])
    rest = iter(found[len(made.active_outputs) :])
    return [
        Series(builder, value, tuple(next(rest) if on else None for _ in range(order)))
        for value, on in zip(found, made.active_outputs, strict=False)
    ]


TAYLOR_RULES.update(custom=_custom, custom_linear=_custom_linear)
