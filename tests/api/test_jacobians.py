"""Jacobians in both modes, Hessians, and products with them; also of loops, calls and batches."""

import numpy as np
import pytest

import diffc
from diffc.errors import DtypeError, UsageError

RNG = np.random.default_rng(0)
X = RNG.standard_normal(4)
W = RNG.standard_normal((3, 4))


def close(found, expected, rtol=1e-10):
    np.testing.assert_allclose(found, expected, rtol=rtol, atol=1e-11)


def differences(f, x, step=1e-6):
    """The Jacobian by central differences, axes of the result first."""
    columns = []
    for i in np.ndindex(x.shape):
        move = np.zeros_like(x)
        move[i] = step
        columns.append((np.asarray(f(x + move)) - np.asarray(f(x - move))) / (2 * step))
    stacked = np.stack(columns, -1) if columns else np.zeros((*np.shape(f(x)), 0))
    return stacked.reshape(stacked.shape[:-1] + x.shape)


def dense(x):
    return np.tanh(W @ x)


def looped(x):
    carry, ys = diffc.scan(lambda c, w: (np.tanh(c + w * x), c * w), x, W)
    return np.concatenate([carry, ys.reshape(-1)])


called = diffc.jit(lambda x: np.exp(x[::-1]) * x[0])

FUNCTIONS = {
    "dense": dense,
    "scan": looped,
    "call": lambda x: called(called(x) * 0.5),
    "choices": lambda x: np.where(x > 0, np.maximum(x, 0.5), np.sort(x)),
    "gather": lambda x: x[np.array([3, 0, 0, 2, 1])] ** 2,
    "batch": lambda x: diffc.vmap(lambda w: w * x)(W),
    "scan in batch": lambda x: diffc.vmap(
        lambda w: diffc.scan(lambda c, v: (c * v, c + v), w, x)[1]
    )(W[:, 0]),
    "sum": np.sum,
    "outer": lambda x: x[:, None, None] * x[None, :, None] * W.T[None, :, :],
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_both_modes_agree_with_differences(name):
    f = FUNCTIONS[name]
    forward, reverse = diffc.jacfwd(f)(X), diffc.jacrev(f)(X)
    expected = differences(lambda x: diffc.jit(f)(x), X)
    assert forward.shape == reverse.shape == expected.shape
    close(forward, reverse)
    close(forward, expected, 1e-5)
    close(diffc.jacobian(f)(X), forward)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_hessians_are_symmetric_and_orders_commute(name):
    def f(x):
        return np.sum(np.sin(FUNCTIONS[name](x)) * 0.7)

    found = diffc.hessian(f)(X)
    close(found, found.T)
    close(diffc.jacrev(diffc.jacfwd(f))(X), found)
    close(diffc.jacrev(diffc.jacrev(f))(X), found)
    close(diffc.jacfwd(diffc.jacfwd(f))(X), found)
    close(diffc.jacfwd(diffc.grad(f))(X), found)
    v = RNG.standard_normal(4)
    close(diffc.hvp(f, (X,), (v,)), found @ v)
    close(diffc.grad(lambda x: diffc.jvp(f, (x,), (v,))[1])(X), found @ v)
    close(diffc.grad(lambda x: np.sum(diffc.grad(f)(x) * v))(X), found @ v)


def test_trees():
    params = {"w": W, "b": (np.ones(3), 2.0)}

    def f(p, x):
        return {"y": p["w"] @ x + p["b"][0] * p["b"][1], "s": (np.sum(p["w"]),)}

    for make in (diffc.jacfwd, diffc.jacrev, diffc.jacobian):
        found = make(f)(params, X)
        assert set(found) == {"y", "s"} and set(found["y"]) == {"w", "b"}
        close(found["y"]["w"], np.einsum("ij,k->ijk", np.eye(3), X))
        close(found["y"]["b"][0], 2 * np.eye(3))
        close(found["y"]["b"][1], np.ones(3))
        close(found["s"][0]["w"], np.ones((3, 4)))
        np.testing.assert_array_equal(found["s"][0]["b"][0], np.zeros(3))
        both = make(f, argnums=(1, 0))(params, X)
        close(both["y"][0], W)
        close(both["y"][1]["w"], found["y"]["w"])
        close(make(f, argnums=-1)(params, X)["y"], W)


def test_the_hessian_of_a_tree():
    def f(p):
        return np.sum(p["a"] ** 2) * p["b"] ** 3

    a, b = np.array([1.0, 2.0]), 3.0
    found = diffc.hessian(f)({"a": a, "b": b})
    close(found["a"]["a"], 2 * b**3 * np.eye(2))
    close(found["a"]["b"], 6 * a * b**2)
    close(found["b"]["a"], 6 * a * b**2)
    close(found["b"]["b"], 6 * b * np.sum(a**2))
    two = diffc.hvp(lambda a, b: f({"a": a, "b": b}), (a, b), (np.ones(2), 1.0))
    close(two[0], 2 * b**3 * np.ones(2) + 6 * a * b**2)
    close(two[1], np.sum(6 * a * b**2) + 6 * b * np.sum(a**2))


def test_aux():
    def f(x):
        return np.sin(x), {"n": 3, "x": x * 2}

    for make in (diffc.jacfwd, diffc.jacrev, diffc.jacobian):
        found, aux = make(f, has_aux=True)(X)
        close(found, np.diag(np.cos(X)))
        close(aux["x"], X * 2)
        assert aux["n"] == 3
    found, aux = diffc.hessian(lambda x: (np.sum(x**3), x), has_aux=True)(X)
    close(found, np.diag(6 * X))
    close(aux, X)


@pytest.mark.parametrize("make", [diffc.jacfwd, diffc.jacrev])
@pytest.mark.parametrize("sizes", [(0, 3), (3, 0), (0, 0), (1, 1), (1, 3), (3, 1)])
def test_small_sizes(make, sizes):
    rows, columns = sizes
    a = np.arange(1.0, rows * columns + 1).reshape(rows, columns)
    found = make(lambda x: a @ x)(np.ones(columns))
    assert found.shape == (rows, columns)
    close(found, a)


def test_float32_stays():
    found = diffc.jacobian(np.sin)(X.astype(np.float32))
    assert found.dtype == np.float32


def test_within_jit_and_vmap():
    close(diffc.jit(diffc.jacobian(dense))(X), diffc.jacobian(dense)(X))
    points = RNG.standard_normal((5, 4))
    found = diffc.vmap(diffc.hessian(lambda x: np.sum(dense(x))))(points)
    close(found, np.stack([diffc.hessian(lambda x: np.sum(dense(x)))(p) for p in points]))
    total = diffc.grad(lambda x: np.trace(diffc.jacfwd(lambda y: y**3)(x)))
    close(total(X), 6 * X)


def test_the_mode_follows_the_sizes():
    wide, tall = diffc.jacobian(np.sum), diffc.jacobian(lambda x: np.outer(x, x))
    assert "reverse mode" in wide.explain(X) and "4 elements of arguments, 1 of" in wide.explain(X)
    assert "forward mode" in tall.explain(X) and "16 of results" in tall.explain(X)
    assert "as asked" in diffc.jacfwd(np.sum).explain(X)
    assert "forward mode" in diffc.jacobian(lambda x: x).explain(X)
    text = wide.stages(X, until="optimize").stage("optimize").text
    assert "iota" not in text  # one result needs one direction


def test_errors():
    with pytest.raises(DtypeError, match=r"jacfwd by x\['n'\] is asked for"):
        diffc.jacfwd(lambda x: x["n"] * 1.0)({"n": np.arange(3)})
    with pytest.raises(DtypeError, match=r"jacobian of result\[1\]"):
        diffc.jacobian(lambda x: (x, np.argmax(x)))(X)
    with pytest.raises(UsageError, match="argument 2"):
        diffc.jacrev(dense, argnums=2)(X)
    with pytest.raises(UsageError, match="layout is 'row'"):
        diffc.jacobian(dense, layout="row")
    with pytest.raises(UsageError, match="pair"):
        diffc.jacrev(dense, has_aux=True)(X)


# --- linear functions, turned around ----------------------------------------------------------

LINEAR = {
    "dense": lambda x: W @ x,
    "slices": lambda x: x[1:] * 2 - x[:-1],
    "indices": lambda x: x[np.array([0, 0, 3])],
    "choice": lambda x: np.where(X > 0, x, 0.0),
    "pad": lambda x: np.pad(x, 2),
    "put": lambda x: np.concatenate([x, np.zeros(2)]),
    "scan": lambda x: diffc.scan(lambda c, v: (c * 0.5 + v, c), 0.0, x)[1],
    "jit": lambda x: diffc.jit(lambda y: 2 * y)(x),
    "cumsum": np.cumsum,
    "batch": lambda x: diffc.vmap(lambda w: w @ x)(W),
}


@pytest.mark.parametrize("name", LINEAR)
def test_the_transpose_is_the_adjoint(name):
    f = LINEAR[name]
    matrix = diffc.jacfwd(f)(X)
    back = diffc.linear_transpose(f, X)
    ct = RNG.standard_normal(matrix.shape[0])
    (found,) = back(ct)
    close(found, ct @ matrix)
    (inside,) = diffc.jit(lambda c: diffc.linear_transpose(f, X)(c))(ct)
    close(inside, found)


def test_transposes_of_trees_and_shapes():
    class Like:
        shape, dtype = (2,), np.dtype(np.float64)

    back = diffc.linear_transpose(lambda p, y: (p["a"] + y, 2 * y), {"a": Like()}, Like())
    one, two = back((np.array([1.0, 2.0]), np.ones(2)))
    close(one["a"], [1, 2])
    close(two, [3, 4])
    twice = diffc.linear_transpose(
        lambda c: diffc.linear_transpose(lambda x: W @ x, X)(c)[0], W[:, 0]
    )
    close(twice(X)[0], W @ X)


NONLINEAR = {
    "affine": (lambda x: x + 1, "adds something"),
    "square": (lambda x: x * x, "mul is not linear"),
    "sine": (np.sin, "sin is not linear"),
    "choice": (lambda x: np.where(x > 0, x, 0.0), "chooses|not linear"),
    "maximum": (lambda x: np.maximum(x, 0), "chooses"),
    "constant": (lambda x: np.ones(3), "does not depend"),
    "sort": (np.sort, "sort is not linear"),
    "concat": (lambda x: np.concatenate([x, np.ones(2)]), "adds something"),
    "product": (lambda x: np.dot(x, x), "not linear"),
    "in scan": (lambda x: diffc.scan(lambda c, v: (c + v * v, c), 0.0, x)[0], "in scan: mul"),
    "carry": (lambda x: diffc.scan(lambda c, v: (c + v, c), 1.0, x)[0], "carry"),
    "in call": (lambda x: diffc.jit(np.exp)(x), "in call: exp"),
}


@pytest.mark.parametrize("name", NONLINEAR)
def test_what_is_not_linear_is_refused(name):
    f, why = NONLINEAR[name]
    with pytest.raises(UsageError, match=why):
        diffc.linear_transpose(f, X)


def test_python_control_flow_on_values():
    def f(x):
        return x**3 if x[0] > 0 else -x

    for make in (diffc.jacfwd, diffc.jacrev, diffc.jacobian):
        close(make(f)(np.ones(2)), 3 * np.eye(2))
        close(make(f)(-np.ones(2)), -np.eye(2))

    def scalar(x):
        return np.sum(f(x))

    close(diffc.hessian(scalar)(np.ones(2)), 6 * np.eye(2))
    close(diffc.hvp(scalar, (np.ones(2),), (np.ones(2),)), np.full(2, 6.0))
    _, (first, second) = diffc.jet(f, (np.ones(2),), ([np.ones(2), np.zeros(2)],))
    close(first, np.full(2, 3.0))
    close(second, np.full(2, 6.0))
    kept = diffc.checkpoint(f)
    close(diffc.grad(lambda x: np.sum(kept(x)))(np.ones(2)), np.full(2, 3.0))
    close(diffc.grad(lambda x: np.sum(kept(x)))(-np.ones(2)), -np.ones(2))
