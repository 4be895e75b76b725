"""Checks of a function: its compiled value and gradient against everything else that is known.

Numbers: the compiled code against plain NumPy, the reference interpreter and finite differences.
Formulas, for small functions: the graph unfolded to SymPy, differentiated by SymPy, against the
gradient graph before and after the rewrites.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from diffc import tree
from diffc.api import jit, value_and_grad
from diffc.errors import DiffcError, UsageError
from diffc.ir.aval import is_float
from diffc.ir.graph import Graph, graphs_of
from diffc.jitted import Compiled
from diffc.leaves import as_leaf
from diffc.ops.interpret import evaluate
from diffc.symbolic.check import Check, measured
from diffc.symbolic.differences import difference_error
from diffc.symbolic.formulas import (
    check_gradient,
    check_value,
    formulas_of,
    gradient_by_sympy,
    shown,
    why_not,
)
from diffc.symbolic.samples import copied, draws
from diffc.symbolic.unfold import CannotUnfold
from diffc.trace import Abstract

Array = np.ndarray[Any, Any]

#: limits of relative errors, by the narrowest float dtype: against the interpreter, against
#: differences
LIMITS = {"bf16": (1e-1, 3e-1), "f16": (2e-2, 5e-2), "f32": (1e-4, 1e-3), "f64": (1e-10, 1e-5)}


@dataclass(slots=True)
class Report:
    """All checks of one function.

    Attributes:
        checks: in the order in which they were made.
        notes: what was left out, and why; how inputs were drawn.
        gradient: for tiny functions, the gradient as formulas, by the inputs' names.
    """

    checks: list[Check] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    gradient: list[tuple[str, str]] = field(default_factory=list)

    @property
    def is_good(self) -> bool:
        """Whether no check failed."""
        return all(check.is_good for check in self.checks)


def verify(
    function: Callable[..., Any],
    args: Sequence[Any],
    *,
    argnums: int | tuple[int, ...] | None = None,
    seed: int = 0,
    rtol: float | None = None,
) -> Report:
    """Checks the compiled value of ``function``, and its gradient if it is a float scalar.

    Args:
        function: NumPy code.
        args: pytrees whose leaves are ``Abstract`` (drawn), arrays or numbers (taken as they are).
        argnums: the gradient's arguments; None: all that hold floats only, if there is a gradient.
        seed: draws other inputs.
        rtol: limit of relative errors against the interpreter and NumPy.

    Raises:
        DiffcError: the function can't be traced or compiled, or has no gradient by ``argnums``.
    """
    report = Report()
    value = jit(function)
    compiled = _compile(value, args)
    positions = _argnums(compiled, args, argnums, report)
    gradient = None
    if positions:
        gradient = _compile(jit(value_and_grad(function, positions)), args)
    sample, outputs, gradients = _sample(args, seed, compiled, gradient, report)
    limits = LIMITS[_narrowest(compiled, gradient)]
    near = rtol if rtol is not None else limits[0]
    _check_value(report, function, compiled, sample, outputs, near)
    if not report.is_good:
        return report
    leaves = _leaf_positions(args, positions)
    if gradient is not None:
        arrays = _arrays(gradient, sample)
        _check_gradient(report, gradient, arrays, gradients, near)
        _check_differences(
            report, compiled, sample, dict(zip(leaves, gradients, strict=True)), limits[1], seed
        )
    _check_formulas(report, compiled, gradient, sample, leaves)
    return report


def _compile(jitted: Any, args: Sequence[Any]) -> Compiled:
    found: Compiled = jitted.compile(*(_example(arg) for arg in args))
    return found


def _example(arg: Any) -> Any:
    """Arguments of the right kinds: Python scalars are run-time operands of their own."""

    def leaf_of(leaf: Any) -> Any:
        if not isinstance(leaf, Abstract):
            return leaf
        shape: Any = leaf.aval.shape
        zeros = np.zeros(shape, leaf.aval.numpy)
        return zeros.item() if leaf.scalar else zeros

    return tree.map(leaf_of, arg)


def _argnums(
    compiled: Compiled, args: Sequence[Any], given: int | tuple[int, ...] | None, report: Report
) -> tuple[int, ...]:
    """The arguments of the gradient; empty if there is none."""
    if given is not None:
        asked = (given,) if isinstance(given, int) else given
        for position in asked:
            if not -len(args) <= position < len(args):
                raise UsageError(f"there is no argument {position}; there are {len(args)}")
        return tuple(sorted(position % len(args) for position in asked))
    outputs = _function(compiled).output_avals[: compiled.out_tree.num_leaves]
    if len(outputs) != 1 or outputs[0].shape != () or not outputs[0].is_float:
        shown = ", ".join(map(str, outputs)) or "nothing"
        report.notes.append(f"no gradient: it returns {shown}, not one float scalar")
        return ()
    found = tuple(position for position, arg in enumerate(args) if _holds_floats(arg))
    if not found:
        report.notes.append("no gradient: no argument holds floats only")
    return found


def _holds_floats(arg: Any) -> bool:
    leaves = tree.leaves(arg)
    return bool(leaves) and all(
        leaf.aval.is_float if isinstance(leaf, Abstract) else is_float(np.asarray(leaf).dtype)
        for leaf in leaves
    )


def _function(compiled: Compiled) -> Graph:
    """The function's graph; that of a function which is a gradient itself is transformed."""
    graph: Graph = compiled.stage("transform").value
    return graph


def _arrays(compiled: Compiled, args: Sequence[Any]) -> list[Array]:
    """Arrays for all inputs of the compiled graph, captured ones included."""
    leaves = [np.asarray(as_leaf(leaf)) for leaf in tree.leaves((copied(args), {}))]
    return [*leaves, *(np.asarray(c.current()) for c in compiled.captured)]


def _run(compiled: Compiled, args: Sequence[Any]) -> list[Array]:
    return [np.asarray(leaf) for leaf in tree.leaves(compiled(*copied(args)))]


def _sample(
    args: Sequence[Any], seed: int, compiled: Compiled, gradient: Compiled | None, report: Report
) -> tuple[tuple[Any, ...], list[Array], list[Array]]:
    """Drawn arguments at which everything is finite, if any are found, and the results there."""
    first: Any = None
    problem: DiffcError | None = None
    for name, drawn in draws(args, seed):
        try:
            outputs = _run(compiled, drawn)
            gradients = _run(gradient, drawn)[len(outputs) :] if gradient else []
        except DiffcError as error:
            problem = error
            continue
        if first is None:
            first = drawn, outputs, gradients
        if all(np.isfinite(array).all() for array in (*outputs, *gradients)):
            if first[0] is not drawn or problem is not None:
                report.notes.append(f"results were not finite at first; inputs are {name} now")
            return drawn, outputs, gradients
    if first is None:
        assert problem is not None
        raise problem
    detail = "at none of the drawn inputs, so the rest is not checked"
    report.checks.append(Check("value: finite", "failed", None, detail))
    found: tuple[tuple[Any, ...], list[Array], list[Array]] = first
    return found


def _narrowest(*compiled: Compiled | None) -> str:
    dtypes = {
        value.aval.dtype
        for one in compiled
        if one is not None
        for graph in [_function(one)]
        for value in (*graph.inputs, *graph.outputs, *(r for e in graph.eqns for r in e.results))
    }
    return next((dtype for dtype in ("bf16", "f16", "f32") if dtype in dtypes), "f64")


def error_of(found: Sequence[Array], expected: Sequence[Array]) -> float:
    """The greatest difference relative to the greatest element of each expected array."""
    worst = 0.0
    for left, right in zip(found, expected, strict=True):
        if left.shape != right.shape:
            return float("inf")
        if not (is_float(left.dtype) and is_float(right.dtype)):
            worst = max(worst, 0.0 if np.array_equal(left, right) else float("inf"))
            continue
        a, b = left.astype(np.float64), right.astype(np.float64)
        same = (a == b) | (np.isnan(a) & np.isnan(b))
        if same.all():
            continue
        with np.errstate(all="ignore"):
            scale = float(np.max(np.abs(b), where=np.isfinite(b), initial=0.0)) or 1.0
            worst = max(worst, float(np.max(np.abs(a - b)[~same] / scale)))
        if not np.isfinite(a - b)[~same].all():
            return float("inf")
    return worst


def _check_value(
    report: Report,
    function: Callable[..., Any],
    compiled: Compiled,
    sample: Sequence[Any],
    outputs: list[Array],
    limit: float,
) -> None:
    name = "value: compiled = NumPy"
    expected = evaluate(compiled.compilation.graph, _arrays(compiled, sample))[: len(outputs)]
    error = error_of(outputs, expected)
    report.checks.append(measured("value: compiled = interpreter", error, limit))
    if hasattr(function, "derivation"):
        return  # a gradient does not run in plain NumPy
    try:
        with np.errstate(all="ignore"):
            result = function(*copied(sample))
        plain = [np.asarray(leaf) for leaf in tree.leaves(result)]
    except Exception as error:  # the user's own code, on plain arrays
        report.notes.append(f"not run in plain NumPy: {type(error).__name__}: {error}")
    else:
        report.checks.append(measured(name, error_of(outputs, plain), limit))


def _check_gradient(
    report: Report, gradient: Compiled, arrays: list[Array], found: list[Array], limit: float
) -> None:
    optimized = evaluate(gradient.compilation.graph, arrays)[-len(found) :]
    error = error_of(found, optimized)
    report.checks.append(measured("gradient: compiled = interpreter", error, limit))
    before = evaluate(gradient.stage("transform").value, arrays)[-len(found) :]
    if not all(np.isfinite(array).all() for array in before):
        report.notes.append("before it was optimized the gradient is not finite")
        return
    error = error_of(optimized, before)
    report.checks.append(measured("gradient: optimized = transformed", error, limit))


def _check_differences(
    report: Report,
    compiled: Compiled,
    sample: Sequence[Any],
    gradients: dict[int, Array],
    limit: float,
    seed: int,
) -> None:
    graph = _function(compiled)
    if any(eqn.op.name == "stop_gradient" for part in graphs_of(graph) for eqn in part.eqns):
        report.notes.append("no finite differences: stop_gradient is no derivative of the value")
        return
    rng = np.random.default_rng(seed)
    error, how = difference_error(graph, _arrays(compiled, sample), gradients, rng)
    report.checks.append(measured("gradient: finite differences", error, limit, how))


def _leaf_positions(args: Sequence[Any], positions: Sequence[int]) -> list[int]:
    """Which inputs of the graph hold the leaves of these arguments."""
    counts = [tree.structure(arg).num_leaves for arg in args]
    return [
        leaf
        for position in positions
        for leaf in range(sum(counts[:position]), sum(counts[: position + 1]))
    ]


def _check_formulas(
    report: Report,
    compiled: Compiled,
    gradient: Compiled | None,
    sample: Sequence[Any],
    leaves: list[int],
) -> None:
    graph, count = _function(compiled), tree.structure(tuple(sample)).num_leaves
    problem = why_not(graph, count)
    if problem:
        report.notes.append(f"not compared with SymPy: {problem}")
        return
    formulas = formulas_of(graph, _arrays(compiled, sample), count)
    try:
        own = compiled.out_tree.num_leaves
        report.checks.append(check_value(formulas, compiled.compilation.graph, own))
        if gradient is None:
            return
        truth = gradient_by_sympy(formulas, leaves)
        for stage in ("transform", "optimize"):
            made = gradient.stage(stage).value
            report.checks.append(check_gradient(formulas, truth, made, len(leaves), stage))
        report.gradient += shown(formulas, leaves, truth)
    except CannotUnfold as error:
        report.notes.append(f"not compared further with SymPy: {error.message}")
