"""Kernels in which every point computes by itself: maps, rows with reductions, contractions.

One nest ``Par(kept) { statements; stores }``. The reductions of *rows* share a domain and its
reduced axes: what they and the full-shape outputs ask for is done in as few passes over a row as
there are reductions that wait for each other (``passes``). A *contraction* is one ``Contract`` at
each point of its result; what follows is stored from there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal as Choice

from diffc.codegen.loops.nodes import (
    Contract,
    Expr,
    Load,
    Monoid,
    Reduce,
    Scalar,
    Stmt,
)
from diffc.codegen.lower.elements import Indices
from diffc.codegen.lower.frame import (
    Frame,
    Shape,
    par,
    points,
    reindex,
    shape_of,
    size_of,
    variables,
)
from diffc.codegen.lower.passes import join, passes, write_pass
from diffc.codegen.lower.term import apply, constant
from diffc.errors import InternalError
from diffc.ir.graph import Eqn, Operand
from diffc.ir.index import Dim, Var, coefficient, ravel
from diffc.ops.contraction import letters, split
from diffc.ops.declare import Fold, Special

#: reductions whose result is a position.
POSITIONS: frozenset[Monoid] = frozenset({"argmax", "argmin"})


def is_contraction(eqn: Eqn) -> bool:
    """Whether the equation is a contraction that sums something (else it is a product)."""
    body = eqn.op.body
    if not isinstance(body, Special) or body.kind != "contract":
        return False
    return bool(letters(eqn.params["spec"])[3])


def is_fold(eqn: Eqn) -> bool:
    """Whether the equation reduces axes."""
    return isinstance(eqn.op.body, Fold)


def reduced_axes(eqn: Eqn) -> tuple[int, ...]:
    """The axes that a reduction removes."""
    axes = eqn.params.get("axes")
    return (eqn.params["axis"],) if axes is None else tuple(axes)


def order_of(eqn: Eqn) -> Choice["lanes", "sequence"]:
    """The order of a reduction, a function of the equation alone: along rows by lanes."""
    shape = shape_of(eqn.operands[0])
    long = [axis for axis, n in enumerate(shape) if n != 1]
    return "lanes" if not long or long[-1] in reduced_axes(eqn) else "sequence"


def lower_map(frame: Frame) -> tuple[Stmt, ...]:
    """All points of the first output's shape."""
    shape = shape_of(frame.graph.outputs[0])
    at = points("i", shape)
    stores = [frame.store(k, shape, at) for k in range(len(frame.outputs))]
    return tuple(par(at, stores))


def lower_contract(frame: Frame, eqn: Eqn) -> tuple[Stmt, ...]:
    """The points of the result; the outputs are the result or elementwise in it."""
    shape = shape_of(eqn.result)
    at = points("i", shape)
    left, right, result = split(eqn.params["spec"])
    extents = dict(zip(left, shape_of(eqn.operands[0]), strict=True))
    index = dict(zip(result, at, strict=True))
    summed = [letter for letter in left if letter not in result]
    for k, letter in enumerate(summed):
        index[letter] = Var(f"k{k}", extents[letter]) if extents[letter] != 1 else 0
    lhs, rhs = (
        frame.elements.element(operand, tuple(index[letter] for letter in group))
        for operand, group in zip(eqn.operands, (left, right), strict=True)
    )
    body: list[Stmt] = []
    loop = variables(index[letter] for letter in summed)
    if loop and runs_along_batch(eqn, at, lhs, rhs):
        target = _sum_of_products(frame, eqn, loop, lhs, rhs, body)
        frame.elements.define(eqn.result, at, target)
    elif loop:
        target = Scalar(frame.new_scalar(), eqn.result.aval.dtype)
        body.append(Contract(target, loop, lhs, rhs))
        frame.elements.define(eqn.result, at, target)
    else:
        frame.elements.define(eqn.result, at, apply("mul", lhs, rhs))
    body += [frame.store(k, shape, at) for k in range(len(frame.outputs))]
    return tuple(par(at, body))


def runs_along_batch(eqn: Eqn, at: Indices, lhs: Expr, rhs: Expr) -> bool:
    """Whether the last axis is a batch with unit stride, and one operand is reused along no axis.

    The channels of a depthwise convolution: no tile has a row and a column, so each vector of the
    last axis adds up its own products.
    """
    left, right, result = split(eqn.params["spec"])
    long = [c for c, var in zip(result, at, strict=True) if not isinstance(var, int)]
    vars = variables(at)
    if not long or any(_stride(expr, vars[-1]) != 1 for expr in (lhs, rhs)):
        return False
    return all(c in right for c in long if c in left) or all(c in left for c in long if c in right)


def _stride(expr: Expr, var: Var) -> Dim | None:
    """Elements by which a load moves with a variable."""
    if not isinstance(expr, Load):
        return None
    return coefficient(ravel(expr.indices, expr.buffer.shape), var)


def _sum_of_products(
    frame: Frame, eqn: Eqn, loop: tuple[Var, ...], lhs: Expr, rhs: Expr, body: list[Stmt]
) -> Expr:
    """A contraction as a reduction, f16 in f32."""
    dtype = eqn.result.aval.dtype
    wide = "f32" if dtype == "f16" else dtype
    if wide != dtype:
        lhs, rhs = apply("convert", lhs, dtype=wide), apply("convert", rhs, dtype=wide)
    target = Scalar(frame.new_scalar(), wide)
    body.append(Reduce(target, "sum", loop, apply("mul", lhs, rhs), "sequence"))
    return target if wide == dtype else apply("convert", target, dtype=dtype)


@dataclass(frozen=True, slots=True)
class Rows:
    """The domain of a kernel with reductions.

    ``shape`` is that of the reduced operand, ``axes`` are reduced; ``kept`` the shape of results.
    """

    shape: Shape
    axes: tuple[int, ...]
    kept: Shape

    @property
    def reduced(self) -> Shape:
        """Extents of the reduced axes."""
        return tuple(self.shape[axis] for axis in self.axes)

    def join(self, kept: Indices, reduced: Indices) -> Indices:
        """The indices of the domain."""
        rest, inner = iter(kept), iter(reduced)
        return tuple(next(inner if k in self.axes else rest) for k in range(len(self.shape)))


def rows_of(eqn: Eqn) -> Rows:
    """The domain that a reduction asks for."""
    shape, axes = shape_of(eqn.operands[0]), reduced_axes(eqn)
    return Rows(shape, axes, shape_of(eqn.result))


def lower_rows(frame: Frame, folds: list[Eqn]) -> tuple[Stmt, ...]:
    """The kept points; at each, the reductions in the order of the graph, then the stores."""
    rows = rows_of(folds[0])
    kept, reduced = points("i", rows.kept), points("r", rows.reduced)
    full = rows.join(kept, reduced)
    outputs = frame.graph.outputs
    inner = [k for k, output in enumerate(outputs) if is_full(output, rows)]
    body: list[Stmt] = []
    for work in passes(frame, folds, inner, rows.shape if variables(reduced) else None):
        with frame.elements.scope():
            found = [reduction(frame, eqn, rows.shape, full, reduced) for eqn in work.folds]
            shapes = rows.shape, rows.reduced
            stores, saved = write_pass(frame, work, full, reduced, shapes)
        body += join(reduced, [each for each in found if isinstance(each, Reduce)], stores)
        for value, load in saved:
            frame.elements.define(value, full, load)
        for eqn, each in zip(work.folds, found, strict=True):
            target = each.target if isinstance(each, Reduce) else each
            at = reindex(kept, rows.kept, shape_of(eqn.result))
            frame.elements.define(eqn.result, at, target)
    outer = [k for k in range(len(outputs)) if k not in inner]
    body += [frame.store(k, rows.kept, kept) for k in outer]
    return tuple(par(kept, body))


def reduction(
    frame: Frame,
    eqn: Eqn,
    shape: Shape,
    full: Indices,
    reduced: Indices,
    dtype: str | None = None,
) -> Reduce | Expr:
    """The statement that reduces over the variables in ``reduced``, or the value if there are none.

    ``full`` are indices into ``shape``, the domain; ``dtype`` is that of the target where it
    is not the result's.
    """
    operand, monoid = eqn.operands[0], eqn.op.body.monoid
    element = frame.elements.element(operand, reindex(full, shape, shape_of(operand)))
    loop = variables(reduced)
    is_position = monoid in POSITIONS
    if not loop:
        return constant("i64", 0) if is_position else element
    if dtype is not None:
        element = apply("convert", element, dtype=dtype)
    target = Scalar(frame.new_scalar(), dtype or eqn.result.aval.dtype)
    return Reduce(target, monoid, loop, element, order_of(eqn))


def is_full(output: Operand, rows: Rows) -> bool:
    """Whether an output has the shape of the domain; else it has that of the reductions."""
    if output.aval.shape == rows.kept:
        return False
    count = size_of(shape_of(output))
    if output.aval.shape == rows.shape:
        return True
    if count == size_of(rows.kept):
        return False
    if count != size_of(rows.shape):
        raise InternalError(f"output {output!r} fits neither {rows.shape} nor {rows.kept}")
    return True
