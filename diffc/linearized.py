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
from diffc.jitted import GraphProgram, abstract_leaf, as_leaf, signature_of, valued_leaf
from diffc.optimize import compact, optimize
from diffc.trace import Traced, ValueNeeded, active, inline, kinks, line, trace_flat
from diffc.trace.run import name_of
from diffc.transforms import Linearization, transpose
from diffc.transforms import jvp as graph_jvp
from diffc.transforms import linearize as graph_linearize

Function = Callable[..., Any]


class _Jvp:
    """``(primals, tangents) -> (out, out_dot)``, to be traced."""

    def __init__(self, function: Function) -> None:
        self.function = function
        self.origin: Function = getattr(function, "origin", function)

    def __call__(self, primals: tuple[Any, ...], tangents: tuple[Any, ...]) -> Any:
        leaves, traced = _trace(self.function, primals)
        mask = [abstract_leaf(leaf).aval.is_float for leaf in leaves]
        dots = _tangents(primals, tangents, mask)
        hidden = _hidden(traced)
        wanted = [output.aval.is_float for output in traced.graph.outputs]
        graph = compact(_results_only(traced))
        made = graph_jvp(graph, [*mask, *(False for _ in hidden)], wanted[: traced.num_results])
        results: list[Any] = [*inline(made.graph, [*leaves, *hidden, *dots])]
        count = traced.num_results
        found = iter(results[count:])
        outs = results[:count]
        out_dots = [
            next(found) if is_on else out * 0
            for out, is_on in zip(outs, wanted[:count], strict=True)
        ]
        return traced.out_tree.build(outs), traced.out_tree.build(out_dots)


_JVPS: WeakKeyDictionary[Any, Valued] = WeakKeyDictionary()


def jvp(function: Function, primals: tuple[Any, ...], tangents: tuple[Any, ...]) -> Any:
    """See :func:`diffc.jvp`."""
    if active():
        return _Jvp(function)(primals, tangents)
    return _remembered(_JVPS, function, lambda: Valued(_Jvp(function)))(primals, tangents)


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
    function: Function, primals: tuple[Any, ...], concrete: bool = False
) -> tuple[list[Any], Traced]:
    leaves, in_tree = tree.flatten(primals)
    leaves = [as_leaf(leaf) for leaf in leaves]
    origin = getattr(function, "origin", function)
    traced = trace_flat(
        lambda *given: function(*in_tree.build(given)),
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


def _halves(function: Function, primals: tuple[Any, ...]) -> tuple[list[Any], _Halves]:
    """The leaves (hidden ones behind) and the linearized function, remembered outside traces."""
    if active():
        leaves, traced = _trace(function, primals)
        return [*leaves, *_hidden(traced)], _split(leaves, traced)
    kinks.refuse_waiting()
    known: dict[Any, _Halves | Paths[_Halves]] = _remembered(_HALVES, function, dict)
    leaves, in_tree = tree.flatten(primals)
    leaves = [as_leaf(leaf) for leaf in leaves]
    key = (in_tree, tuple(map(signature_of, leaves)))
    found = known.get(key)
    if isinstance(found, Paths):
        return _halves_of_path(function, primals, found)
    if found is None or any(c.current() is None for c in found.traced.captured):
        try:
            _, traced = _trace(function, primals)
        except ValueNeeded:
            paths: Paths[_Halves] = Paths()
            result = _halves_of_path(function, primals, paths)
            known[key] = paths
            return result
        found = known[key] = _split(leaves, traced)
    return [*leaves, *(c.current() for c in found.traced.captured)], found


def _halves_of_path(
    function: Function, primals: tuple[Any, ...], paths: Paths[_Halves]
) -> tuple[list[Any], _Halves]:
    """The same for the path that the function takes with these values."""
    leaves, traced = _trace(function, primals, concrete=True)
    key = (structural_key(traced.graph), traced.out_tree)
    halves = paths.get(key, lambda: _split(leaves, traced, is_path=True))
    return [*leaves, *(c.current() for c in traced.captured)], halves


def _split(leaves: Sequence[Any], traced: Traced, is_path: bool = False) -> _Halves:
    mask = [abstract_leaf(leaf).aval.is_float for leaf in leaves]
    wanted = [output.aval.is_float for output in traced.graph.outputs[: traced.num_results]]
    graph = compact(_results_only(traced))
    active_inputs = [*mask, *(False for _ in traced.captured)]
    return _Halves(traced, graph_linearize(graph, active_inputs, wanted), mask, is_path)


def _forward(halves: _Halves, leaves: Sequence[Any]) -> tuple[Any, list[Any]]:
    results = halves.run("primal", halves.split.primal, leaves)
    count = halves.traced.num_results
    return halves.traced.out_tree.build(results[:count]), results[count:]


def linearize(function: Function, primals: tuple[Any, ...]) -> tuple[Any, Function]:
    """See :func:`diffc.linearize`."""
    leaves, halves = _halves(function, primals)
    out, residuals = _forward(halves, leaves)

    def push(*tangents: Any) -> Any:
        dots = _tangents(primals, tangents, halves.mask)
        found = iter(halves.run("linear", halves.split.linear, [*residuals, *dots]))
        flags = halves.split.active_outputs
        outs = tree.leaves(out)
        dots_out = [next(found) if on else x * 0 for x, on in zip(outs, flags, strict=True)]
        return halves.traced.out_tree.build(dots_out)

    return out, push


def vjp(function: Function, primals: tuple[Any, ...]) -> tuple[Any, Function]:
    """See :func:`diffc.vjp`."""
    leaves, halves = _halves(function, primals)
    out, residuals = _forward(halves, leaves)
    in_tree = tree.structure(primals)

    def pull(ct: Any) -> Any:
        cts, ct_tree = tree.flatten(ct)
        if ct_tree is not halves.traced.out_tree:
            problem = tree.explain_mismatch(halves.traced.out_tree, ct_tree, "ct")
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

    return out, pull


def like(ct: Any, wanted: Any) -> Any:
    """A cotangent with the dtype of its result; its shape must be right."""
    leaf = as_leaf(ct)
    if np.shape(leaf) != wanted.shape:
        raise UsageError(
            f"a cotangent has shape {np.shape(leaf)}, its result {wanted.shape}", location=line()
        )
    return leaf if active() else np.asarray(leaf, wanted.numpy)


__all__ = ["jvp", "like", "linearize", "vjp"]
