"""Traces within traces: hidden operands, local cells, effects."""

from __future__ import annotations

import numpy as np
import pytest

from diffc.errors import TraceError
from diffc.ir.aval import aval
from diffc.ops.interpret import evaluate
from diffc.trace import Abstract, active, emit, inline, subtrace, trace, trace_flat

X = np.arange(1.0, 4.0)
F64 = aval("f64", (3,))


def call(traced, *operands):
    """Emits the inner graph into the current trace, as a transform would."""
    hidden = [c.tracer for c in traced.captured]
    results = inline(traced.graph, [*operands, *hidden])
    traced.apply_effects(results)
    return results


def values(function, *args):
    traced = trace(function, args)
    arrays = [np.asarray(a) for a in args] + [c.current() for c in traced.captured]
    return traced, evaluate(traced.graph, arrays)


def test_outer_tracers_become_hidden_operands():
    def f(x, y):
        a = x * 2
        inner = subtrace(lambda z: np.sin(z) * a + y + a, [F64])
        assert [c.tracer.aval for c in inner.captured] == [F64, F64]
        assert len(inner.graph.inputs) == 3
        return call(inner, x)[0]

    _, (out,) = values(f, X, X[::-1].copy())
    np.testing.assert_allclose(out, np.sin(X) * 2 * X + X[::-1] + 2 * X)


def test_two_levels_down():
    w = np.array([5.0, 6.0, 7.0])

    def f(x):
        a = x + 1

        def middle(y):
            lowest = subtrace(lambda z: z * a + y * w, [F64])
            assert len(lowest.captured) == 3
            return call(lowest, y * 2)[0]

        inner = subtrace(middle, [F64])
        assert len(inner.captured) == 2
        return call(inner, x)[0]

    traced, (out,) = values(f, X)
    np.testing.assert_allclose(out, 2 * X * (X + 1) + X * w)
    assert traced.captured[0].array is w


def test_literals_stay_literals():
    def f(x):
        zeros = np.zeros(3)
        inner = subtrace(lambda z: z + zeros, [F64])
        assert not inner.captured
        return call(inner, x)[0]

    values(f, X)


def test_writes_to_outer_arrays_are_effects():
    def f(x):
        buffer = np.zeros(3)
        row = buffer[1:]
        seen = []

        def body(z):
            buffer[0] = 5
            row[0] += z[1]
            seen.append(buffer.sum())
            return z * buffer

        inner = subtrace(body, [F64])
        assert len(inner.effects) == 1
        before = buffer + 0
        (result, *_) = call(inner, x)
        return before, buffer, row, result

    _, (before, buffer, row, result) = values(f, X)
    np.testing.assert_array_equal(before, np.zeros(3))
    np.testing.assert_array_equal(buffer, [5, 2, 0])
    np.testing.assert_array_equal(row, [2, 0])
    np.testing.assert_array_equal(result, X * [5, 2, 0])


def test_writes_to_arguments_of_the_outer_function():
    def f(x):
        inner = subtrace(lambda z: x.__setitem__(0, z[2]), [F64])
        call(inner, x)

    traced, (after,) = values(f, X)
    assert traced.written == (0,)
    np.testing.assert_array_equal(after, [3, 2, 3])


def test_captured_arrays_of_an_inner_trace_cannot_be_written():
    w = np.zeros(3)

    def f(x):
        def body(z):
            w[0] = 1
            return z

        return call(subtrace(body, [F64]), x)[0]

    with pytest.raises(TraceError, match="captured array"):
        trace(f, [X])


def test_tracers_of_an_ended_inner_trace_leak():
    kept = []

    def f(x):
        subtrace(lambda z: kept.append(z + 1), [F64])
        return x + kept[0]

    with pytest.raises(TraceError, match="leaked out of the trace of 'body'"):
        trace(f, [X])
    assert not active()


def test_an_error_inside_ends_all_traces():
    def f(x):
        return subtrace(lambda z: z + x[:2], [F64])

    with pytest.raises(ValueError, match="do not broadcast"):
        trace(f, [X])
    assert not active()


def test_emit_gives_tracers():
    def f(x):
        (a,) = emit("sin", x)
        (b,) = emit("reshape", a, shape=(3, 1))
        return b * 1.0

    _, (out,) = values(f, X)
    np.testing.assert_allclose(out, np.sin(X)[:, None])


def test_weak_arguments_stay_weak():
    def f(x, lr, n):
        return x * lr, lr * 2, lr + n, n * n, n < 3, np.exp(lr), x * n, n / 2

    x = X.astype(np.float32)
    traced, outs = values(f, x, 0.5, 3)
    want = f(x, 0.5, 3)
    assert [o.dtype for o in outs] == [np.asarray(w).dtype for w in want]
    assert traced.out_weak == (False, True, True, True, True, False, False, True)


def test_names_and_paths():
    def step(params, *rest, lr):
        return params["w"][0] * lr + rest[0]

    traced = trace(step, [{"w": [X, X]}, X], {"lr": 0.1})
    assert [v.name for v in traced.graph.inputs] == ["params_w_0", "params_w_1", "rest0", "lr"]
    assert traced.graph.name == "step"


def test_keywords_in_any_order():
    def f(*, b, a):
        return a - b

    traced = trace(f, [], {"b": X, "a": 2 * X})
    arrays = [2 * X, X]  # the order of the tree: sorted keys
    np.testing.assert_array_equal(evaluate(traced.graph, arrays)[0], X)
    assert [v.name for v in traced.graph.inputs] == ["a", "b"]


def test_trace_flat():
    traced = trace_flat(lambda a, b: {"s": a + b, "n": 3}, [Abstract(F64), Abstract(F64)])
    assert traced.out_weak == (True, False) and traced.num_results == 2


def test_locations_name_the_users_line():
    def f(x):
        return np.sum(np.exp(x) / 2)

    graph = trace(f, [X]).graph
    assert {eqn.loc.file for eqn in graph.eqns} == {__file__}
    assert {eqn.loc.line for eqn in graph.eqns} == {f.__code__.co_firstlineno + 1}


def test_concrete_values_reach_inner_traces():
    def f(x):
        y = x * 2

        def body(z):
            return z + y if y[0] > 1 else z

        return call(subtrace(body, [F64]), x)[0]

    with pytest.raises(TraceError):
        trace(f, [X])


def test_symbolic_dimensions():
    from diffc.ir.index import Symbol

    n = Symbol("n")
    traced = trace(
        lambda x, w: np.tanh(x @ w + 1).sum(axis=0) / x.shape[0] + x[:, 0].mean(),
        [Abstract(aval("f32", (n, 4))), Abstract(aval("f32", (4, 2)))],
    )
    assert traced.graph.output_avals[0] == aval("f32", (2,))
