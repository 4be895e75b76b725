"""Kernels in which every point computes by itself: maps and contractions.

One nest ``Par(points) { statements; stores }``. A *contraction* is one ``Contract`` at each point
of its result; what follows is stored from there.
"""

from __future__ import annotations

from diffc.codegen.loops.contraction import accumulator
from diffc.codegen.loops.nodes import (
    Contract,
    Expr,
    Load,
    Reduce,
    Scalar,
    Stmt,
)
from diffc.codegen.lower.elements import Indices
from diffc.codegen.lower.frame import Frame, par, points, shape_of, variables
from diffc.codegen.lower.term import apply
from diffc.ir.graph import Eqn
from diffc.ir.index import Dim, Var, coefficient, ravel
from diffc.ops.contraction import letters, split
from diffc.ops.declare import Special


def is_contraction(eqn: Eqn) -> bool:
    """Whether the equation is a contraction that sums something (else it is a product)."""
    body = eqn.op.body
    if not isinstance(body, Special) or body.kind != "contract":
        return False
    return bool(letters(eqn.params["spec"])[3])


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
    """A contraction as a reduction, 16 bits in f32."""
    dtype = eqn.result.aval.dtype
    wide = accumulator(dtype)
    lhs, rhs = apply("convert", lhs, dtype=wide), apply("convert", rhs, dtype=wide)
    target = Scalar(frame.new_scalar(), wide)
    body.append(Reduce(target, "sum", loop, apply("mul", lhs, rhs), "sequence"))
    return apply("convert", target, dtype=dtype)
