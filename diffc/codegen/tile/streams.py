"""Columns of wide rows reduced a few rows at a time, where the rows come from memory.

A strip of columns holds its sums in registers while it goes down the rows: each row is then a short
run of memory, far from the next. Memory gives long runs twice as fast. So a few whole rows are read
side by side, and the sums of all columns lie in the cache meanwhile.

Before: ``par c in 128, j in 2048 { s = reduce sum sequence(r in 16: x[16*c + r, j]); p[c, j] = s
}``. After: ``par c in 128 { par j { p[c, j] = 0 + x[16*c, j] + ... + x[16*c + 7, j] }; for q in 1 {
par j { p[c, j] = p[c, j] + x[16*c + 8*q + 8, j] + ... } } }``. Rows are added in the same order.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from diffc.codegen.loops.contraction import extent_of
from diffc.codegen.loops.monoids import OPS, identity
from diffc.codegen.loops.nodes import (
    Apply,
    Const,
    Expr,
    For,
    Load,
    Par,
    Reduce,
    Scalar,
    Stmt,
    Store,
    Vector,
)
from diffc.codegen.loops.scratch import nbytes_of
from diffc.codegen.loops.walk import expressions, rewrite
from diffc.codegen.targets import ITEM_BYTES, Target
from diffc.ir.index import Dim, Var, coefficient, ravel, substitute

__all__ = ["in_streams"]

#: rows that are read side by side
ROWS = 8
#: shorter rows (bytes) are no longer runs than strips
LONG = 4096
#: operands come from memory that would fill so many second caches
FAR = 8
#: expressions of more nodes are worth more than the memory
MOST_NODES = 12

MONOIDS = ("sum", "prod", "max", "min")


def in_streams(par: Par, column: Var, target: Target) -> Par | None:
    """The nest with its rows in groups; None where strips of columns suit it."""
    found = _Columns.of(par, column)
    if found is None or extent_of(found.row) <= ROWS:
        return None
    loads = [e for e in expressions(fold.value for fold in found.folds) if isinstance(e, Load)]
    if not loads or len(expressions(fold.value for fold in found.folds)) > MOST_NODES:
        return None
    length = extent_of(column)
    widest = max(ITEM_BYTES[load.buffer.dtype] for load in loads)
    if length * widest < LONG or not any(
        nbytes_of(e.buffer) >= FAR * target.l2_bytes for e in loads
    ):
        return None
    if not all(_is_row(load, found.row, column) for load in loads):
        return None
    lanes = (
        2 * target.vector_bytes // max(widest, *(ITEM_BYTES[f.value.dtype] for f in found.folds))
    )
    return found.grouped(par, lanes)


def _is_row(load: Load, row: Var, column: Var) -> bool:
    """Whether an operand is a number, or contiguous along columns."""
    offset = ravel(load.indices, load.buffer.shape)
    along = coefficient(offset, column)
    return along == 1 or (along == 0 and coefficient(offset, row) == 0)


@dataclass(frozen=True, slots=True)
class _Columns:
    """Reductions over rows and where their results are stored."""

    row: Var
    column: Var
    folds: tuple[Reduce, ...]
    stores: tuple[Store, ...]

    @classmethod
    def of(cls, par: Par, column: Var) -> _Columns | None:
        folds = tuple(stmt for stmt in par.body if isinstance(stmt, Reduce))
        stores = tuple(stmt for stmt in par.body if isinstance(stmt, Store))
        if len(par.vars) < 2 or column is not par.vars[-1] or not folds:
            return None
        if len(folds) != len(stores) or len(folds) + len(stores) < len(par.body):
            return None
        if len({fold.vars for fold in folds}) > 1 or len(folds[0].vars) != 1:
            return None
        for fold, store in zip(folds, stores, strict=True):
            value = store.value
            if not isinstance(value, Scalar) or value.name != fold.target.name:
                return None
            if fold.order != "sequence" or fold.monoid not in MONOIDS or not store.guard.is_true:
                return None
            if not fold.value.dtype == fold.target.dtype == store.buffer.dtype:
                return None
        return cls(folds[0].vars[0], column, folds, stores)

    def grouped(self, par: Par, lanes: int) -> Par:
        """The rows in groups: the first one, all whole ones, and what is left."""
        groups, rest = divmod(extent_of(self.row), ROWS)
        body: list[Stmt] = [self._group(0, ROWS, lanes, is_first=True)]
        if groups > 1:
            number = Var(f"{self.row.name}_q", groups - 1)
            at: Dim = ROWS * number + ROWS
            body.append(For(number, (self._group(at, ROWS, lanes),)))
        if rest:
            body.append(self._group(ROWS * groups, rest, lanes))
        return Par(par.vars[:-1], tuple(body))

    def _group(self, first: Dim, count: int, lanes: int, *, is_first: bool = False) -> Par:
        """Adds rows to the results of all columns."""
        stores = []
        for fold, store in zip(self.folds, self.stores, strict=True):
            dtype = fold.value.dtype
            value: Expr = Const(dtype, identity(fold.monoid, dtype))
            if not is_first:
                value = Load(store.buffer, store.indices)
            for number in range(count):
                each = _at(fold.value, self.row, first + number)
                value = Apply(dtype, OPS[fold.monoid], (value, each))
            stores.append(replace(store, value=value))
        return Par((self.column,), tuple(stores), Vector(lanes))


def _at(value: Expr, row: Var, place: Dim) -> Expr:
    mapping = {row: place}
    known = rewrite(
        (value,), lambda index: substitute(index, mapping), lambda guard: guard.substitute(mapping)
    )
    return known[id(value)]
