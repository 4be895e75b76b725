"""Columns reduced a few whole rows at a time: the same bits as in strips, where rows are long."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import diffc
from diffc.codegen.loops.nodes import Expr, Kernel, Load, Par, Reduce, Scalar, Store
from diffc.codegen.tile import streams, tile
from diffc.codegen.tile.streams import ROWS, in_streams
from diffc.ir.index import Var, lt
from tests.codegen.emit.kernels import HOST, apply, buffer, check, const, samples


@pytest.fixture
def everything(monkeypatch):
    """Counts any rows as long, any operand as one from memory."""
    monkeypatch.setattr(streams, "LONG", 0)
    monkeypatch.setattr(streams, "FAR", 0)


def columns(
    rows: int, length: int, dtype: str = "f32", monoid: str = "sum", *, blocks: int = 3
) -> Kernel:
    """Two results for each block of rows: of numbers, and of numbers times what a column has."""
    x, w = buffer("x", dtype, (blocks, rows, length)), buffer("w", dtype, (length,))
    p, q = (buffer(name, dtype, (blocks, length), "out") for name in "pq")
    c, j, r = Var("c", blocks), Var("j", length), Var("r", rows)
    load = Load(x, (c, r, j))
    values: list[Expr] = [load, apply("mul", dtype, load, Load(w, (j,)))]
    folds = [
        Reduce(Scalar(f"s{k}", dtype), monoid, (r,), value, "sequence")
        for k, value in enumerate(values)
    ]
    stores = [Store(b, (c, j), fold.target) for b, fold in zip((p, q), folds, strict=True)]
    return Kernel("columns", (x, w, p, q), (), (Par((c, j), (*folds, *stores)),))


def grouped(kernel: Kernel) -> Par | None:
    (par,) = kernel.body
    assert isinstance(par, Par)
    return in_streams(par, par.vars[-1], HOST)


@pytest.mark.parametrize("monoid", ["sum", "prod", "max", "min"])
@pytest.mark.parametrize("dtype", ["f32", "f64", "bf16", "i32", "u8"])
@pytest.mark.parametrize("rows", [ROWS + 1, 2 * ROWS, 2 * ROWS + 3, 4 * ROWS])
@pytest.mark.usefixtures("everything")
def test_groups_of_rows(rows, dtype, monoid):
    kernel = columns(rows, 75, dtype, monoid)
    found = grouped(kernel)
    assert found is not None
    assert [var.extent for var in found.vars] == [3]
    assert len(found.body) == 1 + (rows >= 2 * ROWS) + bool(rows % ROWS)
    x = samples(dtype, 3 * rows * 75, 0).reshape(3, rows, 75)
    check(kernel, x, samples(dtype, 75, 1))


@pytest.mark.parametrize("rows", [1, 2, ROWS])
@pytest.mark.usefixtures("everything")
def test_few_rows_stay(rows):
    kernel = columns(rows, 75)
    assert grouped(kernel) is None
    check(kernel, samples("f32", 3 * rows * 75, 0).reshape(3, rows, 75), samples("f32", 75, 1))


def test_what_is_near_or_short_stays():
    assert grouped(columns(16, 75)) is None
    assert grouped(columns(16, 4096, blocks=2)) is None
    assert grouped(columns(64, 8192, blocks=16)) is not None
    assert grouped(columns(8192, 64, blocks=16)) is None


@pytest.mark.usefixtures("everything")
def test_other_nests_stay():
    kernel = columns(16, 75)
    (par,) = kernel.body
    c, j = par.vars
    first, second, *stores = par.body
    p, q = (store.buffer for store in stores)
    others = [
        (first, stores[0], second, Store(q, (c, j), stores[1].value, lt(j, 70))),
        (first, stores[0], second, Store(q, (c, j), apply("neg", "f32", stores[1].value))),
        (first, stores[0], Store(q, (c, j), stores[0].value)),
        (Reduce(first.target, "sum", first.vars, first.value, "lanes"), stores[0]),
        (Reduce(first.target, "sum", first.vars, const(2.0), "sequence"), stores[0]),
    ]
    x = samples("f32", 3 * 16 * 75, 0).reshape(3, 16, 75)
    for body in others:
        other = Kernel("other", kernel.params, (), (Par(par.vars, body),))
        assert grouped(other) is None
    check(Kernel("other", (*kernel.params[:2], p, q), (), (Par(par.vars, others[1]),)), x, x[0, 0])


SPECIAL = [0.0, -0.0, np.nan, np.inf, -np.inf, 1e-45, 1.0, -3.0]


@given(st.integers(0, 2**32 - 1), st.sampled_from(["sum", "max", "min", "prod"]))
def test_special_values_give_the_same_bits(seed, name):
    x = np.random.default_rng(seed).choice(np.array(SPECIAL, np.float32), (37, 20))

    def function(x):
        return getattr(np, name)(x, axis=0), getattr(np, name)(x * x, axis=0)

    wanted = diffc.jit(function)(x)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(streams, "LONG", 0)
        patch.setattr(streams, "FAR", 0)
        found = diffc.jit(function)(x)
    for a, b in zip(found, wanted, strict=True):
        is_nan = np.isnan(b)
        np.testing.assert_array_equal(np.isnan(a), is_nan)
        np.testing.assert_array_equal(a.view(np.int32)[~is_nan], b.view(np.int32)[~is_nan])


def test_threads_and_a_large_matrix():
    x = np.random.default_rng(0).standard_normal((1100, 2100)).astype(np.float32)
    function = diffc.jit(lambda x: (np.sum(x, axis=0), np.max(x, axis=0), np.std(x, axis=0)))
    text = function.stages(x).stage("tile").text
    assert "_q in " in text
    results = []
    for threads in (1, 2):
        with diffc.threads(threads):
            results.append(function(x))
    for a, b in zip(*results, strict=True):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(results[0][1], np.max(x, axis=0))
    np.testing.assert_allclose(results[0][0], np.sum(x.astype(float), axis=0), atol=2e-3)


def test_tiling_again_changes_nothing():
    kernel = columns(64, 8192, blocks=16)
    found = tile(kernel, HOST)
    assert len(tile(found, HOST).body) == len(found.body)
