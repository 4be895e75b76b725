"""``jvp``, ``linearize`` and ``vjp`` of functions, outside and within traces.

Within a trace they add graphs to it. Outside, the halves are compiled once per function and
signature: the primal half returns residuals as arrays, which the other half reads.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from diffc import tree
from diffc.concrete import COMPILED_FROM, Paths, Valued, interpret
from diffc.diagnose import warn_of_detached
from diffc.errors import UsageError
from diffc.gradient import paths_of, refuse_effects
from diffc.ir.graph import Graph
from diffc.ir.keys import structural_key
from diffc.leaves import abstract_leaf, as_leaf, signature_of, valued_leaf
from diffc.optimize import compact, optimize
from diffc.programs import GraphProgram
from diffc.trace import Traced, ValueNeeded, active, emit, inline, kinks, line, trace_flat
from diffc.trace.run import name_of
from diffc.transforms import Linearization, transpose
from diffc.transforms import jvp as graph_jvp
from diffc.transforms import linearize as graph_linearize

Function = Callable[..., Any]


class _Jvp:
    """``(primals, tangents) -> (out, out_dot)``, or ``(out, out_dot, aux)``, to be traced."""

    def __init__(self, function: Function, has_aux: bool) -> None:
        self.function = function
        self.has_aux = has_aux
        self.origin: Function = getattr(function, "origin", function)

    def __call__(self, primals: tuple[Any, ...], tangents: tuple[Any, ...]) -> Any:
        leaves, traced = _trace(self.function, primals, self.has_aux)
        mask = [abstract_leaf(leaf).aval.is_float for leaf in leaves]
        dots = _tangents(primals, tangents, mask)
        hidden = _hidden(traced)
        split = _Result(traced.out_tree, self.has_aux)
        wanted = split.differentiated(traced)
        graph = compact(_results_only(traced))
        made = graph_jvp(graph, [*mask, *(False for _ in hidden)], wanted)
        results: list[Any] = [*inline(made.graph, [*leaves, *hidden, *dots])]
        outs, found = results[: len(wanted)], iter(results[len(wanted) :])
        out_dots = [
            next(found) if is_on else out * 0
            for out, is_on in zip(outs, wanted[: split.count], strict=False)
        ]
        value, *aux = split.build(outs)
        return value, split.value.build(out_dots), *aux


@dataclass(frozen=True, slots=True)
class _Result:
    """A function's result: a value, and with ``has_aux`` something that is passed through."""

    whole: tree.TreeDef
    has_aux: bool

    @property
    def value(self) -> tree.TreeDef:
        """Structure of what is differentiated."""
        return self.whole.children[0] if self.has_aux else self.whole

    @property
    def count(self) -> int:
        """How many arrays are differentiated; they come first."""
        return self.value.num_leaves

    def differentiated(self, traced: Traced) -> list[bool]:
        """Which outputs have derivatives: floats of the value."""
        outputs = traced.graph.outputs[: traced.num_results]
        return [k < self.count and output.aval.is_float for k, output in enumerate(outputs)]

    def build(self, outs: Sequence[Any]) -> tuple[Any, ...]:
        """``(value,)``, or ``(value, aux)``."""
        found = self.whole.build(outs)
        return tuple(found) if self.has_aux else (found,)


_JVPS: WeakKeyDictionary[Any, dict[bool, Valued]] = WeakKeyDictionary()


def jvp(
    function: Function,
    primals: tuple[Any, ...],
    tangents: tuple[Any, ...],
    has_aux: bool = False,
) -> Any:
    """See :func:`diffc.jvp`."""
    if active():
        return _Jvp(function, has_aux)(primals, tangents)
    known: dict[bool, Valued] = _remembered(_JVPS, function, dict)
    if has_aux not in known:
        known[has_aux] = Valued(_Jvp(function, has_aux))
    return known[has_aux](primals, tangents)


def _remembered(known: WeakKeyDictionary[Any, Any], function: Function, make: Any) -> Any:
    """What is kept for a function; made anew where it can't be referenced weakly."""
    try:
        found = known.get(function)
        if found is None:
            found = known[function] = make()
    except TypeError:
        found = make()
    return found


def _hidden(traced: Traced) -> list[Any]:
    return [c.array if c.tracer is None else c.tracer for c in traced.captured]


def _results_only(traced: Traced) -> Graph:
    """The graph without the values of written inputs: a derivative writes nothing back."""
    graph = traced.graph
    return Graph(graph.name, graph.inputs, graph.eqns, graph.outputs[: traced.num_results])


def _trace(
    function: Function, primals: tuple[Any, ...], has_aux: bool, concrete: bool = False
) -> tuple[list[Any], Traced]:
    """The leaves of the arguments and the graph; aux has no derivative."""
    leaves, in_tree = tree.flatten(primals)
    leaves = [as_leaf(leaf) for leaf in leaves]
    origin = getattr(function, "origin", function)

    def run(*given: Any) -> Any:
        found = function(*in_tree.build(given))
        if not has_aux:
            return found
        if not isinstance(found, (tuple, list)) or len(found) != 2:
            raise UsageError(
                "with has_aux the function returns a pair (value, aux)", location=line()
            )
        value, aux = found
        return value, tree.map(lambda leaf: emit("stop_gradient", leaf)[0], aux)

    traced = trace_flat(
        run,
        [valued_leaf(leaf) for leaf in leaves],
        paths_of(origin, primals, {}),
        name=name_of(function),
        origin=origin,
        concrete=concrete,
    )
    refuse_effects(traced)
    warn_of_detached(traced, [True] * len(leaves))
    return leaves, traced


def _tangents(primals: Any, tangents: Any, mask: Sequence[bool]) -> list[Any]:
    """The tangents of float leaves; checks structure and shapes."""
    dots, dots_tree = tree.flatten(tangents)
    leaves, primals_tree = tree.flatten(primals)
    if dots_tree is not primals_tree:
        problem = tree.explain_mismatch(primals_tree, dots_tree, "tangents")
        raise UsageError(f"tangents differ from primals: {problem}", location=line())
    for path, x, dot in zip(primals_tree.paths("tangents"), leaves, dots, strict=True):
        if np.shape(x) != np.shape(dot):
            raise UsageError(
                f"{path} has shape {np.shape(dot)}, its primal {np.shape(x)}", location=line()
            )
    return [as_leaf(dot) for dot, is_on in zip(dots, mask, strict=True) if is_on]


# --- linearize and vjp ------------------------------------------------------------------------


@dataclass(slots=True)
class _Halves:
    """A function linearized for one signature.

    :meth:`run` runs graphs on flat arrays or tracers; a program is made when it is first used or,
    of one path of a function that asks for values, when it recurs.
    """

    traced: Traced
    split: Linearization
    mask: list[bool]
    result: _Result
    is_path: bool = False
    _programs: dict[str, GraphProgram] = field(default_factory=dict)
    _runs: Counter[str] = field(default_factory=Counter)

    @property
    def turned(self) -> Graph:
        """The transposed linear graph: residuals and cotangents to cotangents."""
        linear = [False] * self.split.residuals + [True] * sum(self.split.active)
        return transpose(self.split.linear, linear)

    def run(self, which: str, graph: Graph, operands: Sequence[Any]) -> list[Any]:
        """Runs a half, compiled outside a trace, inlined within one."""
        graph = optimize(graph)
        if active():
            return list(inline(graph, operands))
        self._runs[which] += 1
        if self.is_path and self._runs[which] < COMPILED_FROM:
            return list(interpret(graph, operands))
        program = self._programs.get(which)
        if program is None:
            program = self._programs[which] = GraphProgram(graph, f"{graph.name}_{which}")
        return list(program(operands))


_HALVES: WeakKeyDictionary[Any, dict[Any, _Halves | Paths[_Halves]]] = WeakKeyDictionary()


def _halves(
    function: Function, primals: tuple[Any, ...], has_aux: bool
) -> tuple[list[Any], _Halves]:
    """The leaves (hidden ones behind) and the linearized function, remembered outside traces."""
    if active():
        leaves, traced = _trace(function, primals, has_aux)
        return [*leaves, *_hidden(traced)], _split(leaves, traced, has_aux)
    kinks.refuse_waiting()
    known: dict[Any, _Halves | Paths[_Halves]] = _remembered(_HALVES, function, dict)
    leaves, in_tree = tree.flatten(primals)
    leaves = [as_leaf(leaf) for leaf in leaves]
    key = (in_tree, tuple(map(signature_of, leaves)), has_aux)
    found = known.get(key)
    if isinstance(found, Paths):
        return _halves_of_path(function, primals, found, has_aux)
    if found is None or any(c.current() is None for c in found.traced.captured):
        try:
            _, traced = _trace(function, primals, has_aux)
        except ValueNeeded:
            paths: Paths[_Halves] = Paths()
            result = _halves_of_path(function, primals, paths, has_aux)
            known[key] = paths
            return result
        found = known[key] = _split(leaves, traced, has_aux)
    return [*leaves, *(c.current() for c in found.traced.captured)], found


def _halves_of_path(
    function: Function, primals: tuple[Any, ...], paths: Paths[_Halves], has_aux: bool
) -> tuple[list[Any], _Halves]:
    """The same for the path that the function takes with these values."""
    leaves, traced = _trace(function, primals, has_aux, concrete=True)
    key = (structural_key(traced.graph), traced.out_tree)
    halves = paths.get(key, lambda: _split(leaves, traced, has_aux, is_path=True))
    return [*leaves, *(c.current() for c in traced.captured)], halves


def _split(leaves: Sequence[Any], traced: Traced, has_aux: bool, is_path: bool = False) -> _Halves:
    mask = [abstract_leaf(leaf).aval.is_float for leaf in leaves]
    result = _Result(traced.out_tree, has_aux)
    graph = compact(_results_only(traced))
    active_inputs = [*mask, *(False for _ in traced.captured)]
    split = graph_linearize(graph, active_inputs, result.differentiated(traced))
    return _Halves(traced, split, mask, result, is_path)


def _forward(halves: _Halves, leaves: Sequence[Any]) -> tuple[tuple[Any, ...], list[Any]]:
    """The value (and aux), and the residuals."""
    results = halves.run("primal", halves.split.primal, leaves)
    count = halves.traced.num_results
    return halves.result.build(results[:count]), results[count:]


def linearize(function: Function, primals: tuple[Any, ...], has_aux: bool = False) -> Any:
    """See :func:`diffc.linearize`."""
    leaves, halves = _halves(function, primals, has_aux)
    (out, *aux), residuals = _forward(halves, leaves)

    def push(*tangents: Any) -> Any:
        dots = _tangents(primals, tangents, halves.mask)
        found = iter(halves.run("linear", halves.split.linear, [*residuals, *dots]))
        flags = halves.split.active_outputs
        outs = tree.leaves(out)
        dots_out = [next(found) if on else x * 0 for x, on in zip(outs, flags, strict=False)]
        return halves.result.value.build(dots_out)

    return out, push, *aux


def vjp(function: Function, primals: tuple[Any, ...], has_aux: bool = False) -> Any:
    """See :func:`diffc.vjp`."""
    leaves, halves = _halves(function, primals, has_aux)
    (out, *aux), residuals = _forward(halves, leaves)
    in_tree = tree.structure(primals)

    def pull(ct: Any) -> Any:
        cts, ct_tree = tree.flatten(ct)
        if ct_tree is not halves.result.value:
            problem = tree.explain_mismatch(halves.result.value, ct_tree, "ct")
            raise UsageError(f"the cotangent differs from the result: {problem}", location=line())
        flags = halves.split.active_outputs
        given = [
            like(c, output.aval)
            for c, output, on in zip(cts, halves.traced.graph.outputs, flags, strict=False)
            if on
        ]
        found = iter(halves.run("pull", halves.turned, [*residuals, *given]))
        back = [next(found) if on else None for on in halves.mask]
        return in_tree.build(back)

    return out, pull, *aux


def like(ct: Any, wanted: Any) -> Any:
    """A cotangent with the dtype of its result; its shape must be right."""
    leaf = as_leaf(ct)
    if np.shape(leaf) != wanted.shape:
        raise UsageError(
            f"a cotangent has shape {np.shape(leaf)}, its result {wanted.shape}", location=line()
        )
    return leaf if active() else np.asarray(leaf, wanted.numpy)


__all__ = ["jvp", "like", "linearize", "vjp"]
