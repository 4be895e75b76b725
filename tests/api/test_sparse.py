"""Sparse Jacobians: as the dense ones, in as many passes as there are colours."""

import numpy as np
import pytest

import diffc
from diffc.sparse import color, color_symmetric

X = np.linspace(0.3, 2.0, 12)
PLACES = np.array([3, 1, 1])


def stencil(u):
    around = np.roll(u, 1, 0) + np.roll(u, -1, 0) + np.roll(u, 1, 1) + np.roll(u, -1, 1)
    return (around - 4 * u) * u


def scattered(x):
    y = np.zeros(6)
    np.add.at(y, PLACES, x[:3])
    return y * x[6:]


def written(x):
    y = x.copy()
    y[2:4] = x[0] * x[1]
    y[PLACES] = x[5:8]
    return y


def looped(x):
    return diffc.scan(lambda c, v: (c * 0.5, c + v * v), x[0], x)[1]


def carried(x):
    return diffc.scan(lambda c, v: (c + v, c), x[0], x)[1]


def endless(x):
    return diffc.while_loop(lambda c: c[0] < 100, lambda c: np.concatenate([c[:1] * 2, c[:-1]]), x)


# function, argument, passes, entries
CASES = {
    "elementwise": (np.sin, X, 1, 12),
    "tridiagonal": (lambda x: x[:-2] * x[1:-1] ** 2 + np.sin(x[2:]), X, 3, 30),
    "arrow with a column": (lambda x: x**2 * x[0], X, 2, 23),
    "arrow with a row": (lambda x: np.concatenate([[np.sum(x)], x[1:] ** 2]), X, 2, 23),
    "dense": (lambda x: x**2 + np.sum(x), X, 12, 144),
    "one row": (lambda x: np.array([np.sum(x * x)]), X, 1, 12),
    "constant indices": (lambda x: np.sin(x)[PLACES] * x[:3], X, 2, 5),
    "unknown indices": (lambda x: x[np.argmax(x)] * x[:2], X, 2, 24),
    "convolution": (lambda x: np.convolve(x, np.array([1.0, 2, 1]), "same"), X, 3, 34),
    "stencil": (stencil, np.arange(1.0, 26).reshape(5, 5), None, 125),
    "matrix product": (lambda x: np.reshape(x, (3, 4)) @ np.arange(8.0).reshape(4, 2), X, 2, 24),
    "transposed": (lambda x: np.reshape(x, (3, 4)).T[::-1] ** 2, X, 1, 12),
    "cumulative": (lambda x: np.cumsum(np.reshape(x, (3, 4)), 0), X, 3, 36),
    "scattered": (scattered, X, 1, 9),
    "written": (written, X, None, None),
    "chosen": (lambda x: np.where(x > 1, x[::-1], x * x), X, 2, 24),
    "scan": (looped, X, 2, 23),
    "carried": (carried, X, 11, None),
    "while": (endless, X, None, None),
    "cond": (lambda x: diffc.cond(x[0] > 0, np.sin, lambda x: np.roll(x, 1), x), X, 2, 24),
    "call": (lambda x: diffc.checkpoint(lambda y: y[1:] * y[:-1])(x), X, 2, 22),
    "sorted": (lambda x: np.sort(np.reshape(x, (6, 2)), 1), X, 2, 24),
    "a constant": (lambda x: np.ones(3), X, 0, 0),
    "no elements": (lambda x: x * 2, np.zeros(0), 0, 0),
    "a scalar": (lambda x: np.array([x, 2 * x]), 3.0, 1, 2),
}


def dense(f, x):
    found = np.asarray(diffc.jacfwd(f)(x))
    return found.reshape(-1, np.size(x)) if np.size(x) else np.zeros((0, 0))


@pytest.mark.parametrize("name", CASES)
def test_jacobians(name):
    f, x, passes, entries = CASES[name]
    by = diffc.sparse_jacobian(f)
    found, expected = by(x), dense(f, x)
    assert found.shape == expected.shape
    np.testing.assert_allclose(found.dense(), expected, rtol=1e-12, atol=1e-14)
    assert passes in (None, found.passes)
    assert entries in (None, len(found.data))
    assert f"in {found.passes} passes" in by.explain(x)
    for mode in ("forward", "reverse"):
        other = diffc.sparse_jacobian(f, mode=mode)(x)
        assert other.passes >= found.passes
        np.testing.assert_allclose(other.dense(), expected, rtol=1e-12, atol=1e-14)


def test_entries_are_sorted_and_unique():
    found = diffc.sparse_jacobian(stencil)(np.ones((5, 5)))
    places = found.rows * 25 + found.columns
    assert (np.diff(places) > 0).all()


def rosenbrock(x):
    return np.sum(100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2)


HESSIANS = {
    "rosenbrock": (rosenbrock, X, 3, 34),
    "separable": (lambda x: np.sum(np.exp(x)), X, 1, 12),
    "arrow": (lambda x: x[0] * np.sum(x[1:] ** 2), X, 2, None),
    "linear": (lambda x: np.sum(3 * x), X, 0, 0),
    "pairs": (lambda x: np.sum(x[1:] * x[:-1]), X, None, 22),
    "log of a sum": (lambda x: np.log(np.sum(np.exp(x))), X, 12, 144),
}


@pytest.mark.filterwarnings("ignore::diffc.StructuralZeroWarning")
@pytest.mark.parametrize("name", HESSIANS)
def test_hessians(name):
    f, x, passes, entries = HESSIANS[name]
    found = diffc.sparse_hessian(f)(x)
    np.testing.assert_allclose(found.dense(), diffc.hessian(f)(x), rtol=1e-11, atol=1e-12)
    assert passes in (None, found.passes)
    assert entries in (None, len(found.data))


def test_other_arguments_and_shapes():
    by = diffc.sparse_jacobian(lambda a, x: a * x[1:] * x[:-1], argnum=1)
    for n in (3, 6):
        np.testing.assert_allclose(by(2.0, np.ones(n)).dense().sum(1), np.full(n - 1, 4.0))
    single = by(np.float32(2), np.ones(3, np.float32))
    assert single.data.dtype == np.float32


def test_indices_that_change_outside_are_read_anew():
    places = np.array([0, 1])
    by = diffc.sparse_jacobian(lambda x: x[places] ** 2)
    assert by(X).columns.tolist() == [0, 1]
    places[:] = [5, 5]
    found = by(X)
    assert found.columns.tolist() == [5, 5]
    np.testing.assert_allclose(found.data, 2 * X[5])


def test_large_ones_stay_small():
    n = 100_000
    found = diffc.sparse_jacobian(lambda x: x[2:] - 2 * x[1:-1] * x[1:-1] + x[:-2])(np.ones(n))
    assert (found.passes, len(found.data)) == (3, 3 * (n - 2))
    assert found.data.reshape(-1, 3)[7].tolist() == [1, -4, 1]


def test_stars():
    """Random symmetric patterns: each entry, or its mirror image, is alone of its colour."""
    rng = np.random.default_rng(0)
    for n in (1, 2, 5, 20, 40):
        matrix = rng.random((n, n)) < 2 / n
        matrix |= matrix.T
        rows, columns = np.nonzero(matrix)
        colors = color_symmetric(rows, columns, n)
        counts = np.zeros((n, n + 1), int)
        np.add.at(counts, (rows, colors[columns]), 1)
        alone = counts[rows, colors[columns]] == 1
        assert (alone | (counts[columns, colors[rows]] == 1)).all()


def test_colors():
    items, groups = np.array([0, 1, 1, 2, 4]), np.array([0, 0, 1, 1, 5])
    colors = color(items, groups, 5, 6)
    assert colors[0] == colors[2] != colors[1]
    assert colors[3] == -1 and colors[4] == 0


@pytest.mark.parametrize(
    ("run", "kind", "words"),
    [
        (lambda: diffc.sparse_jacobian(np.sin)(np.ones(2, int)), diffc.DtypeError, "floats"),
        (lambda: diffc.sparse_jacobian(lambda x: (x, x))(X), diffc.UsageError, "one float array"),
        (lambda: diffc.sparse_jacobian(np.sin, 1)(X), diffc.UsageError, "argnum is 1"),
        (lambda: diffc.sparse_jacobian(np.sin, mode="both"), diffc.UsageError, "forward, reverse"),
        (
            lambda: diffc.jit(lambda x: diffc.sparse_jacobian(np.sin)(x).data)(X),
            diffc.UsageError,
            "within a trace",
        ),
    ],
)
def test_misuse(run, kind, words):
    with pytest.raises(kind, match=words):
        run()
