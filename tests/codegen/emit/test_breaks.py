"""Vectors along several short rows of a larger array: loads that jump once."""

import numpy as np
import pytest

import diffc
from diffc.codegen.emit.frame import Frame, Lanes
from diffc.codegen.emit.text import ModuleText
from diffc.codegen.loops.nodes import Kernel, Load, Reduce, Scalar, Store, Sweep
from diffc.codegen.targets import X86_AVX2, X86_AVX512
from diffc.ir.index import Var
from tests.codegen.emit.kernels import HOST, apply, buffer, check, samples


def jump_of(index, var: Var, lanes: int, *others: Var):
    frame = Frame(ModuleText().function("f", "void", []), HOST, {})
    with frame.level():
        for other in others:
            frame.bind(other, f"%{other.name}")
        frame.bind_lanes(Lanes(var, "%base", lanes, is_aligned=True))
        found = frame.lane_break(index)
        return None if found is None else found[1]


def test_jumps_are_known():
    f, i = Var("f", 62 * 62), Var("i", 9)
    assert jump_of(64 * (f // 62) + f % 62, f, 8) == 2
    assert jump_of(64 * (f // 62) + f % 62 + 100 * i, f, 8, i) == 2
    assert jump_of(f % 62, f, 8) == -62
    assert jump_of(f // 62, f, 8) is None
    assert jump_of(64 * (f // 6) + f % 6, f, 8) is None
    assert jump_of(64 * (f // 62) + (f + 1) % 62, f, 8) is None
    assert jump_of(2 * (f % 62), f, 8) is None


@pytest.mark.parametrize("target", [X86_AVX512, X86_AVX2], ids=["avx512", "avx2"])
@pytest.mark.parametrize("dtype", ["f32", "f64", "i16", "bool"])
@pytest.mark.parametrize(("rows", "columns"), [(1, 40), (5, 17), (30, 33), (9, 62), (3, 200)])
@pytest.mark.parametrize("monoid", ["sum", "max"])
def test_folds_within_borders(rows, columns, dtype, target, monoid):
    """Every row of the inside is read, up to the very ends of the memory, and nothing else."""
    if dtype == "bool":
        monoid = "any" if monoid == "sum" else "all"
    x = buffer("x", dtype, (rows, columns + 3))
    y, out = buffer("y", dtype, (rows, columns), "out"), buffer("out", dtype, (), "out")
    i, j = Var("i", rows), Var("j", columns)
    total = Scalar("t", dtype)
    for shift in (0, 3):
        value = Load(x, (i, j + shift))
        sweep = Sweep((i, j), (Reduce(total, monoid, (i, j), value), Store(y, (i, j), value)))
        kernel = Kernel("k", (x, y, out), (), (sweep, Store(out, (), total)))
        check(kernel, samples(dtype, rows * (columns + 3), shift).reshape(x.shape), target=target)


def test_products_with_what_repeats():
    x, g, out = (
        buffer("x", "f32", (50, 37)),
        buffer("g", "f32", (37,)),
        buffer("o", "f32", (), "out"),
    )
    i, j, total = Var("i", 50), Var("j", 37), Scalar("t", "f32")
    fold = Reduce(total, "sum", (i, j), apply("mul", "f32", Load(x, (i, j)), Load(g, (j,))))
    kernel = Kernel("k", (x, g, out), (), (fold, Store(out, (), total)))
    check(kernel, samples("f32", 1850).reshape(50, 37), samples("f32", 37, 1))


def test_stencils_in_three_dimensions():
    def energy(x):
        inside = x[1:-1, 1:-1, 1:-1]
        around = x[:-2, 1:-1, 1:-1] + x[2:, 1:-1, 1:-1] + x[1:-1, :-2, 1:-1] + x[1:-1, 2:, 1:-1]
        return np.sum((6 * inside - around - x[1:-1, 1:-1, :-2] - x[1:-1, 1:-1, 2:]) ** 2)

    x = np.random.default_rng(0).normal(size=(20, 21, 35))
    value, ct = diffc.value_and_grad(energy)(x)
    np.testing.assert_allclose(value, energy(x), rtol=1e-12)
    step = np.random.default_rng(1).normal(size=x.shape)
    slope = (energy(x + 1e-6 * step) - energy(x - 1e-6 * step)) / 2e-6
    np.testing.assert_allclose(np.sum(ct * step), slope, rtol=1e-6)
