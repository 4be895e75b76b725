"""PyTorch in the library's own operations: eager, and two ways to use `torch.compile`.

Compiled as one graph, updates included, a step is faster where the calls weigh; compiled loss and
fused optimizer, where the layouts of the library's kernels do. Guards, which look at every param on
every call, are off. The convolution net keeps images and weights in the library's layout (channels
last in memory).
"""

from __future__ import annotations

import os

import numpy as np
import torch
import torch.nn.functional as F

from benchmarks import optimizers
from benchmarks.peers.base import Peer
from benchmarks.workloads import TF

torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
torch.set_num_interop_threads(1)

IMAGE_KERNELS = ("c1", "c2")


def lecture_net(p, b):
    d = torch.sigmoid(b["x"] @ p["w1"]) @ p["w2"] - b["y"]
    return (d * d).sum()


def mlp3(p, b):
    h = F.relu(torch.addmm(p["b0"], b["x"], p["w0"]))
    h = F.relu(torch.addmm(p["b1"], h, p["w1"]))
    return F.cross_entropy(torch.addmm(p["b2"], h, p["w2"]), b["y"])


def residual_mlp(p, b, layers=50):
    h = torch.addmm(p["bin"], b["x"], p["win"])
    for i in range(layers):
        u = F.layer_norm(h, h.shape[-1:], p[f"g{i}"], p[f"s{i}"], 1e-5)
        u = F.gelu(torch.addmm(p[f"ba{i}"], u, p[f"wa{i}"]), approximate="tanh")
        h = h + torch.addmm(p[f"bb{i}"], u, p[f"wb{i}"])
    return F.cross_entropy(torch.addmm(p["bout"], h, p["wout"]), b["y"])


def transformer(p, b):
    n, t, d, heads = TF["batch"], TF["time"], TF["d"], TF["heads"]
    h = (F.embedding(b["x"], p["tok"]) + p["pos"]).reshape(n * t, d)
    for i in range(TF["layers"]):
        u = F.layer_norm(h, (d,), p[f"g1_{i}"], p[f"s1_{i}"], 1e-5)
        u = torch.addmm(p[f"bqkv{i}"], u, p[f"wqkv{i}"])
        q, k, v = u.reshape(n, t, 3, heads, d // heads).permute(2, 0, 3, 1, 4)
        a = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        a = a.transpose(1, 2).reshape(n * t, d)
        h = h + torch.addmm(p[f"bo{i}"], a, p[f"wo{i}"])
        u = F.layer_norm(h, (d,), p[f"g2_{i}"], p[f"s2_{i}"], 1e-5)
        u = F.gelu(torch.addmm(p[f"b1_{i}"], u, p[f"w1_{i}"]), approximate="tanh")
        h = h + torch.addmm(p[f"b2_{i}"], u, p[f"w2_{i}"])
    z = F.layer_norm(h, (d,), p["gf"], p["sf"], 1e-5) @ p["head"]
    return F.cross_entropy(z, b["y"].reshape(n * t))


def conv_net(p, b):
    h = F.max_pool2d(F.relu(F.conv2d(b["x"], p["c1"], p["d1"], padding=1)), 2)
    h = F.max_pool2d(F.relu(F.conv2d(h, p["c2"], p["d2"], padding=1)), 2)
    flat = h.permute(0, 2, 3, 1).reshape(len(h), -1)
    return F.cross_entropy(torch.addmm(p["b"], flat, p["w"]), b["y"])


def w8(p, b):
    xz, lx = p["x"] * p["z"], torch.log(p["x"])
    return torch.sum(torch.exp(xz) + xz / lx + torch.sin(lx) / xz)


def deep_chain(p, b, layers=200):
    h = b["x"]
    for i in range(layers):
        h = h + 0.1 * torch.tanh(torch.addmm(p[f"b{i}"], h, p[f"w{i}"]))
    return torch.mean(h * h)


FORMS = {
    f.__name__: f for f in (lecture_net, mlp3, residual_mlp, transformer, conv_net, w8, deep_chain)
}


class Torch(Peer):
    """Eager: loss, `backward`, a fused optimizer."""

    def prepare(self) -> None:
        self.batches = [self.batch_to_torch(b) for b in self.batches]
        self.loss = FORMS[self.objective.__name__]
        if not self.is_scalar:
            self.start = {k: param_to_torch(k, a) for k, a in self.initial.items()}
            self.params = {k: a.clone().requires_grad_() for k, a in self.start.items()}
            self.leaves = list(self.params.values())

    def batch_to_torch(self, batch: dict) -> dict:
        result = {k: torch.from_numpy(a.copy()) for k, a in batch.items()}
        if self.objective.__name__ == "conv_net":
            result["x"] = result["x"].permute(0, 3, 1, 2)
        return {k: a.long() if a.dtype == torch.int32 else a for k, a in result.items()}

    def reset(self) -> None:
        if self.optimizer is None:
            return
        with torch.no_grad():
            for k, a in self.start.items():
                self.params[k].copy_(a)
                self.params[k].grad = None
        self.updates = optimizer_of(self.optimizer, self.leaves)

    def run(self, units: int) -> None:
        if self.is_scalar:
            for _ in range(units):
                self.result = self.scalar_call()
            return
        if self.optimizer is None:
            for _ in range(units):
                value = self.loss(self.params, self.batches[0])
                self.result = value, torch.autograd.grad(value, self.leaves)
            return
        loss, params, updates = self.loss, self.params, self.updates
        for _ in range(units):
            for batch in self.batches:
                updates.zero_grad(set_to_none=True)
                value = loss(params, batch)
                value.backward()
                updates.step()

    def scalar_call(self) -> tuple[float, list[float]]:
        params = {
            k: torch.tensor(a, dtype=torch.float64, requires_grad=True)
            for k, a in self.initial.items()
        }
        value = self.loss(params, self.batches[0])
        return value.item(), [g.item() for g in torch.autograd.grad(value, list(params.values()))]

    def value_and_gradient(self) -> tuple[float, dict[str, np.ndarray]]:
        if self.is_scalar:
            value, grads = self.scalar_call()
            return value, dict(zip(self.initial, map(np.asarray, grads), strict=True))
        self.reset()
        value = self.loss(self.params, self.batches[0])
        grads = torch.autograd.grad(value, self.leaves)
        return value.item(), {k: to_numpy(k, g) for k, g in zip(self.params, grads, strict=True)}

    def parameters(self) -> dict[str, np.ndarray]:
        return {k: to_numpy(k, a) for k, a in self.params.items()}


class TorchCompile(Torch):
    """`torch.compile` of a whole step in one graph; params and state change in place."""

    def prepare(self) -> None:
        super().prepare()
        gradient = torch.func.grad_and_value(self.loss)

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

    def value_and_gradient(self) -> tuple[float, dict[str, np.ndarray]]:
        if self.is_scalar:
            return super().value_and_gradient()
        grads, value = self.gradient(self.start, self.batches[0])
        return value.item(), {k: to_numpy(k, g) for k, g in grads.items()}


class TorchCompileLoss(Torch):
    """`torch.compile` of the loss, forward and backward; a fused optimizer."""

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
    if name not in IMAGE_KERNELS:
        return tensor
    return tensor.permute(3, 2, 0, 1).contiguous(memory_format=torch.channels_last)


def to_numpy(name: str, a: torch.Tensor) -> np.ndarray:
    """Undo `param_to_torch`."""
    array = a.detach().numpy()
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
