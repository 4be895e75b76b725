"""The workloads in plain NumPy: sizes, data, initial values, objective, optimizer.

`WORKLOADS[name]` is `(objective, make, dtype, optimizer, unit)`. `make(rng)` gives
`(params, batches)`; `objective(params, batch)` gives a scalar. Where `optimizer` is None the unit
of work is a value and gradient with respect to all params, else a whole step, updates included.

Every peer and diffc runs these definitions (a peer may use its own faster form of an operation).
The order in which `make` draws is part of the definition: the same seed gives the same inputs.
`definitions` gives the same objectives over another array namespace.
"""

from __future__ import annotations

import importlib.util
import itertools
import math
from collections.abc import Callable
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

GELU_C = math.sqrt(2.0 / math.pi)
TF = {"layers": 2, "d": 128, "heads": 4, "time": 64, "batch": 8, "vocabulary": 256}


class Workload(NamedTuple):
    """One workload: what is computed, on what, and what one unit of work is."""

    objective: Callable[[dict, dict], Any]
    make: Callable[[np.random.Generator], tuple[dict, list[dict]]]
    dtype: str
    optimizer: dict | None
    unit: str


# Building blocks


def relu(x):
    return np.maximum(x, 0.0)


def gelu(x):
    return 0.5 * x * (1.0 + np.tanh(GELU_C * (x + 0.044715 * (x * x * x))))


def layer_norm(x, gain, shift):
    c = x - np.mean(x, axis=-1, keepdims=True)
    return c / np.sqrt(np.mean(c * c, axis=-1, keepdims=True) + 1e-5) * gain + shift


def cross_entropy(z, y):
    s = z - np.max(z, axis=1, keepdims=True)
    lp = s - np.log(np.sum(np.exp(s), axis=1, keepdims=True))
    return -np.mean(lp[np.arange(lp.shape[0]), y])


def attention(q, k, v):
    """Causal attention over (batch, heads, time, features)."""
    t, e = q.shape[-2:]
    s = (q @ np.swapaxes(k, -1, -2)) * (1.0 / math.sqrt(e))
    s = np.where(np.tril(np.ones((t, t), dtype=bool)), s, -1e30)
    w = np.exp(s - np.max(s, axis=-1, keepdims=True))
    return (w / np.sum(w, axis=-1, keepdims=True)) @ v


def conv3x3(x, w):
    """NHWC images, HWIO weights, same padding."""
    h, wd = x.shape[1:3]
    xp = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    return sum(xp[:, i : i + h, j : j + wd, :] @ w[i, j] for i in range(3) for j in range(3))


def maxpool2(x):
    b, h, w, c = x.shape
    return np.max(np.reshape(x, (b, h // 2, 2, w // 2, 2, c)), axis=(2, 4))


# Objectives


def lecture_net(p, b):
    d = (1.0 / (1.0 + np.exp(-(b["x"] @ p["w1"])))) @ p["w2"] - b["y"]
    return np.sum(d * d)


def mlp3(p, b):
    h = relu(b["x"] @ p["w0"] + p["b0"])
    h = relu(h @ p["w1"] + p["b1"])
    return cross_entropy(h @ p["w2"] + p["b2"], b["y"])


def residual_mlp(p, b, layers=50):
    h = b["x"] @ p["win"] + p["bin"]
    for i in range(layers):
        u = gelu(layer_norm(h, p[f"g{i}"], p[f"s{i}"]) @ p[f"wa{i}"] + p[f"ba{i}"])
        h = h + u @ p[f"wb{i}"] + p[f"bb{i}"]
    return cross_entropy(h @ p["wout"] + p["bout"], b["y"])


def transformer(p, b):
    n, t, d, heads = TF["batch"], TF["time"], TF["d"], TF["heads"]
    h = p["tok"][b["x"]] + p["pos"]
    for i in range(TF["layers"]):
        u = layer_norm(h, p[f"g1_{i}"], p[f"s1_{i}"]) @ p[f"wqkv{i}"] + p[f"bqkv{i}"]
        u = np.transpose(np.reshape(u, (n, t, 3, heads, d // heads)), (2, 0, 3, 1, 4))
        a = np.reshape(np.transpose(attention(u[0], u[1], u[2]), (0, 2, 1, 3)), (n, t, d))
        h = h + a @ p[f"wo{i}"] + p[f"bo{i}"]
        u = layer_norm(h, p[f"g2_{i}"], p[f"s2_{i}"])
        h = h + gelu(u @ p[f"w1_{i}"] + p[f"b1_{i}"]) @ p[f"w2_{i}"] + p[f"b2_{i}"]
    z = layer_norm(h, p["gf"], p["sf"]) @ p["head"]
    return cross_entropy(np.reshape(z, (n * t, TF["vocabulary"])), np.reshape(b["y"], (n * t,)))


def conv_net(p, b):
    h = maxpool2(relu(conv3x3(b["x"], p["c1"]) + p["d1"]))
    h = maxpool2(relu(conv3x3(h, p["c2"]) + p["d2"]))
    return cross_entropy(np.reshape(h, (64, 7 * 7 * 32)) @ p["w"] + p["b"], b["y"])


def w8(p, b):
    xz, lx = p["x"] * p["z"], np.log(p["x"])
    return np.sum(np.exp(xz) + xz / lx + np.sin(lx) / xz)


def deep_chain(p, b, layers=200):
    h = b["x"]
    for i in range(layers):
        h = h + 0.1 * np.tanh(h @ p[f"w{i}"] + p[f"b{i}"])
    return np.mean(h * h)


# Data and initial values


def normal(rng, dtype, *shape, s=1.0):
    return (rng.standard_normal(shape) * s).astype(dtype)


def make_lecture_net(dtype):
    def make(rng):
        p = {"w1": normal(rng, dtype, 1000, 100), "w2": normal(rng, dtype, 100, 10)}
        return p, [{"x": normal(rng, dtype, 64, 1000), "y": normal(rng, dtype, 64, 10)}]

    return make


def dense(rng, sizes):
    p = {}
    for i, (a, b) in enumerate(itertools.pairwise(sizes)):
        p[f"w{i}"] = normal(rng, "float32", a, b, s=math.sqrt(2.0 / a))
        p[f"b{i}"] = normal(rng, "float32", b, s=0.01)
    return p


def make_digits(rng):
    from sklearn.datasets import load_digits  # slow to import, and needed for one workload only

    d = load_digits()
    x, y = (d.data / 16.0).astype("float32"), d.target.astype("int32")
    order = rng.permutation(len(x))[: len(x) // 64 * 64].reshape(-1, 64)
    return dense(rng, [64, 256, 128, 10]), [{"x": x[i], "y": y[i]} for i in order]


def make_mlp_large(rng):
    p = dense(rng, [1024, 1024, 1024, 10])
    x = normal(rng, "float32", 512, 1024)
    return p, [{"x": x, "y": rng.integers(0, 10, 512).astype("int32")}]


def make_residual(rng, layers=50, d=64):
    def n(*shape, s=1.0):
        return normal(rng, "float32", *shape, s=s)

    p = {"win": n(32, d, s=32**-0.5), "bin": n(d, s=0.01)}
    for i in range(layers):
        p[f"g{i}"] = 1 + n(d, s=0.1)
        p[f"s{i}"] = n(d, s=0.1)
        p[f"wa{i}"] = n(d, d, s=d**-0.5)
        p[f"ba{i}"] = n(d, s=0.01)
        p[f"wb{i}"] = n(d, d, s=0.3 * d**-0.5)
        p[f"bb{i}"] = n(d, s=0.01)
    p |= {"wout": n(d, 10, s=d**-0.5), "bout": n(10, s=0.01)}
    return p, [{"x": n(128, 32), "y": rng.integers(0, 10, 128).astype("int32")}]


def make_transformer(rng):
    def n(*shape, s=0.05):
        return normal(rng, "float32", *shape, s=s)

    d, v = TF["d"], TF["vocabulary"]
    p = {"tok": n(v, d), "pos": n(TF["time"], d)}
    for i in range(TF["layers"]):
        p[f"g1_{i}"] = 1 + n(d, s=0.1)
        p[f"s1_{i}"] = n(d, s=0.1)
        p[f"wqkv{i}"] = n(d, 3 * d)
        p[f"bqkv{i}"] = n(3 * d, s=0.01)
        p[f"wo{i}"] = n(d, d)
        p[f"bo{i}"] = n(d, s=0.01)
        p[f"g2_{i}"] = 1 + n(d, s=0.1)
        p[f"s2_{i}"] = n(d, s=0.1)
        p[f"w1_{i}"] = n(d, 4 * d)
        p[f"b1_{i}"] = n(4 * d, s=0.01)
        p[f"w2_{i}"] = n(4 * d, d)
        p[f"b2_{i}"] = n(d, s=0.01)
    p |= {"gf": 1 + n(d, s=0.1), "sf": n(d, s=0.1), "head": n(d, v)}
    t = rng.integers(0, v, (TF["batch"], TF["time"] + 1)).astype("int32")
    return p, [{"x": t[:, :-1].copy(), "y": t[:, 1:].copy()}]


def make_conv(rng):
    def n(*shape, s):
        return normal(rng, "float32", *shape, s=s)

    p = {
        "c1": n(3, 3, 1, 16, s=0.3),
        "d1": n(16, s=0.01),
        "c2": n(3, 3, 16, 32, s=0.1),
        "d2": n(32, s=0.01),
        "w": n(7 * 7 * 32, 10, s=0.03),
        "b": n(10, s=0.01),
    }
    return p, [{"x": n(64, 28, 28, 1, s=1.0), "y": rng.integers(0, 10, 64).astype("int32")}]


def make_w8(rng, n=1_000_000):
    return {"x": rng.uniform(1.5, 3.0, n), "z": rng.uniform(0.5, 2.0, n)}, [{}]


def make_w8_scalar(rng):
    return {"x": 2.0, "z": 3.0}, [{}]


def make_chain(rng, layers=200, d=256, batch=512):
    p = {}
    for i in range(layers):
        p[f"w{i}"] = normal(rng, "float32", d, d, s=d**-0.5)
        p[f"b{i}"] = normal(rng, "float32", d, s=0.01)
    return p, [{"x": normal(rng, "float32", batch, d)}]


ADAM = {"kind": "adam", "lr": 1e-3, "b1": 0.9, "b2": 0.999, "eps": 1e-8}
ADAMW = {"kind": "adamw", "lr": 3e-4, "b1": 0.9, "b2": 0.999, "eps": 1e-8, "weight_decay": 0.01}
MOMENTUM = {"kind": "momentum", "lr": 1e-2, "mu": 0.9}  # v = mu v + g; p = p - lr v


def sgd(lr):
    return {"kind": "sgd", "lr": lr}


VG = "value and gradient"
SCALAR_CALL = "call, Python floats in and out"
EPOCH = "epoch of 28 steps"

WORKLOADS = {
    "lecture_net_f64": Workload(
        lecture_net, make_lecture_net("float64"), "float64", sgd(1e-4), "step"
    ),
    "lecture_net_f32": Workload(
        lecture_net, make_lecture_net("float32"), "float32", sgd(1e-4), "step"
    ),
    "digits": Workload(mlp3, make_digits, "float32", ADAM, EPOCH),
    "residual50": Workload(residual_mlp, make_residual, "float32", MOMENTUM, "step"),
    "transformer": Workload(transformer, make_transformer, "float32", ADAMW, "step"),
    "conv_net": Workload(conv_net, make_conv, "float32", MOMENTUM, "step"),
    "mlp_large": Workload(mlp3, make_mlp_large, "float32", sgd(1e-2), "step"),
    "w8": Workload(w8, make_w8, "float64", None, VG),
    "w8_scalar": Workload(w8, make_w8_scalar, "float64", None, SCALAR_CALL),
    "deep_chain": Workload(deep_chain, make_chain, "float32", None, VG),
}


def definitions(namespace: Any, **own: Any) -> ModuleType:
    """Return a copy of this module whose `np` is `namespace`.

    Args:
        namespace: An array namespace with NumPy's names, such as `jax.numpy`.
        **own: Functions of this module to replace by the namespace's own form of them.
    """
    spec = importlib.util.find_spec(__name__)
    if spec is None or spec.loader is None:
        raise ImportError(f"{__name__} has no source to copy")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    vars(module).update(own, np=namespace)
    return module


def objective_of(module: ModuleType, workload: Workload) -> Callable[[dict, dict], Any]:
    """Return the objective of a workload as a copy of this module defines it."""
    return getattr(module, workload.objective.__name__)
