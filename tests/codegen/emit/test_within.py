"""Statements of which only a range of points is needed: these are computed, whatever the form."""

from dataclasses import replace
from functools import reduce

import numpy as np
import pytest

from diffc.codegen.loops import interpret
from diffc.codegen.loops.nodes import Buffer, Load, Par, Within
from diffc.codegen.loops.text import parse_kernel
from diffc.errors import InternalError
from tests.codegen.emit.contractions import einsum, operands, tiled_as
from tests.codegen.emit.kernels import HOST, compiled, guarded_call, same_bits

AT = Buffer("at", "i64", (2,), "in")
RANGES = [
    (0, 1000),
    (0, 0),
    (0, 1),
    (0, 17),
    (5, 6),
    (16, 48),
    (33, 70),
    (-4, 9),
    (50, 20),
    (60, 99),
]


def within(kernel, var):
    """The kernel of one nest, of which a range of a variable is needed that it is given."""
    (nest,) = (stmt for stmt in kernel.body if isinstance(stmt, Par))
    bounded = Within(var, Load(AT, (0,)), Load(AT, (1,)), nest)
    body = tuple(bounded if stmt is nest else stmt for stmt in kernel.body)
    return replace(kernel, params=(AT, *kernel.params), body=body)


def check(kernel, arrays, needed=lambda out, low, high: out[low:high], ranges=RANGES):
    """What is needed is what the interpreter gives, to the last bit."""
    function = compiled(kernel, tiled=False)
    out = kernel.params[-1]
    for first, stop in ranges:
        given = [np.array([first, stop]), *arrays, np.zeros(out.shape, interpret.DTYPES[out.dtype])]
        want = [array.copy() for array in given]
        assert not interpret.run(kernel, dict(zip(kernel.params, want, strict=True)), HOST)
        low, high = max(first, 0), max(stop, 0)
        for at_end in (True, False):
            status, got = guarded_call(function, given, at_end)
            assert status == 0
            same_bits(needed(got[-1], low, high), needed(want[-1], low, high), f"{first}:{stop}")


TILES = [
    "rows=8 vectors=2",
    "rows=6 vectors=1 unroll=3",
    "rows=5 vectors=2 pack_rhs=1",
    "rows=7 vectors=1 pack_rhs=1 pack_lhs=1 narrow=1",
    "rows=4 vectors=2 row_block=16 column_block=32 pack_rhs=1 pack_lhs=1",
    "rows=4 vectors=2 row_block=16 column_block=32 depth_block=24 unroll=2 pack_rhs=1",
    "rows=8 vectors=1 depth_block=16 unroll=4",
    "rows=3 vectors=1 depth_block=7 unroll=1 narrow=1",
    "rows=4 vectors=2 turn=1",
]


def tiled(text, **more):
    sizes = {item.split("=")[0]: int(item.split("=")[1]) for item in text.split()}
    blocks = {"row_block": 0, "column_block": 0, "depth_block": 0, "pack_lhs": 0, "pack_rhs": 0}
    return tiled_as(einsum("mk,kn->mn", {"m": 70, "k": 66, "n": 53}, **more), **{**blocks, **sizes})


def exact(kernel, seed=0):
    """Operands whose sums are exact in any order and with any rounding of products."""
    rng = np.random.default_rng(seed)
    return [rng.integers(-8, 9, a.shape).astype(a.dtype) for a in operands(kernel)]


@pytest.mark.parametrize("text", TILES)
@pytest.mark.parametrize("dtype", ["f32", "f64", "i32"])
def test_rows(text, dtype):
    kernel = tiled(text, dtype=dtype)
    arrays = exact(kernel)
    check(within(kernel, kernel.body[0].vars[-2]), arrays)


@pytest.mark.parametrize("text", TILES)
def test_columns(text):
    kernel = tiled(text)
    made = within(kernel, kernel.body[0].vars[-1])
    check(made, exact(kernel), lambda out, low, high: out[:, low:high])


@pytest.mark.parametrize("text", TILES)
@pytest.mark.parametrize("dtype", ["f32", "f64"])
def test_contracted_index(text, dtype):
    """Exactly the needed products are summed."""
    kernel = tiled(text, dtype=dtype)
    made = within(kernel, kernel.body[0].body[0].vars[0])
    check(made, exact(kernel), lambda out, low, high: out)


def test_rows_of_dot_tiles():
    kernel = einsum("mk,nk->mn", {"m": 70, "k": 66, "n": 21})
    kernel = tiled_as(kernel, rows=4, vectors=4, dot=1, pack_lhs=0, pack_rhs=0, depth_block=0)
    arrays = exact(kernel)
    check(within(kernel, kernel.body[0].vars[-2]), arrays)


NESTS = {
    "map": "par i in 70, j in 9 { out[i, j] = mul(x[i, j], x[i, j]) }",
    "vectors": "par j in 9, i in 70 with vector=16 { out[i, j] = mul(x[i, j], x[i, j]) }",
    "two_registers": "par j in 9, i in 70 with vector=32 { out[i, j] = mul(x[i, j], x[i, j]) }",
}
FOLDS = {
    "points": "par j in 9 with vector=16 { FOLD }",
    "rows": "par j in 9 { FOLD }",
}


@pytest.mark.parametrize("name", NESTS)
def test_maps(name):
    kernel = parse(f"within i in 70 from at[0] to at[1] {{ {NESTS[name]} }}")
    check(kernel, [np.linspace(-2, 2, 630, dtype="f4").reshape(70, 9)])


def parse(body, rows=70):
    shape = f"[{rows},9]"
    head = f"kernel @k(at: in i64[2], x: in f32{shape}, out: out f32{shape})"
    return parse_kernel(f"{head} {{ {body} }}")


LONG = reduce(lambda text, k: f"add(mul({text}, x[i, j]), {k}.5:f32)", range(60), "x[i, j]")


@pytest.mark.parametrize("nest", FOLDS)
@pytest.mark.parametrize("order", ["lanes", "sequence"])
@pytest.mark.parametrize("rows", [200, 257, 64 * 3])
@pytest.mark.parametrize("value", ["x[i, j]", LONG], ids=["short", "long"])
def test_folds_and_sweeps(nest, order, rows, value):
    """Sums and maxima of a range, and the stores beside them; a long body runs vector by vector."""
    inner = (
        f"sweep i in {rows} {{ s: f32 = reduce sum {order}(i in {rows}: {value}) "
        f"m: f32 = reduce max {order}(i in {rows}: {value}) out[i, j] = mul(2.0:f32, {value}) }}"
    )
    fold = f"within i in {rows} from at[0] to at[1] {{ {inner} }} out[0, j] = s out[1, j] = m"
    slack = 64 if nest == "rows" and order == "lanes" else 0
    ranges = [(low, high) for low, high in RANGES if not slack or low % slack == high % slack == 0]
    ranges += [(0, 64), (64, 128), (64, 1000), (128, 64), (192, 256)]
    x = np.random.default_rng(1).uniform(0, 0.5, (rows, 9)).astype("f4")
    kernel = parse(FOLDS[nest].replace("FOLD", fold), rows)
    check(
        kernel,
        [x],
        lambda out, low, high: out[[0, 1, *range(max(low, 2), min(high, rows))]],
        ranges,
    )


def test_a_form_that_can_leave_out_nothing_is_refused():
    body = (
        "within i in 9 from at[0] to at[1] { s: f32 = reduce sum lanes(i in 9, j in 9: x[i, j]) }"
    )
    with pytest.raises(InternalError, match="can leave out no points"):
        compiled(parse(f"{body} out[0, 0] = s"), tiled=False)
