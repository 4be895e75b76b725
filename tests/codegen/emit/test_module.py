"""Modules: addresses, shared kernels, constants, copies, loops of routines, the status."""

import ctypes

import numpy as np
import pytest

from diffc.codegen.emit.module import emit
from diffc.codegen.loops.key import kernel_key
from diffc.codegen.loops.module import Address, Copy, Invoke, Launch, Module, Repeat, Routine
from diffc.codegen.loops.nodes import Expr, GatherLoad, Kernel, Load, Par, Store
from diffc.codegen.tile import tile
from diffc.ir.index import Var
from diffc.runtime import build
from tests.codegen.emit.kernels import HOST, apply, buffer

N = 21


def f32(count: int = N, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(count).astype(np.float32)


def at(text: str, offset: int = 0) -> Address:
    base = text.rstrip("0123456789")
    names = {"in": "input", "out": "output", "arena": "arena", "const": "constant"}
    return Address(names[base], int(text[len(base) :] or 0), offset)  # type: ignore[arg-type]


def pointwise(names: str, op: str, count: int = N) -> Kernel:
    """out = op(a, b), elementwise, with buffers of the given names."""
    a, b, out = names.split()
    x, y, z = (
        buffer(a, "f32", (count,)),
        buffer(b, "f32", (count,)),
        buffer(out, "f32", (count,), "out"),
    )
    i = Var("i", count)
    value: Expr = apply(op, "f32", Load(x, (i,)), Load(y, (i,)))
    return tile(Kernel(op, (x, y, z), (), (Par((i,), (Store(z, (i,), value),)),)), HOST)


def run(module: Module, inputs: list[np.ndarray], outputs: list[np.ndarray]) -> tuple[int, str]:
    text = emit(module, "main", HOST)
    library = build.build(text, ("main",), HOST)
    arena = np.zeros(module.entry.arena_bytes + 64, np.uint8)
    function = ctypes.CFUNCTYPE(ctypes.c_int64, *[ctypes.c_void_p] * 3)(library.address("main"))
    tables = [
        (ctypes.c_void_p * max(1, len(arrays)))(*[array.ctypes.data for array in arrays])
        for arrays in (inputs, outputs)
    ]
    start = arena.ctypes.data + -arena.ctypes.data % 64
    status = function(*[ctypes.addressof(table) for table in tables], start)
    return status, text


def module_of(entry: Routine, constants: tuple[bytes, ...] = ()) -> Module:
    return Module(entry, constants, (("bad", "here"),), {})


def test_equal_kernels_are_one_function() -> None:
    first, second = pointwise("a b c", "add"), pointwise("x y z", "add")
    assert kernel_key(first) == kernel_key(second)
    assert kernel_key(first) != kernel_key(pointwise("a b c", "sub"))
    assert kernel_key(first) != kernel_key(pointwise("a b c", "add", 5))
    entry = Routine(
        "main",
        2,
        1,
        128,
        (
            Launch(first, (at("in0"), at("in1"), at("arena"))),
            Launch(second, (at("in1"), at("arena"), at("out0"))),
        ),
    )
    x, y, out = f32(), f32(seed=2), np.zeros(N, np.float32)
    status, text = run(module_of(entry), [x, y], [out])
    assert status == 0
    np.testing.assert_array_equal(out, y + (x + y))
    entry = Routine(
        "main", 2, 1, 128, (*entry.steps, Launch(second, (at("in1"), at("in0"), at("arena"))))
    )
    _, text = run(module_of(entry), [x, y], [out])
    assert text.count("define internal void @kernel_add") == 2  # by what is known of alignment


def test_constants_and_copies() -> None:
    data = f32(seed=3)
    entry = Routine(
        "main",
        1,
        2,
        0,
        (
            Launch(pointwise("a b c", "mul"), (at("in0"), at("const0"), at("out0"))),
            Copy(at("out1"), at("const0", 4), 4 * (N - 1)),
            Copy(at("out1"), at("out1"), 4 * N),
        ),
    )
    x, out, part = f32(), np.zeros(N, np.float32), np.zeros(N, np.float32)
    assert run(module_of(entry, (data.tobytes(),)), [x], [out, part])[0] == 0
    np.testing.assert_array_equal(out, x * data)
    np.testing.assert_array_equal(part[:-1], data[1:])


@pytest.mark.parametrize("length", [0, 1, 2, 5])
@pytest.mark.parametrize("reverse", [False, True])
def test_repeat(length: int, reverse: bool) -> None:
    """carry = carry * x[i] + c, ys[i] = carry * c: one constant, one carry, slices in and out."""
    nbytes = 4 * N
    body = Routine(
        "body",
        3,
        2,
        128,
        (
            Launch(pointwise("a b c", "mul"), (at("in1"), at("in2"), at("arena"))),
            Launch(pointwise("a b c", "add"), (at("arena"), at("in0"), at("out0"))),
            Launch(pointwise("a b c", "mul"), (at("out0"), at("in0"), at("out1"))),
        ),
    )
    repeat = Repeat(
        body,
        length,
        reverse,
        constants=(at("in0"),),
        initial=(at("in1"),),
        spare=(at("arena"),),
        final=(at("out0"),),
        slices=((at("in2"), nbytes),),
        stacked=((at("out1"), nbytes),),
        arena=at("arena", 128),
        carry_bytes=(nbytes,),
    )
    entry = Routine("main", 3, 2, 256, (repeat,))
    c, start, xs = f32(), f32(seed=2), f32(N * length, seed=4).reshape(length, N)
    final, ys = np.zeros(N, np.float32), np.zeros((length, N), np.float32)
    assert run(module_of(entry), [c, start, xs], [final, ys])[0] == 0
    want, carry = np.zeros_like(ys), start
    for step in reversed(range(length)) if reverse else range(length):
        carry = carry * xs[step] + c
        want[step] = carry * c
    np.testing.assert_array_equal(final, carry)
    np.testing.assert_array_equal(ys, want)


def test_invoked_routine_reports_its_status() -> None:
    table, index = buffer("table", "f32", (N,)), buffer("index", "i64", (4,))
    out, i = buffer("out", "f32", (4,), "out"), Var("i", 4)
    value = GatherLoad(table, (Load(index, (i,)),), "check", 1)
    kernel = tile(
        Kernel("take", (table, index, out), (), (Par((i,), (Store(out, (i,), value),)),)), HOST
    )
    callee = Routine("callee", 2, 1, 0, (Launch(kernel, (at("in0"), at("in1"), at("out0"))),))
    call = Invoke(callee, (at("in0"), at("in1")), (at("out0"),), at("arena"))
    entry = Routine("main", 2, 1, 0, (call, call))
    x, got = f32(), np.zeros(4, np.float32)
    for bad in (3, N, -1):
        indices = np.array([0, bad, 5, 2])
        assert run(module_of(entry), [x, indices], [got])[0] == (bad != 3)
    np.testing.assert_array_equal(got[2:], x[[5, 2]])
