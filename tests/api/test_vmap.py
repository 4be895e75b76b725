"""``vmap`` as users call it: axes, trees, nesting with everything else, errors."""

from dataclasses import dataclass

import numpy as np
import pytest

import diffc
from diffc.errors import ShapeError, TraceError, UsageError

X = np.random.default_rng(0).standard_normal((3, 4))
W = np.random.default_rng(1).standard_normal((4, 2))


def close(found, expected):
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("in_axes", [0, (0,), [0], -2, (-2,)])
def test_the_first_axis(in_axes):
    found = diffc.vmap(lambda row: np.tanh(row @ W), in_axes)(X)
    assert isinstance(found, np.ndarray) and found.dtype == np.float64
    close(found, np.stack([np.tanh(row @ W) for row in X]))


@pytest.mark.parametrize("axis", [0, 1, 2, -1, -2, -3])
@pytest.mark.parametrize("out", [0, 1, 2, -1, -3])
def test_axes_in_and_out(axis, out):
    x = np.arange(24.0).reshape(2, 3, 4)
    found = diffc.vmap(lambda a: a.T * 2, axis, out)(x)
    parts = [np.take(x, i, axis).T * 2 for i in range(x.shape[axis])]
    np.testing.assert_array_equal(found, np.stack(parts, out))


def test_what_is_not_mapped():
    close(diffc.vmap(lambda x, w: x @ w, (0, None))(X, W), X @ W)
    close(diffc.vmap(lambda x, w: x @ w, (None, 1), 1)(X, W), X @ W)
    close(diffc.vmap(lambda x, *, w: x * w)(X, w=X), X * X)
    close(diffc.vmap(lambda x, k: x * k, (0, None))(X, 3), X * 3)


def test_trees_and_prefixes():
    params = {"w": W, "b": [np.ones(2), 2.0]}

    def f(p, x):
        return {"y": x @ p["w"] + p["b"][0] * p["b"][1], "n": (x, p["b"][0])}

    found = diffc.vmap(f, (None, 0), {"y": 0, "n": (1, None)})(params, X)
    close(found["y"], X @ W + 2)
    close(found["n"][0], X.T)
    close(found["n"][1], np.ones(2))
    stacked = {"w": np.stack([W, 2 * W]), "b": [np.ones(2), 2.0]}
    found = diffc.vmap(lambda p, x: f(p, x)["y"], ({"w": 0, "b": None}, None))(stacked, X[0])
    close(found, np.stack([X[0] @ W + 2, 2 * X[0] @ W + 2]))


@dataclass
class Pair:
    left: np.ndarray
    right: np.ndarray


def test_dataclasses():
    found = diffc.vmap(lambda p: Pair(p.left + p.right, p.left))(Pair(X, X))
    close(found.left, 2 * X)


def test_results_that_are_the_same_for_all():
    assert diffc.vmap(lambda x: 5.0)(X).tolist() == [5.0] * 3
    assert diffc.vmap(lambda x: 5.0, out_axes=None)(X).shape == ()
    assert diffc.vmap(lambda x: ())(X) == ()


@pytest.mark.parametrize("size", [0, 1])
def test_small_batches(size):
    found = diffc.vmap(lambda x: (np.sum(x), x + 1))(np.ones((size, 3)))
    assert found[0].shape == (size,) and found[1].shape == (size, 3)


def test_nested():
    outer = diffc.vmap(diffc.vmap(lambda a, b: a * b + 1, (None, 0)), (0, None))
    close(outer(X[:, 0], X[0]), np.outer(X[:, 0], X[0]) + 1)
    pairs = diffc.vmap(diffc.vmap(lambda a, b: np.sum((a - b) ** 2), (None, 0)), (0, None))
    close(pairs(X, X), ((X[:, None] - X[None]) ** 2).sum(-1))


def loss(w, x):
    return np.sum(np.tanh(x @ w) ** 2)


def test_gradients_per_example():
    found = diffc.vmap(diffc.grad(loss), (None, 0))(W, X)
    close(found, np.stack([diffc.grad(loss)(W, x) for x in X]))
    value, found = diffc.vmap(diffc.value_and_grad(loss), (None, 0))(W, X)
    close(value, [loss(W, x) for x in X])


def test_the_gradient_of_a_batch():
    total = diffc.grad(lambda w: np.sum(diffc.vmap(loss, (None, 0))(w, X)))
    close(total(W), sum(diffc.grad(loss)(W, x) for x in X))


def test_second_derivatives():
    f = diffc.vmap(diffc.grad(diffc.grad(lambda x: x**4)))
    close(f(np.arange(3.0)), 12 * np.arange(3.0) ** 2)
    g = diffc.grad(lambda x: np.sum(diffc.vmap(diffc.grad(lambda y: y**4))(x)))
    close(g(np.arange(3.0)), 12 * np.arange(3.0) ** 2)


def test_jit_inside_and_outside():
    row = diffc.jit(lambda x: np.sort(x)[::-1])
    expected = np.sort(X, axis=1)[:, ::-1]
    np.testing.assert_array_equal(diffc.jit(diffc.vmap(row))(X), expected)
    np.testing.assert_array_equal(diffc.vmap(row)(X), expected)
    np.testing.assert_array_equal(row(X[0]), expected[0])


def test_jvp_and_vjp():
    out, dot = diffc.jvp(diffc.vmap(np.sin), (X,), (np.ones_like(X),))
    close(out, np.sin(X))
    close(dot, np.cos(X))
    _, dots = diffc.vmap(lambda x: diffc.jvp(np.sin, (x,), (np.ones(4),)))(X)
    close(dots, np.cos(X))
    _, pull = diffc.vjp(diffc.vmap(np.sin), X)
    close(pull(np.ones_like(X))[0], np.cos(X))


@pytest.mark.parametrize("reverse", [False, True])
def test_scans(reverse):
    def run(start, xs):
        return diffc.scan(lambda c, x: (np.tanh(c + x), c * x), start, xs, reverse=reverse)

    starts, xs = X[:, :2], np.random.default_rng(2).standard_normal((3, 5, 2))
    for in_axes, given in (
        ((0, 0), (starts, xs)),
        ((None, 0), (starts[0], xs)),
        ((0, None), (starts, xs[0])),
    ):
        carry, ys = diffc.vmap(run, in_axes)(*given)
        for i in range(3):
            one = [a if axis is None else a[i] for a, axis in zip(given, in_axes, strict=True)]
            end, stacked = run(*one)
            close(carry[i], end)
            close(ys[i], stacked)


def test_indexing_with_data():
    table = np.arange(12.0).reshape(3, 4)
    rows, columns = np.array([0, 2, 1, 2]), np.array([3, 0, 1, -1])

    def put(i, j):
        a = np.zeros((3, 4))
        a[i, j] = 1.0
        a[i] += 2.0
        return a + table[i, j]

    found = diffc.vmap(put)(rows, columns)
    np.testing.assert_array_equal(found, [put(i, j) for i, j in zip(rows, columns, strict=True)])
    both = diffc.vmap(lambda t, i: t[i])(table, np.array([3, 1, -4]))
    np.testing.assert_array_equal(both, [3.0, 5.0, 8.0])


def test_random_keys():
    keys = np.arange(8, dtype=np.uint32).reshape(4, 2)
    found = diffc.vmap(lambda key: diffc.random.normal(key, (3,)))(keys)
    one = diffc.jit(lambda key: diffc.random.normal(key, (3,)))
    close(found, np.stack([one(key) for key in keys]))


def test_captured_arrays_are_read_at_each_call():
    scale = np.ones(4)
    f = diffc.vmap(lambda x: x * scale)
    close(f(X), X)
    scale *= 3
    close(f(X), 3 * X)


def test_writes_to_arguments_stay_inside():
    def f(x):
        x[0] = 0.0
        return x

    before = X.copy()
    expected = X.copy()
    expected[:, 0] = 0
    np.testing.assert_array_equal(diffc.vmap(f)(X), expected)
    np.testing.assert_array_equal(X, before)


def test_it_has_stages_and_no_loop():
    mapped = diffc.vmap(lambda x, w: x @ w, (0, None))
    assert "scan" not in mapped.stages(X, W, until="optimize").stage("optimize").text
    close(mapped.compile(X, W)(X, W), X @ W)
    assert "vmap" in repr(mapped)


# --- errors -----------------------------------------------------------------------------------


def message(call, kind):
    with pytest.raises(kind) as caught:
        call()
    text = str(caught.value)
    assert "test_vmap.py" in text
    return text


def test_lengths_that_differ_are_named():
    text = message(lambda: diffc.vmap(lambda p: p["a"])({"a": X, "b": [W]}), ShapeError)
    assert "p['a'] has 3 on axis 0 and p['b'][0] has 4 on axis 0" in text


def test_nothing_to_map():
    text = message(lambda: diffc.vmap(np.sin, None)(X), UsageError)
    assert "nothing to map" in text


def test_scalars_have_no_axis():
    text = message(lambda: diffc.vmap(lambda x, k: x * k)(X, 2.0), ShapeError)
    assert "k is a scalar" in text and "in_axes=None" in text


def test_axes_that_are_not_there():
    text = message(lambda: diffc.vmap(np.sin, 2)(X), ShapeError)
    assert "axis 2" in text and "2 axes" in text
    text = message(lambda: diffc.vmap(lambda x: x, 0, 2)(X), ShapeError)
    assert "out_axes names axis 2 of result" in text


def test_axes_of_another_structure():
    text = message(lambda: diffc.vmap(lambda a, b: a, (0,))(X, X), UsageError)
    assert "1 entries for 2" in text
    text = message(lambda: diffc.vmap(lambda p: p["a"], ({"b": 0},))({"a": X}), UsageError)
    assert "in_axes is not a prefix at args[0]" in text
    text = message(lambda: diffc.vmap(lambda p: p, ("x",))(X), UsageError)
    assert "needs an int or None" in text


def test_a_result_that_differs_needs_an_axis():
    text = message(lambda: diffc.vmap(lambda x: (x, 1.0), 0, (None, None))(X), UsageError)
    assert "out_axes is None for result[0]" in text


def test_writes_to_arrays_from_outside_are_refused():
    log = np.zeros(4)

    def f(x):
        log[:] = x
        return x

    with pytest.raises((TraceError, UsageError)):
        diffc.vmap(f)(X)


def test_it_takes_a_function():
    text = message(lambda: diffc.vmap(3), UsageError)
    assert "vmap takes a function" in text


def test_elements_have_no_values_to_branch_on():
    with pytest.raises(TraceError):
        diffc.vmap(lambda x: x if x > 0 else -x)(X[:, 0])


def test_a_given_axis_size():
    made = diffc.vmap(lambda: np.arange(2.0), axis_size=3)()
    np.testing.assert_array_equal(made, np.tile(np.arange(2.0), (3, 1)))
    same = diffc.vmap(lambda x: 2 * x, in_axes=None, axis_size=2)(np.arange(3.0))
    np.testing.assert_array_equal(same, np.tile(2 * np.arange(3.0), (2, 1)))
    with pytest.raises(ShapeError, match="axis_size is 4 and x has 3 on axis 0"):
        diffc.vmap(lambda x: x, axis_size=4)(np.arange(3.0))
