"""Loops over points in order: what carries sums from point to point, and plain contractions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from diffc.codegen.emit.frame import Value
from diffc.codegen.emit.text import Loop
from diffc.codegen.loops.contraction import accumulator, extent_of
from diffc.codegen.loops.nodes import Buffer, Contract, Expr
from diffc.ir.index import Var

if TYPE_CHECKING:
    from diffc.codegen.emit.kernel import KernelWriter

__all__ = ["nest", "over_needed", "write_contract"]

UNROLLED_TERMS = 4


def write_contract(writer: KernelWriter, stmt: Contract) -> None:
    """Writes a contraction as one multiply-add after the other, and binds its result.

    They are fused where the target has the instruction, as in `contract_numbers`.
    """
    frame, evaluator = writer.frame, writer.evaluator
    narrow = stmt.target.dtype
    dtype = accumulator(narrow)
    ops = evaluator.ops(1 if frame.lanes is None else frame.lanes.count)
    kind = ops.kind(dtype)

    def number(expr: Expr) -> str:
        return ops.convert(evaluator.vector(expr), expr.dtype, dtype)

    def term(carried: list[str]) -> list[str]:
        operands = [number(stmt.lhs), number(stmt.rhs), carried[0]]
        if frame.target.has_fma:
            return [ops.apply("fma", dtype, (dtype,) * 3, operands)]
        product = ops.apply("mul", dtype, (dtype,) * 2, operands[:2])
        return [ops.apply("add", dtype, (dtype,) * 2, [product, carried[0]])]

    begun = ops.literal(0, dtype) if stmt.start is None else number(stmt.start)
    start = [(kind, begun)]
    result = start[0][1]
    if all(extent_of(var) for var in stmt.vars):
        result = nest(writer, stmt.vars, start, term)[0]
    result = ops.convert(result, dtype, narrow)
    frame.bind_scalar(stmt.target.name, Value(result, ops.lanes))


Term = Callable[[list[str]], list[str]]


def nest(
    writer: KernelWriter,
    vars: Sequence[Var],
    carried: list[tuple[str, str]],
    term: Term,
    written: frozenset[Buffer] = frozenset(),
) -> list[str]:
    """Runs `term` for all values of `vars` in row-major order; returns what it carries."""
    frame = writer.frame
    if not vars:
        return term([text for _, text in carried])
    var, rest = vars[0], vars[1:]
    kinds = [kind for kind, _ in carried]
    if extent_of(var) <= UNROLLED_TERMS and var not in writer.ranges:
        for value in range(extent_of(var)):
            with frame.level(stores=written):
                frame.bind(var, value)
                texts = nest(writer, rest, carried, term, written)
            carried = list(zip(kinds, texts, strict=True))
        return [text for _, text in carried]
    with frame.level(stores=written), over_needed(writer, var, extent_of(var), carried) as loop:
        frame.bind(var, loop.index)
        inner = list(zip(kinds, loop.carried, strict=True))
        loop.next = nest(writer, rest, inner, term, written)
    return loop.results


def over_needed(
    writer: KernelWriter, var: Var, extent: int, carried: Sequence[tuple[str, str]] = ()
) -> AbstractContextManager[Loop]:
    """A loop over the needed values of a variable."""
    if var not in writer.ranges:
        return writer.frame.fn.loop(extent, carried)
    low, high = writer.ranges[var]
    return writer.frame.fn.loop(high, carried, start=low, may_be_empty=True)
