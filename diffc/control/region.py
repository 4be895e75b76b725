"""What the functions of branches and loops have in common: they are traced as regions.

A region is isolated: what it uses of the traces around it becomes operands in front of its own.
Carries that start as Python scalars take the dtype that the body gives them.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from diffc import tree
from diffc.errors import ShapeError, UsageError
from diffc.ir.aval import Aval
from diffc.ir.graph import Builder, Graph, Literal, Operand, literal
from diffc.leaves import abstract_leaf, as_leaves, identifier
from diffc.ops.registry import find
from diffc.trace import Abstract, Captured, Traced, Tracer, emit, line, trace_flat
from diffc.trace.run import name_of

Function = Callable[..., Any]

#: how often a body is traced until the dtypes of its carries are settled
_ATTEMPTS = 8
#: Python's numbers, from narrow to wide
_KINDS = ("bool", "int", "float")


#: what the leaves of carries, operands and results are, in messages
VALUE = "an array or number"


def need_function(given: Any, what: str, hint: str | None = None) -> None:
    """Raises unless it can be called."""
    if not callable(given):
        found = f"a {type(given).__name__}"
        if isinstance(given, Tracer | np.ndarray):
            found = f"an array {abstract_leaf(given, what).aval}"
        raise UsageError(f"{what} is {found}, not a function", location=line(), hint=hint)


def need_arguments(function: Function, count: int, what: str, given: str) -> None:
    """Raises unless the function can be called with ``count`` arguments, which ``given`` names."""
    try:
        signature = inspect.signature(function, follow_wrapped=False)
    except (TypeError, ValueError):  # what is built in need not say
        return
    try:
        signature.bind(*range(count))
    except TypeError:
        kinds = signature.parameters.values()
        needed = [p.name for p in kinds if p.default is p.empty]
        taken = ", ".join(needed + ["..."] * (len(needed) < len(kinds))) or "nothing"
        raise UsageError(
            f"{what} takes {taken}; it is called with {given}",
            location=line(),
            hint="let it take just these; what else it needs, it can use from the code around it",
        ) from None


def flat(value: Any, path: str) -> tuple[list[Any], tree.TreeDef]:
    """The leaves of an argument, as arrays or numbers, and its structure."""
    leaves, structure = tree.flatten(value)
    return as_leaves(leaves, lambda: structure.paths(path)), structure


def trace_region(
    function: Function, run: Function, leaves: Sequence[Abstract], paths: Sequence[str]
) -> Traced:
    """Traces ``run``, which calls the user's ``function``, within the current trace."""
    return trace_flat(
        run,
        leaves,
        [identifier(path) for path in paths],
        name=name_of(function),
        origin=getattr(function, "origin", function),
    )


def refuse_writes(traced: Traced, what: str, hint: str, own: int = 0) -> None:
    """Raises if the region writes in place to anything but its first ``own`` inputs."""
    positions = (*traced.written, *(own for _ in traced.effects))
    for position, write in zip(positions, traced.writes, strict=True):
        if position >= own:
            named = f"{write.name!r}, which" if write.name else "an array that"
            raise UsageError(
                f"{what} writes to {named} is not its own",
                location=line() if write.location is None else str(write.location),
                hint=hint,
            )


def kind_of(aval: Aval) -> str:
    """The narrowest of Python's numbers that the dtype belongs to."""
    return "bool" if aval.dtype == "bool" else "float" if aval.is_float else "int"


def fits(found: Aval, is_weak: bool, wanted: Aval) -> bool:
    """Whether a result is of the wanted aval, or a Python number that becomes it."""
    if found is wanted:
        return True
    is_narrow = _KINDS.index(kind_of(found)) <= _KINDS.index(kind_of(wanted))
    return is_weak and found.shape == wanted.shape and is_narrow


# --- regions and what they use of the world outside -------------------------------------------


def operand_of(captured: Captured) -> Any:
    """What a region uses of the world outside, as an operand of the trace around it."""
    return captured.array if captured.tracer is None else captured.tracer


def region_of(
    traced: Traced, wanted: Sequence[Aval], hidden: Sequence[Captured] | None = None
) -> Graph:
    """The traced function as a region: ``hidden`` inputs, its own; results of the given avals.

    Args:
        traced: the function.
        wanted: the avals of its results; Python numbers among them become what is wanted.
        hidden: what the region takes from outside (default: just what it uses).
    """
    graph, own = traced.graph, traced.captured
    count = len(graph.inputs) - len(own)
    names = {identity(c): value.name for c, value in zip(own, graph.inputs[count:], strict=True)}
    builder = Builder(graph.name)
    given: dict[tuple[str, int], Operand] = {}
    for captured in own if hidden is None else hidden:
        key = identity(captured)
        given[key] = builder.input(captured.aval, names.get(key, "unused"))
    inputs = [builder.input(value.aval, value.name) for value in graph.inputs[:count]]
    outputs = builder.inline(graph, [*inputs, *(given[identity(c)] for c in own)])
    results = zip(outputs[: traced.num_results], wanted, strict=True)
    return builder.build([_cast(builder, output, aval) for output, aval in results])


def united(traceds: Sequence[Traced]) -> list[Captured]:
    """All that several regions use of the world outside, each once."""
    return list({identity(c): c for traced in traceds for c in traced.captured}.values())


def identity(captured: Captured) -> tuple[str, int]:
    """What tells apart arrays of the world outside."""
    tracer = captured.tracer
    return ("array", id(captured.array)) if tracer is None else ("cell", id(tracer._cell))


def _cast(builder: Builder, operand: Operand, aval: Aval) -> Operand:
    if operand.aval is aval:
        return operand
    if isinstance(operand, Literal):
        return literal(operand.value, aval)
    return builder.emit(find("convert"), (operand,), {"dtype": aval.dtype})[0]


def results_of(values: Sequence[Tracer], weak: Sequence[bool]) -> list[Tracer]:
    """Results, those marked as Python numbers again."""
    for value, is_weak in zip(values, weak, strict=True):
        value.weak = is_weak
    return list(values)


# --- carries ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Carry:
    """What a loop carries from step to step.

    Attributes:
        leaves: the initial values; ``own`` first, which are the loop's and not the user's.
        structure: of what the user carries.
        root: what it is called in messages.
        own: paths of the loop's own carries.
    """

    leaves: list[Any]
    structure: tree.TreeDef
    root: str = "carry"
    own: tuple[str, ...] = ()

    @property
    def paths(self) -> list[str]:
        """A path for each leaf."""
        return [*self.own, *self.structure.paths(self.root)]

    def __len__(self) -> int:
        return len(self.leaves)


def settle(
    what: str,
    carry: Carry,
    trace: Callable[[list[Abstract]], Traced],
    part: Callable[[tree.TreeDef], tree.TreeDef],
) -> tuple[Traced, list[Abstract], list[Any]]:
    """Traces the body of a loop until its carries come back as they went in.

    A carry that starts as a Python number takes the dtype that it comes back with.

    Args:
        what: the loop in words.
        carry: the initial carries; the body's first results are the following ones.
        trace: the body on carries of these avals.
        part: which part of the body's result is the user's carry.

    Returns:
        The traced body, what is known of each carry, and the initial values.

    Raises:
        ShapeError: a carry comes back with another structure, dtype or shape.
    """
    given = [abstract_leaf(x) for x in carry.leaves]
    for _ in range(_ATTEMPTS):
        traced = trace(given)
        structure = part(traced.out_tree)
        if structure is not carry.structure:
            differs = tree.first_mismatch(carry.structure, structure, carry.root, VALUE)
            assert differs is not None
            place, before, after = differs
            raise ShapeError(
                f"{place} of {what} starts as {before} and comes back as {after}",
                location=line(),
                hint="a function without `return` gives None; return the carry"
                if after == "None"
                else "return the whole carry, in the containers that it came in",
            )
        found = list(zip(traced.graph.output_avals, traced.out_weak, strict=False))[: len(carry)]
        following = [_following(g, *f) for g, f in zip(given, found, strict=True)]
        if following == given:
            break
        given = following
    for path, start, (aval, is_weak) in zip(carry.paths, given, found, strict=True):
        if not fits(aval, is_weak, start.aval):
            raise ShapeError(
                f"{path} of {what} starts as {start.aval} and comes back as {aval}",
                location=line(),
                hint="start from an array of the shape and dtype that the step returns",
            )
    refuse_writes(
        traced, f"the body of {what}", "return the new array as part of the carry", len(carry)
    )
    initial = [
        x if abstract_leaf(x).aval is g.aval else emit("convert", x, dtype=g.aval.dtype)[0]
        for x, g in zip(carry.leaves, given, strict=True)
    ]
    return traced, given, initial


def _following(given: Abstract, found: Aval, is_weak: bool) -> Abstract:
    """What a carry is taken for next: a Python number takes the dtype that it comes back with."""
    if not given.weak or given.aval.shape != found.shape:
        return given
    if given.aval is found and is_weak:
        return given
    return Abstract(found, is_weak, True)
