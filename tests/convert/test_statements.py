"""Python's statements and expressions on traced values, against Python."""

from __future__ import annotations

import functools

import numpy as np
import pytest

import diffc

VALUES = [0.5, 1.5, -1.0, 7.0, 2.0, 0.0, float("nan"), float("inf")]


@pytest.mark.parametrize("x", VALUES)
def test_expressions(check, x):
    def f(x):
        y = -x if x > 0 else x
        z = (x > 1 and y < 0) or not (x < 5)
        chosen = x and 3.0
        return y, 1.0 if z else 0.0, 0 < x < 2, x in (1.0, 2.0), x not in [7.0], chosen

    check(f, x)


def test_operands_are_computed_only_if_needed(check):
    def f(x, n):
        i = 0
        while i < n and x[i] > 0:
            i += 1
        first = n > 5 and x[n] > 0
        last = n <= 5 or x[n] > 0
        return i, first, last, 0 < n < 3 < x[0]

    check(f, np.array([1.0, 2.0, 3.0]), 3)
    check(f, np.array([1.0, -2.0, 3.0]), 2)


def test_builtins(check):
    def f(x):
        if any(e > 2 for e in x):
            r = 1
        elif all(e > 0 for e in x):
            r = 2
        else:
            r = 3
        return r, min(x[0], x[1]), max(x), bool(x[0]), int(x[1]), float(int(x[1])), 1.0 in x

    for x in ([1.0, 3.5], [1.0, 1.5], [0.0, -1.5]):
        check(f, np.array(x))


def helper(v, lim=2.0, *, k=1):
    if v > lim:
        return v * k
    return halve(v)


def halve(v):
    while v > 1:
        v = v / 2
    return v


@pytest.mark.parametrize("x", VALUES)
def test_helpers_are_converted(check, x):
    def f(x):
        if x < 0:
            return helper(-x), 0
        r = helper(x, k=3)
        if r > 5:
            return r, 1
        return r + max(x, 1.0, r), 2

    check(f, x)


def test_nested_loops_with_jumps(check):
    def f(x):
        s = 0.0
        for i in range(3):
            for j in range(2):
                if x[i] > j:
                    s = s + x[i] * j
                elif x[i] < -1:
                    continue
                else:
                    s -= 1
                    break
        return s

    for x in ([1.0, -2.0, 0.5], [3.0, 3.0, 3.0], [-5.0, -5.0, 0.0]):
        check(f, np.array(x))


def test_ranges(check):
    def f(x, n, step):
        s = 0.0
        for k in range(1, n, 2):
            s += x * k
        for k in range(n, 0, -1):
            s += k
            t = s
            s = s + t
        for k in range(0, 20, step):
            if k == 8:
                continue
            s -= k
        for k in reversed(range(n)):
            s = s * 0.5 + k
        return s

    for n, step in ((7, 3), (0, 4), (-3, 30), (1, 1)):
        check(f, 2.0, n, step)


def test_a_loop_else_runs_without_a_break(check):
    def f(x, n):
        found = 0.0
        for i in range(n):
            if x[i] < 0:
                found = i * 1.0
                break
        else:
            found = -1.0
        k = 0
        while k < n:
            if x[k] > 10:
                break
            k += 1
        else:
            found = found * 2
        return found, k

    for x in ([1.0, 2.0, 3.0], [1.0, -2.0, 3.0], [11.0, 1.0, 1.0]):
        check(f, np.array(x), 3)
        check(f, np.array(x), 0)


def test_newton_with_an_early_return(check):
    def f(x):
        """Square root."""
        guess = x
        for _ in range(100):
            new = 0.5 * (guess + x / guess)
            if abs(new - guess) < 1e-12:
                return new
            guess = new
        return -1.0

    def endless(x):
        while True:
            x = x / 2
            if x < 0.1:
                return x

    for x in (2.0, 1e10):
        check(f, x)
        check(endless, x)


def test_rows_zip_and_enumerate(check):
    def f(xs, ys):
        best = (0.0, -1)
        for i, (x, y) in enumerate(zip(xs, ys, strict=True)):
            d = abs(x - y)
            if d > best[0]:
                best = (d, i)
        total = 0.0
        for k, x in zip(range(3, 9, 2), xs, strict=False):
            total += k * x
        for x in reversed(xs):
            total = total / 2 + x
        return best, total

    check(f, np.array([1.0, 2.0, 3.0]), np.array([1.0, 5.0, 2.0]))
    check(f, np.array([1.0]), np.array([1.0]))


def test_arrays_of_no_rows(check):
    def f(x):
        total = 0.0
        for row in x:
            if row.sum() > 0:
                total += row.sum()
        return total

    for n in (0, 1, 3):
        check(f, np.arange(2.0 * n).reshape(n, 2))


def test_arrays_are_written_in_place(check):
    def f(x, m):
        x[0] = 5.0
        if x[1] > 0:
            x[1:] *= 2
        else:
            x[2] = -1
        view = x[:2]
        for i in range(3):
            if x[i] > 3:
                view[0] += x[i]
        out = np.zeros(3)
        for row in m:
            for i, e in enumerate(row):
                if e > 0:
                    out[i] += e
        n = 0
        while n < 2 and n < x[2]:
            out[n] -= 1
            n += 1
        return view.sum(), out

    m = np.arange(-4.0, 5.0).reshape(3, 3)
    check(f, np.array([1.0, 2.0, 3.0]), m)
    check(f, np.array([1.0, -2.0, 3.0]), m)


class Net:
    """Methods, attributes, zero-argument super and private names."""

    def __init__(self):
        self.w = np.array([1.0, 2.0])
        self.__t = 0.5

    def __call__(self, x):
        return self.act(x * self.w).sum()

    def act(self, v):
        out = np.zeros_like(v)
        for i, e in enumerate(v):
            out[i] = e if e > self.__t else 0.1 * e
        return out


class Deep(Net):
    def act(self, v):
        if v[0] > 0:
            return super().act(v) * 2
        return super().act(v)


def test_objects_and_methods(check):
    for net in (Net(), Deep()):
        check(lambda x, net=net: net(x), np.array([1.0, -1.0]))
        check(lambda x, net=net: net(x), np.array([-1.0, 3.0]))
        jitted = diffc.jit(net.act, control_flow=True)
        np.testing.assert_allclose(jitted(net.w), net.act(net.w))


def test_closures_see_the_variables_around(check):
    scale = 3.0
    table = np.array([1.0, 2.0])

    def f(x, n):
        count = 0

        def step(v):
            if v > scale:
                return v / scale
            return v + table[count % 2]

        for _ in range(n):
            x = step(x)
        partial = functools.partial(helper, k=2)
        return partial(x), [(lambda v: v if v > 2 else -v)(e) for e in table]

    check(f, 1.0, 5)
    table[:] = 4.0
    check(f, 1.0, 5)
    scale = 100.0
    check(f, 1.0, 5)


def test_containers_are_carried(check):
    def f(x, n):
        p = {"w": x, "b": 0.0}
        for _ in range(n):
            p = {"w": p["w"] * 0.5, "b": p["b"] + 1}
            if p["w"].sum() < 0.5:
                break
        return p

    check(f, np.array([1.0, 2.0]), 10)
    check(f, np.array([1.0, 2.0]), 1)


def test_known_values_stay_pythons(check):
    def f(x, depth=3):
        layers = [np.sin, np.cos, np.exp]
        out = []
        for k in range(depth):
            if k % 2 == 0:
                x = layers[k](x)
            out.append(x)
        for e in x:
            out.append(e * 2 if e > 0 else e)
        return out

    check(f, np.array([1.0, -2.0]))


def test_with_and_try_around_and_within(check):
    def f(x):
        with np.errstate(all="ignore"):
            if x > 0:
                y = np.log(x)
            else:
                y = 0.0
        try:
            z = {"a": y}["b"]
        except KeyError:
            z = 1.0
        if x > 1:
            with np.errstate(all="ignore"):
                z = z + 1
        for k in range(3):
            with np.errstate(all="ignore"):
                if k == 1:
                    continue
                z += k
        return z

    check(f, 2.0)
    check(f, -2.0)


def test_the_counter_outlives_the_loop(check):
    def f(x, n):
        i = -1
        for i in range(n):
            if x[i] > 1:
                break
        return i

    for n in (0, 2, 3):
        check(f, np.array([0.0, 0.5, 2.0]), n)


def test_numbers_widen(check):
    def f(x):
        total = 0
        flag = False
        for e in x:
            if e > 1:
                total = total + e
                flag = True
        return total, flag, 1 if flag else 0.5

    check(f, np.array([0.0, 2.0, 3.0]))
    check(f, np.array([0.0]))


def test_decorated_and_nested_transforms(check):
    def f(x):
        def loss(w):
            if w > 1:
                return w * w
            return w

        return diffc.grad(loss)(x)

    compiled = diffc.jit(f, control_flow=True)
    assert compiled(3.0) == 6.0
    assert compiled(0.5) == 1.0


@diffc.jit(control_flow=True)
def decorated(x):
    if x > 0:
        return x
    return -x


def test_a_decorator():
    assert decorated(-2.0) == 2.0
    assert decorated.__name__ == "decorated"
    text = decorated.compile(1.0).stage("trace").text
    assert "cond(" in text


def test_locations_are_the_users():
    graph = decorated.compile(1.0).stage("trace").value
    (chosen,) = (eqn for eqn in graph.eqns if eqn.op.name == "cond")
    lines = open(__file__).read().splitlines()  # noqa: SIM115
    assert chosen.loc.file == __file__
    assert "if x > 0" in lines[chosen.loc.line - 1]
    (negated,) = (eqn for region in chosen.regions for eqn in region.eqns)
    assert "return -x" in lines[negated.loc.line - 1]
    assert negated.loc.function == "decorated"


def collatz(n):
    steps = 0
    while n != 1:
        n = n // 2 if n % 2 == 0 else 3 * n + 1
        steps += 1
    return steps


def factorial(n, depth=5):
    if depth == 0:
        return n
    if n > 3:
        return n * factorial(n - 1, depth - 1)
    return n


def test_integers_and_recursion(check):
    check(collatz, 27)
    check(factorial, 6.0)
    check(factorial, 2.0)


def test_functions_given_to_diffc_are_converted():
    def each(xs):
        return diffc.vmap(halve)(xs)

    xs = np.array([3.0, -1.0, 0.5])
    np.testing.assert_allclose(diffc.jit(each, control_flow=True)(xs), [halve(x) for x in xs])
    compiled = diffc.jit(diffc.grad(halve), control_flow=True)
    assert compiled(3.0) == 0.25
