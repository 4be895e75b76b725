"""Forward mode: ``jvp``, and ``linearize`` into a primal graph and a linear graph.

Before: ``f(x) = sin(x)``. After ``jvp``: ``f(x, x_dot) = (sin(x), x_dot * cos(x))``. After
``linearize``: the primal graph ``f(x) = (sin(x), cos(x))`` returns the residual ``cos(x)``, and the
linear graph ``f_lin(residual, x_dot) = x_dot * residual``.

Absent tangents are None, never arrays of zeros. Which values carry tangents is a fact of the graph:
an output that no active input reaches has none. Supports of tangents (see ``support``) go in and
come out beside them where they are asked for, so that a region doesn't end them. ``linearize`` has
no use for them there: what a choice confined on the way forward, its transpose confines again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from weakref import WeakKeyDictionary

from diffc.errors import UsageError
from diffc.ir.graph import (
    Builder,
    Eqn,
    Graph,
    Literal,
    Operand,
    Value,
    depends_on,
    literal,
    prune,
)
from diffc.ops.declare import Regional, Undefined, Zero
from diffc.transforms.rules import Tangent, push

Mask = tuple[bool, ...]

#: a region op's rule: (builder, eqn, operands, tangents by position) -> (results, their tangents).
#: ``regions`` fills these; a jvp rule may make one equation of both, a linearize rule may not.
RegionRule = Callable[
    [Builder, Eqn, Sequence[Operand], Mapping[int, Tangent]],
    tuple[Sequence[Operand], Sequence[Tangent | None]],
]
#: the same for a region op that ends supports
PlainRule = Callable[
    [Builder, Eqn, Sequence[Operand], Mapping[int, Operand]],
    tuple[Sequence[Operand], Sequence[Operand | None]],
]
JVP_RULES: dict[str, RegionRule] = {}
LINEARIZE_RULES: dict[str, RegionRule] = {}


def plain(rule: PlainRule) -> RegionRule:
    """The rule of an op that ends supports."""

    def run(
        builder: Builder, eqn: Eqn, operands: Sequence[Operand], dots: Mapping[int, Tangent]
    ) -> tuple[Sequence[Operand], Sequence[Tangent | None]]:
        results, found = rule(builder, eqn, operands, {i: dot.operand for i, dot in dots.items()})
        return results, [None if dot is None else Tangent(dot) for dot in found]

    return run


@dataclass(frozen=True, slots=True, eq=False)
class Jvp:
    """``graph(inputs..., tangents of inputs...) -> outputs..., tangents of outputs``.

    Active inputs and outputs only have tangents. Where supports were asked for, those of tangents
    stand behind them, among inputs and among outputs; ``supports`` says which outputs have one.
    """

    graph: Graph
    active: Mask
    active_outputs: Mask
    supports: Mask = ()


@dataclass(frozen=True, slots=True, eq=False)
class Linearization:
    """The two halves of a derivative.

    Attributes:
        primal: ``inputs... -> outputs..., residuals...``.
        linear: ``residuals..., tangents of active inputs... -> tangents of active outputs...``.
        active: which inputs have tangents.
        active_outputs: which outputs have tangents.
        residuals: how many residuals there are.
    """

    primal: Graph
    linear: Graph
    active: Mask
    active_outputs: Mask
    residuals: int


@dataclass(frozen=True, slots=True)
class Supports:
    """Which supports a region's derivative is given, and which it must give.

    Attributes:
        given: which inputs come with the support of their tangent (or cotangent).
        wanted: which outputs get one in any case: True everywhere, False for absent tangents.
    """

    given: Mask
    wanted: Mask

    @classmethod
    def of(cls, eqn: Eqn, dots: Mapping[int, Tangent], first: int = 0) -> Supports:
        """Those of the tangents of an equation's operands from ``first`` on."""
        given = (i in dots and dots[i].support is not None for i in range(first, len(eqn.operands)))
        return cls(tuple(given), (False,) * len(eqn.results))


Key = tuple[Mask, Mask, Supports | None]
_JVPS: WeakKeyDictionary[Graph, dict[Key, Jvp]] = WeakKeyDictionary()
_LINEARIZATIONS: WeakKeyDictionary[Graph, dict[tuple[Mask, Mask], Linearization]] = (
    WeakKeyDictionary()
)


def jvp(
    graph: Graph,
    active: Sequence[bool],
    instantiate: Sequence[bool] | None = None,
    supports: Supports | None = None,
) -> Jvp:
    """The graph that computes values and tangents together.

    Args:
        graph: what to differentiate.
        active: which inputs have tangents; only float inputs can.
        instantiate: outputs that get a tangent (zeros) even if no active input reaches them.
        supports: which supports go in and come out; None: none.
    """
    mask, wanted = tuple(active), _wanted(graph, instantiate)
    known = _JVPS.setdefault(graph, {})
    found = known.get((mask, wanted, supports))
    if found is None:
        builder, tangents, env = _walk(graph, mask, supports, split=False)
        outputs = [env.get(output, output) for output in graph.outputs]
        dots, active_outputs = _output_tangents(graph, tangents, wanted)
        masks, have = _output_supports(graph, tangents, active_outputs, supports)
        built = prune(builder.build([*outputs, *dots, *masks]))
        found = known[mask, wanted, supports] = Jvp(built, mask, active_outputs, have)
    return found


def linearize(
    graph: Graph, active: Sequence[bool], instantiate: Sequence[bool] | None = None
) -> Linearization:
    """Splits the derivative into a primal graph and a linear graph; arguments as :func:`jvp`."""
    mask, wanted = tuple(active), _wanted(graph, instantiate)
    known = _LINEARIZATIONS.setdefault(graph, {})
    found = known.get((mask, wanted))
    if found is None:
        found = known[mask, wanted] = _linearize(graph, mask, wanted)
    return found


def _wanted(graph: Graph, instantiate: Sequence[bool] | None) -> Mask:
    return (False,) * len(graph.outputs) if instantiate is None else tuple(instantiate)


def _linearize(graph: Graph, mask: Mask, wanted: Mask) -> Linearization:
    builder, tangents, env = _walk(graph, mask, None, split=True)
    outputs = [env.get(output, output) for output in graph.outputs]
    dots, active_outputs = _output_tangents(graph, tangents, wanted)
    whole = prune(builder.build([*outputs, *dots]))
    count = len(graph.inputs)
    linear_values = depends_on(whole, whole.inputs[count:])
    primal_eqns = tuple(e for e in whole.eqns if e.results[0] not in linear_values)
    linear_eqns = [e for e in whole.eqns if e.results[0] in linear_values]
    residuals: dict[Value, None] = {}
    for eqn in linear_eqns:
        for operand in eqn.operands:
            if isinstance(operand, Value) and operand not in linear_values:
                residuals[operand] = None
    for dot in dots:
        if isinstance(dot, Value) and dot not in linear_values:
            residuals[dot] = None
    primal = Graph(graph.name, whole.inputs[:count], primal_eqns, (*outputs, *residuals))
    linear = Builder(f"{graph.name}_linear")
    rename: dict[Operand, Operand] = {}
    for value in residuals:
        rename[value] = linear.input(value.aval, value.name or "residual")
    for value in whole.inputs[count:]:
        rename[value] = linear.input(value.aval, value.name)
    for eqn in linear_eqns:
        linear.copy(eqn, rename)
    built = linear.build(rename.get(dot, dot) for dot in dots)
    return Linearization(prune(primal), built, mask, active_outputs, len(residuals))


def _output_tangents(
    graph: Graph, tangents: dict[Operand, Tangent], wanted: Mask
) -> tuple[list[Operand], Mask]:
    dots: list[Operand] = []
    active: list[bool] = []
    for output, is_wanted in zip(graph.outputs, wanted, strict=True):
        tangent = tangents.get(output)
        active.append(tangent is not None or is_wanted)
        if tangent is not None:
            dots.append(tangent.operand)
        elif is_wanted:
            dots.append(literal(0, output.aval))
    return dots, tuple(active)


def _output_supports(
    graph: Graph, tangents: dict[Operand, Tangent], active: Mask, supports: Supports | None
) -> tuple[list[Operand], Mask]:
    """The supports of the outputs' tangents, and which outputs have one."""
    if supports is None:
        return [], ()
    masks: list[Operand] = []
    have: list[bool] = []
    for output, is_active, is_wanted in zip(graph.outputs, active, supports.wanted, strict=True):
        tangent = tangents.get(output)
        support = None if tangent is None else tangent.support
        is_nowhere = tangent is None and any(supports.given)
        has = is_active and (support is not None or is_wanted or is_nowhere)
        has = has and not output.aval.is_store
        have.append(has)
        if has:
            shape = output.aval.with_dtype("bool")
            masks.append(literal(tangent is not None, shape) if support is None else support)
    return masks, tuple(have)


def _walk(
    graph: Graph, mask: Mask, supports: Supports | None, *, split: bool
) -> tuple[Builder, dict[Operand, Tangent], dict[Operand, Operand]]:
    """Copies ``graph`` and emits its tangents beside it.

    Returns the builder, the tangents by old value, and the new operand of each old value. With
    ``split``, no equation both computes primal values and reads tangents.
    """
    builder = Builder(f"{graph.name}_jvp")
    env: dict[Operand, Operand] = {}
    tangents: dict[Operand, Tangent] = {}
    for value in graph.inputs:
        env[value] = builder.input(value.aval, value.name)
    for value, is_active in zip(graph.inputs, mask, strict=True):
        if is_active:
            dot = builder.input(value.aval, f"{value.name}_dot")
            dot.of = value
            tangents[value] = Tangent(dot)
    for value, is_given in zip(graph.inputs, supports.given if supports else (), strict=False):
        if is_given:
            support = builder.input(value.aval.with_dtype("bool"), f"{value.name}_support")
            tangents[value] = Tangent(tangents[value].operand, support)
    for eqn in graph.eqns:
        builder.loc = eqn.loc
        dots = {i: tangents[x] for i, x in enumerate(eqn.operands) if x in tangents}
        fact = eqn.op.fact(eqn.params)
        if not dots or isinstance(fact, Zero):
            builder.copy(eqn, env)
        elif isinstance(fact, Undefined):
            raise UsageError(
                f"{eqn.op.name} can't be differentiated: {fact.reason}",
                location=None if eqn.loc is None else str(eqn.loc),
            )
        elif isinstance(fact, Regional):
            _walk_region(builder, eqn, env, tangents, dots, split=split)
        else:
            results = builder.copy(eqn, env)
            operands = [env.get(x, x) for x in eqn.operands]
            found = push(builder, eqn, operands, results, dots)
            _record(eqn.results, found, tangents)
    return builder, tangents, env


def _walk_region(
    builder: Builder,
    eqn: Eqn,
    env: dict[Operand, Operand],
    tangents: dict[Operand, Tangent],
    dots: dict[int, Tangent],
    *,
    split: bool,
) -> None:
    operands = [env.get(x, x) for x in eqn.operands]
    rule = LINEARIZE_RULES[eqn.op.name] if split else JVP_RULES[eqn.op.name]
    results, found = rule(builder, eqn, operands, dots)
    env.update(zip(eqn.results, results, strict=True))
    _record(eqn.results, found, tangents)


def _record(
    results: Sequence[Value], found: Sequence[Tangent | None], tangents: dict[Operand, Tangent]
) -> None:
    for value, tangent in zip(results, found, strict=True):
        if tangent is not None and value.aval.is_float:
            operand = tangent.operand
            if isinstance(operand, Literal) and operand.value == 0:
                continue
            tangents[value] = tangent
            if isinstance(operand, Value) and operand.of is None and operand.eqn is not None:
                operand.of = value
