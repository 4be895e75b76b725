"""What a jitted function writes: arguments in place, donated memory; and nothing half-written."""

import numpy as np
import pytest

import diffc
from diffc.errors import ExecutionError, UsageError


def close(found, expected, tolerance=1e-12):
    found, expected = np.asarray(found), np.asarray(expected)
    assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
    np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance)


# --- writes and donation ----------------------------------------------------------------------


def test_writes_go_back_to_the_arguments():
    @diffc.jit
    def step(w, g, lr):
        w -= lr * g

    w, g = np.ones(4), np.arange(4.0)
    kept = w
    for _ in range(3):
        assert step(w, g, 0.5) is None
    assert w is kept
    close(w, np.ones(4) - 1.5 * g)
    frozen = np.ones(4)
    frozen.flags.writeable = False
    with pytest.raises((UsageError, ValueError), match="read-only"):
        step(frozen, g, 0.5)
    close(frozen, np.ones(4))


@pytest.mark.parametrize("view", ["strided", "negative", "big endian", "fortran"])
def test_writes_go_back_to_any_layout(view):
    base = np.arange(24.0).reshape(4, 6)
    w = {
        "strided": base[::2, ::3],
        "negative": base[::-1, ::-1],
        "big endian": base.astype(">f8"),
        "fortran": np.asfortranarray(base),
    }[view]

    @diffc.jit
    def f(w):
        w[0] = -1
        w[:, 0] *= 2

    expected = np.array(w, float)
    expected[0] = -1
    expected[:, 0] *= 2
    f(w)
    np.testing.assert_array_equal(w, expected)


def test_writes_in_containers():
    @diffc.jit
    def sgd(params, grads):
        for name in params:
            params[name] -= 0.1 * grads[name]
        return params

    params = {"w": np.ones((2, 2)), "b": np.zeros(2)}
    grads = {"w": np.ones((2, 2)), "b": np.ones(2)}
    w = params["w"]
    sgd(params, grads)
    close(w, np.full((2, 2), 0.9))
    close(params["b"], np.full(2, -0.1))


def test_swapped_and_aliased_arguments():
    @diffc.jit
    def swap(a, b):
        a[...], b[...] = b.copy(), a.copy()

    a, b = np.zeros(3), np.ones(3)
    swap(a, b)
    close(a, np.ones(3))
    close(b, np.zeros(3))

    @diffc.jit
    def shift(out, x):
        out[...] = x + 1

    base = np.arange(5.0)
    shift(base[1:], base[:-1])
    close(base, np.array([0.0, 1.0, 2.0, 3.0, 4.0]))


def test_donation_returns_the_argument_itself():
    @diffc.jit(donate_argnums=0)
    def step(w, g):
        return w - 0.5 * g

    w, g = np.ones(1000), np.ones(1000)
    found = step(w, g)
    assert found is w
    for _ in range(3):
        found = step(found, g)
    assert found is w
    close(w, np.full(1000, -1.0))


def test_python_numbers_have_no_memory_to_donate():
    @diffc.jit(donate_argnums=(0, 1))
    def step(p, rate):
        return {"w": p["w"] * rate, "steps": p["steps"] + 1}, rate * 0.5

    w = np.ones(3)
    found, rate = step({"w": w, "steps": 3}, 2.0)
    assert found["w"] is w
    assert w.tolist() == [2.0, 2.0, 2.0]
    assert (found["steps"], rate) == (4, 1.0)


def test_donation_of_trees():
    @diffc.jit(donate_argnums=(0, 1))
    def adam(params, moments, g):
        moments = {k: 0.9 * m + 0.1 * g for k, m in moments.items()}
        return {k: w - moments[k] for k, w in params.items()}, moments

    params = {"a": np.ones(5), "b": np.zeros(5)}
    moments = {"a": np.zeros(5), "b": np.zeros(5)}
    new, m = adam(params, moments, np.ones(5))
    assert {id(x) for x in (*new.values(), *m.values())} == {
        id(x) for x in (*params.values(), *moments.values())
    }
    for k, start in (("a", 1.0), ("b", 0.0)):
        close(m[k], np.full(5, 0.1))
        close(new[k], np.full(5, start - 0.1))


def test_donation_where_readers_come_later():
    @diffc.jit(donate_argnums=0)
    def f(w):
        new = w + 1
        return new, np.sum(w), w[::-1] * new

    w = np.arange(6.0)
    old = w.copy()
    new, total, product = f(w)
    close(new, old + 1)
    close(total, np.sum(old))
    close(product, old[::-1] * (old + 1))


def test_donating_one_array_twice():
    f = diffc.jit(lambda a, b: (a + 1, b * 2), donate_argnums=(0, 1))
    x = np.ones(3)
    first, second = f(x, x)
    close(first, np.full(3, 2.0))
    close(second, np.full(3, 2.0))


# --- exceptions --------------------------------------------------------------------------------


def test_an_exception_while_tracing_leaves_nothing_behind():
    hits = []

    @diffc.jit
    def f(w):
        w += 1
        if not hits:
            hits.append(1)
            raise KeyError("first")
        return w.sum()

    w = np.zeros(3)
    with pytest.raises(KeyError, match="first"):
        f(w)
    close(w, np.zeros(3))
    close(f(w), np.asarray(3.0))
    close(w, np.ones(3))
    assert np.sin is diffc.jit(lambda x: x).function.__globals__["np"].sin


def test_an_exception_at_run_time_leaves_arguments_alone():
    @diffc.jit
    def f(w, i):
        w[i] = 7.0
        w += 1
        return w

    w = np.zeros(3)
    with pytest.raises((ExecutionError, IndexError)):
        f(w, np.array([0, 5]))
    close(w, np.zeros(3))
    f(w, np.array([0, 2]))
    close(w, np.array([8.0, 1.0, 8.0]))


def test_an_index_out_of_bounds_stops_a_step_before_its_update():
    @diffc.jit
    def step(w, x, y):
        def loss(w):
            logits = x @ w
            return -np.sum(logits[np.arange(len(y)), y])

        value, gradient = diffc.value_and_grad(loss)(w)
        w -= 0.1 * gradient
        return value

    w, x = np.ones((3, 4)), np.ones((2, 3))
    step(w, x, np.array([0, 1]))
    kept = w.copy()
    for _ in range(3):
        with pytest.raises(ExecutionError, match="out of bounds"):
            step(w, x, np.array([0, 4]))
        np.testing.assert_array_equal(w, kept)
    # the check comes before the update, so neither copies nor the slow entry are needed
    executable = step.compile(w, x, np.array([0, 1])).executable
    assert executable.entry_kind == "native"
    assert {how for *_, how in step.compile(w, x, np.array([0, 1])).memory().donated} == {
        "in place"
    }


def test_donated_memory_survives_a_failure():
    @diffc.jit(donate_argnums=0)
    def f(table, i, v):
        table = table + 1
        table[i] = v
        return table

    table = np.zeros(4)
    with pytest.raises(ExecutionError):
        f(table, np.array([1, 9]), 5.0)
    close(table, np.zeros(4))
    found = f(table, np.array([1, 3]), 5.0)
    assert found is table
    close(table, np.array([1.0, 5.0, 1.0, 5.0]))


@pytest.mark.parametrize("length", [1, 3])
def test_a_loop_that_fails_leaves_its_carries_alone(length):
    @diffc.jit
    def f(w, index):
        def step(w, i):
            return w + w[i], w[i]

        final, seen = diffc.scan(step, w, index)
        w[...] = final
        return seen

    w = np.arange(3.0)
    with pytest.raises(ExecutionError):
        f(w, np.full(length, 7))
    close(w, np.arange(3.0))
    f(w, np.full(length, 1))
    close(w, np.array([0.0, 1.0, 2.0]) + 2.0**length - 1)
    # the steps' results arrive at the end, within the native call
    compiled = f.compile(w, np.full(length, 1))
    assert compiled.executable.entry_kind == "native"
    assert {how for *_, how in compiled.memory().donated} == {"copied at the end"}
