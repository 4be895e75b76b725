"""Values and gradients of the networks, forward and backward."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from benchmarks.by_hand.blocks import (
    attention,
    attention_backward,
    conv_block,
    conv_block_backward,
    cross_entropy,
    gelu,
    gelu_backward,
    layer_norm,
    layer_norm_backward,
    sigmoid_in_place,
)
from benchmarks.objectives import TF


def lecture_net(p: dict, b: dict) -> tuple[Any, dict]:
    a = sigmoid_in_place(b["x"] @ p["w1"])
    d = a @ p["w2"]
    d -= b["y"]
    value = np.vdot(d, d)
    d *= 2.0
    by_a = d @ p["w2"].T
    by_w2 = a.T @ d
    by_a *= a
    np.subtract(1.0, a, out=a)
    by_a *= a
    return value, {"w1": b["x"].T @ by_a, "w2": by_w2}


def mlp3(p: dict, b: dict) -> tuple[Any, dict]:
    x = b["x"]
    h0 = x @ p["w0"]
    h0 += p["b0"]
    np.maximum(h0, 0.0, out=h0)
    h1 = h0 @ p["w1"]
    h1 += p["b1"]
    np.maximum(h1, 0.0, out=h1)
    z = h1 @ p["w2"]
    z += p["b2"]
    value, d2 = cross_entropy(z, b["y"])
    d1 = d2 @ p["w2"].T
    d1 *= h1 > 0.0
    d0 = d1 @ p["w1"].T
    d0 *= h0 > 0.0
    weights = {"w0": x.T @ d0, "w1": h0.T @ d1, "w2": h1.T @ d2}
    return value, weights | {"b0": d0.sum(axis=0), "b1": d1.sum(axis=0), "b2": d2.sum(axis=0)}


def residual_mlp(p: dict, b: dict, layers: int = 50) -> tuple[Any, dict]:
    h = b["x"] @ p["win"]
    h += p["bin"]
    saved = []
    for i in range(layers):
        n, norm = layer_norm(h, p[f"g{i}"], p[f"s{i}"])
        u = n @ p[f"wa{i}"]
        u += p[f"ba{i}"]
        u, gate = gelu(u)
        h = h + u @ p[f"wb{i}"]
        h += p[f"bb{i}"]
        saved.append((n, norm, gate, u))
    z = h @ p["wout"]
    z += p["bout"]
    value, d = cross_entropy(z, b["y"])
    g = {"wout": h.T @ d, "bout": d.sum(axis=0)}
    d = d @ p["wout"].T
    for i in reversed(range(layers)):
        n, norm, gate, u = saved.pop()
        g[f"wb{i}"], g[f"bb{i}"] = u.T @ d, d.sum(axis=0)
        v = gelu_backward(d @ p[f"wb{i}"].T, gate)
        g[f"wa{i}"], g[f"ba{i}"] = n.T @ v, v.sum(axis=0)
        by_h, g[f"g{i}"], g[f"s{i}"] = layer_norm_backward(v @ p[f"wa{i}"].T, norm)
        d += by_h
    g["win"], g["bin"] = b["x"].T @ d, d.sum(axis=0)
    return value, g


def transformer(p: dict, b: dict) -> tuple[Any, dict]:
    n, t, d, heads = TF["batch"], TF["time"], TF["d"], TF["heads"]
    rows = n * t
    h = (p["tok"][b["x"]] + p["pos"]).reshape(rows, d)
    saved = []
    for i in range(TF["layers"]):
        x, norm1 = layer_norm(h, p[f"g1_{i}"], p[f"s1_{i}"])
        u = x @ p[f"wqkv{i}"]
        u += p[f"bqkv{i}"]
        u = u.reshape(n, t, 3, heads, d // heads).transpose(2, 0, 3, 1, 4)
        a, attended = attention(u[0], u[1], u[2])
        a = a.transpose(0, 2, 1, 3).reshape(rows, d)
        h = h + a @ p[f"wo{i}"]
        h += p[f"bo{i}"]
        y, norm2 = layer_norm(h, p[f"g2_{i}"], p[f"s2_{i}"])
        u = y @ p[f"w1_{i}"]
        u += p[f"b1_{i}"]
        u, gate = gelu(u)
        h = h + u @ p[f"w2_{i}"]
        h += p[f"b2_{i}"]
        saved.append((x, norm1, attended, a, y, norm2, gate, u))
    x, norm = layer_norm(h, p["gf"], p["sf"])
    value, dz = cross_entropy(x @ p["head"], b["y"].reshape(rows))
    g = {"head": x.T @ dz}
    dh, g["gf"], g["sf"] = layer_norm_backward(dz @ p["head"].T, norm)
    for i in reversed(range(TF["layers"])):
        x, norm1, attended, a, y, norm2, gate, u = saved.pop()
        g[f"w2_{i}"], g[f"b2_{i}"] = u.T @ dh, dh.sum(axis=0)
        v = gelu_backward(dh @ p[f"w2_{i}"].T, gate)
        g[f"w1_{i}"], g[f"b1_{i}"] = y.T @ v, v.sum(axis=0)
        by_h, g[f"g2_{i}"], g[f"s2_{i}"] = layer_norm_backward(v @ p[f"w1_{i}"].T, norm2)
        dh += by_h
        g[f"wo{i}"], g[f"bo{i}"] = a.T @ dh, dh.sum(axis=0)
        da = (dh @ p[f"wo{i}"].T).reshape(n, t, heads, d // heads).transpose(0, 2, 1, 3)
        du = np.empty((n, t, 3, heads, d // heads), dtype=h.dtype)
        for j, by in enumerate(attention_backward(da, attended)):
            du[:, :, j] = by.transpose(0, 2, 1, 3)
        du = du.reshape(rows, 3 * d)
        g[f"wqkv{i}"], g[f"bqkv{i}"] = x.T @ du, du.sum(axis=0)
        by_h, g[f"g1_{i}"], g[f"s1_{i}"] = layer_norm_backward(du @ p[f"wqkv{i}"].T, norm1)
        dh += by_h
    g["pos"] = dh.reshape(n, t, d).sum(axis=0)
    chosen = np.zeros((rows, TF["vocabulary"]), dtype=h.dtype)
    chosen[np.arange(rows), b["x"].reshape(rows)] = 1.0
    g["tok"] = chosen.T @ dh
    return value, g


def conv_net(p: dict, b: dict) -> tuple[Any, dict]:
    h1, saved1 = conv_block(b["x"], p["c1"], p["d1"])
    h2, saved2 = conv_block(h1, p["c2"], p["d2"])
    flat = h2.reshape(len(h2), -1)
    z = flat @ p["w"]
    z += p["b"]
    value, d = cross_entropy(z, b["y"])
    g = {"w": flat.T @ d, "b": d.sum(axis=0)}
    d, g["c2"], g["d2"] = conv_block_backward((d @ p["w"].T).reshape(h2.shape), saved2, True)
    _, g["c1"], g["d1"] = conv_block_backward(d, saved1, False)
    return value, g


def w8(p: dict, b: dict) -> tuple[Any, dict]:
    if isinstance(p["x"], float):
        return w8_scalar(p["x"], p["z"])
    x, z = p["x"], p["z"]
    xz, lx = x * z, np.log(x)
    e, ratio, wave = np.exp(xz), xz / lx, np.sin(lx)
    wave /= xz
    value = np.sum(e + ratio + wave)
    e += (ratio - wave) / xz
    lean = (np.cos(lx) / xz - ratio / lx) / x
    return value, {"x": e * z + lean, "z": e * x}


def w8_scalar(x: float, z: float) -> tuple[float, dict]:
    xz, lx = x * z, math.log(x)
    e, ratio, wave = math.exp(xz), xz / lx, math.sin(lx) / xz
    by_xz = e + (ratio - wave) / xz
    by_x = by_xz * z + (math.cos(lx) / xz - ratio / lx) / x
    return e + ratio + wave, {"x": by_x, "z": by_xz * x}


def deep_chain(p: dict, b: dict, layers: int = 200) -> tuple[Any, dict]:
    h, saved = b["x"], []
    for i in range(layers):
        t = h @ p[f"w{i}"]
        t += p[f"b{i}"]
        np.tanh(t, out=t)
        saved.append((h, t))
        h = 0.1 * t
        h += saved[-1][0]
    value = np.mean(h * h)
    d = h
    d *= 2.0 / d.size
    g = {}
    for i in reversed(range(layers)):
        h, t = saved.pop()
        t *= t
        np.subtract(1.0, t, out=t)
        t *= d
        t *= 0.1
        g[f"w{i}"], g[f"b{i}"] = h.T @ t, t.sum(axis=0)
        d += t @ p[f"w{i}"].T
    return value, g


def lstm(p: dict, b: dict) -> tuple[Any, dict]:
    x = b["x"]
    steps, rows, width = *x.shape[:2], b["y"].shape[1]
    flat = x.reshape(steps * rows, -1)
    z = (flat @ p["wx"] + p["b"]).reshape(steps, rows, 4 * width)
    h, c = (np.zeros((steps + 1, rows, width), dtype=x.dtype) for _ in range(2))
    tanh_c = np.empty((steps, rows, width), dtype=x.dtype)
    for t in range(steps):
        z[t] += h[t] @ p["wh"]
        i, f, g, o = np.split(z[t], 4, axis=1)
        sigmoid_in_place(z[t, :, : 2 * width])
        np.tanh(g, out=g)
        sigmoid_in_place(o)
        np.multiply(f, c[t], out=c[t + 1])
        c[t + 1] += i * g
        np.tanh(c[t + 1], out=tanh_c[t])
        np.multiply(o, tanh_c[t], out=h[t + 1])
    d = h[-1] - b["y"]
    value = np.mean(d * d)
    dh = d * (2.0 / d.size)
    dc = np.zeros_like(dh)
    back = p["wh"].T
    for t in reversed(range(steps)):
        i, f, g, o = np.split(z[t], 4, axis=1)
        dc += dh * o * (1.0 - tanh_c[t] * tanh_c[t])
        di, df, dg = dc * g * i * (1.0 - i), dc * c[t] * f * (1.0 - f), dc * i * (1.0 - g * g)
        dc *= f
        o *= dh * tanh_c[t] * (1.0 - o)
        i[...], f[...], g[...] = di, df, dg
        dh = z[t] @ back
    dz = z.reshape(steps * rows, 4 * width)
    by_wh = h[:-1].reshape(steps * rows, width).T @ dz
    return value, {"wx": flat.T @ dz, "wh": by_wh, "b": dz.sum(axis=0)}
