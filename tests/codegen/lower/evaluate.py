"""A plain evaluator of loops, point by point: slow, for small kernels only."""

import itertools
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
    Reduce,
    Scalar,
    Scatter,
    Sort,
    Store,
)
from diffc.codegen.loops.walk import expressions
from diffc.ir.aval import DTYPES
from diffc.ir.index import evaluate
from diffc.ops.registry import find


def run(kernel: Kernel, inputs: list[np.ndarray], aliases: dict[int, int] | None = None) -> Any:
    """The outputs; ``aliases``: output position -> input whose memory it takes."""
    memory: dict[Any, np.ndarray] = {}
    ins = [p for p in kernel.params if p.mode == "in"]
    outs = [p for p in kernel.params if p.mode != "in"]
    assert [p.mode for p in kernel.params] == ["in"] * len(ins) + ["out"] * len(outs)
    for buffer, array in zip(ins, inputs, strict=True):
        assert array.dtype == DTYPES[buffer.dtype]
        memory[buffer] = array.reshape(buffer.shape).copy()
    results = []
    for k, buffer in enumerate(outs):
        if aliases and k in aliases:
            source = memory[ins[aliases[k]]]
            assert source.nbytes == np.prod(buffer.shape) * DTYPES[buffer.dtype].itemsize
            array = source.view(DTYPES[buffer.dtype]).reshape(buffer.shape)
        else:
            array = np.full(buffer.shape, 77, DTYPES[buffer.dtype])
        memory[buffer] = array
        results.append(array)
    for buffer in kernel.scratch:
        memory[buffer] = np.full(buffer.shape, 99, DTYPES[buffer.dtype])
    with np.errstate(all="ignore"):
        _Run(memory).body(kernel.body, {}, {})
    return results


class _Run:
    def __init__(self, memory: dict[Any, np.ndarray]) -> None:
        self.memory = memory
        self.status = 0

    def body(self, body: Any, env: dict, scalars: dict) -> None:
        """Stores of one body at one point share what they loaded."""
        known: dict[int, Any] = {}
        for stmt in body:
            if isinstance(stmt, Par):
                for point in itertools.product(*(range(v.extent) for v in stmt.vars)):
                    self.body(stmt.body, env | dict(zip(stmt.vars, point, strict=True)), scalars)
            elif isinstance(stmt, For):
                steps = range(stmt.var.extent)
                for at in reversed(steps) if stmt.reverse else steps:
                    self.body(stmt.body, env | {stmt.var: at}, scalars)
            elif isinstance(stmt, Reduce):
                scalars[stmt.target] = self.reduce(stmt, env, scalars)
            elif isinstance(stmt, Contract):
                dtype = DTYPES[stmt.target.dtype]
                total = np.zeros((), np.float32 if dtype == np.float16 else dtype)
                for point in itertools.product(*(range(v.extent) for v in stmt.vars)):
                    inner = env | dict(zip(stmt.vars, point, strict=True))
                    left = self.value(stmt.lhs, inner, scalars, {}).astype(total.dtype)
                    total = total + left * self.value(stmt.rhs, inner, scalars, {})
                scalars[stmt.target] = np.asarray(total).astype(dtype)
            elif isinstance(stmt, Store):
                if stmt.guard.is_true or stmt.guard.evaluate(env):
                    value = self.value(stmt.value, env, scalars, known)
                    self.memory[stmt.buffer][self.at(stmt.buffer, stmt.indices, env)] = value
            elif isinstance(stmt, Scatter):
                self.scatter(stmt, env, scalars, known)
            else:
                assert isinstance(stmt, Sort)
                where = self.at(stmt.buffer, stmt.indices, env | {stmt.var: 0})
                axis = next(k for k, index in enumerate(stmt.indices) if index is stmt.var)
                where = (*where[:axis], slice(None), *where[axis + 1 :])
                keys = self.memory[stmt.keys][where]
                order = np.argsort(keys, kind="stable")
                self.memory[stmt.buffer][where] = order if stmt.positions else keys[order]

    def at(self, buffer: Any, indices: Any, env: dict) -> tuple[int, ...]:
        found = tuple(int(evaluate(index, env)) for index in indices)
        assert len(found) == len(buffer.shape), (buffer, indices)
        assert all(0 <= i < n for i, n in zip(found, buffer.shape, strict=True)), (
            f"{buffer.name}{list(indices)} at {found} of {buffer.shape}"
        )
        return found

    def reduce(self, stmt: Reduce, env: dict, scalars: dict) -> Any:
        values = []
        for point in itertools.product(*(range(v.extent) for v in stmt.vars)):
            inner = env | dict(zip(stmt.vars, point, strict=True))
            values.append(self.value(stmt.value, inner, scalars, {}))
        dtype = DTYPES[stmt.target.dtype]
        array = np.array(values, values[0].dtype if values else dtype)
        if stmt.monoid in ("argmax", "argmin"):
            return np.int64(getattr(np, stmt.monoid)(array))
        if stmt.monoid in ("sum", "prod"):
            wide = np.float32 if dtype == np.float16 else dtype
            return getattr(np, stmt.monoid)(array, dtype=wide).astype(dtype)
        return getattr(np, stmt.monoid)(array)

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
            return np.asarray(scalars[expr])
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
