"""Functions with derivatives of their own: ``custom_jvp``, ``custom_vjp``; and ``checkpoint``.

Outside a trace they are the functions themselves. Within one they become region ops, whose rules
are traced when something differentiates them; see ``transforms.custom_rules``.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from diffc import tree
from diffc.arguments import integers
from diffc.errors import DtypeError, ShapeError, TraceError, UsageError
from diffc.gradient import paths_of, refuse_effects
from diffc.ir.aval import Aval, dtype_name
from diffc.ir.graph import Builder, Graph, literal
from diffc.leaves import abstract_leaf, as_leaf, valued_leaf
from diffc.ops import find
from diffc.ops.custom import POLICIES
from diffc.trace import Abstract, Captured, Traced, Tracer, active, emit, line, trace_flat
from diffc.trace.context import Cell
from diffc.trace.run import name_of
from diffc.trace.tracer import read, wrap, write
from diffc.transforms import JvpRule, Rule, VjpRule

Function = Callable[..., Any]


class CustomFunction:
    """A function with a rule; see :func:`diffc.custom_jvp` and :func:`diffc.custom_vjp`.

    Attributes:
        function: the function; as it is called outside a trace.
        origin: the user's function, for names.
        nondiff_argnums: positions of arguments that are Python values, given to rules as they are.
    """

    title = "custom"

    def __init__(self, function: Function, nondiff_argnums: int | Sequence[int] = ()) -> None:
        if not callable(function):
            raise UsageError(f"{self.title} takes a function, found {function!r}", location=line())
        self.function = function
        self.origin: Function = getattr(function, "origin", function)
        self.nondiff_argnums = frozenset(integers(nondiff_argnums))
        functools.update_wrapper(self, self.origin, updated=())

    def __repr__(self) -> str:
        return f"<{self.title} {name_of(self.origin)}>"

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        """Methods: the instance becomes the first argument."""
        return self if instance is None else functools.partial(self, instance)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The function's value."""
        if not active():
            return self.function(*args, **kwargs)
        positional = self._positional(args, kwargs)
        use = _Use(self, positional)
        traced = use.trace(self.function)
        if traced.written:
            raise TraceError(
                f"{name_of(self.origin)} has its own derivative rule, but writes to its argument",
                location=line(),
                hint="write to a copy, and return it",
            )
        hidden = [c.array if c.tracer is None else c.tracer for c in traced.captured]
        rule = self.rule(use, traced)
        results = emit("custom", *use.leaves, *hidden, regions=(traced.graph,), rule=rule.name)
        return traced.out_tree.build(results)

    def rule(self, use: _Use, traced: Traced) -> Rule:
        """The rule for one use, of which ``traced`` is the function's graph."""
        raise NotImplementedError

    def _positional(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[Any, ...]:
        """All arguments by position, defaults filled in; rules know no keywords."""
        if not kwargs:
            return args
        bound = inspect.signature(self.function).bind(*args, **kwargs)
        bound.apply_defaults()
        if bound.kwargs:
            raise UsageError(
                f"{name_of(self.origin)} has keyword-only arguments, which {self.title} can't pass",
                location=line(),
            )
        return bound.args

    def _needs_rule(self, how: str) -> UsageError:
        return UsageError(
            f"{self.title} {name_of(self.origin)} has no rule", location=line(), hint=how
        )


class CustomJvp(CustomFunction):
    """``custom_jvp(f)``; see :func:`diffc.custom_jvp`."""

    title = "custom_jvp"
    _rule: Function | None = None

    def defjvp(self, rule: Function) -> Function:
        """Sets the rule ``rule(*nondiff, primals, tangents) -> (out, out_dot)``; gives it back."""
        self._rule = rule
        return rule

    def defjvps(self, *rules: Function | None) -> None:
        """Sets one rule for each argument: ``rule(x_dot, out, *args) -> its part of out_dot``.

        None for an argument means that the derivative by it is zero.
        """
        if self.nondiff_argnums:
            raise UsageError("defjvps can't be used with nondiff_argnums", location=line())

        def rule(primals: tuple[Any, ...], tangents: tuple[Any, ...]) -> Any:
            out = self(*primals)
            parts = [
                one(dot, out, *primals)
                for one, dot in zip(rules, tangents, strict=True)
                if one is not None
            ]
            if not parts:
                return out, tree.map(lambda leaf: None, out)
            return out, tree.map(lambda *leaves: sum(leaves[1:], leaves[0]), *parts)

        self._rule = rule

    def rule(self, use: _Use, traced: Traced) -> Rule:
        """The user's rule as a graph, traced when it is first asked for."""
        rule = self._rule
        if rule is None:
            raise self._needs_rule("give it one: @f.defjvp")
        outs = traced.graph.outputs
        floats = [leaf for leaf in use.abstracts if leaf.aval.is_float]
        names = [*use.names, *(f"dot{i}" for i in range(len(floats)))]

        def run(*given: Any) -> Any:
            primals, rest = given[: len(use.leaves)], iter(given[len(use.leaves) :])
            dots = [next(rest) if leaf.aval.is_float else None for leaf in use.abstracts]
            found = rule(*use.static, use.in_tree.build(primals), use.in_tree.build(dots))
            if not isinstance(found, tuple) or len(found) != 2:
                raise UsageError(
                    f"the rule of {use.title} returns a pair (out, out_dot), found "
                    f"{type(found).__name__}",
                    location=line(),
                )
            out, out_dot = found
            values = _leaves_like(out, traced, f"out of the rule of {use.title}")
            what = f"out_dot of the rule of {use.title}"
            tangents = tree.spread(out_dot, traced.out_tree, what)
            kept = [
                _fitting(dot, value.aval, what)
                for dot, value in zip(tangents, outs, strict=True)
                if value.aval.is_float
            ]
            return [_fitting(x, y.aval, what) for x, y in zip(values, outs, strict=True)], kept

        def make() -> Graph:
            graph = use.trace_rule(rule, run, [*use.abstracts, *floats], names, "jvp")
            return graph.graph

        return JvpRule(use.title, len(use.leaves), len(outs), make)


class CustomVjp(CustomFunction):
    """``custom_vjp(f)``; see :func:`diffc.custom_vjp`."""

    title = "custom_vjp"
    _rules: tuple[Function, Function] | None = None

    def defvjp(self, fwd: Function, bwd: Function) -> None:
        """Sets ``fwd(*args) -> (out, residuals)`` and ``bwd(*nondiff, residuals, ct) -> cts``."""
        self._rules = fwd, bwd

    def rule(self, use: _Use, traced: Traced) -> Rule:
        """The user's rules as graphs, traced when they are first asked for."""
        if self._rules is None:
            raise self._needs_rule("give it one: f.defvjp(fwd, bwd)")
        fwd, bwd = self._rules
        outs = traced.graph.outputs

        def forward(*given: Any) -> Any:
            found = fwd(*use.merged(given))
            if not isinstance(found, tuple) or len(found) != 2:
                raise UsageError(
                    f"fwd of {use.title} returns a pair (out, residuals), found "
                    f"{type(found).__name__}",
                    location=line(),
                )
            what = f"out of fwd of {use.title}"
            values = _leaves_like(found[0], traced, what)
            fitted = [_fitting(x, y.aval, what) for x, y in zip(values, outs, strict=True)]
            return fitted, found[1]

        def make() -> tuple[Graph, Graph]:
            first = use.trace_rule(fwd, forward, use.abstracts, use.names, "fwd")
            kept = first.out_tree.children[1]
            avals = first.graph.output_avals[len(outs) :]
            cts = [value.aval for value in outs if value.aval.is_float]

            def backward(*given: Any) -> Any:
                residuals = kept.build(given[: len(avals)])
                rest = iter(given[len(avals) :])
                ct = traced.out_tree.build(
                    next(rest) if value.aval.is_float else None for value in outs
                )
                found = bwd(*use.static, residuals, ct)
                return use.cotangents(found)

            weak = first.out_weak[len(outs) :]
            leaves = [Abstract(a, w) for a, w in zip(avals, weak, strict=True)]
            leaves += [Abstract(a) for a in cts]
            names = [f"residual{i}" for i in range(len(avals))]
            names += [f"ct{i}" for i in range(len(cts))]
            second = use.trace_rule(bwd, backward, leaves, names, "bwd")
            return first.graph, second.graph

        return VjpRule(use.title, len(use.leaves), len(outs), make)


class _Use:
    """One use of a custom function: its arguments, split into arrays and Python values."""

    def __init__(self, owner: CustomFunction, args: tuple[Any, ...]) -> None:
        self.title = name_of(owner.origin)
        self.count = len(args)
        nondiff = {
            i % self.count if -self.count <= i < self.count else i for i in owner.nondiff_argnums
        }
        self.statics = {i: arg for i, arg in enumerate(args) if i in nondiff}
        for i, value in self.statics.items():
            if any(isinstance(leaf, Tracer) for leaf in tree.leaves(value)):
                raise UsageError(
                    f"argument {i} of {self.title} is in nondiff_argnums, but is a traced array",
                    location=line(),
                    hint="take it out of nondiff_argnums; a rule may give a zero for it",
                )
        self.static = tuple(self.statics[i] for i in sorted(self.statics))
        dynamic = tuple(arg for i, arg in enumerate(args) if i not in nondiff)
        found, self.in_tree = tree.flatten(dynamic)
        self.leaves = [as_leaf(leaf) for leaf in found]
        self.abstracts = [abstract_leaf(leaf) for leaf in self.leaves]
        self.names = paths_of(owner.origin, dynamic, {})
        self.origin = owner.origin

    def merged(self, leaves: Sequence[Any]) -> list[Any]:
        """All arguments, with other leaves."""
        rest = iter(self.in_tree.build(leaves))
        return [self.statics[i] if i in self.statics else next(rest) for i in range(self.count)]

    def trace(self, function: Function) -> Traced:
        """Traces the function itself."""
        traced = trace_flat(
            lambda *given: function(*self.merged(given)),
            [valued_leaf(leaf) for leaf in self.leaves],
            self.names,
            name=self.title,
            origin=self.origin,
        )
        refuse_effects(traced)
        return traced

    def trace_rule(
        self,
        rule: Function,
        run: Function,
        leaves: Sequence[Abstract],
        names: Sequence[str],
        kind: str,
    ) -> Traced:
        """Traces a rule, whose graph stands alone: read-only arrays become constants."""
        origin = getattr(rule, "origin", rule)
        traced = trace_flat(run, leaves, names, name=f"{self.title}_{kind}", origin=origin)
        refuse_effects(traced)
        if not traced.captured and not traced.written:
            return traced
        graph = _closed(traced, f"{kind} rule of {self.title}")
        return Traced(graph, traced.out_tree, traced.out_weak, traced.out_scalar, ())

    def cotangents(self, found: Any) -> list[Any]:
        """One cotangent for each float argument; None is zero."""
        what = f"the result of bwd of {self.title}"
        if not isinstance(found, (tuple, list)) or len(found) != len(self.in_tree.children):
            raise UsageError(
                f"{what} must be a tuple with one cotangent (or None) for each of "
                f"{len(self.in_tree.children)} arguments",
                location=line(),
                hint="for one argument write (ct,)",
            )
        spread = tree.spread(tuple(found), self.in_tree, what)
        return [
            _fitting(ct, leaf.aval, what)
            for ct, leaf in zip(spread, self.abstracts, strict=True)
            if leaf.aval.is_float
        ]


def _leaves_like(out: Any, traced: Traced, what: str) -> list[Any]:
    leaves, found = tree.flatten(out)
    if found is not traced.out_tree:
        problem = tree.explain_mismatch(traced.out_tree, found, what)
        raise UsageError(f"a rule differs from its function: {problem}", location=line())
    return leaves


def _fitting(leaf: Any, wanted: Aval, what: str) -> Any:
    """A leaf of exactly this aval; None is zero; Python numbers take the dtype."""
    if leaf is None:
        return wrap(literal(0, wanted))
    leaf = as_leaf(leaf)
    found = abstract_leaf(leaf)
    if found.aval.shape != wanted.shape:
        raise ShapeError(
            f"{what} has shape {list(found.aval.shape)}, needs {list(wanted.shape)}",
            location=line(),
        )
    if found.aval is wanted:
        return leaf
    if not found.weak:
        raise DtypeError(
            f"{what} has dtype {found.aval.dtype}, needs {wanted.dtype}", location=line()
        )
    return emit("convert", leaf, dtype=wanted.dtype)[0]


def _closed(traced: Traced, what: str) -> Graph:
    """The graph of a rule without hidden inputs: read-only arrays become constants.

    Raises:
        UsageError: it reads an array that may change, or a traced one.
    """
    old = traced.graph
    builder = Builder(old.name)
    own = len(old.inputs) - len(traced.captured)
    given: list[Any] = [builder.input(value.aval, value.name) for value in old.inputs[:own]]
    for captured in traced.captured:
        array = _root(captured)
        if array is None or array.flags.writeable:
            kind = "a traced array" if array is None else f"the array {captured.aval}"
            raise UsageError(
                f"the {what} reads {kind} from outside",
                location=line(),
                hint="pass it as an argument"
                + ("" if array is None else ", or make it read-only: a.flags.writeable = False"),
            )
        params = {
            "dtype": dtype_name(array.dtype),
            "shape": array.shape,
            "data": np.ascontiguousarray(array).tobytes(),
        }
        given += builder.emit(find("constant"), (), params)
    return builder.build(builder.inline(old, given)[: traced.num_results])


def _root(captured: Captured) -> np.ndarray[Any, Any] | None:
    """The array behind a capture, also if an outer trace has captured it; None for a traced one."""
    if captured.tracer is None:
        return captured.array
    cell: Any = captured.tracer._cell
    while isinstance(cell, Cell):
        cell = cell.captured
    return cell if isinstance(cell, np.ndarray) else None


# --- checkpoint -------------------------------------------------------------------------------


class Checkpoint:
    """``checkpoint(f)``; see :func:`diffc.checkpoint`."""

    def __init__(self, function: Function, policy: str) -> None:
        if not callable(function):
            raise UsageError(f"checkpoint takes a function, found {function!r}", location=line())
        if policy not in POLICIES:
            raise UsageError(
                f"policy {policy!r} is not known; needs one of {', '.join(POLICIES)}",
                location=line(),
            )
        self.function = function
        self.origin: Function = getattr(function, "origin", function)
        self.policy = policy
        functools.update_wrapper(self, self.origin, updated=())

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        """Methods: the instance becomes the first argument."""
        return self if instance is None else functools.partial(self, instance)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The function's value."""
        if not active():
            return self.function(*args, **kwargs)
        found, in_tree = tree.flatten((args, kwargs))
        leaves = [as_leaf(leaf) for leaf in found]

        def run(*given: Any) -> Any:
            positional, named = in_tree.build(given)
            return self.function(*positional, **named)

        traced = trace_flat(
            run,
            [valued_leaf(leaf) for leaf in leaves],
            paths_of(self.origin, args, kwargs),
            name=name_of(self.origin),
            origin=self.origin,
        )
        hidden = [c.array if c.tracer is None else c.tracer for c in traced.captured]
        results = emit("checkpoint", *leaves, *hidden, regions=(traced.graph,), policy=self.policy)
        for i, value in zip(traced.written, results[traced.num_results :], strict=False):
            write(leaves[i], read(value))
        traced.apply_effects(results)
        return traced.out_tree.build(results[: traced.num_results])

    def __repr__(self) -> str:
        return f"<checkpoint {name_of(self.origin)}: {self.policy}>"
