"""Statements: accesses of every kind, guards, loops, scatters, sorts; sizes 0, 1 and odd."""

import numpy as np
import pytest

from diffc.codegen.loops.nodes import (
    Choose,
    Const,
    For,
    GatherLoad,
    IndexValue,
    Kernel,
    Load,
    Par,
    Reduce,
    Scalar,
    Scatter,
    Store,
    Vector,
)
from diffc.codegen.targets import X86_AVX2, X86_SSE2
from diffc.ir.index import Var, ge, lt
from tests.codegen.emit.kernels import HOST, apply, buffer, check, compiled, const, samples

SIZES = (0, 1, 2, 7, 16, 33, 100)


def f32(*shape: int, seed: int = 3) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("rows", SIZES[:5])
@pytest.mark.parametrize("columns", SIZES)
def test_elementwise(rows: int, columns: int) -> None:
    shape = (rows, columns)
    x, b = buffer("x", "f32", shape), buffer("b", "f32", (columns,))
    y = buffer("y", "f32", shape, "out")
    i, j = Var("i", rows), Var("j", columns)
    value = apply("add", "f32", apply("mul", "f32", Load(x, (i, j)), const(1.7)), Load(b, (j,)))
    kernel = Kernel("axpb", (x, b, y), (), (Par((i, j), (Store(y, (i, j), value),)),))
    check(kernel, f32(*shape), f32(columns))
    check(kernel, f32(*shape), f32(columns), tiled=False)


@pytest.mark.parametrize("target", [X86_AVX2, X86_SSE2])
@pytest.mark.parametrize("dtype", ["bool", "i8", "bf16", "f16", "f32", "f64"])
def test_narrow_targets(target, dtype: str) -> None:
    if HOST.family != target.family or HOST.vector_bytes < target.vector_bytes:
        pytest.skip("another machine's code")
    n = 61
    x, y, i = buffer("x", dtype, (n,)), buffer("y", dtype, (n,), "out"), Var("i", n)
    inside = Choose(lt(i, 40), Load(x, (n - 21 - i,)), Const(dtype, 1))
    kernel = Kernel("flip", (x, y), (), (Par((i,), (Store(y, (i,), inside),)),))
    check(kernel, samples(dtype, n), target=target)


@pytest.mark.parametrize("n", SIZES[1:])
@pytest.mark.parametrize("dtype", ["f32", "i64", "bool"])
def test_strided_and_reversed(n: int, dtype: str) -> None:
    x, i = buffer("x", dtype, (3 * n + 2,)), Var("i", n)
    names = ("back", "every", "half", "wrapped")
    outs = [buffer(name, dtype, (n,), "out") for name in names]
    reads = (n - 1 - i, 3 * i + 1, i // 2, (i + 5) % n if n > 1 else 0)
    body = tuple(
        Store(out, (i,), Load(x, (index,))) for out, index in zip(outs, reads, strict=True)
    )
    kernel = Kernel("strides", (x, *outs), (), (Par((i,), body),))
    check(kernel, samples(dtype, 3 * n + 2, 4))


@pytest.mark.parametrize("n", SIZES[1:])
@pytest.mark.parametrize("stride", [2, 3, 4, 5, -2, -4])
@pytest.mark.parametrize("dtype", ["f32", "bool"])
def test_every_few_elements(n: int, stride: int, dtype: str) -> None:
    """The last element read is the last of the buffer (the first, going down)."""
    span = abs(stride) * (n - 1) + 1
    x, i, k = buffer("x", dtype, (2, span)), Var("i", n), Var("k", 3)
    y, part = buffer("y", dtype, (2, n), "out"), buffer("part", dtype, (3, n), "out")
    index = stride * i if stride > 0 else span - 1 + stride * i
    row = Store(y, (1, i), Load(x, (1, index)))
    first = Store(y, (0, i), Load(x, (0, index)))
    guarded = Choose(lt(k, 2), Load(x, (k, index)), Const(dtype, 1))
    nests = Par((i,), (row, first)), Par((k, i), (Store(part, (k, i), guarded),))
    check(Kernel("few", (x, y, part), (), nests), samples(dtype, 2 * span, 4).reshape(2, span))


@pytest.mark.parametrize("n", SIZES[1:])
def test_writes_backwards_and_strided(n: int) -> None:
    x, i = buffer("x", "f32", (n,)), Var("i", n)
    back, wide = buffer("back", "f32", (n,), "out"), buffer("wide", "f32", (3 * n,), "out")
    body = (Store(back, (n - 1 - i,), Load(x, (i,))), Store(wide, (3 * i + 2,), Load(x, (i,))))
    for tiled in (True, False):
        check(Kernel("writes", (x, back, wide), (), (Par((i,), body),)), f32(n), tiled=tiled)
    forced = Par((i,), body, Vector(16))
    check(Kernel("writes", (x, back, wide), (), (forced,)), f32(n), tiled=False)


@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (17, 16), (40, 33)])
def test_transpose(shape: tuple[int, int]) -> None:
    rows, columns = shape
    x, y = buffer("x", "f64", shape), buffer("y", "f64", (columns, rows), "out")
    i, j = Var("i", columns), Var("j", rows)
    kernel = Kernel("turn", (x, y), (), (Par((i, j), (Store(y, (i, j), Load(x, (j, i))),)),))
    check(kernel, f32(*shape).astype(np.float64))


@pytest.mark.parametrize("n", [1, 6, 31, 64])
@pytest.mark.parametrize("tiled", [True, False])
def test_reshape_mixes_rows(n: int, tiled: bool) -> None:
    """Reads [n, 6] transposed, as [6 * n]: quotients of the loop variable."""
    x, y, f = buffer("x", "f32", (6, n)), buffer("y", "f32", (6 * n,), "out"), Var("f", 6 * n)
    body = Store(y, (f,), Load(x, (f % 6, f // 6)))
    check(Kernel("mix", (x, y), (), (Par((f,), (body,)),)), f32(6, n), tiled=tiled)


@pytest.mark.parametrize("width", [1, 5, 16, 37])
@pytest.mark.parametrize("tiled", [True, False])
def test_pad_and_concat(width: int, tiled: bool) -> None:
    """Guards on the row (uniform) and on the column (by lane), loads only inside."""
    x, i, j = buffer("x", "f32", (4, width)), Var("i", 7), Var("j", width + 5)
    padded = buffer("padded", "f32", (7, width + 5), "out")
    inside = ge(i, 2) & lt(i, 6) & ge(j, 3) & lt(j, width + 3)
    shifted = Load(x, (i - 2, j - 3))
    value = Choose(inside, apply("add", "f32", shifted, const(1.0)), const(-1.0))
    pad = Kernel("pad", (x, padded), (), (Par((i, j), (Store(padded, (i, j), value),)),))
    check(pad, f32(4, width), tiled=tiled)
    a, b = buffer("a", "f32", (3, width)), buffer("b", "f32", (3, 4))
    both = buffer("both", "f32", (3, width + 4), "out")
    i, j = Var("i", 3), Var("j", width + 4)
    value = Choose(lt(j, width), Load(a, (i, j)), Load(b, (i, j - width)))
    concat = Kernel("concat", (a, b, both), (), (Par((i, j), (Store(both, (i, j), value),)),))
    check(concat, f32(3, width), f32(3, 4), tiled=tiled)


@pytest.mark.parametrize("tiled", [True, False])
def test_guarded_stores(tiled: bool) -> None:
    x, y = buffer("x", "f32", (5, 19)), buffer("y", "f32", (5, 40), "mut")
    i, j = Var("i", 9), Var("j", 25)
    inside = lt(i, 5) & lt(j, 19)
    body = Store(y, (i, j + 2), Load(x, (i, j)), inside)
    check(Kernel("part", (x, y), (), (Par((i, j), (body,)),)), f32(5, 19), f32(5, 40), tiled=tiled)


@pytest.mark.parametrize("dtype", ["i32", "u8", "f32", "f64", "bool"])
def test_index_values(dtype: str) -> None:
    y, i, j = buffer("y", dtype, (3, 37), "out"), Var("i", 3), Var("j", 37)
    body = Store(y, (i, j), IndexValue(dtype, 2 * i + j // 5))
    check(Kernel("iota", (y,), (), (Par((i, j), (body,)),)))


@pytest.mark.parametrize("mode", ["clip", "fill", "check"])
@pytest.mark.parametrize("kind", ["i32", "i64", "u8", "i8"])
@pytest.mark.parametrize("bad", [True, False])
def test_gather(mode: str, kind: str, bad: bool) -> None:
    table, index = buffer("table", "f32", (11, 21)), buffer("index", kind, (9,))
    rows, points = buffer("rows", "f32", (9, 21), "out"), buffer("points", "f32", (9,), "out")
    i, j = Var("i", 9), Var("j", 21)
    at = Load(index, (i,))
    row = Store(rows, (i, j), GatherLoad(table, (at, j), mode, 3))
    point = Store(points, (i,), GatherLoad(table, (at, at), mode, 3))
    kernel = Kernel(
        "take", (table, index, rows, points), (), (Par((i, j), (row,)), Par((i,), (point,)))
    )
    indices = np.array([0, 3, 10, 10, 2, 5, 1, 1, 9]).astype(kind[0] + str(int(kind[1:]) // 8))
    if bad:
        indices[2] = 100
        indices[3] = -1 if kind[0] == "i" else 11
    status = check(kernel, f32(11, 21), indices)
    assert status == (3 if mode == "check" and bad else 0)


@pytest.mark.parametrize("mode", ["clip", "fill", "check"])
def test_empty_tables(mode: str) -> None:
    table, index = buffer("table", "f32", (0, 21)), buffer("index", "i64", (3,))
    rows, wide = buffer("rows", "f32", (3, 21), "out"), buffer("wide", "f32", (0, 21), "mut")
    i, j = Var("i", 3), Var("j", 21)
    at = Load(index, (i,))
    take = Store(rows, (i, j), GatherLoad(table, (at, j), mode, 4))
    kernel = Kernel("take", (table, index, rows), (), (Par((i, j), (take,)),))
    empty = np.zeros((0, 21), np.float32)
    assert check(kernel, empty, np.arange(3)) == (4 if mode == "check" else 0)
    put = Scatter(wide, (at, j), const(1.0), "add", "check" if mode == "check" else "drop", 4)
    kernel = Kernel("put", (index, wide), (), (For(i, (Par((j,), (put,)),)),))
    assert check(kernel, np.arange(3), empty) == (4 if mode == "check" else 0)


@pytest.mark.parametrize("combine", ["set", "add", "mul", "min", "max"])
@pytest.mark.parametrize("mode", ["drop", "check"])
def test_scatter(combine: str, mode: str) -> None:
    index, x = buffer("index", "i64", (8,)), buffer("x", "f32", (8, 19))
    y = buffer("y", "f32", (5, 19), "mut")
    i, j = Var("i", 8), Var("j", 19)
    write = Scatter(y, (Load(index, (i,)), j), Load(x, (i, j)), combine, mode, 7)
    kernel = Kernel("put", (index, x, y), (), (For(i, (Par((j,), (write,)),)),))
    for bad in (-1, 5, 1):
        indices = np.array([0, 3, 3, bad, 4, 0, 3, 2])
        status = check(kernel, indices, f32(8, 19), f32(5, 19, seed=5))
        assert status == (7 if mode == "check" and bad != 1 else 0)
    outside = Kernel("put", (index, x, y), (), (Par((j,), (For(i, (write,)),)),))
    check(outside, np.array([0, 3, 3, 9, 4, 0, 3, 2]), f32(8, 19), f32(5, 19))


@pytest.mark.parametrize("reverse", [True, False])
@pytest.mark.parametrize("tiled", [True, False])
def test_running_sum(reverse: bool, tiled: bool) -> None:
    n, m = 9, 21
    x, y = buffer("x", "f32", (n, m)), buffer("y", "f32", (n, m), "mut")
    k, j = Var("k", n), Var("j", m)
    before = k + 1 if reverse else k - 1
    guard = lt(k, n - 1) if reverse else ge(k, 1)
    total = apply("add", "f32", Choose(guard, Load(y, (before, j)), const(0.0)), Load(x, (k, j)))
    kernel = Kernel(
        "cumsum", (x, y), (), (Par((j,), (For(k, (Store(y, (k, j), total),), reverse),)),)
    )
    check(kernel, f32(n, m), f32(n, m), tiled=tiled)


def test_loop_reads_what_it_wrote() -> None:
    """A load must not be kept across a store to its buffer."""
    x, y = buffer("x", "f32", (40,), "mut"), buffer("y", "f32", (40,), "out")
    i = Var("i", 40)
    load = Load(x, (i,))
    first = Store(x, (i,), apply("mul", "f32", load, const(2.0)))
    kernel = Kernel("twice", (x, y), (), (Par((i,), (first, Store(y, (i,), load))),))
    check(kernel, f32(40))
    k = Var("k", 5)
    again = Store(x, (0,), apply("add", "f32", Load(x, (0,)), const(1.0)))
    check(Kernel("count", (x,), (), (For(k, (again,)),)), f32(40))


def test_results_may_lie_in_operands() -> None:
    """Neighbouring stores read before they write."""
    a, b = buffer("a", "f32", (37,)), buffer("b", "f32", (37,))
    p, q = buffer("p", "f32", (37,), "out"), buffer("q", "f32", (37,), "out")
    i = Var("i", 37)
    swap = (Store(p, (i,), Load(b, (i,))), Store(q, (i,), Load(a, (i,))))
    function = compiled(Kernel("swap", (a, b, p, q), (), (Par((i,), swap),)), aliased=True)
    left, right = f32(37), f32(37, seed=8)
    want = right.copy(), left.copy()
    function(left, right, left, right)
    np.testing.assert_array_equal(left, want[0])
    np.testing.assert_array_equal(right, want[1])


def test_softmax_row_uses_scratch() -> None:
    n = 45
    x, y = buffer("x", "f32", (6, n)), buffer("y", "f32", (6, n), "out")
    e = buffer("e", "f32", (n,), "scratch")
    i, j, r = Var("i", 6), Var("j", n), Var("r", n)
    peak, total = Scalar("peak", "f32"), Scalar("total", "f32")
    body = (
        Reduce(peak, "max", (r,), Load(x, (i, r))),
        Par(
            (j,), (Store(e, (j,), apply("exp", "f32", apply("sub", "f32", Load(x, (i, j)), peak))),)
        ),
        Reduce(total, "sum", (r,), Load(e, (r,))),
        Par((j,), (Store(y, (i, j), apply("div", "f32", Load(e, (j,)), total)),)),
    )
    check(Kernel("softmax", (x, y), (e,), (Par((i,), body),)), f32(6, n), close={"rtol": 1e-5})


def test_large_scratch_is_passed() -> None:
    n = 6000
    x, y = buffer("x", "f32", (n,)), buffer("y", "f32", (n,), "out")
    s, i = buffer("s", "f32", (n,), "scratch"), Var("i", n)
    first = Par((i,), (Store(s, (i,), apply("add", "f32", Load(x, (i,)), const(1.0))),))
    second = Par((i,), (Store(y, (i,), Load(s, (n - 1 - i,))),))
    check(Kernel("two", (x, y), (s,), (first, second)), f32(n))


def test_long_chains_do_not_recurse() -> None:
    x, y, i = buffer("x", "f32", (20,)), buffer("y", "f32", (20,), "out"), Var("i", 20)
    value = Load(x, (i,))
    for step in range(4000):
        value = apply("add", "f32", value, const(float(step % 3)))
    values = np.round(f32(20))
    function = compiled(Kernel("chain", (x, y), (), (Par((i,), (Store(y, (i,), value),)),)))
    got = np.zeros(20, np.float32)
    function(values, got)
    np.testing.assert_array_equal(got, values + 3999.0)


@pytest.mark.parametrize("channels_last", [True, False])
def test_pooling(channels_last: bool) -> None:
    """Windows of 2 x 2: few values for each point, read with stride 2 or by channels."""
    shape = (2, 8, 10, 5) if channels_last else (2, 5, 8, 10)
    x = buffer("x", "f32", shape)
    b, c, i, j = Var("b", 2), Var("c", 5), Var("i", 4), Var("j", 5)
    p, q, s = Var("p", 2), Var("q", 2), Scalar("s", "f32")
    rows, columns = 2 * i + p, 2 * j + q
    at = (b, rows, columns, c) if channels_last else (b, c, rows, columns)
    vars = (b, i, j, c) if channels_last else (b, c, i, j)
    y = buffer("y", "f32", tuple(var.extent for var in vars), "out")
    for monoid in ("max", "sum"):
        body = (Reduce(s, monoid, (p, q), Load(x, at)), Store(y, vars, s))
        check(Kernel("pool", (x, y), (), (Par(vars, body),)), f32(*shape))


@pytest.mark.parametrize("n", [15, 16, 17, 33, 100])
def test_long_bodies_have_one_copy(n: int) -> None:
    """Guards, reversed and strided reads and gathers under the mask of the last vector."""
    x, table = buffer("x", "f32", (2 * n,)), buffer("table", "f32", (n,))
    index, y = buffer("index", "i32", (n,)), buffer("y", "f32", (n,), "out")
    back, seen = buffer("back", "f32", (n,), "out"), buffer("seen", "bool", (n,), "out")
    i = Var("i", n)
    gathered = GatherLoad(table, (Load(index, (i,)),), "check", 2)
    value = Choose(ge(i, 3), Load(x, (i - 3,)), Load(x, (2 * n - 1 - i,)))
    value = apply("add", "f32", apply("add", "f32", value, Load(x, (2 * i,))), gathered)
    for _ in range(30):
        value = apply("mul", "f32", value, apply("sub", "f32", value, const(1.0)))
        value = apply("maximum", "f32", apply("minimum", "f32", value, const(1.5)), const(-1.5))
    body = (
        Store(y, (i,), value),
        Store(back, (n - 1 - i,), value),
        Store(seen, (i,), apply("gt", "bool", value, const(0.0))),
    )
    kernel = Kernel("long", (x, table, index, y, back, seen), (), (Par((i,), body),))
    indices = np.arange(n, dtype=np.int32)[::-1].copy()
    assert check(kernel, f32(2 * n), f32(n), indices) == 0
    indices[-1] = n
    assert check(kernel, f32(2 * n), f32(n), indices) == 2
