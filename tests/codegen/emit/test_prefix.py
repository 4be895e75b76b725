"""Cumulative folds: all monoids, both orders, along rows and over them, bit for bit."""

import numpy as np
import pytest

from diffc.codegen.loops.nodes import Kernel, Load, Par, Prefix, Vector
from diffc.codegen.targets import X86_AVX2, X86_SSE2
from diffc.ir.index import Var
from tests.codegen.emit.kernels import apply, buffer, check, compiled, const, samples

MONOIDS = ("sum", "prod", "max", "min")
LENGTHS = (0, 1, 2, 7, 8, 9, 16, 17, 31, 64, 100, 333)
DTYPES = ("f32", "f64", "i32", "i64", "u8")


def rows_kernel(rows, length, dtype, monoid, order, reverse=False, stored=None) -> Kernel:
    """Along the rows of [rows, length]; of twice the elements, so that something is computed."""
    x, y = buffer("x", dtype, (rows, length)), buffer("y", stored or dtype, (rows, length), "out")
    i, t = Var("i", rows), Var("t", length)
    at = (i, length - 1 - t if reverse else t)
    value = apply("mul", dtype, Load(x, at), const(2, dtype))
    return Kernel("rows", (x, y), (), (Par((i,), (Prefix(y, at, t, monoid, value, order),)),))


def columns_kernel(length, columns, dtype, monoid, order="sequence", how=None) -> Kernel:
    """Along the columns of [length, columns]."""
    x, y = buffer("x", dtype, (length, columns)), buffer("y", dtype, (length, columns), "out")
    j, t = Var("j", columns), Var("t", length)
    prefix = Prefix(y, (t, j), t, monoid, Load(x, (t, j)), order)
    return Kernel("columns", (x, y), (), (Par((j,), (prefix,), how),))


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("order", ["lanes", "sequence"])
@pytest.mark.parametrize("monoid", MONOIDS)
def test_rows(length, order, monoid):
    for dtype in DTYPES:
        x = samples(dtype, 3 * length + 40)[-3 * length :][: 3 * length].reshape(3, length)
        for reverse in (False, True):
            kernel = rows_kernel(3, length, dtype, monoid, order, reverse)
            check(kernel, x)
            check(kernel, x, tiled=False)


@pytest.mark.parametrize("order", ["lanes", "sequence"])
@pytest.mark.parametrize("monoid", MONOIDS)
@pytest.mark.parametrize("dtype", ["f32", "f64"])
def test_special_values(order, monoid, dtype):
    x = np.random.default_rng(1).permutation(samples(dtype, 40)).reshape(1, 40)
    check(rows_kernel(1, 40, dtype, monoid, order), x)
    zeros = np.where(np.arange(40) % 3, 0.0, -0.0).astype(x.dtype).reshape(1, 40)
    check(rows_kernel(1, 40, dtype, monoid, order), zeros)
    check(rows_kernel(1, 40, dtype, monoid, order), -np.abs(zeros))


@pytest.mark.parametrize("length", [1, 5, 40])
@pytest.mark.parametrize("columns", [1, 3, 16, 70, 300])
def test_columns(length, columns):
    for dtype in DTYPES:
        x = samples(dtype, length * columns).reshape(length, columns)
        for monoid in MONOIDS:
            check(columns_kernel(length, columns, dtype, monoid), x)
        check(columns_kernel(length, columns, dtype, "sum", how=Vector(8)), x, tiled=False)
        check(columns_kernel(length, columns, dtype, "sum", "lanes"), x)


@pytest.mark.parametrize("target", [X86_AVX2, X86_SSE2])
def test_other_targets_have_other_blocks(target):
    for dtype in ("f32", "f64", "i64"):
        x = samples(dtype, 3 * 50).reshape(3, 50)
        check(rows_kernel(3, 50, dtype, "sum", "lanes"), x, target=target)


def test_halves_are_kept_in_f32():
    x, y = buffer("x", "f16", (2, 50)), buffer("y", "f16", (2, 50), "out")
    i, t = Var("i", 2), Var("t", 50)
    value = apply("convert", "f32", Load(x, (i, t)))
    for order in ("lanes", "sequence"):
        body = (Par((i,), (Prefix(y, (i, t), t, "sum", value, order),)),)
        values = np.random.default_rng(0).standard_normal((2, 50)).astype(np.float16)
        check(Kernel("half", (x, y), (), body), values)


@pytest.mark.parametrize("order", ["lanes", "sequence"])
def test_the_result_may_lie_in_the_operand(order):
    x = samples("f32", 3 * 37).reshape(3, 37)
    apart, together = np.zeros_like(x), x.copy()
    function = compiled(rows_kernel(3, 37, "f32", "sum", order), aliased=True)
    function(x, apart)
    function(together, together)
    np.testing.assert_array_equal(apart, together)
