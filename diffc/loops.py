"""Loops that users write: ``scan``, as a region of the graph."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from diffc import tree
from diffc.errors import ShapeError, UsageError
from diffc.ir.aval import Aval
from diffc.ir.graph import Graph, Value
from diffc.jitted import Jitted, abstract_leaf, as_leaf
from diffc.trace import Abstract, Traced, Tracer, active, emit, line, trace_flat
from diffc.trace.run import name_of

Function = Callable[..., Any]


def scan(function: Function, init: Any, xs: Any, length: int | None, reverse: bool) -> Any:
    """See :func:`diffc.scan`."""
    if not active():
        run = Jitted(lambda init, xs: scan(function, init, xs, length, reverse))
        run.origin = function
        return run.call(init, xs)
    carry, carry_tree = tree.flatten(init)
    slices, xs_tree = tree.flatten(xs)
    carry, slices = [as_leaf(x) for x in carry], [as_leaf(x) for x in slices]
    steps = _length(slices, xs_tree, length)
    traced, carry = _trace_body(function, carry, carry_tree, slices, xs_tree)
    count = len(carry)
    hidden = [c.array if c.tracer is None else c.tracer for c in traced.captured]
    body = _constants_first(traced.graph, len(hidden))
    results = emit(
        "scan",
        *hidden,
        *carry,
        *slices,
        regions=(body,),
        consts=len(hidden),
        carry=count,
        length=steps,
        reverse=bool(reverse),
    )
    ys_tree = traced.out_tree.children[1]
    return carry_tree.build(results[:count]), ys_tree.build(results[count:])


def _length(slices: list[Any], xs_tree: tree.TreeDef, length: int | None) -> int:
    """The common number of steps."""
    found = length
    for path, leaf in zip(xs_tree.paths("xs"), slices, strict=True):
        shape = abstract_leaf(leaf).aval.shape
        if not shape:
            raise ShapeError(f"{path} is a scalar; scan runs over a leading axis", location=line())
        if found is None:
            found = int(shape[0])  # type: ignore[arg-type]  # traces have integer dimensions
        elif shape[0] != found:
            raise ShapeError(
                f"scan runs {found} steps, but {path} has leading length {shape[0]}",
                location=line(),
            )
    if found is None:
        raise UsageError("scan needs xs or a length", location=line())
    if found < 0:
        raise UsageError(f"scan can't run {found} steps", location=line())
    return found


def _trace_body(
    function: Function,
    carry: list[Any],
    carry_tree: tree.TreeDef,
    slices: list[Any],
    xs_tree: tree.TreeDef,
) -> tuple[Traced, list[Any]]:
    """Traces one step; carries that are Python scalars take the dtype that the step gives them."""
    given = [abstract_leaf(x) for x in carry]
    rows = [abstract_leaf(x).aval for x in slices]
    leaves = [Abstract(a.with_shape(a.shape[1:]), scalar=a.ndim == 1) for a in rows]

    def run(*flat: Tracer) -> Any:
        state = carry_tree.build(flat[: len(carry)])
        found = function(state, xs_tree.build(flat[len(carry) :]))
        if not isinstance(found, tuple) or len(found) != 2:
            raise UsageError(
                f"the step of a scan returns a pair (carry, y), found {type(found).__name__}",
                location=line(),
            )
        return found

    paths = [f"carry{path}" for path in carry_tree.paths("")]
    paths += [f"x{path}" for path in xs_tree.paths("")]
    names = ["".join(c if c.isalnum() else "_" for c in path) for path in paths]
    for _ in range(3):
        traced = trace_flat(
            run,
            [*given, *leaves],
            names,
            name=name_of(function),
            origin=getattr(function, "origin", function),
        )
        new_tree = traced.out_tree.children[0]
        if new_tree is not carry_tree:
            problem = tree.explain_mismatch(carry_tree, new_tree, "carry")
            raise ShapeError(
                f"the carry of a scan changes its structure: {problem}", location=line()
            )
        avals = [output.aval for output in traced.graph.outputs[: len(carry)]]
        widened = [_settled(g, a) for g, a in zip(given, avals, strict=True)]
        if widened == given:
            break
        given = widened
    for path, start, end in zip(carry_tree.paths("carry"), given, avals, strict=True):
        if start.aval is not end:
            raise ShapeError(
                f"{path} of a scan starts as {start.aval} and comes back as {end}",
                location=line(),
                hint="start from an array of the shape and dtype that the step returns",
            )
    if traced.written or traced.effects:
        raise UsageError(
            "the step of a scan writes to an array that is not its own",
            location=line(),
            hint="return the new array as part of the carry",
        )
    cast = [
        x if not leaf.weak or wanted.weak else emit("convert", x, dtype=wanted.aval.dtype)[0]
        for x, leaf, wanted in zip(carry, map(abstract_leaf, carry), given, strict=True)
    ]
    return traced, cast


def _settled(given: Abstract, found: Aval) -> Abstract:
    """A weak scalar that comes back with another dtype starts with that dtype."""
    is_scalar = given.weak and given.aval.shape == found.shape
    return Abstract(found, False, True) if is_scalar and given.aval is not found else given


def _constants_first(graph: Graph, hidden: int) -> Graph:
    """Hidden inputs come last in a trace and first in a scan."""
    own = len(graph.inputs) - hidden
    inputs: tuple[Value, ...] = (*graph.inputs[own:], *graph.inputs[:own])
    for i, value in enumerate(inputs):
        value.index = i
    return Graph(graph.name, inputs, graph.eqns, graph.outputs)
