"""Targets: the choice by features, and their data against each other."""

import pytest

from diffc.codegen import targets
from diffc.codegen.targets import ARM_NEON, X86_AVX2, X86_AVX512, X86_SSE2, Target, select

ALL = (X86_SSE2, X86_AVX2, X86_AVX512, ARM_NEON)
AVX2 = dict.fromkeys(("avx2", "fma", "bmi", "bmi2", "f16c", "lzcnt", "movbe"), True)
AVX512 = AVX2 | dict.fromkeys(("avx512f", "avx512cd", "avx512bw", "avx512dq", "avx512vl"), True)


def test_select_takes_the_widest_that_is_whole() -> None:
    assert select("znver4", AVX512, "x86_64") is X86_AVX512
    assert select("haswell", AVX2, "AMD64") is X86_AVX2
    assert select("nehalem", {"sse4.2": True}, "x86_64") is X86_SSE2
    assert select("apple-m1", {}, "arm64") is ARM_NEON


@pytest.mark.parametrize("missing", ["avx512f", "avx512vl", "avx512dq", "avx512bw"])
def test_a_partial_avx512_machine_gets_avx2(missing: str) -> None:
    assert select("knl", AVX512 | {missing: False}, "x86_64") is X86_AVX2
    without = {name: has for name, has in AVX512.items() if name != missing}
    assert select("knl", without, "x86_64") is X86_AVX2


def test_avx2_without_fma_gets_sse2() -> None:
    assert select("odd", AVX2 | {"fma": False}, "x86_64") is X86_SSE2


def test_unknown_architecture_is_named() -> None:
    with pytest.raises(ValueError, match="riscv64"):
        select("u74", {}, "riscv64")


@pytest.mark.parametrize("target", ALL, ids=lambda t: t.name)
def test_lanes_fill_a_register(target: Target) -> None:
    for dtype, size in targets.ITEM_BYTES.items():
        assert target.lanes(dtype) * size == target.vector_bytes


def test_attributes_keep_full_width_only_on_avx512() -> None:
    assert '"prefer-vector-width"="512"' in X86_AVX512.attributes
    assert '"min-legal-vector-width"="512"' in X86_AVX512.attributes
    assert "vector-width" not in X86_AVX2.attributes
    assert len({target.name for target in ALL}) == len(ALL)
