"""Functions with derivatives of their own, in all modes, nested; and their errors."""

import functools

import numpy as np
import pytest

import diffc
from diffc.errors import DtypeError, ShapeError, TraceError, UsageError

X = np.array([0.3, -1.2, 2.0])


def close(found, expected, rtol=1e-12):
    np.testing.assert_allclose(found, expected, rtol=rtol, atol=1e-12)


@diffc.custom_jvp
def cube(x):
    return x * x * x


@cube.defjvp
def cube_rule(primals, tangents):
    """Off by a factor of 10, to tell it from the real derivative."""
    (x,), (dot,) = primals, tangents
    return cube(x), 30 * x * x * dot


@diffc.custom_vjp
def square(x):
    return x * x


square.defvjp(lambda x: (square(x), (x,)), lambda kept, ct: (20 * kept[0] * ct,))


@diffc.custom_vjp
def clipped(x):
    return x * 1.0


clipped.defvjp(lambda x: (x, None), lambda kept, ct: (np.clip(ct, -1, 1),))


def test_values_are_the_function_s():
    close(cube(X), X**3)
    close(diffc.jit(cube)(X), X**3)
    close(diffc.jit(square)(X), X**2)
    close(diffc.vmap(cube)(X), X**3)


def total(f):
    return lambda x: np.sum(f(x))


@pytest.mark.parametrize(("f", "first"), [(cube, 30 * X * X), (square, 20 * X)])
def test_all_modes_use_the_rule(f, first):
    close(diffc.grad(total(f))(X), first)
    close(diffc.jvp(f, (X,), (np.ones(3),))[1], first)
    close(diffc.linearize(f, X)[1](np.ones(3)), first)
    close(diffc.vjp(f, X)[1](np.ones(3))[0], first)
    close(diffc.jacfwd(f)(X), np.diag(first))
    close(diffc.jacrev(f)(X), np.diag(first))
    close(diffc.jit(diffc.grad(total(f)))(X), first)
    close(diffc.grad(diffc.jit(total(f)))(X), first)
    close(diffc.vmap(diffc.grad(f))(X), first)
    close(diffc.grad(total(diffc.vmap(f)))(X), first)


def test_rules_are_differentiated_in_turn():
    # the rule of cube reads x itself: 30 x^2 -> 60 x; that of square keeps x: 20 x -> 20
    for make in (
        lambda f: diffc.grad(diffc.grad(f)),
        lambda f: lambda x: diffc.jvp(diffc.grad(f), (x,), (1.0,))[1],
        lambda f: diffc.grad(lambda x: diffc.jvp(f, (x,), (1.0,))[1]),
        lambda f: lambda x: diffc.jvp(lambda y: diffc.jvp(f, (y,), (1.0,))[1], (x,), (1.0,))[1],
        diffc.hessian,
    ):
        close(make(cube)(2.0), 120.0)
        close(make(square)(2.0), 20.0)


def test_within_loops_and_calls():
    def f(x):
        carry, ys = diffc.scan(lambda c, v: (cube(c) * v, square(v)), x[0], x)
        return carry + np.sum(diffc.jit(cube)(ys))

    def real(x):
        """The same with the derivatives that the rules claim, by stopping gradients."""

        def with_slope(value, slope, at):
            return value + slope * (at - diffc.stop_gradient(at))

        def cubed(c):
            return with_slope(*map(diffc.stop_gradient, (c**3, 30 * c * c)), c)

        def squared(c):
            return with_slope(*map(diffc.stop_gradient, (c**2, 20 * c)), c)

        carry = x[0]
        total = 0.0
        for i in range(3):
            carry = cubed(carry) * x[i]
            total = total + cubed(squared(x[i]))
        return carry + total

    close(diffc.grad(f)(X), diffc.grad(real)(X), 1e-10)
    close(diffc.jacfwd(f)(X), diffc.grad(real)(X), 1e-10)


def test_gradients_can_be_clipped():
    found = diffc.grad(lambda x: np.sum(clipped(x) * np.array([5.0, 0.5, -3.0])))(X)
    close(found, [1.0, 0.5, -1.0])
    per_example = diffc.vmap(diffc.grad(lambda x: clipped(x) ** 3))(X)
    close(per_example, np.clip(3 * X**2, -1, 1))


def test_a_rule_that_is_not_linear_has_no_forward_mode():
    with pytest.raises(UsageError, match=r"linear in its cotangents.*(chooses|not linear)"):
        diffc.jvp(clipped, (X,), (X,))


def test_batches_of_which_only_some_arguments_are_mapped():
    @diffc.custom_vjp
    def scaled(w, x):
        return w * x

    scaled.defvjp(lambda w, x: (w * x, (w, x)), lambda k, ct: (2 * k[1] * ct, 3 * k[0] * ct))

    @diffc.custom_jvp
    def pushed(w, x):
        return w * x

    pushed.defjvps(lambda dot, out, w, x: 2 * dot * x, lambda dot, out, w, x: 3 * w * dot)
    for f in (scaled, pushed):

        def loss(w, x, f=f):
            return np.sum(diffc.vmap(f, (None, 0))(w, x) * np.arange(1.0, 4.0))

        close(diffc.grad(loss)(2.0, X), np.sum(2 * X * np.arange(1.0, 4.0)))
        close(diffc.grad(loss, 1)(2.0, X), 3 * 2.0 * np.arange(1.0, 4.0))
        close(diffc.vmap(diffc.grad(f, (0, 1)), (None, 0))(2.0, X)[0], 2 * X)
        close(diffc.jacfwd(diffc.vmap(f, (None, 0)))(2.0, X), 2 * X)
        each = diffc.vmap(diffc.vmap(diffc.grad(f), (None, 0)), (0, None))(X, X)
        close(each, np.tile(2 * X, (3, 1)))


def test_trees_integers_and_zeros():
    @diffc.custom_jvp
    def f(p, k):
        return {"y": p["a"] * p["b"][0], "n": k + 1}

    @f.defjvp
    def rule(primals, tangents):
        p, k = primals
        p_dot, k_dot = tangents
        assert k_dot is None
        return f(p, k), {"y": p_dot["a"] * p["b"][0] * 7, "n": None}

    p = {"a": X, "b": [2.0]}
    found = diffc.grad(lambda p: np.sum(f(p, 3)["y"]))(p)
    close(found["a"], np.full(3, 14.0))
    assert found["b"][0] == 0
    assert diffc.jit(f)(p, 3)["n"] == 4

    @diffc.custom_vjp
    def g(p, k):
        return p["a"] * k, k

    g.defvjp(
        lambda p, k: (g(p, k), {"k": k, "one": 1.0}),
        lambda kept, ct: ({"a": ct[0] * kept["k"] * 5 * kept["one"]}, None),
    )
    close(diffc.grad(lambda p: np.sum(g(p, 2)[0]))({"a": X})["a"], np.full(3, 10.0))


def test_arguments_that_are_python_values():
    @functools.partial(diffc.custom_jvp, nondiff_argnums=(0, 2))
    def apply(f, x, power):
        return f(x) ** power

    @apply.defjvp
    def rule(f, power, primals, tangents):
        (x,), (dot,) = primals, tangents
        return apply(f, x, power), dot * power

    close(diffc.grad(lambda x: np.sum(apply(np.sin, x, 2)))(X), np.full(3, 2.0))
    close(diffc.jit(lambda x: apply(np.sin, x, power=2))(X), np.sin(X) ** 2)

    @functools.partial(diffc.custom_vjp, nondiff_argnums=1)
    def scaled(x, how):
        return x * how["by"]

    scaled.defvjp(lambda x, how: (x * how["by"], ()), lambda how, kept, ct: (ct * how["back"],))
    how = {"by": 2.0, "back": 9.0}
    close(diffc.grad(lambda x: np.sum(scaled(x, how)))(X), np.full(3, 9.0))


def test_float32_and_python_numbers():
    @diffc.custom_vjp
    def f(x, k):
        return x * k

    f.defvjp(lambda x, k: (x * k, k), lambda k, ct: (ct * k, 0.0))
    x = X.astype(np.float32)
    found = diffc.grad(lambda x: np.sum(f(x, 3.0)))(x)
    assert found.dtype == np.float32
    close(found, np.full(3, 3.0))


def test_softplus_without_overflow():
    @diffc.custom_jvp
    def log1pexp(x):
        return np.log(1 + np.exp(x))

    log1pexp.defjvps(lambda dot, out, x: dot * (1 - 1 / (1 + np.exp(x))))
    assert diffc.grad(log1pexp)(1000.0) == 1.0


def test_read_only_arrays_become_part_of_a_rule():
    table = np.array([1.0, 2.0, 3.0])

    @diffc.custom_jvp
    def f(x):
        return x * table

    f.defjvps(lambda dot, out, x: dot * table * 10)
    with pytest.raises(UsageError, match=r"reads the array f64\[3\] from outside"):
        diffc.grad(total(f))(X)
    table.flags.writeable = False
    close(diffc.grad(total(f))(X), table * 10)
    close(diffc.vmap(diffc.grad(total(f)))(X[None])[0], table * 10)


# --- errors -----------------------------------------------------------------------------------


def test_a_rule_is_needed():
    with pytest.raises(UsageError, match="custom_jvp f has no rule"):
        _without_rule("custom_jvp")(X)
    with pytest.raises(UsageError, match="custom_vjp f has no rule"):
        _without_rule("custom_vjp")(X)


def _without_rule(kind):
    def f(x):
        return x

    return diffc.jit(getattr(diffc, kind)(f))


def _with_rule(rule):
    f = diffc.custom_jvp(lambda x: 2 * x)
    f.defjvp(rule)
    return diffc.grad(lambda x: np.sum(f(x)))


@pytest.mark.parametrize(
    ("rule", "kind", "match"),
    [
        (lambda p, t: (p[0], p[0] * t[0], 0), UsageError, "returns a pair"),
        (lambda p, t: ((p[0],), t[0]), UsageError, "a rule differs from its function"),
        (lambda p, t: (p[0], t[0][:2]), ShapeError, r"has shape \[2\], needs \[3\]"),
        (lambda p, t: (p[0], t[0].astype(np.float32)), DtypeError, "has dtype f32, needs f64"),
        (lambda p, t: (p[0], t[0] * t[0]), UsageError, "not linear in its tangents: mul"),
        (lambda p, t: (p[0], t[0] + 1), UsageError, "not linear in its tangents: add adds"),
    ],
)
def test_wrong_rules_for_tangents(rule, kind, match):
    with pytest.raises(kind, match=match):
        _with_rule(rule)(X)


@pytest.mark.parametrize(
    ("fwd", "bwd", "match"),
    [
        (lambda x: x, lambda k, ct: (ct,), "returns a pair"),
        (lambda x: ((x, x), 0), lambda k, ct: (ct,), "a rule differs from its function"),
        (lambda x: (x, ()), lambda k, ct: ct, "tuple with one cotangent"),
        (lambda x: (x, ()), lambda k, ct: (ct, ct), "each of 1 arguments"),
        (lambda x: (x, ()), lambda k, ct: (ct[:1],), r"has shape \[1\], needs \[3\]"),
    ],
)
def test_wrong_rules_for_cotangents(fwd, bwd, match):
    f = diffc.custom_vjp(lambda x: 2 * x)
    f.defvjp(fwd, bwd)
    with pytest.raises((UsageError, ShapeError), match=match):
        diffc.grad(lambda x: np.sum(f(x)))(X)


def test_a_differentiated_value_must_be_an_argument():
    def outer(w):
        f = diffc.custom_jvp(lambda x: x * w)
        f.defjvps(lambda dot, out, x: dot)
        return np.sum(f(X))

    with pytest.raises(UsageError, match="reads a value from outside that is differentiated"):
        diffc.grad(outer)(2.0)


def test_traced_arrays_are_no_python_values():
    f = diffc.custom_jvp(lambda x, k: x * k, nondiff_argnums=1)
    f.defjvp(lambda k, p, t: (p[0], t[0]))
    with pytest.raises(UsageError, match="nondiff_argnums, but is a traced array"):
        diffc.jit(f)(X, 2.0)


def test_writes_are_refused():
    def f(x):
        x[0] = 1
        return x * 2

    custom = diffc.custom_jvp(f)
    custom.defjvps(lambda dot, out, x: dot)
    with pytest.raises(TraceError, match="writes to its argument"):
        diffc.jit(custom)(X.copy())


def test_they_take_functions():
    for make in (diffc.custom_jvp, diffc.custom_vjp, diffc.checkpoint):
        with pytest.raises(UsageError, match="takes a function"):
            make(3)


def test_nothing_custom_is_left_to_plan():
    text = diffc.jit(diffc.grad(total(square))).stages(X, until="optimize")
    assert "custom" in diffc.jit(total(square)).stages(X, until="trace").stage("trace").text
    assert "custom" not in text.stage("optimize").text
    forward = diffc.jit(lambda x: diffc.jvp(square, (x,), (x,))[1])
    assert "custom" not in forward.stages(X, until="optimize").stage("optimize").text


@pytest.mark.parametrize("derivative", [diffc.grad, lambda f: lambda x: diffc.jet(f, (x,), ([x],))])
def test_a_rule_that_reads_an_array_is_told_at_the_users_line(derivative):
    scale = np.array([1.0, 2.0, 3.0])

    @diffc.custom_vjp
    def scaled(x):
        return np.sum(x * scale)

    scaled.defvjp(lambda x: (scaled(x), x), lambda kept, ct: (ct * scale,))
    with pytest.raises(UsageError, match="reads the array") as caught:
        derivative(scaled)(X)
    assert "test_custom.py:" in str(caught.value)
