"""The worked examples of the lectures on back-propagation, W1 to W11: compiled, in f64.

Expected numbers are those recomputed in f64 from the lectures' inputs; where a slide disagrees,
the test's docstring says so.
"""

import numpy as np
import pytest
import sympy

import diffc

CLOSE = {"rtol": 1e-13, "atol": 1e-15}
SLIDE = {"rtol": 0, "atol": 5.1e-11}  # ten digits are printed


def check(f, args, value, grads, **close):
    """`f`'s value, and its gradient by all arguments, against the expected."""
    found_value, found = diffc.value_and_grad(f, argnums=tuple(range(len(args))))(*args)
    close = close or CLOSE
    assert np.allclose(found_value, value, **close)
    for i, (a, b) in enumerate(zip(found, grads, strict=True)):
        assert np.asarray(a).dtype == np.float64
        assert np.shape(a) == np.shape(args[i])
        assert np.allclose(a, b, **close), f"argument {i}"


def check_sympy(f, formula, names, point):
    """Value and gradient against SymPy's, to 15 digits."""
    symbols = sympy.symbols(names)
    at = dict(zip(symbols, point, strict=True))
    value = float(formula(*symbols).evalf(30, subs=at))
    grads = [float(sympy.diff(formula(*symbols), s).evalf(30, subs=at)) for s in symbols]
    check(f, point, value, grads, rtol=2e-15, atol=0)


def relu(x):
    return np.maximum(x, 0.0)


def sigmoid(x):
    return 1.0 / (1.0 + np.exp(-x))


def test_w1_two_paths():
    """Network of two hidden units, one dead. Consistent; its backward pass was drawn by hand."""

    def loss(x, w11, w12, w21, w22):
        z = w21 * relu(w11 * x) + w22 * relu(w12 * x)
        return (z - 1.0) ** 2 / 2.0

    args = (1.0, 2.0, -1.0, 1.0, 3.0)
    check(loss, args, 0.5, (2.0, 1.0, 0.0, 2.0, 0.0))
    _, grads = diffc.value_and_grad(loss, argnums=(0, 1, 2, 3, 4))(*args)
    assert float(grads[2]) == 0.0 and float(grads[4]) == 0.0  # a dead unit: exactly nothing

    def from_hidden(u, v):
        return ((1.0 * u + 3.0 * v) - 1.0) ** 2 / 2.0

    check(from_hidden, (2.0, 0.0), 0.5, (1.0, 3.0))


@pytest.mark.parametrize(("x", "value", "slope"), [(1.0, 13.0, 12.0), (-1.0, 1.0, 0.0)])
def test_w2_depth_two(x, value, slope):
    """f(x) = relu(1 + 3 relu(4x)). Consistent."""
    check(lambda x: relu(1.0 + 3.0 * relu(4.0 * x)), (x,), value, (slope,))


XOR_X = np.array([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
XOR_Y = np.array([0.0, 1.0, 1.0, 0.0])


def linear_mse(p):
    return np.mean((XOR_X @ p[:2] + p[2] - XOR_Y) ** 2)


def test_w3_linear_xor():
    """The best linear fit of XOR says 1/2 everywhere. Consistent."""
    best = np.array([0.0, 0.0, 0.5])
    check(linear_mse, (best,), 0.25, (np.zeros(3),))
    step = diffc.jit(lambda p: p - 0.5 * diffc.grad(linear_mse)(p))
    p = np.array([1.0, -2.0, 3.0])
    for _ in range(300):
        p = step(p)
    assert np.allclose(p, best, atol=1e-10)
    gradient = diffc.grad(linear_mse)
    hessian = np.array([gradient(e) - gradient(np.zeros(3)) for e in np.eye(3)])  # it is linear
    design = np.c_[XOR_X, np.ones(4)]
    assert np.allclose(hessian, 2.0 * design.T @ design / 4.0)
    assert np.all(np.linalg.eigvalsh(hessian) > 0.0)


def test_w4_xor_by_hand():
    """The hand-set ReLU net for XOR. The slide writes W^T x and means X W, row by row."""

    def outputs(W, c, w, b):
        return relu(XOR_X @ W + c) @ w + b

    def mse(W, c, w, b):
        return np.mean((outputs(W, c, w, b) - XOR_Y) ** 2)

    W, c, w = np.ones((2, 2)), np.array([0.0, -1.0]), np.array([1.0, -2.0])
    steps = diffc.jit(lambda W, c: (XOR_X @ W, XOR_X @ W + c, relu(XOR_X @ W + c)))(W, c)
    assert steps[0].tolist() == [[0, 0], [1, 1], [1, 1], [2, 2]]
    assert steps[1].tolist() == [[0, -1], [1, 0], [1, 0], [2, 1]]
    assert steps[2].tolist() == [[0, 0], [1, 0], [1, 0], [2, 1]]
    assert diffc.jit(outputs)(W, c, w, 0.0).tolist() == [0, 1, 1, 0]
    check(mse, (W, c, w, 0.0), 0.0, (0 * W, 0 * c, 0 * w, 0.0))
    value, slope = diffc.value_and_grad(mse, argnums=3)(W, c, w, 0.1)
    assert np.allclose((value, slope), (0.01, 0.2), **CLOSE)


def test_w5_fan_out():
    """e = (a+b)(b+1): b is used twice and its gradients add up, 5 = 2·1 + 3·1. Consistent."""
    check(lambda a, b: (a + b) * (b + 1.0), (2.0, 1.0), 6.0, (2.0, 5.0))


def w6(w, x, y):
    return (y - sigmoid(w[0] * x[0] ** 3 + w[1] * x[1])) ** 2 / 2.0


W6_W, W6_X = np.array([0.02, 0.01]), np.array([3.0, 5.0])


def test_w6_sigmoid_unit():
    """One sigmoid unit on (x1³, x2).

    The slide is wrong in three places: it writes dL/du = y - u where it uses, rightly, u - y; its
    3.9851 comes from rounding to four digits (3.98568); and its step is off (see W7).
    """
    value, (w_ct, x_ct) = diffc.value_and_grad(w6, argnums=(0, 1))(W6_W, W6_X, 0.0)
    assert np.allclose(value, 0.2069593553, **SLIDE)
    assert np.allclose(w_ct, [3.9856816552, 0.7380891954], **SLIDE)
    assert np.allclose(x_ct, [0.0797136331, 0.0014761784], **SLIDE)
    u, slope = diffc.value_and_grad(sigmoid)(0.59)
    assert np.allclose((u, slope), (0.6433651457, 0.2294464350), **SLIDE)
    check_sympy(
        lambda w1, w2, x1, x2: (0.0 - sigmoid(w1 * x1**3 + w2 * x2)) ** 2 / 2.0,
        lambda w1, w2, x1, x2: (1 / (1 + sympy.exp(-w1 * x1**3 - w2 * x2))) ** 2 / 2,
        "w1 w2 x1 x2",
        (0.02, 0.01, 3.0, 5.0),
    )


def test_w7_a_step():
    """A step of W6 with lr 0.01.

    The slide gets w1 = -0.0599 for .02 - .01·3.9851 = -.0199, rounds it to -.06 on the next slide,
    and so finds L = .0148, which is the right loss for w1 = -.06 (0.0148292428).
    """

    @diffc.jit
    def step(w, x, y):
        return w - 0.01 * diffc.grad(w6)(w, x, y)

    w = step(W6_W, W6_X, 0.0)
    assert np.allclose(w, [-0.0198568166, 0.0026191080], **SLIDE)
    loss = diffc.jit(w6)
    assert np.allclose(loss(w, W6_X, 0.0), 0.0692448356, **SLIDE)
    only_first = np.array([w[0], 0.01])
    assert np.allclose(only_first[0] * 27 + 0.05, -0.4861340469, **SLIDE)
    assert np.allclose(diffc.jit(sigmoid)(only_first[0] * 27 + 0.05), 0.3808047093, **SLIDE)
    assert np.allclose(loss(only_first, W6_X, 0.0), 0.0725061133, **SLIDE)
    assert np.allclose(loss(np.array([-0.06, 0.01]), W6_X, 0.0), 0.0148292428, **SLIDE)


def w8(x, z):
    return np.exp(x * z) + x * z / np.log(x) + np.sin(np.log(x)) / (x * z)


def test_w8_named_intermediates():
    """y = e^(xz) + xz/ln x + sin(ln x)/(xz) with a = xz, b = ln x, c = sin b.

    The slide stops at formulas; they are right. An adjoint of an intermediate is the gradient by
    something that is added to it.
    """
    value, (dx, dz) = diffc.value_and_grad(w8, argnums=(0, 1))(2.0, 3.0)
    assert np.allclose(value, 412.1914572841, **SLIDE)
    assert np.allclose((dx, dz), (1208.3812151266, 809.7074792186), rtol=0, atol=1.5e-10)

    def shifted(a_shift, b_shift, c_shift):
        a = 2.0 * 3.0 + a_shift
        b = np.log(2.0) + b_shift
        c = np.sin(b) + c_shift
        d, e, f = np.exp(a), a / b, c / a
        return d + e + f, (a, b, c, d, e, f)

    ((_, named), adjoints) = diffc.value_and_grad(shifted, argnums=(0, 1, 2), has_aux=True)(
        0.0, 0.0, 0.0
    )
    expected = (6.0, 0.6931471806, 0.6389612763, 403.4287934927, 8.6561702453, 0.1064935461)
    assert np.allclose(named, expected, **SLIDE)
    assert np.allclose(adjoints, (404.8537396093, -12.3600074025, 0.1666666667), **SLIDE)
    check_sympy(
        w8,
        lambda x, z: sympy.exp(x * z) + x * z / sympy.log(x) + sympy.sin(sympy.log(x)) / (x * z),
        "x z",
        (2.0, 3.0),
    )


W9 = {
    "W1": np.array([[3.0], [-1.0]]),
    "b1": np.zeros(2),
    "W2": np.array([[-1.0, 1.0], [0.0, 1.0], [1.0, 1.0]]),
    "b2": np.array([2.0, -2.0, 0.0]),
    "W3": np.array([[-1.0, 1.0, 1.0 / 3.0]]),
    "b3": np.array([5.0]),
}


def w9_output(p, x):
    s1 = p["W1"] @ x + p["b1"]
    s2 = p["W2"] @ relu(s1) + p["b2"]
    return p["W3"] @ relu(s2) + p["b3"], (s1, s2)


def w9(p, x):
    y, _ = w9_output(p, x)
    return np.sum((y - 1.0) ** 2) / 2.0


def test_w9_matrix_backprop():
    """A 1-2-3-1 ReLU network at x = 1.

    The slides' input is in a lost picture; W3's last entry is 1/3 on most slides and 1/2 on one,
    b3 is 5, once 3. Their sigma'(o) means sigma'(s), at the pre-activation.
    """
    value, (p_ct, x_ct) = diffc.value_and_grad(w9, argnums=(0, 1))(W9, np.array([1.0]))
    _, (s1, s2) = diffc.jit(w9_output)(W9, np.array([1.0]))
    assert s1.tolist() == [3, -1] and s2.tolist() == [-1, -2, 3]
    assert np.allclose(value, 12.5, **CLOSE)
    assert np.allclose(p_ct["W3"], [[0, 0, 15]], **CLOSE)
    assert np.allclose(p_ct["b3"], [5], **CLOSE)
    assert np.allclose(p_ct["b2"], [0, 0, 5 / 3], **CLOSE)
    assert np.allclose(p_ct["W2"], [[0, 0], [0, 0], [5, 0]], **CLOSE)
    assert np.allclose(p_ct["b1"], [5 / 3, 0], **CLOSE)
    assert np.allclose(p_ct["W1"], [[5 / 3], [0]], **CLOSE)
    assert np.allclose(x_ct, [5], **CLOSE)


@pytest.mark.parametrize(
    ("x", "y", "loss", "slope"),
    [(1.0, 6.0, 12.5, 5.0), (-1.0, 7 / 3, 8 / 9, 8 / 9), (2.0, 7.0, 18.0, 6.0)],
)
def test_w9_other_inputs(x, y, loss, slope):
    """W9 where other parts of the network are active."""
    assert np.allclose(diffc.jit(w9_output)(W9, np.array([x]))[0], [y], **CLOSE)
    value, x_ct = diffc.value_and_grad(w9, argnums=1)(W9, np.array([x]))
    assert np.allclose(value, loss, **CLOSE)
    assert np.allclose(x_ct, [slope], **CLOSE)


@pytest.mark.parametrize(
    ("last", "b3", "y", "loss"),
    [(1 / 3, 3.0, 4.0, 4.5), (1 / 2, 5.0, 6.5, 15.125), (1 / 2, 3.0, 4.5, 6.125)],
)
def test_w9_variants_of_the_slides(last, b3, y, loss):
    """W9 with the W3 and b3 of the other slides."""
    p = W9 | {"W3": np.array([[-1.0, 1.0, last]]), "b3": np.array([b3])}
    assert np.allclose(diffc.jit(w9_output)(p, np.array([1.0]))[0], [y], **CLOSE)
    assert np.allclose(diffc.jit(w9)(p, np.array([1.0])), loss, **CLOSE)


def test_w10_smallest():
    """f = (x+y)z. Consistent."""
    check(lambda x, y, z: (x + y) * z, (-2.0, 5.0, -4.0), -12.0, (-4.0, -4.0, 3.0))
    check(lambda q, z: q * z, (3.0, -4.0), -12.0, (-4.0, 3.0))


def test_w11_symbolic():
    """y = 5 x1 + sin(x2 + pi): the gradient is (5, cos(x2 + pi)). Consistent."""

    def f(x1, x2):
        return 5.0 * x1 + np.sin(x2 + np.pi)

    check(f, (2.0, 0.5), 9.5205744614, (5.0, -0.8775825619), **SLIDE)
    x1, x2 = sympy.symbols("x1 x2")
    gradient = [sympy.diff(5 * x1 + sympy.sin(x2 + sympy.pi), s) for s in (x1, x2)]
    assert sympy.simplify(gradient[1] - sympy.cos(x2 + sympy.pi)) == 0
    assert gradient[0] == 5
