"""Transposed convolutions: the overlap-add of a contraction is a contraction over a window."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from math import prod

from diffc.ir.graph import Builder, Eqn, Graph, Operand, Value, literal, rebuild, uses
from diffc.ops.contraction import split
from diffc.optimize.edit import emit_one, keep

Ints = tuple[int, ...]

#: up to so many phases of strides; more pad between elements instead.
MAX_PHASES = 16


@dataclass(frozen=True, slots=True)
class Axis:
    """A windowed axis of an ``overlap_add``, and the part of it that is wanted.

    Attributes:
        number: Of the axis.
        count: Positions of windows.
        size: Extent of a window.
        stride: Distance of windows.
        dilation: Distance of elements within a window.
        start: First element that is wanted.
        stop: Behind the last one.
    """

    number: int
    count: int
    size: int
    stride: int
    dilation: int
    start: int
    stop: int

    @property
    def has_phases(self) -> bool:
        """Whether elements at a distance of the stride see every so many weights only."""
        return self.stride > 1 and self.dilation == 1

    @property
    def steps(self) -> range:
        """Multiples of the stride, down and up to where the wanted part begins and ends."""
        return range(self.start // self.stride, -(-self.stop // self.stride))


@dataclass(frozen=True, slots=True)
class Taps:
    """Which weights of an axis are read how: a stride-1 convolution of the padded positions.

    Attributes:
        low: Zeros before the positions (cut off, if negative).
        high: Zeros behind them.
        interior: Zeros between them.
        dilation: Distance of elements within a window.
        weights: The weights in question.
        length: Elements of the result.
    """

    low: int
    high: int
    interior: int
    dilation: int
    weights: range
    length: int


@dataclass(frozen=True, slots=True)
class Spread:
    """An ``overlap_add`` of a contraction, and the axes with what is wanted of them."""

    add: Eqn
    contract: Eqn
    axes: tuple[Axis, ...]
    is_left: bool


def spread_of_contract(graph: Graph) -> Graph:
    """The overlap-add of a contraction is the contraction of a window of its padded operand.

    Before: ``overlap_add(contract(dz, k))``, an array of all patches. After:
    ``contract(reverse(k), window(pad(dz)))``. With a stride each phase is such a contraction with
    every so many weights, and the phases are interleaved; with a stride and a dilation zeros are
    padded between elements. It serves the gradient of a convolution by its data. Each position
    belongs to one operand, each offset to the other, and nothing else uses the contraction. A slice
    that is all that is used of the sum (the gradient of padding) narrows the padding instead.
    """
    counts = uses(graph)
    users: dict[Value, Eqn] = {}
    for eqn in graph.eqns:
        users.update((x, eqn) for x in eqn.operands if isinstance(x, Value) and counts[x] == 1)
    found: dict[Eqn, Spread] = {}
    for eqn in graph.eqns:
        spread = _spread(eqn, counts) if eqn.op.name == "overlap_add" else None
        if spread is None:
            continue
        user = users.get(eqn.result)
        cut = None if user is None or user.op.name != "slice" else _cut(spread, user)
        if user is not None and cut is not None:
            found[user] = cut
        else:
            found[eqn] = spread
    if not found:
        return graph

    def step(builder: Builder, eqn: Eqn, env: dict[Operand, Operand]) -> None:
        if eqn in found:
            env[eqn.result] = _transposed(builder, env, found[eqn])
        else:
            keep(builder, eqn, env)

    return rebuild(graph, step)


def _spread(add: Eqn, counts: Mapping[Value, int]) -> Spread | None:
    (patches,) = add.operands
    if not isinstance(patches, Value) or patches.eqn is None or counts[patches] != 1:
        return None
    contract, params = patches.eqn, add.params
    dims = [dim for x in (patches, add.result) for dim in x.aval.shape]
    if contract.op.name != "contract" or not all(isinstance(dim, int) and dim for dim in dims):
        return None
    if any(dim == 0 for x in contract.operands for dim in x.aval.shape):
        return None
    axes = tuple(
        Axis(axis, patches.aval.shape[axis], size, stride, dilation, 0, params["shape"][axis])
        for axis, size, stride, dilation in zip(
            *(params[name] for name in ("axes", "sizes", "strides", "dilations")), strict=True
        )
    )
    left, right, result = split(contract.params["spec"])
    places = {result[axis.number] for axis in axes}
    offsets = set(result[len(params["shape"]) :])
    for is_left, (one, other) in enumerate(((left, right), (right, left))):
        if places <= set(one) - set(other) and offsets <= set(other) - set(one):
            return Spread(add, contract, axes, is_left == 1)
    return None


def _cut(spread: Spread, user: Eqn) -> Spread | None:
    """The same, of which a slice of windowed axes alone is used."""
    start, stop, step = (user.params[name] for name in ("start", "stop", "step"))
    numbers = [axis.number for axis in spread.axes]
    for axis, dim in enumerate(spread.add.result.aval.shape):
        is_whole = start[axis] == 0 and stop[axis] == dim
        if step[axis] != 1 or start[axis] >= stop[axis] or not (is_whole or axis in numbers):
            return None
    axes = (replace(a, start=start[a.number], stop=stop[a.number]) for a in spread.axes)
    return replace(spread, axes=tuple(axes))


def _taps(axis: Axis, has_phases: bool) -> Iterator[Taps]:
    """The convolutions along an axis: one, or one for each phase."""
    if not has_phases:
        reach, last = (axis.size - 1) * axis.dilation, (axis.count - 1) * axis.stride
        low, high = reach - axis.start, axis.stop - 1 - last
        weights, length = range(axis.size), axis.stop - axis.start
        yield Taps(low, high, axis.stride - 1, axis.dilation, weights, length)
        return
    for phase in range(axis.stride):
        weights = range(phase, axis.size, axis.stride)
        low, high = len(weights) - 1 - axis.steps.start, axis.steps.stop - axis.count
        yield Taps(low, high, 0, 1, weights, len(axis.steps))


def _transposed(builder: Builder, env: Mapping[Operand, Operand], spread: Spread) -> Operand:
    """The result of the sum, or of the slice of it."""
    strides = prod(axis.stride for axis in spread.axes if axis.has_phases)
    with_phases = strides <= MAX_PHASES
    choices = [tuple(_taps(axis, axis.has_phases and with_phases)) for axis in spread.axes]
    parts: list[Operand] = [_part(builder, env, spread, taps) for taps in product(*choices)]
    for k in reversed(range(len(choices))):
        count = len(choices[k])
        if count > 1:
            groups = [parts[at : at + count] for at in range(0, len(parts), count)]
            parts = [_interleaved(builder, group, spread.axes[k]) for group in groups]
    (found,) = parts
    return found


def _interleaved(builder: Builder, phases: Sequence[Operand], axis: Axis) -> Operand:
    """The phases of an axis in turn, cut to what is wanted of it."""
    shape, at = phases[0].aval.shape, axis.number
    apart = (*shape[: at + 1], 1, *shape[at + 1 :])
    columns = [emit_one(builder, "reshape", phase, shape=apart) for phase in phases]
    joined = emit_one(builder, "concat", *columns, axis=at + 1)
    whole = (*shape[:at], len(axis.steps) * axis.stride, *shape[at + 1 :])
    found = emit_one(builder, "reshape", joined, shape=whole)
    first = axis.start - axis.steps.start * axis.stride
    return _sliced(builder, found, at, range(first, first + axis.stop - axis.start))


def _part(
    builder: Builder, env: Mapping[Operand, Operand], spread: Spread, taps: Sequence[Taps]
) -> Operand:
    """One convolution."""
    params, contract = spread.add.params, spread.contract
    left, right, result = split(contract.params["spec"])
    pixels, kernel = (env.get(x, x) for x in contract.operands)
    if spread.is_left:
        left, right, pixels, kernel = right, left, kernel, pixels
    count = len(params["shape"])
    if not all(tap.weights for tap in taps):
        shape = list(params["shape"])
        for axis, tap in zip(spread.axes, taps, strict=True):
            shape[axis.number] = tap.length
        zero = literal(0, pixels.aval.with_shape(()))
        return emit_one(builder, "broadcast", zero, shape=tuple(shape), axes=())
    offsets = result[count:]
    low, high, interior = ([0] * len(left) for _ in range(3))
    places: list[int] = []
    turned: list[int] = []
    for axis, tap, offset in zip(spread.axes, taps, offsets, strict=True):
        place = left.index(result[axis.number])
        low[place], high[place], interior[place] = max(tap.low, 0), max(tap.high, 0), tap.interior
        places.append(place)
        weight = right.index(offset)
        kernel = _sliced(builder, kernel, weight, tap.weights)
        if len(tap.weights) > 1:
            turned.append(weight)
    widths = {"low": tuple(low), "high": tuple(high), "interior": tuple(interior)}
    if any(map(any, widths.values())):
        zero = literal(0, pixels.aval.with_shape(()))
        pixels = emit_one(builder, "pad", pixels, zero, **widths)
    for place, tap in zip(places, taps, strict=True):
        dim = _extent(pixels, place)
        pixels = _sliced(builder, pixels, place, range(max(-tap.low, 0), dim + min(tap.high, 0)))
    order = sorted(range(len(places)), key=places.__getitem__)
    windows = emit_one(
        builder,
        "window",
        pixels,
        axes=tuple(places[k] for k in order),
        sizes=tuple(len(taps[k].weights) for k in order),
        strides=(1,) * len(places),
        dilations=tuple(taps[k].dilation for k in order),
    )
    if turned:
        kernel = emit_one(builder, "reverse", kernel, axes=tuple(sorted(turned)))
    moved = left + "".join(offsets[k] for k in order)
    return emit_one(builder, "contract", kernel, windows, spec=f"{right},{moved}->{result[:count]}")


def _sliced(builder: Builder, x: Operand, axis: int, where: range) -> Operand:
    """Part of one axis; ``x`` itself where that is all of it."""
    if where == range(_extent(x, axis)):
        return x
    shape = x.aval.shape
    start, stop, step = [0] * len(shape), list(shape), [1] * len(shape)
    start[axis], stop[axis], step[axis] = where.start, where[-1] + 1, where.step
    given = {"start": tuple(start), "stop": tuple(stop), "step": tuple(step)}
    return emit_one(builder, "slice", x, **given)


def _extent(x: Operand, axis: int) -> int:
    dim = x.aval.shape[axis]
    assert isinstance(dim, int), "symbolic dimensions are left alone"
    return dim
