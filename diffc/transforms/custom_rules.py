"""Rules that users give: derivatives and batching of ``custom`` and ``custom_linear``; ``expand``.

A :class:`Rule` stands behind the name that an equation carries. Its graphs are made when they are
first asked for, since a rule may call the very function it belongs to. ``expand`` replaces what is
custom by its meaning, when all differentiating is done.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

from diffc.errors import InternalError, UsageError
from diffc.ir.graph import Builder, Eqn, Graph, Operand, Value, graphs_of, literal, prune, rebuild
from diffc.ops.batching import spread_front
from diffc.ops.registry import find
from diffc.ops.term import GraphTerm
from diffc.transforms.backward import TRANSPOSE_RULES, plain_transpose, transpose
from diffc.transforms.batch import BATCH_RULES, batch
from diffc.transforms.forward import JVP_RULES, LINEARIZE_RULES, jvp, linearize, plain
from diffc.transforms.linear import explain_nonlinear

if TYPE_CHECKING:
    from diffc.ir.index import Dim

Found = tuple[Sequence[Operand], Sequence[Operand | None]]


class RuleName(str):
    """The name of a rule as a param: a plain string in text, which keeps its rule alive."""

    __slots__ = ("rule",)

    rule: Rule


_RULES: WeakValueDictionary[str, Rule] = WeakValueDictionary()
_COUNT = itertools.count()


class Rule:
    """How one traced use of a custom function is differentiated.

    Attributes:
        title: the function's name, for messages.
        name: unique; what the equation carries.
        arguments: how many of the operands are arguments; those after them have no derivative.
        results: how many results there are.
    """

    def __init__(self, title: str, arguments: int, results: int) -> None:
        self.title = title
        self.arguments = arguments
        self.results = results
        self.text = f"{title}.{next(_COUNT)}"
        _RULES[self.text] = self

    @property
    def name(self) -> RuleName:
        """The name as a param."""
        name = RuleName(self.text)
        name.rule = self
        return name

    def jvp(self, builder: Builder, args: Sequence[Operand], dots: Sequence[Operand]) -> Found:
        """Results and tangents of all float results; ``dots`` are those of all float arguments."""
        raise NotImplementedError

    def linearize(
        self, builder: Builder, args: Sequence[Operand], dots: Sequence[Operand]
    ) -> Found:
        """The same, where no equation both computes values and reads tangents."""
        raise NotImplementedError

    def batched(self, mask: Sequence[bool], size: Dim) -> Rule:
        """The rule of the batched function; all results are batched."""
        raise NotImplementedError

    def _spread(self, outs: Sequence[Operand], dots: Sequence[Operand]) -> Found:
        found = iter(dots)
        return outs, [next(found) if out.aval.is_float else None for out in outs]


def rule_of(eqn: Eqn) -> Rule:
    """The rule behind a ``custom`` equation.

    Raises:
        InternalError: the rule is no more, as in a text that another process has printed.
    """
    name = eqn.params["rule"]
    rule = name.rule if isinstance(name, RuleName) else _RULES.get(name)
    if rule is None:
        raise InternalError(f"the rule {name!r} is not known here")
    return rule


class JvpRule(Rule):
    """A rule for tangents.

    ``make()`` gives a graph of the arguments and the tangents of the float ones; its outputs are
    the results and the tangents of the float ones. It must be linear in the tangents.
    """

    def __init__(self, title: str, arguments: int, results: int, make: Callable[[], Graph]) -> None:
        super().__init__(title, arguments, results)
        self._make = make

    @cached_property
    def _parts(self) -> tuple[Graph, Graph]:
        """The graphs of the results and of their tangents."""
        graph = self._make()
        floats = sum(value.aval.is_float for value in graph.inputs[: self.arguments])
        count = self.results
        outs = prune(Graph(graph.name, graph.inputs, graph.eqns, graph.outputs[:count]))
        name = f"{graph.name}_dot"
        dots = prune(Graph(name, graph.inputs, graph.eqns, graph.outputs[count:]))
        mask = [False] * self.arguments + [True] * floats
        problem = explain_nonlinear(dots, mask)
        if problem is not None:
            raise UsageError(
                f"the rule of {self.title} is not linear in its tangents: {problem}",
                hint="tangents may be added, scaled by primal values, moved and summed",
            )
        return outs, dots

    def jvp(self, builder: Builder, args: Sequence[Operand], dots: Sequence[Operand]) -> Found:
        """The rule itself."""
        outs, tangents = self._parts
        zeros = [literal(0, dot.aval) for dot in dots]
        return self._spread(
            builder.inline(outs, [*args, *zeros]), builder.inline(tangents, [*args, *dots])
        )

    def linearize(
        self, builder: Builder, args: Sequence[Operand], dots: Sequence[Operand]
    ) -> Found:
        """The rule is linear in tangents, so it is its own derivative by them."""
        outs, tangents = self._parts
        zeros = [literal(0, dot.aval) for dot in dots]
        mask = [False] * len(args) + [True] * len(dots)
        halves = linearize(tangents, mask, [True] * len(tangents.outputs))
        primal = builder.inline(halves.primal, [*args, *zeros])
        residuals = primal[len(primal) - halves.residuals :]
        return self._spread(
            builder.inline(outs, [*args, *zeros]),
            builder.inline(halves.linear, [*residuals, *dots]),
        )

    def batched(self, mask: Sequence[bool], size: Dim) -> JvpRule:
        """A tangent is batched where its argument is."""

        def make() -> Graph:
            graph = self._make()
            floats = [
                on
                for value, on in zip(graph.inputs[: self.arguments], mask, strict=True)
                if value.aval.is_float
            ]
            return batch(graph, [*mask, *floats], size, [True] * len(graph.outputs)).graph

        return JvpRule(self.title, self.arguments, self.results, make)


class VjpRule(Rule):
    """A rule for cotangents.

    ``make()`` gives two graphs: from the arguments to the results and residuals; and from residuals
    and cotangents of the float results to cotangents of the float arguments.
    """

    def __init__(
        self, title: str, arguments: int, results: int, make: Callable[[], tuple[Graph, Graph]]
    ) -> None:
        super().__init__(title, arguments, results)
        self._make = make

    @cached_property
    def _halves(self) -> tuple[Graph, Graph]:
        return self._make()

    def jvp(self, builder: Builder, args: Sequence[Operand], dots: Sequence[Operand]) -> Found:
        """The backward rule turned around, which needs it to be linear."""
        return self.linearize(builder, args, dots)

    def linearize(
        self, builder: Builder, args: Sequence[Operand], dots: Sequence[Operand]
    ) -> Found:
        """A linear map that is known by its transpose."""
        forward, backward = self._halves
        found = builder.inline(forward, args)
        outs, residuals = found[: self.results], found[self.results :]
        params = {"residuals": len(residuals)}
        tangents = builder.emit(find("custom_linear"), [*residuals, *dots], params, (backward,))
        return self._spread(outs, tangents)

    def batched(self, mask: Sequence[bool], size: Dim) -> VjpRule:
        """Cotangents of arguments that are the same for the whole batch are summed."""

        def make() -> tuple[Graph, Graph]:
            forward, backward = self._halves
            wanted = [i < self.results for i in range(len(forward.outputs))]
            first = batch(forward, mask, size, wanted)
            flags = [*first.outputs[self.results :]]
            flags += [True] * (len(backward.inputs) - len(flags))
            second = batch(backward, flags, size, [True] * len(backward.outputs))
            floats = [
                on for value, on in zip(forward.inputs, mask, strict=True) if value.aval.is_float
            ]
            builder = Builder(second.graph.name)
            inputs = [builder.input(value.aval, value.name) for value in second.graph.inputs]
            cts = [
                ct if on else builder.emit(find("sum"), (ct,), {"axes": (0,)})[0]
                for ct, on in zip(builder.inline(second.graph, inputs), floats, strict=True)
            ]
            return first.graph, builder.build(cts)

        return VjpRule(self.title, self.arguments, self.results, make)


# --- custom -----------------------------------------------------------------------------------


def dots_of(rule: Rule, eqn: Eqn, dots: Mapping[int, Operand]) -> list[Operand]:
    """Tangents of all float arguments, absent ones as zeros."""
    if any(i >= rule.arguments for i in dots):
        raise UsageError(
            f"{rule.title} has its own derivative rule, and reads a value from outside that is "
            "differentiated too",
            location=None if eqn.loc is None else str(eqn.loc),
            hint="pass the value as an argument, so that the rule can say its derivative",
        )
    return [
        dots.get(i, literal(0, operand.aval))
        for i, operand in enumerate(eqn.operands[: rule.arguments])
        if operand.aval.is_float
    ]


def _custom_jvp(
    builder: Builder, eqn: Eqn, operands: Sequence[Operand], dots: Mapping[int, Operand]
) -> Found:
    rule = rule_of(eqn)
    return rule.jvp(builder, operands[: rule.arguments], dots_of(rule, eqn, dots))


def _custom_linearize(
    builder: Builder, eqn: Eqn, operands: Sequence[Operand], dots: Mapping[int, Operand]
) -> Found:
    rule = rule_of(eqn)
    return rule.linearize(builder, operands[: rule.arguments], dots_of(rule, eqn, dots))


def _custom_batch(
    builder: Builder,
    eqn: Eqn,
    operands: Sequence[Operand],
    mask: tuple[bool, ...],
    size: Dim,
) -> tuple[Sequence[Operand], Sequence[bool]]:
    (region,) = eqn.regions
    rule = rule_of(eqn)
    everything = [True] * len(region.outputs)
    made = batch(region, mask, size, everything)
    params = {"rule": rule.batched(mask[: rule.arguments], size).name}
    return builder.emit(eqn.op, operands, params, (made.graph,), eqn.loc), everything


# --- custom_linear ----------------------------------------------------------------------------


def meaning_of(eqn: Eqn) -> Graph:
    """From residuals and tangents to tangents: the meaning of a ``custom_linear`` equation."""
    (backward,) = eqn.regions
    count = eqn.params["residuals"]
    linear = [i >= count for i in range(len(backward.inputs))]
    problem = explain_nonlinear(backward, linear)
    if problem is not None:
        raise UsageError(
            f"forward mode needs the backward rule @{backward.name} to be linear in its "
            f"cotangents: {problem}",
            location=None if eqn.loc is None else str(eqn.loc),
            hint="use reverse mode (grad, vjp, jacrev), or give a rule by custom_jvp",
        )
    return transpose(backward, linear)


def _linear_jvp(
    builder: Builder, eqn: Eqn, operands: Sequence[Operand], dots: Mapping[int, Operand]
) -> Found:
    made = jvp(meaning_of(eqn), [i in dots for i in range(len(operands))])
    results = builder.inline(made.graph, [*operands, *(dots[i] for i in sorted(dots))])
    count = len(eqn.results)
    found = iter(results[count:])
    return results[:count], [next(found) if on else None for on in made.active_outputs]


def _linear_linearize(
    builder: Builder, eqn: Eqn, operands: Sequence[Operand], dots: Mapping[int, Operand]
) -> Found:
    halves = linearize(meaning_of(eqn), [i in dots for i in range(len(operands))])
    primal = builder.inline(halves.primal, operands)
    count = len(eqn.results)
    given = [*primal[count:], *(dots[i] for i in sorted(dots))]
    found = iter(builder.inline(halves.linear, given))
    return primal[:count], [next(found) if on else None for on in halves.active_outputs]


def _linear_transpose(
    builder: Builder, eqn: Eqn, operands: Sequence[Operand | None], cts: Mapping[int, Operand]
) -> Mapping[int, Operand]:
    (backward,) = eqn.regions
    count = eqn.params["residuals"]
    residuals = [operand for operand in operands[:count] if operand is not None]
    if len(residuals) != count:
        raise InternalError("a residual of custom_linear depends on a tangent")
    given = [cts.get(i, literal(0, result.aval)) for i, result in enumerate(eqn.results)]
    found = builder.inline(backward, [*residuals, *given])
    return {i: ct for i, ct in enumerate(found, count) if operands[i] is None}


def _linear_batch(
    builder: Builder,
    eqn: Eqn,
    operands: Sequence[Operand],
    mask: tuple[bool, ...],
    size: Dim,
) -> tuple[Sequence[Operand], Sequence[bool]]:
    """All tangents get the batch: their avals are those of the region's outputs."""
    (backward,) = eqn.regions
    count = eqn.params["residuals"]
    given = [
        operand if on or i < count else spread_front(GraphTerm(builder, operand), size).operand
        for i, (operand, on) in enumerate(zip(operands, mask, strict=True))
    ]
    flags = [*mask[:count], *(True for _ in eqn.results)]
    made = batch(backward, flags, size, [True] * len(backward.outputs))
    results = builder.emit(eqn.op, given, eqn.params, (made.graph,), eqn.loc)
    return results, [True] * len(results)


JVP_RULES.update(custom=plain(_custom_jvp), custom_linear=plain(_linear_jvp))
LINEARIZE_RULES.update(custom=plain(_custom_linearize), custom_linear=plain(_linear_linearize))
TRANSPOSE_RULES.update(custom_linear=plain_transpose(_linear_transpose))
BATCH_RULES.update(custom=_custom_batch, custom_linear=_linear_batch)


# --- expand -----------------------------------------------------------------------------------

_CUSTOM = ("custom", "custom_linear")
_ALL = (*_CUSTOM, "linear_solve")


def expand(graph: Graph, solves: bool = False) -> Graph:
    """The graph with every ``custom`` and ``custom_linear`` replaced by its meaning.

    Before: ``y = custom(x) { f }``. After: the equations of ``f`` on ``x``. All differentiating
    must be done before; the same graph where there is nothing custom.

    Args:
        graph: what is expanded.
        solves: whether each ``linear_solve`` is replaced by its method of solution, too.
    """
    names = _ALL if solves else _CUSTOM
    order = list(graphs_of(graph))
    if not any(eqn.op.name in names for each in order for eqn in each.eqns):
        return graph
    done: dict[Graph, Graph] = {}

    def step(builder: Builder, eqn: Eqn, env: dict[Operand, Operand]) -> None:
        operands = [env.get(operand, operand) for operand in eqn.operands]
        results: Sequence[Operand]
        if eqn.op.name == "custom":
            results = builder.inline(done[eqn.regions[0]], operands)
        elif eqn.op.name == "custom_linear":
            results = builder.inline(expand(meaning_of(eqn), solves), operands)
        elif eqn.op.name == "linear_solve" and solves:
            first, last = eqn.params["products"], len(operands) - len(eqn.results)
            given = operands[first : first + eqn.params["forward"]]
            results = builder.inline(done[eqn.regions[1]], [*given, *operands[last:]])
        else:
            regions = tuple(done[region] for region in eqn.regions)
            results = builder.emit(eqn.op, operands, eqn.params, regions, eqn.loc)
            for old, new in zip(eqn.results, results, strict=True):
                assert isinstance(new, Value)
                new.name, new.of = new.name or old.name, new.of or old.of
        env.update(zip(eqn.results, results, strict=True))

    for each in order:  # callees first
        done[each] = rebuild(each, step)
    return done[graph]
