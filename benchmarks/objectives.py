"""What the workloads compute, in plain NumPy as a user writes it.

Nothing but `np` and the functions of this module is named, so that `workloads.definitions` can give
the same objectives over another array namespace. An objective takes params and one batch. It gives
a scalar, or an array whose pullback takes the batch's `ct`, or just a result.
"""

from __future__ import annotations

import math

import numpy as np

GELU_C = math.sqrt(2.0 / math.pi)
TF = {"layers": 2, "d": 128, "heads": 4, "time": 64, "batch": 8, "vocabulary": 256}
HEAT_STEPS, HEAT_RATE = 100, 0.2


# Building blocks


def relu(x):
    return np.maximum(x, 0.0)


def sigmoid(x):
    return 1.0 / (1.0 + np.exp(-x))


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


def scan(step, carry, xs, length=None):
    """Run `carry, y = step(carry, x)` over the leading axis of `xs`; stack the ys."""
    count = length if xs is None else len(first_of(xs))
    ys = []
    for i in range(count):
        carry, y = step(carry, at(xs, i))
        ys.append(y)
    return carry, None if y is None else np.stack(ys)


def first_of(xs):
    return xs[0] if isinstance(xs, tuple) else xs


def at(xs, i):
    """Return element i of an array, of each array of a tuple, or None."""
    if isinstance(xs, tuple):
        return tuple(x[i] for x in xs)
    return None if xs is None else xs[i]


def segment_sum(rows, segments, count):
    """Sum the rows that belong to each of `count` segments."""
    total = np.zeros((count, rows.shape[1]), dtype=rows.dtype)
    np.add.at(total, segments, rows)
    return total


# Training: scalar objectives of networks


def lecture_net(p, b):
    d = sigmoid(b["x"] @ p["w1"]) @ p["w2"] - b["y"]
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
    return cross_entropy(np.reshape(h, (h.shape[0], -1)) @ p["w"] + p["b"], b["y"])


def w8(p, b):
    xz, lx = p["x"] * p["z"], np.log(p["x"])
    return np.sum(np.exp(xz) + xz / lx + np.sin(lx) / xz)


def deep_chain(p, b, layers=200):
    h = b["x"]
    for i in range(layers):
        h = h + 0.1 * np.tanh(h @ p[f"w{i}"] + p[f"b{i}"])
    return np.mean(h * h)


def lstm(p, b):
    """The last state of a recurrent layer against a target; gates in the order i, f, g, o."""

    def step(carry, x):
        h, c = carry
        i, f, g, o = np.split(x @ p["wx"] + h @ p["wh"] + p["b"], 4, axis=1)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        return (sigmoid(o) * np.tanh(c), c), None

    start = np.zeros(b["y"].shape, dtype=b["y"].dtype)
    (h, _), _ = scan(step, (start, start), b["x"])
    d = h - b["y"]
    return np.mean(d * d)


# Layers alone


def cross_entropy_alone(p, b):
    return cross_entropy(p["z"], b["y"])


def layer_norm_alone(p, b):
    return layer_norm(p["x"], p["gain"], p["shift"])


def attention_alone(p, b):
    return attention(p["q"], p["k"], p["v"])


# What other users compute


def heat_step(u, _):
    """One explicit step of the heat equation; the boundary stays."""
    around = u[:-2, 1:-1] + u[2:, 1:-1] + u[1:-1, :-2] + u[1:-1, 2:]
    return u + np.pad(HEAT_RATE * (around - 4.0 * u[1:-1, 1:-1]), ((1, 1), (1, 1))), None


def heat(p, b):
    return scan(heat_step, p["u"], None, length=HEAT_STEPS)[0]


def heat_misfit(p, b):
    d = heat(p, b) - b["y"]
    return np.sum(d * d)


def products(p, b):
    return p["x"] @ p["y"]


def solutions(p, b):
    return np.linalg.solve(p["a"], p["y"])


def mixture(p, b):
    """Mean negative log-density of Gaussians given by the factors of their precisions."""
    n = p["mean"].shape[1]
    factor = np.tril(p["low"], -1) + np.exp(p["scale"])[:, :, None] * np.eye(n, dtype="float32")
    z = np.einsum("kij,nkj->nki", factor, b["x"][:, None, :] - p["mean"])
    q = p["logit"] + np.sum(p["scale"], axis=1) - 0.5 * np.sum(z * z, axis=2)
    return np.mean(log_sum_exp(p["logit"]) - log_sum_exp(q))


def log_sum_exp(q):
    top = np.max(q, axis=-1, keepdims=True)
    return np.log(np.sum(np.exp(q - top), axis=-1)) + top[..., 0]


def running_sum(p, b):
    return np.cumsum(p["x"], axis=1)


def recurrence(p, b):
    """All states of `h = a h + x`."""

    def step(h, each):
        a, x = each
        h = a * h + x
        return h, h

    start = np.zeros(p["a"].shape[1], dtype=p["a"].dtype)
    return scan(step, start, (p["a"], p["x"]))[1]


def graph_net(p, b):
    """Two rounds of messages along weighted edges, then a class for each node."""
    h = np.tanh(messages(b["x"], b) @ p["w0"] + p["b0"])
    return cross_entropy(messages(h, b) @ p["w1"] + p["b1"], b["y"])


def messages(h, b):
    return segment_sum(h[b["source"]] * b["weight"][:, None], b["target"], h.shape[0])


def sorted_rows(p, b):
    return np.sort(p["x"], axis=1)


def add_transposed(p, b):
    return p["x"] + p["y"].T


def elementwise(p, b):
    """Twenty operations on each element."""
    x, y = p["x"], p["y"]
    u = np.tanh(x * y + 0.5)
    v = np.sqrt(x * x + y * y + 1.0)
    w = np.exp(-u * v) + np.maximum(x - y, 0.0)
    r = np.log(w + 1.0) / v
    return np.sin(r) * u + abs(y - r) * 0.25


def no_objective(p, b):
    """Stand for the objective where gradients are given and the update alone is done."""
    raise NotImplementedError("the batch holds the gradients")
