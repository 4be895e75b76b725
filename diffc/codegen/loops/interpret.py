"""What a kernel means: every point by NumPy, with index arrays, in the stated order of summation.

`run` follows the loop IR's definition, not the emitted code: a statement is evaluated for all
points of the nests around it at once, an expression for the points where it is needed. Arithmetic
is NumPy's on arrays of the dtype, so results are the bits that compiled code has to give, except
for elementary functions (NumPy's own errors) and contractions (`fma` rounds twice here).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np

from diffc.codegen.loops.contraction import accumulator
from diffc.codegen.loops.monoids import OPS, identity, neutral
from diffc.codegen.loops.nodes import (
    Apply,
    Buffer,
    Choose,
    Const,
    Contract,
    Expr,
    Fetch,
    For,
    GatherLoad,
    IndexValue,
    Kernel,
    Load,
    Par,
    Prefix,
    Reduce,
    Scalar,
    Scatter,
    Sort,
    Stmt,
    Store,
    Sweep,
    Within,
)
from diffc.codegen.loops.walk import stored
from diffc.codegen.targets import FLOATS, Target
from diffc.ir.aval import DTYPES, as_dtype, is_float, wide
from diffc.ir.index import Dim, Var, evaluate

__all__ = ["DTYPES", "apply", "run"]

Array = np.ndarray[Any, np.dtype[Any]]

_ERF = np.vectorize(math.erf, otypes=[np.float64])
NAMES = {
    "neg": "negative",
    "abs": "absolute",
    "round": "rint",
    "mul": "multiply",
    "sub": "subtract",
    "div": "divide",
    "eq": "equal",
    "ne": "not_equal",
    "lt": "less",
    "le": "less_equal",
    "gt": "greater",
    "ge": "greater_equal",
    "is_nan": "isnan",
    "is_inf": "isinf",
    "is_finite": "isfinite",
    "bitwise_not": "invert",
    "shift_left": "left_shift",
    "shift_right": "right_shift",
}
FOLDS = {
    "sum": np.add,
    "prod": np.multiply,
    "max": np.maximum,
    "min": np.minimum,
    "any": np.logical_or,
    "all": np.logical_and,
}


def apply(name: str, dtype: str, args: Sequence[Array]) -> Array:
    """A scalar op on arrays, with a result of `dtype`."""
    result = DTYPES[dtype]
    with np.errstate(all="ignore"):
        if name == "select":
            chosen: Array = np.where(args[0], args[1], args[2])
            return chosen
        if name == "bitcast":
            bits: Array = args[0].view(result)
            return bits
        if name == "convert":
            return _convert(args[0], dtype)
        if name == "logistic":
            number = args[0].astype(np.float64)
            return np.asarray(1 / (1 + np.exp(-number))).astype(result)
        if name == "erf":
            return np.asarray(_ERF(args[0])).astype(result)
        if name in ("maximum", "minimum"):
            return _choose(FOLDS[name[:3]], *args)
        if name == "fma":
            a, b, c = (arg.astype(_wider(arg.dtype)) for arg in args)
            return np.asarray(a * b + c).astype(result)
        if name == "pow" and result.kind in "iu":
            return _integer_power(args[0], args[1])
        if name == "round" and result.kind in "iu":
            return args[0]
        if name == "abs" and result.kind == "b":
            return args[0]
        if name == "sign":  # of bf16's -0.0 ml_dtypes says -0.0
            return np.asarray(np.sign(args[0].astype(wide(result)))).astype(result)
        function = getattr(np, NAMES.get(name, name))
        return np.asarray(function(*args)).astype(result)


def _choose(order: Any, a: Array, b: Array) -> Array:
    """NumPy's maximum or minimum; of two equal ones (zeros) the second, on every CPU."""
    return np.asarray(np.where(a == b, b, order(a, b)))


def _wider(dtype: np.dtype[Any]) -> np.dtype[Any]:
    if not is_float(dtype):
        return dtype
    return np.dtype(np.float64) if dtype.itemsize < 8 else np.dtype(np.longdouble)


def _integer_power(base: Array, exponent: Array) -> Array:
    raised = np.power(base, np.maximum(exponent, 0))
    return np.where(exponent < 0, np.zeros_like(base), raised)


def _convert(value: Array, name: str) -> Array:
    """Conversion; a float that does not fit becomes the least i32 (i64), cut to the width."""
    dtype = DTYPES[name]
    if not is_float(value.dtype) or dtype.kind not in "iu":
        return as_dtype(value, name)
    is_long = dtype.itemsize == 8 or dtype == np.uint32
    limit = 2.0 ** (63 if is_long else 31)
    through = np.dtype(np.int64 if is_long else np.int32)
    wide = np.trunc(value.astype(np.float64))
    if dtype == np.uint64:
        is_high = wide >= limit
        moved = np.where(is_high, wide - limit, wide)
        low = _to_signed(moved, limit, through).view(np.uint64)
        return np.where(is_high, low ^ np.uint64(1 << 63), low)
    return _to_signed(wide, limit, through).astype(dtype)


def _to_signed(value: Array, limit: float, dtype: np.dtype[Any]) -> Array:
    fits = (value >= -limit) & (value < limit)
    return np.where(fits, np.where(fits, value, 0).astype(dtype), np.iinfo(dtype).min)


@dataclass(slots=True)
class _Points:
    """Some points of the nests around a statement: what is bound there, as arrays."""

    count: int
    vars: dict[Var, Array] = field(default_factory=dict)
    scalars: dict[str, Array] = field(default_factory=dict)

    def expand(self, vars: Sequence[Var]) -> _Points:
        """Each point with all values of more variables, row-major."""
        extents = [_extent(var) for var in vars]
        inner = prod(extents)
        made = _Points(
            self.count * inner,
            {var: np.repeat(value, inner) for var, value in self.vars.items()},
            {name: np.repeat(value, inner) for name, value in self.scalars.items()},
        )
        for var, index in zip(vars, np.indices(extents).reshape(len(extents), -1), strict=True):
            made.vars[var] = np.tile(index, self.count)
        return made

    def number(self, vars: Sequence[Var]) -> Array:
        """The row-major number of each point among those of some variables."""
        found = np.zeros(self.count, np.int64)
        for var in vars:
            found = found * _extent(var) + self.vars[var]
        return found

    def take(self, mask: Array) -> _Points:
        """The points where a mask holds."""
        return _Points(
            int(mask.sum()),
            {var: value[mask] for var, value in self.vars.items()},
            {name: value[mask] for name, value in self.scalars.items()},
        )


def _extent(var: Var) -> int:
    assert isinstance(var.extent, int)
    return var.extent


def run(kernel: Kernel, arrays: Mapping[Buffer, Array], target: Target) -> int:
    """Runs a kernel on arrays, in place.

    Args:
        kernel: The kernel; `how` is ignored.
        arrays: The array of each parameter.
        target: Gives the number of partial results.

    Returns:
        The status: 0, or the least of those whose index was out of bounds.

    Raises:
        IndexError: An access is out of bounds.
    """
    memory = dict(arrays)
    for buffer in kernel.scratch:
        dtype = DTYPES[buffer.dtype]  # undefined: nothing may depend on it
        nothing = np.nan if buffer.dtype in FLOATS else 77
        memory[buffer] = np.full(buffer.shape, nothing, dtype)
    state = _Run(memory, target, frozenset(kernel.scratch))
    state.body(kernel.body, _Points(1))
    return state.status


@dataclass(slots=True)
class _Run:
    memory: dict[Buffer, Array]
    target: Target
    scratch: frozenset[Buffer]
    status: int = 0
    ranges: dict[Var, tuple[int, int]] = field(default_factory=dict)
    """The values of variables that are needed, where these are not all."""

    def expand(self, points: _Points, vars: Sequence[Var]) -> _Points:
        """Each point with all values of more variables that are needed, row-major."""
        inner = points.expand(vars)
        for var in vars:
            if var in self.ranges:
                first, stop = self.ranges[var]
                inner = inner.take((inner.vars[var] >= first) & (inner.vars[var] < stop))
        return inner

    def terms(self, vars: Sequence[Var]) -> Array:
        """The numbers of the points of a fold that are needed."""
        return self.expand(_Points(1), vars).number(vars)

    # --- statements

    def body(self, body: Sequence[Stmt], points: _Points) -> None:
        for stmt in body:
            self.statement(stmt, points)

    def statement(self, stmt: Stmt, points: _Points) -> None:
        if isinstance(stmt, Par):
            inner = self.expand(points, stmt.vars)
            if stored(stmt.body) & self.scratch and len(stmt.body) > 1:
                for point in range(inner.count):  # scratch belongs to one point
                    self.body(stmt.body, inner.take(np.arange(inner.count) == point))
            else:
                self.body(stmt.body, inner)
        elif isinstance(stmt, For):
            extent = _extent(stmt.var)
            for index in reversed(range(extent)) if stmt.reverse else range(extent):
                points.vars[stmt.var] = np.full(points.count, index)
                held = np.broadcast_to(stmt.guard.evaluate(points.vars), points.count)
                if held.all():
                    self.body(stmt.body, points)
                elif held.any():
                    self.body(stmt.body, points.take(held))
        elif isinstance(stmt, Sweep):
            for reduce in stmt.reduces:
                points.scalars[reduce.target.name] = self.reduce(reduce, points)
            inner = self.expand(points, stmt.vars)
            for store in stmt.stores:
                self.store(store, inner)
        elif isinstance(stmt, Within):
            ends = [np.unique(self.value(end, points)) for end in (stmt.first, stmt.stop)]
            assert all(len(end) == 1 for end in ends), "a range is the same at all points"
            self.ranges[stmt.var] = int(ends[0][0]), int(ends[1][0])
            self.statement(stmt.body, points)
            del self.ranges[stmt.var]
        elif isinstance(stmt, Reduce):
            points.scalars[stmt.target.name] = self.reduce(stmt, points)
        elif isinstance(stmt, Contract):
            points.scalars[stmt.target.name] = self.contract(stmt, points)
        elif isinstance(stmt, Store):
            self.store(stmt, points)
        elif isinstance(stmt, Scatter):
            self.scatter(stmt, points)
        elif isinstance(stmt, Prefix):
            self.prefix(stmt, points)
        elif isinstance(stmt, Sort):
            self.sort(stmt, points)
        elif not isinstance(stmt, Fetch):
            raise TypeError(f"not a statement: {stmt!r}")

    def store(self, stmt: Store, points: _Points) -> None:
        held = np.broadcast_to(stmt.guard.evaluate(points.vars), points.count)
        points = points.take(held)
        if points.count:
            value = self.value(stmt.value, points)
            place = self.place(stmt.buffer, stmt.indices, points)
            if place:
                self.memory[stmt.buffer][place] = value
            else:
                self.memory[stmt.buffer][()] = value[-1]

    def report(self, status: int) -> None:
        """Notes that an index was out of bounds."""
        self.status = min(self.status or status, status)

    def scatter(self, stmt: Scatter, points: _Points) -> None:
        value = self.value(stmt.value, points)
        places, inside = self.computed(stmt.buffer, stmt.indices, points)
        if stmt.mode == "check" and not inside.all():
            self.report(stmt.status)
        places = tuple(index[inside] for index in places)
        array = self.memory[stmt.buffer]
        names = {"add": np.add, "mul": np.multiply, "min": np.minimum, "max": np.maximum}
        with np.errstate(all="ignore"):
            if stmt.combine == "set":
                array[places] = value[inside]
            else:
                names[stmt.combine].at(array, places, value[inside])

    def sort(self, stmt: Sort, points: _Points) -> None:
        inner = points.expand((stmt.var,))
        places = self.place(stmt.keys, stmt.indices, inner)
        rows = self.memory[stmt.keys][places].reshape(points.count, _extent(stmt.var))
        order = np.argsort(rows.astype(wide(rows.dtype)), axis=1, kind="stable")
        result = order if stmt.positions else np.take_along_axis(rows, order, axis=1)
        self.memory[stmt.buffer][places] = result.reshape(-1)

    def prefix(self, stmt: Prefix, points: _Points) -> None:
        inner, dtype, fold = points.expand((stmt.var,)), stmt.value.dtype, OPS[stmt.monoid]
        total = _extent(stmt.var)
        values = self.value(stmt.value, inner).reshape(points.count, total)
        size = self.target.lanes(dtype) if stmt.order == "lanes" else 1
        before = np.full((points.count, 1), neutral(stmt.monoid, dtype), values.dtype)
        found = np.empty_like(values)
        for start in range(0, total, size):
            block = values[:, start : start + size].copy()
            step = 1
            while step < size:
                block[:, step:] = apply(fold, dtype, (block[:, :-step], block[:, step:]))
                step *= 2
            found[:, start : start + size] = apply(fold, dtype, (before, block))
            before = apply(fold, dtype, (before, block[:, -1:]))
        result = apply("convert", stmt.buffer.dtype, (found.reshape(-1),))
        self.memory[stmt.buffer][self.place(stmt.buffer, stmt.indices, inner)] = result

    # --- folds

    def reduce(self, stmt: Reduce, points: _Points) -> Array:
        terms = self.terms(stmt.vars)
        dtype = DTYPES[stmt.value.dtype]
        inner = self.expand(points, stmt.vars)
        values = np.zeros((points.count, 0), dtype)
        if len(terms):
            values = self.value(stmt.value, inner).reshape(points.count, len(terms))
        if stmt.monoid in ("argmax", "argmin"):
            if not len(terms):
                return np.zeros(points.count, np.int64)
            best = getattr(np, stmt.monoid)(values, axis=1)
            return np.asarray(terms[best]).astype(np.int64)
        fold, start = FOLDS[stmt.monoid], identity(stmt.monoid, stmt.value.dtype)
        width = 1
        if stmt.order == "lanes":
            width = 4 * self.target.lanes(stmt.value.dtype)
        partials = np.full((points.count, width), start, dtype)
        with np.errstate(all="ignore"):
            for number, term in enumerate(terms):
                old = partials[:, term % width]
                partials[:, term % width] = fold(old, values[:, number])
            while width > 1:
                width //= 2
                partials = fold(partials[:, :width], partials[:, width:])
        return np.asarray(partials[:, 0], dtype)

    def contract(self, stmt: Contract, points: _Points) -> Array:
        total = len(self.terms(stmt.vars))
        dtype = accumulator(stmt.target.dtype)
        result = np.zeros(points.count, DTYPES[dtype])
        if stmt.start is not None:
            result = apply("convert", dtype, (self.value(stmt.start, points),))
        if total:
            inner = self.expand(points, stmt.vars)
            lhs = self.value(stmt.lhs, inner).reshape(points.count, total)
            rhs = self.value(stmt.rhs, inner).reshape(points.count, total)
            for term in range(total):
                pair = [apply("convert", dtype, (side[:, term],)) for side in (lhs, rhs)]
                result = apply("fma", dtype, (*pair, result))
        return apply("convert", stmt.target.dtype, (result,))

    # --- expressions

    def value(self, expr: Expr, points: _Points) -> Array:
        return self._value(expr, points, {})

    def _value(self, expr: Expr, points: _Points, known: dict[int, Array]) -> Array:
        found = known.get(id(expr))
        if found is None:
            found = known[id(expr)] = self._compute(expr, points, known)
        return found

    def _compute(self, expr: Expr, points: _Points, known: dict[int, Array]) -> Array:
        dtype = DTYPES[expr.dtype]
        if isinstance(expr, Const):
            return np.full(points.count, expr.value, dtype)
        if isinstance(expr, Scalar):
            return points.scalars[expr.name]
        if isinstance(expr, IndexValue):
            index = np.broadcast_to(evaluate(expr.index, points.vars), points.count)
            return index.astype(np.int64).astype(dtype)
        if isinstance(expr, Load):
            place = self.place(expr.buffer, expr.indices, points)
            return np.broadcast_to(self.memory[expr.buffer][place], points.count)
        if isinstance(expr, GatherLoad):
            return self.gather(expr, points)
        if isinstance(expr, Choose):
            held = np.broadcast_to(expr.guard.evaluate(points.vars), points.count)
            result = np.zeros(points.count, dtype)
            for mask, branch in ((held, expr.on_true), (~held, expr.on_false)):
                if mask.any():
                    result[mask] = self.value(branch, points.take(mask))
            return result
        assert isinstance(expr, Apply)
        args = [self._value(arg, points, known) for arg in expr.args]
        return apply(expr.name, expr.dtype, args)

    def gather(self, expr: GatherLoad, points: _Points) -> Array:
        array = self.memory[expr.buffer]
        if not array.size:
            if expr.mode == "check" and points.count:
                self.report(expr.status)
            return np.zeros(points.count, array.dtype)
        places, inside = self.computed(expr.buffer, expr.indices, points)
        limits = expr.buffer.shape
        clipped = tuple(
            np.clip(index, 0, limit - 1) for index, limit in zip(places, limits, strict=True)
        )
        if expr.mode == "check" and not inside.all():
            self.report(expr.status)
        result = array[clipped]
        return np.where(inside, result, 0).astype(array.dtype) if expr.mode == "fill" else result

    def computed(
        self, buffer: Buffer, indices: Sequence[Dim | Expr], points: _Points
    ) -> tuple[tuple[Array, ...], Array]:
        places: list[Array] = []
        inside = np.ones(points.count, bool)
        for index, limit in zip(indices, buffer.shape, strict=True):
            if isinstance(index, Expr):
                number = self.value(index, points)
                inside &= (number >= 0) & (number < limit)
                places.append(np.clip(number, -1, 2**62).astype(np.int64))
            else:
                places.append(np.broadcast_to(evaluate(index, points.vars), points.count))
        return tuple(places), inside

    def place(self, buffer: Buffer, indices: Sequence[Dim], points: _Points) -> tuple[Array, ...]:
        places = []
        for index, limit in zip(indices, buffer.shape, strict=True):
            value = np.broadcast_to(evaluate(index, points.vars), points.count)
            if points.count and not (value.min() >= 0 and value.max() < limit):
                raise IndexError(f"{buffer.name}: {index} leaves 0 … {limit - 1}")
            places.append(value)
        return tuple(places)
