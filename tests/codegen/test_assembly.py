"""The machine code of main kernels: inner loops without spills, calls, or narrow vectors.

Reads what LLVM makes of whole programs on an AVX-512 host; elsewhere there is nothing to read.
A spill is a vector that an innermost loop loads from, or stores to, a fixed place on the stack.
Arrays on the stack (scratch rows, partial results of long bodies) are indexed, so they don't count.
"""

import re

import ml_dtypes
import numpy as np
import pytest

import diffc
from diffc.runtime.target import host

pytestmark = pytest.mark.skipif(not host().has_avx512, reason="the host has no AVX-512")

_LABEL = re.compile(r"^(\.?[\w.$]+):")
_JUMP = re.compile(r"^\s+j\w+\s+(\.?[\w.$]+)")
_SPILL = re.compile(r"[xyz]mm.*[\s,]-?\d*\(%r[sb]p\)|[\s,]-?\d*\(%r[sb]p\).*[xyz]mm")
_ONE_HALF = re.compile(r"v(cvtph2ps|cvtps2ph)\s.*%xmm\d+, %xmm|vp(ex|in)trw")
_VECTOR = re.compile(r"%([xyz])mm")
#: loops with fewer vector instructions are prologues and joins of partial results.
BODY = 6


def innermost(assembly: str) -> list[list[str]]:
    """The instructions of each loop that holds no other loop."""
    lines = [line.split("#")[0].rstrip() for line in assembly.splitlines()]
    starts = {found[1]: at for at, line in enumerate(lines) if (found := _LABEL.match(line))}
    loops = {
        (starts[found[1]], at)
        for at, line in enumerate(lines)
        if (found := _JUMP.match(line)) and starts.get(found[1], at) < at
    }
    alone = [(a, b) for a, b in loops if not any(a <= c and d <= b for c, d in loops - {(a, b)})]
    return [[line for line in lines[a:b] if line.startswith("\t")] for a, b in sorted(alone)]


def widths(loop: list[str]) -> set[str]:
    return {name for line in loop for name in _VECTOR.findall(line)}


def hot(function, *args) -> list[list[str]]:
    """The innermost loops of a program that work on vectors."""
    assembly = function.compile(*args).stage("asm").text
    found = [loop for loop in innermost(assembly) if sum("mm" in line for line in loop) >= BODY]
    assert found
    return found


def normal(*shape, dtype="f4"):
    return np.random.default_rng(0).standard_normal(shape).astype(dtype)


def softmax(x):
    e = np.exp(x - np.max(x, -1, keepdims=True))
    return e / np.sum(e, -1, keepdims=True)


def layer_norm(p):
    centered = p["x"] - np.mean(p["x"], -1, keepdims=True)
    var = np.mean(centered * centered, -1, keepdims=True)
    return np.sum((centered / np.sqrt(var + 1e-5) * p["g"] + p["b"]) ** 2)


def gelu(x):
    return 0.5 * x * (1 + np.tanh(0.7978845608 * (x + 0.044715 * x * x * x)))


def adam(p, g, m, v):
    m = 0.9 * m + 0.1 * g
    v = 0.999 * v + 0.001 * g * g
    return p - 0.001 * m / (np.sqrt(v) + 1e-8), m, v


def cross_entropy(z, y):
    shifted = z - np.max(z, -1, keepdims=True)
    log_p = shifted - np.log(np.sum(np.exp(shifted), -1, keepdims=True))
    return -np.mean(log_p[np.arange(z.shape[0]), y])


def w8(x, z):
    xz, lx = x * z, np.log(x)
    return np.sum(np.exp(xz) + xz / lx + np.sin(lx) / xz)


def forward_norm(x, g, b):
    centered = x - np.mean(x, -1, keepdims=True)
    return centered / np.sqrt(np.mean(centered * centered, -1, keepdims=True) + 1e-5) * g + b


def biased(z, ct):
    dz = ct * (1 - np.tanh(z) ** 2)
    return dz, np.sum(dz, 0)


HALVES = {
    "product": (lambda x, y: x * y, (4096,), (4096,)),
    "chain": (lambda x, y: np.maximum(np.exp(x) * y + 1, 0), (4096,), (4096,)),
    "widened": (lambda x: x.astype(np.float32), (4096,)),
    "rows": (lambda x: np.sum(x, 1), (64, 1000)),
    "columns": (lambda x: np.sum(x, 0), (512, 1024)),
    "softmax": (softmax, (64, 1000)),
    "contraction": (lambda x, w: np.tanh(x @ w), (64, 1000), (1000, 96)),
    "packed_contraction": (lambda x, w: x @ w, (512, 512), (512, 512)),
    "transposed_contraction": (lambda x, w: x @ w.T, (256, 256), (256, 256)),
    "vector": (lambda x, w: x @ w, (1, 1024), (1024, 1024)),
}
NORM = {"x": normal(128, 768), "g": normal(768), "b": normal(768)}
LABELS = np.arange(64) % 1000
PROGRAMS = {
    "chain": (diffc.jit(lambda x, y: np.tanh(np.exp(x) * y)), normal(4096), normal(4096)),
    "chain_f64": (
        diffc.jit(lambda x, y: np.log(np.exp(x) + y * y)),
        normal(4096, dtype="f8"),
        normal(4096, dtype="f8"),
    ),
    "gelu_gradient": (diffc.value_and_grad(lambda x: np.sum(gelu(x) ** 2)), normal(300, 200)),
    "softmax": (diffc.jit(softmax), normal(64, 1000)),
    "cross_entropy": (diffc.value_and_grad(cross_entropy), normal(64, 1000), LABELS),
    "layer_norm": (diffc.value_and_grad(layer_norm), NORM),
    "layer_norm_forward": (diffc.jit(forward_norm), normal(64, 768), normal(768), normal(768)),
    "w8": (
        diffc.value_and_grad(w8, argnums=(0, 1)),
        2 + 0.1 * normal(20000, dtype="f8"),
        1 + 0.1 * normal(20000, dtype="f8"),
    ),
    "bias_gradient": (diffc.jit(biased), normal(512, 300), normal(512, 300)),
    "maxima_of_rows": (diffc.jit(lambda x: np.max(x, 1)), normal(64, 1000)),
    "causal": (
        diffc.jit(lambda x: np.where(np.arange(256)[:, None] >= np.arange(256), x * 2, -1e30)),
        normal(256, 256),
    ),
    "columns": (diffc.jit(lambda x: np.sum(x, 0)), normal(512, 1024)),
    "weighted_columns": (diffc.jit(lambda x, w: np.sum(x * w, 0)), normal(500, 300), normal(300)),
    "contraction": (diffc.jit(lambda x, w: np.tanh(x @ w)), normal(64, 1000), normal(1000, 96)),
    "adam": (diffc.jit(adam), *(normal(1000) for _ in range(4))),
    "transpose": (diffc.jit(lambda x: np.ascontiguousarray(x.T)), normal(512, 512)),
    "transpose_f64": (diffc.jit(lambda x: x.T * 2), normal(200, 300, dtype="f8")),
    "running_sum": (diffc.jit(lambda x: np.cumsum(x, 1)), normal(64, 1000)),
    "running_sum_of_columns": (diffc.jit(lambda x: np.cumsum(x, 0)), normal(200, 100)),
    "sort": (diffc.jit(lambda x: np.sort(x, 1)), normal(64, 1000)),
    "argsort": (diffc.jit(lambda x: np.argsort(x, 1)), normal(64, 1000)),
    "argsort_f64": (diffc.jit(lambda x: np.argsort(x, 1)), normal(64, 1000, dtype="f8")),
    "roll": (diffc.jit(lambda x: np.roll(x, 1000) * 2), normal(50000)),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_inner_loops(name):
    function, *args = PROGRAMS[name]
    for loop in hot(function, *args):
        text = "\n".join(loop)
        assert not [line for line in loop if _SPILL.search(line)], text
        assert not [line for line in loop if re.match(r"\tcall", line)], text
        assert "z" in widths(loop), text


@pytest.mark.parametrize(
    "dtype", [np.float16, ml_dtypes.bfloat16], ids=lambda dtype: dtype.__name__
)
@pytest.mark.parametrize("name", HALVES)
def test_inner_loops_on_halves(name, dtype):
    """Numbers of 16 bits become f32, and f32 numbers of 16 bits, by whole vectors."""
    function, *shapes = HALVES[name]
    arrays = [normal(*shape, dtype=dtype) for shape in shapes]
    assembly = diffc.jit(function).compile(*arrays).stage("asm").text
    loops = [loop for loop in innermost(assembly) if any("mm" in line for line in loop)]
    assert any("z" in widths(loop) for loop in loops)
    for loop in loops:
        text = "\n".join(loop)
        assert not [line for line in loop if _SPILL.search(line)], text
        assert not [line for line in loop if re.match(r"\tcall", line)], text
        is_square = any("unpck" in line for line in loop)  # packing turns eight rows at once
        assert "z" in widths(loop) or is_square, text
        assert not [line for line in loop if _ONE_HALF.search(line)], text


def test_spills_and_loops_are_found():
    assembly = """f:
\tvmovaps\t%zmm0, 64(%rsp)
.LBB0_1:
.LBB0_2:
\tvaddps\t-128(%rsp), %zmm1, %zmm2
\tvaddps\t64(%rsp,%rax,4), %zmm1, %zmm2
\tjne\t.LBB0_2
\tvaddps\t(%rdi), %xmm1, %xmm2
\tjne\t.LBB0_1
"""
    (loop,) = innermost(assembly)
    assert len(loop) == 2
    assert [bool(_SPILL.search(line)) for line in loop] == [True, False]
    assert widths(loop) == {"z"}
