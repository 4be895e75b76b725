"""Small systems number by number: the bits of the loops over columns, and NumPy's values."""

import numpy as np
import pytest

import diffc
from diffc.linear import elimination

SIZES = range(1, elimination.SMALL + 1)


def both(monkeypatch, f, *args):
    """Results of small matrices with and without loops."""
    found = []
    for small in (elimination.SMALL, 0):
        monkeypatch.setattr(elimination, "SMALL", small)
        found.append(diffc.jit(lambda *given: f(*given))(*args))
    return found


def systems(n, stack, dtype, seed=0):
    rng = np.random.default_rng(seed)
    a = rng.standard_normal((*stack, n, n)).astype(dtype)
    b = rng.standard_normal((*stack, n, 2)).astype(dtype)
    return a, b


def pullback(a, b, ct):
    x, back = diffc.vjp(np.linalg.solve, a, b)
    return x, *back(ct)


@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize("stack", [(), (1,), (3, 7), (40,), (0,)])
@pytest.mark.parametrize("n", SIZES)
def test_solutions_and_pullbacks_have_the_bits_of_loops(n, stack, dtype, monkeypatch):
    a, b = systems(n, stack, dtype)
    ct = systems(n, stack, dtype, seed=1)[1]
    small, looped = both(monkeypatch, pullback, a, b, ct)
    for got, want in zip(small, looped, strict=True):
        assert got.dtype == want.dtype
        np.testing.assert_array_equal(got, want)
    bound = 1e-3 if dtype == "f4" else 1e-9
    np.testing.assert_allclose(small[0], np.linalg.solve(a, b), rtol=bound, atol=bound)


@pytest.mark.parametrize("n", SIZES)
def test_rows_change_places(n, monkeypatch):
    """Every permutation of rows, also with equal pivots and zeros on the diagonal."""
    rng = np.random.default_rng(n)
    rows = np.stack([rng.permutation(n) for _ in range(60)])
    signs = rng.choice([-2.0, 2.0], (60, n, 1))
    a = np.eye(n)[rows] * signs
    b = rng.standard_normal((60, n, 1))
    small, looped = both(monkeypatch, np.linalg.solve, a, b)
    np.testing.assert_array_equal(small, looped)
    np.testing.assert_array_equal(small, np.linalg.solve(a, b))
    for f in (np.linalg.det, lambda a: np.linalg.slogdet(a).sign):
        small, looped = both(monkeypatch, f, a)
        np.testing.assert_array_equal(small, looped)
        np.testing.assert_allclose(small, f(a), rtol=1e-14)


def test_singular_matrices_are_not_finite():
    a, b = systems(4, (5,), "f8")
    a[1, 2] = a[1, 0]
    a[3] = 0
    with np.errstate(all="ignore"):
        x = diffc.jit(np.linalg.solve)(a, b)
    assert not np.isfinite(x[3]).any()
    np.testing.assert_allclose(x[[0, 2, 4]], np.linalg.solve(a[[0, 2, 4]], b[[0, 2, 4]]))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite_stays_in_its_system(value):
    a, b = systems(5, (33,), "f4")
    a[7, 2, 3] = value
    with np.errstate(all="ignore"):
        x, a_ct, b_ct = diffc.jit(pullback)(a, b, b)
    others = np.arange(33) != 7
    for found in (x, a_ct, b_ct):
        assert np.isfinite(found[others]).all()
    assert not np.isfinite(x[7]).all() or value == np.inf


def test_many_columns_are_solved_by_rows(monkeypatch):
    a, _ = systems(4, (3,), "f8")
    b = np.random.default_rng(2).standard_normal((3, 4, 50))
    small, looped = both(monkeypatch, np.linalg.solve, a, b)
    np.testing.assert_array_equal(small, looped)
