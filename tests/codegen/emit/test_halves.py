"""Floats of 16 bits on every target: no number goes through a library."""

from __future__ import annotations

import re

import pytest

from diffc.codegen.emit.kernel import write_kernel
from diffc.codegen.emit.text import ModuleText
from diffc.codegen.targets import ARM_NEON, HALVES, X86_AVX2, X86_AVX512, X86_SSE2
from diffc.codegen.tile import tile
from tests.codegen.emit.contractions import einsum
from tests.codegen.emit.native_math import assembly, called_symbols
from tests.codegen.emit.test_reduce import MONOIDS, rows_kernel
from tests.codegen.emit.test_scalars import COMPARE, ELEMENTARY, conversion, kernel_of

OTHERS = ("f32", "f64", "i64", "u64", "i32", "u8", "bool")
EXACT = ("neg", "abs", "sign", "sqrt", "add", "sub", "mul", "div", "maximum", "minimum")
OWN = {"diffc.reduce_half_pi.f32", "diffc_parallel_for"}


def called(kernel, target):
    module = ModuleText()
    write_kernel(module, tile(kernel, target), "kernel", target, is_internal=False)
    text = assembly(module, target)
    return called_symbols(text, target) - OWN - set(re.findall(r"^(\w+):", text, re.MULTILINE))


@pytest.mark.parametrize("target", [X86_SSE2, X86_AVX2, X86_AVX512, ARM_NEON], ids=lambda t: t.name)
@pytest.mark.parametrize("half", sorted(HALVES))
def test_no_target_needs_a_library(half, target):
    (other,) = HALVES - {half}
    kernels = [
        kernel_of(EXACT, half, half, 100),
        kernel_of(COMPARE, half, "bool", 100),
        kernel_of(ELEMENTARY, half, half, 33),
        *(conversion(half, dtype, 77) for dtype in (*OTHERS, other)),
        *(conversion(dtype, half, 77) for dtype in (*OTHERS, other)),
        *(rows_kernel(3, 130, half, MONOIDS, order) for order in ("lanes", "sequence")),
        *(
            einsum(spec, {"m": 37, "k": 45, "n": 83}, half)
            for spec in ("mk,kn->mn", "mk,nk->mn", "km,kn->mn")
        ),
    ]
    for kernel in kernels:
        assert not called(kernel, target), kernel.name
