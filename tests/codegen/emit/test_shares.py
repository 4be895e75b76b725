"""Kernels that threads share: the same bits as with one thread, and nothing outside of buffers."""

import numpy as np
import pytest

from diffc.codegen.loops.contraction import column_tiles, contraction, is_contraction
from diffc.codegen.loops.module import is_shared
from diffc.codegen.loops.nodes import GatherLoad, Kernel, Load, Par, Reduce, Scalar, Sort, Store
from diffc.codegen.loops.text import parse_kernel, print_kernel
from diffc.codegen.tile import tile
from diffc.codegen.tile.shares import share
from diffc.ir.index import Var
from diffc.runtime import pool
from tests.codegen.emit import test_contract as contract
from tests.codegen.emit import test_drawn as drawn
from tests.codegen.emit.contractions import einsum, how_of, operands, tiled_as
from tests.codegen.emit.kernels import HOST, apply, buffer, check, compiled, const, same_bits
from tests.shares import needs_pool, shared_anyway, steady

__all__ = ["shared_anyway", "steady"]

pytestmark = [needs_pool, pytest.mark.usefixtures("shared_anyway")]


@pytest.fixture(autouse=True, params=[1, 3])
def threads(request):
    with pool.use_threads(request.param):
        yield request.param


def f32(*shape: int, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("seed", range(60))
def test_drawn_kernels(seed):
    draw = drawn.Draw(seed + 1000)
    kernel = draw.kernel()
    if np.prod([var.extent for var in kernel.body[0].vars]) > 5000:
        pytest.skip("too many points for the interpreter")
    arrays = [
        np.round(draw.rng.standard_normal(b.shape) * 4).astype(np.float32) for b in draw.inputs
    ]
    with np.errstate(all="ignore"):
        check(kernel, *arrays)
    tiled = tile(kernel, HOST)
    assert print_kernel(parse_kernel(print_kernel(tiled))) == print_kernel(tiled)


def test_most_drawn_kernels_are_shared():
    kernels = [tile(drawn.Draw(seed + 1000).kernel(), HOST) for seed in range(60)]
    assert sum(map(is_shared, kernels)) > 45
    parts = [stmt for k in kernels for stmt in k.body if is_shared(k)]
    units = {part.split.over for part in parts if part.split is not None}
    assert units == {"points", "vectors"}


@pytest.mark.parametrize("size", [31, 32, 33, 64, 65, 100, 1000])
@pytest.mark.parametrize("length", [1, 30])
def test_the_rest_of_vectors_belongs_to_the_last_share(size, length):
    """Long bodies have one copy with a mask, short ones a second one for the rest."""
    x, y, i = buffer("x", "f32", (size,)), buffer("y", "f32", (size,), "out"), Var("i", size)
    value = Load(x, (i,))
    for _ in range(length):
        value = apply("mul", "f32", apply("add", "f32", value, const(0.5)), const(0.75))
    check(Kernel("map", (x, y), (), (Par((i,), (Store(y, (i,), value),)),)), abs(f32(size)))


@pytest.mark.parametrize("layout", contract.LAYOUTS)
@pytest.mark.parametrize(
    "shape", [(70, 40, 1), (1, 40, 70), (2, 33, 130), (130, 1, 37), (50, 64, 16)]
)
def test_layouts_and_edges(shape, layout):
    contract.check_einsum(layout, dict(zip("mkn", shape, strict=True)))


@pytest.mark.parametrize("spec", contract.SPECS)
def test_many_axes(spec):
    contract.test_many_axes(spec)


@pytest.mark.parametrize("text", contract.BLOCKS)
@pytest.mark.parametrize("shape", [(31, 45, 83), (7, 64, 16), (12, 5, 33), (40, 45, 17)])
@pytest.mark.parametrize("layout", contract.LAYOUTS)
def test_blocks_keep_the_bits(text, shape, layout):
    kernel = einsum(layout, dict(zip("mkn", shape, strict=True)))
    sizes = {name: int(value) for name, value in (item.split("=") for item in text.split())}
    must = how_of(kernel).pack_rhs or layout.split(",")[1][0] == "n"
    forced = tiled_as(
        kernel, **{"pack_rhs": must, "dot": 0, **sizes, **({"pack_rhs": 1} if must else {})}
    )
    shared = share(forced, HOST)
    arrays = operands(kernel)
    want = contract.run(kernel, arrays, tiled=False)[-1]
    same_bits(contract.run(shared, arrays, tiled=False)[-1], want)
    nest = next(stmt for stmt in forced.body if is_contraction(stmt))
    assert is_shared(shared) or sum(span.count for span in column_tiles(contraction(nest))) == 1


@pytest.mark.parametrize("text", ["rows=3 vectors=1", "rows=3 vectors=2 pack_rhs=1"])
@pytest.mark.parametrize("batches", [2, 9])
def test_batches(text, batches):
    """Few batches: tiles are shared in each; many: the batches are, with panels of their own."""
    for spec in ("bij,bjk->bik", "bij,jk->bik", "ij,bjk->bik", "abij,bjk->abik"):
        kernel = einsum(spec, {"a": 3, "b": batches, "i": 19, "j": 21, "k": 37})
        sizes = {name: int(value) for name, value in (item.split("=") for item in text.split())}
        shared = share(tiled_as(kernel, **{"pack_rhs": 0, **sizes}), HOST)
        arrays = operands(kernel)
        want = contract.run(kernel, arrays, tiled=False)[-1]
        same_bits(contract.run(shared, arrays, tiled=False)[-1], want)
        assert is_shared(shared)


def test_dot_tiles():
    for spec in ("mk,nk->mn", "bmk,bnk->bmn"):
        kernel = einsum(spec, {"b": 9, "m": 13, "k": 41, "n": 21})
        sizes = {"rows": 2, "vectors": 3, "unroll": 2, "dot": True, "pack_rhs": False}
        forced, arrays = tiled_as(kernel, **sizes), operands(kernel)
        shared = share(forced, HOST)
        assert is_shared(shared)
        want = contract.run(forced, arrays, tiled=False)[-1]
        same_bits(contract.run(shared, arrays, tiled=False)[-1], want)


def test_scalars_of_the_kernel_reach_the_shares():
    x, y, i, r = (
        buffer("x", "f32", (40, 50)),
        buffer("y", "f32", (40, 50), "out"),
        Var("i", 40),
        Var("r", 2000),
    )
    any_of = Scalar("b", "bool")
    total, j = Scalar("s", "f32"), Var("j", 50)
    flat = Load(x, (r // 50, r % 50))
    body = (
        Reduce(total, "sum", (r,), flat),
        Reduce(any_of, "any", (r,), apply("gt", "bool", flat, const(1.0))),
        Par(
            (i, j),
            (
                Store(
                    y,
                    (i, j),
                    apply(
                        "select", "f32", any_of, apply("mul", "f32", total, Load(x, (i, j))), total
                    ),
                ),
            ),
        ),
    )
    kernel = Kernel("scaled", (x, y), (), body)
    assert is_shared(tile(kernel, HOST))
    check(kernel, f32(40, 50))


def test_scratch_of_a_row_is_private():
    """Rows wait in scratch between two loops; each share has a row of its own."""
    x, y = buffer("x", "f32", (60, 70)), buffer("y", "f32", (60, 70), "out")
    row, i, j = buffer("row", "f32", (70,), "scratch"), Var("i", 60), Var("j", 70)
    twice = apply("mul", "f32", Load(x, (i, j)), const(2.0))
    body = (
        Par((j,), (Store(row, (j,), twice),)),
        Par((j,), (Store(y, (i, j), apply("sub", "f32", Load(row, (69 - j,)), Load(x, (i, j)))),)),
    )
    kernel = Kernel("turned", (x, y), (row,), (Par((i,), body),))
    assert is_shared(tile(kernel, HOST))
    check(kernel, f32(60, 70))


def test_rows_that_are_sorted():
    keys, out = buffer("keys", "f32", (40, 33)), buffer("out", "f32", (40, 33), "out")
    i, k = Var("i", 40), Var("k", 33)
    kernel = Kernel("sort", (keys, out), (), (Par((i,), (Sort(out, keys, (i, k), k, False),)),))
    assert is_shared(tile(kernel, HOST))
    check(kernel, f32(40, 33))


@pytest.mark.parametrize("bad", [(), (5,), (199,), (3, 150)])
def test_the_least_status_wins(bad):
    """Two checks that fail anywhere, in any thread: the one with the least number is reported."""
    table, index = buffer("table", "f32", (11, 21)), buffer("index", "i64", (200,))
    rows, points = buffer("rows", "f32", (200, 21), "out"), buffer("points", "f32", (200,), "out")
    i, j = Var("i", 200), Var("j", 21)
    at = Load(index, (i,))
    other = apply("add", "i64", at, const(0, "i64"))
    body = (
        Par((i, j), (Store(rows, (i, j), GatherLoad(table, (at, j), "check", 8)),)),
        Par((i,), (Store(points, (i,), GatherLoad(table, (other, at), "check", 3)),)),
    )
    kernel = Kernel("take", (table, index, rows, points), (), body)
    assert is_shared(tile(kernel, HOST))
    indices = np.arange(200) % 11
    indices[list(bad)] = 50
    assert check(kernel, f32(11, 21), indices) == (3 if bad else 0)


@pytest.mark.parametrize(
    "text",
    [
        "rows=4 vectors=2 depth_block=5 pack_rhs=1",
        "rows=4 vectors=1 depth_block=8 pack_rhs=1 column_block=32",
        "rows=3 vectors=1 depth_block=11 column_block=16",
    ],
)
def test_shares_of_columns_are_in_different_blocks_at_once(text):
    """The last block of the contracted index is shorter: no place may follow from its size."""
    kernel = einsum("mk,kn->mn", {"m": 31, "k": 45, "n": 83})
    sizes = {name: int(value) for name, value in (item.split("=") for item in text.split())}
    forced = tiled_as(kernel, **{"pack_rhs": 0, "dot": 0, **sizes})
    shared = share(forced, HOST)
    assert [stmt.split.over for stmt in shared.body] == ["columns"]
    arrays = operands(kernel)
    want = contract.run(kernel, arrays, tiled=False)[-1]
    function = compiled(shared, HOST, tiled=False)
    for _ in range(300):
        out = np.zeros_like(want)
        assert function(*arrays, out) == 0
        same_bits(out, want)
