"""Control flow as users write it: values against Python's own, derivatives, nesting, closures."""

import dataclasses
import functools
import itertools
import threading
import time
from typing import Any

import numpy as np
import pytest

import diffc

close = np.testing.assert_allclose
same = np.testing.assert_array_equal


def slope(f, x, step=1e-6):
    return (f(x + step) - f(x - step)) / (2 * step)


# --- cond and switch --------------------------------------------------------------------------


def pieces(x):
    return diffc.cond(np.sum(x) > 0, lambda x: np.sqrt(x + 9), lambda x: x * x * x, x)


@pytest.mark.parametrize("run", [pieces, diffc.jit(pieces)], ids=["alone", "jit"])
def test_cond(run):
    close(run(np.array([1.0, 2.0])), np.sqrt([10.0, 11.0]), rtol=1e-15)
    same(run(np.array([-1.0, -2.0])), [-1.0, -8.0])
    same(run(np.array([np.nan, 1.0]))[1:], [1.0])  # a comparison with nan is false


def test_only_the_chosen_branch_runs():
    # the other one would never end
    def f(x):
        return diffc.cond(
            x > 0, lambda x: x, lambda x: diffc.while_loop(lambda c: c < 1, lambda c: c - 1, x), x
        )

    assert float(diffc.jit(f)(3.0)) == 3.0
    assert float(diffc.grad(f)(3.0)) == 1.0


@pytest.mark.parametrize("x", [1.5, -1.5])
def test_cond_has_derivatives_of_the_chosen_branch(x):
    def f(x):
        return np.sum(pieces(np.stack([x, 2 * x])))

    close(diffc.grad(f)(x), slope(lambda x: float(diffc.jit(f)(x)), x), rtol=1e-7)
    close(diffc.jvp(f, (x,), (1.0,))[1], diffc.grad(f)(x), rtol=1e-12)
    close(diffc.grad(diffc.grad(f))(x), slope(diffc.grad(f), x), rtol=1e-6)


def test_a_branch_that_is_not_taken_gives_no_nan():
    f = diffc.grad(lambda x: diffc.cond(x > 0, np.sqrt, lambda x: 0 * x, x))
    assert float(f(0.0)) == 0.0
    assert float(f(-1.0)) == 0.0
    assert float(f(4.0)) == 0.25


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int32, np.int64, np.uint64])
def test_switch_moves_its_index_into_range(dtype):
    branches = [lambda x: x + 1, lambda x: x * 10, lambda x: -x]
    run = diffc.jit(lambda i, x: diffc.switch(i, branches, x))
    info = np.iinfo(dtype)
    for index in (info.min, 0, 1, 2, 3, info.max):
        chosen = branches[min(max(int(index), 0), 2)]
        assert float(run(dtype(index), 3.0)) == chosen(3.0)


def test_switch_of_one_and_of_many():
    assert float(diffc.switch(5, [np.negative], 2.0)) == -2.0
    branches = [lambda x, k=k: x + k for k in range(300)]
    run = diffc.jit(lambda i, x: diffc.switch(i, branches, x))
    assert [float(run(i, 0.5)) for i in (0, 1, 255, 256, 299, 300)] == [
        0.5,
        1.5,
        255.5,
        256.5,
        299.5,
        299.5,
    ]


def test_a_python_bool_as_predicate():
    run = diffc.jit(lambda flag, x: diffc.cond(flag, np.sin, np.cos, x))
    assert float(run(True, 0.0)) == 0.0
    assert float(run(False, 0.0)) == 1.0
    assert float(diffc.jit(lambda x: diffc.cond(True, np.sin, np.cos, x))(0.0)) == 0.0


def test_branches_close_over_arrays():
    outer = np.arange(3.0)

    def f(x, y):
        z = x * 2
        return diffc.cond(x[0] > 0, lambda: z + outer, lambda: y[::-1] * outer)

    x, y = np.array([1.0, 2.0, 3.0]), np.array([4.0, 5.0, 6.0])
    same(diffc.jit(f)(x, y), x * 2 + outer)
    same(diffc.jit(f)(-x, y), y[::-1] * outer)
    by_x, by_y = diffc.grad(lambda x, y: np.sum(f(x, y)), (0, 1))(x, y)
    same(by_x, [2.0, 2.0, 2.0])
    same(by_y, [0.0, 0.0, 0.0])
    by_x, by_y = diffc.grad(lambda x, y: np.sum(f(x, y)), (0, 1))(-x, y)
    same(by_x, [0.0, 0.0, 0.0])
    same(by_y, outer[::-1])


def test_python_numbers_take_the_dtype_of_the_other_branch():
    x = np.float32(2)
    for f in (
        lambda x: diffc.cond(x > 0, lambda: x, lambda: 0),
        lambda x: diffc.cond(x > 0, lambda: 1.5, lambda: x),
        lambda x: diffc.cond(x > 0, lambda: True, lambda: x),
    ):
        assert diffc.jit(f)(x).dtype == np.float32
    mixed = diffc.jit(lambda flag: diffc.cond(flag, lambda: 1, lambda: 2.5))
    assert [float(mixed(flag)) for flag in (True, False)] == [1.0, 2.5]
    # a Python number from both stays one: it doesn't widen what it meets
    scaled = diffc.jit(lambda flag, x: x * diffc.cond(flag, lambda: 1.0, lambda: 2.0))
    assert scaled(False, x).dtype == np.float32


@dataclasses.dataclass
class Pair:
    left: Any
    right: Any


def test_pytrees_go_in_and_out():
    def f(flag, p):
        def swapped(p):
            return Pair(p.right, {"a": p.left["a"] * 2, "b": None})

        return diffc.cond(flag, swapped, lambda p: Pair(p.left["a"], {"a": p.right, "b": None}), p)

    p = Pair({"a": 1.0}, 5.0)
    found = diffc.jit(lambda flag: f(flag, p))(True)
    assert (float(found.left), float(found.right["a"])) == (5.0, 2.0)
    found = diffc.jit(lambda flag: f(flag, p))(False)
    assert (float(found.left), float(found.right["a"])) == (1.0, 5.0)


# --- while ------------------------------------------------------------------------------------


def collatz(n):
    def step(carry):
        n, count = carry
        return diffc.cond(n % 2 == 0, lambda n: n // 2, lambda n: 3 * n + 1, n), count + 1

    return diffc.while_loop(lambda carry: carry[0] != 1, step, (n, 0))[1]


def test_while_with_cond_inside():
    def by_hand(n):
        count = 0
        while n != 1:
            n, count = (n // 2 if n % 2 == 0 else 3 * n + 1), count + 1
        return count

    run = diffc.jit(collatz)
    for n in (1, 2, 3, 7, 27, 97):
        assert int(run(n)) == by_hand(n)


def logistic_map(x, r, steps):
    return diffc.fori_loop(0, steps, lambda _, x: r * x * (1 - x), x)


def logistic_by_hand(x, r, steps):
    for _ in range(steps):
        x = r * x * (1 - x)
    return x


STEPS = (0, 1, 2, 3, 31, 32, 33, 200, 1000)


@pytest.mark.parametrize("steps", STEPS)
def test_gradients_of_loops_of_any_length(steps):
    r, x = 2.9, 0.3
    found = diffc.value_and_grad(logistic_map, (0, 1))(x, r, steps)
    (value, (by_x, by_r)) = found
    assert float(value) == logistic_by_hand(x, r, steps)
    close(by_x, slope(lambda x: logistic_by_hand(x, r, steps), x), rtol=1e-6, atol=1e-9)
    close(by_r, slope(lambda r: logistic_by_hand(x, r, steps), r), rtol=1e-6, atol=1e-9)
    # forward mode, and the reverse of a scan of as many steps, are the same up to rounding
    _, forward = diffc.jvp(lambda x, r: logistic_map(x, r, steps), (x, r), (1.0, 0.0))
    close(by_x, forward, rtol=1e-12, atol=1e-300)
    traced = diffc.jit(lambda n, x, r: diffc.vjp(lambda x: logistic_map(x, r, n), x)[1](1.0)[0])
    close(by_x, traced(steps, x, r), rtol=1e-12, atol=1e-300)


@pytest.mark.parametrize("slots", [2, 3, 16, 100])
def test_slots_change_no_bit(slots):
    def f(x, n):
        return diffc.fori_loop(0, n, lambda i, x: np.sin(x) + x / (i + 2), x, slots=slots)

    def reference(x, n):
        return diffc.fori_loop(0, n, lambda i, x: np.sin(x) + x / (i + 2), x)

    for n in (0, 1, 40, 321):
        assert float(diffc.grad(f)(0.4, n)) == float(diffc.grad(reference)(0.4, n))


def newton(a, guess):
    def step(carry):
        x, _ = carry
        return (x + a / x) / 2, x

    return diffc.while_loop(lambda c: np.abs(c[0] - c[1]) > 1e-9, step, (guess, guess + 1))[0]


def test_derivatives_of_every_order_of_a_data_dependent_loop():
    for a in (0.5, 2.0, 1e4):
        assert float(diffc.jit(newton)(a, 1.0)) == pytest.approx(a**0.5, rel=1e-14)
        first = diffc.grad(newton)(a, 1.0)
        assert float(first) == pytest.approx(0.5 * a**-0.5, rel=1e-8)
    second = diffc.grad(diffc.grad(newton))(2.0, 1.0)
    assert float(second) == pytest.approx(-0.25 * 2.0**-1.5, rel=1e-6)
    over = diffc.jvp(diffc.grad(newton), (2.0, 1.0), (1.0, 0.0))[1]
    close(over, second, rtol=1e-10)


def test_no_trips_pass_the_carry_on():
    def f(x, y):
        return diffc.while_loop(lambda c: c[0] < 0, lambda c: (c[0] * c[1], c[1]), (x, y))

    assert [float(v) for v in diffc.jit(f)(2.0, 3.0)] == [2.0, 3.0]
    by_x, by_y = diffc.grad(lambda x, y: f(x, y)[0], (0, 1))(2.0, 3.0)
    assert (float(by_x), float(by_y)) == (1.0, 0.0)


def test_carries_that_swap_places():
    run = diffc.jit(lambda n, a, b: diffc.fori_loop(0, n, lambda _, c: (c[1], c[0]), (a, b)))
    a, b = np.arange(3.0), -np.ones(3)
    for n in (0, 1, 2, 5):
        found = run(n, a, b)
        expected = (b, a) if n % 2 else (a, b)
        for x, y in zip(found, expected, strict=True):
            same(x, y)
    same(a, np.arange(3.0))


def test_one_start_for_several_carries():
    run = diffc.jit(
        lambda n, x: diffc.while_loop(
            lambda c: c[0][0] < n, lambda c: (c[0] + 1, c[1] + c[0], c[2] * 2), (x, x, x)
        )
    )
    first, second, third = run(4.0, np.zeros(2))
    same(first, [4.0, 4.0])
    same(second, [6.0, 6.0])
    same(third, [0.0, 0.0])


def test_the_body_may_write_its_carry_in_place():
    def fibonacci(n, start):
        def body(i, a):
            a[i + 2] = a[i + 1] + a[i]
            return a

        return diffc.fori_loop(0, n, body, start)

    start = np.array([1.0, 1.0, 0, 0, 0, 0, 0, 0])
    same(diffc.jit(fibonacci)(6, start), [1, 1, 2, 3, 5, 8, 13, 21])
    same(start, [1, 1, 0, 0, 0, 0, 0, 0])
    same(diffc.jit(lambda start: fibonacci(6, start))(start), [1, 1, 2, 3, 5, 8, 13, 21])
    found = diffc.grad(lambda start: fibonacci(6, start)[-1])(start)
    same(found, [8, 13, 0, 0, 0, 0, 0, 0])
    traced = diffc.grad(lambda start, n: fibonacci(n, start)[-1])(start, 6)
    same(traced, [8, 13, 0, 0, 0, 0, 0, 0])


def test_python_numbers_as_carries_take_the_dtype_of_the_body():
    run = diffc.jit(lambda n, x: diffc.fori_loop(0, n, lambda i, total: total + x, 0))
    assert run(3, np.float32(0.5)).dtype == np.float32
    assert float(run(3, np.float32(0.5))) == 1.5
    counted = diffc.jit(lambda n: diffc.fori_loop(0, n, lambda i, total: total + i, 0))
    assert counted(5).dtype == np.int64 and int(counted(5)) == 10
    # the index is a Python number: it widens nothing
    weighted = diffc.jit(lambda x: diffc.fori_loop(0, 3, lambda i, t: t + i * x, np.float32(0)))
    assert weighted(np.float32(2)).dtype == np.float32


@pytest.mark.parametrize(("lower", "upper"), [(0, 5), (2, 4), (5, 5), (7, 3), (-3, 2)])
def test_bounds_of_fori_loop(lower, upper):
    def f(lower, upper):
        return diffc.fori_loop(lower, upper, lambda i, c: (c[0] + i * i, c[1] + 1), (0, 0))

    expected = [sum(i * i for i in range(lower, upper)), len(range(lower, upper))]
    assert [int(v) for v in f(lower, upper)] == expected
    assert [int(v) for v in diffc.jit(lambda: f(lower, upper))()] == expected
    assert [int(v) for v in diffc.jit(f)(lower, upper)] == expected
    small = diffc.jit(f)(np.int8(lower), np.int8(upper))
    assert [int(v) for v in small] == expected
    mixed = diffc.jit(lambda upper: f(lower, upper))(upper)
    assert [int(v) for v in mixed] == expected


def test_scan_in_while_in_cond_in_scan():
    w = np.array([0.5, -0.25, 0.75])

    def f(xs, tolerance):
        def step(total, x):
            def refined(c):
                def inner(a, wk):
                    return np.tanh(a * wk + x), a

                a, _ = diffc.scan(inner, c[0], w)
                return a, c[1] + 1

            def settle():
                a, count = diffc.while_loop(
                    lambda c: (np.abs(c[0]) > tolerance) & (c[1] < 4), refined, (x, 0)
                )
                return total + a * count

            return diffc.cond(x > 0, settle, lambda: total - x * x), total

        return diffc.scan(step, 0.0, xs)

    def by_hand(xs, tolerance):
        total, totals = 0.0, []
        for x in xs:
            totals.append(total)
            if x > 0:
                a, count = x, 0
                while abs(a) > tolerance and count < 4:
                    for wk in w:
                        a = np.tanh(a * wk + x)
                    count += 1
                total = total + a * count
            else:
                total = total - x * x
        return total, np.array(totals)

    xs = np.array([0.5, -1.0, 0.01, 2.0, -0.1])
    for tolerance in (0.02, 0.6, 10.0):
        total, totals = diffc.jit(f)(xs, tolerance)
        expected = by_hand(xs, tolerance)
        close(total, expected[0], rtol=1e-14)
        close(totals, expected[1], rtol=1e-14)
        found = diffc.grad(lambda xs, t: f(xs, t)[0])(xs, tolerance)
        numbers = [
            slope(lambda e, k=k, t=tolerance: by_hand(xs + e * np.eye(5)[k], t)[0], 0.0)
            for k in range(5)
        ]
        close(found, numbers, rtol=1e-6, atol=1e-8)
        dot = np.array([1.0, -2.0, 3.0, 0.5, 1.0])
        pushed = diffc.jvp(lambda xs, t=tolerance: f(xs, t)[0], (xs,), (dot,))[1]
        close(pushed, found @ dot, rtol=1e-12)


def test_matrices_as_carries():
    def power(a, n):
        return diffc.fori_loop(0, n, lambda _, m: m @ a, np.eye(3))

    a = np.random.default_rng(0).standard_normal((3, 3)) / 2
    for n in (0, 1, 2, 9):
        close(diffc.jit(power)(a, n), np.linalg.matrix_power(a, n), rtol=1e-13, atol=1e-15)
        found = diffc.grad(lambda a, n: np.sum(power(a, n)))(a, n)
        numbers = np.zeros((3, 3))
        for i in np.ndindex(3, 3):
            e = np.zeros((3, 3))
            e[i] = 1
            power_sum = lambda t, e=e, n=n: np.linalg.matrix_power(a + t * e, n).sum()  # noqa: E731
            numbers[i] = slope(power_sum, 0.0)
        close(found, numbers, rtol=1e-7, atol=1e-9)


def test_empty_arrays_as_carries():
    run = diffc.jit(lambda n, x: diffc.fori_loop(0, n, lambda i, x: x + i, x))
    assert run(3, np.zeros((0, 2))).shape == (0, 2)
    found = diffc.grad(lambda x, n: np.sum(diffc.fori_loop(0, n, lambda i, x: x * i, x)))
    assert found(np.zeros(0), 3).shape == (0,)


# --- map and associative_scan -----------------------------------------------------------------


def test_map():
    xs = {"a": np.arange(6.0).reshape(3, 2), "b": np.arange(3)}
    found = diffc.map(lambda x: (x["a"] * x["b"], np.sum(x["a"])), xs)
    same(found[0], xs["a"] * xs["b"][:, None])
    same(found[1], xs["a"].sum(1))
    assert diffc.map(lambda x: x + 1, np.zeros((0, 3))).shape == (0, 3)
    gradient = diffc.grad(lambda x: np.sum(diffc.map(lambda r: np.sum(r) ** 2, x)))(xs["a"])
    same(gradient, 2 * xs["a"].sum(1, keepdims=True) * np.ones(2))


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("n", [0, 1, 2, 3, 4, 5, 8, 17, 64])
def test_associative_scan_of_matrices(n, reverse):
    matrices = np.random.default_rng(n).integers(-2, 3, (n, 2, 2)).astype(float)
    found = diffc.associative_scan(np.matmul, matrices, reverse=reverse)
    order = matrices[::-1] if reverse else matrices
    expected = list(itertools.accumulate(order, np.matmul))
    if n:
        same(found, np.stack(expected[::-1] if reverse else expected))
    assert found.shape == matrices.shape


def test_associative_scan_of_a_recurrence():
    # x[t] = a[t] x[t-1] + b[t], on pairs (a, b)
    def combine(left, right):
        return {"a": left["a"] * right["a"], "b": right["a"] * left["b"] + right["b"]}

    rng = np.random.default_rng(1)
    a, b = rng.uniform(0.5, 1, (3, 11)), rng.standard_normal((3, 11))

    def solve(a, b):
        return diffc.associative_scan(combine, {"a": a, "b": b}, axis=-1)["b"]

    x, expected = np.zeros(3), np.zeros((3, 11))
    for t in range(11):
        expected[:, t] = x = a[:, t] * x + b[:, t]
    close(solve(a, b), expected, rtol=1e-13)
    found = diffc.grad(lambda a: np.sum(solve(a, b) ** 2))(a)
    step = np.zeros_like(a)
    step[1, 4] = 1e-6
    jitted = diffc.jit(lambda a: np.sum(solve(a, b) ** 2))
    close(found[1, 4], (jitted(a + step) - jitted(a - step)) / 2e-6, rtol=1e-4)


# --- with other transforms --------------------------------------------------------------------


def test_vmap_of_cond_and_while():
    xs = np.array([0.5, 2.0, -1.0, 30.0])
    same(
        diffc.vmap(lambda x: diffc.cond(x > 0, lambda x: x * 2, lambda x: -x, x))(xs), [1, 4, 1, 60]
    )
    roots = diffc.vmap(lambda a: newton(a, 1.0))(np.abs(xs))
    close(roots, np.sqrt(np.abs(xs)), rtol=1e-12)
    steps = np.array([0, 1, 5, 2])
    found = diffc.vmap(diffc.grad(logistic_map), (0, None, 0))(xs / 40, 2.0, steps)
    expected = [
        slope(lambda x, n=n: logistic_by_hand(x, 2.0, n), x / 40)
        for x, n in zip(xs, steps, strict=True)
    ]
    close(found, expected, rtol=1e-7)


def test_two_loops_do_not_mix():
    def f(x):
        first = diffc.while_loop(lambda c: c < 10, lambda c: c * 2, x)
        second = diffc.while_loop(lambda c: c < 10, lambda c: c * 2, x + 1)
        return first * second

    assert float(diffc.jit(f)(1.0)) == 16.0 * 16.0
    assert float(diffc.grad(f)(1.0)) == 16 * 16 + 16 * 8


def test_a_checked_index_in_a_loop_ends_it():
    def f(n, x, i):
        return diffc.while_loop(lambda c: c[0] < n, lambda c: (c[0] + 1, c[1] + x[i]), (0, 0.0))[1]

    run = diffc.jit(f)
    assert float(run(3, np.ones(4), 2)) == 3.0
    with pytest.raises(diffc.ExecutionError, match="index"):
        run(10**12, np.ones(4), 9)  # it stops at the first error, or this would take hours


def test_guard_pages_around_all_values(monkeypatch):
    monkeypatch.setenv("DIFFC_GUARD", "1")
    x = np.array([0.5, 1.5, 2.5])

    def f(x, n):
        def body(i, c):
            scaled = diffc.cond(c[0] > 1, lambda c: c * 0.5, lambda c: np.sin(c) + 1, c)
            return diffc.scan(lambda a, b: (a + b, a), scaled, np.ones((2, 3)))[0]

        return np.sum(diffc.fori_loop(0, n, body, x))

    def by_hand(x, n):
        for _ in range(n):
            x = (x * 0.5 if x[0] > 1 else np.sin(x) + 1) + 2
        return float(np.sum(x))

    for n in (0, 1, 7):
        value, found = diffc.value_and_grad(f)(x, n)
        close(value, by_hand(x, n), rtol=1e-14)
        numbers = [
            slope(lambda t, k=k, n=n: by_hand(x + t * np.eye(3)[k], n), 0.0) for k in range(3)
        ]
        close(found, numbers, rtol=1e-6, atol=1e-9)


def test_a_loop_of_unknown_length_lets_other_threads_run():
    def f(n):
        return diffc.while_loop(lambda c: c[0] < n, lambda c: (c[0] + 1, c[1] * 0.5), (0, 1.0))

    run = diffc.jit(f)
    run(1)
    counted = []

    def count():
        while not done.is_set():
            counted.append(None)
            time.sleep(0.001)

    done = threading.Event()
    other = threading.Thread(target=count)
    other.start()
    before = len(counted)
    run(30_000_000)
    after = len(counted)
    done.set()
    other.join()
    assert after - before > 2


def test_numbers_take_the_dtype_of_other_branches():
    f = diffc.jit(lambda x: diffc.cond(x[0] > 0, lambda: (x, 1), lambda: (x, x[0].astype("f4"))))
    assert f(np.arange(3.0))[1].dtype == np.float32


@pytest.mark.parametrize("length", [np.int64(3), np.int8(3), 3])
def test_lengths_of_a_scan_are_any_int(length):
    found = diffc.scan(lambda c, _: (c * 2, None), 1.0, length=length)
    assert found[0] == 8.0


def test_what_decorators_say_of_arguments_is_not_asked():
    def doubled(g):
        @functools.wraps(g)
        def h(*args):
            return g(2.0, *args)

        return h

    times = doubled(lambda a, x: a * x)
    f = diffc.jit(lambda x: diffc.cond(x > 0, times, diffc.jit(np.negative), x))
    assert f(3.0) == 6.0
    assert f(-3.0) == 3.0
