"""diffc on the definitions as they are: plain NumPy code, and `diffc.scan` for loops."""

from __future__ import annotations

from typing import Any

import numpy as np

import diffc
from benchmarks import optimizers
from benchmarks.peers.base import Peer
from benchmarks.workloads import definitions, objective_of


class Diffc(Peer):
    """One native call per step: value, gradient and update together."""

    def prepare(self) -> None:
        gradient = self.derivative(objective_of(definitions(np, scan=diffc.scan), self.workload))
        self.gradient = diffc.jit(gradient)
        if self.optimizer is None:
            return

        def step(params, state, batch):
            value, grads = gradient(params, batch)
            params, state = optimizers.update(self.optimizer, params, grads, state, np.sqrt)
            return value, params, state

        self.body = step
        self.step = diffc.jit(step, donate_argnums=(0, 1))

    def derivative(self, objective):
        """Return the function of params and batch that gives result and gradient."""

        def pullback(params, batch):
            value, back = diffc.vjp(lambda p: objective(p, batch), params)
            return value, *back(batch["ct"])

        return {
            "pullback": pullback,
            "forward": lambda params, batch: (objective(params, batch), {}),
            "update": lambda params, batch: (0.0, batch),
        }.get(self.kind) or diffc.value_and_grad(objective)

    def reset(self) -> None:
        self.params = self.initial
        if self.optimizer is not None:
            self.params = {k: a.copy() for k, a in self.initial.items()}
            self.state = optimizers.initial_state(self.optimizer, self.initial)

    def run(self, units: int) -> None:
        if self.optimizer is None:
            self.evaluate(units)
            return
        step, params, state = self.step, self.params, self.state
        for _ in range(units):
            for batch in self.batches:
                self.result, params, state = step(params, state, batch)
        self.params, self.state = params, state

    def evaluate(self, units: int) -> None:
        """Do results and gradients; at a scalar point they are made Python floats."""
        gradient, params, batch = self.gradient, self.params, self.batches[0]
        if not self.is_scalar:
            for _ in range(units):
                self.result = gradient(params, batch)
            return
        for _ in range(units):
            value, grads = gradient(params, batch)
            self.result = float(value), float(grads["x"]), float(grads["z"])

    def result_and_gradient(self) -> tuple[Any, dict[str, np.ndarray]]:
        value, grads = self.gradient(self.initial, self.batches[0])
        return np.asarray(value), {k: np.asarray(g) for k, g in grads.items()}

    def parameters(self) -> dict[str, np.ndarray]:
        return self.params


class DiffcScan(Diffc):
    """`diffc.scan` over the minibatches of an epoch, or over ten steps on one batch."""

    def prepare(self) -> None:
        super().prepare()
        if len(self.batches) == 1:
            self.units_per_call = 10
        names = self.batches[0] if len(self.batches) > 1 else ()
        self.stacked = {k: np.stack([b[k] for b in self.batches]) for k in names}

        def body(carry, batch):
            value, params, state = self.body(*carry, batch)
            return (params, state), value

        def many(params, state, batches):
            return diffc.scan(body, (params, state), batches)

        def repeat(params, state, batch):
            def again(carry, _):
                return body(carry, batch)

            return diffc.scan(again, (params, state), None, length=self.units_per_call)

        self.calls = diffc.jit(many if self.stacked else repeat, donate_argnums=(0, 1))

    def run(self, units: int) -> None:
        batch = self.stacked or self.batches[0]
        for _ in range(units // self.units_per_call):
            carry, self.result = self.calls(self.params, self.state, batch)
            self.params, self.state = carry
