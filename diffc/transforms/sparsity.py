"""Which elements of results depend on which elements of inputs: the structure of a Jacobian.

Read from the graph alone, for all values at once, but those of integers that depend on no active
input (indices). A dependence is a pair (element, source), elements numbered in row-major order.
What ops do to elements comes from their own facets: movement and indexing are run on the numbers of
the elements. A store counts as one row, which depends on all that any of its rows depends on. Where
the structure is unknown, all depends on all: the answer is never too small.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from diffc.ir.aval import GROWING
from diffc.ir.graph import Eqn, Graph, Literal, Operand, Value
from diffc.ops.declare import Fold, Routes, Zero
from diffc.ops.interpret import results_of
from diffc.ops.registry import find

Array = np.ndarray[Any, Any]

#: values of more elements are not computed in order to know indices
_LARGEST = 1 << 22


@dataclass(frozen=True, slots=True)
class Pattern:
    """Pairs of an element and a source that it may depend on; sorted, each once.

    Attributes:
        elements: row-major positions in the result.
        sources: row-major positions among the inputs.
        size: how many elements there are.
    """

    elements: Array
    sources: Array
    size: int

    @property
    def is_empty(self) -> bool:
        """Whether nothing depends on anything."""
        return len(self.elements) == 0


def _pattern(elements: Array, sources: Array, size: int) -> Pattern:
    if len(elements):
        order = np.lexsort((sources, elements))
        elements, sources = elements[order], sources[order]
        new = np.ones(len(elements), bool)
        new[1:] = (elements[1:] != elements[:-1]) | (sources[1:] != sources[:-1])
        elements, sources = elements[new], sources[new]
    return Pattern(elements, sources, size)


def empty(size: int) -> Pattern:
    """Nothing depends on anything."""
    none = np.zeros(0, np.int64)
    return Pattern(none, none, size)


def identity(size: int, first: int = 0) -> Pattern:
    """Each element is a source."""
    places = np.arange(size)
    return Pattern(places, places + first, size)


def union(patterns: Sequence[Pattern]) -> Pattern:
    """What any of the patterns has, of values of one size."""
    kept = [pattern for pattern in patterns if not pattern.is_empty]
    if len(kept) < 2:
        return kept[0] if kept else patterns[0]
    return _pattern(
        np.concatenate([p.elements for p in kept]),
        np.concatenate([p.sources for p in kept]),
        patterns[0].size,
    )


def mirrored(pattern: Pattern) -> Pattern:
    """Of a square matrix, its transpose."""
    return _pattern(pattern.sources, pattern.elements, pattern.size)


def picked(pattern: Pattern, places: Array) -> Pattern:
    """The pattern of ``y[i] = x[places[i]]``; a place of -1 is nothing."""
    flat = places.reshape(-1)
    counts = np.bincount(pattern.elements, minlength=pattern.size + 1)
    counts[pattern.size] = 0
    starts = np.concatenate([[0], np.cumsum(counts[:-1])])
    of = np.where(flat < 0, pattern.size, flat)
    lengths = counts[of]
    total = int(lengths.sum())
    firsts = np.repeat(starts[of] - np.concatenate([[0], np.cumsum(lengths)[:-1]]), lengths)
    return _pattern(
        np.repeat(np.arange(len(flat)), lengths),
        pattern.sources[firsts + np.arange(total)] if total else np.zeros(0, np.int64),
        len(flat),
    )


def added_up(pattern: Pattern, places: Array, size: int) -> Pattern:
    """The pattern of ``y[places[i]] += x[i]``; a place of -1 is nowhere."""
    targets = places.reshape(-1)[pattern.elements]
    kept = targets >= 0
    return _pattern(targets[kept], pattern.sources[kept], size)


def everything(patterns: Sequence[Pattern], size: int) -> Pattern:
    """All elements depend on all that the patterns mention."""
    sources = np.unique(np.concatenate([p.sources for p in patterns]))
    return Pattern(np.repeat(np.arange(size), len(sources)), np.tile(sources, size), size)


# --- graphs -----------------------------------------------------------------------------------


def jacobian_pattern(
    graph: Graph, active: Sequence[bool], known: Mapping[int, Array] | None = None
) -> list[Pattern]:
    """The patterns of a graph's outputs in terms of the elements of its active inputs.

    Args:
        graph: its dimensions are ints.
        active: which inputs are sources, numbered one after another.
        known: values of inputs that are no sources, by position; indices may come from them.
    """
    patterns, first = [], 0
    for value, is_on in zip(graph.inputs, active, strict=True):
        size = _size(value)
        patterns.append(identity(size, first) if is_on else empty(size))
        first += size if is_on else 0
    return _outputs(graph, patterns, known or {})


def _size(operand: Operand) -> int:
    dims = [dim for dim in operand.aval.shape if dim is not GROWING]
    assert all(isinstance(dim, int) for dim in dims), "traces have integer dimensions"
    return math.prod(dims)  # type: ignore[arg-type]  # ints, as asserted


def _shape(operand: Operand) -> tuple[int, ...]:
    return tuple(int(dim) for dim in operand.aval.shape)  # type: ignore[arg-type]  # ints here


def _numbers(operand: Operand, first: int = 0) -> Array:
    return np.arange(first, first + _size(operand)).reshape(_shape(operand))


class _Values:
    """Patterns of values, and the values that depend on no source, computed where asked for."""

    def __init__(self, graph: Graph, known: Mapping[int, Array]) -> None:
        self.patterns: dict[Operand, Pattern] = {}
        self._known: dict[Operand, Array] = {graph.inputs[i]: a for i, a in known.items()}

    def pattern(self, operand: Operand) -> Pattern:
        found = self.patterns.get(operand)
        return empty(_size(operand)) if found is None else found

    def value(self, operand: Operand) -> Array | None:
        """What an operand is; None if that depends on a source or is too large."""
        if operand.aval.is_store:
            return None
        if isinstance(operand, Literal):
            return np.full(_shape(operand), operand.value, operand.aval.numpy)
        stack: list[Value] = [operand]
        while stack:
            value = stack[-1]
            eqn = value.eqn
            if value in self._known:
                stack.pop()
                continue
            if eqn is None or eqn.regions or _size(value) > _LARGEST:
                return None
            operands = [x for x in eqn.operands if isinstance(x, Value)]
            missing = [x for x in operands if x not in self._known]
            if missing:
                stack += missing
                continue
            arrays = [
                self._known[x]
                if isinstance(x, Value)
                else np.full(_shape(x), x.value, x.aval.numpy)
                for x in eqn.operands
            ]
            with np.errstate(all="ignore"):
                for result, array in zip(eqn.results, results_of(eqn, arrays), strict=True):
                    self._known[result] = np.asarray(array)
        return self._known[operand]


def _outputs(graph: Graph, inputs: Sequence[Pattern], known: Mapping[int, Array]) -> list[Pattern]:
    values = _Values(graph, known)
    values.patterns.update(zip(graph.inputs, inputs, strict=True))
    for eqn in graph.eqns:
        given = [values.pattern(x) for x in eqn.operands]
        if all(pattern.is_empty for pattern in given):
            continue
        found = _results(eqn, given, values)
        for result, pattern in zip(eqn.results, found, strict=True):
            if result.aval.is_float:
                values.patterns[result] = pattern
    return [values.pattern(output) for output in graph.outputs]


Rule = Callable[[Eqn, Sequence[Pattern], _Values], "Sequence[Pattern] | None"]


def _results(eqn: Eqn, given: Sequence[Pattern], values: _Values) -> Sequence[Pattern]:
    fact = eqn.op.fact(eqn.params)
    sizes = [_size(result) for result in eqn.results]
    if isinstance(fact, Zero):
        return [empty(size) for size in sizes]
    if eqn.op.is_elementwise:
        return [_elementwise(eqn, given)]
    if eqn.op.is_movement:
        rule: Rule | None = _first_moves(len(given))
    elif isinstance(eqn.op.body, Fold):
        return [_folded(eqn.operands[0], eqn.params["axes"], given[0])]
    else:
        rule = _RULES.get(eqn.op.name)
    found = None if rule is None else rule(eqn, given, values)
    if found is not None:
        return found
    return [everything(given, size) for size in sizes]


def _elementwise(eqn: Eqn, given: Sequence[Pattern]) -> Pattern:
    """Conditions and indices have no derivative, even where they are floats."""
    floats = [p for p, x in zip(given, eqn.operands, strict=True) if x.aval.is_float]
    assert floats or isinstance(eqn.op.fact(eqn.params), Routes)
    return union(floats)


def _moved(
    eqn: Eqn, given: Sequence[Pattern], moving: Sequence[int], values: _Values
) -> Pattern | None:
    """Runs the op on the numbers of its elements; None if an index is not known."""
    arrays, parts, first = [], [], 1  # 0 is what the op fills in itself
    for i, operand in enumerate(eqn.operands):
        if i in moving:
            arrays.append(_numbers(operand, first))
            parts.append(Pattern(given[i].elements + first - 1, given[i].sources, 0))
            first += _size(operand)
        else:
            value = values.value(operand)
            if value is None:
                return None
            arrays.append(value)
    assert callable(eqn.op.numpy)
    places = np.asarray(eqn.op.numpy(*arrays, **eqn.params)) - 1
    joined = Pattern(
        np.concatenate([p.elements for p in parts]),
        np.concatenate([p.sources for p in parts]),
        first - 1,
    )
    return picked(joined, places)


def _folded(operand: Operand, axes: Sequence[int], pattern: Pattern) -> Pattern:
    shape = _shape(operand)
    kept = [1 if i in axes else dim for i, dim in enumerate(shape)]
    size = int(np.prod(kept))
    places = np.broadcast_to(np.arange(size).reshape(kept), shape)
    return added_up(pattern, places, size)


# --- by name; None where nothing is known -----------------------------------------------------


def _along_axis(eqn: Eqn, given: Sequence[Pattern], values: _Values) -> list[Pattern]:
    """Cumulative sums, sorting: all along the axis depend on one another."""
    operand, axis = eqn.operands[0], eqn.params["axis"]
    shape = _shape(operand)
    folded = _folded(operand, (axis,), given[0])
    kept = [1 if i == axis else dim for i, dim in enumerate(shape)]
    places = np.broadcast_to(np.arange(folded.size).reshape(kept), shape)
    return [picked(folded, places)]


def _contracted(eqn: Eqn, given: Sequence[Pattern], values: _Values) -> list[Pattern]:
    letters, _, result = eqn.params["spec"].partition("->")
    shape = _shape(eqn.result)
    parts = []
    for operand, own, pattern in zip(eqn.operands, letters.split(","), given, strict=True):
        axes = tuple(i for i, letter in enumerate(own) if letter not in result)
        folded = _folded(operand, axes, pattern)
        kept = [letter for letter in own if letter in result]
        dims = [dim for dim, letter in zip(_shape(operand), own, strict=True) if letter in result]
        order = sorted(range(len(kept)), key=lambda i, kept=kept: result.index(kept[i]))  # type: ignore[misc]  # kept is bound
        numbers = np.arange(folded.size).reshape(dims).transpose(order)
        wide = [dim if c in kept else 1 for c, dim in zip(result, shape, strict=True)]
        parts.append(picked(folded, np.broadcast_to(numbers.reshape(wide), shape)))
    return [union(parts)]


def _first_moves(count: int) -> Rule:
    def rule(eqn: Eqn, given: Sequence[Pattern], values: _Values) -> list[Pattern] | None:
        found = _moved(eqn, given, range(count), values)
        return None if found is None else [found]

    return rule


def _scattered(eqn: Eqn, given: Sequence[Pattern], values: _Values) -> list[Pattern] | None:
    if eqn.params["combine"] == "set":
        found = _moved(eqn, given, (0, 1), values)
        return None if found is None else [found]
    x, _, *indices = eqn.operands
    known = [values.value(index) for index in indices]
    if any(value is None for value in known):
        return None
    gather = find("gather").numpy
    assert callable(gather)
    places = gather(_numbers(x, 1), *known, axes=eqn.params["axes"], mode="fill") - 1
    return [union([given[0], added_up(given[1], np.asarray(places), _size(x))])]


def _overlapped(eqn: Eqn, given: Sequence[Pattern], values: _Values) -> list[Pattern]:
    params = {name: eqn.params[name] for name in ("axes", "sizes", "strides", "dilations")}
    window = find("window").numpy
    assert callable(window)
    places = np.asarray(window(_numbers(eqn.result), **params))
    return [added_up(given[0], places, _size(eqn.result))]


def _called(eqn: Eqn, given: Sequence[Pattern], values: _Values) -> list[Pattern]:
    known = {i: v for i, x in enumerate(eqn.operands) if (v := _integers(x, values)) is not None}
    return _outputs(eqn.regions[0], given, known)


def _integers(operand: Operand, values: _Values) -> Array | None:
    return None if operand.aval.is_float else values.value(operand)


def _chosen(eqn: Eqn, given: Sequence[Pattern], values: _Values) -> list[Pattern]:
    rest = eqn.operands[1:]
    known = {i: v for i, x in enumerate(rest) if (v := _integers(x, values)) is not None}
    branches = [_outputs(region, given[1:], known) for region in eqn.regions]
    return [union(column) for column in zip(*branches, strict=True)]


def _scanned(eqn: Eqn, given: Sequence[Pattern], values: _Values) -> list[Pattern]:
    """Step by step, where their number is known."""
    (body,) = eqn.regions
    first, count = eqn.params["consts"], eqn.params["carry"]
    if eqn.params["length"] is GROWING:
        slices = given[first + count :]
        return _settled(body, given[:first], given[first : first + count], slices)
    steps = range(int(eqn.params["length"]))
    fixed = {
        i: v for i, x in enumerate(eqn.operands[:first]) if (v := _integers(x, values)) is not None
    }
    rows = {
        i: v
        for i, x in enumerate(eqn.operands)
        if i >= first + count and (v := _integers(x, values)) is not None
    }
    carry = list(given[first : first + count])
    stacks: list[list[tuple[int, Pattern]]] = [[] for _ in body.outputs[count:]]
    for step in reversed(steps) if eqn.params["reverse"] else steps:
        slices = []
        for operand, pattern in zip(
            eqn.operands[first + count :], given[first + count :], strict=True
        ):
            size = _size(operand) // max(len(steps), 1)
            slices.append(picked(pattern, np.arange(step * size, (step + 1) * size)))
        known = fixed | {i: v[step] for i, v in rows.items()}
        found = _outputs(body, [*given[:first], *carry, *slices], known)
        carry = found[:count]
        for stack, pattern in zip(stacks, found[count:], strict=True):
            stack.append((step, pattern))
    stacked = []
    for stack, result in zip(stacks, eqn.results[count:], strict=True):
        parts = [(p.elements + step * p.size, p.sources) for step, p in stack]
        if not parts:
            stacked.append(empty(_size(result)))
            continue
        elements, sources = (np.concatenate(column) for column in zip(*parts, strict=True))
        stacked.append(_pattern(elements, sources, _size(result)))
    return [*carry, *stacked]


def _repeated(eqn: Eqn, given: Sequence[Pattern], values: _Values) -> list[Pattern]:
    tests, consts = eqn.params["tests"], eqn.params["consts"]
    return _settled(eqn.regions[1], given[tests : tests + consts], given[tests + consts :], ())


def _settled(
    body: Graph, fixed: Sequence[Pattern], carry: Sequence[Pattern], slices: Sequence[Pattern]
) -> list[Pattern]:
    """A loop's results: until the carries depend on no more than before."""
    count = len(carry)
    while True:
        found = _outputs(body, [*fixed, *carry, *slices], {})
        grown = [union([a, b]) for a, b in zip(carry, found[:count], strict=True)]
        if all(len(a.elements) == len(b.elements) for a, b in zip(carry, grown, strict=True)):
            return [*grown, *found[count:]]
        carry = grown


_RULES: dict[str, Rule] = {
    **dict.fromkeys(("cumsum", "cumprod", "cummax", "cummin"), _along_axis),
    "sort": _along_axis,
    "contract": _contracted,
    "gather": _first_moves(1),
    "dynamic_slice": _first_moves(1),
    "dynamic_update_slice": _first_moves(2),
    "scatter": _scattered,
    "overlap_add": _overlapped,
    "call": _called,
    "checkpoint": _called,
    "cond": _chosen,
    "scan": _scanned,
    "while": _repeated,
}
