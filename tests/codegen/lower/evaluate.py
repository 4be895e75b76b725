"""A plain evaluator of loops, point by point: slow, for small kernels only."""

import itertools
import random
from typing import Any

import numpy as np

from diffc.codegen.loops.nodes import (
    Apply,
    Choose,
    Const,
    Contract,
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
    Store,
    Sweep,
)
from diffc.codegen.loops.walk import expressions
from diffc.ir.aval import DTYPES, wide
from diffc.ir.index import evaluate
from diffc.ops.registry import find


def run(kernel: Kernel, inputs: list[np.ndarray]) -> list[np.ndarray]:
    """The outputs of a kernel."""
    ins = [p for p in kernel.params if p.mode == "in"]
    outs = [p for p in kernel.params if p.mode != "in"]
    assert [p.mode for p in kernel.params] == ["in"] * len(ins) + ["out"] * len(outs)
    memory = {}
    for buffer, array in zip(ins, inputs, strict=True):
        assert array.dtype == DTYPES[buffer.dtype]
        memory[buffer] = array.reshape(buffer.shape).copy()
    results = [np.full(buffer.shape, 77, DTYPES[buffer.dtype]) for buffer in outs]
    memory.update(zip(outs, results, strict=True))
    execute(kernel, memory)
    return results


def execute(kernel: Kernel, memory: dict[Any, np.ndarray]) -> int:
    """Runs a kernel on the memory of its parameters; the status. Points run in a wild order."""
    memory = dict(memory)
    for buffer in kernel.scratch:
        if buffer not in memory:
            memory[buffer] = np.full(buffer.shape, 99, DTYPES[buffer.dtype])
    for buffer, array in memory.items():
        assert array.shape == buffer.shape and array.dtype == DTYPES[buffer.dtype]
    state = _Run(memory)
    with np.errstate(all="ignore"):
        state.body(kernel.body, {}, {})
    return state.status


def _points(vars: Any) -> list[tuple[int, ...]]:
    return list(itertools.product(*(range(v.extent) for v in vars)))


class _Run:
    def __init__(self, memory: dict[Any, np.ndarray]) -> None:
        self.memory = memory
        self.status = 0
        self.random = random.Random(0)

    def body(self, body: Any, env: dict, scalars: dict) -> None:
        position = 0
        while position < len(body):
            group = self.group(body[position:])
            position += len(group)
            stmt = group[0]
            if isinstance(stmt, Par):
                points = _points(stmt.vars)
                self.random.shuffle(points)
                for point in points:
                    inner = env | dict(zip(stmt.vars, point, strict=True))
                    self.body(stmt.body, inner, dict(scalars))
            elif isinstance(stmt, For):
                steps = range(stmt.var.extent)
                for at in reversed(steps) if stmt.reverse else steps:
                    inner = env | {stmt.var: at}
                    if stmt.guard.evaluate(inner):
                        self.body(stmt.body, inner, dict(scalars))
            elif isinstance(stmt, Sweep):
                self.sweep(stmt, env, scalars)
            elif isinstance(stmt, Reduce):
                scalars[stmt.target.name] = self.reduce(stmt, env, scalars)
            elif isinstance(stmt, Contract):
                dtype = DTYPES[stmt.target.dtype]
                total = np.zeros((), wide(dtype))
                for point in _points(stmt.vars):
                    inner = env | dict(zip(stmt.vars, point, strict=True))
                    left = self.value(stmt.lhs, inner, scalars, {}).astype(total.dtype)
                    total = total + left * self.value(stmt.rhs, inner, scalars, {})
                scalars[stmt.target.name] = np.asarray(total).astype(dtype)
            elif isinstance(stmt, Store):
                self.stores(group, env, scalars)
            elif isinstance(stmt, Prefix):
                self.prefix(stmt, env, scalars)
            elif isinstance(stmt, Scatter):
                self.scatter(stmt, env, scalars, {})
            else:
                assert isinstance(stmt, Sort)
                where = self.at(stmt.buffer, stmt.indices, env | {stmt.var: 0})
                axis = next(k for k, index in enumerate(stmt.indices) if index is stmt.var)
                where = (*where[:axis], slice(None), *where[axis + 1 :])
                keys = self.memory[stmt.keys][where]
                order = np.argsort(keys, kind="stable")
                self.memory[stmt.buffer][where] = order if stmt.positions else keys[order]

    def group(self, body: Any) -> list[Any]:
        """Stores next to each other compute all values before any of them writes."""
        group = [body[0]]
        for stmt in body[1:]:
            if not isinstance(body[0], Store) or not isinstance(stmt, Store):
                break
            if not (body[0].guard.is_true and stmt.guard.is_true):
                break
            written = {store.buffer for store in group}
            if any(getattr(e, "buffer", None) in written for e in expressions([stmt.value])):
                break
            group.append(stmt)
        return group

    def stores(self, group: list[Store], env: dict, scalars: dict) -> None:
        writes = []
        for stmt in group:
            if stmt.guard.evaluate(env):
                where = self.at(stmt.buffer, stmt.indices, env)
                writes.append((stmt.buffer, where, self.value(stmt.value, env, scalars, {})))
        for buffer, where, value in writes:
            self.memory[buffer][where] = value

    def at(self, buffer: Any, indices: Any, env: dict) -> tuple[int, ...]:
        found = tuple(int(evaluate(index, env)) for index in indices)
        assert len(found) == len(buffer.shape), (buffer, indices)
        assert all(0 <= i < n for i, n in zip(found, buffer.shape, strict=True)), (
            f"{buffer.name}{list(indices)} at {found} of {buffer.shape}"
        )
        return found

    def sweep(self, stmt: Sweep, env: dict, scalars: dict) -> None:
        """Every point in one piece: what is folded and stored is computed, then stored."""
        found: dict[Any, dict[tuple[int, ...], Any]] = {reduce: {} for reduce in stmt.reduces}
        points = _points(stmt.vars)
        for point in self.random.sample(points, len(points)):
            inner = env | dict(zip(stmt.vars, point, strict=True))
            for reduce, values in found.items():
                values[point] = self.value(reduce.value, inner, scalars, {})
            self.stores(list(stmt.stores), inner, scalars)
        for reduce, values in found.items():
            scalars[reduce.target.name] = self.fold(reduce, [values[point] for point in points])

    def reduce(self, stmt: Reduce, env: dict, scalars: dict) -> Any:
        values = []
        for point in _points(stmt.vars):
            inner = env | dict(zip(stmt.vars, point, strict=True))
            values.append(self.value(stmt.value, inner, scalars, {}))
        return self.fold(stmt, values)

    def fold(self, stmt: Reduce, values: list[Any]) -> Any:
        dtype = DTYPES[stmt.target.dtype]
        array = np.array(values, values[0].dtype if values else dtype)
        if stmt.monoid in ("argmax", "argmin"):
            return np.int64(getattr(np, stmt.monoid)(array))
        if stmt.monoid in ("sum", "prod"):
            return getattr(np, stmt.monoid)(array, dtype=wide(dtype)).astype(dtype)
        return getattr(np, stmt.monoid)(array)

    def prefix(self, stmt: Prefix, env: dict, scalars: dict) -> None:
        folds = {"sum": np.add, "prod": np.multiply, "max": np.maximum, "min": np.minimum}
        points = [env | {stmt.var: at} for at in range(stmt.var.extent)]
        values = [self.value(stmt.value, inner, scalars, {}) for inner in points]
        found = folds[stmt.monoid].accumulate(np.array(values, DTYPES[stmt.value.dtype]))
        for inner, value in zip(points, found, strict=True):
            self.memory[stmt.buffer][self.at(stmt.buffer, stmt.indices, inner)] = value

    def scatter(self, stmt: Scatter, env: dict, scalars: dict, known: dict) -> None:
        array = self.memory[stmt.buffer]
        place = self.mixed(stmt.indices, env, scalars, known)
        if not all(0 <= i < n for i, n in zip(place, array.shape, strict=True)):
            self.status = self.status or stmt.status
            return
        value = self.value(stmt.value, env, scalars, known)
        if stmt.combine != "set":
            name = {"min": "minimum", "max": "maximum"}.get(stmt.combine, stmt.combine)
            value = find(name).numpy(array[place], value)
        array[place] = value

    def mixed(self, indices: Any, env: dict, scalars: dict, known: dict) -> tuple[int, ...]:
        from diffc.codegen.loops.nodes import Expr

        return tuple(
            int(self.value(i, env, scalars, known) if isinstance(i, Expr) else evaluate(i, env))
            for i in indices
        )

    def value(self, root: Any, env: dict, scalars: dict, known: dict) -> Any:
        """Evaluates only what is reached: the branch not taken is not touched."""
        stack = [root]
        while stack:
            expr = stack[-1]
            if id(expr) in known:
                stack.pop()
                continue
            if isinstance(expr, Choose):
                taken = expr.on_true if expr.guard.evaluate(env) else expr.on_false
                needs = [taken]
            elif isinstance(expr, Apply):
                needs = list(expr.args)
            elif isinstance(expr, GatherLoad):
                needs = [e for e in expressions([expr])[:-1] if e in expr.indices]
            else:
                needs = []
            missing = [need for need in needs if id(need) not in known]
            if missing:
                stack.extend(missing)
                continue
            stack.pop()
            known[id(expr)] = self.one(expr, needs, env, scalars, known)
        return known[id(root)]

    def one(self, expr: Any, needs: list, env: dict, scalars: dict, known: dict) -> Any:
        if isinstance(expr, Choose):
            return known[id(needs[0])]
        if isinstance(expr, Const):
            return np.array(expr.value, DTYPES[expr.dtype])
        if isinstance(expr, IndexValue):
            return np.array(evaluate(expr.index, env), np.int64).astype(DTYPES[expr.dtype])
        if isinstance(expr, Load):
            return np.array(self.memory[expr.buffer][self.at(expr.buffer, expr.indices, env)])
        if isinstance(expr, Scalar):
            return np.asarray(scalars[expr.name])
        if isinstance(expr, GatherLoad):
            place = self.mixed(expr.indices, env, scalars, known)
            array = self.memory[expr.buffer]
            inside = all(0 <= i < n for i, n in zip(place, array.shape, strict=True))
            if not inside and expr.mode == "fill":
                return np.zeros((), array.dtype)
            if not inside and expr.mode == "check":
                self.status = self.status or expr.status
            clipped = tuple(min(max(i, 0), n - 1) for i, n in zip(place, array.shape, strict=True))
            return np.array(array[clipped])
        assert isinstance(expr, Apply)
        args = [known[id(arg)] for arg in expr.args]
        if expr.name == "convert":
            return args[0].astype(DTYPES[expr.dtype])
        result = np.asarray(find(expr.name).numpy(*args))
        assert result.dtype == DTYPES[expr.dtype], (expr, result.dtype)
        return result
