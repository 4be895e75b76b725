"""What is not taken, not read or masked away contributes exactly nothing to a derivative.

Each program is held against a safe one, which never computes what is infinite or nan; in all modes,
within all kinds of control flow, and for second derivatives.
"""

import numpy as np
import pytest

import diffc

X = np.array([4.0, 0.0, -1.0, 9.0])
M = X > 0
FEW = np.array([0, 3, 3])


def safe(x):
    return np.where(M, x, 1.0)


def total(y):
    """The sum where the mask holds."""
    return np.sum(np.where(M, y, 0))


def put(y):
    out = np.zeros(4)
    out[FEW[:2]] = y[FEW[:2]]
    return np.sum(out)


def overwritten(y):
    y[np.array([1, 2])] = 0.0
    return np.sum(y)


def rows(y):
    return y.reshape(2, 2)


def softmax_of_mask(x):
    z = np.where(M, x, -np.inf)
    e = np.exp(z - np.max(z))
    return total(e / np.sum(e) * np.sqrt(x))


def safe_softmax(x):
    e = np.where(M, np.exp(x - np.max(np.where(M, x, -1e9))), 0)
    return total(e / np.sum(e) * np.sqrt(safe(x)))


CASES = {
    # elementwise
    "sqrt": (lambda x: total(np.sqrt(x)), lambda x: total(np.sqrt(safe(x)))),
    "of what is masked": (
        lambda x: np.sum(np.sqrt(np.where(M, x, 0.0))),
        lambda x: total(np.sqrt(safe(x))),
    ),
    "relu of log": (
        lambda x: total(np.maximum(np.log(x), 0)),
        lambda x: total(np.maximum(np.log(safe(x)), 0)),
    ),
    "clipped": (
        lambda x: total(np.clip(np.log(x), -1, 1.5)),
        lambda x: total(np.clip(np.log(safe(x)), -1, 1.5)),
    ),
    "double where": (
        lambda x: total(np.sqrt(np.where(M, x, 1.0))),
        lambda x: total(np.sqrt(safe(x))),
    ),
    "power": (lambda x: total(x**0.5), lambda x: total(np.sqrt(safe(x)))),
    "power of itself": (
        lambda x: total(np.power(x, x)),
        lambda x: total(np.power(safe(x), safe(x))),
    ),
    "quotient": (lambda x: total(1 / x), lambda x: total(1 / safe(x))),
    "quotient by zero": (lambda x: total(x / np.where(M, x, 0.0) * x), lambda x: total(x)),
    "chain": (
        lambda x: total(np.exp(np.sqrt(np.log(x + 0.5) + 1))),
        lambda x: total(np.exp(np.sqrt(np.log(safe(x) + 0.5) + 1))),
    ),
    "one of several": (
        lambda x: np.sum(np.select([x > 5, x > 0], [np.log(x), np.sqrt(x)], 0.0)),
        lambda x: np.sum(np.select([x > 5, x > 0], [np.log(safe(x)), np.sqrt(safe(x))], 0.0)),
    ),
    "minimum": (
        lambda x: np.sum(np.minimum(np.where(M, np.log(x), 7.0), 7.0)),
        lambda x: np.sum(np.minimum(np.where(M, np.log(safe(x)), 7.0), 7.0)),
    ),
    # reductions
    "masked mean": (
        lambda x: np.mean(np.log(x), where=M),
        lambda x: total(np.log(safe(x))) / 2,
    ),
    "mean of what is selected": (
        lambda x: np.mean(np.log(x)[M]),
        lambda x: total(np.log(safe(x))) / 2,
    ),
    "nansum": (
        lambda x: np.nansum(np.sqrt(x - 0.5)),
        lambda x: total(np.sqrt(safe(x) - 0.5)),
    ),
    "maximum": (
        lambda x: np.max(np.where(M, np.log(x), -np.inf)),
        lambda x: np.max(np.where(M, np.log(safe(x)), -np.inf)),
    ),
    "nanmax": (
        lambda x: np.nanmax(np.log(x)),
        lambda x: np.max(np.where(M, np.log(safe(x)), -np.inf)),
    ),
    "product": (
        lambda x: np.prod(np.where(M, np.sqrt(x), 1.0)),
        lambda x: np.prod(np.where(M, np.sqrt(safe(x)), 1.0)),
    ),
    "sums so far": (
        lambda x: np.sum(np.cumsum(np.where(M, np.sqrt(x), 0))),
        lambda x: np.sum(np.cumsum(np.where(M, np.sqrt(safe(x)), 0))),
    ),
    "some of the sums so far": (
        lambda x: np.where(np.arange(4) == 0, np.cumsum(np.sqrt(x)), 0)[0],
        lambda x: np.sqrt(safe(x))[0],
    ),
    "roots of the sums so far": (
        lambda x: np.sum(np.sqrt(np.cumsum(np.where(x > 5, x, 0.0)))),
        lambda x: np.sqrt(x)[3],
    ),
    "norm of nothing": (
        lambda x: np.sum(np.linalg.norm(rows(np.where(x > 5, x, 0.0)), axis=1)),
        lambda x: x[3],
    ),
    "centred": (
        lambda x: total((np.sqrt(x) - total(np.sqrt(x)) / 2) ** 2),
        lambda x: total((np.sqrt(safe(x)) - total(np.sqrt(safe(x))) / 2) ** 2),
    ),
    "softmax": (softmax_of_mask, safe_softmax),
    "log of a masked sum": (
        lambda x: np.log(total(np.exp(np.log(x)))),
        lambda x: np.log(total(x)),
    ),
    # movement
    "reshaped": (
        lambda x: np.sum(np.where(rows(M), rows(np.sqrt(x)), 0)),
        lambda x: total(np.sqrt(safe(x))),
    ),
    "transposed": (
        lambda x: np.sum(np.where(rows(M).T, rows(np.sqrt(x)).T, 0)),
        lambda x: total(np.sqrt(safe(x))),
    ),
    "padded": (
        lambda x: np.sum(np.where(np.pad(M, 1), np.pad(np.sqrt(x), 1), 0)),
        lambda x: total(np.sqrt(safe(x))),
    ),
    "concatenated": (
        lambda x: np.sum(np.where(np.append(M, M), np.append(np.sqrt(x), np.log(x)), 0)),
        lambda x: total(np.sqrt(safe(x)) + np.log(safe(x))),
    ),
    "broadcast": (
        lambda x: np.sum(np.where(M[:, None], np.sqrt(x)[:, None] * np.ones((1, 3)), 0)),
        lambda x: 3 * total(np.sqrt(safe(x))),
    ),
    "turned and rolled": (
        lambda x: np.sum(np.where(np.roll(M[::-1], 1), np.roll(np.sqrt(x)[::-1], 1), 0)),
        lambda x: total(np.sqrt(safe(x))),
    ),
    "repeated": (
        lambda x: np.sum(np.where(np.repeat(M, 2), np.repeat(np.sqrt(x), 2), 0)),
        lambda x: 2 * total(np.sqrt(safe(x))),
    ),
    "windows": (
        lambda x: np.where(np.arange(3) == 0, np.sqrt(x)[:-1] * np.log(x + 2)[1:], 0)[0],
        lambda x: np.sqrt(safe(x))[0] * np.log(x[1] + 2),
    ),
    "triangle": (
        lambda x: np.sum(np.triu(np.sqrt(x)[:, None] * np.ones(4))[0]),
        lambda x: 4 * np.sqrt(safe(x))[0],
    ),
    # indexing
    "gathered": (lambda x: np.sum(np.sqrt(x)[FEW]), lambda x: np.sum(np.sqrt(safe(x))[FEW])),
    "scattered": (lambda x: put(np.sqrt(x)), lambda x: put(np.sqrt(safe(x)))),
    "overwritten": (lambda x: overwritten(np.sqrt(x)), lambda x: total(np.sqrt(safe(x)))),
    "the largest": (lambda x: np.sqrt(x)[np.argmax(x)], lambda x: np.sqrt(safe(x))[3]),
    "sorted": (
        lambda x: np.sort(np.where(M, np.sqrt(x), 9.0))[0],
        lambda x: np.sort(np.where(M, np.sqrt(safe(x)), 9.0))[0],
    ),
    # before what mixes elements
    "multiplied": (
        lambda x: np.sum(np.ones((4, 4)) @ np.where(M, np.sqrt(x), 0)),
        lambda x: 4 * total(np.sqrt(safe(x))),
    ),
}


def in_scan(f):
    return lambda x: diffc.scan(lambda c, _: (c + f(x), None), 0.0, length=1)[0]


def in_carry(f):
    return lambda x: diffc.scan(lambda c, _: ((f(c[1]), c[1]), None), (0.0, x), length=1)[0][0]


def in_while(f):
    return lambda x: diffc.while_loop(lambda c: c[0] < 1, lambda c: (c[0] + 1, f(x)), (0, 0.0))[1]


def in_cond(f):
    return lambda x: diffc.cond(x[0] > 0, f, lambda x: x[1], x)


def in_batched_cond(f):
    def one(x):
        choose = diffc.vmap(lambda p, x: diffc.cond(p, f, lambda x: x[1], x), (0, None))
        return choose(np.array([True, False]), x)[0]

    return one


def batched(derivative):
    return lambda f: lambda x: diffc.vmap(derivative(f))(np.stack([x, x]))[1]


FIRST = {
    "grad": diffc.grad,
    "jacfwd": diffc.jacfwd,
    "jvp": lambda f: lambda x: diffc.jvp(f, (x,), (np.ones(4),))[1] * np.ones(4),
    "jet": lambda f: lambda x: diffc.jet(f, (x,), ([np.ones(4)],))[1][0] * np.ones(4),
    "vmap of grad": batched(diffc.grad),
    "vmap of jacfwd": batched(diffc.jacfwd),
    "scan": lambda f: diffc.grad(in_scan(f)),
    "carry": lambda f: diffc.jacfwd(in_carry(f)),
    "while": lambda f: diffc.grad(in_while(f)),
    "cond": lambda f: diffc.grad(in_cond(f)),
    "batched cond": lambda f: diffc.grad(in_batched_cond(f)),
    "call": lambda f: diffc.grad(lambda x: diffc.jit(f)(x)),
    "checkpoint": lambda f: diffc.jit(diffc.grad(diffc.checkpoint(f))),
}


def along(f):
    """The second derivative along ones, by Taylor mode."""
    return lambda x: diffc.jet(f, (x,), ([np.ones(4), np.zeros(4)],))[1][1]


SECOND = {
    "forward over reverse": diffc.hessian,
    "reverse over reverse": lambda f: diffc.jacrev(diffc.grad(f)),
    "forward over forward": lambda f: diffc.jacfwd(diffc.jacfwd(f)),
    "reverse over forward": lambda f: diffc.jacrev(diffc.jacfwd(f)),
}
#: these, each with all modes of ``FIRST``; the others with a part of them
ALL_MODES = ("of what is masked", "quotient by zero", "masked mean", "roots of the sums so far")


def same(found, expected):
    assert np.isfinite(expected).all()
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)


def modes():
    names = list(FIRST)
    for k, case in enumerate(CASES):
        own = names if case in ALL_MODES else ["grad", "jacfwd", names[2 + k % (len(names) - 2)]]
        yield from (pytest.param(case, mode, id=f"{case}-{mode}") for mode in own)


@pytest.mark.parametrize(("case", "mode"), list(modes()))
def test_first_derivatives(case, mode):
    f, g = CASES[case]
    derivative = FIRST["jvp"] if mode in ("jvp", "jet") else diffc.grad
    same(FIRST[mode](f)(X), derivative(g)(X))


@pytest.mark.parametrize("case", CASES)
def test_second_derivatives(case):
    f, g = CASES[case]
    expected = diffc.hessian(g)(X)
    same(along(f)(X), np.sum(expected))
    order = list(SECOND)[:: 1 if case in ALL_MODES else 2]
    for name in order:
        same(SECOND[name](f)(X), expected)


def twice(x, **options):
    """The root of the root, in two trips."""
    step = lambda c: (c[0] + 1, np.sqrt(c[1]))  # noqa: E731  # short
    return diffc.while_loop(lambda c: c[0] < 2, step, (0, x), **options)[1]


BORDERS = {
    "scan": lambda x: total(diffc.scan(lambda c, _: (np.sqrt(c), None), x, length=2)[0]),
    "for": lambda x: total(diffc.fori_loop(0, 2, lambda i, c: np.sqrt(c), x)),
    "while": lambda x: total(twice(x)),
    "while with slots": lambda x: total(twice(x, slots=4)),
    "while with stores": lambda x: total(twice(x, store="grow")),
    "cond": lambda x: total(diffc.cond(x[0] > 0, lambda x: np.sqrt(np.sqrt(x)), lambda x: x, x)),
    "call": lambda x: total(diffc.jit(lambda x: np.sqrt(np.sqrt(x)))(x)),
    "checkpoint": lambda x: total(diffc.checkpoint(lambda x: np.sqrt(np.sqrt(x)))(x)),
    "map": lambda x: total(diffc.map(lambda v: np.sqrt(np.sqrt(v)), x)),
    "into a scan": lambda x: np.sum(
        diffc.scan(lambda c, _: (np.sqrt(c), None), np.where(M, x, 0.0), length=2)[0]
    ),
    "into a while": lambda x: np.sum(twice(np.where(M, x, 0.0))),
    "constants of a while": lambda x: total(
        diffc.while_loop(
            lambda c: c[0] < 2, lambda c: (c[0] + 1, c[1] + 0.5 * np.sqrt(np.sqrt(x))), (0, 0 * x)
        )[1]
    ),
    "constants": lambda x: total(
        diffc.scan(lambda c, v: (c + np.sqrt(np.sqrt(x)) * v, None), 0 * x, np.array([0.5, 0.5]))[0]
    ),
}


@pytest.mark.parametrize("border", BORDERS)
@pytest.mark.parametrize("mode", [*FIRST, *SECOND])
def test_choices_across_borders(border, mode):
    def expected(x):
        return total(np.sqrt(np.sqrt(safe(x))))

    f = BORDERS[border]
    if mode in FIRST:
        derivative = FIRST["jvp"] if mode in ("jvp", "jet") else diffc.grad
        same(FIRST[mode](f)(X), derivative(expected)(X))
    else:
        hessian = diffc.hessian(expected)(X)
        same(SECOND[mode](f)(X), hessian)
        same(along(f)(X), np.sum(hessian))


def test_elements_that_are_not_read_of_stacked_results():
    f = lambda x: diffc.map(np.sqrt, x)[0]  # noqa: E731  # short
    np.testing.assert_array_equal(diffc.grad(f)(X), [0.25, 0, 0, 0])
    f = lambda x: diffc.scan(lambda c, v: (np.sqrt(c) + v, c), x[0], x)[1][1]  # noqa: E731  # short
    np.testing.assert_array_equal(diffc.grad(f)(X), [1.25, 0, 0, 0])


@pytest.mark.parametrize("derivative", [diffc.jacfwd, diffc.jacrev])
def test_elements_that_do_not_move(derivative):
    """Both modes give one Jacobian, also where partial derivatives are infinite."""
    x = np.array([4.0, 0.0])
    inf = np.inf
    np.testing.assert_array_equal(derivative(np.sqrt)(x), [[0.25, 0], [0, inf]])
    np.testing.assert_array_equal(
        derivative(lambda x: np.cumsum(np.sqrt(x)))(x), [[0.25, 0], [0.25, inf]]
    )
    np.testing.assert_array_equal(derivative(lambda x: np.sum(np.sqrt(x)))(x), [0.25, inf])


def test_an_honest_nan_stays():
    assert np.isnan(diffc.grad(lambda x: np.sum(np.sqrt(x)))(X)[2])
    assert np.isinf(diffc.grad(lambda x: np.sum(np.sqrt(x)))(X)[1])
    assert np.isnan(diffc.grad(lambda x: np.sum(np.sqrt(x) * M))(X)[2])  # 0 times nan


# --- blocks that are outlined -----------------------------------------------------------------


def layers(x, w):
    """The root at the end of a block meets the choice at the start of the next."""
    y = np.sqrt(x) + 0.3 * M
    for k in range(len(w)):
        y = y / (total(y) + 1.0)
        y = w[k] @ np.sqrt(np.abs(y))
    return total(y)


def test_outlining_ends_no_support():
    w = np.random.default_rng(0).uniform(0.2, 0.6, (12, 4, 4)) * M[:, None] * M
    x = np.where(M, X, 0.0)
    compiled = diffc.grad(layers, (0, 1)).compile(x, w)
    assert "outlined" in compiled.compilation.report()
    for gradient in compiled(x, w):
        assert np.isfinite(gradient).all()
    assert np.isfinite(diffc.jvp(layers, (x, w), (M * 1.0, w))[1])
    step = 1e-3 * M
    slope = (layers(x + step, w[:4]) - layers(x - step, w[:4])) / 2e-3
    found = diffc.grad(layers)(x, w[:4])
    np.testing.assert_allclose(np.sum(found * M), slope, rtol=1e-5)
