"""Inputs of the workloads: `make(rng)` gives `(params, batches)`, arrays by name.

The order in which a function draws is part of the definition: the same seed gives the same inputs.
"""

from __future__ import annotations

import itertools
import math

import numpy as np

from benchmarks.objectives import TF

# Networks


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


def make_mlp(sizes, batch):
    def make(rng):
        p = dense(rng, sizes)
        x = normal(rng, "float32", batch, sizes[0])
        return p, [{"x": x, "y": rng.integers(0, sizes[-1], batch).astype("int32")}]

    return make


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


def make_conv(rng, size=28):
    def n(*shape, s):
        return normal(rng, "float32", *shape, s=s)

    p = {
        "c1": n(3, 3, 1, 16, s=0.3),
        "d1": n(16, s=0.01),
        "c2": n(3, 3, 16, 32, s=0.1),
        "d2": n(32, s=0.01),
        "w": n((size // 4) ** 2 * 32, 10, s=0.03),
        "b": n(10, s=0.01),
    }
    return p, [{"x": n(64, size, size, 1, s=1.0), "y": rng.integers(0, 10, 64).astype("int32")}]


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


def make_lstm(rng, steps=100, batch=32, width=128):
    p = {
        "wx": normal(rng, "float32", width, 4 * width, s=width**-0.5),
        "wh": normal(rng, "float32", width, 4 * width, s=width**-0.5),
        "b": normal(rng, "float32", 4 * width, s=0.1),
    }
    x = normal(rng, "float32", steps, batch, width)
    return p, [{"x": x, "y": normal(rng, "float32", batch, width)}]


# Layers alone


def make_cross_entropy(rows, classes):
    def make(rng):
        z = normal(rng, "float32", rows, classes)
        return {"z": z}, [{"y": rng.integers(0, classes, rows).astype("int32")}]

    return make


def make_layer_norm(rows, width):
    def make(rng):
        p = {
            "x": normal(rng, "float32", rows, width),
            "gain": 1 + normal(rng, "float32", width, s=0.1),
            "shift": normal(rng, "float32", width, s=0.1),
        }
        return p, [{"ct": normal(rng, "float32", rows, width)}]

    return make


def make_attention(time, heads=8, features=64):
    def make(rng):
        p = {k: normal(rng, "float32", 1, heads, time, features) for k in "qkv"}
        return p, [{"ct": normal(rng, "float32", 1, heads, time, features)}]

    return make


# What other users compute


def make_heat(rng, size=512):
    u = normal(rng, "float32", size, size)
    return {"u": u}, [{"y": normal(rng, "float32", size, size)}]


def make_products(n, count=4096):
    def make(rng):
        p = {k: normal(rng, "float32", count, n, n) for k in "xy"}
        return p, [{"ct": normal(rng, "float32", count, n, n)}]

    return make


def make_solutions(rng, n=6, count=4096):
    a = normal(rng, "float32", count, n, n) + 2 * n * np.eye(n, dtype="float32")
    p = {"a": a, "y": normal(rng, "float32", count, n, 1)}
    return p, [{"ct": normal(rng, "float32", count, n, 1)}]


def make_mixture(rng, points=4096, parts=16, n=8):
    p = {
        "logit": normal(rng, "float32", parts),
        "mean": normal(rng, "float32", parts, n),
        "scale": normal(rng, "float32", parts, n, s=0.2),
        "low": normal(rng, "float32", parts, n, n, s=0.2),
    }
    return p, [{"x": normal(rng, "float32", points, n, s=1.5)}]


def make_running_sum(rng, rows=512, length=4096):
    p = {"x": normal(rng, "float32", rows, length)}
    return p, [{"ct": normal(rng, "float32", rows, length)}]


def make_recurrence(rng, steps=512, width=256):
    p = {
        "a": rng.uniform(0.5, 1.0, (steps, width)).astype("float32"),
        "x": normal(rng, "float32", steps, width),
    }
    return p, [{"ct": normal(rng, "float32", steps, width)}]


def make_graph(rng, nodes=4096, edges=32768, features=32, classes=8):
    p = {
        "w0": normal(rng, "float32", features, features, s=features**-0.5),
        "b0": normal(rng, "float32", features, s=0.01),
        "w1": normal(rng, "float32", features, classes, s=features**-0.5),
        "b1": normal(rng, "float32", classes, s=0.01),
    }
    batch = {
        "x": normal(rng, "float32", nodes, features),
        "source": rng.integers(0, nodes, edges).astype("int32"),
        "target": rng.integers(0, nodes, edges).astype("int32"),
        "weight": rng.uniform(0.0, 0.3, edges).astype("float32"),
        "y": rng.integers(0, classes, nodes).astype("int32"),
    }
    return p, [batch]


def make_sorted(rng, rows=512, length=1024):
    """Numbers that all differ: where two are equal, gradients may go to either."""
    x = rng.permutation(rows * length).reshape(rows, length) * 2.0**-17
    p = {"x": x.astype("float32")}
    return p, [{"ct": normal(rng, "float32", rows, length)}]


def make_transposed(rng, n=1024):
    return {k: normal(rng, "float32", n, n) for k in "xy"}, [{}]


def make_elementwise(rng, n=1_000_000):
    return {k: normal(rng, "float32", n) for k in "xy"}, [{"ct": normal(rng, "float32", n)}]


def make_many(rng, layers=100, width=64):
    """Params of many layers; the batch holds their gradients."""
    shapes = {}
    for i in range(layers):
        shapes |= {f"w{i}": (width, width), f"b{i}": (width,)}
    p = {k: normal(rng, "float32", *shape, s=0.1) for k, shape in shapes.items()}
    return p, [{k: normal(rng, "float32", *shape) for k, shape in shapes.items()}]
