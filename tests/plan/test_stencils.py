"""Chains of stencils: what one kernel reads at several points is not computed at each of them."""

import numpy as np
import pytest

import diffc
from diffc.plan.fuse import Fusion
from diffc.plan.recompute import chained, points_read
from diffc.trace import trace

STEPS = 8


def heat(u, steps):
    for _ in range(steps):
        new = u.copy()
        new[1:-1, 1:-1] += 0.1 * (
            u[2:, 1:-1] + u[:-2, 1:-1] + u[1:-1, 2:] + u[1:-1, :-2] - 4 * u[1:-1, 1:-1]
        )
        u = new
    return u


def shrinking(u, steps):
    for _ in range(steps):
        u = u[2:] - u[:-2] * u[1:-1]
    return u


def rolled(u, steps):
    for _ in range(steps):
        u = u + 0.1 * (np.roll(u, 1) + np.roll(u, -1) - 2 * u)
    return u


def padded(u, steps):
    for _ in range(steps):
        p = np.pad(u, 1, mode="edge")
        u = u + 0.1 * (p[2:, 1:-1] + p[:-2, 1:-1] + p[1:-1, 2:] + p[1:-1, :-2] - 4 * u)
    return u


def reversed_each_time(u, steps):
    for _ in range(steps):
        u = u * 0.5 + u[::-1]
    return u


CASES = {
    heat: (9, 8),
    shrinking: (40, 3),
    rolled: (21,),
    padded: (7, 6),
    reversed_each_time: (30,),
}


def length(function, steps, shape):
    """How much code there is to emit for value and gradient."""
    loss = diffc.jit(diffc.value_and_grad(lambda u: np.sum(function(u, steps) ** 2)))
    return len(loss.stages(np.ones(shape), until="tile").stage("tile").text)


@pytest.mark.parametrize("function", CASES, ids=lambda f: f.__name__)
def test_the_code_of_a_chain_is_as_long_as_the_chain(function):
    one, two = (length(function, steps, CASES[function]) for steps in (STEPS // 2, STEPS))
    assert two < 3 * one


@pytest.mark.parametrize("function", CASES, ids=lambda f: f.__name__)
def test_values_and_gradients_of_chains(function):
    u = np.random.default_rng(3).standard_normal(CASES[function]) * 0.3
    found, slope = diffc.jit(diffc.value_and_grad(lambda u: np.sum(function(u, STEPS) ** 2)))(u)
    np.testing.assert_allclose(found, np.sum(function(u, STEPS) ** 2), rtol=1e-12)
    ways = np.random.default_rng(4).standard_normal((3, *u.shape))
    for way in ways:
        step = 1e-5
        high, low = (np.sum(function(u + s * way, STEPS) ** 2) for s in (step, -step))
        np.testing.assert_allclose(np.sum(slope * way), (high - low) / (2 * step), rtol=1e-6)


def fused(function, *shapes):
    fusion = Fusion(trace(function, [np.ones(shape) for shape in shapes]).graph)
    fusion.run()
    return fusion


def test_points_are_counted_by_kernel_and_through_what_values_follow_from():
    def three_points(x):
        y = np.exp(x)
        return y[2:] + y[1:-1] + y[:-2]

    (count,) = points_read(fused(three_points, 9)).values()
    assert count == 3

    def of_two_values(x):  # each is read at one point, what both follow from at two
        y = np.exp(x)
        a, b = y * 2, y * 3
        return a[1:] + b[:-1]

    fusion = fused(of_two_values, 9)
    assert [value.eqn.op.name for value in points_read(fusion)] == ["exp"]
    assert not points_read(fused(lambda x: np.exp(x)[1:] * 2, 9))
    assert not points_read(fused(lambda x: np.sin(np.exp(x)) + np.exp(x), 9))


def test_only_the_later_of_two_is_final():
    def twice(x):
        y = x[1:] + x[:-1]
        z = y[1:] * y[:-1]
        return z[1:] - z[:-1]

    fusion = fused(twice, 9)
    points = points_read(fusion)
    assert [value.eqn.op.name for value in points] == ["add", "mul"]
    assert [value.eqn.op.name for value in chained(fusion, points, set())] == ["mul"]
    (add, mul) = points
    assert chained(fusion, points, {add}) == set()
    assert mul in points
