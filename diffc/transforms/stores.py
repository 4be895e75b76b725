"""Sums of stores: row by row, as a scan over both."""

from __future__ import annotations

from diffc.ir.aval import GROWING, Aval, aval
from diffc.ir.graph import Builder, Graph, Literal, Operand, literal
from diffc.ops.registry import find
from diffc.ops.stores import row_of

_INT = aval("i64")


def added(builder: Builder, left: Operand, right: Operand) -> Operand:
    """The sum of two arrays, or of two stores; a store has zeros where it has no rows."""
    if not left.aval.is_store:
        return builder.emit(find("add"), (left, right))[0]
    if isinstance(left, Literal):
        return right
    if isinstance(right, Literal):
        return left
    length = left.aval.shape[0]
    consts: list[Operand] = []
    if length is GROWING:
        counts = (_rows(builder, left), _rows(builder, right))
        consts.append(builder.emit(find("maximum"), counts)[0])
    params = {"consts": len(consts), "carry": 0, "length": length, "reverse": False}
    region = _sum_of_rows([x.aval for x in consts], row_of(left.aval))
    return builder.emit(find("scan"), (*consts, left, right), params, (region,))[0]


def _sum_of_rows(consts: list[Aval], row: Aval) -> Graph:
    builder = Builder("add")
    for each in consts:
        builder.input(each, "steps")
    left, right = builder.input(row, "x"), builder.input(row, "y")
    return builder.build([added(builder, left, right)])


def _rows(builder: Builder, store: Operand) -> Operand:
    """How many rows a store has."""
    inner = Builder("rows")
    inner.input(store.aval, "store")
    count = inner.input(_INT, "count")
    body = inner.build(inner.emit(find("add"), (count, literal(1, _INT))))
    params = {"consts": 1, "carry": 1, "length": GROWING, "reverse": False}
    return builder.emit(find("scan"), (store, literal(0, _INT)), params, (body,))[0]
