"""Transposed accesses in blocks: the same values for any shape, and the form that is promised."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import diffc
from diffc.codegen.loops.nodes import GatherLoad, Kernel, Load, Par, Store, Turn, Vector
from diffc.codegen.loops.text import parse_kernel, print_kernel
from diffc.codegen.loops.walk import statements
from diffc.codegen.targets import ARM_NEON, X86_AVX2, X86_AVX512, X86_SSE2
from diffc.codegen.tile import tile
from diffc.ir.aval import DTYPES
from diffc.ir.index import Var
from diffc.runtime import pool
from tests.codegen.emit.kernels import apply, buffer, check
from tests.programs.compare import same
from tests.shares import needs_pool, shared_anyway, steady

__all__ = ["shared_anyway", "steady"]


def flipped(rows: int, columns: int, dtype: str = "f32") -> Kernel:
    """The transpose of a matrix."""
    x, y = buffer("x", dtype, (columns, rows)), buffer("y", dtype, (rows, columns), "out")
    i, j = Var("i", rows), Var("j", columns)
    return Kernel("flip", (x, y), (), (Par((i, j), (Store(y, (i, j), Load(x, (j, i))),)),))


def mixed(rows: int, columns: int, dtype: str = "f32") -> Kernel:
    """The sum of a matrix and a transposed one."""
    x, z = buffer("x", dtype, (columns, rows)), buffer("z", dtype, (rows, columns))
    y = buffer("y", dtype, (rows, columns), "out")
    i, j = Var("i", rows), Var("j", columns)
    value = apply("add", dtype, Load(x, (j, i)), Load(z, (i, j)))
    return Kernel("mixed", (x, z, y), (), (Par((i, j), (Store(y, (i, j), value),)),))


def hows(kernel: Kernel) -> list[type]:
    return [type(s.how) for s in statements(kernel.body) if isinstance(s, Par) and s.how]


def numbers(shape, dtype: str, seed: int = 0) -> np.ndarray:
    found = np.random.default_rng(seed).integers(0, 100, shape)
    return found.astype(DTYPES[dtype])


SIZES = [(8, 8), (16, 16), (17, 9), (31, 64), (8, 40), (40, 8), (100, 33), (300, 16)]


@pytest.mark.parametrize("shape", SIZES)
@pytest.mark.parametrize("dtype", ["f32", "f64", "u8", "i16", "bf16", "f16"])
def test_transposes(shape, dtype):
    rows, columns = shape
    check(flipped(*shape, dtype), numbers((columns, rows), dtype))
    check(mixed(*shape, dtype), numbers((columns, rows), dtype), numbers(shape, dtype, 1))


@pytest.mark.parametrize("target", [X86_AVX512, X86_AVX2, X86_SSE2, ARM_NEON])
def test_the_form_of_blocks(target):
    made = tile(flipped(64, 48), target)
    assert hows(made) == [Turn]
    assert not made.scratch, "nothing lies in memory between"
    both = tile(mixed(64, 48), target)
    assert hows(both) == [Turn, Vector]
    (block,) = both.scratch
    assert block.shape == (min(16, target.lanes("f32")),) * 2
    for kernel in (made, both, tile(mixed(50, 49), target)):
        assert print_kernel(parse_kernel(print_kernel(kernel))) == print_kernel(kernel)


def test_what_is_not_cut():
    assert Turn not in hows(tile(flipped(7, 100), X86_AVX512)), "short rows are picked or gathered"
    i, j, x = Var("i", 64), Var("j", 64), buffer("x", "f32", (64, 64))
    y = buffer("y", "f32", (64, 64), "out")
    value = apply("add", "f32", Load(x, (i, j)), Load(x, (i, j)))
    plain = Kernel("plain", (x, y), (), (Par((i, j), (Store(y, (i, j), value),)),))
    assert hows(tile(plain, X86_AVX512)) == [Vector]


def test_several_results_each_the_way_they_run():
    x, y = buffer("x", "f32", (40, 24)), buffer("y", "f32", (40, 24), "out")
    z, i, j = buffer("z", "f32", (24, 40), "out"), Var("i", 40), Var("j", 24)
    load = Load(x, (i, j))
    stores = (
        Store(y, (i, j), apply("neg", "f32", load)),
        Store(z, (j, i), apply("add", "f32", load, load)),
    )
    kernel = Kernel("both", (x, y, z), (), (Par((i, j), stores),))
    assert sorted(how.__name__ for how in hows(tile(kernel, X86_AVX512))) == ["Turn", "Vector"]
    check(kernel, numbers((40, 24), "f32"))


def test_computed_indices_beside_a_transpose():
    x, index = buffer("x", "f32", (33, 20)), buffer("n", "i64", (33,))
    t, y = buffer("t", "f32", (9,)), buffer("y", "f32", (20, 33), "out")
    i, j = Var("i", 20), Var("j", 33)
    picked = GatherLoad(t, (Load(index, (j,)),), "fill")
    value = apply("mul", "f32", Load(x, (j, i)), picked)
    kernel = Kernel("k", (x, index, t, y), (), (Par((i, j), (Store(y, (i, j), value),)),))
    where = np.random.default_rng(0).integers(-3, 12, 33)
    check(kernel, numbers((33, 20), "f32"), where, numbers(9, "f32"))


FUNCTIONS = {
    "turn": lambda x, y: x.T * 2,
    "both": lambda x, y: (x + 1, x.T - 1),
    "sum": lambda x, y: x.T + y,
    "mask": lambda x, y: y < x.T,
    "where": lambda x, y: np.where(x.T > 3, x.T, y),
    "rows": lambda x, y: x.T * y[0],
    "columns": lambda x, y: x.T + y[:, :1],
    "reversed": lambda x, y: x[::-1].T + y[:, ::-1],
    "exp": lambda x, y: np.floor(np.sqrt(np.abs(x.T))) + np.floor(np.sqrt(np.abs(y))),
    "narrow": lambda x, y: x.T.astype(np.int8),
    "wide": lambda x, y: x.T.astype(np.float64) * y,
    "position": lambda x, y: x.T + np.arange(y.shape[1], dtype=np.float32),
    "padded": lambda x, y: np.pad(x.T, 1),
    "rolled": lambda x, y: np.roll(x, 3, axis=0).T,
    "bool": lambda x, y: (x > 50).T,
}


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("shape", [(16, 32), (9, 50), (65, 47), (8, 8)])
def test_programs(name, shape):
    function, x, y = FUNCTIONS[name], numbers(shape, "f32"), numbers(shape[::-1], "f32", 1)
    found, wanted = diffc.jit(function)(x, y), function(x, y)
    for a, b in zip(found, wanted, strict=True) if name == "both" else [(found, wanted)]:
        same(np.asarray(a), np.ascontiguousarray(b))


@given(
    st.lists(st.sampled_from([1, 2, 3, 8, 9, 16, 20]), min_size=2, max_size=4),
    st.randoms(use_true_random=False),
    st.sampled_from(["f32", "f64", "u8", "i16"]),
)
def test_permutations(shape, random, dtype):
    perm = list(range(len(shape)))
    random.shuffle(perm)
    x = numbers(shape, dtype)
    y = numbers([shape[axis] for axis in perm], dtype, 1)

    def moved(x, y):
        return np.transpose(x, perm) + y, np.transpose(x, perm) * 3

    for found, wanted in zip(diffc.jit(moved)(x, y), moved(x, y), strict=True):
        same(found, np.ascontiguousarray(wanted))


@needs_pool
@pytest.mark.parametrize("name", ["turn", "both", "sum"])
def test_threads_share_blocks(shared_anyway, name):
    x, y = numbers((70, 90), "f32"), numbers((90, 70), "f32", 1)
    jitted, function = diffc.jit(FUNCTIONS[name]), FUNCTIONS[name]
    for count in (1, 2, 3):
        with pool.use_threads(count):
            found, wanted = jitted(x, y), function(x, y)
            for a, b in zip(found, wanted, strict=True) if name == "both" else [(found, wanted)]:
                np.testing.assert_array_equal(a, b)


def test_guarded_memory(monkeypatch):
    monkeypatch.setenv("DIFFC_GUARD", "1")
    for (rows, columns), name in itertools.product([(9, 50), (33, 17)], ["sum", "mask"]):
        x, y = numbers((rows, columns), "f32"), numbers((columns, rows), "f32", 1)
        same(diffc.jit(FUNCTIONS[name])(x, y), FUNCTIONS[name](x, y))
