"""Optimizers against numbers of the lectures and against the formulas written out by hand."""

import math

import numpy as np
import pytest

import diffc
from diffc import optim, tree
from diffc.errors import DtypeError, UsageError

ALL = {
    "sgd": optim.sgd(0.1),
    "momentum": optim.momentum(0.1, 0.9),
    "average": optim.momentum(0.1, 0.9, convention="average"),
    "velocity": optim.momentum(0.1, 0.9, convention="velocity"),
    "nesterov": optim.momentum(0.1, 0.9, nesterov=True),
    "nesterov-velocity": optim.momentum(0.1, 0.9, convention="velocity", nesterov=True),
    "adam": optim.adam(0.1),
    "adamw": optim.adamw(0.1, weight_decay=0.5),
}

# f = x²/2 from x = 1, three steps: the lectures' numbers, recomputed in f64
CURVES = {
    "sgd": (0.9, 0.81, 0.729),
    "momentum": (0.9, 0.72, 0.486),
    "velocity": (0.9, 0.72, 0.486),
    "average": (0.99, 0.9711, 0.944379),
    "nesterov": (0.81, 0.5751, 0.327321),
    "nesterov-velocity": (0.81, 0.5751, 0.327321),
    "adam": (0.9, 0.80041225, 0.70158630),
}


def descend(optimizer, params, gradient, steps):
    state = optimizer.init(params)
    found = []
    for _ in range(steps):
        params, state = optimizer.update(gradient(params), state, params)
        found.append(params)
    return found


@pytest.mark.parametrize("name", CURVES)
def test_curves_of_the_lectures(name):
    xs = descend(ALL[name], np.array(1.0), lambda x: x, 3)
    assert np.allclose(xs, CURVES[name], rtol=0, atol=6e-8)


def test_adam_is_its_formula():
    rng = np.random.default_rng(0)
    lr, b1, b2, eps = 0.01, 0.8, 0.95, 1e-4
    p = rng.standard_normal(5)
    optimizer = optim.adam(lr, b1, b2, eps)
    state = optimizer.init(p)
    q, m, v = p, np.zeros(5), np.zeros(5)
    for t in range(1, 6):
        g = rng.standard_normal(5)
        p, state = optimizer.update(g, state, p)
        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * g**2
        q = q - lr * (m / (1 - b1**t)) / (np.sqrt(v / (1 - b2**t)) + eps)
        assert np.allclose(p, q, rtol=1e-13, atol=0)
    assert state["step"] == 5


def test_eps_stands_outside_the_root():
    p, g = np.array([0.0]), np.array([1e-6])
    moved, _ = optim.adam(1.0, eps=1e-6).update(g, optim.adam().init(p), p)
    assert np.isclose(-moved[0], 1e-6 / (1e-6 + 1e-6), rtol=1e-9)


def test_first_correction_does_not_cancel():
    """In f32, 1 - 0.999 is off by 5e-5; the first step must be lr to within rounding."""
    p, g = np.zeros(1, np.float32), np.full(1, 3.0, np.float32)
    moved, _ = optim.adam(1.0, eps=0.0).update(g, optim.adam().init(p), p)
    assert abs(float(moved[0]) + 1.0) < 4e-7


def test_decay_is_decoupled():
    """Decay differs from a squared penalty under Adam, and is the same under sgd."""
    p, g = np.array([2.0, -3.0]), np.array([0.1, 0.2])
    state = optim.adam().init(p)
    plain, _ = optim.adam(0.1).update(g, state, p)
    decayed, _ = optim.adamw(0.1, weight_decay=0.5).update(g, state, p)
    penalized, _ = optim.adam(0.1).update(g + 0.5 * p, state, p)
    assert np.allclose(decayed, plain - 0.1 * 0.5 * p, rtol=1e-14)
    assert np.max(np.abs(decayed - penalized)) > 0.05


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_structure_and_dtype_stay(name, dtype):
    params = {
        "w": np.ones((2, 3), dtype),
        "b": [np.zeros(3, dtype), np.array(1.0, dtype)],
        "n": None,
    }
    optimizer = ALL[name]
    before = optimizer.init(params)
    after, state = optimizer.update(params, before, params)
    assert tree.structure(after) is tree.structure(params)
    assert tree.structure(state) is tree.structure(before)
    assert {leaf.dtype for leaf in tree.leaves(after)} == {np.dtype(dtype)}
    dtypes = [np.asarray(leaf).dtype for leaf in tree.leaves(state)]
    assert dtypes == [np.asarray(leaf).dtype for leaf in tree.leaves(before)]


@pytest.mark.parametrize("name", ALL)
def test_nothing_is_changed_in_place(name):
    params, grads = {"w": np.ones(3)}, {"w": np.full(3, 2.0)}
    state = ALL[name].init(params)
    saved = [leaf.copy() for leaf in tree.leaves((params, grads, state))]
    ALL[name].update(grads, state, params)
    assert all(map(np.array_equal, saved, tree.leaves((params, grads, state))))


@pytest.mark.parametrize("name", ALL)
def test_empty_and_huge(name):
    params = {"none": np.zeros((0, 3)), "huge": np.array([1e300, -0.0])}
    with np.errstate(over="ignore"):
        new, _ = ALL[name].update(params, ALL[name].init(params), params)
    assert new["none"].shape == (0, 3)


def test_schedules_see_the_step():
    seen = optim.sgd(lambda step: 1.0 / (1.0 + step))
    xs = descend(seen, np.array(10.0), lambda x: np.ones_like(x), 3)
    assert np.allclose(xs, [9.0, 8.5, 8.5 - 1 / 3])
    heavy = optim.momentum(lambda step: 0.5**step, 0.0)
    assert np.allclose(descend(heavy, np.array(0.0), lambda x: x * 0 - 1, 3), [1.0, 1.5, 1.75])
    adam = optim.adam(lambda step: 0.1 / (step + 1), eps=0.0)
    xs = descend(adam, np.array(0.0, np.float32), lambda x: x * 0 + 1, 2)
    assert np.allclose(xs, [-0.1, -0.15]) and xs[1].dtype == np.float32


def test_errors_name_what_was_found():
    with pytest.raises(DtypeError, match=r"params\['n'\] is of dtype int64"):
        optim.adam().init({"n": np.arange(3)})
    with pytest.raises(UsageError, match=r"b1 is 1\.0"):
        optim.adam(b1=1.0)
    with pytest.raises(UsageError, match="nan"):
        optim.sgd(math.nan)
    with pytest.raises(UsageError, match="no convention"):
        optim.momentum(0.1, convention="heavy")  # a word of no table
    with pytest.raises(UsageError, match="tree 2 differs"):
        optim.sgd(0.1).update({"w": 1.0}, {}, {"b": 1.0})


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_compiled_is_plain(name, dtype):
    """Traced into a jitted step with donation, the update gives what NumPy gives."""
    rng = np.random.default_rng(1)
    optimizer = ALL[name]
    params = {"w": rng.standard_normal((3, 5)).astype(dtype), "b": np.zeros(5, dtype)}
    grads = tree.map(lambda p: rng.standard_normal(p.shape).astype(dtype), params)
    step = diffc.jit(optimizer.update, donate_argnums=(1, 2))
    expected, state = params, optimizer.init(params)
    found, compiled_state = tree.map(np.copy, (params, optimizer.init(params)))
    for _ in range(3):
        expected, state = optimizer.update(grads, state, expected)
        found, compiled_state = step(grads, compiled_state, found)
    eps = np.finfo(dtype).eps
    for a, b in zip(
        tree.leaves((found, compiled_state)), tree.leaves((expected, state)), strict=True
    ):
        assert a.dtype == np.asarray(b).dtype
        assert np.allclose(a, b, rtol=16 * eps, atol=16 * eps)


@pytest.mark.parametrize("name", ALL)
def test_init_within_a_trace(name):
    """A whole training run, init included, may be one jitted function."""
    optimizer, p = ALL[name], np.array([1.0, -2.0])

    def run(p):
        state = optimizer.init(p)
        for _ in range(3):
            p, state = optimizer.update(p, state, p)
        return p

    assert np.allclose(diffc.jit(run)(p), run(p), rtol=1e-14)


# --- random search -----------------------------------------------------------------------------


def test_random_search_keeps_what_is_better():
    key = diffc.random.key(3)
    start = {"a": np.float32(2), "b": np.ones((2, 2), np.float32)}

    def bowl(p):
        return p["a"] ** 2 + np.sum(p["b"] ** 2)

    def search(p):
        return optim.random_search(bowl, p, key, 200, lambda k: 0.5 / (1 + k / 20))

    best, value = diffc.jit(search)(start)
    assert (best["a"].dtype, best["b"].shape, value.dtype) == (np.float32, (2, 2), np.float32)
    np.testing.assert_allclose(value, bowl(best), rtol=1e-6)
    assert value < 0.1
    again, _ = search(start)
    np.testing.assert_array_equal(again["b"], best["b"])
    nothing, value = optim.random_search(bowl, start, key, 0)
    np.testing.assert_array_equal(nothing["b"], start["b"])
    assert value == 8
    assert optim.random_search(lambda p: 1.0, {}, key)[1] == 1.0


@pytest.mark.parametrize(
    ("params", "steps", "kind", "words"),
    [
        (np.ones(2), -1, UsageError, "steps of random_search is -1"),
        (np.ones(2), 2.5, UsageError, "steps of random_search is 2.5"),
        ({"n": np.array([1])}, 3, DtypeError, r"params\['n'\] is of dtype int64"),
    ],
)
def test_random_search_misused(params, steps, kind, words):
    with pytest.raises(kind, match=words):
        optim.random_search(lambda p: 0.0, params, diffc.random.key(0), steps)
