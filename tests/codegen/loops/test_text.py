"""The text of kernels parses back: hand-written ones, and those of real programs."""

import numpy as np
import pytest

import diffc
from diffc.codegen.loops.interpret import run
from diffc.codegen.loops.nodes import Apply, Buffer, Kernel, Load, Par, Store
from diffc.codegen.loops.text import parse_kernel, print_kernel
from diffc.codegen.targets import X86_AVX2
from diffc.errors import UsageError
from diffc.ir.index import Var

DENSE = """\
kernel @dense(x: in f32[64,10], w: in f32[10,5], b: in f32[5], out: out f32[64,5]) {
  par i in 64, j in 5 {
    acc: f32 = contract(k in 10: x[i, k], w[k, j]) with rows=8 vectors=3 lanes=16 unroll=4 \
row_block=0 column_block=0 depth_block=0 pack_rhs
    out[i, j] = maximum(add(acc, b[j]), 0.0:f32)
  }
}
"""

ROWS = """\
kernel @rows(x: in f64[3,8], y: in i64[3], out: out f64[3,8], pick: out f64[3], n: mut i64[]) {
  scratch row: f64[8]
  par i in 3 {
    top: f64 = reduce max lanes(j in 8: x[i, j])
    par j in 8 with vector=8 {
      let %0 = exp(sub(x[i, j], top))
      row[j] = %0
      out[i, j] = add(%0, index(`2*i + j`):f64)
    }
    pick[i] = gather check 1 row(y[i]) if `i >= 1`
  }
  for t in 4 reverse {
    scatter add drop 0 n() = choose(`t >= 1`, 1:i64, -1:i64)
  }
  prefix sum lanes(k in 8: out[2, 7 - k] = x[2, 7 - k])
  sort positions(k in 8: n, x[0, k])
}
"""


SWEEP = """\
kernel @softmax(x: in f32[3,8], out: out f32[3,8]) {
  scratch row: f32[8]
  par i in 3 {
    top: f32 = reduce max lanes(j in 8: x[i, j])
    sweep j in 8 {
      let %0 = exp(sub(x[i, j], top))
      total: f32 = reduce sum lanes(j in 8: %0)
      row[j] = %0
    }
    par j in 8 {
      out[i, j] = div(row[j], total)
    }
  }
}
"""


@pytest.mark.parametrize("text", [DENSE, ROWS, SWEEP])
def test_round_trip(text):
    assert print_kernel(parse_kernel(text)) == text


def net(p, x):
    h = np.tanh(x @ p["w"] + p["b"])
    s = h - np.max(h, axis=1, keepdims=True)
    e = np.exp(s) / np.sum(np.exp(s), axis=1, keepdims=True)
    return np.mean(np.log(e)[np.arange(6), np.arange(6) % 5] + np.cumsum(x, axis=1)[:, 0])


@pytest.mark.parametrize("stage", ["lower", "tile"])
def test_kernels_of_programs_round_trip(stage):
    p = {"w": np.ones((3, 5)), "b": np.zeros(5)}
    compiled = diffc.value_and_grad(net).compile(p, np.ones((6, 3)))
    kernels = list(compiled.stage(stage).value.values())
    assert len(kernels) > 3
    for kernel in kernels:
        text = print_kernel(kernel)
        assert print_kernel(parse_kernel(text)) == text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("acc, b[j]", "acc, c[j]"), "not defined"),
        (("maximum(", "maximal("), "not defined"),
        (("add(acc, b[j])", "add(acc)"), "takes 2 arguments"),
        (("x[i, k]", "x[i, q]"), "no variable"),
        (("in f32[64,10]", "from f32[64,10]"), "no mode"),
        (("out[i, j] =", "out2[i, j] ="), "no buffer"),
    ],
)
def test_errors_name_the_line(change, message):
    with pytest.raises(UsageError, match=message) as caught:
        parse_kernel(DENSE.replace(*change), "dense.txt")
    assert "dense.txt:" in str(caught.value)


def test_a_sweep_holds_reductions_and_stores():
    text = SWEEP.replace("row[j] = %0", "par k in 2 {\n}")
    with pytest.raises(UsageError, match="a sweep holds reductions, stores and fetches"):
        parse_kernel(text)


def test_a_sweep_has_its_meaning():
    kernel = parse_kernel(SWEEP)
    x, out = np.arange(24, dtype=np.float32).reshape(3, 8), np.zeros((3, 8), np.float32)
    run(kernel, dict(zip(kernel.params, (x, out), strict=True)), X86_AVX2)
    e = np.exp(x - x.max(1, keepdims=True))
    np.testing.assert_allclose(out, e / e.sum(1, keepdims=True), rtol=1e-6)


def test_parts_that_are_shared_many_times_over_are_read_once():
    """As a tree, the expression has 2**80 parts."""
    x, i = Buffer("x", "f32", (4,), "in"), Var("i", 4)
    value = Load(x, (i,))
    for _ in range(80):
        value = Apply("f32", "add", (value, value))
    out = Buffer("out", "f32", (4,), "out")
    kernel = Kernel("doubled", (x, out), (), (Par((i,), (Store(out, (i,), value),)),))
    text = print_kernel(kernel)
    assert print_kernel(parse_kernel(text)) == text
