"""``grad``, ``value_and_grad``, ``jvp``, ``vjp``, ``linearize``: alone, nested, under ``jit``."""

import collections

import numpy as np
import pytest

import diffc
from diffc.errors import DtypeError, ShapeError, TraceError, UsageError

RNG = np.random.default_rng(0)
X = RNG.standard_normal((4, 3))
W = RNG.standard_normal((3, 2))


def close(found, expected, tolerance=1e-9):
    found, expected = np.asarray(found), np.asarray(expected)
    assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
    np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance)


def slopes(f, x, step=1e-6):
    """Central differences of a scalar function."""
    found = np.zeros_like(x)
    for i in np.ndindex(x.shape):
        move = np.zeros_like(x)
        move[i] = step
        found[i] = (f(x + move) - f(x - move)) / (2 * step)
    return found


def loss(w, x=X):
    return np.sum(np.tanh(x @ w) ** 2)


# --- gradients --------------------------------------------------------------------------------


def test_gradient_is_the_slope():
    close(diffc.grad(loss)(W), slopes(loss, W), 1e-7)
    value, gradient = diffc.value_and_grad(loss)(W)
    close(value, np.asarray(loss(W)))
    close(gradient, slopes(loss, W), 1e-7)


@pytest.mark.parametrize("argnums", [0, 1, (0, 1), (1, 0), (1,), -1, [0]])
def test_argnums(argnums):
    def f(a, b, c=2.0):
        return np.sum(a * b * b) * c

    a, b = np.arange(3.0), np.ones(3) * 2
    each = [b * b * 2.0, 2 * a * b * 2.0]
    found = diffc.grad(f, argnums)(a, b)
    if isinstance(argnums, int):
        close(found, each[argnums])
    else:
        assert type(found) is tuple
        for x, k in zip(found, argnums, strict=True):
            close(x, each[k])


def test_keywords_are_constants():
    close(diffc.grad(lambda x, k=1.0: np.sum(x) * k)(np.ones(2), k=3.0), np.full(2, 3.0))


def test_aux():
    def f(x):
        y = x * x
        return np.sum(y), {"y": y, "n": 3}

    x = np.arange(3.0)
    for g in (diffc.grad(f, has_aux=True), diffc.jit(diffc.grad(f, has_aux=True))):
        gradient, aux = g(x)
        close(gradient, 2 * x)
        close(aux["y"], x * x)
        assert int(aux["n"]) == 3
    (value, aux), gradient = diffc.jit(diffc.value_and_grad(f, has_aux=True))(x)
    close(value, np.asarray(5.0))
    close(gradient, 2 * x)
    assert int(aux["n"]) == 3
    with pytest.raises(UsageError, match="pair"):
        diffc.grad(lambda x: np.sum(x), has_aux=True)(x)


Params = collections.namedtuple("Params", "w b")


def test_gradients_of_trees():
    def f(p, extra):
        return np.sum(p["a"].w * 2) + np.sum(p["a"].b ** 2) + p["list"][0] * extra[0]

    params = {"a": Params(np.ones((2, 2)), np.arange(2.0)), "list": [np.float64(3.0), None]}
    found = diffc.grad(f)(params, (2.0,))
    assert type(found["a"]) is Params and found["list"][1] is None
    close(found["a"].w, np.full((2, 2), 2.0))
    close(found["a"].b, np.array([0.0, 2.0]))
    close(found["list"][0], np.asarray(2.0))


def test_gradients_keep_the_dtype():
    for dtype in ("f2", "f4", "f8"):
        x = np.ones(3, dtype)
        assert diffc.grad(lambda x: np.sum(np.sin(x)))(x).dtype == x.dtype
    assert diffc.grad(lambda x: x * x)(3.0).dtype == np.float64
    gradient = diffc.grad(lambda x: np.sum(x.astype(np.float64) ** 2))(np.ones(2, "f4"))
    close(gradient, np.full(2, 2.0, "f4"))


def test_gradient_by_what_is_not_used_is_zero():
    close(diffc.grad(lambda x, y: np.sum(y))(np.ones((2, 3)), np.ones(2)), np.zeros((2, 3)))
    close(diffc.grad(lambda x: 3.0)(np.ones(2)), np.zeros(2))
    close(diffc.grad(lambda x: np.sum(np.floor(x)))(np.ones(2)), np.zeros(2))
    close(diffc.grad(lambda x: np.sum(x))(np.ones((0, 3))), np.zeros((0, 3)))


def test_stop_gradient():
    f = diffc.grad(lambda x: np.sum(x * diffc.stop_gradient(x)))
    close(f(np.arange(3.0)), np.arange(3.0))
    close(diffc.stop_gradient(np.arange(3.0)), np.arange(3.0))


def test_what_has_no_gradient_is_named():
    with pytest.raises(DtypeError, match="only floats have gradients"):
        diffc.grad(lambda x: np.sum(x * 2.0))(np.arange(3))
    with pytest.raises(ShapeError, match="one float scalar"):
        diffc.grad(lambda x: x * 2)(np.ones(3))
    with pytest.raises(ShapeError, match="one float scalar"):
        diffc.grad(lambda x: np.sum(x > 0))(np.ones(3))
    with pytest.raises(ShapeError, match="2 arrays"):
        diffc.grad(lambda x: (np.sum(x), np.sum(x)))(np.ones(3))
    with pytest.raises(UsageError, match="argnums of grad names argument 3"):
        diffc.grad(lambda x: np.sum(x), 3)(np.ones(3))


# --- nesting ----------------------------------------------------------------------------------


def test_grad_of_grad():
    def f(x):
        return np.sin(x) * x

    third = diffc.grad(diffc.grad(diffc.grad(f)))
    x = 0.7
    close(third(x), np.asarray(-3 * np.sin(x) - x * np.cos(x)))
    close(diffc.jit(third)(x), np.asarray(-3 * np.sin(x) - x * np.cos(x)))


def test_jit_of_grad_of_jit():
    f = diffc.jit(loss)
    expected = slopes(loss, W)
    for g in (diffc.grad(f), diffc.jit(diffc.grad(f)), diffc.jit(diffc.grad(diffc.jit(f)))):
        close(g(W), expected, 1e-7)
        close(g(W), expected, 1e-7)


def test_grad_within_jit_and_closures():
    @diffc.jit
    def step(w, x, lr):
        return w - lr * diffc.grad(lambda v: loss(v, x))(w)

    close(step(W, X, 0.1), W - 0.1 * slopes(loss, W), 1e-7)


def test_grad_by_a_closure_over_an_outer_tracer():
    # d/dx (x * d/dy (x * y^2)) = d/dx (2 x^2 y) = 4 x y
    def outer(x, y):
        return x * diffc.grad(lambda v: x * v * v)(y)

    close(diffc.grad(outer)(3.0, 5.0), np.asarray(60.0))


def test_perturbations_are_not_confused():
    # d/dx (x * d/dy (x + y)) at 1 is 1
    def f(x):
        return x * diffc.jvp(lambda y: x + y, (1.0,), (1.0,))[1]

    close(diffc.jvp(f, (1.0,), (1.0,))[1], np.asarray(1.0))
    close(diffc.grad(f)(1.0), np.asarray(1.0))


def test_grad_of_jit_in_a_scan():
    cell = diffc.jit(lambda h, x: np.tanh(h * 0.5 + x))

    def f(xs):
        def step(h, x):
            h = cell(h, x)
            return h, h * h

        h, ys = diffc.scan(step, 0.0, xs)
        return h + np.sum(ys)

    def plain(xs):
        h, total = 0.0, 0.0
        for x in xs:
            h = np.tanh(h * 0.5 + x)
            total += h * h
        return h + total

    xs = RNG.standard_normal(7)
    close(f(xs), np.asarray(plain(xs)))
    close(diffc.grad(f)(xs), slopes(plain, xs), 1e-7)
    close(diffc.jit(diffc.grad(f))(xs), slopes(plain, xs), 1e-7)
    close(diffc.grad(lambda x: np.sum(diffc.grad(f)(x) ** 2))(xs),
          slopes(lambda x: np.sum(np.asarray(diffc.grad(f)(x)) ** 2), xs), 1e-5)  # fmt: skip


def test_grad_inside_a_scan():
    def descend(w):
        return diffc.scan(lambda v, _: (v - 0.1 * diffc.grad(loss)(v), loss(v)), w, length=5)

    w, losses = diffc.jit(descend)(W)
    v = W
    for k in range(5):
        close(losses[k], np.asarray(loss(v)))
        v = v - 0.1 * diffc.grad(loss)(v)
    close(w, v)


# --- forward, linearize, vjp ------------------------------------------------------------------


def test_jvp():
    dot = RNG.standard_normal(W.shape)
    out, out_dot = diffc.jvp(loss, (W,), (dot,))
    close(out, np.asarray(loss(W)))
    close(out_dot, np.asarray(np.sum(slopes(loss, W) * dot)), 1e-7)
    jitted = diffc.jit(lambda w, d: diffc.jvp(loss, (w,), (d,)))(W, dot)
    close(jitted[1], np.asarray(np.sum(slopes(loss, W) * dot)), 1e-7)


def test_jvp_of_trees_and_integers():
    def f(t, n):
        return {"y": t["a"] * n, "n": n + 1}

    out, dot = diffc.jvp(f, ({"a": np.ones(2)}, 3), ({"a": np.arange(2.0)}, 0))
    close(out["y"], np.full(2, 3.0))
    close(dot["y"], np.arange(2.0) * 3)
    assert int(out["n"]) == 4 and int(dot["n"]) == 0


def test_linearize_and_vjp():
    def f(x, w):
        return np.tanh(x @ w), np.sum(w)

    out, push = diffc.linearize(f, X, W)
    close(out[0], np.tanh(X @ W))
    dx, dw = np.ones_like(X), np.ones_like(W)
    first, second = push(dx, dw)
    expected = (1 - np.tanh(X @ W) ** 2) * (dx @ W + X @ dw)
    close(first, expected)
    close(second, np.asarray(np.sum(dw)))
    out, pull = diffc.vjp(f, X, W)
    ct = RNG.standard_normal((4, 2))
    for _ in range(2):
        cx, cw = pull((ct, 2.0))
        z = ct * (1 - np.tanh(X @ W) ** 2)
        close(cx, z @ W.T)
        close(cw, X.T @ z + 2.0)

    @diffc.jit
    def within(x, w, ct):
        _, pull = diffc.vjp(f, x, w)
        _, push = diffc.linearize(f, x, w)
        return pull((ct, 2.0)), push(x, w)

    (cx, cw), (px, pw) = within(X, W, ct)
    close(cx, z @ W.T)
    close(cw, X.T @ z + 2.0)
    close(px, (1 - np.tanh(X @ W) ** 2) * (2 * X @ W))
    close(pw, np.asarray(np.sum(W)))


def test_vjp_of_integers_is_none():
    _, pull = diffc.vjp(lambda x, n: x * n, np.ones(2), 3)
    ct, none = pull(np.ones(2))
    close(ct, np.full(2, 3.0))
    assert none is None


def test_shapes_of_tangents_and_cotangents():
    with pytest.raises(UsageError, match="shape"):
        diffc.jvp(np.sin, (np.ones(3),), (np.ones(2),))
    with pytest.raises(UsageError, match="differ"):
        diffc.jvp(np.sin, (np.ones(3),), ((np.ones(3), 1.0),))
    _, pull = diffc.vjp(np.sin, np.ones(3))
    with pytest.raises(UsageError, match="shape"):
        pull(np.ones(2))
    with pytest.raises(UsageError, match="differs"):
        pull((np.ones(3),))


def test_captured_arrays_are_read_anew():
    w = np.ones(3)
    f = diffc.grad(lambda x: np.sum(x * w))
    close(f(np.ones(3)), w)
    w[:] = 5.0
    close(f(np.ones(3)), w)
    w = np.full(3, 7.0)
    close(f(np.ones(3)), w)
    _, pull = diffc.vjp(lambda x: x * w, np.ones(3))
    close(pull(np.ones(3))[0], w)


# --- in-place code ----------------------------------------------------------------------------


def test_in_place_code_has_gradients():
    def f(x):
        out = np.zeros(4)
        out[1:] = x
        out[0] = x[0] * x[1]
        out[2] *= out[0]
        view = out[::2]
        view += 1
        return np.sum(out**2)

    x = np.array([0.5, -1.5, 2.0])
    close(diffc.grad(f)(x), slopes(f, x), 1e-7)


def test_writes_to_arguments_stay_inside_a_derivative():
    def f(w):
        w *= 2
        return np.sum(w * w)

    w = np.arange(3.0)
    close(diffc.grad(f)(w), 8 * np.arange(3.0))
    close(w, np.arange(3.0))
    close(diffc.jit(diffc.grad(f))(w), 8 * np.arange(3.0))
    diffc.jvp(f, (w,), (w,))
    diffc.vjp(f, w)[1](1.0)
    close(w, np.arange(3.0))


def test_a_training_step_in_place():
    @diffc.jit
    def step(params, x, lr):
        value, gradient = diffc.value_and_grad(lambda p: loss(p["w"], x))(params)
        params["w"] -= lr * gradient["w"]
        return value

    params = {"w": W.copy()}
    kept, expected = params["w"], W.copy()
    for _ in range(3):
        close(step(params, X, 0.1), np.asarray(loss(expected)))
        expected -= 0.1 * diffc.grad(loss)(expected)
    assert params["w"] is kept
    close(kept, expected)


# --- Python control flow ----------------------------------------------------------------------


def test_branches_on_values_under_jit_are_errors():
    def f(x):
        return x * 2 if x > 0 else -x

    with pytest.raises(TraceError, match="truth value"):
        diffc.jit(f)(3.0)


# --- numbers ----------------------------------------------------------------------------------


def test_naive_logistic_far_below_zero():
    f = diffc.jit(lambda x: 1 / (1 + np.exp(-x)))
    x = np.array([-200.0, -90.0, 0.0, 90.0, 200.0], np.float32)
    found = f(x)
    close(found, np.array([0, 8.194e-40, 0.5, 1, 1], np.float32), 1e-3)
    assert found[1] > 0  # subnormal, not flushed
    gradient = diffc.grad(lambda x: np.sum(1 / (1 + np.exp(-x))))(x)
    assert np.isfinite(gradient).all()
    close(gradient, np.array([0, 0, 0.25, 0, 0], np.float32), 1e-6)
    slope = diffc.grad(lambda x: np.log(1 / (1 + np.exp(-x))))(np.float32(-200))
    close(slope, np.asarray(1, np.float32))


def softmax(x):
    e = np.exp(x)
    return e / np.sum(e, axis=-1, keepdims=True)


def shifted(x):
    e = np.exp(x - np.max(x, axis=-1, keepdims=True))
    return e / np.sum(e, axis=-1, keepdims=True)


@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_naive_softmax_and_logsumexp_at_large_values(dtype):
    x = np.array([[1e4, 1e4 - 1, -1e4], [3.0, 1.0, 2.0], [-1e4, -1e4, -1e4]], dtype)
    tolerance = 1e-5 if dtype == "f4" else 1e-12
    close(diffc.jit(softmax)(x), shifted(x), tolerance)
    lse = diffc.jit(lambda x: np.log(np.sum(np.exp(x), axis=-1)))
    top = np.max(x, axis=-1, keepdims=True)
    expected = top[:, 0] + np.log(np.sum(np.exp(x - top), axis=-1))
    close(lse(x), expected, tolerance)
    gradient = diffc.grad(lambda x: np.sum(np.log(np.sum(np.exp(x), axis=-1))))(x)
    close(gradient, shifted(x), tolerance)
    ct = np.array([1.0, -2.0, 0.5], dtype)
    gradient = diffc.grad(lambda x: np.sum(softmax(x) * ct))(x)
    p = shifted(x)
    close(gradient, p * (ct - np.sum(p * ct, axis=-1, keepdims=True)), tolerance)
    nll = diffc.value_and_grad(lambda x: -np.sum(np.log(softmax(x))[:, 0]))
    value, gradient = nll(x)
    wide = x.astype(float)
    top = np.max(wide, axis=-1)
    exact = np.sum(top + np.log(np.sum(np.exp(wide - top[:, None]), axis=-1)) - wide[:, 0])
    close(value, np.asarray(exact, dtype), 3e-4 if dtype == "f4" else tolerance)
    one = np.zeros_like(p)
    one[:, 0] = 1
    close(gradient, p - one, tolerance)


BRANCHES = {
    "sqrt": lambda x: np.sum(np.where(x > 0, np.sqrt(x), 0)),
    "relu_log": lambda x: np.sum(np.maximum(np.log(x), 0)),
    "division": lambda x: np.sum(np.where(x != 0, 1 / x, 0)),
    "slice": lambda x: np.sum(np.log(x)[2:]),
    "mask": lambda x: np.sum(np.log(x) * (x > 1), where=x > 1),
    "clip": lambda x: np.sum(np.clip(np.log(x), 0, 10)),
}
EXPECTED = {
    "sqrt": [0, 0, 0.25, 0.5],
    "relu_log": [0, 0, 0.25, 0.5],
    "division": [-1, 0, -1 / 16, -1],
    "slice": [0, 0, 0.25, 1],
    "mask": [0, 0, 0.25, 0],
    "clip": [0, 0, 0.25, 0.5],
}


@pytest.mark.parametrize("name", BRANCHES)
@pytest.mark.parametrize("jit", [False, True])
def test_a_branch_that_was_not_taken_contributes_nothing(name, jit):
    f = BRANCHES[name]
    x = np.array([-1.0, 0.0, 4.0, 1.0])
    gradient = diffc.grad(f)
    reverse = (diffc.jit(gradient) if jit else gradient)(x)
    assert np.isfinite(reverse).all(), reverse
    expected = np.array(EXPECTED[name], float)
    kinks = {"relu_log": [3], "clip": [3]}.get(name, [])  # log(1) = 0: any subgradient
    smooth = [k for k in range(4) if k not in kinks]
    close(reverse[smooth], expected[smooth])
    assert all(0 <= reverse[k] <= 1 for k in kinks)
    for k in smooth:
        dot = np.eye(4)[k]
        pushed = diffc.jvp(f, (x,), (dot,))[1]
        close(pushed, np.asarray(expected[k]))


def test_an_honest_nan_stays():
    assert np.isnan(diffc.grad(lambda x: np.sqrt(x) ** 2)(0.0))
    assert np.isinf(diffc.grad(np.sqrt)(0.0))


def with_aux(x):
    return np.sin(x), {"twice": x * 2, "n": 3}


@pytest.mark.parametrize("wrap", [lambda f: f, diffc.jit], ids=["outside", "in a trace"])
def test_aux_of_jvp_vjp_and_linearize(wrap):
    x = np.arange(3.0)

    def all_three(x):
        out, dot, aux = diffc.jvp(with_aux, (x,), (np.ones(3),), has_aux=True)
        back, pull, aux_back = diffc.vjp(with_aux, x, has_aux=True)
        point, push, aux_point = diffc.linearize(with_aux, x, has_aux=True)
        return (
            [out, back, point],
            [dot, *pull(np.ones(3)), push(np.ones(3))],
            [
                aux,
                aux_back,
                aux_point,
            ],
        )

    values, derivatives, auxes = wrap(all_three)(x)
    for value, derivative, aux in zip(values, derivatives, auxes, strict=True):
        close(value, np.sin(x))
        close(derivative, np.cos(x))
        close(aux["twice"], 2 * x)
        assert aux["n"] == 3


@pytest.mark.parametrize("transform", [diffc.vjp, diffc.linearize])
def test_aux_needs_a_pair(transform):
    with pytest.raises(UsageError, match=r"returns a pair \(value, aux\)"):
        transform(np.sin, 1.0, has_aux=True)
