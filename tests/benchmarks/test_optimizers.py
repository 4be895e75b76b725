"""The pure and the in-place optimizers against each other and against figures by hand."""

import math

import numpy as np
import pytest

from benchmarks import optimizers
from benchmarks.workloads import ADAM, ADAMW, MOMENTUM, sgd


def run(optimizer, steps, in_place):
    rng = np.random.default_rng(0)
    params = {"a": rng.standard_normal((3, 4)), "b": rng.standard_normal(5)}
    state = optimizers.initial_state(optimizer, params)
    for _ in range(steps):
        grads = {k: np.sin(p) for k, p in params.items()}
        if in_place:
            optimizers.update_in_place(optimizer, params, grads, state)
        else:
            params, state = optimizers.update(optimizer, params, grads, state, np.sqrt)
    return params


@pytest.mark.parametrize("optimizer", [sgd(0.1), MOMENTUM, ADAM, ADAMW], ids=lambda o: o["kind"])
@pytest.mark.parametrize("steps", [1, 2, 7])
def test_in_place_is_the_pure_update(optimizer, steps):
    pure, in_place = run(optimizer, steps, False), run(optimizer, steps, True)
    for k, p in pure.items():
        np.testing.assert_allclose(in_place[k], p, rtol=1e-13)


def one_step(optimizer, p, g):
    params, grads = {"p": np.array([p])}, {"p": np.array([g])}
    state = optimizers.initial_state(optimizer, params)
    return optimizers.update(optimizer, params, grads, state, np.sqrt)


def test_sgd_and_momentum_by_hand():
    params, _ = one_step(sgd(0.5), 1.0, 3.0)
    assert params["p"][0] == -0.5
    params, state = one_step({"kind": "momentum", "lr": 0.5, "mu": 0.5}, 1.0, 3.0)
    assert (params["p"][0], state["v:p"][0]) == (-0.5, 3.0)


def test_first_step_of_adam_has_length_lr():
    for g in (1e-3, -4.0):
        params, _ = one_step(ADAM, 1.0, g)
        assert params["p"][0] == pytest.approx(1.0 - math.copysign(ADAM["lr"], g), rel=1e-7)


def test_adamw_decays_apart_from_the_gradient():
    params, _ = one_step(ADAMW, 2.0, 0.0)
    assert params["p"][0] == 2.0 * (1.0 - ADAMW["lr"] * ADAMW["weight_decay"])
