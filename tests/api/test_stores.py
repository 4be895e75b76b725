"""Loops of unknown length that keep all that their reverse reads: ``store="grow"``."""

import subprocess
import sys
import textwrap
import threading
import tracemalloc

import ml_dtypes
import numpy as np
import pytest

import diffc
from diffc.errors import ExecutionError, UsageError
from diffc.ir.aval import limits
from diffc.runtime import pool, stores

STORES = ("slots", "grow")


def repeated(n, x, w, store):
    """``n`` trips; carries are a pytree of a number, a flag, and arrays of two dtypes."""

    def step(carry):
        new = np.sin(carry["y"] * w) + 0.1 * carry["y"]
        ints = carry["ints"] + 1
        return {"i": carry["i"] + 1, "odd": ~carry["odd"], "y": new, "ints": ints}

    init = {"i": 0, "odd": np.zeros((), bool), "y": x, "ints": np.arange(3, dtype=np.int32)}
    last = diffc.while_loop(lambda c: c["i"] < n, step, init, store=store)
    scale = np.where(last["odd"], 2.0, 1.0).astype(x.dtype)
    return np.sum(last["y"] * scale) + np.sum(last["ints"]).astype(x.dtype)


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16, ml_dtypes.bfloat16])
def test_gradients_are_those_of_checkpoints(dtype):
    x, w = np.linspace(0.1, 0.9, 5).astype(dtype), np.linspace(0.7, 1.2, 5).astype(dtype)
    slopes = [
        diffc.jit(diffc.grad(lambda x, w, n, s=store: repeated(n, x, w, s), argnums=(0, 1)))
        for store in STORES
    ]
    for trips in (0, 1, 2, 3, 64, 65, 1000):
        found = [slope(x, w, trips) for slope in slopes]
        for one, other in zip(*found, strict=True):
            assert one.dtype == other.dtype == dtype
            pair = one.astype(np.float64), other.astype(np.float64)
            np.testing.assert_allclose(*pair, rtol=64 * float(limits(np.dtype(dtype)).eps))


def test_a_million_trips():
    def f(x, n, store):
        step = lambda c: (c[0] + 1, np.sin(c[1]) * 1.01)  # noqa: E731  # the loop's step
        return diffc.while_loop(lambda c: c[0] < n, step, (0, x), store=store)[1]

    slopes = [diffc.jit(diffc.grad(lambda x, n, s=s: f(x, n, s)))(0.5, 10**6) for s in STORES]
    np.testing.assert_allclose(*slopes, rtol=1e-9)


def norm_root(a, store):
    close = lambda x: np.abs(x * x - a) > 1e-13 * a  # noqa: E731  # the loop's test
    return diffc.while_loop(close, lambda x: (x + a / x) / 2, a, store=store)


def test_derivatives_of_any_order_and_mode():
    f = lambda a: norm_root(a, "grow")  # noqa: E731  # what is differentiated
    first, second = diffc.grad(f), diffc.grad(diffc.grad(f))
    assert np.isclose(first(4.0), 0.25)
    assert np.isclose(second(4.0), -1 / 32)
    assert np.isclose(diffc.grad(second)(4.0), 3 / 8 * 4**-2.5)
    assert np.isclose(diffc.jvp(first, (4.0,), (1.0,))[1], -1 / 32)
    assert np.isclose(diffc.grad(lambda a: diffc.jvp(f, (a,), (1.0,))[1])(4.0), -1 / 32)
    assert np.isclose(diffc.hessian(f)(4.0), -1 / 32)
    assert np.isclose(diffc.jacrev(diffc.jacrev(f))(4.0), -1 / 32)
    _, coefficients = diffc.jet(first, (4.0,), ((1.0, 0.0),))
    np.testing.assert_allclose(coefficients, [-1 / 32, 3 / 8 * 4**-2.5])


def test_each_element_of_a_batch_has_its_own_trips():
    a = np.array([2.0, 4.0, 1e-8, 1e8, 9.0])
    f = diffc.grad(lambda a: norm_root(a, "grow"))
    none = np.array([1.0, 4.0])  # the first one makes no trip
    np.testing.assert_allclose(diffc.vmap(f)(none), [1.0, 0.25])
    np.testing.assert_allclose(diffc.vmap(f)(a), 0.5 / np.sqrt(a), rtol=1e-9)
    np.testing.assert_allclose(diffc.vmap(diffc.grad(f))(a), -0.25 * a**-1.5, rtol=1e-9)
    batched = diffc.jit(diffc.grad(lambda a: np.sum(diffc.vmap(lambda x: norm_root(x, "grow"))(a))))
    np.testing.assert_allclose(batched(a), 0.5 / np.sqrt(a), rtol=1e-9)


@pytest.mark.parametrize("count", [0, 1, 3])
def test_loops_of_batched_lengths(count):
    def f(n, x):
        return diffc.fori_loop(0, n, lambda i, x: np.sin(x) * (1 + i * 0.1), x, store="grow")

    n, x = np.arange(count) * 4, np.linspace(0.2, 0.8, count)
    found = diffc.jit(diffc.vmap(diffc.grad(f, argnums=1)))(n, x)
    alone = diffc.jit(diffc.grad(f, argnums=1))
    np.testing.assert_allclose(found, [alone(int(k), float(v)) for k, v in zip(n, x, strict=True)])


def test_branches_keep_what_their_own_loops_need():
    def f(a):
        other = lambda a: diffc.fori_loop(0, 3, lambda i, x: np.sin(x), a)  # noqa: E731
        branches = [lambda a: a * a, lambda a: norm_root(a, "grow"), other]
        return diffc.switch(a.astype(np.int32), branches, a)

    a = np.array([0.5, 1.5, 2.5])
    expected = [1.0, 0.5 / np.sqrt(1.5), diffc.grad(lambda x: np.sin(np.sin(np.sin(x))))(2.5)]
    slope = diffc.grad(f)
    np.testing.assert_allclose([slope(x) for x in a], expected)
    np.testing.assert_allclose(diffc.vmap(slope)(a), expected)
    curved = diffc.grad(slope)
    np.testing.assert_allclose(diffc.vmap(curved)(a), [curved(x) for x in a])


def test_loops_in_loops():
    def f(x, store):
        def outer(c):
            inner = lambda i, y: np.sin(y + x) * 1.1  # noqa: E731  # as many trips as the outer has
            return c[0] + 1, diffc.fori_loop(0, c[0], inner, c[1], store=store)

        y = diffc.while_loop(lambda c: c[0] < 6, outer, (0, x * x), store=store)[1]
        ys = diffc.map(lambda k: norm_root(k + y * y, store), np.array([1.0, 2.0, 3.0]))
        return np.sum(ys) + diffc.scan(lambda c, k: (norm_root(c + k, store), 0), y * y, ys)[0]

    for derive in (diffc.grad, lambda f: diffc.grad(diffc.grad(f)), diffc.hessian):
        slopes = [derive(lambda x, s=s: f(x, s))(0.7) for s in STORES]
        np.testing.assert_allclose(*slopes, rtol=1e-9)


def test_halves_of_derivatives_outside_a_trace():
    a = np.array([4.0, 9.0])
    f = lambda a: diffc.map(lambda x: norm_root(x, "grow"), a)  # noqa: E731
    out, pull = diffc.vjp(f, a)
    again = [pull(np.array([1.0, 0.0])), pull(np.array([0.0, 2.0]))]
    np.testing.assert_allclose(out, [2.0, 3.0])
    np.testing.assert_allclose([x[0] for x in again], [[0.25, 0.0], [0.0, 1 / 3]])
    del pull
    out, push = diffc.linearize(f, a)
    np.testing.assert_allclose(push(np.ones(2)), [0.25, 1 / 6])
    np.testing.assert_allclose(diffc.jacrev(f)(a), np.diag([0.25, 1 / 6]))


def test_a_function_that_asks_for_values_keeps_its_rows():
    def f(x):
        y = norm_root(x, "grow")
        return y if y > 1 else y * 2

    for _ in range(5):  # interpreted first, then compiled
        _, pull = diffc.vjp(f, 4.0)
        assert np.isclose(pull(1.0)[0], 0.25)
        assert np.isclose(diffc.grad(f)(0.25), 2.0)


def test_a_checkpoint_keeps_nothing():
    f = diffc.checkpoint(lambda a: norm_root(a, "grow"))
    assert np.isclose(diffc.grad(lambda a: f(a) * 2)(4.0), 0.5)
    assert np.isclose(diffc.grad(diffc.grad(lambda a: f(a) * 2))(4.0), -1 / 16)


def test_a_transposed_loop():
    def f(x, n):
        step = lambda c: (c[0] + 1, c[1][::-1] * (1.0 + c[0]))  # noqa: E731  # linear in the array
        return diffc.while_loop(lambda c: c[0] < n, step, (0, x), store="grow")[1]

    x = np.arange(3.0)
    (found,) = diffc.linear_transpose(lambda x: f(x, 3), x)(np.array([1.0, 2.0, 3.0]))
    matrix = np.stack([diffc.jit(f)(row, 3) for row in np.eye(3)], axis=1)
    np.testing.assert_allclose(found, matrix.T @ [1.0, 2.0, 3.0])


# --- memory -----------------------------------------------------------------------------------


def test_memory_says_what_a_trip_takes():
    def f(x, w, n):
        step = lambda c: (c[0] + 1, np.tanh(w @ c[1]))  # noqa: E731  # keeps y and what tanh gives
        return np.sum(diffc.while_loop(lambda c: c[0] < n, step, (0, x), store="grow")[1])

    x, w = np.zeros(8, np.float32), np.zeros((8, 8), np.float32)
    memory = diffc.grad(f, argnums=(0, 1)).compile(x, w, 10).memory()
    assert [nbytes for _, nbytes in memory.grows] == [64]
    assert [line for line in str(memory).splitlines() if "grows: 64 bytes per trip" in line]
    by_x = diffc.grad(f).compile(x, w, 10).memory()
    assert [nbytes for _, nbytes in by_x.grows] == [32]
    assert not diffc.jit(f).compile(x, w, 10).memory().grows


def test_a_loop_keeps_no_more_than_its_slope_reads():
    def f(x, n):
        step = lambda c: (c[0] + 1, c[1] * 0.5 + 1.0)  # noqa: E731  # its slope is a constant
        return np.sum(diffc.while_loop(lambda c: c[0] < n, step, (0, x), store="grow")[1])

    compiled = diffc.grad(f).compile(np.ones(1000), 3)
    assert not compiled.memory().grows
    np.testing.assert_array_equal(compiled(np.ones(1000), 3), np.full(1000, 0.125))


def traced_bytes(run):
    """How many bytes of native and Python memory are taken and not freed by a run."""
    run()
    stores.trim()
    tracemalloc.start()
    try:
        run()
        stores.trim()
        before = tracemalloc.get_traced_memory()[0]
        for _ in range(20):
            run()
        stores.trim()
        return tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()


def nested_grad(store="grow"):
    def f(x, n):
        ys = diffc.scan(lambda c, k: (norm_root(c + k, store), c), 1.0, x)[1]
        y = np.sum(ys) * np.ones(100)
        step = lambda i, y: np.sin(y) * 1.01  # noqa: E731  # 800 bytes each
        return np.sum(diffc.fori_loop(0, n, step, y, store=store))

    return f


def test_a_run_frees_what_it_takes():
    slope = diffc.jit(diffc.grad(nested_grad()))
    x = np.linspace(1, 9, 50)
    assert traced_bytes(lambda: slope(x, 500)) < 4096
    f = lambda x: nested_grad()(x, 500)  # noqa: E731  # known from the first run on
    assert traced_bytes(lambda: diffc.vjp(f, x)[1](1.0)) < 50_000


def test_each_step_of_a_scan_frees_its_own_stores():
    """Ten steps of training take as much as one."""

    def train(w, n, steps):
        loss = lambda w: np.sum(diffc.fori_loop(0, n, lambda i, y: np.sin(y * w), w, store="grow"))  # noqa: E731
        return diffc.scan(lambda w, _: (w - 0.1 * diffc.grad(loss)(w), 0), w, None, steps)[0]

    def peak(steps):
        run = diffc.jit(lambda w, n: train(w, n, steps))
        run(np.ones(64), 1)
        tracemalloc.start()
        try:
            run(np.ones(64), 50)
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    assert peak(10) < 2 * peak(1)


def run_alone(text: str) -> str:
    """What a process of its own prints."""
    run = [sys.executable, "-c", textwrap.dedent(text)]
    done = subprocess.run(run, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_resident_memory_stays_flat():
    text = """
        import numpy as np, diffc
        def f(x, n):
            step = lambda c: (c[0] + 1, np.sin(c[1]) * 1.01)
            return np.sum(diffc.while_loop(lambda c: c[0] < n, step, (0, x), store="grow")[1])
        slope = diffc.jit(diffc.grad(f))
        def resident():
            with open("/proc/self/statm") as file:
                return int(file.read().split()[1]) * 4096
        x = np.ones(64)
        for _ in range(5):
            slope(x, 20_000)  # ten megabytes
        before = resident()
        for k in range(200):
            slope(x, 20_000 - k)
        print(resident() - before)
    """
    assert int(run_alone(text)) < 4_000_000


@pytest.mark.skipif(sys.platform != "linux", reason="limits the address space")
def test_where_memory_ends_the_error_names_the_line():
    text = """
        import resource, numpy as np, diffc
        from diffc.errors import ExecutionError
        def f(x):
            step = lambda c: (c[0] + 1, np.sin(c[1]))
            return np.sum(diffc.while_loop(lambda c: c[0] >= 0, step, (0, x), store="grow")[1])
        slope = diffc.jit(diffc.grad(f))
        slope.compile(np.ones(10_000))
        used = int(open("/proc/self/statm").read().split()[0]) * 4096
        resource.setrlimit(resource.RLIMIT_AS, (used + 2**28, used + 2**28))
        for _ in range(3):
            try:
                slope(np.ones(10_000))
            except ExecutionError as error:
                print(error.message, error.location)
    """
    lines = run_alone(text).splitlines()
    assert len(lines) == 3
    assert all("no memory for what the loop keeps of each trip (80,000 bytes)" in x for x in lines)
    assert all("<string>:6" in x for x in lines)


def test_bounds_that_no_memory_holds():
    def f(x, n):
        return np.sum(diffc.fori_loop(0, n, lambda i, y: np.sin(y), x, store="grow"))

    slope = diffc.jit(diffc.grad(f))
    for n in (2**45, 2**62, 2**63 - 1):
        with pytest.raises(ExecutionError, match="no memory for what the loop keeps") as caught:
            slope(np.ones(3), n)
        assert "test_stores.py" in str(caught.value.location)
    np.testing.assert_allclose(slope(np.ones(3), 1), np.cos(np.ones(3)))


def test_an_error_in_a_trip_ends_the_loop_and_frees_its_store():
    def f(x, n):
        def step(c):
            i, y = c
            return i + 1, y * x[i] + np.sin(y)

        return diffc.while_loop(lambda c: c[0] < n, step, (0, 1.0), store="grow")[1]

    slope = diffc.jit(diffc.grad(f))
    x = np.linspace(0.1, 0.9, 2000)
    slope(x, 2000)

    def fails():
        with pytest.raises(ExecutionError, match="out of bounds"):
            slope(x, 2001)

    assert traced_bytes(fails) < 8192
    alone = diffc.jit(diffc.grad(lambda x, n: f(x, n) * 2.0))
    np.testing.assert_allclose(alone(x, 3), 2 * slope(x, 3))


def test_a_failed_run_writes_to_no_argument():
    def update(x, n):
        loss = lambda x: np.sum(diffc.fori_loop(0, n, lambda i, y: np.sin(y), x, store="grow"))  # noqa: E731
        slope = diffc.grad(loss)(x)
        x -= slope
        return np.sum(diffc.grad(loss)(x))

    x = np.ones(3)
    run = diffc.jit(update)
    with pytest.raises(ExecutionError, match="no memory"):
        run(x, 2**60)
    np.testing.assert_array_equal(x, np.ones(3))
    run(x, 1)
    np.testing.assert_allclose(x, 1 - np.cos(np.ones(3)))


# --- threads ----------------------------------------------------------------------------------


def wide(x, w, n):
    step = lambda c: (c[0] + 1, np.tanh(c[1] @ w))  # noqa: E731  # large enough for two threads
    return np.sum(diffc.while_loop(lambda c: c[0] < n, step, (0, x), store="grow")[1])


def test_the_same_bits_for_any_number_of_threads():
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((300, 300)), rng.standard_normal((300, 300)) / 20
    slope = diffc.jit(diffc.grad(wide, argnums=(0, 1)))
    found = []
    for count in (1, 2):
        with pool.use_threads(count):
            found.append(slope(x, w, 7))
    for one, other in zip(*found, strict=True):
        np.testing.assert_array_equal(one, other)


def test_calls_at_once_have_stores_of_their_own():
    slope = diffc.jit(diffc.grad(nested_grad()))
    xs = [np.linspace(1, 2 + k, 50) for k in range(4)]
    expected = [slope(x, 700 + k) for k, x in enumerate(xs)]
    wrong: list[int] = []

    def work(k):
        for _ in range(30):
            if not np.array_equal(slope(xs[k], 700 + k), expected[k]):
                wrong.append(k)

    threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


# --- what says so -----------------------------------------------------------------------------


def test_jit_says_it_for_loops_that_do_not():
    def f(x, n):
        y = x
        while y < n:
            y = y * y + 1.0
        return y

    def grows(**kwargs):
        made = diffc.jit(diffc.grad(f), control_flow=True, **kwargs).compile(1.5, 100.0)
        assert np.isclose(made(1.5, 100.0), 2 * 1.5 * 2 * 3.25 * 2 * 11.5625)
        return bool(made.memory().grows)

    assert grows(store="grow")
    assert not grows()
    assert not grows(store="slots")

    inner = diffc.jit(lambda a: norm_root(a, None))
    outer = {s: diffc.jit(diffc.grad(lambda a: inner(a) * 2), store=s) for s in STORES}
    for _ in range(2):
        for s, g in outer.items():
            memory = g.compile(4.0).memory()
            assert ("grows" in str(memory)) == (s == "grow")
    said = diffc.jit(diffc.grad(lambda a: norm_root(a, "slots")), store="grow").compile(4.0)
    assert "grows" not in str(said.memory())
    fixed = lambda a: diffc.while_loop(lambda x: x < 9, lambda x: x * a, a, slots=4)  # noqa: E731
    assert "grows" not in str(diffc.jit(diffc.grad(fixed), store="grow").compile(4.0).memory())


def test_a_traced_range_keeps_all_too():
    def f(x, n):
        for i in range(n):
            x = np.sin(x) * (1.0 + i)
        return x

    slopes = [diffc.jit(diffc.grad(f), control_flow=True, store=store)(0.3, 5) for store in STORES]
    np.testing.assert_allclose(*slopes)


@pytest.mark.parametrize("kwargs", [{"store": "all"}, {"store": "grow", "slots": 3}])
@pytest.mark.parametrize("loop", [diffc.while_loop, diffc.fori_loop])
def test_what_makes_no_sense_is_an_error(loop, kwargs):
    given = (lambda x: x < 3, lambda x: x * 2, 1.0)
    if loop is diffc.fori_loop:
        given = (0, 3, lambda i, x: x * 2, 1.0)
    with pytest.raises(UsageError, match="store="):
        loop(*given, **kwargs)
    if "slots" not in kwargs:
        with pytest.raises(UsageError, match="store="):
            diffc.jit(lambda x: x, **kwargs)
