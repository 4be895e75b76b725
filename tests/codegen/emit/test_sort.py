"""Sorting rows: all dtypes, lengths around blocks and vectors, ties, zeros, nans, other targets."""

import numpy as np
import pytest

from diffc.codegen.loops.nodes import Kernel, Par, Sort
from diffc.codegen.loops.sorting import MOST_BLOCK, block_of, padded
from diffc.codegen.targets import X86_AVX2, X86_SSE2
from diffc.ir.index import Var
from tests.codegen.emit.kernels import buffer, check, samples

LENGTHS = (0, 1, 2, 3, 8, 15, 16, 17, 31, 33, 64, 100, 129, 1024, 1025, 3000)
DTYPES = ("f32", "f64", "bf16", "f16", "i64", "u64", "i32", "u32", "i8", "u8", "bool")


def sort_kernel(rows: int, length: int, dtype: str, positions: bool, dense: bool = True) -> Kernel:
    """Sorts the rows of [rows, length], or the columns of its transpose."""
    shape = (rows, length) if dense else (length, rows)
    keys = buffer("keys", dtype, shape)
    out = buffer("out", "i64" if positions else dtype, shape, "out")
    i, k = Var("i", rows), Var("k", length)
    at = (i, k) if dense else (k, i)
    return Kernel("sort", (keys, out), (), (Par((i,), (Sort(out, keys, at, k, positions),)),))


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("positions", [True, False])
@pytest.mark.parametrize("dense", [True, False])
def test_rows(length: int, positions: bool, dense: bool) -> None:
    for dtype in DTYPES:
        values = np.random.default_rng(length).permutation(samples(dtype, 3 * length + 40, 1))
        values = values[: 3 * length].reshape((3, length) if dense else (length, 3))
        check(sort_kernel(3, length, dtype, positions, dense), values)


@pytest.mark.parametrize("dtype", ["bf16", "f16", "f32", "f64", "i32", "u64"])
@pytest.mark.parametrize("positions", [True, False])
def test_ties_keep_their_order(dtype: str, positions: bool) -> None:
    rng = np.random.default_rng(0)
    for length in (5, 40, 700, 2500):
        few = rng.integers(0, 3, (2, length)).astype(samples(dtype, 1).dtype)
        check(sort_kernel(2, length, dtype, positions), few)
        if dtype[0] == "f":  # zeros of both signs are equal, as all nans are
            pool = np.array([0.0, -0.0, 1.0, -1.0, np.nan, -np.nan, np.inf, -np.inf], few.dtype)
            for dense in (True, False):
                drawn = rng.choice(pool, (2, length) if dense else (length, 2))
                check(sort_kernel(2, length, dtype, positions, dense), drawn)


@pytest.mark.parametrize("dtype", ["i8", "u8", "i32", "u32", "i64", "u64"])
@pytest.mark.parametrize("positions", [True, False])
def test_the_greatest_integers_come_before_the_filling(dtype: str, positions: bool) -> None:
    info = np.iinfo(samples(dtype, 1).dtype)
    for length in (1, 17, 70, 1030):
        drawn = np.random.default_rng(length).integers(0, 4, (2, length))
        values = np.array([info.min, info.max, 0, 1], info.dtype)[drawn]
        check(sort_kernel(2, length, dtype, positions), values)


@pytest.mark.parametrize("target", [X86_AVX2, X86_SSE2])
@pytest.mark.parametrize("positions", [True, False])
def test_other_targets(target, positions: bool) -> None:
    for dtype in ("f32", "f64", "u8"):
        for length in (3, 16, 70, 1030):
            values = samples(dtype, 2 * length + 40)[: 2 * length].reshape(2, length)
            check(sort_kernel(2, length, dtype, positions), values, target=target)


def test_blocks_cover_a_row() -> None:
    for length in (*range(1, 200), 1000, 1025, 5000, 10**6):
        block, whole = block_of(length), padded(length)
        assert block & (block - 1) == 0
        assert block <= MOST_BLOCK
        assert whole % block == 0
        assert length <= whole < length + block
