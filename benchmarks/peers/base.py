"""What a peer is: the work of one workload, done by one system.

A peer is built from inputs in NumPy and keeps its own form of them. `run` does whole units of work
and returns when all is done. Building a peer compiles nothing: the first call does, so that its
time tells the time to compile.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np

from benchmarks.workloads import Workload


class Peer(ABC):
    """One system on one workload.

    Attributes:
        units_per_call: How many units one call does; `run` takes multiples of it.
        result: What the last call gave, kept so that none of it is left out.
    """

    units_per_call = 1
    result: Any = None

    def __init__(self, name: str, workload: Workload, params: dict, batches: list[dict]) -> None:
        self.name, self.workload, self.kind = name, workload, workload.kind
        self.objective, self.optimizer = workload.objective, workload.optimizer
        self.initial, self.batches = params, batches
        self.is_scalar = isinstance(next(iter(params.values())), float)
        self.prepare()
        self.reset()

    @abstractmethod
    def prepare(self) -> None:
        """Convert the inputs, and say what is to be compiled."""

    @abstractmethod
    def reset(self) -> None:
        """Go back to the initial params and a new optimizer state."""

    @abstractmethod
    def run(self, units: int) -> None:
        """Do so many units of work and wait for the results."""

    @abstractmethod
    def result_and_gradient(self) -> tuple[Any, dict[str, np.ndarray]]:
        """Return result and gradient at the initial params and first batch, as NumPy.

        A workload without a gradient has none here either; where gradients are given, the result
        is 0 and they are returned.
        """

    @abstractmethod
    def parameters(self) -> dict[str, np.ndarray]:
        """Return the params as they are now, as NumPy."""
