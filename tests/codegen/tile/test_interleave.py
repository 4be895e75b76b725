"""Columns side by side: the same values, in whole vectors."""

from math import prod

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import diffc
from diffc.codegen.emit.kernel import write_kernel
from diffc.codegen.emit.text import ModuleText
from diffc.codegen.loops.nodes import Choose, Expr, Kernel, Load, Par, Store, Turn
from diffc.codegen.loops.text import parse_kernel, print_kernel
from diffc.codegen.loops.walk import statements
from diffc.codegen.targets import X86_AVX2, X86_AVX512
from diffc.codegen.tile import tile
from diffc.codegen.tile.interleave import MOST_COLUMNS, interleaved
from diffc.ir.index import Var, eq
from tests.codegen.emit.kernels import HOST, apply, buffer, check, const, samples

DTYPES = ["f32", "f64", "bf16", "f16", "bool", "i8", "i16", "i32", "u64"]
TARGETS = pytest.mark.parametrize("target", [X86_AVX512, X86_AVX2], ids=["avx512", "avx2"])


def turned(rows: int, columns: int, dtype: str = "f32", *, outer: int = 1) -> Kernel:
    """``z[b, i, j] = x[b, j, i]``, of numbers plus what the row has."""
    x = buffer("x", dtype, (outer, columns, rows))
    r, z = buffer("r", dtype, (rows,)), buffer("z", dtype, (outer, rows, columns), "out")
    b, i, j = Var("b", outer), Var("i", rows), Var("j", columns)
    value: Expr = Load(x, (b, j, i))
    if dtype != "bool":
        value = apply("add", dtype, value, Load(r, (i,)))
    return Kernel("turned", (x, r, z), (), (Par((b, i, j), (Store(z, (b, i, j), value),)),))


def inputs_of(kernel: Kernel) -> list[np.ndarray]:
    given = [b for b in kernel.params if b.mode == "in"]
    return [samples(b.dtype, prod(b.shape), k).reshape(b.shape) for k, b in enumerate(given)]


def blocks(kernel: Kernel) -> list[Par]:
    return [s for s in statements(kernel.body) if isinstance(s, Par) and isinstance(s.how, Turn)]


@TARGETS
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("rows", "columns"), [(16, 3), (100, 2), (67, 7), (5, 3), (33, 4), (48, 5)]
)
def test_columns_of_all_dtypes(rows, columns, dtype, target):
    kernel = turned(rows, columns, dtype)
    check(kernel, *inputs_of(kernel), target=target)


@pytest.mark.parametrize("outer", [1, 3])
@pytest.mark.parametrize("columns", range(1, MOST_COLUMNS + 3))
def test_which_rows_are_short(columns, outer):
    kernel = turned(40, columns, outer=outer)
    (block, *others) = blocks(tile(kernel, X86_AVX512)) or [None]
    if 2 <= columns <= MOST_COLUMNS:
        assert [var.extent for var in block.vars] == [16, columns]
        assert not others
    else:
        assert block is None or block.vars[0].extent == block.vars[1].extent
    check(kernel, *inputs_of(kernel))


def test_the_text_parses_back():
    text = print_kernel(tile(turned(40, 3), X86_AVX512))
    assert print_kernel(parse_kernel(text)) == text


def stacked(rows: int, columns: int) -> Kernel:
    """Columns from arrays of their own, and which numbers are positive."""
    given = [buffer(f"x{k}", "f32", (rows,)) for k in range(columns)]
    z, mask = (
        buffer("z", "f32", (rows, columns), "out"),
        buffer("m", "bool", (rows, columns), "out"),
    )
    i, j = Var("i", rows), Var("j", columns)
    value: Expr = apply("mul", "f32", Load(given[-1], (i,)), const(2.0))
    for k, x in enumerate(given[:-1]):
        value = Choose(eq(j, k), Load(x, (i,)), value)
    stores = Store(z, (i, j), value), Store(mask, (i, j), apply("gt", "bool", value, const(0.0)))
    return Kernel("stacked", (*given, z, mask), (), (Par((i, j), stores),))


@TARGETS
@pytest.mark.parametrize("columns", [2, 3, 6])
def test_stacks(columns, target):
    kernel = stacked(75, columns)
    assert blocks(tile(kernel, target))
    check(kernel, *inputs_of(kernel), target=target)


def test_what_a_column_chooses_is_known():
    text = ModuleText()
    write_kernel(text, tile(stacked(64, 3), X86_AVX512), "stacked", X86_AVX512)
    found = text.text()
    assert all(word not in found for word in ("gather", "scatter", "masked", "select"))


def test_rows_that_are_contiguous_themselves_stay():
    x, z = buffer("x", "f32", (100, 3)), buffer("z", "f32", (100, 3), "out")
    i, j = Var("i", 100), Var("j", 3)
    par = Par((i, j), (Store(z, (i, j), Load(x, (i, j))),))
    assert interleaved(par, HOST) is None
    apart = buffer("z", "f32", (100, 5), "out")
    assert interleaved(Par((i, j), (Store(apart, (i, j), Load(x, (i, 0))),)), HOST) is None


def test_threads_and_large_batches():
    x = np.random.default_rng(0).standard_normal((8, 3, 4001)).astype(np.float32)
    function = diffc.jit(lambda x: np.transpose(x, (0, 2, 1)) * 2)
    for threads in (1, 2):
        with diffc.threads(threads):
            np.testing.assert_array_equal(function(x), np.transpose(x, (0, 2, 1)) * 2)


@given(st.integers(1, 70), st.integers(1, 9), st.booleans())
def test_points_from_coordinates_and_back(rows, columns, is_last):
    given = np.random.default_rng(2).standard_normal((columns, rows))

    def loss(*xs):
        points = np.stack(xs, axis=-1 if is_last else 0)
        return np.sum(points**3 * (1 + np.arange(points.shape[-1])))

    args = tuple(given)
    value, grads = diffc.jit(diffc.value_and_grad(loss, argnums=tuple(range(columns))))(*args)
    np.testing.assert_allclose(value, loss(*args), rtol=1e-12)
    for k, (x, g) in enumerate(zip(args, grads, strict=True)):
        weight = 1 + k if is_last else 1 + np.arange(rows)
        np.testing.assert_allclose(g, 3 * x**2 * weight, rtol=1e-13)
