"""Derivatives of every op and of drawn programs within calls, branches, loops and batches.

Held against the same program written out, against finite differences, against each other: forward
and backward, second derivatives in all four orders, batches and loops, Taylor mode. ``tests/deep``
takes every op in every border.
"""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import diffc
import diffc.ops
from diffc.ops.declare import Undefined
from diffc.ops.interpret import evaluate
from diffc.optimize import optimize
from diffc.programs import GraphProgram
from diffc.transforms import batch, expand, jvp, taylor, vjp
from tests.ops.samples import samples
from tests.programs import borders
from tests.programs.drawn import Drawer, operands_for

NAMES = st.lists(st.sampled_from(sorted(borders.BORDERS)), min_size=1, max_size=2)
seeds = st.integers(0, 2**32 - 1)
counts = st.integers(1, 8)


def fewer(share):
    """A part of the profile's number of examples."""
    return settings(max_examples=max(5, int(settings().max_examples * share)))


def quietly(graph, arrays):
    with np.errstate(all="ignore"):
        return evaluate(graph, arrays)


def close(found, expected, scale=1.0, rtol=1e-8):
    """Equal up to rounding of terms of size ``scale``; infinite and nan at the same places."""
    for x, y in zip(found, expected, strict=True):
        np.testing.assert_allclose(x, y, rtol=rtol, atol=rtol * scale)


class Derivatives:
    """All derivatives of a graph with one output, along given directions."""

    def __init__(self, graph, arrays, seed):
        self.graph = graph
        self.arrays = [np.float64(0.3), *arrays]
        self.active = [a.is_float for a in graph.input_avals]
        rng = np.random.default_rng(seed)
        self.dots, self.others = (
            [rng.standard_normal(a.shape).astype(a.numpy) for a in graph.input_avals if a.is_float]
            for _ in range(2)
        )

    def value(self):
        return quietly(self.graph, self.arrays)

    def forward(self):
        return tangents(jvp(self.graph, self.active), [*self.arrays, *self.dots])

    def backward(self):
        return quietly(vjp(self.graph, self.active).graph, [*self.arrays, np.float64(1)])[1:]

    def second(self):
        """``d d' f`` in all four orders of the modes."""
        on, one, dots, others = self.active, np.float64(1), self.dots, self.others
        inactive = [False] * len(dots)
        pushed, pulled = jvp(self.graph, on).graph, vjp(self.graph, on).graph
        twice = jvp(pushed, [*on, *inactive])
        yield inner([one], tangents(twice, [*self.arrays, *dots, *others])[1:])
        over = vjp(pushed, [*on, *inactive], [False, True]).graph
        yield inner(quietly(over, [*self.arrays, *dots, one])[2:], others)
        under = jvp(pulled, [*on, False])
        yield inner(tangents(under, [*self.arrays, one, *others])[1:], dots)
        back = vjp(pulled, [*on, False], [False, *(True for _ in dots)])
        cts = [dot for dot, is_on in zip(dots, back.active_outputs[1:], strict=True) if is_on]
        found = quietly(back.graph, [*self.arrays, one, *cts])
        yield inner(found[1 + len(dots) :], others)


def tangents(made, arrays):
    """The tangents of all outputs of a jvp, zeros where there is none."""
    found = quietly(made.graph, arrays)
    count = len(made.active_outputs)
    rest = iter(found[count:])
    return [
        next(rest) if is_on else np.zeros_like(x)
        for x, is_on in zip(found, made.active_outputs, strict=False)
    ]


def inner(left, right):
    return sum(float(np.vdot(a, b)) for a, b in zip(left, right, strict=True))


def as_by_hand(graph, names, arrays, seed=0, second=True):
    """Holds the derivatives within borders against those of the program written out."""
    native, by_hand = borders.graphs(graph, names, arrays)
    found, expected = Derivatives(native, arrays, seed), Derivatives(by_hand, arrays, seed)
    close(found.value(), expected.value())
    close(found.forward(), expected.forward())
    cts = expected.backward()
    for x, y in zip(found.backward(), cts, strict=True):
        size = np.max(np.abs(y), initial=0, where=np.isfinite(y))
        np.testing.assert_allclose(x, y, rtol=1e-7, atol=1e-9 * size + 1e-12)
    if second:
        orders = list(expected.second())
        scale = max(map(abs, orders))
        for value in found.second():
            np.testing.assert_allclose(value, orders[0], rtol=1e-6, atol=1e-8 * scale + 1e-10)
    return found


# --- every op ---------------------------------------------------------------------------------


def uses(op):
    """Uses of an op that have derivatives, in float64."""
    for sample in samples(op, ("f64",)):
        if any(a.is_float for a in sample.avals) and not isinstance(
            op.fact(sample.params), Undefined
        ):
            yield sample


def graph_of(sample):
    builder = diffc.ir.graph.Builder(sample.op.name)
    inputs = [builder.input(a) for a in sample.avals]
    return builder.build(builder.emit(sample.op, inputs, sample.params, sample.regions))


OPS = [op for op in diffc.ops.every_op() if any(True for _ in uses(op))]
ORDER = list(borders.BORDERS)


@pytest.mark.parametrize("k", range(len(OPS)), ids=[op.name for op in OPS])
def test_every_op_within_a_border(k):
    found = list(uses(OPS[k]))
    for shift in (0, 1):
        sample = found[(7 * k + shift) % len(found)]
        name = ORDER[(5 * k + 3 * shift) % len(ORDER)]
        as_by_hand(graph_of(sample), [name], sample.arrays, k)


# --- drawn programs ---------------------------------------------------------------------------


def drawn(seed, count):
    graph = Drawer(seed, smooth=True).graph(count)
    return graph, operands_for(graph.input_avals, seed)


@given(seeds, counts, NAMES)
def test_borders_change_no_derivative(seed, count, names):
    graph, arrays = drawn(seed, count)
    as_by_hand(graph, names, arrays, seed)


# --- against differences, and each other ------------------------------------------------------


def within(seed, count, names):
    graph, arrays = drawn(seed, count)
    return borders.graphs(graph, names, arrays)[0], arrays


@fewer(0.5)
@given(seeds, counts, NAMES)
def test_jvp_is_what_finite_differences_see(seed, count, names):
    graph, arrays = within(seed, count, names)
    found = Derivatives(graph, arrays, seed)
    (slope,) = found.forward()

    def at(step):
        moved = [x + step * d for x, d in zip(found.arrays, found.dots, strict=True)]
        return float(quietly(graph, moved)[0])

    coarse, fine = ((at(h) - at(-h)) / (2 * h) for h in (2e-5, 1e-5))
    best = (4 * fine - coarse) / 3
    error = abs(coarse - fine) + 1e-9 * abs(at(0)) + 1e-6 * abs(best) + 1e-8
    assume(np.isfinite(best) and abs(coarse - fine) < 1e-2 * (1 + abs(best)))
    assert abs(slope - best) <= 10 * error


@fewer(0.5)
@given(seeds, counts, NAMES)
def test_both_modes_give_one_jacobian(seed, count, names):
    """Of the gradient too: the Hessian is symmetric, whichever mode is on top."""
    graph, arrays = within(seed, count, names)
    found = Derivatives(graph, arrays, seed)
    (slope,), cts = found.forward(), found.backward()
    scale = sum(float(np.vdot(abs(a), abs(b))) for a, b in zip(cts, found.dots, strict=True))
    assume(np.isfinite(scale))
    assert abs(slope - inner(cts, found.dots)) <= 1e-8 * scale + 1e-12
    orders = list(found.second())
    found.dots, found.others = found.others, found.dots
    orders += found.second()
    size = max(map(abs, orders))
    np.testing.assert_allclose(orders, orders[0], rtol=1e-6, atol=1e-7 * size + 1e-9)


@fewer(0.5)
@given(seeds, counts, NAMES, st.booleans())
def test_a_batch_of_derivatives_is_a_loop(seed, count, names, is_forward):
    graph = within(seed, count, names)[0]
    active = [True] * len(graph.inputs)
    made = (jvp if is_forward else vjp)(graph, active).graph
    first = operands_for(made.input_avals, seed)
    mask = [bool(i % 3) for i in range(len(first))]
    runs = [
        [own if on else same for own, same, on in zip(run, first, mask, strict=True)]
        for run in (operands_for(made.input_avals, seed + k) for k in range(3))
    ]
    stacked = [
        np.stack(column) if on else column[0]
        for column, on in zip(zip(*runs, strict=True), mask, strict=True)
    ]
    together = batch(made, mask, 3)
    values = quietly(together.graph, stacked)
    for k, run in enumerate(runs):
        for whole, one, on in zip(values, quietly(made, run), together.outputs, strict=True):
            size = np.max(np.abs(one), initial=0, where=np.isfinite(one))
            got = whole[k] if on else whole
            np.testing.assert_allclose(got, one, rtol=1e-9, atol=1e-11 * size + 1e-14)


@fewer(0.5)
@given(seeds, counts, NAMES)
def test_taylor_coefficients_are_nested_derivatives(seed, count, names):
    graph, arrays = within(seed, count, names)
    found = Derivatives(graph, arrays, seed)
    zeros = [np.zeros_like(dot) for dot in found.dots]
    made = taylor(graph, found.active, 2)
    series = [x for pair in zip(found.dots, zeros, strict=True) for x in pair]
    value, *coefficients = quietly(made.graph, [*found.arrays, *series])
    if not made.active_outputs[0]:
        coefficients = [np.zeros(()), np.zeros(())]
    (slope,) = found.forward()
    found.others = found.dots
    second = next(found.second())
    close([value], found.value())
    np.testing.assert_allclose(coefficients[0], slope, rtol=1e-7, atol=1e-9)
    scale = max(abs(second), abs(float(slope)))
    np.testing.assert_allclose(2 * coefficients[1], second, rtol=1e-6, atol=1e-8 * scale + 1e-10)


@fewer(0.1)
@given(seeds, st.integers(1, 4), NAMES)
def test_jacobians_and_hessians_by_unit_vectors(seed, count, names):
    """Both modes of ``jacobian``, whose unit vectors have supports; the Hessian is theirs too."""
    graph, arrays = drawn(seed, count)
    assume(all(x.size <= 40 for x in arrays))
    native, _ = borders.steps(graph, names)

    def f(s, xs):
        return np.stack([native(s, xs), native(s - 0.2, xs)])

    s = np.float64(0.3)
    forward, backward = diffc.jacfwd(f, 1)(s, arrays), diffc.jacrev(f, 1)(s, arrays)
    for x, y in zip(forward, backward, strict=True):
        size = np.max(np.abs(y), initial=0, where=np.isfinite(y))
        np.testing.assert_allclose(x, y, rtol=1e-7, atol=1e-9 * size + 1e-12)
    whole = diffc.hessian(native, 1)(s, arrays)
    for i in range(len(arrays)):
        for j in range(len(arrays)):
            block, other = whole[i][j], whole[j][i]
            axes = (*range(arrays[i].ndim, block.ndim), *range(arrays[i].ndim))
            size = np.max(np.abs(block), initial=0, where=np.isfinite(block))
            np.testing.assert_allclose(
                np.transpose(block, axes), other, rtol=1e-6, atol=1e-8 * size + 1e-10
            )


@fewer(0.2)
@given(seeds, st.integers(1, 4), NAMES)
def test_compiled_derivatives_are_interpreted_ones(seed, count, names):
    graph = within(seed, count, names)[0]
    active = [True] * len(graph.inputs)
    hvp = jvp(vjp(graph, active).graph, [*active, False]).graph
    made = optimize(expand(hvp))
    given = [*operands_for(made.input_avals, seed)]
    expected, found = quietly(made, given), GraphProgram(made, "hvp")(given)
    for x, y in zip(found, expected, strict=True):
        size = np.max(np.abs(y), initial=0, where=np.isfinite(y))
        np.testing.assert_allclose(x, y, rtol=1e-8, atol=1e-10 * size + 1e-13)
