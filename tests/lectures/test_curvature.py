"""Lectures on saddles, condition numbers, and methods of order zero, one and two."""

import numpy as np
import pytest

import diffc
from diffc.optim import momentum, random_search, sgd


def saddle(x):
    return x[0] ** 2 - x[1] ** 2


def test_w17_a_saddle():
    zero = np.zeros(2)
    np.testing.assert_array_equal(diffc.grad(saddle)(zero), [0, 0])
    np.testing.assert_array_equal(diffc.hessian(saddle)(zero), np.diag([2, -2]))
    np.testing.assert_array_equal(diffc.hvp(saddle, (zero,), (np.ones(2),)), [2, -2])
    found = diffc.critical(saddle, zero)
    assert (found.kind, found.definiteness, found.condition) == ("saddle", "indefinite", 1)
    np.testing.assert_array_equal(found.eigenvalues, [-2, 2])


# --- a narrow valley ---------------------------------------------------------------------------


START = np.array([10.0, 1.0])


def valley(x):
    return (x[0] ** 2 + 100 * x[1] ** 2) / 2


def path(optimizer, steps=100):
    """All points, computed by one compiled loop."""
    slope = diffc.grad(valley)

    @diffc.jit
    def run(x):
        def step(carry, _):
            x, state = optimizer.update(slope(carry[0]), carry[1], carry[0])
            return (x, state), x

        return diffc.scan(step, (x, optimizer.init(x)), length=steps)[1]

    return np.concatenate([START[None], run(START)])


def turns(points):
    """How often the way across the valley changes its direction."""
    steps = np.diff(points[:, 1])
    return int(np.sum(steps[1:] * steps[:-1] < 0))


def test_s34_the_condition_is_reported():
    found = diffc.critical(valley, START)
    assert found.condition == 100
    assert found.kind == "slope"
    assert diffc.critical(valley, np.zeros(2)).kind == "minimum"
    assert "condition    100" in str(found)


def test_s34_gradient_descent_zigzags_and_momentum_does_not():
    plain, heavy = path(sgd(0.0195)), path(momentum(0.002, 0.9))
    assert turns(plain) == 99  # at each step but the first
    assert turns(heavy) <= 15
    assert valley(heavy[-1]) < valley(plain[-1]) < valley(START) / 50
    # steps that are small enough not to turn are slow along the valley
    careful = path(sgd(0.01))
    assert turns(careful) == 0
    assert careful[-1][0] == pytest.approx(10 * 0.99**100)
    assert valley(careful[-1]) > 5 * valley(heavy[-1])
    # and steps that are too large never arrive: 2 / 100 is the limit
    assert valley(path(sgd(0.0201))[-1]) > valley(path(sgd(0.0199))[-1])
    assert abs(path(sgd(0.0201))[-1][1]) > 1 > abs(path(sgd(0.0199))[-1][1])


def test_s34_newton_needs_one_step():
    step = np.linalg.solve(diffc.hessian(valley)(START), diffc.grad(valley)(START))
    np.testing.assert_array_equal(START - step, [0, 0])
    np.testing.assert_array_equal(diffc.argmin(valley, START), [0, 0])


def test_s34_random_search_needs_more_steps_and_no_gradient():
    calls = []

    def counted(x):
        calls.append(None)
        return valley(x)

    key = diffc.random.key(0)
    values = [float(random_search(counted, START, key, n, 0.3)[1]) for n in (0, 100, 1000)]
    assert len(calls) <= 12  # traced, not called for each step
    assert values[0] == valley(START) == 100
    assert values == sorted(values, reverse=True)
    heavy = valley(path(momentum(0.002, 0.9))[-1])
    assert values[1] > 10 * heavy and values[2] < 1e-3
