"""The comparison before timing: it passes what is right and fails each thing that can be wrong."""

import numpy as np
import pytest

from benchmarks import check, inputs
from benchmarks.peers.with_numpy import ByHand
from benchmarks.workloads import WORKLOADS

NAME = "digits"


@pytest.fixture(scope="module")
def reference():
    return check.Reference(WORKLOADS[NAME], *inputs.draw(NAME))


@pytest.fixture
def answer():
    peer = ByHand(NAME, WORKLOADS[NAME], *inputs.draw(NAME))
    value, grads = peer.result_and_gradient()
    peer.run(1)
    return {"value": value, "grads": grads, "after": peer.parameters()}


def problem(answer, reference):
    return check.compare(answer, reference, "float32", 1).problem


def test_a_right_answer_has_no_problem(answer, reference):
    verdict = check.compare(answer, reference, "float32", 1)
    assert verdict.problem == ""
    assert 0.0 < verdict.gradient < 1e-4


def test_float32_errors_are_seen_at_float64_tolerances(answer, reference):
    assert "gradient" in check.compare(answer, reference, "float64", 1).problem


@pytest.mark.parametrize("value", [np.nan, np.inf, 0.0])
def test_a_wrong_value_is_a_problem(answer, reference, value):
    assert problem(answer | {"value": value}, reference).startswith("value")


def test_a_wrong_leaf_is_a_problem(answer, reference):
    grads = answer["grads"]
    for k in grads:
        assert "gradient" in problem(answer | {"grads": grads | {k: grads[k] * 1.01}}, reference)
    spoiled = grads["b0"].copy()
    spoiled[0] = np.nan
    assert "gradient" in problem(answer | {"grads": grads | {"b0": spoiled}}, reference)


def test_missing_leaves_and_other_shapes_are_problems(answer, reference):
    grads = answer["grads"]
    less = {k: g for k, g in grads.items() if k != "b0"}
    assert "gradient" in problem(answer | {"grads": less}, reference)
    other = grads | {"b0": grads["b0"][None]}
    assert "gradient" in problem(answer | {"grads": other}, reference)


def test_updates_that_were_not_done_are_a_problem(answer, reference):
    assert problem(answer | {"after": reference.initial}, reference).startswith("updates")
    assert "updates" in check.compare(answer, reference, "float32", 2).problem
