"""Warnings about derivatives that are right and probably not what was meant.

A gradient that is zero whatever the values are: the input reaches the result only through ops whose
derivative is zero (comparisons, rounding, integers). And, in traces with values, a float that the
code took out as a Python number (``float(x)``, ``math.exp(x)``), through which no derivative flows.
``stop_gradient`` is meant, and never warned of.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterable, Mapping, Sequence
from types import FrameType
from typing import Any

from diffc.errors import DetachedValueWarning, DiffcWarning, StructuralZeroWarning
from diffc.ir.graph import Eqn, Graph, Literal, Location, Operand, Value
from diffc.ops.declare import Zero
from diffc.trace import Traced
from diffc.trace.context import sources
from diffc.trace.location import is_internal

_MOST = 3
_REGISTRY: dict[Any, Any] = {}


def warn(message: str, category: type[DiffcWarning], location: Location | None = None) -> None:
    """Warns at a line of the user's: ``location``, or that of the innermost frame of the user's."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and is_internal(frame.f_code):
        frame = frame.f_back
    if location is not None:
        file, number = location.file, location.line
    elif frame is not None:
        file, number = frame.f_code.co_filename, frame.f_lineno
    else:
        file, number = "<diffc>", 1
    warnings.warn_explicit(message, category, file, number, registry=_REGISTRY)


def warn_of_zeros(graph: Graph, gradients: Mapping[int, Operand]) -> None:
    """Warns of gradients that are zero literals though the input reaches the first output.

    Args:
        graph: the function.
        gradients: what the gradient by each input is, by the input's position.
    """
    for position, gradient in gradients.items():
        value = graph.inputs[position]
        is_zero = isinstance(gradient, Literal) and gradient.value == 0 and value.aval.size != 0
        if not is_zero:
            continue
        blocking = [eqn for eqn in blockers(graph, value) if eqn.op.name != "stop_gradient"]
        if not blocking:
            continue
        places = list(dict.fromkeys(map(_place, blocking)))
        listed = ", ".join(places[:_MOST])
        more = f" and {len(places) - _MOST} more" if len(places) > _MOST else ""
        warn(
            f"gradient is structurally zero with respect to {value.name}: it reaches the result "
            f"only through {listed}{more}, whose derivative is zero. Use a smooth function "
            "instead (a logistic for a threshold), or diffc.stop_gradient if this is meant",
            StructuralZeroWarning,
        )


def _place(eqn: Eqn) -> str:
    where = f" at {eqn.loc}" if eqn.loc is not None else ""
    return f"{eqn.op.name}{where}"


def blockers(graph: Graph, source: Value) -> list[Eqn]:
    """Equations where derivatives by an input end, of those that lead on to the first output."""
    return _blockers(graph, {source})[0]


def _blockers(graph: Graph, active: Iterable[Value]) -> tuple[list[Eqn], set[Value]]:
    """The equations where derivatives end, and all values that derivatives reach."""
    reached = set(active)
    found: list[Eqn] = []
    leading = _leading(graph)
    for eqn in graph.eqns:
        here = [x for x in eqn.operands if isinstance(x, Value) and x in reached]
        if not here or not any(result in leading for result in eqn.results):
            continue
        if eqn.regions:
            inner, outputs = _through(eqn, reached)
            found += inner
            reached.update(eqn.results[i] for i in outputs)
            continue
        is_zero = isinstance(eqn.op.fact(eqn.params), Zero) or not eqn.results[0].aval.is_float
        if is_zero:
            found.append(eqn)
        else:
            reached.update(eqn.results)
    return found, reached


def _through(eqn: Eqn, reached: set[Value]) -> tuple[list[Eqn], list[int]]:
    """The same for regions: where derivatives end within, and which results they reach."""
    reached = set(reached)
    first = eqn.params.get("tests", 0) + eqn.params.get("consts", 0)
    is_loop = "consts" in eqn.params
    while True:
        found, outputs = _within(eqn, reached)
        carried = {
            operand
            for k, operand in enumerate(eqn.operands[first:])
            if is_loop and k in outputs and isinstance(operand, Value)
        }
        if carried <= reached:
            return found, sorted(outputs)
        reached |= carried


def _within(eqn: Eqn, reached: set[Value]) -> tuple[list[Eqn], set[int]]:
    found: list[Eqn] = []
    outputs: set[int] = set()
    for region, given in zip(eqn.regions, _operands(eqn), strict=True):
        inputs = {
            formal
            for formal, operand in zip(region.inputs, given, strict=False)
            if isinstance(operand, Value) and operand in reached
        }
        inner, inside = _blockers(region, inputs)
        found += inner
        outputs |= {
            i
            for i, output in enumerate(region.outputs[: len(eqn.results)])
            if isinstance(output, Value) and output in inside
        }
    return found, outputs


def _operands(eqn: Eqn) -> list[tuple[Operand, ...]]:
    """What each region of an equation is given."""
    if eqn.op.name == "while":
        tests, first = eqn.params["tests"], eqn.params["tests"] + eqn.params["consts"]
        return [(*eqn.operands[:tests], *eqn.operands[first:]), eqn.operands[tests:]]
    # a predicate, or what else steers, stands in front
    return [eqn.operands[max(len(eqn.operands) - len(r.inputs), 0) :] for r in eqn.regions]


def _leading(graph: Graph) -> set[Value]:
    """All values that the outputs depend on."""
    needed = {output for output in graph.outputs if isinstance(output, Value)}
    for eqn in reversed(graph.eqns):
        if any(result in needed for result in eqn.results):
            needed.update(x for x in eqn.operands if isinstance(x, Value))
    return needed


def warn_of_detached(traced: Traced, active: Sequence[bool]) -> None:
    """Warns of Python numbers that were made of floats which depend on active inputs."""
    if not traced.detached:
        return
    by = {x for x, on in zip(traced.graph.inputs, active, strict=False) if on}
    for detached in traced.detached:
        names = sorted(value.name for value in sources(detached.value) & by)
        if names:
            warn(
                f"{detached.wanted} is made of a value that depends on {', '.join(names)}: no "
                "derivative flows through it. Keep it an array (np.exp for math.exp), or say so "
                "with diffc.stop_gradient",
                DetachedValueWarning,
                detached.location,
            )


__all__ = ["blockers", "warn", "warn_of_detached", "warn_of_zeros"]
