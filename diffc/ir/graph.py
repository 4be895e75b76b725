"""The array IR: graphs of equations in static single assignment form.

Values are pure. Equations and values are compared by identity and never changed once built.
Regions (bodies of ``call``, ``scan``, ...) are graphs of their own and isolated: what they use is
an operand of the equation that holds them. Nothing broadcasts, promotes or defaults here.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple, Protocol

import numpy as np

from diffc.ir.aval import Aval, as_dtype


class Location(NamedTuple):
    """Where the user's code asked for a value: ``file:line`` and the function's name."""

    file: str
    line: int
    function: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


class OpLike(Protocol):
    """What the IR needs to know of an op; ``diffc.ops`` declares the rest."""

    @property
    def name(self) -> str:
        """The op's unique name."""
        ...

    def infer(
        self, avals: tuple[Aval, ...], params: Mapping[str, Any], regions: tuple[Graph, ...]
    ) -> tuple[Aval, ...]:
        """Avals of the results, or an error that names the operand."""
        ...


class Literal:
    """A scalar known at compile time, splat over an aval: ``1.0:f32[4]``.

    Build it with :func:`literal`, which interns.
    """

    __slots__ = ("aval", "value")

    aval: Aval
    value: bool | int | float

    def __init__(self, aval: Aval, value: bool | int | float) -> None:
        self.aval = aval
        self.value = value

    def __repr__(self) -> str:
        return f"{self.value!r}:{self.aval}"


_LITERALS: dict[tuple[Aval, bytes], Literal] = {}


def literal(value: Any, aval: Aval) -> Literal:
    """The interned literal of ``value`` rounded to the aval's dtype.

    Raises:
        OverflowError: an integer that the dtype can't hold.
        ValueError: a store of anything but zeros.
    """
    scalar = as_dtype(np.asarray(value) if isinstance(value, np.generic) else value, aval.dtype)
    key = (aval, scalar.tobytes())
    found = _LITERALS.get(key)
    if found is None:
        if aval.is_store and any(scalar.tobytes()):
            raise ValueError(f"a literal {aval} is zero, not {value!r}")
        found = _LITERALS[key] = Literal(aval, scalar.item())
    return found


class Value:
    """One SSA value: an input of a graph or a result of an equation.

    Attributes:
        aval: dtype and shape.
        eqn: the equation that defines it; None for a graph's input.
        index: which result of ``eqn``, or which input of the graph.
        name: the user's name for it, or "".
        of: the primal value whose cotangent or tangent this is, or None.
    """

    __slots__ = ("aval", "eqn", "index", "name", "of")

    def __init__(
        self, aval: Aval, eqn: Eqn | None, index: int, name: str = "", of: Value | None = None
    ) -> None:
        self.aval = aval
        self.eqn = eqn
        self.index = index
        self.name = name
        self.of = of

    def __repr__(self) -> str:
        origin = f"{self.eqn.op.name}.{self.index}" if self.eqn else f"input {self.index}"
        return f"<{self.name or 'value'}: {self.aval} from {origin}>"


Operand = Value | Literal


class Eqn:
    """One use of an op: ``results = op(operands, params) { regions }``.

    ``params`` maps names to hashable values and is never mutated. ``key`` identifies equal
    computations: two equations with equal keys have equal results.
    """

    __slots__ = ("key", "loc", "op", "operands", "params", "regions", "results")

    def __init__(
        self,
        op: Any,
        operands: tuple[Operand, ...],
        params: Mapping[str, Any],
        regions: tuple[Graph, ...],
        avals: tuple[Aval, ...],
        loc: Location | None,
        key: tuple[Any, ...],
    ) -> None:
        self.op = op
        self.operands = operands
        self.params = params
        self.regions = regions
        self.loc = loc
        self.key = key
        if len(avals) == 1:
            self.results: tuple[Value, ...] = (Value(avals[0], self, 0),)
        else:
            self.results = tuple([Value(aval, self, i) for i, aval in enumerate(avals)])

    @property
    def result(self) -> Value:
        """The only result."""
        (result,) = self.results
        return result

    def __repr__(self) -> str:
        return f"<eqn {self.op.name}({', '.join(map(repr, self.operands))})>"


class Graph:
    """A function on arrays: inputs, equations in order, outputs.

    Outputs may be inputs, literals, and repeat. ``eqns`` are topologically ordered.
    """

    __slots__ = ("__weakref__", "eqns", "inputs", "name", "outputs")

    def __init__(
        self,
        name: str,
        inputs: tuple[Value, ...],
        eqns: tuple[Eqn, ...],
        outputs: tuple[Operand, ...],
    ) -> None:
        self.name = name
        self.inputs = inputs
        self.eqns = eqns
        self.outputs = outputs

    @property
    def input_avals(self) -> tuple[Aval, ...]:
        """Avals of the inputs."""
        return tuple([value.aval for value in self.inputs])

    @property
    def output_avals(self) -> tuple[Aval, ...]:
        """Avals of the outputs."""
        return tuple([value.aval for value in self.outputs])

    def __repr__(self) -> str:
        return f"<graph @{self.name}: {len(self.inputs)} inputs, {len(self.eqns)} eqns>"


def graphs_of(graph: Graph) -> Iterator[Graph]:
    """The graph and every region below it, each once, callees before callers."""
    order: list[Graph] = []
    seen: set[int] = set()
    stack: list[tuple[Graph, bool]] = [(graph, False)]
    while stack:
        current, done = stack.pop()
        if done:
            order.append(current)
        elif id(current) not in seen:
            seen.add(id(current))
            stack.append((current, True))
            stack.extend((region, False) for eqn in current.eqns for region in eqn.regions)
    return iter(order)


class Builder:
    """Builds one graph, equation by equation; equal pure computations are built once.

    ``loc`` is the source location given to what is emitted next.
    """

    __slots__ = ("_avals", "_found", "_names", "eqns", "inputs", "loc", "name")

    def __init__(self, name: str = "f") -> None:
        self.name = name
        self.inputs: list[Value] = []
        self.eqns: list[Eqn] = []
        self.loc: Location | None = None
        self._found: dict[tuple[Any, ...], Eqn] = {}
        self._avals: dict[tuple[Any, ...], tuple[Aval, ...]] = {}  # of equations with regions
        self._names: dict[str, int] = {}  # given names -> the number to try next behind them

    def input(self, aval: Aval, name: str = "") -> Value:
        """A new input, with a unique name."""
        names = self._names
        unique = name or f"x{len(self.inputs)}"
        if unique in names:
            stem, count = name or "x", names.get(name or "x", 1)
            while (unique := f"{stem}_{count}") in names:
                count += 1
            names[stem] = count + 1
        names[unique] = 1
        value = Value(aval, None, len(self.inputs), unique)
        self.inputs.append(value)
        return value

    def emit(
        self,
        op: OpLike,
        operands: Iterable[Operand],
        params: Mapping[str, Any] | None = None,
        regions: tuple[Graph, ...] = (),
        loc: Location | None = None,
    ) -> tuple[Value, ...]:
        """Appends an equation, or finds the equal one; returns its results.

        Raises:
            ShapeError, DtypeError: from the op's aval rule, naming the operand.
        """
        operands = tuple(operands)
        params = params or {}
        key = eqn_key(op, operands, params, regions)
        eqn = self._found.get(key)
        if eqn is None:
            given = tuple([operand.aval for operand in operands])
            if not regions:
                avals = _infer(op, given, params, key)
            elif (known := self._avals.get((op.name, given, *key[2:]))) is not None:
                avals = known
            else:
                avals = self._avals[op.name, given, *key[2:]] = op.infer(given, params, regions)
            eqn = Eqn(op, operands, params, regions, avals, loc or self.loc, key)
            self._found[key] = eqn
            self.eqns.append(eqn)
        return eqn.results

    def adopt(self, eqn: Eqn) -> tuple[Value, ...]:
        """Takes over an equation of another graph whose operands are values of this one too."""
        found = self._found.setdefault(eqn.key, eqn)
        if found is eqn:
            self.eqns.append(eqn)
        return found.results

    def inline(self, graph: Graph, operands: Iterable[Operand]) -> tuple[Operand, ...]:
        """Emits all of ``graph`` on ``operands``; returns what its outputs became."""
        env: dict[Operand, Operand] = dict(zip(graph.inputs, operands, strict=True))
        for eqn in graph.eqns:
            self.copy(eqn, env)
        return tuple(env.get(output, output) for output in graph.outputs)

    def copy(self, eqn: Eqn, env: dict[Operand, Operand]) -> tuple[Value, ...]:
        """Emits ``eqn`` with operands renamed by ``env``, and records its results there."""
        operands = tuple([env.get(operand, operand) for operand in eqn.operands])
        results = self.emit(eqn.op, operands, eqn.params, eqn.regions, eqn.loc)
        for old, new in zip(eqn.results, results, strict=True):
            env[old] = new
            new.name = new.name or old.name
            new.of = new.of or old.of
        return results

    def build(self, outputs: Iterable[Operand]) -> Graph:
        """The graph with these outputs; equations that nothing uses stay (see ``prune``)."""
        return Graph(self.name, tuple(self.inputs), tuple(self.eqns), tuple(outputs))


_PLAIN = frozenset((bool, int, float, str, tuple, type(None)))
_INFERRED: dict[tuple[Any, ...], tuple[Aval, ...]] = {}


def _infer(
    op: OpLike, avals: tuple[Aval, ...], params: Mapping[str, Any], key: tuple[Any, ...]
) -> tuple[Aval, ...]:
    """Avals of the results, remembered for params that hold nothing large or alive."""
    for value in params.values():
        if type(value) not in _PLAIN:
            return op.infer(avals, params, ())
    question = op, avals, key[2]
    found = _INFERRED.get(question)
    if found is None:
        found = _INFERRED[question] = op.infer(avals, params, ())
    return found


def eqn_key(
    op: OpLike, operands: tuple[Operand, ...], params: Mapping[str, Any], regions: tuple[Graph, ...]
) -> tuple[Any, ...]:
    """What makes two equations equal: op, operands by identity, params, regions by identity."""
    ids = tuple(map(id, operands))
    return op.name, ids, tuple(sorted(params.items())) if params else (), tuple(map(id, regions))


def prune(graph: Graph) -> Graph:
    """The graph without equations that no output needs; the same object when all are needed."""
    live: set[Operand] = set(graph.outputs)
    kept: list[Eqn] = []
    for eqn in reversed(graph.eqns):
        if not live.isdisjoint(eqn.results):
            kept.append(eqn)
            live.update(eqn.operands)
    if len(kept) == len(graph.eqns):
        return graph
    return Graph(graph.name, graph.inputs, tuple(reversed(kept)), graph.outputs)


def uses(graph: Graph) -> dict[Value, int]:
    """How often each value is read, by equations and outputs."""
    counts: dict[Value, int] = {}
    for eqn in graph.eqns:
        for operand in eqn.operands:
            if isinstance(operand, Value):
                counts[operand] = counts.get(operand, 0) + 1
    for output in graph.outputs:
        if isinstance(output, Value):
            counts[output] = counts.get(output, 0) + 1
    return counts


def depends_on(graph: Graph, sources: Iterable[Value]) -> set[Value]:
    """All values that depend on any of ``sources``, the sources included."""
    found = set(sources)
    for eqn in graph.eqns:
        if any(operand in found for operand in eqn.operands if isinstance(operand, Value)):
            found.update(eqn.results)
    return found


def rebuild(graph: Graph, step: Callable[[Builder, Eqn, dict[Operand, Operand]], None]) -> Graph:
    """A new graph made by calling ``step`` for each equation; the old one when nothing changed.

    ``step(builder, eqn, env)`` emits what replaces ``eqn`` and records its results in ``env``
    where they are new; ``builder.adopt(eqn)`` keeps an equation whose operands are kept. The new
    graph shares inputs and kept equations with the old one.
    """
    builder = Builder(graph.name)
    builder.inputs = list(graph.inputs)
    env: dict[Operand, Operand] = {}
    for eqn in graph.eqns:
        builder.loc = eqn.loc
        step(builder, eqn, env)
    new = prune(builder.build([env.get(output, output) for output in graph.outputs]))
    return graph if is_same(graph, new) else new


def is_same(left: Graph, right: Graph) -> bool:
    """Whether two graphs are equal up to the identity of their values."""
    if left is right:
        return True
    if len(left.eqns) != len(right.eqns) or left.input_avals != right.input_avals:
        return False
    if all(map(operator.is_, left.eqns, right.eqns)) and left.inputs == right.inputs:
        return left.outputs == right.outputs
    env: dict[Operand, Operand] = dict(zip(left.inputs, right.inputs, strict=True))

    def same(a: Operand, b: Operand) -> bool:
        return env.get(a, a) is b

    for a, b in zip(left.eqns, right.eqns, strict=True):
        if a.op is not b.op or a.params != b.params or len(a.operands) != len(b.operands):
            return False
        if not all(map(same, a.operands, b.operands)):
            return False
        if len(a.regions) != len(b.regions) or not all(map(is_same, a.regions, b.regions)):
            return False
        env.update(zip(a.results, b.results, strict=True))
    if len(left.outputs) != len(right.outputs):
        return False
    return all(map(same, left.outputs, right.outputs))
