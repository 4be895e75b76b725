"""Traces whose tracers know their values."""

from __future__ import annotations

import numpy as np
import pytest

from diffc.errors import TraceError
from diffc.ir.keys import structural_key
from diffc.ops.interpret import evaluate
from diffc.trace import Abstract, ValueNeeded, abstract, emit, trace, trace_flat


def concretely(function, *args):
    traced = trace(function, args, concrete=True)
    arrays = [np.asarray(arg) for arg in args] + [c.current() for c in traced.captured]
    (result,) = evaluate(traced.graph, arrays)
    return result, traced.graph


def test_a_branch_follows_the_value():
    def f(x):
        return x * 2 if x > 0 else -x

    assert concretely(f, 3.0)[0] == 6.0
    assert concretely(f, -3.0)[0] == 3.0
    assert concretely(f, float("nan"))[1].eqns[0].op.name == "neg"


def test_a_path_that_asks_nothing_more_has_the_same_key():
    def f(x):
        while x < 10.0:
            x = x * x
        return x

    keys = [structural_key(concretely(f, x)[1]) for x in (2.0, 3.0, 5.0, 11.0)]
    assert keys[0] == keys[1] != keys[2] != keys[3]


def test_keys_see_literals_params_and_regions():
    def key(function, *args):
        return structural_key(trace(function, args).graph)

    x = np.ones(4)
    assert key(lambda x: x * 2.0, x) == key(lambda y: y * 2.0, x)
    assert key(lambda x: x * 2.0, x) != key(lambda x: x * 3.0, x)
    assert key(lambda x: x * 0.0, x) != key(lambda x: x * -0.0, x)
    assert key(lambda x: x[1:], x) != key(lambda x: x[:-1], x)
    assert key(lambda x: x * 2.0, x) != key(lambda x: x * 2.0, x.astype("f4"))
    assert key(lambda x, y: x - y, x, x) != key(lambda x, y: y - x, x, x)

    def called(factor):
        inner = trace(lambda x: x * factor, (x,)).graph
        return lambda x: emit("call", x, regions=(inner,))[0]

    assert key(called(2.0), x) == key(called(2.0), x)
    assert key(called(2.0), x) != key(called(3.0), x)


def test_every_question_has_an_answer():
    def f(x, n, a):
        assert float(x) == 2.5 and int(x) == 2 and bool(x)
        assert [10, 20, 30][n] == 20
        assert len(range(n)) == 1
        assert a.tolist() == [1.0, 2.0] and a[1].item() == 2.0
        assert f"{x:.2f}" == "2.50"
        assert np.zeros(n + 1).shape == (2,)
        assert 2.0 in a
        np.testing.assert_array_equal(np.asarray(a.__array__()), [1.0, 2.0])
        return a[:n].sum() * x

    assert concretely(f, 2.5, 1, np.array([1.0, 2.0]))[0] == 2.5


def test_a_long_loop_computes_each_value_once():
    calls = []

    def f(x):
        for _ in range(3000):
            if x > 1e9:
                calls.append(1)
            x = x + 1.0
        return x

    assert concretely(f, 0.0)[0] == 3000.0
    assert not calls


def test_captured_arrays_have_values():
    table = np.array([1.0, -1.0])

    def f(x):
        return x if table[0] > table[1] else -x

    assert concretely(f, 5.0)[0] == 5.0
    table[:] = -table
    assert concretely(f, 5.0)[0] == -5.0


def test_writes_are_seen():
    def f(x):
        x[0] = x[1] * 3
        y = x[::-1]
        y[0] = 7.0
        assert x[1] == 7.0
        return x if x[0] == 6.0 else x * 0

    given = np.array([1.0, 2.0])
    traced = trace(f, (given,), concrete=True)
    result, written = evaluate(traced.graph, [given])
    np.testing.assert_array_equal(result, [6.0, 7.0])
    np.testing.assert_array_equal(written, [6.0, 7.0])
    np.testing.assert_array_equal(given, [1.0, 2.0])


def test_an_inner_trace_knows_what_the_outer_one_knows():
    def f(x):
        y = x * 2

        def inner(z):
            return z if z > y else y

        traced = trace_flat(inner, [abstract(y + 1, concrete=True)], origin=inner)
        assert len(traced.graph.eqns) == 0
        return y

    assert concretely(f, 1.5)[0] == 3.0


def test_an_inner_trace_without_values_stays_abstract():
    def f(x):
        leaf = Abstract(x.aval)
        with pytest.raises(ValueNeeded):
            trace_flat(lambda z: z if z > 0 else -z, [leaf])
        return x

    concretely(f, 1.5)


def test_a_leaked_tracer_has_no_value_any_more():
    kept = []

    def f(x):
        kept.append(x * 2)
        return x

    concretely(f, 1.0)
    with pytest.raises(TraceError, match="leaked"):
        float(kept[0])


def test_regions_are_interpreted():
    def f(x):
        inner = trace(lambda x: (x * 2, x + 1), (1.0,)).graph
        a, b = emit("call", x, regions=(inner,))
        return a if b > 3 else b

    assert concretely(f, 5.0)[0] == 10.0
    assert concretely(f, 1.0)[0] == 2.0


@pytest.mark.parametrize("shape", [(0,), (1,), (3,)])
def test_sizes(shape):
    def f(x):
        total = 0.0
        for e in x:
            if e >= 0:
                total = total + e
        return total + x.sum() * 0

    assert concretely(f, np.arange(float(shape[0])))[0] == np.arange(float(shape[0])).sum()


def test_floats_given_away_are_noted():
    def f(x, y):
        return x * float(y * 2) + int(y)

    traced = trace(f, (1.0, 2.0), concrete=True)
    assert [d.wanted for d in traced.detached] == ["a Python float (float(), math.*)"]
    assert traced.detached[0].location.file == __file__
