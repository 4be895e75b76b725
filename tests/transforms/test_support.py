"""A branch that is not taken contributes exactly nothing: drawn programs against safe ones."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import diffc
from diffc.ops.interpret import evaluate
from diffc.optimize import compact
from diffc.trace import trace
from diffc.transforms import jvp, vjp

# Infinite or nan, with an infinite or nan derivative, where the mask is False.
UNSAFE = {
    "sqrt": (np.sqrt, lambda x: x > 0),
    "log": (np.log, lambda x: x > 0),
    "reciprocal": (lambda x: 1 / x, lambda x: x != 0),
    "pow": (lambda x: np.power(x, 0.25), lambda x: x > 0),
    "arccos": (np.arccos, lambda x: abs(x) < 1),
    "log1p": (np.log1p, lambda x: x > -1),
}
X = np.array([0.5, -1.0, 0.0, 0.75, -2.0, 0.25])


def moved(step, y):
    """A step that moves elements around; the same on arrays, masks and tracers."""
    name, parameter = step
    if name == "slice":
        return y[parameter : parameter + max(len(y) // 2, 1)]
    if name == "reverse":
        return y[::-1]
    if name == "roll":
        return np.roll(y, parameter)
    if name == "repeat":
        return np.reshape(np.broadcast_to(y, (2, len(y))), (-1,))[: len(y) + 1]
    if name == "gather":
        return y[np.arange(len(y) + 1) * (parameter + 1) % len(y)]
    if name == "concat":
        return np.concatenate([y, y[:1]])
    if name == "sort of rows":
        return np.reshape(np.reshape(np.concatenate([y, y]), (2, -1)).T, (-1,))
    assert name == "matrix"
    rows = np.reshape(np.concatenate([y, y]), (2, -1))
    return rows[np.array([1, 0, 1])][:, 0 : max(len(y) - 1, 1)].ravel()


MOVES = ("slice", "reverse", "roll", "repeat", "gather", "concat", "sort of rows", "matrix")
SCALARS = {
    "double": lambda y: 2 * y,
    "square": lambda y: y * y,
    "bell": lambda y: np.exp(-y * y),
    "negative": lambda y: -y,
    "float32": lambda y: y.astype(np.float32).astype(np.float64),
    "reciprocal": lambda y: 1 / (3 + y),
}


def once(body, initial):
    """A loop of one trip."""
    return diffc.while_loop(lambda c: c[0] < 1, lambda c: (c[0] + 1, body(c[1])), (0, initial))[1]


#: what a part of a program may stand in; none of them ends a support
BORDERS = {
    "none": lambda part, y: part(y),
    "call": lambda part, y: diffc.jit(part)(y),
    "checkpoint": lambda part, y: diffc.checkpoint(part)(y),
    "cond": lambda part, y: diffc.cond(y[0] == y[0], part, part, y),
    "switch": lambda part, y: diffc.switch(1, [lambda y: 0 * part(y) + 1, part, part], y),
    "call of call": lambda part, y: diffc.jit(lambda y: diffc.jit(part)(y))(y),
    "map": lambda part, y: diffc.map(part, y[None])[0],
    "scan": lambda part, y: diffc.scan(lambda c, _: (c, part(y)), 0.0, length=2)[1][1],
    "carry": lambda part, y: diffc.scan(lambda c, _: (c, part(c)), y, length=2)[1][0],
    "while": lambda part, y: once(lambda c: part(y), 0 * part(y)),
    "carry of a while": lambda part, y: once(lambda c: (c[0], part(c[0])), (y, 0 * part(y)))[1],
}


@st.composite
def programs(draw, borders=("none",)):
    """``f(x, is_safe)``; safe, the unsafe function never sees what it can't take.

    It has three parts, the unsafe function, steps and an ending, each within one of ``borders``.
    """
    name = draw(st.sampled_from(sorted(UNSAFE)))
    unsafe, fits = UNSAFE[name]
    steps = draw(
        st.lists(
            st.one_of(
                st.tuples(st.sampled_from(MOVES), st.integers(0, 2)),
                st.tuples(st.sampled_from(sorted(SCALARS)), st.just(0)),
            ),
            max_size=4,
        )
    )
    good = fits(X)
    for step in steps:
        good = moved(step, good) if step[0] in MOVES else good
    ending = draw(st.sampled_from(("where", "indexed", "overwritten", "dynamic", "masked sum")))
    places, others = np.flatnonzero(good), np.flatnonzero(~good)
    if len(places) == 0:
        ending = draw(st.sampled_from(("where", "overwritten", "masked sum")))
    times = draw(st.integers(1, 2))
    first, second, last = (draw(st.sampled_from(borders)) for _ in range(3))

    def middle(y):
        for step in steps:
            y = moved(step, y) if step[0] in MOVES else SCALARS[step[0]](y)
        return y

    def end(y):
        if ending == "where":
            return np.sum(np.where(good, y, 3.0))
        if ending == "indexed":
            return np.sum(np.concatenate([y[places]] * times))
        if ending == "overwritten":
            y = y.copy()
            y[others] = 2.0
            return np.sum(y * y)
        if ending == "dynamic":
            return y[places[0] + np.argmin(0 * np.arange(len(good)))]
        return np.sum(np.where(good, y, 0.0) * np.arange(len(good)))

    def f(x, is_safe):
        y = np.where(fits(x), x, 0.5) if is_safe else x
        for part, border in ((unsafe, first), (middle, second), (end, last)):
            y = BORDERS[border](part, y)
        return y

    return f, steps, name, ending, (first, second, last)


def graph_of(f, is_safe):
    traced = trace(lambda x: f(x, is_safe), (X,))
    return traced.graph, [c.array for c in traced.captured]


def gradient(f, is_safe):
    graph, hidden = graph_of(f, is_safe)
    made = vjp(graph, [True, *(False for _ in hidden)])
    if not any(made.active_outputs):
        return np.zeros_like(X)
    with np.errstate(all="ignore"):
        return evaluate(made.graph, [X, *hidden, np.float64(1)])[-1]


def directional(f, is_safe):
    graph, hidden = graph_of(f, is_safe)
    made = jvp(graph, [True, *(False for _ in hidden)])
    if not any(made.active_outputs):
        return np.zeros_like(X)
    with np.errstate(all="ignore"):
        return np.array([evaluate(made.graph, [X, *hidden, unit])[-1] for unit in np.eye(len(X))])


def verify(drawn):
    f, *_ = drawn
    for derivative in (gradient, directional):
        found, expected = derivative(f, False), derivative(f, True)
        assert np.isfinite(expected).all()
        np.testing.assert_allclose(found, expected, rtol=1e-6)


@given(programs())
def test_gradients_are_those_of_the_safe_version(drawn):
    verify(drawn)


@given(programs(sorted(BORDERS)))
def test_regions_do_not_end_a_support(drawn):
    verify(drawn)


# --- second derivatives -----------------------------------------------------------------------

DOT, OTHER = np.random.default_rng(0).standard_normal((2, 6))


def second_derivatives(f, is_safe):
    """Along ``DOT``, in all four orders of the modes; None where there is none."""
    graph, hidden = graph_of(f, is_safe)
    on, given = [True, *(False for _ in hidden), False], [X, *hidden]
    backward, forward = vjp(graph, on[:-1]), jvp(graph, on[:-1])
    if not any(backward.active_outputs):
        return
    for first, middle, last in (
        (backward, np.float64(1), DOT),
        (forward, DOT, OTHER),
    ):
        made = jvp(first.graph, on)
        yield evaluate(made.graph, [*given, middle, last])[-1] if made.active_outputs[-1] else None
    for first, middle, last in (
        (backward, np.float64(1), DOT),
        (forward, DOT, np.float64(1)),
    ):
        made = vjp(first.graph, on, [False, True])
        yield evaluate(made.graph, [*given, middle, last])[-1] if made.active_outputs[-1] else None


@given(programs(sorted(BORDERS)))
def test_second_derivatives_are_those_of_the_safe_version(drawn):
    f, *_ = drawn
    with np.errstate(all="ignore"):
        pairs = list(zip(second_derivatives(f, False), second_derivatives(f, True), strict=True))
    for found, expected in pairs:
        zero = np.zeros(6)
        wanted = zero if expected is None else expected
        assert np.isfinite(wanted).all()
        got = np.zeros_like(wanted) if found is None else found
        np.testing.assert_allclose(got, wanted, rtol=1e-6, atol=1e-9)


# --- blocks that are outlined -----------------------------------------------------------------

MASK = np.array([True, True, True, False, False])
WEIGHTS = np.random.default_rng(0).uniform(0.2, 0.6, (6, 5, 5)) * MASK[:, None] * MASK
STEPS = {
    "where": lambda y, w: np.where(MASK, y, 0.0),
    "sqrt": lambda y, w: np.sqrt(y),
    "log": lambda y, w: np.log(y + 1),
    "product": lambda y, w: w @ y,
    "abs": lambda y, w: np.abs(y),
    "reciprocal": lambda y, w: np.where(y > 0, 1 / y, 0),
    "square": lambda y, w: y * y,
    "exp": lambda y, w: np.exp(-y) * MASK,
    "scale": lambda y, w: y / (np.sum(np.where(MASK, y, 0.0)) + 1.0),
    "add": lambda y, w: y + 0.3 * MASK,
}
NAMES = st.sampled_from(sorted(STEPS))


def derivatives(graph, arrays, hidden):
    """The gradient and a directional derivative, by the interpreter."""
    active = [True, True, *(False for _ in hidden)]
    given = [*arrays, *hidden]
    dots = [MASK * 1.0, WEIGHTS]
    with np.errstate(all="ignore"):
        backward = evaluate(vjp(graph, active).graph, [*given, np.float64(1)])[1:]
        forward = evaluate(jvp(graph, active).graph, [*given, *dots])
    return forward[0], [*backward, forward[1]]


@given(st.lists(NAMES, max_size=3), st.lists(NAMES, min_size=4, max_size=7), st.integers(0, 6))
def test_outlined_blocks_keep_supports(before, block, place):
    block = [*block[:place], "product", *block[place:]]

    def f(x, w):
        y = x
        for name in before:
            y = STEPS[name](y, w[0])
        for k in range(6):
            for name in block:
                y = STEPS[name](y, w[k])
        return np.sum(np.where(MASK, y, 0.0))

    arrays = [np.array([1.0, 0.5, 0.25, 0.0, 0.0]), WEIGHTS]
    traced = trace(f, arrays)
    hidden = [c.array for c in traced.captured]
    outlined = compact(traced.graph, only=[])
    assert any(eqn.op.name == "call" for eqn in outlined.eqns)
    value, expected = derivatives(traced.graph, arrays, hidden)
    again, found = derivatives(outlined, arrays, hidden)
    np.testing.assert_array_equal(again, value)
    if np.isfinite(value):
        for x, y in zip(found, expected, strict=True):
            np.testing.assert_allclose(x, y, rtol=1e-9)


CASES = {
    "indexed": (lambda x: np.sum(np.sqrt(x)[np.array([0, 3])]), [0, 3]),
    "indexed twice": (lambda x: np.sum(np.sqrt(x)[np.array([0, 3, 3])]), [0, 3, 3]),
    "one of them": (lambda x: np.sqrt(x)[3], [3]),
    "along an axis": (lambda x: np.take_along_axis(np.sqrt(x), np.array([3, 5]), 0).sum(), [3, 5]),
    "in a scan": (
        lambda x: diffc.scan(lambda c, i: (c + np.sqrt(x)[i], ()), 0.0, np.array([0, 3]))[0],
        [0, 3],
    ),
    "chosen in a scan": (
        lambda x: diffc.scan(lambda c, v: (c + np.where(v > 0, np.sqrt(v), 0), ()), 0.0, x)[0],
        [0, 3, 5],
    ),
    "in a branch": (
        lambda x: diffc.cond(x[0] > 0, lambda x: np.sqrt(x)[3], lambda x: np.sqrt(x)[1], x),
        [3],
    ),
    "as float32": (lambda x: np.sum(np.sqrt(x).astype(np.float32)[3:4]).astype(float), [3]),
    "sorted": (lambda x: np.sum(np.sort(np.where(x > 0, np.sqrt(x), 9))[:3]), [0, 3, 5]),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("compiled", [False, True])
def test_what_is_not_read_has_gradient_zero(name, compiled):
    f, places = CASES[name]
    expected = np.zeros(6)
    np.add.at(expected, places, 0.5 / np.sqrt(X[places]))
    for derivative in (diffc.grad(f), diffc.jacfwd(f)):
        found = (diffc.jit(derivative) if compiled else derivative)(X)
        np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_what_is_read_is_honest():
    """No support hides a nan that the function itself has."""
    found = diffc.grad(lambda x: np.sum(np.sqrt(x)[np.array([1, 3])]))(X)
    assert np.isnan(found[1])
    assert np.isinf(diffc.grad(lambda x: np.sqrt(x)[2])(X)[2])
    assert np.isnan(diffc.grad(lambda x: np.sqrt(x)[2] ** 2)(X)[2])
