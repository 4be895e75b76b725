"""What counts as work, and that loops which measure the machine do what they say."""

import ctypes

import numpy as np
import pytest

import diffc
from benchmarks import bounds, peaks
from benchmarks.__main__ import main
from benchmarks.bounds import Bound
from benchmarks.peaks import LARGE, Peaks
from diffc.codegen.targets import ARM_NEON, X86_AVX2, X86_AVX512, X86_SSE2
from diffc.runtime import build
from diffc.runtime.target import host


def flops_of(f, *args):
    graph = diffc.jit(f).stages(*args, until="transform").stage("transform").value
    return bounds.flops_of(graph)


def test_products_count_twice_their_multiply_adds():
    a, b = np.ones((3, 5), "f4"), np.ones((5, 7), "f4")
    assert flops_of(lambda a, b: a @ b + 1.0, a, b) == 2 * 3 * 5 * 7
    assert flops_of(diffc.grad(lambda a, b: np.sum(np.sin(a @ b))), a, b) == 2 * 2 * 3 * 5 * 7
    assert flops_of(lambda a: np.tanh(a), a) == 0


def test_loops_count_their_trips_and_branches_the_longer_one():
    w, x = np.ones((4, 4), "f4"), np.ones((2, 4), "f4")

    def loop(w, x):
        return diffc.scan(lambda c, _: (np.tanh(c @ w), None), x, None, length=7)[0]

    def branch(w, x):
        return diffc.cond(x[0, 0] > 0, lambda: x @ w @ w, lambda: x @ w)

    assert flops_of(loop, w, x) == 7 * 2 * 2 * 4 * 4
    assert flops_of(branch, w, x) == 2 * 2 * 2 * 4 * 4


@pytest.mark.parametrize("target", [X86_AVX512, X86_AVX2, X86_SSE2, ARM_NEON], ids=lambda t: t.name)
def test_the_loops_of_all_targets_are_what_they_say(target):
    text = peaks.text(target)
    assert text.count("%v3 = load") == 2  # of loads and copies, and all are used
    assert all(f"or <{target.vector_bytes // 4} x i32> %t{k}, " in text for k in range(4))
    names = ["flops_float", "flops_double", "load", "store", "copy"]
    code = build.assembly(text, target)
    assert all(f"{name}:" in code for name in names)


def test_a_copy_copies_and_a_store_stores():
    target = host()
    library = build.build(peaks.text(target), ("copy", "store"), target)
    room = np.arange(4096, dtype="i4")
    start = room.ctypes.data + -room.ctypes.data % 64
    call = {
        name: ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * 2, *[ctypes.c_int64] * 2)(
            library.address(name)
        )
        for name in ("copy", "store")
    }
    first = (start - room.ctypes.data) // 4
    call["copy"](start, start + 4096, 512, 2)
    np.testing.assert_array_equal(room[first + 1024 : first + 1536], room[first : first + 512])
    call["store"](start, start, 256, 1)
    assert not room[first : first + 256].any()
    assert room[first + 256 : first + 512].all()


def test_the_table_shows_shares_of_the_peaks():
    found = Peaks({"float32": 100e9, "float64": 50e9}, {("load", LARGE): 20e9}, 1)
    text = bounds.text([Bound("w8", 1e-3, 0.0, 10e6), Bound("digits", 1e-3, 5e7, 1e6)], found)
    w8, digits = (line for line in text.splitlines() if line.startswith(("w8", "digits")))
    assert w8.split()[-1] == "50%"
    assert "50%" in digits
    assert "100.0 GFLOP/s in float32" in text


def test_the_command_line(capsys, monkeypatch):
    monkeypatch.setattr("benchmarks.machine.pin", lambda cores: None)
    monkeypatch.setenv("DIFFC_NUM_THREADS", "1")
    monkeypatch.setattr(peaks, "ROUNDS", 1)
    monkeypatch.setattr(peaks, "SECONDS", 1e-4)
    monkeypatch.setattr(peaks, "LARGE", 1 << 20)
    monkeypatch.setattr(bounds, "LARGE", 1 << 20)
    main(["bounds", "--workloads", "layer_norm_128x64"])
    assert "layer_norm_128x64" in capsys.readouterr().out
