"""Drawn kernels: any access, guard, monoid and order, with any vectors, between guard pages."""

from dataclasses import replace
from math import prod

import numpy as np
import pytest

from diffc.codegen.loops.nodes import (
    Choose,
    Const,
    Expr,
    IndexValue,
    Kernel,
    Load,
    Par,
    Reduce,
    Scalar,
    Stmt,
    Store,
    Sweep,
    Vector,
)
from diffc.ir.index import TRUE, Dim, Guard, Var, bounds, eq, ge, lt, ravel
from tests.codegen.emit.kernels import apply, buffer, check

EXTENTS = (1, 2, 3, 5, 8, 16, 17, 33, 40, 70)


class Draw:
    """Draws one kernel; every access is in bounds by its range or by the guard around it."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.inputs: list = []
        self.outputs: list = []
        self.names = 0

    def pick(self, *choices):
        return choices[self.rng.integers(len(choices))]

    def fresh(self, stem: str) -> str:
        self.names += 1
        return f"{stem}{self.names}"

    def var(self) -> Var:
        return Var(self.fresh("v"), int(self.pick(*EXTENTS)))

    def index(self, vars: tuple[Var, ...]) -> Dim:
        """An index expression with values from 0 up."""
        a, b = self.pick(*vars), self.pick(*vars)
        k = int(self.pick(2, 3, 4, 16))
        size = a.extent
        return self.pick(
            a,
            a,
            size - 1 - a,
            k * a + 1,
            (a + 3) // k,
            (a + 5) % k,
            a + b,
            ravel((a, b), (a.extent, b.extent)) // k,
            ravel((a, b), (a.extent, b.extent)) % k,
            2,
        )

    def guard(self, vars: tuple[Var, ...]) -> Guard:
        index = self.index(vars)
        _, high = bounds(index)
        middle = (high or 0) // 2
        other = self.pick(*vars)
        return self.pick(
            ge(index, middle), lt(index, middle + 1), eq(index, 1), lt(other, 3)
        ) & self.pick(TRUE, ge(other, 1))

    def load(self, vars: tuple[Var, ...], within: Guard = TRUE) -> Expr:
        """A load; one whose first index is shifted needs its guard."""
        indices = [self.index(vars) for _ in range(self.rng.integers(1, 3))]
        shape = [(bounds(index)[1] or 0) + 1 for index in indices]
        made = buffer(self.fresh("x"), "f32", tuple(shape))
        self.inputs.append(made)
        return Load(made, tuple(indices))

    def guarded(self, vars: tuple[Var, ...]) -> Expr:
        """A load that leaves its buffer unless the guard holds."""
        var = self.pick(*vars)
        shift, size = int(self.rng.integers(0, 4)), int(self.rng.integers(1, var.extent + 1))
        made = buffer(self.fresh("x"), "f32", (size,))
        self.inputs.append(made)
        stride = int(self.pick(1, 1, -1, 2))
        index = stride * var + (size - 1 if stride < 0 else -shift)
        inside = ge(index, 0) & lt(index, size)
        if self.pick(True, False):
            inside = inside & self.guard(vars)
        return Choose(inside, Load(made, (index,)), self.value(vars, 0))

    def value(self, vars: tuple[Var, ...], depth: int, *scalars: Expr) -> Expr:
        kind = self.rng.integers(0, 7 if depth else 4)
        if kind == 0:
            return Const("f32", float(self.rng.integers(-3, 4)))
        if kind == 1:
            return IndexValue("f32", self.index(vars))
        if kind in (2, 3):
            return self.pick(*scalars) if scalars and kind == 2 else self.load(vars)
        if kind == 4:
            return self.guarded(vars)
        left, right = (self.value(vars, depth - 1, *scalars) for _ in range(2))
        if kind == 5:
            return Choose(self.guard(vars), left, right)
        return apply(self.pick("add", "mul", "maximum", "sub"), "f32", left, right)

    def reduce(
        self, vars: tuple[Var, ...], inner: tuple[Var, ...], order: str, scalars: list[Expr]
    ) -> Reduce:
        monoid = self.pick("sum", "max", "min", "prod", "argmax", "argmin")
        dtype = self.pick("f32", "f32", "f32", "f64", "i32")
        value = self.value((*vars, *inner), self.pick(2, 2, 5), *scalars)
        if dtype != "f32":
            value = apply("convert", dtype, apply("maximum", "f32", value, Const("f32", -9.0)))
        target = Scalar(self.fresh("s"), "i64" if monoid.startswith("arg") else dtype)
        return Reduce(target, monoid, inner, value, order)

    def store(self, vars: tuple[Var, ...], scalars: list[Expr]) -> Store:
        """Stores to each element of an output once, axes in any order."""
        order = [int(axis) for axis in self.rng.permutation(len(vars))]
        places = tuple(self.pick(v, v.extent - 1 - v) for v in (vars[axis] for axis in order))
        made = buffer(self.fresh("y"), "f32", tuple(vars[axis].extent for axis in order), "out")
        self.outputs.append(made)
        return Store(made, places, self.value(vars, 3, *scalars))

    def kernel(self) -> Kernel:
        vars = tuple(self.var() for _ in range(self.rng.integers(1, 4)))
        body: list[Stmt] = []
        scalars: list[Expr] = []
        for _ in range(self.rng.integers(0, 3)):
            inner = tuple(self.var() for _ in range(self.rng.integers(1, 3)))
            order = self.pick("lanes", "sequence")
            count = self.pick(1, 1, 2, 4)
            found = [self.reduce(vars, inner, order, scalars) for _ in range(count)]
            stores = tuple(self.store((*vars, *inner), scalars) for _ in range(self.pick(0, 1, 2)))
            scalars += [apply("convert", "f32", reduce.target) for reduce in found]
            parts = (*found, *stores)
            body.append(parts[0] if len(parts) == 1 else Sweep(inner, parts))
        for _ in range(self.rng.integers(1, 4)):
            more = (self.var(),) if scalars and self.pick(True, False) else ()
            guard = self.guard((*vars, *more)) if self.pick(True, False, False) else TRUE
            store = replace(self.store((*vars, *more), scalars), guard=guard)
            body.append(Par(more, (store,)) if more else store)
        how = self.pick(None, None, Vector(8), Vector(16), Vector(32))
        return Kernel("drawn", (*self.inputs, *self.outputs), (), (Par(vars, tuple(body), how),))


#: of a loop and those within it
MOST_POINTS = 400_000


@pytest.mark.parametrize("seed", range(70))
def test_drawn_kernels(seed: int) -> None:
    draw = Draw(seed)
    kernel = draw.kernel()
    points = [prod(var.extent for var in kernel.body[0].vars) * 20]
    if max(points + [prod(b.shape) for b in kernel.params]) > MOST_POINTS:
        pytest.skip("too many points for the interpreter")
    arrays = [
        np.round(draw.rng.standard_normal(b.shape) * 4).astype(np.float32) for b in draw.inputs
    ]
    with np.errstate(all="ignore"):
        check(kernel, *arrays)
