"""Kernels that run together compute what they compute alone: the same bits, whatever a slab is."""

import functools

import numpy as np
import pytest

import diffc
from diffc.codegen.loops.interpret import run
from diffc.codegen.loops.text import parse_kernel, print_kernel
from diffc.codegen.tile import shares
from diffc.plan.program import Kernel
from diffc.runtime import pool
from diffc.runtime.target import host
from tests.codegen.slabs import chains
from tests.codegen.slabs.chains import alone, heads, joining, normal, summed
from tests.shares import needs_pool, steady

__all__ = ["steady"]


def flat(results):
    """All arrays in nested results."""
    if isinstance(results, tuple | list):
        return [array for part in results for array in flat(part)]
    return [np.asarray(results)]


def joined_kernels(f, *args):
    """The joined kernels of a function's program: their parts, and their nests."""
    lowered = diffc.jit(f).stages(*args, until="lower").stage("lower").value
    return {node: nest for node, nest in lowered.items() if node.parts}


def check(f, *args, rows=8, turned=None, count=None):
    """Joined kernels give the bits that each gives alone; interpreted, they give those too."""
    with alone():
        wanted = flat(diffc.jit(functools.partial(f))(*args))
    with joining(rows, turned):
        kernels = joined_kernels(functools.partial(f), *args)
        found = flat(diffc.jit(functools.partial(f))(*args))
    assert len(kernels) == count if count else kernels
    for got, want in zip(found, wanted, strict=True):
        np.testing.assert_array_equal(got, want)
    return kernels


CASES = {
    "plain": (chains.attention, heads("f4", 3)),
    "causal": (chains.causal, heads("f4", 2, 2)),
    "one_head": (chains.attention, heads("f4")),
    "double": (chains.causal, heads("f8", 3)),
    "cross": (chains.attention, heads("f4", 3, queries=19, keys=40)),
    "few_keys": (chains.attention, heads("f4", 3, queries=33, keys=2)),
    "wide_values": (chains.attention, heads("f4", 2, values=40)),
    "biased": (chains.biased, (*heads("f4", 2), normal("f4", 23, 23))),
    "turned_around": (
        chains.turned_around,
        (normal("f4", 2, 20, 3, 4), normal("f4", 2, 24, 3, 4), normal("f4", 2, 24, 3, 6)),
    ),
    "grouped": (
        chains.grouped,
        (normal("f4", 2, 2, 3, 20, 4), normal("f4", 2, 2, 24, 4), normal("f4", 2, 2, 24, 6)),
    ),
    "weights_too": (chains.weights_too, heads("f4", 3)),
    "layers": (
        chains.layers,
        (normal("f4", 30, 6), normal("f4", 6), normal("f4", 6, 40), normal("f4", 40),
         normal("f4", 40, 6)),
    ),
}  # fmt: skip


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("name", CASES)
def test_values(name, turned):
    f, args = CASES[name]
    check(f, *args, turned=turned, count=1)


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("name", CASES)
def test_gradients(name, turned):
    """Sums over the rows go on from slab to slab in the order of the rows."""
    f, args = CASES[name]
    check(summed(f, len(args)), *args, turned=turned)


@pytest.mark.parametrize("size", [1, 2, 7, 8, 9, 16, 17, 31, 64, 65])
@pytest.mark.parametrize("rows", [4, 8])
def test_rows_that_fill_no_slab(size, rows):
    args = heads("f4", 3, queries=size, keys=11)
    check(chains.attention, *args, rows=rows)
    check(summed(chains.attention, 3), *args, rows=rows)


@pytest.mark.parametrize("size", [1, 2, 3, 15, 16, 17, 64, 100])
def test_numbers_of_keys(size):
    args = heads("f4", 3, queries=10, keys=size)
    check(chains.attention, *args)
    check(summed(chains.attention, 3), *args)


def test_slabs_and_the_last_rows_have_copies_of_operands_of_their_own():
    """129 rows are 8 slabs of 16 and a row; the sums of both have one name."""
    args = heads("f4", 2, queries=129, keys=129, features=9)
    check(summed(chains.causal, 3), *args, rows=16)


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan, 1e38, 1e-42])
def test_special_values(value):
    q, k, v = heads("f4", 2)
    q[0, 3, 1] = k[1, 4, 0] = v[0, 5, 2] = value
    with np.errstate(all="ignore"):
        check(chains.causal, q, k, v)
        check(summed(chains.causal, 3), q, k, v)


@needs_pool
@pytest.mark.usefixtures("steady")
@pytest.mark.parametrize("name", ["causal", "double", "turned_around", "layers"])
def test_threads(name, monkeypatch):
    monkeypatch.setattr(shares, "LEAST_CYCLES", 0)
    monkeypatch.setattr(shares, "SHARE_CYCLES", 0)
    f, args = CASES[name]
    for g in (f, summed(f, len(args))):
        found = []
        for threads in (1, 3):
            with joining(), pool.use_threads(threads):
                found.append(flat(diffc.jit(functools.partial(g))(*args)))
        for one, other in zip(*found, strict=True):
            np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("name", ["causal", "double", "grouped"])
def test_nothing_outside_of_buffers_is_touched(name, monkeypatch):
    monkeypatch.setenv("DIFFC_GUARD", "1")
    f, args = CASES[name]
    for g in (f, summed(f, len(args))):
        check(g, *args)


@needs_pool
@pytest.mark.usefixtures("steady")
def test_threads_have_scratch_of_their_own_that_fits_no_stack():
    """That of the thread that calls lies in the arena."""
    args = heads("f4", 8, queries=384, keys=512, features=16, values=16)
    for f in (chains.causal, summed(chains.causal, 3)):
        found = []
        for threads in (1, 3):
            with pool.use_threads(threads):
                compiled = diffc.jit(functools.partial(f)).compile(*args)
                found.append(flat(compiled(*args)))
                assert 128 * 1024 <= compiled.memory().peak < 1024 * 1024
        for one, other in zip(*found, strict=True):
            np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("name", ["plain", "causal", "grouped"])
@pytest.mark.parametrize("turned", [False, True])
def test_the_interpreter_agrees(name, turned):
    """The nest means what is compiled, and its text parses back."""
    f, args = CASES[name]
    with joining(turned=turned):
        stages = diffc.jit(f).stages(*args, until="tile")
        found = flat(diffc.jit(functools.partial(f))(*args))
    (kernel,) = (k for node, k in stages.stage("tile").value.items() if node.parts)
    assert print_kernel(parse_kernel(print_kernel(kernel))) == print_kernel(kernel)
    arrays = {}
    given = iter(args)
    for param in kernel.params:
        shape = param.shape
        arrays[param] = next(given).reshape(shape) if param.mode == "in" else np.full(shape, 9, "f")
    assert run(kernel, arrays, host()) == 0
    (out,) = (array for param, array in arrays.items() if param.mode == "out")
    np.testing.assert_allclose(out.reshape(found[0].shape), found[0], rtol=2e-5, atol=2e-6)


# --- what is joined ---------------------------------------------------------------------------


def parts_of(kernels):
    return [[part.graph.name for part in node.parts] for node in kernels]


def test_an_attention_is_one_kernel():
    args = heads("f4", 8, queries=512, keys=512, features=64, values=64)
    kernels = joined_kernels(chains.attention, *args)
    assert parts_of(kernels) == [["contract", "max_sum", "contract"]]
    (node,) = kernels
    assert isinstance(node, Kernel)
    scores = [buffer for part in node.parts for buffer in part.writes]
    assert len(scores) == 4
    assert len(node.writes) == 1


def test_its_gradient_goes_through_the_scores_once():
    args = heads("f4", 8, queries=512, keys=512, features=64, values=64)
    loss = summed(chains.attention, 3)
    with alone():
        before = loss.compile(*args).memory().peak
    (node,) = joined_kernels(loss, *args)
    assert len(node.parts) >= 8
    after = summed(chains.attention, 3).compile(*args).memory().peak
    scores = 8 * 512 * 512 * 4
    assert before > scores
    assert after < scores / 2


def test_small_values_stay_as_they_are():
    args = heads("f4", 8, queries=16, keys=16)
    assert joined_kernels(chains.attention, *args) == {}


def test_sums_over_rows_need_something_else_for_threads():
    args = heads("f4", queries=1024, keys=1024, features=16, values=16)
    (node,) = joined_kernels(chains.attention, *args)  # its slabs can be shared
    assert len(node.parts) == 3
    kernels = joined_kernels(summed(chains.attention, 3), *args)
    assert all(len(node.parts) <= 3 for node in kernels), "the backward pass sums over rows"


def test_whoever_needs_other_rows_runs_before():
    """Keys and values are needed whole: their projections join nobody."""

    def f(x, wq, wk, wv):
        return chains.attention(x @ wq, x @ wk, x @ wv)

    args = normal("f4", 2, 24, 6), *(normal("f4", 6, 6) for _ in range(3))
    kernels = check(f, *args)
    (node,) = kernels
    kept = {tuple(buffer.aval.shape) for buffer in node.reads}
    assert kept >= {(2, 24, 6)}
    check(summed(f, 4), *args)


def test_a_step_that_updates_its_weights_in_place():
    def step(p, x):
        def loss(p):
            return np.sum(chains.attention(x @ p["q"], x @ p["k"], x @ p["v"]) ** 2)

        value, ct = diffc.value_and_grad(loss)(p)
        return {name: p[name] - 0.01 * ct[name] for name in p}, value

    p = {name: normal("f4", 6, 6) for name in "qkv"}
    x = normal("f4", 2, 24, 6)
    found = []
    for context in (alone(), joining()):
        with context:
            given = {name: array.copy() for name, array in p.items()}
            new, value = diffc.jit(functools.partial(step), donate_argnums=0)(given, x)
            found.append([*new.values(), value])
    for one, other in zip(*found, strict=True):
        np.testing.assert_array_equal(one, other)


def test_loops_and_branches_join_inside():
    def f(q, k, v):
        def body(carry, _):
            return chains.attention(carry, k, v), None

        return diffc.scan(body, q, None, length=3)[0]

    check(f, *heads("f4", 2))


def test_equal_chains_share_their_nest():
    def f(q, k, v):
        for _ in range(3):
            q = chains.attention(q, k, v)
        return q

    kernels = check(f, *heads("f4", 2), count=3)
    assert len({id(nest) for nest in kernels.values()}) == 1


def test_values_lie_as_they_do_in_memory_where_no_contraction_asks_for_else():
    """Rows along the last axis, as of pixels that are repeated, stay contiguous."""

    def loss(x):
        return np.sum(np.repeat(np.repeat(x, 2, 1), 2, 2) ** 2)

    x = np.ones((64, 64, 64), np.float32)
    text = diffc.jit(diffc.grad(loss)).stages(x).stage("lower").text
    (kernel,) = (part for part in text.split("kernel @") if "slab0" in part)
    assert "slab0[i1, local]" in kernel
