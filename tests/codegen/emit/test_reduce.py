"""Reductions: all monoids, both orders, every way to run them, bit for bit."""

import itertools

import numpy as np
import pytest

from diffc.codegen.loops.nodes import (
    Contract,
    IndexValue,
    Kernel,
    Load,
    Par,
    Reduce,
    Scalar,
    Store,
    Vector,
)
from diffc.codegen.targets import X86_AVX2, X86_SSE2
from diffc.ir.index import Var
from tests.codegen.emit.kernels import HOST, apply, buffer, check, compiled, const, samples

MONOIDS = ("sum", "prod", "max", "min", "argmax", "argmin")
LENGTHS = (0, 1, 2, 3, 15, 16, 17, 63, 64, 65, 100, 128, 333)


def f32(*shape: int, seed: int = 3) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def rows_kernel(rows: int, length: int, dtype: str, monoids, order: str, how=None) -> Kernel:
    """Reduces the rows of [rows, length]."""
    x, i, r = buffer("x", dtype, (rows, length)), Var("i", rows), Var("r", length)
    outs, body, stores = [], [], []
    for monoid in monoids:
        result = "i64" if monoid.startswith("arg") else dtype
        out, scalar = buffer(monoid, result, (rows,), "out"), Scalar(monoid, result)
        outs.append(out)
        body.append(Reduce(scalar, monoid, (r,), Load(x, (i, r)), order))
        stores.append(Store(out, (i,), scalar))
    return Kernel("rows", (x, *outs), (), (Par((i,), (*body, *stores), how),))


def columns_kernel(length: int, columns: int, dtype: str, monoids, order: str, how) -> Kernel:
    """Reduces the columns of [length, columns]."""
    x, j, r = buffer("x", dtype, (length, columns)), Var("j", columns), Var("r", length)
    outs, body, stores = [], [], []
    for monoid in monoids:
        result = "i64" if monoid.startswith("arg") else dtype
        out, scalar = buffer(monoid, result, (columns,), "out"), Scalar(monoid, result)
        outs.append(out)
        body.append(Reduce(scalar, monoid, (r,), Load(x, (r, j)), order))
        stores.append(Store(out, (j,), scalar))
    return Kernel("columns", (x, *outs), (), (Par((j,), (*body, *stores), how),))


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("order", ["lanes", "sequence"])
def test_rows(length: int, order: str) -> None:
    x = f32(3, length)
    check(rows_kernel(3, length, "f32", MONOIDS, order), x)
    check(rows_kernel(3, length, "f32", MONOIDS, order), x, tiled=False)


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("dtype", ["f32", "f64"])
def test_long_values_follow_the_same_order(length: int, dtype: str) -> None:
    """A long body is written once; the parts take turns. Many exact ops make it long."""
    x, i, r = buffer("x", dtype, (3, length)), Var("i", 3), Var("r", length)
    value = Load(x, (i, r))
    for step in range(30):
        value = apply("mul", dtype, apply("sub", dtype, value, const(0.01 * step, dtype)), value)
        value = apply("minimum", dtype, value, const(1.5, dtype))
    outs, body, stores = [], [], []
    for monoid in MONOIDS:
        result = "i64" if monoid.startswith("arg") else dtype
        out, scalar = buffer(monoid, result, (3,), "out"), Scalar(monoid, result)
        outs.append(out)
        body.append(Reduce(scalar, monoid, (r,), value))
        stores.append(Store(out, (i,), scalar))
    kernel = Kernel("long", (x, *outs), (), (Par((i,), (*body, *stores)),))
    check(kernel, f32(3, length).astype({"f32": "f4", "f64": "f8"}[dtype]))


@pytest.mark.parametrize("length", [0, 1, 2, 5, 16, 17, 64, 65, 200])
@pytest.mark.parametrize("order", ["lanes", "sequence"])
def test_columns_have_the_same_bits(length: int, order: str) -> None:
    """A lane's own tree, its array on the stack, and its plain loop follow the same order."""
    x = f32(length, 37)
    check(columns_kernel(length, 37, "f32", MONOIDS, order, None), x)
    check(columns_kernel(length, 37, "f32", MONOIDS, order, Vector(16)), x, tiled=False)
    check(columns_kernel(length, 37, "f32", MONOIDS, order, None), x, tiled=False)


@pytest.mark.parametrize("dtype", ["bf16", "f16", "f64", "i8", "i32", "i64", "u8", "u64"])
@pytest.mark.parametrize("order", ["lanes", "sequence"])
def test_dtypes(dtype: str, order: str) -> None:
    for length in (1, 9, 130, 300):
        values = samples(dtype, 2 * length, 5).reshape(2, length)
        check(rows_kernel(2, length, dtype, MONOIDS, order), values)
        check(
            columns_kernel(length, 2, dtype, MONOIDS, order, Vector(2)),
            np.ascontiguousarray(values.T),
        )


@pytest.mark.parametrize("length", [0, 1, 7, 64, 65, 300])
@pytest.mark.parametrize("order", ["lanes", "sequence"])
def test_any_and_all(length: int, order: str) -> None:
    rng = np.random.default_rng(1)
    for density in (0.0, 0.02, 0.98, 1.0):
        values = rng.random((4, length)) < density
        check(rows_kernel(4, length, "bool", ("any", "all", "max", "min"), order), values)


@pytest.mark.parametrize("length", [1, 5, 40, 130])
def test_nan_and_ties(length: int) -> None:
    for places in itertools.combinations((0, length // 2, length - 1), 2):
        for value in (np.nan, 9.0, -9.0, -np.inf, np.inf):
            x = f32(1, length)
            x[0, list(places)] = value
            for order in ("lanes", "sequence"):
                check(rows_kernel(1, length, "f32", MONOIDS[2:], order), x)
    flat = np.full((1, length), -np.inf, np.float32)
    check(rows_kernel(1, length, "f32", MONOIDS[2:], "lanes"), flat)
    check(rows_kernel(1, length, "f32", MONOIDS[2:], "lanes"), -flat)


@pytest.mark.parametrize("target", [X86_AVX2, X86_SSE2])
def test_order_of_other_targets(target) -> None:
    if HOST.family != target.family or HOST.vector_bytes < target.vector_bytes:
        pytest.skip("another machine's code")
    for length in (7, 33, 100):
        check(rows_kernel(2, length, "f32", MONOIDS, "lanes"), f32(2, length), target=target)
        check(
            columns_kernel(length, 9, "f64", MONOIDS, "lanes", None),
            f32(length, 9).astype("f8"),
            target=target,
        )


def test_documented_order() -> None:
    """The order in the words of the loop IR, written out once more."""
    x, width = f32(1, 333), 4 * HOST.lanes("f32")
    partials = np.zeros(width, np.float32)
    for term, value in enumerate(x[0]):
        partials[term % width] += value
    while width > 1:
        width //= 2
        partials = partials[:width] + partials[width:]
    got = np.zeros(1, np.float32)
    compiled(rows_kernel(1, 333, "f32", ("sum",), "lanes"))(x, got)
    assert got[0] == partials[0]


@pytest.mark.parametrize("shape", [(3, 2, 5), (2, 4, 16), (5, 3, 7), (1, 1, 1), (4, 0, 3)])
@pytest.mark.parametrize("tiled", [True, False])
def test_several_axes(shape: tuple[int, int, int], tiled: bool) -> None:
    """Sums over (0, 2) and over (0, 1) of three axes."""
    a, b, c = shape
    x = buffer("x", "f32", shape)
    i, j, k = Var("i", a), Var("j", b), Var("k", c)
    middle, last = buffer("middle", "f32", (b,), "out"), buffer("last", "f32", (c,), "out")
    s, t, at = Scalar("s", "f32"), Scalar("t", "f32"), Scalar("at", "i64")
    where = buffer("where", "i64", (b,), "out")
    load = Load(x, (i, j, k))
    kernel = Kernel(
        "axes",
        (x, middle, where, last),
        (),
        (
            Par(
                (j,),
                (
                    Reduce(s, "sum", (i, k), load),
                    Reduce(at, "argmax", (i, k), load),
                    Store(middle, (j,), s),
                    Store(where, (j,), at),
                ),
            ),
            Par((k,), (Reduce(t, "sum", (i, j), load, "sequence"), Store(last, (k,), t))),
        ),
    )
    check(kernel, f32(*shape), tiled=tiled)


def test_chained_statistics() -> None:
    """Mean and variance of a row, then the row normalized; the second sum uses the first."""
    n = 50
    x, y = buffer("x", "f32", (7, n)), buffer("y", "f32", (7, n), "out")
    i, j, r = Var("i", 7), Var("j", n), Var("r", n)
    mean, var = Scalar("mean", "f32"), Scalar("var", "f32")
    count = IndexValue("f32", n)
    centred = apply("sub", "f32", Load(x, (i, r)), apply("div", "f32", mean, count))
    out = apply("sub", "f32", Load(x, (i, j)), apply("div", "f32", mean, count))
    scale = apply("sqrt", "f32", apply("div", "f32", var, count))
    body = (
        Reduce(mean, "sum", (r,), Load(x, (i, r))),
        Reduce(var, "sum", (r,), apply("mul", "f32", centred, centred)),
        Par((j,), (Store(y, (i, j), apply("div", "f32", out, scale)),)),
    )
    check(Kernel("norm", (x, y), (), (Par((i,), body),)), f32(7, n))


@pytest.mark.parametrize("shape", [(3, 4, 5), (1, 7, 33), (5, 0, 2), (2, 40, 17)])
@pytest.mark.parametrize("dtype", ["f32", "f64", "i32"])
def test_plain_contraction(shape: tuple[int, int, int], dtype: str) -> None:
    m, k, n = shape
    x, w = buffer("x", dtype, (m, k)), buffer("w", dtype, (k, n))
    y = buffer("y", dtype, (m, n), "out")
    i, j, r = Var("i", m), Var("j", n), Var("r", k)
    acc = Scalar("acc", dtype)
    body = (Contract(acc, (r,), Load(x, (i, r)), Load(w, (r, j))), Store(y, (i, j), acc))
    kernel = Kernel("dot", (x, w, y), (), (Par((i, j), body, Vector(16)),))
    small = [
        np.round(f32(*s) * 8).astype({"f32": "f4", "f64": "f8", "i32": "i4"}[dtype])
        for s in ((m, k), (k, n))
    ]
    check(kernel, *small, tiled=False)
