"""Runs of equal calls are loops over a table, whatever their pointers point to."""

import numpy as np
import pytest

import diffc
import diffc.errors
from diffc.codegen.emit.runs import MIN_CALLS, Run, find_runs


def test_runs_are_found_from_left_to_right():
    a, b = "a", "b"
    assert find_runs([]) == []
    assert find_runs([a] * (MIN_CALLS - 1)) == []
    assert find_runs([b, *[a] * MIN_CALLS, b]) == [Run(1, 1, MIN_CALLS)]
    assert find_runs([a, b] * MIN_CALLS) == [Run(0, 2, MIN_CALLS)]
    assert find_runs([a] * 20 + [b] * 20) == [Run(0, 1, 20), Run(20, 1, 20)]
    assert find_runs([a, b] * 10 + [a]) == [Run(0, 2, 10)]


def test_steps_without_a_function_end_a_run():
    assert find_runs([None] * 50) == []
    assert find_runs(["a"] * 20 + [None] + ["a"] * 20) == [Run(0, 1, 20), Run(21, 1, 20)]


def _chain(length, picks):
    """Blocks that read inputs in any order, and give outputs in another order."""

    def f(x, weights, scale):
        found = []
        for i in range(length):
            x = np.tanh(x @ weights[picks[i]]) * scale + x
            found.append(np.sum(x, axis=0))
        return x, found[::-1]

    return f


def test_pointers_to_inputs_outputs_and_the_arena_in_turn():
    rng = np.random.default_rng(0)
    length = 37
    weights = [rng.normal(size=(5, 5)) for _ in range(7)]
    f = _chain(length, rng.integers(0, 7, length).tolist())
    args = rng.normal(size=(3, 5)), weights, rng.normal(size=(3, 1))
    jitted = diffc.jit(f)
    text = jitted.compile(*args).stage("emit").text
    assert "@table0" in text
    last, found = jitted(*args)
    wanted, ys = f(*args)
    np.testing.assert_allclose(last, wanted, rtol=1e-12)
    for a, b in zip(found, ys, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12)


def test_runs_within_a_callee():
    rng = np.random.default_rng(1)
    weights = [rng.normal(size=(4, 4)) for _ in range(24)]

    def body(carry, row):
        x = carry + row
        for w in weights:
            x = np.tanh(x @ w + row) * 0.5 + x / (1.0 + np.sum(x * x))
        return x, np.sum(x)

    def f(x, rows):
        return diffc.scan(body, x, rows)

    x, rows = rng.normal(size=(2, 4)), rng.normal(size=(3, 2, 4))
    last, sums = diffc.jit(f)(x, rows)
    wanted = []
    for row in rows:
        x, total = body(x, row)
        wanted.append(total)
    np.testing.assert_allclose(last, x, rtol=1e-11)
    np.testing.assert_allclose(sums, wanted, rtol=1e-11)


def test_code_does_not_grow_with_the_number_of_blocks():
    rng = np.random.default_rng(2)

    def code(length):
        f = _chain(length, [0] * length)
        args = rng.normal(size=(3, 5)), [rng.normal(size=(5, 5))], rng.normal(size=(3, 1))
        lines = diffc.jit(lambda *a: f(*a)[0]).compile(*args).stage("emit").text.splitlines()
        return sum(not line.startswith("@table") for line in lines)

    assert code(200) == code(50)


def test_a_failing_index_in_a_run_is_reported():
    def f(x, rows):
        for i in range(32):
            x = np.tanh(x + np.sum(x)) * 0.5 + x[rows[i]] * 0.25 + x / (2.0 + x * x)
        return x

    x, rows = np.linspace(0.0, 1.0, 4), [np.arange(4)[:: 1 if i % 2 else -1] for i in range(32)]
    jitted = diffc.jit(f)
    assert "@table0" in jitted.compile(x, rows).stage("emit").text
    np.testing.assert_allclose(jitted(x, rows), f(x, rows), rtol=1e-12)
    rows[20] = np.array([0, 1, 2, 4])
    with pytest.raises(diffc.errors.ExecutionError, match="out of bounds"):
        jitted(x, rows)
