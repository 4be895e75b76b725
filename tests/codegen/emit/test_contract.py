"""Contractions: layouts, edges, blocks, windows, epilogues; the bits of sums in order."""

from functools import reduce

import numpy as np
import pytest

from diffc.codegen.emit.kernel import write_kernel
from diffc.codegen.emit.text import ModuleText
from diffc.codegen.loops import interpret
from diffc.codegen.loops.nodes import (
    Choose,
    Contract,
    For,
    IndexValue,
    Kernel,
    Load,
    Par,
    Scalar,
    Store,
)
from diffc.codegen.loops.text import parse_kernel
from diffc.codegen.targets import HALVES, X86_AVX2, X86_AVX512, X86_SSE2
from diffc.codegen.tile import tile
from diffc.ir.index import Var, ge, lt
from tests.codegen.emit.contractions import einsum, how_of, operands, tiled_as
from tests.codegen.emit.kernels import (
    HOST,
    apply,
    buffer,
    check,
    compiled,
    const,
    guarded_call,
    same_bits,
)

EPS = {"bf16": 2.0**-7, "f16": 2.0**-10, "f32": 2.0**-23, "f64": 2.0**-52}


def outputs(kernel, arrays):
    given = iter(arrays)
    return [
        np.zeros(b.shape, interpret.DTYPES[b.dtype]) if b.mode == "out" else next(given).copy()
        for b in kernel.params
    ]


def run(kernel, arrays, target=HOST, tiled=True):
    """What a kernel leaves in its parameters, called between unreadable pages."""
    function = compiled(kernel, target, tiled)
    placed = outputs(kernel, arrays)
    first = guarded_call(function, placed, at_end=True)
    second = guarded_call(function, placed, at_end=False)
    assert first[0] == second[0] == 0
    for a, b in zip(first[1], second[1], strict=True):
        same_bits(a, b)
    return first[1]


def check_einsum(spec, extents, dtype="f32", target=HOST, seed=5, **more):
    """Against NumPy in f64, and bit for bit against sums in order (but for dot tiles)."""
    kernel = einsum(spec, extents, dtype, **more)
    lhs, rhs = operands(kernel, seed)
    got = run(kernel, [lhs, rhs], target)[-1]
    left, right, result = spec.replace("->", ",").split(",")
    stored = f"{left},{right}->{more.get('order') or result}"
    if dtype in EPS:
        wide = lhs.astype(np.float64), rhs.astype(np.float64)
        want = np.einsum(stored, *wide)
        bound = np.einsum(stored, *map(np.abs, wide))
        depth = np.prod([extents[k] for k in left if k not in result], dtype=int)
        terms = 1 if dtype in HALVES else depth
        limit = (terms + 2) * EPS[dtype] * bound + 1e-30
        assert got.shape == want.shape
        assert np.all(np.abs(got - want) <= limit), np.max(np.abs(got - want) / limit)
    elif dtype == "bool":
        same_bits(got, np.einsum(stored, lhs.astype(int), rhs.astype(int)) > 0)
    else:
        with np.errstate(over="ignore"):
            same_bits(got, np.einsum(stored, lhs, rhs).astype(lhs.dtype))
    if dtype in EPS and got.size and not how_of(kernel, target).dot:
        same_bits(got, run(kernel, [lhs, rhs], target, tiled=False)[-1])


SHAPES = [
    (1, 1, 1),
    (3, 5, 7),
    (1, 40, 70),
    (70, 40, 1),
    (1, 70, 1),
    (2, 33, 130),
    (130, 1, 37),
    (17, 23, 49),
    (64, 32, 10),
    (50, 64, 16),
]
LAYOUTS = ["mk,kn->mn", "km,kn->mn", "mk,nk->mn", "km,nk->mn"]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shape", SHAPES)
def test_layouts_and_edges(shape, layout):
    check_einsum(layout, dict(zip("mkn", shape, strict=True)))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", ["f64", "bf16", "f16", "i32", "i8", "i64", "u16", "bool"])
def test_dtypes(dtype, layout):
    check_einsum(layout, {"m": 13, "k": 21, "n": 19}, dtype)


@pytest.mark.parametrize("target", [X86_AVX512, X86_AVX2, X86_SSE2], ids=lambda t: t.name)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", ["f32", "f64", "bf16", "f16", "i32"])
def test_targets(target, layout, dtype):
    if HOST.family != target.family or HOST.vector_bytes < target.vector_bytes:
        pytest.skip("another machine's code")
    check_einsum(layout, {"m": 11, "k": 18, "n": 21}, dtype, target)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("empty", ["m", "k", "n", "mk", "mkn"])
def test_empty(empty, layout):
    extents = {"m": 5, "k": 6, "n": 7} | dict.fromkeys(empty, 0)
    kernel = einsum(layout, extents)
    got = run(kernel, operands(kernel))[-1]
    same_bits(got, np.zeros(got.shape, np.float32))


SPECS = [
    "bij,bjk->bik",
    "bhqd,bhkd->bhqk",
    "bhqk,bhkd->bqhd",
    "btc,chd->bhtd",
    "ijk,jkl->il",
    "ijk,kjl->il",
    "jik,klj->il",
    "i,i->",
    "ij,ji->",
    "ij,ij->i",
    "ij,j->i",
    "j,ij->i",
    "bij,bj->bi",
    "abi,cdi->abcd",
    "abi,cid->adbc",
    "iab,cid->dcab",
    "bi,bj->ij",
    "bti,bto->io",
    "bij,bjk->kbi",
]


@pytest.mark.parametrize("spec", SPECS)
def test_many_axes(spec):
    sizes = "a=3 b=2 c=5 d=16 h=3 i=9 j=7 k=11 l=20 o=6 q=4 t=10"
    extents = {item[0]: int(item[2:]) for item in sizes.split()}
    check_einsum(spec, extents)
    check_einsum(spec, {**extents, "b": 1, "d": 7, "j": 1, "i": 33})


def test_drawn():
    rng = np.random.default_rng(11)
    for seed in range(40):
        letters = "abcdef"[: rng.integers(2, 6)]
        roles = dict(zip(letters, rng.integers(0, 4, len(letters)), strict=True))
        roles[letters[0]] = 3
        left = [k for k in letters if roles[k] in (0, 1, 3)]
        right = [k for k in letters if roles[k] in (0, 2, 3)]
        result = [k for k in letters if roles[k] in (0, 1, 2)]
        for group in (left, right, result):
            rng.shuffle(group)
        extents = {k: int(rng.choice([1, 2, 3, 5, 8, 17, 33])) for k in letters}
        spec = f"{''.join(left)},{''.join(right)}->{''.join(result)}"
        order = list(result)
        rng.shuffle(order)
        check_einsum(spec, extents, seed=seed, order="".join(order))


BLOCKS = [
    "rows=3 vectors=1",
    "rows=4 vectors=2 unroll=3",
    "rows=2 vectors=3 pack_rhs=1",
    "rows=5 vectors=2 pack_rhs=1 pack_lhs=1",
    "rows=5 vectors=2 pack_lhs=1 row_block=10",
    "rows=3 vectors=2 pack_rhs=1 column_block=32",
    "rows=3 vectors=1 pack_rhs=1 column_block=16 row_block=7 pack_lhs=1",
    "rows=4 vectors=2 depth_block=8",
    "rows=4 vectors=2 depth_block=5 unroll=2 pack_rhs=1",
    "rows=3 vectors=2 depth_block=17 unroll=4 pack_lhs=1 row_block=6",
    "rows=6 vectors=1 depth_block=16 column_block=32 row_block=12 pack_rhs=1 pack_lhs=1 unroll=4",
    "rows=8 vectors=3 depth_block=1 unroll=1 pack_rhs=1 pack_lhs=1",
    "rows=5 vectors=2 narrow=1",
    "rows=5 vectors=2 narrow=1 pack_rhs=1 depth_block=8 column_block=32",
    "rows=7 vectors=2 narrow=1 prefetch_lhs=1 prefetch_rhs=1",
    "rows=7 vectors=2 turn=1",
    "rows=17 vectors=1 turn=1 narrow=1 pack_rhs=1 row_block=17",
    "rows=9 vectors=3 turn=1 narrow=1 depth_block=16 pack_lhs=1",
]


@pytest.mark.parametrize("text", BLOCKS)
@pytest.mark.parametrize("shape", [(31, 45, 83), (7, 64, 16), (12, 5, 33)])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_blocks_keep_the_bits(text, shape, layout):
    check_blocks(text, shape, layout, "f32")


@pytest.mark.parametrize("text", BLOCKS)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", sorted(HALVES))
def test_panels_of_wide_elements_keep_the_bits(text, layout, dtype):
    check_blocks(text, (31, 45, 83), layout, dtype)


def check_blocks(text, shape, layout, dtype):
    kernel = einsum(layout, dict(zip("mkn", shape, strict=True)), dtype)
    sizes = {name: int(value) for name, value in (item.split("=") for item in text.split())}
    sizes = {"pack_rhs": how_of(kernel).pack_rhs, "dot": 0, **sizes}
    forced = tiled_as(kernel, **sizes)
    rhs = forced.body[0].body[0].rhs
    if rhs.indices[-1] is not forced.body[0].vars[-1]:  # columns that are no neighbours
        forced = tiled_as(kernel, **{**sizes, "pack_rhs": 1})
    arrays = operands(kernel)
    want = run(kernel, arrays, tiled=False)[-1]
    same_bits(run(forced, arrays, tiled=False)[-1], want)


@pytest.mark.parametrize("spec", ["km,nk->nm", "abi,cid->adbc", "bij,bjk->bki"])
@pytest.mark.parametrize("dtype", ["f32", "f64", "bf16", "f16", "i8", "i64", "bool"])
@pytest.mark.parametrize("text", ["rows=3 vectors=2", "rows=19 vectors=1 narrow=1"])
def test_sums_are_turned(spec, dtype, text):
    """Stores whose lanes run along rows, also where rows are several axes."""
    sizes = "a=3 b=2 c=5 d=16 i=9 j=7 k=11 m=37 n=21"
    extents = {item[0]: int(item[2:]) for item in sizes.split()}
    forced = {name: int(value) for name, value in (item.split("=") for item in text.split())}
    forced |= {"dot": 0, "pack_rhs": 1}
    kernel = einsum(spec, extents, dtype)
    arrays = operands(kernel)
    want, got = (
        run(tiled_as(kernel, **forced, turn=turn), arrays, tiled=False)[-1] for turn in (0, 1)
    )
    same_bits(got, want)


@pytest.mark.parametrize("rows", [1, 2, 4, 5])
@pytest.mark.parametrize("columns", [1, 3, 4, 7, 8])
@pytest.mark.parametrize("dtype", ["f32", "f64", "i32"])
def test_dot_tiles(rows, columns, dtype):
    """The bits do not depend on the tile: lanes first, then pairs."""
    for depth in (1, 5, 16, 41, 64):
        kernel = einsum("mk,nk->mn", {"m": 9, "k": depth, "n": 21}, dtype)
        arrays = operands(kernel)
        sizes = {"rows": rows, "vectors": columns, "unroll": 2, "dot": True}
        sizes |= dict.fromkeys(["pack_rhs", "pack_lhs", "turn"], False)
        got = run(tiled_as(kernel, **sizes), arrays, tiled=False)[-1]
        lanes = HOST.lanes(dtype)
        lane_sums = np.zeros((9, 21, lanes), arrays[0].dtype)
        for start in range(0, depth, lanes):
            for lane in range(min(lanes, depth - start)):
                a, b = (x[:, start + lane].astype(np.longdouble) for x in arrays)
                exact = a[:, None] * b[None, :] + lane_sums[..., lane]
                lane_sums[..., lane] = exact.astype(arrays[0].dtype)
        while lane_sums.shape[-1] > 1:
            lane_sums = lane_sums[..., ::2] + lane_sums[..., 1::2]
        if dtype == "f64":
            np.testing.assert_allclose(got, lane_sums[..., 0], rtol=0, atol=1e-13)
        else:
            np.testing.assert_allclose(got, lane_sums[..., 0], rtol=1e-6, atol=1e-6)
        again = run(tiled_as(kernel, **{**sizes, "rows": 3, "vectors": 2}), arrays, tiled=False)
        same_bits(got, again[-1])


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("channels", [(3, 16), (8, 5)])
def test_windows(stride, channels):
    """A convolution: two variables in one index, three contracted ones."""
    given, made = channels
    n, size, window = 2, 9, 3
    out = (size - window) // stride + 1
    x = buffer("x", "f32", (n, size, size, given))
    f = buffer("f", "f32", (window, window, given, made))
    y = buffer("y", "f32", (n, out, out, made), "out")
    b, h, w, o = Var("b", n), Var("h", out), Var("w", out), Var("o", made)
    p, q, c = Var("p", window), Var("q", window), Var("c", given)
    total = Scalar("total", "f32")
    read = Load(x, (b, stride * h + p, stride * w + q, c))
    body = (Contract(total, (p, q, c), read, Load(f, (p, q, c, o))), Store(y, (b, h, w, o), total))
    kernel = Kernel("conv", (x, f, y), (), (Par((b, h, w, o), body),))
    arrays = operands(kernel)
    same_bits(run(kernel, arrays)[-1], run(kernel, arrays, tiled=False)[-1])
    # the gradient by the filter: sums over positions
    g = buffer("g", "f32", y.shape)
    df = buffer("df", "f32", f.shape, "out")
    body = (
        Contract(total, (b, h, w), read, Load(g, (b, h, w, o))),
        Store(df, (p, q, c, o), total),
    )
    kernel = Kernel("dconv", (x, g, df), (), (Par((p, q, c, o), body),))
    arrays = operands(kernel)
    same_bits(run(kernel, arrays)[-1], run(kernel, arrays, tiled=False)[-1])


def test_reversed_and_odd_strides():
    m, k, n = Var("m", 9), Var("k", 14), Var("n", 37)
    a, b = buffer("a", "f32", (9, 30)), buffer("b", "f32", (14, 120))
    y, total = buffer("y", "f32", (9, 80), "out"), Scalar("total", "f32")
    reads = [(Load(a, (8 - m, 2 * k + 1)), Load(b, (k, 3 * n + 2)))]
    reads.append((Load(a, (m, 29 - k)), Load(b, (13 - k, 119 - n))))
    for lhs, rhs in reads:
        body = (Contract(total, (k,), lhs, rhs), Store(y, (m, 2 * n + 1), total))
        kernel = Kernel("odd", (a, b, y), (), (Par((m, n), body),))
        arrays = operands(kernel)
        same_bits(run(kernel, arrays)[-1], run(kernel, arrays, tiled=False)[-1])


def test_operands_that_are_not_loads():
    """Padding, a value and a reshape: copied to scratch first."""
    m, k, n = Var("m", 9), Var("k", 14), Var("n", 37)
    a, b = buffer("a", "f32", (9, 12)), buffer("b", "f32", (7, 74))
    y, total = buffer("y", "f32", (9, 37), "out"), Scalar("total", "f32")
    inside = ge(k, 1) & lt(k, 13)
    lhs = Choose(inside, Load(a, (m, k - 1)), const(0.0))
    rhs = apply("neg", "f32", Load(b, ((37 * k + n) // 74, (37 * k + n) % 74)))
    body = (Contract(total, (k,), lhs, rhs), Store(y, (m, n), total))
    kernel = Kernel("copies", (a, b, y), (), (Par((m, n), body),))
    arrays = operands(kernel)
    same_bits(run(kernel, arrays)[-1], run(kernel, arrays, tiled=False)[-1])


# --- epilogues


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("columns", [1, 10, 33, 64])
def test_bias_and_activation(layout, columns):
    bias = buffer("bias", "f32", (columns,))
    row = buffer("row", "f32", (21,))

    def small(total, vars):
        moved = apply("add", "f32", total, Load(bias, (vars["n"],)))
        return apply(
            "maximum", "f32", apply("mul", "f32", moved, Load(row, (vars["m"],))), const(0.0)
        )

    def large(total, vars):
        moved = small(total, vars)
        return apply("mul", "f32", apply("tanh", "f32", moved), apply("exp", "f32", moved))

    extents = {"m": 21, "k": 13, "n": columns}
    close = {"rtol": 2e-5, "atol": 1e-5}
    for epilogue in (small, large):
        kernel = einsum(layout, extents, epilogue=epilogue, extra=(bias, row))
        check(kernel, *operands(kernel), close=close)


def adam(rows: int, columns: int, depth: int, dtype: str = "f32") -> Kernel:
    """The gradient of a weight and its whole update: three buffers in place, one written."""
    x, dz = buffer("x", dtype, (depth, rows)), buffer("dz", dtype, (depth, columns))
    w, m, v = (buffer(name, dtype, (rows, columns), "mut") for name in "wmv")
    g = buffer("g", dtype, (columns, rows), "out")
    i, j, k = Var("i0", rows), Var("i1", columns), Var("k0", depth)
    total = Scalar("total", dtype)

    def op(name, *args):
        return apply(name, dtype, *args)

    def c(value):
        return const(value, dtype)

    m1 = op("add", op("mul", Load(m, (i, j)), c(0.9)), op("mul", total, c(0.1)))
    square = op("mul", op("mul", total, total), c(0.001))
    v1 = op("add", op("mul", Load(v, (i, j)), c(0.999)), square)
    step = op("div", m1, op("add", op("sqrt", op("abs", v1)), c(1e-3)))
    w1 = op("sub", Load(w, (i, j)), op("mul", step, c(0.01)))
    stores = [(m, (i, j), m1), (v, (i, j), v1), (w, (i, j), w1), (g, (j, i), total)]
    body = (
        Contract(total, (k,), Load(x, (k, i)), Load(dz, (k, j))),
        *(Store(*store) for store in stores),
    )
    return Kernel("adam", (x, dz, w, m, v, g), (), (Par((i, j), body),))


@pytest.mark.parametrize("shape", [(1, 1, 4), (17, 10, 8), (40, 33, 5), (8, 64, 0)])
@pytest.mark.parametrize("dtype", ["f32", "f64"])
def test_update_in_place(shape, dtype):
    kernel = adam(*shape, dtype)
    arrays = operands(kernel)
    want = run(kernel, arrays, tiled=False)
    turned = tiled_as(kernel, turn=True, narrow=True)
    for made in (run(kernel, arrays), run(turned, arrays, tiled=False)):
        for a, b in zip(made, want, strict=True):
            same_bits(a, b)


def test_guarded_stores_and_positions():
    i, j, k = Var("i", 11), Var("j", 39), Var("k", 6)
    a, b = buffer("a", "f32", (11, 6)), buffer("b", "f32", (6, 39))
    upper, every = buffer("upper", "f32", (11, 39), "mut"), buffer("every", "i64", (39, 11), "out")
    total = Scalar("total", "f32")
    position = IndexValue("i64", 100 * i + j)
    chosen = apply(
        "select", "i64", apply("gt", "bool", total, const(0.0)), position, const(-1, "i64")
    )
    body = (
        Contract(total, (k,), Load(a, (i, k)), Load(b, (k, j))),
        Store(upper, (i, j), total, ge(j, 2 * i)),
        Store(every, (j, i), chosen),
    )
    kernel = Kernel("guarded", (a, b, upper, every), (), (Par((i, j), body),))
    arrays = operands(kernel)
    want = run(kernel, arrays, tiled=False)
    turned = tiled_as(kernel, turn=True, dot=False)
    for made in (run(kernel, arrays), run(turned, arrays, tiled=False)):
        for got, wanted in zip(made, want, strict=True):
            same_bits(got, wanted)


TWO_NESTS = """
kernel @two(x: in f32[50,9], y: in f32[{0},9], z: in f32[{1},9], out: out f32[50,{0}], out_1: out f32[50,{1}]) {{
  par i in 50, j in {0} {{
    s0: f32 = contract(p in 9: x[i, p], y[j, p])
    out[i, j] = s0
  }}
  par i in 50, j in {1} {{
    s0: f32 = contract(p in 9: x[i, p], z[j, p])
    out_1[i, j] = s0
  }}
}}
"""  # noqa: E501 - a kernel's head is one line


@pytest.mark.parametrize("sizes", [(5, 40), (40, 5), (7, 7)])
def test_nests_whose_sums_have_one_name_share_a_panel(sizes):
    kernel = parse_kernel(TWO_NESTS.format(*sizes))
    names = [buffer.name for buffer in tile(kernel, HOST).scratch]
    assert len(set(names)) == len(names)
    arrays = operands(kernel)
    for got, want in zip(run(kernel, arrays), run(kernel, arrays, tiled=False), strict=True):
        same_bits(got, want)


def test_special_values():
    """A nan or an infinity reaches its own sums, and those alone."""
    kernel = einsum("mk,kn->mn", {"m": 6, "k": 9, "n": 35})
    for layout in LAYOUTS:
        kernel = einsum(layout, {"m": 6, "k": 9, "n": 35})
        lhs, rhs = operands(kernel)
        lhs.flat[3], rhs.flat[40], rhs.flat[-1] = np.nan, np.inf, np.nan
        with np.errstate(invalid="ignore"):
            want = np.einsum(layout, lhs, rhs)
        got = run(kernel, [lhs, rhs])[-1]
        np.testing.assert_array_equal(np.isnan(got), np.isnan(want))
        np.testing.assert_array_equal(np.isinf(got), np.isinf(want))


def test_equal_tiles_are_one_function():
    a, b, c = (buffer(name, "f32", (24, 32)) for name in "abc")
    i, j, k = Var("i", 24), Var("j", 48), Var("k", 32)
    w, out = buffer("w", "f32", (32, 48)), [buffer(f"y{n}", "f32", (24, 48), "out") for n in "abc"]
    nests = []
    for number, (x, y) in enumerate(zip((a, b, c), out, strict=True)):
        total = Scalar(f"s{number}", "f32")
        value = apply("maximum", "f32", total, const(0.0)) if number < 2 else total
        body = (Contract(total, (k,), Load(x, (i, k)), Load(w, (k, j))), Store(y, (i, j), value))
        nests.append(Par((i, j), body))
    kernel = tile(Kernel("three", (a, b, c, w, *out), (), tuple(nests)), HOST)
    module = ModuleText()
    write_kernel(module, kernel, "kernel", HOST)
    assert module.text().count("define internal void @tile_") == 2


def test_inside_a_loop():
    """The variables around a contraction move its operands and its stores."""
    t, i, j, k = Var("t", 3), Var("i", 7), Var("j", 20), Var("k", 5)
    a, b = buffer("a", "f32", (3, 7, 5)), buffer("b", "f32", (3, 5, 20))
    y, total = buffer("y", "f32", (7, 20), "mut"), Scalar("total", "f32")
    added = apply("add", "f32", total, Load(y, (i, j)))
    body = (Contract(total, (k,), Load(a, (t, i, k)), Load(b, (t, k, j))), Store(y, (i, j), added))
    kernel = Kernel("loop", (a, b, y), (), (For(t, (Par((i, j), body),)),))
    check(kernel, *operands(kernel), close={"rtol": 1e-5, "atol": 1e-5})


@pytest.mark.parametrize(("rows", "asks"), [(512, True), (8, False), (64, False)])
def test_large_epilogues_ask_for_what_the_next_tile_needs(rows, asks):
    """Unless there is no next tile, or all of it stays near: less than a first cache."""
    extra = (buffer("x", "f32", (rows, 64)),)

    def epilogue(total, vars):
        x = Load(extra[0], (vars["m"], vars["n"]))
        return reduce(lambda e, _: apply("mul", "f32", apply("tanh", "f32", e), x), range(3), total)

    kernel = einsum("mk,kn->mn", {"m": rows, "k": 32, "n": 64}, epilogue=epilogue, extra=extra)
    module = ModuleText()
    write_kernel(module, tile(kernel, X86_AVX512), "kernel", X86_AVX512)
    text = module.text()
    assert ("llvm.prefetch.p0(ptr" in text.replace("%", "")) == asks
    if asks:
        assert "i32 1, i32 2, i32 1" in text  # what is written
        assert "i32 0, i32 2, i32 1" in text
