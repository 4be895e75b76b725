"""``transpose`` turns a linear graph around; ``vjp`` is ``linearize`` and ``transpose`` together.

Before: ``f_lin(r, x_dot) = x_dot * r``. After: ``f_ct(r, out_ct) = out_ct * r``. Equations are
visited from the last to the first; each adds to the cotangents of the operands in which it is
linear. A cotangent remembers the value it belongs to (``Value.of``). Supports of cotangents (see
``support``) go in and come out beside them where they are asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from weakref import WeakKeyDictionary

from diffc.ir.graph import Builder, Eqn, Graph, Operand, Value, depends_on, literal, prune
from diffc.ops.declare import Regional
from diffc.transforms.forward import Mask, Supports, linearize
from diffc.transforms.rules import Tangent, add, pull

#: a region op's rule: (builder, eqn, operands or None where linear, cotangents by result) ->
#: cotangents by operand. ``regions`` fills it.
TransposeRule = Callable[
    [Builder, Eqn, Sequence[Operand | None], Mapping[int, Tangent]], Mapping[int, Tangent]
]
#: the same for a region op that ends supports
PlainTransposeRule = Callable[
    [Builder, Eqn, Sequence[Operand | None], Mapping[int, Operand]], Mapping[int, Operand]
]
TRANSPOSE_RULES: dict[str, TransposeRule] = {}
#: what is done to each vjp, where both halves stand in one graph
VJP_PASSES: list[Callable[[Graph], Graph]] = []

Key = tuple[Mask, Mask, Supports | None]
_TRANSPOSES: WeakKeyDictionary[Graph, dict[Key, Transposed]] = WeakKeyDictionary()


def plain_transpose(rule: PlainTransposeRule) -> TransposeRule:
    """The rule of an op that ends supports."""

    def run(
        builder: Builder, eqn: Eqn, operands: Sequence[Operand | None], cts: Mapping[int, Tangent]
    ) -> Mapping[int, Tangent]:
        found = rule(builder, eqn, operands, {i: ct.operand for i, ct in cts.items()})
        return {i: Tangent(ct) for i, ct in found.items()}

    return run


@dataclass(frozen=True, slots=True, eq=False)
class Vjp:
    """``graph(inputs..., cotangents of outputs...) -> outputs..., cotangents of inputs``.

    Active inputs and outputs only have cotangents.
    """

    graph: Graph
    active: Mask
    active_outputs: Mask


def transpose(graph: Graph, linear: Sequence[bool], present: Sequence[bool] | None = None) -> Graph:
    """Turns around a graph that is linear in the inputs marked in ``linear``.

    Args:
        graph: a linear graph.
        linear: which inputs it is linear in; the others are residuals.
        present: which outputs have a cotangent (default: all); the others' are zero.

    Returns:
        ``residuals..., cotangents of present outputs... -> cotangents of linear inputs...``.
        An input that nothing reaches gets a zero literal.
    """
    return transposed(graph, linear, present).graph


@dataclass(frozen=True, slots=True, eq=False)
class Transposed:
    """A graph turned around.

    ``residuals..., cotangents of outputs..., their supports... -> cotangents of linear inputs...,
    their supports...``; ``supports`` says which linear inputs have one.
    """

    graph: Graph
    supports: Mask


def transposed(
    graph: Graph,
    linear: Sequence[bool],
    present: Sequence[bool] | None = None,
    supports: Supports | None = None,
) -> Transposed:
    """As :func:`transpose`, with supports.

    Args:
        graph: a linear graph.
        linear: which inputs it is linear in.
        present: which outputs have a cotangent (default: all).
        supports: which outputs' cotangents come with a support, and which linear inputs get one in
            any case; None: none.
    """
    mask = tuple(linear)
    here = (True,) * len(graph.outputs) if present is None else tuple(present)
    known = _TRANSPOSES.setdefault(graph, {})
    found = known.get((mask, here, supports))
    if found is None:
        found = known[mask, here, supports] = _transpose(graph, mask, here, supports)
    return found


def _transpose(graph: Graph, mask: Mask, present: Mask, supports: Supports | None) -> Transposed:
    builder = Builder(f"{graph.name}_transpose")
    env: dict[Operand, Operand] = {}
    sources = [value for value, is_linear in zip(graph.inputs, mask, strict=True) if is_linear]
    for value, is_linear in zip(graph.inputs, mask, strict=True):
        if not is_linear:
            env[value] = builder.input(value.aval, value.name)
    linear_values = depends_on(graph, sources)
    cts: dict[Value, list[Tangent]] = {}
    inputs = {
        position: builder.input(output.aval, f"ct{position}")
        for position, (output, is_present) in enumerate(zip(graph.outputs, present, strict=True))
        if is_present
    }
    confined = {
        position: builder.input(
            graph.outputs[position].aval.with_dtype("bool"), f"support{position}"
        )
        for position, is_given in enumerate(supports.given if supports else ())
        if is_given
    }
    for position, ct in inputs.items():
        output = graph.outputs[position]
        if isinstance(output, Value) and output in linear_values:
            cts.setdefault(output, []).append(Tangent(ct, confined.get(position)))
    for eqn in graph.eqns:
        if eqn.results[0] not in linear_values:
            builder.copy(eqn, env)
    for eqn in reversed(graph.eqns):
        if eqn.results[0] in linear_values:
            _transpose_eqn(builder, eqn, env, linear_values, cts)
    totals = [
        add(builder, cts[value]) if value in cts else Tangent(literal(0, value.aval))
        for value in sources
    ]
    outputs = [total.operand for total in totals]
    have: list[bool] = []
    for value, total, is_wanted in zip(
        sources, totals, supports.wanted if supports else (), strict=False
    ):
        is_nowhere = value not in cts and bool(confined)
        has = total.support is not None or is_wanted or is_nowhere
        has = has and not value.aval.is_store
        have.append(has)
        if has:
            shape = value.aval.with_dtype("bool")
            everywhere = literal(value in cts, shape)
            outputs.append(everywhere if total.support is None else total.support)
    return Transposed(prune(builder.build(outputs)), tuple(have))


def _transpose_eqn(
    builder: Builder,
    eqn: Eqn,
    env: dict[Operand, Operand],
    linear_values: set[Value],
    cts: dict[Value, list[Tangent]],
) -> None:
    builder.loc = eqn.loc
    totals: dict[int, Tangent] = {}
    for i, result in enumerate(eqn.results):
        if result in cts:
            totals[i] = add(builder, cts[result])
            operand = totals[i].operand
            if isinstance(operand, Value) and operand.eqn is not None and operand.of is None:
                operand.of = result.of or result
    if not totals:
        return
    operands = [None if x in linear_values else env.get(x, x) for x in eqn.operands]
    if isinstance(eqn.op.fact(eqn.params), Regional):
        found = dict(TRANSPOSE_RULES[eqn.op.name](builder, eqn, operands, totals))
    else:
        active = [i for i, operand in enumerate(operands) if operand is None]
        found = pull(builder, eqn, operands, totals[0], active)
    for i, ct in found.items():
        value = eqn.operands[i]
        if isinstance(value, Value):
            cts.setdefault(value, []).append(ct)


def vjp(
    graph: Graph,
    active: Sequence[bool],
    present: Sequence[bool] | None = None,
    *,
    with_supports: bool = False,
) -> Vjp:
    """The graph that computes values and the cotangents of its inputs.

    Args:
        graph: what to differentiate.
        active: which inputs get cotangents; only float inputs can.
        present: which outputs have a cotangent (default: all that depend on an active input).
        with_supports: whether the supports of the cotangents are inputs, too, behind them.
    """
    halves = linearize(graph, active)
    active_outputs = halves.active_outputs
    if present is not None:
        active_outputs = tuple(map(bool.__and__, active_outputs, present))
    here = tuple(p for p, a in zip(active_outputs, halves.active_outputs, strict=True) if a)
    linear = [False] * halves.residuals + [True] * sum(halves.active)
    given = here if with_supports else (False,) * len(here)
    turned = transposed(halves.linear, linear, here, Supports(given, (False,) * sum(halves.active)))
    builder = Builder(f"{graph.name}_vjp")
    inputs = [builder.input(value.aval, value.name) for value in graph.inputs]
    cts = [
        builder.input(output.aval, f"ct{i}")
        for i, (output, is_active) in enumerate(zip(graph.outputs, active_outputs, strict=True))
        if is_active
    ]
    if with_supports:
        cts += [
            builder.input(output.aval.with_dtype("bool"), f"support{i}")
            for i, (output, is_on) in enumerate(zip(graph.outputs, active_outputs, strict=True))
            if is_on
        ]
    forward = builder.inline(halves.primal, inputs)
    split = len(forward) - halves.residuals
    backward = builder.inline(turned.graph, [*forward[split:], *cts])[: sum(halves.active)]
    built = prune(builder.build([*forward[:split], *backward]))
    for improve in VJP_PASSES:
        built = improve(built)
    return Vjp(built, halves.active, active_outputs)
