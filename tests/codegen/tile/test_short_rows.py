"""Rows that fill no vector run side by side, and come to the same."""

import itertools
from dataclasses import replace
from math import prod

import numpy as np
import pytest

import diffc
from diffc.codegen.emit.kernel import write_kernel
from diffc.codegen.emit.text import ModuleText
from diffc.codegen.loops.lanes import lane_offsets
from diffc.codegen.loops.nodes import (
    Choose,
    Expr,
    Kernel,
    Load,
    Par,
    Reduce,
    Scalar,
    Store,
    Sweep,
    Vector,
)
from diffc.codegen.targets import X86_AVX2, X86_AVX512
from diffc.codegen.tile import tile
from diffc.ir.index import Var, eq, evaluate, lt
from diffc.runtime import pool
from tests.codegen.emit.kernels import apply, buffer, check, const, samples

SIZES = [(16, 3), (17, 3), (40, 1), (7, 5), (33, 7), (50, 10), (8, 12), (5, 24), (64, 2), (9, 17)]


def scaled(rows: int, columns: int, dtype: str = "f32", guard: bool = False) -> Kernel:
    """``z[i, j] = x[i, j] * g[j] + r[i]``."""
    x, z = buffer("x", dtype, (rows, columns)), buffer("z", dtype, (rows, columns), "out")
    g, r = buffer("g", dtype, (columns,)), buffer("r", dtype, (rows,))
    i, j = Var("i", rows), Var("j", columns)
    product = apply("mul", dtype, Load(x, (i, j)), Load(g, (j,)))
    value = apply("add", dtype, product, Load(r, (i,)))
    where = {"guard": lt(j, 2)} if guard else {}
    return Kernel("scaled", (x, g, r, z), (), (Par((i, j), (Store(z, (i, j), value, **where),)),))


def inputs_of(kernel: Kernel) -> list[np.ndarray]:
    given = [b for b in kernel.params if b.mode == "in"]
    return [samples(b.dtype, prod(b.shape), k).reshape(b.shape) for k, b in enumerate(given)]


@pytest.mark.parametrize("target", [X86_AVX512, X86_AVX2], ids=["avx512", "avx2"])
@pytest.mark.parametrize("dtype", ["f32", "f64", "bf16", "f16", "i8", "i32", "u64"])
@pytest.mark.parametrize(("rows", "columns"), SIZES)
def test_columns_and_rows_that_repeat(rows, columns, dtype, target):
    kernel = scaled(rows, columns, dtype)
    check(kernel, *inputs_of(kernel), target=target)


@pytest.mark.parametrize(("rows", "columns"), SIZES)
def test_guards(rows, columns):
    kernel = scaled(rows, columns, guard=True)
    check(kernel, *inputs_of(kernel))


def test_three_vectors_hold_sixteen_rows_of_three():
    first, rest = tile(scaled(100, 3), X86_AVX512).body
    assert isinstance(first, Par)
    assert isinstance(first.how, Vector)
    assert first.how.lanes == 16
    assert [var.extent for var in first.vars] == [6, 16]
    assert len(first.body) == 3
    assert isinstance(rest, Par)
    assert [var.extent for var in rest.vars] == [4, 3]


@pytest.mark.parametrize(("rows", "columns"), [(100, 16), (100, 15), (100, 17), (3, 3), (100, 33)])
def test_full_rows_and_few_rows_stay(rows, columns):
    (only,) = tile(scaled(rows, columns), X86_AVX512).body
    assert isinstance(only, Par)
    assert [var.extent for var in only.vars] == [rows, columns]


@pytest.mark.parametrize(("rows", "columns"), SIZES)
def test_sums_over_rows(rows, columns):
    """``s[i, j] = sum over k of (x[k, i, j] - g[j])``, one after the other, and what they read."""
    x, s = buffer("x", "f32", (9, rows, columns)), buffer("s", "f32", (rows, columns), "out")
    y, g = buffer("y", "f32", (9, rows, columns), "out"), buffer("g", "f32", (columns,))
    k, i, j = Var("k", 9), Var("i", rows), Var("j", columns)
    value = apply("sub", "f32", Load(x, (k, i, j)), Load(g, (j,)))
    total = Scalar("t", "f32")
    add = Reduce(total, "sum", (k,), value, "sequence")
    store = Store(s, (i, j), apply("mul", "f32", total, Load(g, (j,))))
    plain = Kernel("k", (x, g, s), (), (Par((i, j), (add, store)),))
    check(plain, *inputs_of(plain))
    sweep = Sweep((k,), (add, Store(y, (k, i, j), value)))
    both = Kernel("k", (x, g, s, y), (), (Par((i, j), (sweep, store)),))
    check(both, *inputs_of(both))


@pytest.mark.parametrize("count", [1, 5, 63, 64, 65, 200, 1000])
@pytest.mark.parametrize("columns", [2, 3, 5, 7, 12])
@pytest.mark.parametrize("monoid", ["sum", "max", "argmax"])
def test_folds_of_short_rows(count, columns, monoid):
    """What repeats with the rows is shuffled by period, and gathered where that is long."""
    x, g = buffer("x", "f32", (count, columns)), buffer("g", "f32", (columns,))
    dtype = "i64" if monoid == "argmax" else "f32"
    out = buffer("out", dtype, (), "out")
    i, j = Var("i", count), Var("j", columns)
    value = apply("mul", "f32", Load(x, (i, j)), Load(g, (j,)))
    total = Scalar("t", dtype)
    kernel = Kernel(
        "k", (x, g, out), (), (Reduce(total, monoid, (i, j), value), Store(out, (), total))
    )
    check(kernel, *inputs_of(kernel))


def test_offsets_of_lanes():
    i, v = Var("i", 100), Var("v", 16)
    for index in (48 * i + v, (v + 16) // 3, i + (v + 5) % 7, 3 * ((v + 4) // 3) + i, 7 + 0 * v):
        start, offsets = lane_offsets(index, v, 16)
        assert min(offsets) == 0
        for lane, at in itertools.product(range(16), (0, 99)):
            wanted = evaluate(index, {i: at, v: lane})
            assert evaluate(start, {i: at}) + offsets[lane] == wanted
    assert lane_offsets((i + v) // 3, v, 16) is None


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("channels", [1, 2, 3, 5, 10, 24])
def test_batch_norm_of_few_channels(channels, threads):
    def norm(x, gain, shift):
        centered = x - np.mean(x, axis=(0, 1))
        return np.sum((centered / np.sqrt(np.var(x, axis=(0, 1)) + 1e-5) * gain + shift) ** 3)

    rng = np.random.default_rng(channels)
    args = rng.normal(size=(60, 61, channels)), rng.normal(size=channels), rng.normal(size=channels)
    with pool.use_threads(threads):
        value, cts = diffc.value_and_grad(norm, argnums=(0, 1, 2))(*args)
    np.testing.assert_allclose(value, norm(*args), rtol=1e-12)
    for position, ct in enumerate(cts):
        direction = rng.normal(size=args[position].shape)
        ends = [
            norm(*args[:position], args[position] + step * direction, *args[position + 1 :])
            for step in (1e-6, -1e-6)
        ]
        np.testing.assert_allclose(np.sum(ct * direction), (ends[0] - ends[1]) / 2e-6, rtol=1e-6)


def crossed(rows: int, *, fold: bool) -> Kernel:
    """Each of three columns chooses other elements of its row, as a cross product does."""
    x, z = buffer("x", "f32", (rows, 3)), buffer("z", "f32", (rows, 3), "out")
    total = buffer("total", "f32", (), "out")
    i, j = Var("i", rows), Var("j", 3)
    value: Expr = apply("sub", "f32", Load(x, (i, 1)), Load(x, (i, 0)))
    value = Choose(eq(j, 1), apply("mul", "f32", Load(x, (i, 2)), Load(x, (i, j))), value)
    value = Choose(lt(j, 1), Load(x, (i, 2)), value)
    if not fold:
        return Kernel("crossed", (x, z), (), (Par((i, j), (Store(z, (i, j), value),)),))
    s = Scalar("s", "f32")
    sweep = Sweep((i, j), (Reduce(s, "sum", (i, j), value), Store(z, (i, j), value)))
    return Kernel("crossed", (x, z, total), (), (sweep, Store(total, (), s)))


@pytest.mark.parametrize("target", [X86_AVX512, X86_AVX2], ids=["avx512", "avx2"])
@pytest.mark.parametrize("fold", [False, True])
@pytest.mark.parametrize("rows", [1, 5, 16, 21, 64, 100, 1000])
def test_choices_by_column(rows, fold, target):
    kernel = crossed(rows, fold=fold)
    check(kernel, *inputs_of(kernel), target=target)


def test_choices_that_differ_from_vector_to_vector_stay():
    kernel = crossed(100, fold=False)
    (par,) = kernel.body
    (store,) = par.body
    first, _ = tile(kernel, X86_AVX512).body
    assert first.how.lanes == 16 and len(first.body) == 3
    some = replace(store, value=Choose(lt(par.vars[0], 50), store.value, const(0.0)))
    other = replace(kernel, body=(replace(par, body=(some,)),))
    check(other, *inputs_of(other))


@pytest.mark.parametrize("fold", [False, True])
def test_choices_by_column_gather_nothing(fold):
    text = ModuleText()
    write_kernel(text, tile(crossed(960, fold=fold), X86_AVX512), "crossed", X86_AVX512)
    assert "gather" not in text.text()


def test_what_a_choice_would_read_outside_is_not_read():
    """Lanes are picked only where all of them lie inside."""
    x, z = buffer("x", "f32", (33,)), buffer("z", "f32", (16, 3), "out")
    i, j = Var("i", 16), Var("j", 3)
    value = Choose(lt(j, 2), Load(x, (2 * i + j,)), const(1.0))
    kernel = Kernel("outside", (x, z), (), (Par((i, j), (Store(z, (i, j), value),)),))
    check(kernel, *inputs_of(kernel))
