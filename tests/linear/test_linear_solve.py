"""`linear_solve`: values against NumPy, derivatives against formulas, whatever the method."""

import numpy as np
import pytest

import diffc

METHODS = ("dense", "bicgstab", "cg")


def system(n, seed=0, is_spd=False):
    rng = np.random.default_rng(seed)
    a = rng.normal(size=(n, n))
    a = a @ a.T / n + np.eye(n) if is_spd else a + 3 * np.eye(n)
    return a, rng.normal(size=n)


def solver(method):
    return lambda a, b: diffc.linear_solve(lambda x: a @ x, b, method, symmetric=method == "cg")


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("n", [1, 2, 7])
def test_values_and_gradients(method, n):
    a, b = system(n, n, method == "cg")
    f = solver(method)
    x = np.linalg.solve(a, b)
    np.testing.assert_allclose(diffc.jit(f)(a, b), x, rtol=1e-10)
    by_a, by_b = diffc.grad(lambda a, b: np.sum(np.sin(f(a, b))), (0, 1))(a, b)
    dual = np.linalg.solve(a.T, np.cos(x))
    np.testing.assert_allclose(by_b, dual, rtol=1e-9)
    np.testing.assert_allclose(by_a, -np.outer(dual, x), rtol=1e-9)
    np.testing.assert_allclose(diffc.jacfwd(f, 1)(a, b), np.linalg.inv(a), rtol=1e-9, atol=1e-12)
    inverse = np.linalg.inv(a)
    expected = inverse.T @ np.diag(-np.sin(x)) @ inverse
    found = diffc.hessian(lambda b: np.sum(np.sin(f(a, b))))(b)
    np.testing.assert_allclose(found, expected, rtol=1e-8, atol=1e-10)


def test_batches():
    a, b = system(4)
    many_a = a + 0.1 * np.arange(3)[:, None, None] * np.eye(4)
    many_b = np.stack([b, 2 * b, -b])
    f = solver("dense")
    expected = np.stack([np.linalg.solve(x, y) for x, y in zip(many_a, many_b, strict=True)])
    np.testing.assert_allclose(diffc.vmap(f)(many_a, many_b), expected, rtol=1e-10)
    one = diffc.vmap(f, (None, 0))(a, many_b)
    np.testing.assert_allclose(one, np.linalg.solve(a, many_b.T).T, rtol=1e-10)
    same = diffc.vmap(f, (0, None))(many_a, b)
    np.testing.assert_allclose(same[2], np.linalg.solve(many_a[2], b), rtol=1e-10)


def test_taylor_mode():
    a, b = system(3)

    def along(t):
        return solver("dense")(a + t * np.eye(3), b)

    _, (first, second) = diffc.jet(along, (0.0,), ([1.0, 0.0],))
    inverse = np.linalg.inv(a)
    np.testing.assert_allclose(first, -inverse @ inverse @ b, rtol=1e-10)
    np.testing.assert_allclose(second, 2 * inverse @ inverse @ inverse @ b, rtol=1e-10)


def test_trees_and_single_precision():
    def products(x):
        return {"a": 2 * x["a"], "b": x["b"] + x["a"]}

    found = diffc.linear_solve(products, {"a": 1.0, "b": np.ones(1)})
    assert (found["a"], found["b"][0]) == (0.5, 0.5)
    a, b = system(5)
    x = solver("dense")(a.astype(np.float32), b.astype(np.float32))
    assert x.dtype == np.float32
    np.testing.assert_allclose(x, np.linalg.solve(a, b), rtol=1e-4)


def test_a_method_of_ones_own_is_not_differentiated():
    """Jacobi iteration: its steps differ from the implicit derivative until it has converged."""
    a = np.array([[4.0, 1.0], [2.0, 5.0]])
    steps = []

    def jacobi(matvec, b):
        steps.append(b)
        x = b * 0
        for _ in range(60):
            x = x + (b - matvec(x)) / np.array([4.0, 5.0])
        return x

    def f(s):
        return np.sum(diffc.linear_solve(lambda x: s * (a @ x), np.ones(2), jacobi))

    x = np.linalg.solve(a, np.ones(2))
    np.testing.assert_allclose(diffc.grad(f)(1.0), -np.sum(x), rtol=1e-10)
    assert len(steps) == 2  # the system and its transpose, traced once each


def test_the_transposed_system_has_a_method_of_its_own():
    a = np.array([[1.0, 2.0], [0.0, 1.0]])
    forward = np.linalg.inv(a)

    def f(b):
        x = diffc.linear_solve(
            lambda x: a @ x,
            b,
            lambda matvec, b: forward @ b,
            transpose_solve=lambda matvec, b: forward.T @ b,
        )
        return x[0]

    np.testing.assert_allclose(diffc.grad(f)(np.ones(2)), [1, -2])


def test_no_unknowns():
    for method in METHODS:
        assert diffc.linear_solve(lambda x: x, np.zeros(0), method).shape == (0,)


def test_a_zero_right_hand_side():
    for method in METHODS:
        found = diffc.linear_solve(lambda x: 2 * x, np.zeros(2), method, symmetric=True)
        np.testing.assert_array_equal(found, [0, 0])


@pytest.mark.parametrize(
    ("run", "kind", "words"),
    [
        (lambda: diffc.linear_solve(lambda x: x * x, np.ones(2)), diffc.UsageError, "not linear"),
        (lambda: diffc.linear_solve(lambda x: x + 1, np.ones(2)), diffc.UsageError, "not linear"),
        (lambda: diffc.linear_solve(lambda x: x[:1], np.ones(2)), diffc.ShapeError, "like b"),
        (lambda: diffc.linear_solve(lambda x: (x,), np.ones(2)), diffc.ShapeError, "like b"),
        (lambda: diffc.linear_solve(lambda x: x, np.ones(2, int)), diffc.DtypeError, "floats"),
        (lambda: diffc.linear_solve(lambda x: x, 1.0, "lu"), diffc.UsageError, "no method 'lu'"),
        (lambda: diffc.linear_solve(3, 1.0), diffc.UsageError, "not a function"),
    ],
)
def test_misuse(run, kind, words):
    with pytest.raises(kind, match=words):
        run()
