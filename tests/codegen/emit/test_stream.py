"""Large results stored past the caches: the same bits, wherever they lie, whoever stores them."""

import re
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import diffc
from diffc import pipeline
from diffc.programs import GraphProgram
from diffc.runtime import pool
from diffc.runtime.target import host
from tests.programs.compare import same
from tests.programs.drawn import Drawer, operands_for
from tests.shares import needs_pool, shared_anyway, steady

__all__ = ["shared_anyway", "steady"]

pytestmark = [
    needs_pool,
    pytest.mark.skipif(not host().stream_bytes, reason="the host has no such stores"),
]


@pytest.fixture
def all_large(monkeypatch):
    """Every result counts as large."""
    target = replace(host(), stream_bytes=1)
    monkeypatch.setattr(pipeline, "host", lambda: target)


def emitted(function, *args) -> str:
    return diffc.jit(function).stages(*args).stage("emit").text


def softmax(x):
    e = np.exp(x - np.max(x, -1, keepdims=True))
    return e / np.sum(e, -1, keepdims=True)


PROGRAMS = {
    "flat": (lambda x: x * 2 + 1, (1000, 33)),
    "rows_of_lines": (softmax, (7, 64)),
    "other_rows": (softmax, (7, 65)),
    "narrow_type": (lambda x: x > 0, (100, 130)),
    "wide_type": (lambda x: x.astype(np.float64) * 3, (50, 100)),
    "two": (lambda x: (x + 1, x.T - 1), (40, 50)),
    "two_of_columns": (lambda x: (x * 2, np.sum(x * 2, axis=0)), (700, 48)),
    "sliced": (lambda x: x[:, ::2] + x[:, 1::2], (60, 64)),
    "reversed": (lambda x: x[::-1] * 2, (1000,)),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_bits(all_large, shared_anyway, name):
    function, shape = PROGRAMS[name]
    x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline, "host", host)
        wanted = diffc.jit(function)(x)
    jitted = diffc.jit(function)
    for count in (1, 3):
        with pool.use_threads(count):
            for _ in range(5):
                found = jitted(x)
                is_pair = isinstance(wanted, tuple)
                for a, b in zip(found, wanted, strict=True) if is_pair else [(found, wanted)]:
                    same(a, b)


def test_results_at_any_address(all_large):
    """The memory of a result that the caller gives back starts anywhere."""
    function = diffc.jit(lambda x, y: (x * 2, y + 1), donate_argnums=1)
    for offset in range(0, 80, 4):
        memory = np.zeros(1000 * 4 + 80, np.uint8)
        y = memory[offset : offset + 4000].view(np.float32)
        x = np.arange(1000, dtype=np.float32)
        doubled, more = function(x, y)
        np.testing.assert_array_equal(doubled, 2 * x)
        np.testing.assert_array_equal(more, np.ones(1000))


@given(st.integers(0, 2**32 - 1), st.integers(1, 25))
def test_drawn_programs(seed, count):
    graph = Drawer(seed).graph(count)
    arrays = operands_for(graph.input_avals, seed)
    expected = GraphProgram(graph, "plain")(arrays)
    target = replace(host(), stream_bytes=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline, "host", lambda: target)
        found = GraphProgram(graph, "streamed")(arrays)
    for x, y in zip(found, expected, strict=True):
        same(x, y)


def streams(text: str) -> int:
    assert text.count("llvm.x86.sse.sfence()\n") >= bool("!nontemporal" in text)
    return len(re.findall("!nontemporal", text))


def test_what_is_stored_past_the_caches():
    large = np.zeros(1 << 23, np.float32)
    assert streams(emitted(lambda x: x + 1, large)) == 1
    assert not streams(emitted(lambda x: x + 1, large[: 1 << 21])), "all of it fits a cache"
    assert not streams(emitted(lambda x: np.sum(x), large))
    assert streams(emitted(lambda x, y: x * y, *np.zeros((2, 3 << 20), np.float32))) == 1
    assert not streams(emitted(lambda x: np.sum(x, axis=0), large.reshape(16, -1)[:, : 1 << 18]))
    rows = large.reshape(-1, 1024)
    assert streams(emitted(softmax, rows))
    ragged = np.zeros((9000, 1001), np.float32)
    assert streams(emitted(lambda x: x + 1, ragged)), "a flat loop has whole lines"
    assert not streams(emitted(softmax, ragged)), "these rows start within lines"


def test_each_thread_puts_a_fence():
    text = emitted(lambda x: x + 1, np.zeros(1 << 23, np.float32))
    parts = [part for part in text.split("define ") if "!nontemporal" in part]
    assert len(parts) == 1
    assert re.search(r"call void @llvm\.x86\.sse\.sfence\(\)\s+ret void", parts[0])


def test_donated_memory_is_not_streamed():
    large = np.zeros(1 << 23, np.float32)
    text = diffc.jit(lambda x: x + 1, donate_argnums=0).stages(large).stage("emit").text
    assert not streams(text)
