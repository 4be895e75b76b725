"""Minima, maxima and saddles are told by the Hessian's eigenvalues."""

import numpy as np
import pytest

import diffc
from diffc.errors import DtypeError, ShapeError, TraceError, UsageError


def quadratic(matrix):
    return lambda x: x @ matrix @ x / 2


def turned(eigenvalues, seed=0):
    """A symmetric matrix with these eigenvalues, and their directions."""
    basis, _ = np.linalg.qr(np.random.default_rng(seed).standard_normal((len(eigenvalues),) * 2))
    return basis @ np.diag(eigenvalues) @ basis.T, basis


KINDS = {
    "minimum": ([1.0, 2.0, 50.0], "positive definite", 50.0),
    "maximum": ([-4.0, -2.0, -8.0], "negative definite", 4.0),
    "saddle": ([-1.0, 3.0, 10.0], "indefinite", 10.0),
    "degenerate": ([0.0, 1.0, 2.0], "positive semidefinite", np.inf),
}


@pytest.mark.parametrize("kind", KINDS)
def test_kinds(kind):
    eigenvalues, definiteness, condition = KINDS[kind]
    matrix, basis = turned(eigenvalues)
    found = diffc.critical(quadratic(matrix), np.zeros(3))
    assert (found.kind, found.definiteness) == (kind, definiteness)
    assert found.condition == pytest.approx(condition, rel=1e-12)
    np.testing.assert_allclose(found.eigenvalues, sorted(eigenvalues), atol=1e-13)
    order = np.argsort(eigenvalues)
    overlap = np.abs(np.sum(found.eigenvectors * basis[:, order], axis=0))
    np.testing.assert_allclose(overlap, 1, rtol=1e-10)


def test_other_degenerate_ones():
    assert diffc.critical(lambda x: -(x[0] ** 2), np.zeros(2)).definiteness == (
        "negative semidefinite"
    )
    assert diffc.critical(lambda x: np.sum(x**4), np.zeros(2)).definiteness == "zero"
    assert diffc.critical(lambda x: np.sum(x**4), np.zeros(2)).kind == "degenerate"
    # one direction decides, whatever the others do
    assert diffc.critical(lambda x: x[0] ** 2 - x[1] ** 2 + x[2] ** 4, np.zeros(3)).kind == "saddle"


def test_slopes_and_tolerances():
    f = quadratic(np.diag([1.0, 100.0]))
    assert diffc.critical(f, np.array([1.0, 0.0])).kind == "slope"
    assert diffc.critical(f, np.array([1e-9, 1e-9])).kind == "minimum"
    assert diffc.critical(f, np.array([1e-9, 1e-9]), tol=1e-12).kind == "slope"
    assert diffc.critical(f, np.array([0.1, 0.0]), tol=0.1).kind == "minimum"
    single = np.array([1e-5, 1e-5], np.float32)
    assert diffc.critical(f, single).kind == "minimum"
    np.testing.assert_array_equal(diffc.critical(f, np.ones(2)).gradient, [1.0, 100.0])


def test_trees_and_other_arguments():
    def loss(shift, p):
        return np.sum((p["w"] - shift) ** 2) + 3 * p["b"] ** 2

    found = diffc.critical(loss, 2.0, {"w": np.full((2, 1), 2.0), "b": 0.0}, argnum=1)
    assert found.kind == "minimum"
    assert found.names == ("p['b']", "p['w'][0][0]", "p['w'][1][0]")
    assert found.gradient["w"].shape == (2, 1)
    assert found.condition == 3
    assert diffc.critical(loss, 2.0, {"w": np.full((2, 1), 1.0), "b": 0.0}).kind == "slope"


def test_the_text():
    text = str(diffc.critical(lambda x: -np.sum(x * x), np.zeros(20)))
    assert text.splitlines() == [
        "a maximum: the Hessian is negative definite",
        "value        0",
        f"gradient     ({', '.join(['0'] * 6)}, ..., {', '.join(['0'] * 6)}), of norm 0",
        f"eigenvalues  ({', '.join(['-2'] * 6)}, ..., {', '.join(['-2'] * 6)})",
        "condition    1",
    ]


def test_misuse():
    with pytest.raises(DtypeError, match=r"x is i64\[2\]; needs|x of critical is i64\[2\]"):
        diffc.critical(lambda x: x[0], np.array([1, 2]))
    with pytest.raises(ShapeError, match="one float scalar"):
        diffc.critical(lambda x: x, np.ones(2))
    with pytest.raises(UsageError, match="argnum of critical names argument 1"):
        diffc.critical(lambda x: x, 1.0, argnum=1)
    with pytest.raises(TraceError, match="critical looks at values"):
        diffc.jit(lambda x: diffc.critical(lambda y: y * y, x).value)(1.0)
