"""The worked examples of the lectures, W12 to W16: checks by differences, penalties, whole nets."""

import numpy as np
import pytest
import sympy

import diffc
from diffc.ir.text import print_graph

SLIDE = {"rtol": 0, "atol": 5.1e-11}


def sigmoid(x):
    return 1.0 / (1.0 + np.exp(-x))


def w12(x):
    return x * np.sin(5.0 * x)


@pytest.mark.parametrize(
    ("h", "forward", "central"),
    [
        (1e-1, 1.37, 5.9e-2),
        (1e-4, 1.3e-3, 6.1e-8),
        (1e-8, 1.3e-7, 3.8e-9),
        (1e-12, 2.4e-5, 3.2e-5),
    ],
)
def test_w12_the_v_of_finite_differences(h, forward, central):
    """f = x sin 5x: exact, and by differences whose error falls, then grows. Consistent.

    The deck says that forward differences in d dimensions cost d calls; they cost d + 1.
    """
    exact = diffc.grad(w12)(1.0)
    assert np.allclose(exact, 0.4593866527, **SLIDE)
    x = sympy.symbols("x")
    slope = sympy.diff(x * sympy.sin(5 * x), x)
    assert sympy.simplify(slope - (5 * x * sympy.cos(5 * x) + sympy.sin(5 * x))) == 0
    assert float(exact) == pytest.approx(float(slope.evalf(30, subs={x: 1})), rel=4e-15)
    f = diffc.jit(w12)
    one_sided = abs((f(1.0 + h) - f(1.0)) / h - exact)
    two_sided = abs((f(1.0 + h) - f(1.0 - h)) / (2.0 * h) - exact)
    # where cancellation rules, the error is whatever the last bit of sin makes it
    factor = 1.05 if h > 1e-6 else 20.0
    assert forward / factor < one_sided < forward * factor
    if h > 1e-6:
        assert two_sided == pytest.approx(central, rel=0.05)
    else:
        assert two_sided < central * 20


def test_w13_gradient_of_a_classifier_by_differences():
    """(1.25322 - 1.25347) / 1e-4 = -2.5, and the same check on a loss of that kind. Consistent."""

    @diffc.jit
    def slope(after, before, h):
        return (after - before) / h

    assert float(slope(1.25322, 1.25347, 1e-4)) == pytest.approx(-2.5, abs=1e-9)
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((5, 4)), np.array([0, 2, 1, 1, 0])

    def loss(w):
        z = x @ w
        s = z - np.max(z, axis=1, keepdims=True)
        lp = s - np.log(np.sum(np.exp(s), axis=1, keepdims=True))
        return -np.mean(lp[np.arange(5), y])

    w = rng.standard_normal((4, 3))
    f, analytic = diffc.jit(loss), diffc.grad(loss)(w)
    for at in np.ndindex(w.shape):
        step = np.zeros_like(w)
        step[at] = 1e-5
        numeric = (f(w + step) - f(w - step)) / 2e-5
        assert numeric == pytest.approx(analytic[at], rel=1e-6, abs=1e-9)


PENALTIES = {
    "l2": (lambda w: np.sum(w * w), (1.0, 0.25), ((2, 0, 0, 0), (0.5,) * 4)),
    "l1": (lambda w: np.sum(np.abs(w)), (1.0, 1.0), ((1, 0, 0, 0), (1.0,) * 4)),
    "elastic": (
        lambda w: np.sum(1.0 * (w * w) + np.abs(w)),
        (2.0, 1.25),
        ((3, 0, 0, 0), (1.5,) * 4),
    ),
}


@pytest.mark.parametrize("name", PENALTIES)
def test_w14_penalties(name):
    """Two weights with one score: L2 prefers the spread one.

    The lecture asks which one L1 prefers; strictly neither, the values tie. The gradient of abs at
    0 is sign(0) = 0.
    """
    penalty, values, grads = PENALTIES[name]
    x = np.ones(4)
    weights = np.array([1.0, 0, 0, 0]), np.full(4, 0.25)
    for w, value, grad in zip(weights, values, grads, strict=True):
        assert float(diffc.jit(lambda w: w @ x)(w)) == 1.0
        found_value, found = diffc.value_and_grad(penalty)(w)
        assert float(found_value) == value
        assert np.array_equal(found, grad)


def w15(w0, w1, w2, x0, x1):
    return sigmoid(w0 * x0 + w1 * x1 + w2)


W15_BACKWARD = """\
func @w15_grad(w0: f64[], w1: f64[], w2: f64[], x0: f64[], x1: f64[]) -> (f64[], f64[], f64[], f64[], f64[], f64[]) {
  %0: f64[] = mul(w0, x0)
  %1: f64[] = mul(w1, x1)
  %2: f64[] = add(%0, %1)
  %3: f64[] = add(%2, w2)
  %4: f64[] = logistic(%3)
  %5: f64[] = neg(%3)
  %6: f64[] = logistic(%5)
  %7: f64[] = mul(%4, %6)
  %8: f64[] = mul(%7, w1)
  %9: f64[] = mul(%7, x1)
  %10: f64[] = mul(%7, w0)
  %11: f64[] = mul(%7, x0)
  return %4, %11, %9, %7, %10, %8
}
"""  # noqa: E501  # the text as it is printed


def test_w15_flat_code():
    """L = sigmoid(w0 x0 + w1 x1 + w2): the generated backward is the slide's flat code.

    One local gradient, s(1-s), then one product per input. The text of the lecture has no numbers;
    these are the well-known ones that go with it.
    """
    args = (2.0, -3.0, -3.0, -1.0, -2.0)
    step = diffc.value_and_grad(w15, argnums=(0, 1, 2, 3, 4))
    value, grads = step(*args)
    assert np.allclose(value, 0.7310585786, **SLIDE)
    expected = (-0.1966119332, -0.3932238665, 0.1966119332, 0.3932238665, -0.5898357997)
    assert np.allclose(grads, expected, **SLIDE)
    graph = step.compile(*args).stage("optimize").value
    assert print_graph(graph).strip() == W15_BACKWARD.strip()


N, D_IN, H, D_OUT = 64, 1000, 100, 10
LOSSES = {0: 24635.893499, 1: 17744.752141, 10: 8926.010224, 50: 4256.830463, 100: 2383.155575}


def w16_data():
    rng = np.random.RandomState(0)  # the lecture's legacy generator, in its order
    x, y = rng.randn(N, D_IN), rng.randn(N, D_OUT)
    return x, y, (rng.randn(D_IN, H), rng.randn(H, D_OUT))


def w16_loss(weights, x, y):
    w1, w2 = weights
    h = 1.0 / (1.0 + np.exp(-x.dot(w1)))
    return np.square(h.dot(w2) - y).sum()


def w16_by_hand(weights, x, y):
    """The backward pass as the slide writes it."""
    w1, w2 = weights
    h = 1.0 / (1.0 + np.exp(-x.dot(w1)))
    grad_y = 2.0 * (h.dot(w2) - y)
    grad_w2 = h.T.dot(grad_y)
    grad_h = grad_y.dot(w2.T)
    return x.T.dot(grad_h * h * (1.0 - h)), grad_w2


def test_w16_by_hand():
    """The slide's hand-written backward pass equals the compiled one to 1e-12."""
    x, y, weights = w16_data()
    value, grads = diffc.value_and_grad(w16_loss)(weights, x, y)
    assert float(value) == pytest.approx(LOSSES[0], abs=5e-7)
    for found, expected in zip(grads, w16_by_hand(weights, x, y), strict=True):
        assert np.max(np.abs(found - expected)) <= 1e-12 * np.max(np.abs(expected))


def test_w16_training():
    """The slide's loop: loss, gradients and update are one compiled program.

    The text of the slide has lost a character: `w1 = 1e-4 * grad` is `w1 -= 1e-4 * grad`.
    """
    x, y, weights = w16_data()

    def step(weights, x, y):
        value, (g1, g2) = diffc.value_and_grad(w16_loss)(weights, x, y)
        w1, w2 = weights
        return value, (w1 - 1e-4 * g1, w2 - 1e-4 * g2)

    step = diffc.jit(step, donate_argnums=0)
    for t in range(101):
        value, weights = step(weights, x, y)
        if t in LOSSES:
            assert float(value) == pytest.approx(LOSSES[t], rel=1e-9)
