"""NumPy with derivatives by hand and optimizers in place."""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks import by_hand, optimizers
from benchmarks.peers.base import Peer


class InPlace(Peer):
    """Any result and gradient in NumPy arrays, with an optimizer in place."""

    def reset(self) -> None:
        if self.optimizer is None:
            self.params = self.initial
            return
        self.params = {k: a.copy() for k, a in self.initial.items()}
        self.state = optimizers.initial_state(self.optimizer, self.initial)

    def run(self, units: int) -> None:
        gradient, optimizer = self.gradient, self.optimizer
        for _ in range(units):
            for batch in self.batches:
                value, grads = gradient(self.params, batch)
                if optimizer is not None:
                    optimizers.update_in_place(optimizer, self.params, grads, self.state)
        self.result = value, grads

    def result_and_gradient(self) -> tuple[Any, dict[str, np.ndarray]]:
        return self.gradient(self.initial, self.batches[0])

    def parameters(self) -> dict[str, np.ndarray]:
        return self.params


class ByHand(InPlace):
    """Forward and backward passes written by hand."""

    def prepare(self) -> None:
        self.gradient = by_hand.of(self.workload)
