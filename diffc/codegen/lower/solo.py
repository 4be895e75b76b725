"""Kernels of one equation that brings its own loops: scatter, slices, running sums, sorting.

What feeds it is inlined. Its result is written to the output (or to scratch, if something is made
of it before it leaves the kernel) and counts as memory from then on.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod

from diffc.codegen.loops.contraction import accumulator
from diffc.codegen.loops.monoids import OPS
from diffc.codegen.loops.nodes import (
    Buffer,
    Choose,
    Expr,
    For,
    IndexValue,
    Load,
    Monoid,
    Order,
    Par,
    Prefix,
    Reduce,
    Scalar,
    Scatter,
    Sort,
    Stmt,
    Store,
)
from diffc.codegen.lower.elements import Indices, wide
from diffc.codegen.lower.frame import Frame, par, points, shape_of, variables
from diffc.codegen.lower.term import apply, constant
from diffc.ir.graph import Eqn
from diffc.ir.index import TRUE, Dim, Var, eq, ge, lt
from diffc.ops.declare import Special

Body = list[Stmt]

#: what cumulative ops fold with.
MONOIDS: dict[str, Monoid] = {
    "cumsum": "sum",
    "cumprod": "prod",
    "cummax": "max",
    "cummin": "min",
}
#: a cumulative op goes by blocks along rows longer than this, unless so many lie side by side;
FEW = 8
#: where more lie side by side, whole rows are added to the rows before: memory is read in order.
WIDE = 256


def is_solo(eqn: Eqn) -> bool:
    """Whether the equation is lowered here."""
    body = eqn.op.body
    return isinstance(body, Special) and body.kind in _KINDS


def lower_solo(frame: Frame, eqn: Eqn) -> tuple[Stmt, ...]:
    """The equation's loops, then all other outputs."""
    outputs = frame.graph.outputs
    if eqn.result in outputs:
        target = frame.outputs[outputs.index(eqn.result)]
    else:
        target = frame.new_scratch("result", eqn.result.aval.dtype, shape_of(eqn.result))
    body = _KINDS[eqn.op.body.kind](frame, eqn, target)
    frame.elements.memory[eqn.result] = target
    for k, output in enumerate(outputs):
        if frame.outputs[k] is not target:
            at = points("o", shape_of(output))
            body += par(at, [frame.store(k, shape_of(output), at)])
    return tuple(body)


def _copy(frame: Frame, eqn: Eqn, target: Buffer) -> Body:
    """The first operand as the result's content."""
    at = points("i", target.shape)
    return list(par(at, [Store(target, at, frame.elements.element(eqn.operands[0], at))]))


def _scatter(frame: Frame, eqn: Eqn, target: Buffer) -> Body:
    _, updates, *index_operands = eqn.operands
    axes, mode, combine = (eqn.params[name] for name in ("axes", "mode", "combine"))
    status = frame.elements.bounds_status(eqn) if mode == "check" else 0
    count = index_operands[0].aval.ndim
    at = points("u", shape_of(updates))
    where, rest = at[:count], iter(at[count:])
    computed = {
        axis: wide(frame.elements.element(index, where))
        for axis, index in zip(axes, index_operands, strict=True)
    }
    place = tuple(computed[k] if k in computed else next(rest) for k in range(len(target.shape)))
    value = frame.elements.element(updates, at)
    write = Scatter(target, place, value, combine, mode, status)
    inner = tuple(par(at[count:], [write]))
    return [*_copy(frame, eqn, target), *_in_order(where, inner)]


def _in_order(indices: Indices, body: tuple[Stmt, ...]) -> Body:
    """Loops over the indices in row-major order; at least one."""
    for var in reversed(variables(indices) or (Var("once", 1),)):
        body = (For(var, body),)
    return list(body)


def _update_slice(frame: Frame, eqn: Eqn, target: Buffer) -> Body:
    _, update, *starts = eqn.operands
    at = points("u", shape_of(update))
    place: list[Dim | Expr] = []
    for index, start, size, dim in zip(at, starts, shape_of(update), target.shape, strict=True):
        if size == dim:
            place.append(index)
            continue
        first = frame.elements.clamped_start(start, dim - size + 1)
        place.append(first if index == 0 else apply("add", first, IndexValue("i64", index)))
    value = frame.elements.element(update, at)
    body = _copy(frame, eqn, target)
    if all(not isinstance(index, Expr) for index in place):
        return [*par(at, [Store(target, at, value)])]
    loop = variables(at)
    write: Stmt = Scatter(target, tuple(place), value, "set")
    inner = tuple(par(loop[1:], [write]))
    return [*body, *_in_order(loop[:1], inner)]


def _cumulative(frame: Frame, eqn: Eqn, target: Buffer) -> Body:
    axis, reverse = eqn.params["axis"], eqn.params.get("reverse", False)
    (operand,) = eqn.operands
    length, monoid = target.shape[axis], MONOIDS[eqn.op.name]
    if 0 in target.shape:
        return []
    at, dtype = points("i", target.shape), accumulator(target.dtype)
    before, after = at[:axis], at[axis + 1 :]

    def along(number: Dim) -> Indices:
        return (*before, length - 1 - number if reverse else number, *after)

    def value(number: Dim) -> Expr:
        return apply("convert", frame.elements.element(operand, along(number)), dtype=dtype)

    width = prod(target.shape[axis + 1 :])
    if width <= WIDE or dtype != target.dtype:
        step = Var("t", length)
        order: Order = "lanes" if width < FEW < length else "sequence"
        prefix = Prefix(target, along(step), step, monoid, value(step), order)
        return list(par((*before, *after), [prefix]))
    body: Body = [*par(after, [Store(target, along(0), value(0))])]
    if length > 1:
        step = Var("t", length - 1)
        joined = apply(OPS[monoid], Load(target, along(step)), value(step + 1))
        body.append(For(step, tuple(par(after, [Store(target, along(step + 1), joined)]))))
    return list(par(before, body))


def _sort(frame: Frame, eqn: Eqn, target: Buffer) -> Body:
    axis = eqn.params["axis"]
    (operand,) = eqn.operands
    at = list(points("i", target.shape))
    along = Var("t", target.shape[axis])
    at[axis] = along
    rest = (*at[:axis], *at[axis + 1 :])
    body: Body = []
    keys = frame.elements.memory.get(operand)
    if keys is None:
        keys = frame.new_scratch("keys", operand.aval.dtype, target.shape)
        element = frame.elements.element(operand, tuple(at))
        body.append(Par((along,), (Store(keys, tuple(at), element),)))
    body.append(Sort(target, keys, tuple(at), along, eqn.op.name == "argsort"))
    return list(par(rest, body))


def _overlap_add(frame: Frame, eqn: Eqn, target: Buffer) -> Body:
    """Gathers, for each element, from the windows that cover it, in order of the offsets."""
    (operand,) = eqn.operands
    params, shape = eqn.params, shape_of(operand)
    at = points("i", target.shape)
    offsets = points("k", params["sizes"])
    read = list(at)
    guard = TRUE
    for k, axis in enumerate(params["axes"]):
        distance = at[axis] - offsets[k] * params["dilations"][k]
        stride, count = params["strides"][k], shape[axis]
        guard &= ge(distance, 0) & lt(distance, (count - 1) * stride + 1)
        if stride > 1:
            guard &= eq(distance % stride, 0)
        read[axis] = distance // stride
    element = frame.elements.element(operand, (*read, *offsets))
    if guard.is_false:
        element = constant(target.dtype, 0)
    elif not guard.is_true:
        element = Choose(guard, element, constant(target.dtype, 0))
    loop = variables(offsets)
    if not loop:
        return list(par(at, [Store(target, at, element)]))
    total = Scalar(frame.new_scalar(), accumulator(target.dtype))
    element = apply("convert", element, dtype=total.dtype)
    reduce = Reduce(total, "sum", loop, element, "sequence")
    return list(par(at, [reduce, Store(target, at, apply("convert", total, dtype=target.dtype))]))


_KINDS: dict[str, Callable[[Frame, Eqn, Buffer], Body]] = {
    "scatter": _scatter,
    "dynamic_update_slice": _update_slice,
    "cumulative": _cumulative,
    "sort": _sort,
    "overlap_add": _overlap_add,
}
