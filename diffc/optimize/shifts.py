"""Sums of products of shifted slices: convolutions as one writes them with NumPy alone."""

from __future__ import annotations

import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import prod
from typing import Any

from diffc.ir.aval import NUMBERS
from diffc.ir.graph import Builder, Eqn, Graph, Literal, Operand, Value, rebuild, uses
from diffc.ir.index import TRUE, Dim, Var, free, linear_in
from diffc.ops.contraction import split
from diffc.ops.declare import Move
from diffc.optimize.edit import emit_one, keep

Ints = tuple[int, ...]
Form = tuple[tuple[tuple[Var, int], ...], ...]
"""For each axis, the variables along which an operand moves, with their strides."""


@dataclass(frozen=True, slots=True)
class Side:
    """How one operand of a product is read: ``root`` at strides by variables, plus constants."""

    root: Operand
    form: Form
    start: Ints


@dataclass(frozen=True, slots=True)
class Term:
    """A product, summed over ``summed``, at the points of a result."""

    left: Side
    right: Side
    summed: tuple[Var, ...]

    @property
    def key(self) -> tuple[Any, ...]:
        """Equal for terms that differ in their constants only."""
        return self.left.root, self.left.form, self.right.root, self.right.form, self.summed


@dataclass(frozen=True, slots=True)
class Shift:
    """An axis of the weights and the axis of the data along which terms are shifted with it."""

    weight: int
    data: int
    size: int
    first: int
    step: int
    dilation: int


def sum_of_shifts(graph: Graph) -> Graph:
    """A sum of products of shifted slices is one contraction over a window.

    Before: ``sum(xp[i:i+h, j:j+w] @ k[i, j] for i in range(3) for j in range(3))``, nine
    contractions and eight sums. After: ``contract(k, window(xp))``. The slices have one shape and
    are of one array; so have and are the weights; the offsets into both make a full grid, at even
    distances. Other terms of the sum stay as they are. Products that are used elsewhere too are
    left alone, and so are sums along which neither operand moves alone: they stay elementwise.
    """
    counts = uses(graph)
    replaced: dict[Eqn, list[Operand | tuple[Term, list[Term]]]] = {}
    inner: set[Value] = set()
    for eqn in reversed(graph.eqns):
        if eqn.op.name != "add" or eqn.result in inner or eqn.result.aval.dtype not in NUMBERS:
            continue
        leaves = _leaves(eqn, counts, inner)
        parts = _grouped(leaves, counts)
        if any(isinstance(part, tuple) for part in parts):
            replaced[eqn] = parts
    if not replaced:
        return graph

    def step(builder: Builder, eqn: Eqn, env: dict[Operand, Operand]) -> None:
        if eqn not in replaced:
            keep(builder, eqn, env)
            return
        total: Operand | None = None
        for part in replaced[eqn]:
            if isinstance(part, tuple):
                one = _convolution(builder, env, part[1], eqn.result)
            else:
                one = env.get(part, part)
            total = one if total is None else emit_one(builder, "add", total, one)
        assert total is not None
        env[eqn.result] = total

    return rebuild(graph, step)


def _leaves(root: Eqn, counts: Mapping[Value, int], inner: set[Value]) -> list[Operand]:
    """The terms of a sum, in order; its inner sums are used nowhere else."""
    found: list[Operand] = []
    stack: list[Operand] = list(reversed(root.operands))
    while stack:
        operand = stack.pop()
        eqn = operand.eqn if isinstance(operand, Value) else None
        if eqn is not None and eqn.op.name == "add" and counts[eqn.result] == 1:
            inner.add(eqn.result)
            stack += reversed(eqn.operands)
        else:
            found.append(operand)
    return found


def _grouped(
    leaves: Sequence[Operand], counts: Mapping[Value, int]
) -> list[Operand | tuple[Term, list[Term]]]:
    """The leaves, with those that are one convolution in one place."""
    candidates = {leaf for leaf in leaves if _is_product_of_views(leaf, counts)}
    if len(candidates) < 2:
        return list(leaves)
    terms: dict[Operand, Term] = {}
    groups: dict[tuple[Any, ...], list[Term]] = {}
    for leaf in leaves:
        term = _term(leaf) if leaf in candidates else None
        if term is not None:
            terms[leaf] = term
            groups.setdefault(term.key, []).append(term)
    good = {key for key, group in groups.items() if _shifts(group) is not None}
    parts: list[Operand | tuple[Term, list[Term]]] = []
    for leaf in leaves:
        known = terms.get(leaf)
        if known is None or known.key not in good:
            parts.append(leaf)
        elif known is groups[known.key][0]:
            parts.append((known, groups[known.key]))
    if good:  # sum() starts at 0
        parts = [part for part in parts if not (isinstance(part, Literal) and part.value == 0)]
    return parts


def _is_product_of_views(leaf: Operand, counts: Mapping[Value, int]) -> bool:
    """Whether a leaf is the product of two views and nothing else uses it."""
    if not isinstance(leaf, Value) or leaf.eqn is None or counts[leaf] != 1:
        return False
    if leaf.eqn.op.name not in ("contract", "mul"):
        return False
    made = [x.eqn if isinstance(x, Value) else None for x in leaf.eqn.operands]
    return all(eqn is not None and isinstance(eqn.op.body, Move) for eqn in made)


def _term(value: Operand) -> Term | None:
    """The product that a value is, None where an operand is not read at even distances."""
    eqn = value.eqn if isinstance(value, Value) else None
    assert eqn is not None, "a product is made by an equation"
    dims = value.aval.shape
    if not all(isinstance(dim, int) for x in (value, *eqn.operands) for dim in x.aval.shape):
        return None
    at = tuple(_index(f"i{axis}", dim) for axis, dim in enumerate(dims))
    x, y = eqn.operands
    if eqn.op.name == "mul":
        sides = _side(x, at), _side(y, at)
        summed: tuple[Var, ...] = ()
    else:
        left, right, result = split(eqn.params["spec"])
        index = dict(zip(result, at, strict=True))
        for letter, dim in zip(left, x.aval.shape, strict=True):
            if letter not in index:
                index[letter] = _index(f"k{len(index)}", dim)
        summed = tuple(v for c in left if c not in result and isinstance(v := index[c], Var))
        sides = (
            _side(x, tuple(index[letter] for letter in left)),
            _side(y, tuple(index[letter] for letter in right)),
        )
    if sides[0] is None or sides[1] is None:
        return None
    return Term(sides[0], sides[1], summed)


def _index(name: str, dim: Dim) -> Dim:
    return 0 if dim == 1 else Var(name, dim)


def _side(operand: Operand, indices: tuple[Dim, ...]) -> Side | None:
    """What is read at the indices, through views; each axis moves along one variable at most."""
    form, start = _linear(indices)
    while isinstance(operand, Value) and operand.eqn is not None:
        eqn = operand.eqn
        if not isinstance(eqn.op.body, Move) or len(eqn.operands) != 1:
            break
        avals = tuple(x.aval for x in eqn.operands)
        ((_, read, guard),) = eqn.op.body.access(indices, avals, eqn.params)
        shape = avals[0].shape
        read = tuple(0 if dim == 1 else i for i, dim in zip(read, shape, strict=True))
        try:
            deeper = _linear(read)
        except ValueError:
            break
        if guard is not TRUE:
            break
        operand, indices = eqn.operands[0], read
        form, start = deeper
    variables = [var for axis in form for var, _ in axis]
    is_plain = len(set(variables)) == len(variables) and all(len(axis) < 2 for axis in form)
    if not is_plain or any(stride < 1 for axis in form for _, stride in axis):
        return None
    return Side(operand, form, start)


def _linear(indices: Sequence[Dim]) -> tuple[Form, Ints]:
    """Strides and constants of the indices.

    Raises:
        ValueError: an index is not linear.
    """
    form: list[tuple[tuple[Var, int], ...]] = []
    start: list[int] = []
    for index in indices:
        names = () if isinstance(index, int) else tuple(_variables(index))
        parts = linear_in(index, names)
        if parts is None or not isinstance(parts[1], int):
            raise ValueError(f"{index} is not linear")
        strides = [(var, parts[0][var]) for var in names]
        if not all(isinstance(stride, int) for _, stride in strides):
            raise ValueError(f"{index} has a stride that is no integer")
        form.append(tuple(strides))  # type: ignore[arg-type]  # integers, as just checked
        start.append(parts[1])
    return tuple(form), tuple(start)


def _variables(index: Any) -> list[Var]:
    return sorted((x for x in free(index) if isinstance(x, Var)), key=lambda var: var.key)


def _shifts(group: Sequence[Term]) -> tuple[bool, tuple[Shift, ...]] | None:
    """Whether the weights are on the left, and the shifts, if the terms make a full grid."""
    if len(group) < 2:
        return None
    for is_left in (False, True):
        weights = [term.left if is_left else term.right for term in group]
        data = [term.right if is_left else term.left for term in group]
        found = _grid([side.start for side in weights], [side.start for side in data])
        if found is None or any(weights[0].form[shift.weight] for shift in found):
            continue
        if _is_worth_it(group[0], weights[0], data[0]):
            return is_left, found
    return None


def _grid(weights: Sequence[Ints], data: Sequence[Ints]) -> tuple[Shift, ...] | None:
    """The shifts by which the constants of terms differ."""

    def varying(starts: Sequence[Ints]) -> list[int]:
        return [axis for axis in range(len(starts[0])) if len({s[axis] for s in starts}) > 1]

    axes, others = varying(weights), varying(data)
    if len(axes) != len(others) or len(set(weights)) != len(weights):
        return None
    found: list[Shift] = []
    for axis in axes:
        values = sorted({start[axis] for start in weights})
        steps = {b - a for a, b in pairwise(values)}
        if len(steps) != 1:
            return None
        step = steps.pop()
        for other in others:
            moved = {start[axis]: at[other] for start, at in zip(weights, data, strict=True)}
            dilation, rest = moved[values[1]] - moved[values[0]], moved[values[0]]
            if dilation < 1 or any(shift.data == other for shift in found):
                continue
            if all(
                at[other] == rest + (start[axis] - values[0]) // step * dilation
                for start, at in zip(weights, data, strict=True)
            ):
                found.append(Shift(axis, other, len(values), values[0], step, dilation))
                break
        else:
            return None
    if prod(shift.size for shift in found) != len(weights):
        return None
    return tuple(sorted(found, key=lambda shift: shift.data))


def _is_worth_it(term: Term, weights: Side, data: Side) -> bool:
    """Whether each operand moves along something alone, and no variable is summed alone."""
    along_weights = {var for axis in weights.form for var, _ in axis}
    along_data = {var for axis in data.form for var, _ in axis}
    if not all(var in along_weights and var in along_data for var in term.summed):
        return False
    return bool(along_weights - along_data) and bool(along_data - along_weights)


def _convolution(
    builder: Builder, env: Mapping[Operand, Operand], group: Sequence[Term], like: Value
) -> Operand:
    """The contraction of a window of the data with the weights."""
    shifts_found = _shifts(group)
    assert shifts_found is not None, "grouped terms make a grid"
    is_left, shifts = shifts_found
    first = group[0]
    weights, data = (first.left, first.right) if is_left else (first.right, first.left)
    base = tuple(
        min(column)
        for column in zip(
            *((term.right if is_left else term.left).start for term in group), strict=True
        )
    )
    names = iter(string.ascii_letters)
    letters: dict[Var | Shift, str] = {}

    def letter(what: Var | Shift) -> str:
        if what not in letters:
            letters[what] = next(names)
        return letters[what]

    by_weight = {shift.weight: shift for shift in shifts}
    start, stop, step, shape, left = [], [], [], [], ""
    for axis, moves in enumerate(weights.form):
        at = weights.start[axis]
        size, stride = 1, 1
        if axis in by_weight:
            shift = by_weight[axis]
            at, size, stride = shift.first, shift.size, shift.step
            left += letter(shift)
        elif moves:
            var, stride = moves[0]
            size = _extent(var)
            left += letter(var)
        if axis in by_weight or moves:
            shape.append(size)
        start.append(at)
        stop.append(at + (size - 1) * stride + 1)
        step.append(stride)
    kernel = _part(builder, env.get(weights.root, weights.root), start, stop, step, shape)

    by_data = {shift.data: shift for shift in shifts}
    start, stop, step, shape, right = [], [], [], [], ""
    axes, sizes, strides, dilations = [], [], [], []
    dropped: list[int] = []
    for axis, moves in enumerate(data.form):
        stride = moves[0][1] if moves else 1
        size = _extent(moves[0][0]) if moves else 1
        span = (size - 1) * stride + 1
        if axis in by_data:
            shift = by_data[axis]
            span += (shift.size - 1) * shift.dilation
            axes.append(len(shape))
            sizes.append(shift.size)
            strides.append(stride)
            dilations.append(shift.dilation)
        if moves:
            right += letter(moves[0][0])
        elif axis in by_data:
            dropped.append(len(shape))
        if moves or axis in by_data:
            shape.append(span if axis in by_data else size)
        start.append(base[axis])
        stop.append(base[axis] + span)
        step.append(1 if axis in by_data else stride)
    pixels = _part(builder, env.get(data.root, data.root), start, stop, step, shape)
    pixels = emit_one(
        builder,
        "window",
        pixels,
        axes=tuple(axes),
        sizes=tuple(sizes),
        strides=tuple(strides),
        dilations=tuple(dilations),
    )
    right += "".join(letter(shift) for shift in shifts)
    if dropped:
        kept = tuple(d for axis, d in enumerate(pixels.aval.shape) if axis not in dropped)
        pixels = emit_one(builder, "reshape", pixels, shape=kept)
    moved = (_index(f"i{axis}", dim) for axis, dim in enumerate(like.aval.shape))
    result = "".join(letters[var] for var in moved if isinstance(var, Var))
    found = emit_one(builder, "contract", kernel, pixels, spec=f"{left},{right}->{result}")
    if found.aval.shape == like.aval.shape:
        return found
    return emit_one(builder, "reshape", found, shape=like.aval.shape)


def _part(
    builder: Builder,
    root: Operand,
    start: Sequence[int],
    stop: Sequence[int],
    step: Sequence[int],
    shape: Sequence[int],
) -> Operand:
    """A slice without its axes of one element; the operand itself where that is all of it."""
    if tuple(stop) != root.aval.shape or any(start) or any(n != 1 for n in step):
        given = {"start": tuple(start), "stop": tuple(stop), "step": tuple(step)}
        root = emit_one(builder, "slice", root, **given)
    if tuple(shape) != root.aval.shape:
        root = emit_one(builder, "reshape", root, shape=tuple(shape))
    return root


def _extent(var: Var) -> int:
    assert isinstance(var.extent, int)
    return var.extent
