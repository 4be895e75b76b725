"""Loads whose lanes lie at steps that the code knows: repeats, tilings, strides."""

import numpy as np
import pytest

from diffc.codegen.emit.frame import Frame, Lanes
from diffc.codegen.emit.text import ModuleText
from diffc.codegen.loops.nodes import (
    Kernel,
    Load,
    Par,
    Reduce,
    Scalar,
    Store,
    Vector,
)
from diffc.codegen.targets import X86_AVX2, X86_AVX512, Target
from diffc.ir.index import Var
from tests.codegen.emit.kernels import HOST, apply, buffer, check, const, samples


def steps_of(index, var: Var, lanes: int, *, base: str = "%base", is_aligned: bool = True):
    fn = ModuleText().function("f", "void", [])
    frame = Frame(fn, HOST, {})
    with frame.level():
        frame.bind_lanes(Lanes(var, base, lanes, is_aligned=is_aligned))
        return frame.lane_steps(index)


def test_steps_are_known_where_vectors_start_at_multiples() -> None:
    i = Var("i", 96)
    assert steps_of(3 * i + 1, i, 4) == (0, 3, 6, 9)
    assert steps_of(i // 2, i, 8) == (0, 0, 1, 1, 2, 2, 3, 3)
    assert steps_of((i + 4) // 2 + 5 * (i % 4), i, 8) == (0, 5, 11, 16, 2, 7, 13, 18)
    assert steps_of((i + 1) // 2, i, 8) is None
    assert steps_of(i // 3, i, 8) is None
    assert steps_of(i // 2, i, 8, is_aligned=False) is None


def test_steps_are_known_where_the_first_lane_is() -> None:
    i, j = Var("i", 96), Var("j", 5)
    assert steps_of((i + 1) // 2 - i % 3, i, 4, base="0") == (0, 0, -1, 2)
    assert steps_of(i % 3, i, 4, base="4", is_aligned=False) == (0, 1, -1, 0)
    assert steps_of((i + j) // 2, i, 4, base="0") is None


@pytest.mark.parametrize("n", [1, 7, 16, 33, 100])
@pytest.mark.parametrize("k", [2, 3, 4, 8])
@pytest.mark.parametrize("dtype", ["f32", "f64", "bool", "i8"])
def test_repeats_and_tilings(n: int, k: int, dtype: str) -> None:
    x = buffer("x", dtype, (n,))
    outs = [buffer(name, dtype, (n * k,), "out") for name in ("each", "all", "turned")]
    i = Var("i", n * k)
    places = (i // k, i % n, (n * k - 1 - i) // k)
    stores = tuple(Store(y, (i,), Load(x, (at,))) for y, at in zip(outs, places, strict=True))
    kernel = Kernel("repeat", (x, *outs), (), (Par((i,), stores),))
    check(kernel, samples(dtype, n + 20)[:n])
    for lanes in (8, 16):
        vectors = Kernel("repeat", (x, *outs), (), (Par((i,), stores, Vector(lanes)),))
        check(vectors, samples(dtype, n + 20)[:n], tiled=False)


@pytest.mark.parametrize("shape", [(3, 40), (40, 3)])
def test_larger_images(shape: tuple[int, int]) -> None:
    rows, columns = shape
    x, y = buffer("x", "f32", shape), buffer("y", "f32", (2 * rows, 4 * columns), "out")
    i, j = Var("i", 2 * rows), Var("j", 4 * columns)
    value = apply("mul", "f32", Load(x, (i // 2, j // 4)), const(2.0))
    kernel = Kernel("larger", (x, y), (), (Par((i, j), (Store(y, (i, j), value),)),))
    check(kernel, np.random.default_rng(0).standard_normal(shape).astype(np.float32))


@pytest.mark.parametrize("target", [X86_AVX512, X86_AVX2], ids=["avx512", "avx2"])
@pytest.mark.parametrize("dtype", ["u8", "i8", "i16"])
def test_bytes_of_overlapping_windows(dtype: str, target: Target) -> None:
    """What LLVM turned over for ever: an operation on lanes that are picked from 64 bytes."""
    x, out = buffer("x", dtype, (300,)), buffer("out", dtype, (), "out")
    i, j, total = Var("i", 149), Var("j", 3), Scalar("t", dtype)
    item = Load(x, (2 * i + j,))
    fold = Reduce(total, "max", (i, j), apply("mul", dtype, item, item))
    kernel = Kernel("k", (x, out), (), (fold, Store(out, (), total)))
    check(kernel, samples(dtype, 300, 1), target=target)
