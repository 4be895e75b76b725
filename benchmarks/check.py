"""Whether a peer computes what the workload says, decided in float64 before anything is timed.

The reference is the derivative by hand on float64 inputs (`by_hand`), with the optimizer in place.
Gradients are compared leaf by leaf; what an optimizer did is compared as the change of all params
together, as Adam turns rounding errors of tiny gradients into steps of full length.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from benchmarks import by_hand, inputs, optimizers
from benchmarks.workloads import Workload

TOLERANCE = {"float32": 1e-3, "float64": 1e-9}
CHANGE_TOLERANCE = {"float32": 2e-2, "float64": 1e-8}
LEAF_FLOOR = 1e-3  # a leaf's error is measured against at least this share of the whole gradient


class Reference:
    """What a workload gives in float64: result, gradient, and params after some units."""

    def __init__(self, workload: Workload, params: dict, batches: list[dict]) -> None:
        self.optimizer = workload.optimizer
        self.gradient = by_hand.of(workload)
        self.initial = inputs.upcast(params)
        self.batches = [inputs.upcast(b) for b in batches]
        self.value, self.grads = self.gradient(self.initial, self.batches[0])
        self.value = np.asarray(self.value)
        self._after: dict[int, dict] = {}

    def after(self, units: int) -> dict:
        """Return the params after so many units from the initial ones."""
        if units not in self._after:
            params = {k: a.copy() for k, a in self.initial.items()}
            state = optimizers.initial_state(self.optimizer, params)
            for _ in range(units):
                for batch in self.batches:
                    _, grads = self.gradient(params, batch)
                    optimizers.update_in_place(self.optimizer, params, grads, state)
            self._after[units] = params
        return self._after[units]


class Verdict(NamedTuple):
    """Relative errors of a peer, and what is wrong with them (empty: nothing)."""

    value: float
    gradient: float
    change: float
    problem: str


def norm(arrays: list) -> float:
    """Return the Euclidean norm over all elements."""
    return float(np.sqrt(sum(np.vdot(a, a) for a in arrays)))


def gradient_error(grads: dict, reference: dict) -> float:
    """Return the largest relative error of a leaf; infinite where names, shapes or nans differ."""
    if grads.keys() != reference.keys():
        return math.inf
    whole = norm([np.asarray(r) for r in reference.values()])
    errors = (leaf_error(np.asarray(grads[k]), np.asarray(r), whole) for k, r in reference.items())
    return max(errors, default=0.0)


def leaf_error(gradient: np.ndarray, reference: np.ndarray, whole: float) -> float:
    """Return the error of one leaf, relative to it or to a share of the whole gradient's norm."""
    if gradient.shape != reference.shape:
        return math.inf
    scale = max(norm([reference]), LEAF_FLOOR * whole, np.finfo("float64").tiny)
    error = norm([gradient.astype("float64") - reference]) / float(scale)
    return math.inf if math.isnan(error) else error


def change_error(after: dict, initial: dict, reference: dict) -> float:
    """Return the error of the change of all params, relative to the change."""
    errors = [np.asarray(after[k], dtype="float64") - r for k, r in reference.items()]
    return norm(errors) / norm([r - initial[k] for k, r in reference.items()])


def compare(answer: dict, reference: Reference, dtype: str, units: int) -> Verdict:
    """Compare a worker's answer to `check` with the reference."""
    value = leaf_error(np.asarray(answer["value"]), reference.value, 0.0)
    gradient = gradient_error(answer["grads"], reference.grads)
    change = 0.0
    if answer["after"] is not None:
        change = change_error(answer["after"], reference.initial, reference.after(units))
    limits = (TOLERANCE[dtype], TOLERANCE[dtype], CHANGE_TOLERANCE[dtype])
    found = zip(("value", "gradient", "updates"), (value, gradient, change), limits, strict=True)
    wrong = [f"{what} off by {error:.1e}" for what, error, limit in found if not error <= limit]
    return Verdict(value, gradient, change, ", ".join(wrong))
