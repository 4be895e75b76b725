"""Control flow called outside any trace: compiled once, whatever is made anew at each call."""

import threading

import numpy as np
import pytest

import diffc
from diffc.control import outside
from diffc.errors import ExecutionError
from diffc.programs import GraphProgram


@pytest.fixture
def compiled(monkeypatch):
    """The names of the graphs that have been compiled since the test began."""
    names = []

    class Counted(GraphProgram):
        def __init__(self, graph, name):
            names.append(name)
            super().__init__(graph, name)

    monkeypatch.setattr(outside, "GraphProgram", Counted)
    monkeypatch.setattr(outside, "_PROGRAMS", type(outside._PROGRAMS)())
    monkeypatch.setattr(outside, "_ASKS", type(outside._ASKS)())
    return names


def root(a):
    close = lambda x: np.abs(x * x - a) > 1e-12  # noqa: E731  # made anew at each call
    return diffc.while_loop(close, lambda x: (x + a / x) / 2, a)


def test_numbers_in_closures_are_operands(compiled):
    for a in (4.0, 9.0, 2.0):
        assert np.isclose(root(a), np.sqrt(a))
    assert len(compiled) == 1
    assert np.isclose(root(np.float32(4.0)), 2.0)  # another dtype
    assert len(compiled) == 2


def test_arrays_in_closures_are_operands(compiled):
    for k in range(3):
        w = np.full((2, 2), float(k))
        last, sums = diffc.scan(lambda c, x, w=w: (c @ w + x, c.sum()), np.ones(2), np.ones((3, 2)))
        c, expected = np.ones(2), []
        for _ in range(3):
            expected.append(c.sum())
            c = c @ w + 1
        np.testing.assert_array_equal(last, c)
        np.testing.assert_array_equal(sums, expected)
    assert len(compiled) == 1


TABLE = np.arange(3.0)
FACTOR = 2.0


def test_what_a_function_reaches_is_read_at_each_call(compiled, monkeypatch):
    def body(x):
        return np.sum(TABLE) * x * FACTOR

    xs = np.ones(2)
    np.testing.assert_array_equal(diffc.map(body, xs), [6.0, 6.0])
    monkeypatch.setitem(globals(), "TABLE", np.ones(3))
    np.testing.assert_array_equal(diffc.map(body, xs), [6.0, 6.0])
    TABLE[:] = 2.0
    np.testing.assert_array_equal(diffc.map(body, xs), [12.0, 12.0])
    assert len(compiled) == 1
    monkeypatch.setitem(globals(), "FACTOR", 3.0)
    np.testing.assert_array_equal(diffc.map(body, xs), [18.0, 18.0])
    assert len(compiled) == 2


def test_a_function_may_ask_for_a_number_of_its_closure(compiled):
    def scaled(rate):
        def body(x):
            return x * rate if rate > 0.5 else x * 0

        return diffc.map(body, np.ones(2))

    for rate in (1.0, 2.0, 0.25, 1.0):
        np.testing.assert_array_equal(scaled(rate), np.full(2, rate if rate > 0.5 else 0.0))
    assert len(compiled) == 3  # one for each number
    repeat = lambda n: diffc.map(lambda x: x * sum(range(int(n))), np.ones(1))  # noqa: E731
    np.testing.assert_array_equal([repeat(3.0), repeat(4.0)], [[3.0], [6.0]])


def test_python_numbers_stay_weak(compiled):
    rate = 0.5
    xs = np.ones(3, np.float32)
    assert diffc.map(lambda x: x * rate, xs).dtype == np.float32
    assert diffc.scan(lambda c, x: (c * rate, x), np.float32(1), xs)[0].dtype == np.float32
    assert diffc.cond(True, lambda x: x + rate, lambda x: x - rate, np.int8(3)).dtype == np.float64
    flag, count = True, 3
    np.testing.assert_array_equal(diffc.map(lambda x: x * count if flag else x, xs), 3 * xs)


def test_every_kind_of_control_flow_recurs(compiled):
    def calls(k):
        shift = float(k)
        xs = np.arange(4.0)
        return [
            diffc.cond(k > 1, lambda x: x + shift, lambda x: x - shift, 1.0),
            diffc.switch(k, [lambda x: x * shift, np.sin, np.cos], 1.0),
            diffc.fori_loop(0, 3, lambda i, x: x + shift * i, 0.0),
            diffc.fori_loop(0, np.int64(k), lambda i, x: x + shift, 0.0),
            diffc.associative_scan(lambda a, b: a + b + 0 * shift, xs),
            diffc.map(lambda x: x + shift, xs),
            diffc.root(lambda x: x**3 - shift, 1.0),
            diffc.fixed_point(lambda x: (x + shift / x) / 2, 1.0),
            diffc.argmin(lambda x: (x - shift) ** 2, 0.0),
            diffc.linear_solve(lambda x: x * shift, np.ones(2)),
            diffc.triangular_solve(np.eye(2) * shift, np.ones(2)),
        ]

    first = calls(1)
    count = len(compiled)
    second = calls(2)
    np.testing.assert_allclose(first[6], 1.0)
    np.testing.assert_allclose(second[6], 2 ** (1 / 3))
    np.testing.assert_allclose(second[0], 3.0)
    np.testing.assert_allclose(second[1], np.cos(1.0))
    np.testing.assert_array_equal(second[5], np.arange(4.0) + 2)
    np.testing.assert_allclose(second[8], 2.0)
    assert len(compiled) - count == 1  # NumPy's integers are known numbers, and bounds stay so


def test_an_error_names_the_line_of_the_function_that_met_it():
    x = np.arange(3.0)
    first = lambda i: x[i]  # noqa: E731  # the same function on two lines
    second = lambda i: x[i]  # noqa: E731
    lines = []
    for function in (first, second, first):
        with pytest.raises(ExecutionError, match="out of bounds") as caught:
            diffc.map(function, np.array([0, 5]))
        lines.append(caught.value.location)
    assert lines[0] == lines[2] != lines[1]


def test_methods_partials_and_builtin_functions(compiled):
    class Model:
        def __init__(self, w):
            self.w = w

        def step(self, c, x):
            return c * self.w + x, c

    for w in (2.0, 2.0):
        found, _ = diffc.scan(Model(w).step, 1.0, np.ones(3))
        np.testing.assert_array_equal(found, 15.0)
    assert len(compiled) == 1
    for _ in range(2):
        assert diffc.cond(True, np.sin, np.cos, 0.0) == 0
    assert len(compiled) == 2


def test_calls_at_once(compiled):
    wrong = []

    def work(k):
        for n in range(20):
            a = float(1 + k + 4 * n)
            if not np.isclose(root(a), np.sqrt(a)):
                wrong.append(a)

    threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_choices_at_kinks_are_kept_apart():
    def f(x):
        return diffc.map(lambda x: diffc.grad(np.abs)(x), np.array([x]))

    chosen = diffc.kinks(abs=1.0)(f)
    assert [f(0.0), chosen(0.0), f(0.0), chosen(0.0)] == [0.0, 1.0, 0.0, 1.0]
