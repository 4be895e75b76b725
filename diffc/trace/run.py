"""Running a function on tracers: :func:`trace`, and what a trace gives."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from diffc import tree
from diffc.errors import DiffcError, DtypeError, TraceError, UsageError
from diffc.ir.aval import Aval, aval, aval_of, dtype_name
from diffc.ir.graph import Graph, Literal, Location, Operand, Value, prune
from diffc.ir.note import Note
from diffc.trace import kinks
from diffc.trace import operands as o
from diffc.trace.arguments import argument, default_dtype
from diffc.trace.captured import plain
from diffc.trace.context import Array, Cell, Detached, Trace, innermost, run_in
from diffc.trace.location import line
from diffc.trace.rebind import Place, bound_now, rebound
from diffc.trace.tracer import Tracer, read, wrap, write


class Abstract:
    """A leaf known by its aval only (no dataclass: trees would take it for a container).

    Attributes:
        aval: dtype and shape.
        weak: a Python scalar, which promotes weakly.
        scalar: a NumPy or Python scalar, not an array: writes never reach it.
        value: its value, for a concrete trace: an array, a number, or a tracer of the trace around.
    """

    __slots__ = ("aval", "scalar", "value", "weak")

    def __init__(
        self, aval: Aval, weak: bool = False, scalar: bool = False, value: Any = None
    ) -> None:
        self.aval = aval
        self.weak = weak
        self.scalar = scalar
        self.value = value

    def __repr__(self) -> str:
        return f"<abstract {self.aval}{' weak' if self.weak else ''}>"


@dataclass(frozen=True, slots=True)
class Captured:
    """A hidden operand: an array made outside, or an array of an outer trace.

    Attributes:
        aval: dtype and shape; a call with anything else needs a new trace.
        array: the array object; None if ``tracer`` is set.
        tracer: the array of the outer trace; None if ``array`` is set.
        place: the global or closure cell that held the array, if it was reached through one.
    """

    aval: Aval
    array: Array | None = None
    tracer: Tracer | None = None
    place: Place | None = None

    def current(self) -> Array | None:
        """Today's array, or None when dtype or shape changed, so that a new trace is needed."""
        known = self.array
        assert known is not None
        if self.place is None:
            return known
        try:
            found = bound_now(self.place)
        except LookupError:  # no longer bound
            return None
        return known if found is known else self._fitting(found)

    def _fitting(self, found: Any) -> Array | None:
        """What the place holds now, if it is an array of the same aval."""
        if not isinstance(found, np.ndarray):
            return None
        try:
            return found if aval_of(found) is self.aval else None
        except ValueError:  # a dtype that diffc does not know
            return None


class Write(NamedTuple):
    """An array that a function wrote in place: its name, or "", and the line that wrote first."""

    name: str
    location: Location | None


@dataclass(frozen=True, slots=True)
class Traced:
    """What a trace gives.

    The graph's inputs are the leaves of the arguments and then the hidden operands; its outputs are
    the leaves of the result, then the last values of written inputs, then those of written arrays
    of the outer trace.

    Attributes:
        graph: the function.
        out_tree: structure of its result.
        out_weak: per leaf of the result, whether it is a Python scalar.
        out_scalar: per leaf, whether NumPy would give a scalar and not an array.
        captured: hidden operands, in the order of the inputs.
        written: indices of the inputs that were written in place.
        effects: arrays of the outer trace that were written; see :meth:`apply_effects`.
        in_tree: structure of the arguments; None from :func:`trace_flat`.
        detached: in a concrete trace, floats that became Python numbers.
        notes: what transforms had to say of the code.
        writes: one for each of ``written``, then for each of ``effects``.
    """

    graph: Graph
    out_tree: tree.TreeDef
    out_weak: tuple[bool, ...]
    out_scalar: tuple[bool, ...]
    captured: tuple[Captured, ...]
    written: tuple[int, ...] = ()
    effects: tuple[Tracer, ...] = ()
    in_tree: tree.TreeDef | None = field(default=None, compare=False)
    detached: tuple[Detached, ...] = ()
    notes: tuple[Note, ...] = ()
    writes: tuple[Write, ...] = ()

    @property
    def num_results(self) -> int:
        """Number of the function's own outputs."""
        return len(self.out_weak)

    def apply_effects(self, results: Sequence[Tracer]) -> None:
        """Writes the outputs of a call, in the outer trace, to its arrays that were written."""
        values = results[self.num_results + len(self.written) :]
        for target, value in zip(self.effects, values, strict=True):
            write(target, read(value))


def trace(
    function: Callable[..., Any],
    args: Sequence[Any],
    kwargs: Mapping[str, Any] | None = None,
    *,
    name: str | None = None,
    names: Sequence[str] | None = None,
    rebind: bool = True,
    concrete: bool = False,
) -> Traced:
    """Runs ``function`` once on tracers.

    Args:
        function: any callable.
        args: pytrees whose leaves are :class:`Abstract`, arrays or numbers (of which only the aval
            counts, unless ``concrete``).
        kwargs: the same, by keyword.
        name: name of the graph.
        names: names of the positional arguments; the function's own parameters if not given.
        rebind: whether names that reach NumPy are rebound.
        concrete: give tracers the values of ``args``, so that the code may branch on them.

    Raises:
        TraceError: the code can't be traced.

    Example:
        >>> import numpy as np
        >>> traced = trace(lambda x: np.sin(x) * 2, [np.ones(3)])
        >>> [str(aval) for aval in traced.graph.output_avals]
        ['f64[3]']
    """
    kwargs = dict(kwargs or {})
    labels = list(names if names is not None else parameter_names(function, len(args)))
    found: list[Abstract] = []
    paths: list[str] = []
    for label, arg in zip([*labels, *kwargs], [*args, *kwargs.values()], strict=True):
        leaves, _ = tree.flatten_with_paths(arg, label)
        for path, leaf in leaves:
            found.append(abstract(leaf, path, concrete=concrete))
            paths.append(_identifier(path))
    in_tree = tree.structure((tuple(args), kwargs))

    def run(*leaves: Tracer) -> Any:
        positional, named = tree.unflatten(in_tree, leaves)
        return function(*positional, **named)

    ordered = _reordered(found, paths, args, kwargs)
    traced = trace_flat(
        run,
        [leaf for leaf, _ in ordered],
        [path for _, path in ordered],
        name=name or name_of(function),
        origin=function if rebind else None,
        concrete=concrete,
    )
    return Traced(
        traced.graph,
        traced.out_tree,
        traced.out_weak,
        traced.out_scalar,
        traced.captured,
        traced.written,
        traced.effects,
        in_tree,
        traced.detached,
        traced.notes,
        traced.writes,
    )


def _reordered(
    found: list[Abstract], paths: list[str], args: Sequence[Any], kwargs: dict[str, Any]
) -> list[tuple[Abstract, str]]:
    """Leaves in the order of the whole tree, where keywords are sorted."""
    pairs = list(zip(found, paths, strict=True))
    count = sum(len(tree.leaves(arg)) for arg in args)
    result, rest = pairs[:count], pairs[count:]
    groups = {}
    for key, value in kwargs.items():
        size = len(tree.leaves(value))
        groups[key], rest = rest[:size], rest[size:]
    for key in sorted(groups):
        result += groups[key]
    return result


def trace_flat(
    function: Callable[..., Any],
    leaves: Sequence[Abstract],
    paths: Sequence[str] | None = None,
    *,
    name: str = "f",
    origin: Any = None,
    concrete: bool = False,
) -> Traced:
    """Traces a function of positional arrays, one for each of ``leaves``.

    Args:
        function: takes tracers, gives a pytree of arrays and numbers.
        leaves: what is known of each argument.
        paths: names of the inputs.
        name: name of the graph.
        origin: the function whose names are rebound; None: none are.
        concrete: whether the leaves' values answer questions for values.

    Raises:
        TraceError: the code can't be traced.
    """
    parent = innermost()
    if parent is None:
        kinks.refuse_waiting()
    context = Trace(name, parent, concrete=concrete or (parent is not None and parent.concrete))
    if context.concrete and not concrete:
        context.concrete = all(leaf.value is not None for leaf in leaves)
    cells: list[Cell] = []
    tracers: list[Tracer] = []
    for i, leaf in enumerate(leaves):
        path = paths[i] if paths is not None else f"x{i}"
        value = _held(leaf) if context.concrete else None
        cell = Cell(context, context.input(leaf.aval, path, value), path)
        cells.append(cell)
        scalar = leaf.weak or leaf.scalar
        tracers.append(Tracer(cell, leaf.aval, weak=leaf.weak, scalar=scalar))

    def body(places: Mapping[int, Place]) -> Traced:
        found, out_tree = tree.flatten(function(*tracers))
        outs = [
            output(leaf, path) for leaf, path in zip(found, out_tree.paths("result"), strict=True)
        ]
        written = tuple(i for i, cell in enumerate(cells) if cell.written)
        effects = context.written_outer()
        outputs: list[Operand] = [out.operand for out in outs]
        outputs += [cells[i].value for i in written]
        outputs += [local.value for _, local in effects]
        graph = prune(context.builder.build(outputs))
        graph, captured = _pruned_captures(graph, context, len(leaves), places)
        return Traced(
            graph,
            out_tree,
            tuple(out.weak for out in outs),
            tuple(out.scalar for out in outs),
            captured,
            written,
            tuple(Tracer(cell, cell.value.aval) for cell, _ in effects),
            None,
            tuple(context.detached),
            tuple(context.notes),
            tuple(
                Write(cell.name, cell.written_at)
                for cell in (*(cells[i] for i in written), *(local for _, local in effects))
            ),
        )

    nothing: AbstractContextManager[dict[int, Place]] = nullcontext({})
    binding = rebound(origin) if origin is not None else nothing
    with binding as places:
        context.names = {i: place.key for i, place in places.items() if isinstance(place.key, str)}
        result: Traced = run_in(context, lambda: body(places))
    return result


def _held(leaf: Abstract) -> Array | Operand:
    """A leaf's value: an array, or the value of the trace around that a tracer stands for."""
    if isinstance(leaf.value, Tracer):
        return read(leaf.value)
    return np.asarray(leaf.value, leaf.aval.numpy)


def subtrace(
    function: Callable[..., Any],
    avals: Sequence[Aval],
    *,
    weak: Sequence[bool] | None = None,
    names: Sequence[str] | None = None,
    name: str = "body",
) -> Traced:
    """Traces a region within the current trace; what it uses of it becomes hidden operands."""
    flags = weak if weak is not None else [False] * len(avals)
    leaves = [Abstract(a, w) for a, w in zip(avals, flags, strict=True)]
    return trace_flat(function, leaves, names, name=name)


def _pruned_captures(
    graph: Graph, context: Trace, count: int, places: Mapping[int, Place]
) -> tuple[Graph, tuple[Captured, ...]]:
    """Without hidden inputs that nothing uses."""
    used: set[Value] = {x for x in graph.outputs if isinstance(x, Value)}
    for eqn in graph.eqns:
        used.update(x for x in eqn.operands if isinstance(x, Value))
    hidden = list(zip(graph.inputs[count:], context.hidden, strict=True))
    kept = [(value, cell) for value, cell in hidden if value in used]
    captured = tuple(_captured(value.aval, cell, places) for value, cell in kept)
    inputs = (*graph.inputs[:count], *(value for value, _ in kept))
    for i, value in enumerate(inputs):
        value.index = i
    return Graph(graph.name, inputs, graph.eqns, graph.outputs), captured


def _captured(aval: Aval, cell: Cell, places: Mapping[int, Place]) -> Captured:
    source = cell.captured
    if isinstance(source, Cell):
        return Captured(aval, tracer=Tracer(source, aval))
    assert source is not None
    return Captured(aval, array=source, place=places.get(id(source)))


@dataclass(frozen=True, slots=True)
class Output:
    """One leaf of a result."""

    operand: Operand
    weak: bool
    scalar: bool


def output(leaf: Any, path: str) -> Output:
    """A leaf of a function's result as an operand of the current trace.

    Raises:
        TraceError: it is no array and no number.
    """
    if isinstance(leaf, Tracer):
        return Output(read(leaf), leaf.weak, leaf.scalar)
    found = None if isinstance(leaf, (list, tuple)) else argument(leaf)
    if found is None:
        raise TraceError(
            f"{path} is a {type(leaf).__name__}, neither an array nor a number: {leaf!r}",
            location=line(),
            hint="return arrays, numbers, and containers of them",
        )
    weak = isinstance(found.key, type)
    return Output(found.to(default_dtype(found.key)), weak, not isinstance(leaf, np.ndarray))


def abstract(leaf: Any, path: str = "argument", *, concrete: bool = False) -> Abstract:
    """What a trace must know of an argument's leaf.

    Raises:
        UsageError: it is no array and no number.
        DtypeError: its dtype is not one of diffc's.
    """
    if isinstance(leaf, Abstract):
        return leaf
    value = leaf if concrete else None
    if isinstance(leaf, Tracer):
        return Abstract(leaf.aval, leaf.weak, leaf.scalar, value)
    if isinstance(leaf, np.ndarray | np.generic):
        array = plain(leaf) if isinstance(leaf, np.ndarray) else leaf
        try:
            found = aval(dtype_name(array.dtype), array.shape)
        except ValueError as error:
            raise DtypeError(f"{path}: {error}", location=line()) from None
        return Abstract(found, False, isinstance(leaf, np.generic), value)
    if isinstance(leaf, bool):
        return Abstract(aval("bool"), True, True, value)
    if isinstance(leaf, int):
        return Abstract(aval("i64"), True, True, value)
    if isinstance(leaf, float):
        return Abstract(aval("f64"), True, True, value)
    raise UsageError(
        f"{path} is a {type(leaf).__name__}, neither an array nor a number",
        location=line(),
        hint="make it a static argument (static_argnums)",
    )


def inline(graph: Graph, operands: Sequence[Any]) -> list[Tracer]:
    """Emits a graph into the current trace; operands are tracers, arrays or numbers."""
    values = []
    for given, formal in zip(operands, graph.inputs, strict=True):
        values.append(_as(given, formal.aval))
    current = innermost()
    assert current is not None
    return [wrap(value) for value in current.builder.inline(graph, values)]


def emit(name: str, *operands: Any, regions: tuple[Graph, ...] = (), **params: Any) -> list[Tracer]:
    """Emits one op on tracers, arrays or numbers (as their own dtype); gives its results."""
    values = []
    for given in operands:
        found = given if isinstance(given, (Value, Literal)) else _as(given, None)
        values.append(found)
    return [wrap(value) for value in o.emit_all(name, values, params, regions)]


def _as(given: Any, wanted: Aval | None) -> Operand:
    found = argument(given)
    if found is None:
        raise UsageError(f"{type(given).__name__} is no operand", location=line())
    if wanted is None:
        return found.to(default_dtype(found.key))
    return found.to(wanted.dtype, wanted.shape)


def parameter_names(function: Callable[..., Any], count: int) -> list[str]:
    """Names of the first positional parameters, for the inputs of the graph."""
    import inspect

    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        return [f"x{i}" for i in range(count)]
    named = [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    rest = next((p.name for p in parameters if p.kind is p.VAR_POSITIONAL), "x")
    return (named + [f"{rest}{i}" for i in range(max(count - len(named), 0))])[:count]


def name_of(function: Callable[..., Any]) -> str:
    """A graph's name for a function."""
    name = getattr(function, "__name__", None) or type(function).__name__
    return _identifier(name) or "f"


def _identifier(path: str) -> str:
    """``params['w'][0].b`` as an identifier: ``params_w_0_b``."""
    text = "".join(c if c.isalnum() or c == "_" else " " for c in path)
    return "_".join(text.split())


__all__ = [
    "Abstract",
    "Captured",
    "DiffcError",
    "Traced",
    "abstract",
    "emit",
    "inline",
    "subtrace",
    "trace",
    "trace_flat",
]
