"""np.linalg on traced arrays: values against NumPy, derivatives against differences."""

import numpy as np
import pytest

import diffc

RNG = np.random.default_rng(0)
A = RNG.normal(size=(3, 3)) + 2 * np.eye(3)
MANY = RNG.normal(size=(2, 5, 5))
SPD = MANY @ MANY.swapaxes(-1, -2) + np.eye(5)
B = RNG.normal(size=(2, 5, 3))
ONE = np.array([[-2.0]])

CASES = {
    "solve": (np.linalg.solve, (MANY, B)),
    "solve of a vector": (np.linalg.solve, (A, np.arange(3.0))),
    "solve of stacks of one matrix": (np.linalg.solve, (A, RNG.normal(size=(4, 3, 2)))),
    "solve with pivots": (np.linalg.solve, (np.array([[0.0, 1.0], [2.0, 1.0]]), np.ones(2))),
    "solve of one": (np.linalg.solve, (ONE, np.ones(1))),
    "inv": (np.linalg.inv, (MANY,)),
    "det": (np.linalg.det, (MANY,)),
    "det of one": (np.linalg.det, (ONE,)),
    "slogdet": (lambda a: np.linalg.slogdet(a)[1], (MANY,)),
    "cholesky": (np.linalg.cholesky, (SPD,)),
    "upper cholesky": (lambda a: np.linalg.cholesky(a, upper=True), (SPD[0],)),
    "inverse power": (lambda a: np.linalg.matrix_power(a, -2), (A,)),
}


def differences(f, args, dots, step=1e-6):
    above = f(*(a + step * d for a, d in zip(args, dots, strict=True)))
    below = f(*(a - step * d for a, d in zip(args, dots, strict=True)))
    return (above - below) / (2 * step)


@pytest.mark.parametrize("name", CASES)
def test_values_and_derivatives(name):
    f, args = CASES[name]
    found, expected = diffc.jit(f)(*args), f(*args)
    np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-12)
    dots = tuple(np.random.default_rng(1).normal(size=a.shape) for a in args)
    if "cholesky" in name:
        dots = tuple(d + d.swapaxes(-1, -2) for d in dots)
    weights = np.random.default_rng(2).normal(size=expected.shape)
    total = lambda *args: np.sum(weights * f(*args))  # noqa: E731
    slope = differences(total, args, dots)
    forward = diffc.jvp(total, args, dots)[1]
    np.testing.assert_allclose(forward, slope, rtol=1e-5, atol=1e-7)
    gradient = diffc.grad(total, tuple(range(len(args))))(*args)
    backward = sum(np.sum(g * d) for g, d in zip(gradient, dots, strict=True))
    np.testing.assert_allclose(backward, forward, rtol=1e-9)


@pytest.mark.parametrize("name", ["solve", "det", "slogdet", "cholesky"])
def test_single_precision_and_batches(name):
    f, args = CASES[name]
    small = [a.astype(np.float32) for a in args]
    found = diffc.jit(f)(*small)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, f(*args), rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(diffc.vmap(f)(*args), f(*args), rtol=1e-10, atol=1e-12)


def test_known_formulas():
    by_a = diffc.grad(lambda a: np.linalg.slogdet(a)[1])(A)
    np.testing.assert_allclose(by_a, np.linalg.inv(A).T, rtol=1e-10)
    second = diffc.hessian(np.linalg.det)(np.eye(2)).reshape(4, 4)
    np.testing.assert_allclose(second, np.fliplr(np.diag([1.0, -1, -1, 1])), atol=1e-12)
    found = diffc.jit(np.linalg.slogdet)(A)
    assert (found.sign, found.logabsdet) == (found[0], found[1])


def test_signs_of_permutations():
    for order in ([1, 0, 2], [1, 2, 0], [2, 1, 0], [0, 1, 2]):
        matrix = np.eye(3)[order]
        assert diffc.jit(np.linalg.det)(matrix) == np.linalg.det(matrix)


def test_integers_become_floats():
    found = diffc.jit(np.linalg.solve)(np.array([[2, 0], [1, 1]]), np.array([2, 3]))
    np.testing.assert_allclose(found, [1, 2])


def test_no_rows():
    empty = np.zeros((0, 0))
    assert diffc.jit(np.linalg.det)(empty) == 1
    assert diffc.jit(np.linalg.inv)(empty).shape == (0, 0)
    assert diffc.jit(np.linalg.cholesky)(empty).shape == (0, 0)
    assert diffc.jit(np.linalg.solve)(empty, np.zeros((0, 2))).shape == (0, 2)


def test_singular_matrices_are_not_finite():
    assert not np.isfinite(diffc.jit(np.linalg.inv)(np.zeros((2, 2)))).any()
    assert diffc.jit(np.linalg.det)(np.ones((2, 2))) == 0
    assert np.isnan(diffc.jit(np.linalg.cholesky)(-np.eye(2))).any()


@pytest.mark.parametrize("lower", [True, False])
@pytest.mark.parametrize("unit", [True, False])
def test_triangular_systems(lower, unit):
    b = RNG.normal(size=(3, 2))

    def own(a):
        triangle = np.tril(a) if lower else np.triu(a)
        return triangle - np.diag(np.diag(triangle)) + np.eye(3) if unit else triangle

    f = lambda a, b: diffc.triangular_solve(a, b, lower=lower, unit=unit)  # noqa: E731
    np.testing.assert_allclose(f(A, b), np.linalg.solve(own(A), b), rtol=1e-10)
    found = diffc.grad(lambda a, b: np.sum(np.sin(f(a, b))), (0, 1))(A, b)
    slow = lambda a, b: np.sum(np.sin(np.linalg.solve(own(a), b)))  # noqa: E731
    expected = diffc.grad(slow, (0, 1))(A, b)
    for x, y in zip(found, expected, strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("run", "kind", "words"),
    [
        (lambda: diffc.jit(np.linalg.inv)(np.ones((2, 3))), diffc.ShapeError, "square"),
        (lambda: diffc.jit(np.linalg.det)(np.ones(3)), diffc.ShapeError, "square"),
        (lambda: diffc.jit(np.linalg.solve)(A, np.ones(2)), diffc.ShapeError, "do not fit"),
        (
            lambda: diffc.jit(np.linalg.inv)(np.eye(2, dtype=np.float16)),
            diffc.DtypeError,
            "half precision",
        ),
    ],
)
def test_misuse(run, kind, words):
    with pytest.raises(kind, match=words):
        run()


@pytest.mark.parametrize("shape", [(5, 0, 0), (0, 2, 2), (2, 3, 0, 0)])
def test_stacks_without_elements(shape):
    """Also of right-hand sides without columns."""
    a = np.zeros(shape)
    for f in (np.linalg.inv, np.linalg.det, np.linalg.cholesky, lambda a: np.linalg.slogdet(a)[1]):
        found = diffc.jit(f)(a)
        assert found.shape == f(a).shape
        np.testing.assert_array_equal(found, f(a))
    b = np.zeros((*shape[:-2], shape[-1], 0))
    for f in (np.linalg.solve, lambda a, b: diffc.triangular_solve(a, b)):
        assert diffc.jit(f)(a, b).shape == b.shape
    several = np.broadcast_to(np.eye(3), (4, 3, 3))
    assert diffc.jit(np.linalg.solve)(several, np.zeros((3, 0))).shape == (4, 3, 0)
