"""What `tile` chooses, and that it changes no result."""

import numpy as np
import pytest

from diffc.codegen.loops.nodes import (
    For,
    IndexValue,
    Kernel,
    Load,
    Par,
    Reduce,
    Scalar,
    Scatter,
    Store,
)
from diffc.codegen.targets import X86_AVX512
from diffc.codegen.tile import tile
from diffc.ir.index import Var, lt
from tests.codegen.emit.kernels import apply, buffer, check, const

LANES = X86_AVX512.lanes("f32")


def only(kernel: Kernel) -> Par:
    (par,) = tile(kernel, X86_AVX512).body
    assert isinstance(par, Par)
    return par


def lanes_of(par: Par) -> int:
    return 0 if par.how is None else par.how.lanes


def mapped(shape, indices, value_of, extents, guard=None) -> Kernel:
    x, y = buffer("x", "f32", shape), buffer("y", "f32", extents, "out")
    vars = tuple(Var(f"i{axis}", extent) for axis, extent in enumerate(extents))
    store = Store(y, vars, value_of(Load(x, indices(*vars))))
    if guard is not None:
        store = Store(y, vars, store.value, guard(*vars))
    return Kernel("map", (x, y), (), (Par(vars, (store,)),))


def test_dense_nests_become_one_loop() -> None:
    kernel = mapped((4, 5, 6), lambda i, j, k: (i, j, k), lambda x: x, (4, 5, 6))
    par = only(kernel)
    assert [var.extent for var in par.vars] == [120]
    assert lanes_of(par) == 2 * LANES


def test_heavy_bodies_take_one_register() -> None:
    kernel = mapped((9, 9), lambda i, j: (i, j), lambda x: apply("exp", "f32", x), (9, 9))
    assert lanes_of(only(kernel)) == LANES


def test_broadcasts_guards_and_index_values_keep_their_axes() -> None:
    row = mapped((16,), lambda i, j: (j,), lambda x: x, (4, 16))
    assert [var.extent for var in only(row).vars] == [4, 16]
    guarded = mapped((4, 8), lambda i, j: (i, j), lambda x: x, (4, 8), lambda i, j: lt(j, 5))
    assert [var.extent for var in only(guarded).vars] == [4, 8]
    y, i, j = buffer("y", "i32", (4, 16), "out"), Var("i", 4), Var("j", 16)
    iota = Kernel("iota", (y,), (), (Par((i, j), (Store(y, (i, j), IndexValue("i32", j)),)),))
    assert [var.extent for var in only(iota).vars] == [4, 16]


def test_units_vanish() -> None:
    kernel = mapped((1, 7, 1), lambda i, j, k: (i, j, k), lambda x: x, (1, 7, 1))
    assert [var.extent for var in only(kernel).vars] == [7]
    check(kernel, np.arange(7, dtype=np.float32).reshape(1, 7, 1))


def test_vectors_go_where_stores_are_contiguous() -> None:
    kernel = mapped((6, 9), lambda i, j: (j, i), lambda x: x, (9, 6))
    assert only(kernel).vars[-1].extent == 6
    x, y = buffer("x", "f32", (6, 9)), buffer("y", "f32", (6, 9), "out")
    i, j = Var("i", 9), Var("j", 6)
    outer = Kernel("k", (x, y), (), (Par((i, j), (Store(y, (j, i), Load(x, (j, i))),)),))
    assert only(outer).vars[-1].extent == 9
    check(outer, np.arange(54, dtype=np.float32).reshape(6, 9))


@pytest.mark.parametrize("rows", [16, 32, 64, 48])
def test_rows_within_an_axis_count_as_contiguous(rows: int) -> None:
    """Vectors that stay within a row of the operand, where the axis runs over several rows."""
    n = 2 * rows
    x, y = buffer("x", "f32", (2, 5, rows)), buffer("y", "f32", (n,), "out")
    i, r, s = Var("i", n), Var("r", 5), Scalar("s", "f32")
    load = Load(x, (i // rows, r, i % rows))
    body = (Reduce(s, "sum", (r,), load, "sequence"), Store(y, (i,), s))
    kernel = Kernel("sums", (x, y), (), (Par((i,), body),))
    assert lanes_of(only(kernel)) == min(rows & -rows, 4 * LANES)
    check(kernel, np.random.default_rng(0).standard_normal((2, 5, rows)).astype(np.float32))


def sums(order: str, length: int, along_rows: bool) -> Kernel:
    shape = (40, length) if along_rows else (length, 40)
    x, y = buffer("x", "f32", shape), buffer("y", "f32", (40,), "out")
    i, r, s = Var("i", 40), Var("r", length), Scalar("s", "f32")
    load = Load(x, (i, r) if along_rows else (r, i))
    return Kernel(
        "sums", (x, y), (), (Par((i,), (Reduce(s, "sum", (r,), load, order), Store(y, (i,), s))),)
    )


def test_reductions_choose_between_rows_and_points() -> None:
    assert lanes_of(only(sums("lanes", 100, True))) == 0
    assert lanes_of(only(sums("sequence", 100, False))) == 16 * LANES
    assert lanes_of(only(sums("lanes", 100, False)))
    assert lanes_of(only(sums("lanes", 9, False)))


def test_scatters_that_may_meet_stay_in_order() -> None:
    index, x = buffer("index", "i64", (8,)), buffer("x", "f32", (8, 8))
    y = buffer("y", "f32", (5,), "mut")
    i, j = Var("i", 8), Var("j", 8)
    meet = Scatter(y, (Load(index, (j,)),), Load(x, (i, j)), "add")
    kernel = Kernel("meet", (index, x, y), (), (For(i, (Par((j,), (meet,)),)),))
    (loop,) = tile(kernel, X86_AVX512).body
    assert isinstance(loop, For)
    assert loop.body[0].how is None  # type: ignore[attr-defined]
    rng = np.random.default_rng(0)
    data = rng.standard_normal((8, 8)).astype(np.float32)
    check(kernel, rng.integers(0, 5, 8), data, np.zeros(5, np.float32))


@pytest.mark.parametrize("n", [1, 20, 64, 100])
def test_each_lane_has_its_own_scratch(n: int) -> None:
    """Columns with a row of scratch: a last axis of lanes makes the points independent."""
    x, y = buffer("x", "f32", (6, n)), buffer("y", "f32", (n,), "out")
    row = buffer("row", "f32", (6,), "scratch")
    i, j, r, s = Var("i", n), Var("j", 6), Var("r", 6), Scalar("s", "f32")
    body = (
        Par((j,), (Store(row, (j,), apply("mul", "f32", Load(x, (j, i)), const(2.0))),)),
        Reduce(s, "sum", (r,), Load(row, (r,))),
        Store(y, (i,), s),
    )
    kernel = Kernel("rows", (x, y), (row,), (Par((i,), body),))
    if n > 1:
        assert lanes_of(only(kernel)) == 4 * LANES
        assert tile(kernel, X86_AVX512).scratch[0].shape == (6, 4 * LANES)
    check(kernel, np.random.default_rng(0).standard_normal((6, n)).astype(np.float32))


@pytest.mark.parametrize("seed", range(12))
def test_drawn_maps_keep_their_meaning(seed: int) -> None:
    """Random permutations, reversals, strides and broadcasts of three axes."""
    rng = np.random.default_rng(seed)
    extents = tuple(int(extent) for extent in rng.choice([1, 2, 3, 5, 16, 17, 33], 3))
    vars = tuple(Var(f"v{axis}", extent) for axis, extent in enumerate(extents))
    operands, loads = [], []
    for number in range(3):
        axes = rng.permutation(3)[: rng.integers(1, 4)]
        shape, indices = [], []
        for axis in axes:
            var, kind = vars[axis], rng.integers(0, 3)
            shape.append(2 * extents[axis] if kind == 2 else extents[axis])
            indices.append([var, extents[axis] - 1 - var, 2 * var + 1][kind])
        operands.append(buffer(f"x{number}", "f32", tuple(shape)))
        loads.append(Load(operands[-1], tuple(indices)))
    order = [int(axis) for axis in rng.permutation(3)]
    y = buffer("y", "f32", tuple(extents[axis] for axis in order), "out")
    value = apply("add", "f32", apply("mul", "f32", loads[0], loads[1]), loads[2])
    value = apply("maximum", "f32", value, const(-0.5))
    store = Store(y, tuple(vars[axis] for axis in order), value)
    kernel = Kernel("drawn", (*operands, y), (), (Par(vars, (store,)),))
    arrays = [rng.standard_normal(operand.shape).astype(np.float32) for operand in operands]
    check(kernel, *arrays)
