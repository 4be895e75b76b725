"""What a mask on indices hides is left out; not one bit of a result says so."""

import functools
from unittest import mock

import ml_dtypes
import numpy as np
import pytest

import diffc
from diffc.codegen import tile as tiling
from diffc.codegen.loops import interpret
from diffc.codegen.loops.nodes import Within
from diffc.codegen.loops.text import parse_kernel, print_kernel
from diffc.codegen.loops.walk import statements
from diffc.codegen.targets import X86_AVX2, X86_AVX512, X86_SSE2
from diffc.codegen.tile import bands, bounded, shares, tile
from diffc.runtime import pool
from tests.codegen.slabs.chains import heads, joining, summed
from tests.shares import needs_pool, steady

__all__ = ["steady"]

#: masks by the positions of queries and keys
MASKS = {
    "causal": lambda i, j: j <= i,
    "strictly": lambda i, j: j < i,
    "window": lambda i, j: (j <= i) & (j > i - 20),
    "ahead": lambda i, j: j >= i,
    "around": lambda i, j: (j > i - 9) & (j < i + 30),
    "never": lambda i, j: (j <= i - 10) & (j > i - 5),
    "later": lambda i, j: i + 11 >= j,
    "hidden": lambda i, j: ~(j > i),
}


def attention(mask, low, q, k, v):
    """Attention whose scores are `low` where the mask fails."""
    i, j = np.arange(q.shape[-2])[:, None], np.arange(k.shape[-2])[None, :]
    scores = np.where(MASKS[mask](i, j), (q @ np.swapaxes(k, -1, -2)) * 0.3, low)
    e = np.exp(scores - np.max(scores, axis=-1, keepdims=True))
    return (e / np.sum(e, axis=-1, keepdims=True)) @ v


@pytest.fixture(autouse=True)
def short(monkeypatch):
    monkeypatch.setattr(bounded, "LEAST_POINTS", 20)
    monkeypatch.setattr(bands, "LEAST_POINTS", 20)


def flat(results):
    if isinstance(results, tuple | list):
        return [array for part in results for array in flat(part)]
    found = np.asarray(results)
    is_half = found.dtype.itemsize == 2  # of which NumPy's tests don't know every nan
    return [found.astype(np.float32) if is_half else found]


def bounds_of(f, *args):
    """How many statements of a function are bounded."""
    text = diffc.jit(functools.partial(f)).stages(*args, until="tile").stage("tile").text
    return text.count("within ")


def check(f, *args, rows=16, turned=None, is_bounded=True):
    """Bounded and whole code give the same bits."""
    with joining(rows, turned):
        found = flat(diffc.jit(functools.partial(f))(*args))
        assert (bounds_of(f, *args) > 0) == is_bounded
        with mock.patch.object(tiling, "within_bands", lambda kernel, target: kernel):
            wanted = flat(diffc.jit(functools.partial(f))(*args))
            assert bounds_of(f, *args) == 0
    for got, want in zip(found, wanted, strict=True):
        np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("turned", [False, None])
@pytest.mark.parametrize("mask", MASKS)
def test_masks(mask, turned):
    args = heads("f4", 2, queries=150, keys=150, features=7)
    f = functools.partial(attention, mask, -1e30)
    check(f, *args, turned=turned)
    check(summed(f, 3), *args, turned=turned)


@pytest.mark.parametrize("low", [-1e30, -np.inf, -1e4, -9.0, 0.0, -0.0, 3.0, np.inf, np.nan])
def test_what_is_masked_need_not_vanish(low):
    """Where a row's maximum leaves something of what is masked, the row is not cut short."""
    args = heads("f4", 2, queries=150, keys=150, features=7)
    f = functools.partial(attention, "causal", low)
    with np.errstate(all="ignore"):
        check(f, *args)
        check(summed(f, 3), *args)


@pytest.mark.parametrize("mask", ["causal", "window"])
@pytest.mark.parametrize("value", [np.inf, np.nan, 3e38])
@pytest.mark.parametrize("at", [3, 149])
def test_special_values(mask, value, at):
    """Zero times what is not finite is no zero: everything before it is computed then."""
    f = functools.partial(attention, mask, -1e30)
    for which in range(3):
        args = heads("f4", 2, queries=150, keys=150, features=7)
        args[which][1, at, 2] = value
        with np.errstate(all="ignore"):
            check(summed(f, 3), *args)


@pytest.mark.parametrize(
    "sizes", [(20, 20), (40, 200), (200, 40), (64, 128), (129, 129), (33, 257)]
)
@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_sizes(sizes, dtype):
    queries, keys = sizes
    args = heads(dtype, 2, queries=queries, keys=keys, features=9)
    for mask in ("causal", "window"):
        f = functools.partial(attention, mask, -1e30)
        check(f, *args, is_bounded=bounds(f, args))
        check(summed(f, 3), *args, is_bounded=bounds(summed(f, 3), args))


def bounds(f, args):
    """Whether anything is bounded: not where all keys are needed, or a row is too short."""
    with joining(16):
        return bounds_of(f, *args) > 0


@pytest.mark.parametrize("target", [X86_AVX512, X86_AVX2, X86_SSE2], ids=lambda t: t.name)
@pytest.mark.parametrize("mask", ["causal", "window"])
def test_tiled_code_means_what_was_lowered(mask, target):
    """The interpreter's scratch is not a number where nothing was written."""
    q, k, v = heads("f4", 1, queries=48, keys=48, features=3)
    v[0, 40, 1] = np.inf
    with joining(16):
        stages = diffc.jit(summed(functools.partial(attention, mask, -1e30), 3))
        kernels = stages.stages(q, k, v, until="lower").stage("lower").value
    seen = 0
    for kernel in (nest for node, nest in kernels.items() if node.parts):
        made = tile(kernel, target)
        seen += sum(isinstance(stmt, Within) for stmt in statements(made.body))
        assert print_kernel(parse_kernel(print_kernel(made))) == print_kernel(made)
        rng = np.random.default_rng(2)
        arrays = [
            rng.standard_normal(b.shape).astype(interpret.DTYPES[b.dtype]) for b in kernel.params
        ]
        found = []
        for each in (kernel, made):
            copies = dict(zip(kernel.params, [array.copy() for array in arrays], strict=True))
            interpret.run(each, copies, target)
            found.append([copies[buffer] for buffer in kernel.params])
        for got, want in zip(*found, strict=True):
            np.testing.assert_array_equal(got, want)
    assert seen


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
@pytest.mark.parametrize("value", [1.0, np.inf, np.nan])
def test_special_values_of_16_bits(dtype, value):
    """All floats are tested, whatever their name begins with."""
    args = heads("f4", 2, queries=160, keys=160, features=16, values=16)
    args = [a.astype(dtype) for a in args]
    args[2][1, 149, 2] = value
    check(functools.partial(attention, "causal", -1e4), *args)


def test_names_of_arguments_are_not_taken_again():
    """Text and dumps tell buffers apart by their names."""

    def f(stop0, kept1, is_zero2):
        return attention("causal", -1e30, stop0, kept1, is_zero2)

    args = heads("f4", 2, queries=150, keys=150, features=7)
    check(f, *args)
    with joining(16):
        text = diffc.jit(f).stages(*args, until="tile").stage("tile").text
    names = [line.split()[1] for line in text.splitlines() if line.startswith("  scratch")]
    assert not {f"{name}:" for name in ("stop0", "kept1", "is_zero2")} & set(names)
    assert len(names) == len(set(names))


@needs_pool
@pytest.mark.usefixtures("steady")
@pytest.mark.parametrize("mask", ["causal", "window"])
def test_threads(mask, monkeypatch):
    monkeypatch.setattr(shares, "LEAST_CYCLES", 0)
    monkeypatch.setattr(shares, "SHARE_CYCLES", 0)
    args = heads("f4", 3, queries=150, keys=150, features=7)
    f = functools.partial(attention, mask, -1e30)
    for g in (f, summed(f, 3)):
        found = []
        for threads in (1, 3):
            with joining(16), pool.use_threads(threads):
                found.append(flat(diffc.jit(functools.partial(g))(*args)))
        for one, other in zip(*found, strict=True):
            np.testing.assert_array_equal(one, other)


def test_nothing_outside_of_buffers_is_touched(monkeypatch):
    monkeypatch.setenv("DIFFC_GUARD", "1")
    args = heads("f4", 2, queries=150, keys=150, features=7)
    for mask in MASKS:
        f = functools.partial(attention, mask, -1e30)
        check(f, *args)
        check(summed(f, 3), *args)


def test_a_mask_that_is_data_hides_nothing():
    """What is known at run time only is computed."""

    def f(q, k, v, mask):
        scores = np.where(mask, q @ np.swapaxes(k, -1, -2), -1e30)
        e = np.exp(scores - np.max(scores, axis=-1, keepdims=True))
        return (e / np.sum(e, axis=-1, keepdims=True)) @ v

    args = heads("f4", 2, queries=150, keys=150, features=7)
    check(f, *args, np.tril(np.ones((150, 150), bool)), is_bounded=False)


def test_causal_scores_need_half_of_the_keys():
    """Operands that stay are tested once, ahead; maxima where a slab finds them."""
    args = heads("f4", 2, queries=160, keys=160, features=16, values=16)
    with joining(16):
        f = functools.partial(attention, "causal", -1e30)
        text = diffc.jit(f).stages(*args, until="tile").stage("tile").text
    ahead, slabs = text.split("par at0 in 2, slab in 10")
    assert "is_finite(v[" in ahead
    assert slabs.count("within row") + slabs.count("within column") == 1
    assert slabs.count("within depth0") == 1
    assert slabs.count("within r0") == 2
