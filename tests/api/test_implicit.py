"""Roots, fixed points, minimizers: derivatives against closed forms and differences."""

import numpy as np
import pytest

import diffc


def cube_root(a):
    return diffc.root(lambda x: x**3 - a, 1.0)


def square_root(a):
    return diffc.fixed_point(lambda x: (x + a / x) / 2, 1.0)


def mean(a):
    return diffc.argmin(lambda x: np.sum((x - a) ** 2), 0.0)


def test_a_root_of_one_equation():
    value, slope = diffc.value_and_grad(cube_root)(8.0)
    np.testing.assert_allclose([value, slope], [2, 1 / 12], rtol=1e-12)
    _, dot = diffc.jvp(cube_root, (8.0,), (1.0,))
    np.testing.assert_allclose(dot, 1 / 12, rtol=1e-12)
    second = diffc.grad(diffc.grad(cube_root))(8.0)
    np.testing.assert_allclose(second, -2 / 9 * 8 ** (-5 / 3), rtol=1e-10)


def test_a_root_of_several_equations():
    """x² + y² = r², y = s x: x = r / sqrt(1 + s²)."""

    def solution(r, s):
        def equations(v):
            return np.array([v[0] ** 2 + v[1] ** 2 - r**2, v[1] - s * v[0]])

        return diffc.root(equations, np.array([1.0, 1.0]))

    def closed(r, s):
        x = r / np.sqrt(1 + s**2)
        return np.stack([x, s * x])

    for argnum in (0, 1):
        expected = diffc.jacobian(closed, argnum)(2.0, 0.5)
        for mode in (diffc.jacfwd, diffc.jacrev):
            found = mode(solution, argnum)(2.0, 0.5)
            np.testing.assert_allclose(found, expected, rtol=1e-9)
    found = diffc.jacfwd(diffc.jacfwd(solution, 1), 1)(2.0, 0.5)
    expected = diffc.jacfwd(diffc.jacfwd(closed, 1), 1)(2.0, 0.5)
    np.testing.assert_allclose(found, expected, rtol=1e-8)


def test_a_root_as_a_tree():
    def f(a):
        def equations(x):
            return {"u": x["u"] - a, "v": x["v"] ** 2 - x["u"]}

        return diffc.root(equations, {"u": 1.0, "v": np.ones(2)})

    out, dot = diffc.jvp(f, (4.0,), (1.0,))
    np.testing.assert_allclose(out["v"], [2, 2])
    np.testing.assert_allclose(dot["v"], [0.25, 0.25])
    assert dot["u"] == 1


def test_a_solver_of_ones_own():
    def bisection(f, x0):
        def halve(i, ends):
            low, high = ends
            middle = (low + high) / 2
            below = f(middle) < 0
            return np.where(below, middle, low), np.where(below, high, middle)

        return diffc.fori_loop(0, 60, halve, (x0 * 0, x0 * 0 + 10))[0]

    def f(a):
        return diffc.root(lambda x: x**3 - a, 1.0, bisection)

    np.testing.assert_allclose(diffc.value_and_grad(f)(8.0), [2, 1 / 12], rtol=1e-9)


def test_newton_shortens_steps_that_go_too_far():
    """arctan: the full step diverges from 3."""
    found = diffc.root(np.arctan, 3.0)
    assert abs(found) < 1e-12


def test_fixed_points():
    value, slope = diffc.value_and_grad(square_root)(4.0)
    np.testing.assert_allclose([value, slope], [2, 0.25], rtol=1e-12)
    kepler = lambda m, e: diffc.fixed_point(lambda x: m + e * np.sin(x), m)  # noqa: E731
    x = kepler(1.0, 0.3)
    by_m, by_e = diffc.grad(kepler, (0, 1))(1.0, 0.3)
    np.testing.assert_allclose(by_m, 1 / (1 - 0.3 * np.cos(x)), rtol=1e-10)
    np.testing.assert_allclose(by_e, np.sin(x) / (1 - 0.3 * np.cos(x)), rtol=1e-10)


def test_minimizers():
    value, slope = diffc.value_and_grad(mean)(np.array([1.0, 3.0, 5.0]))
    np.testing.assert_allclose(value, 3)
    np.testing.assert_allclose(slope, np.full(3, 1 / 3), rtol=1e-12)

    def rosenbrock(p):
        f = lambda x: (p[0] - x[0]) ** 2 + p[1] * (x[1] - x[0] ** 2) ** 2  # noqa: E731
        return diffc.argmin(f, np.array([-1.0, 2.0]))

    p = np.array([1.5, 100.0])
    np.testing.assert_allclose(rosenbrock(p), [1.5, 2.25], rtol=1e-9)
    for mode in (diffc.jacfwd, diffc.jacrev):
        np.testing.assert_allclose(mode(rosenbrock)(p), [[1, 0], [3, 0]], atol=1e-7)


def test_ridge_regression_by_its_penalty():
    """w = (X'X + s I)^-1 X'y; the derivative by s is known in closed form."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(20, 4)), rng.normal(size=20)

    def weights(s, linear="dense"):
        loss = lambda w: np.sum((x @ w - y) ** 2) + s * np.sum(w * w)  # noqa: E731
        return diffc.argmin(loss, np.zeros(4), linear=linear)

    inverse = np.linalg.inv(x.T @ x + 2 * np.eye(4))
    expected = inverse @ x.T @ y
    np.testing.assert_allclose(weights(2.0), expected, rtol=1e-8)
    for linear in ("dense", "cg"):
        found = diffc.jacfwd(lambda s, linear=linear: weights(s, linear))(2.0)
        np.testing.assert_allclose(found, -inverse @ expected, rtol=1e-7)
        found = diffc.grad(lambda s, linear=linear: weights(s, linear)[1])(2.0)
        np.testing.assert_allclose(found, (-inverse @ expected)[1], rtol=1e-7)


def test_batches_and_loops():
    many = np.array([1.0, 8.0, 27.0])
    np.testing.assert_allclose(diffc.vmap(cube_root)(many), [1, 2, 3])
    slopes = diffc.vmap(diffc.grad(cube_root))(many)
    np.testing.assert_allclose(slopes, many ** (-2 / 3) / 3)

    def twice(a):
        return diffc.scan(lambda c, _: (cube_root(c), ()), a, None, length=2)[0]

    np.testing.assert_allclose(diffc.value_and_grad(twice)(512.0)[1], 512 ** (-8 / 9) / 9)


def test_arrays_from_outside_are_read_anew():
    target = np.array([4.0])
    f = diffc.jit(lambda x0: diffc.root(lambda x: x * x - target, x0))
    np.testing.assert_allclose(f(np.ones(1)), 2)
    target[0] = 9
    np.testing.assert_allclose(f(np.ones(1)), 3)


def test_where_the_solver_began_does_not_matter():
    f = lambda x0: diffc.root(lambda x: x * x - 4, x0)  # noqa: E731
    assert diffc.jvp(f, (1.0,), (1.0,))[1] == 0


@pytest.mark.parametrize(
    ("run", "kind", "words"),
    [
        (lambda: diffc.root(lambda x: x, 1), diffc.DtypeError, "needs floats"),
        (lambda: diffc.root(lambda x: x[0], np.ones(2)), diffc.ShapeError, "like x0"),
        (lambda: diffc.argmin(lambda x: x, np.ones(2)), diffc.ShapeError, "needs one float"),
        (lambda: diffc.fixed_point(2, 1.0), diffc.UsageError, "not a function"),
    ],
)
def test_misuse(run, kind, words):
    with pytest.raises(kind, match=words):
        run()
