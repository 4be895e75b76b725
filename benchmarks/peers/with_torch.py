"""PyTorch in the library's own operations: eager, and two ways to use `torch.compile`.

Compiled as one graph, updates included, a step is faster where the calls weigh; compiled loss and
fused optimizer, where the layouts of the library's kernels do. Guards, which look at every param on
every call, are off. The convolution net keeps images and weights in the library's layout (channels
last in memory), the recurrent layer its weights transposed.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import torch

from benchmarks import optimizers
from benchmarks.peers import torch_forms
from benchmarks.peers.base import Peer

torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
torch.set_num_interop_threads(1)

IMAGE_KERNELS = ("c1", "c2")
TRANSPOSED = ("wx", "wh")


class Torch(Peer):
    """Eager: loss, `backward`, a fused optimizer."""

    forms = torch_forms.FORMS

    def prepare(self) -> None:
        self.loss = self.forms[self.objective.__name__]
        self.batches = [self.batch_to_torch(b) for b in self.batches]
        if not self.is_scalar:
            self.start = {k: param_to_torch(k, a) for k, a in self.initial.items()}
            self.params = {k: a.clone().requires_grad_() for k, a in self.start.items()}
            self.leaves = list(self.params.values())

    def batch_to_torch(self, batch: dict) -> dict:
        result = {k: torch.from_numpy(a.copy()) for k, a in batch.items()}
        if self.objective.__name__ == "conv_net":
            result["x"] = result["x"].permute(0, 3, 1, 2)
        result = {k: a.long() if a.dtype == torch.int32 else a for k, a in result.items()}
        if self.loss is torch_forms.graph_net:
            result["edges"] = torch_forms.edges(result)
        return result

    def reset(self) -> None:
        if self.optimizer is None:
            return
        with torch.no_grad():
            for k, a in self.start.items():
                self.params[k].copy_(a)
                self.params[k].grad = self.batches[0][k] if self.kind == "update" else None
        self.updates = optimizer_of(self.optimizer, self.leaves)

    def run(self, units: int) -> None:
        if self.is_scalar:
            for _ in range(units):
                self.result = self.scalar_call()
            return
        if self.optimizer is None:
            for _ in range(units):
                self.result = self.evaluate(self.batches[0])
            return
        loss, params, updates = self.loss, self.params, self.updates
        if self.kind == "update":
            for _ in range(units):
                updates.step()
            return
        for _ in range(units):
            for batch in self.batches:
                updates.zero_grad(set_to_none=True)
                value = loss(params, batch)
                value.backward()
                updates.step()

    def evaluate(self, batch: dict) -> tuple[Any, tuple]:
        """Return the result and the gradients by the leaves, if the workload has any."""
        if self.kind == "update":
            return torch.zeros(()), tuple(batch.values())
        if self.kind == "forward":
            with torch.no_grad():
                return self.loss(self.params, batch), ()
        value = self.loss(self.params, batch)
        return value, torch.autograd.grad(value, self.leaves, batch.get("ct"))

    def scalar_call(self) -> tuple[float, list[float]]:
        params = {
            k: torch.tensor(a, dtype=torch.float64, requires_grad=True)
            for k, a in self.initial.items()
        }
        value = self.loss(params, self.batches[0])
        return value.item(), [g.item() for g in torch.autograd.grad(value, list(params.values()))]

    def result_and_gradient(self) -> tuple[Any, dict[str, np.ndarray]]:
        if self.is_scalar:
            value, grads = self.scalar_call()
            return value, dict(zip(self.initial, map(np.asarray, grads), strict=True))
        self.reset()
        value, grads = self.evaluate(self.batches[0])
        names = self.params if self.kind != "forward" else ()
        return value.detach().numpy(), named(dict(zip(names, grads, strict=True)))

    def parameters(self) -> dict[str, np.ndarray]:
        return named(self.params)


class TorchLoop(Torch):
    """Eager, with a loop over time steps instead of the library's recurrent layer."""

    forms = torch_forms.COMPILED


class TorchCompile(Torch):
    """`torch.compile` of a whole step in one graph; params and state change in place."""

    forms = torch_forms.COMPILED

    def prepare(self) -> None:
        super().prepare()
        gradient = self.derivative(self.loss)

        def step(params, state, batch):
            grads, value = gradient(params, batch)
            new_params, new_state = optimizers.update(
                self.optimizer, params, grads, state, torch.sqrt
            )
            for old, new in ((params, new_params), (state, new_state)):
                for k, a in new.items():
                    old[k].copy_(a)
            return value

        self.gradient, self.step = compiled(gradient), compiled(step)
        if not self.is_scalar:
            self.params = {k: a.clone() for k, a in self.start.items()}

    def derivative(self, loss):
        """Return the function of params and batch that gives gradient and result."""

        def pullback(params, batch):
            value, back = torch.func.vjp(lambda p: loss(p, batch), params)
            return back(batch["ct"])[0], value

        return {
            "pullback": pullback,
            "forward": lambda params, batch: ({}, loss(params, batch)),
            "update": lambda params, batch: (batch, torch.zeros(())),
        }.get(self.kind) or torch.func.grad_and_value(loss)

    def reset(self) -> None:
        if self.optimizer is None:
            return
        for k, a in self.start.items():
            self.params[k].copy_(a)
        moments = optimizers.MOMENTS[self.optimizer["kind"]]
        self.state = {
            f"{m}:{k}": torch.zeros_like(a) for m in moments for k, a in self.start.items()
        }
        if "m" in moments:
            self.state["t"] = torch.zeros(())

    def run(self, units: int) -> None:
        if self.is_scalar:
            for _ in range(units):
                self.result = self.scalar_call()
            return
        if self.optimizer is None:
            for _ in range(units):
                self.result = self.gradient(self.params, self.batches[0])
            return
        step, params, state = self.step, self.params, self.state
        for _ in range(units):
            for batch in self.batches:
                value = step(params, state, batch)
        self.result = value

    def scalar_call(self) -> tuple[float, list[float]]:
        params = {k: torch.tensor(a, dtype=torch.float64) for k, a in self.initial.items()}
        grads, value = self.gradient(params, self.batches[0])
        return value.item(), [g.item() for g in grads.values()]

    def result_and_gradient(self) -> tuple[Any, dict[str, np.ndarray]]:
        if self.is_scalar:
            return super().result_and_gradient()
        grads, value = self.gradient(self.start, self.batches[0])
        return value.numpy(), named(grads)


class TorchCompileLoss(Torch):
    """`torch.compile` of the loss, forward and backward; a fused optimizer."""

    forms = torch_forms.COMPILED

    def prepare(self) -> None:
        super().prepare()
        self.loss = compiled(self.loss)


def compiled(function):
    """Compile for these shapes alone, without graph breaks and guards."""
    options = {"guard_filter_fn": torch.compiler.skip_all_guards_unsafe}
    return torch.compile(function, fullgraph=True, dynamic=False, options=options)


def param_to_torch(name: str, a: np.ndarray) -> torch.Tensor:
    """Copy a param to the library's layout."""
    tensor = torch.from_numpy(a.copy())
    if name in TRANSPOSED:
        return tensor.T.contiguous()
    if name in IMAGE_KERNELS:
        return tensor.permute(3, 2, 0, 1).contiguous(memory_format=torch.channels_last)
    return tensor


def named(tensors: dict[str, torch.Tensor]) -> dict[str, np.ndarray]:
    """Undo `param_to_torch` for params or gradients by name."""
    return {k: to_numpy(k, a) for k, a in tensors.items()}


def to_numpy(name: str, a: torch.Tensor) -> np.ndarray:
    array = a.detach().numpy()
    if name in TRANSPOSED:
        return array.T
    return array.transpose(2, 3, 1, 0) if name in IMAGE_KERNELS else array


def optimizer_of(optimizer: dict, leaves: list[torch.Tensor]) -> torch.optim.Optimizer:
    """Return the library's optimizer for the dict of a workload."""
    kind, lr = optimizer["kind"], optimizer["lr"]
    if kind in ("sgd", "momentum"):
        return torch.optim.SGD(leaves, lr=lr, momentum=optimizer.get("mu", 0.0), fused=True)
    betas, eps = (optimizer["b1"], optimizer["b2"]), optimizer["eps"]
    if kind == "adam":
        return torch.optim.Adam(leaves, lr=lr, betas=betas, eps=eps, fused=True)
    decay = optimizer["weight_decay"]
    return torch.optim.AdamW(leaves, lr=lr, betas=betas, eps=eps, weight_decay=decay, fused=True)
