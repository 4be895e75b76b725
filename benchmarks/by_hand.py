"""Values and gradients of the workloads written by hand in NumPy, forward and backward.

`BY_HAND[objective name](params, batch)` gives `(value, grads)`. The functions keep the dtype of
their inputs: in float32 and float64 they are a peer, in float64 also the reference that every peer
is compared with. They are compared themselves with finite differences in the tests.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from benchmarks.workloads import GELU_C, TF

# Building blocks: `name` gives the result and what `name_backward` needs


def cross_entropy(z: np.ndarray, y: np.ndarray) -> tuple[Any, np.ndarray]:
    """Return the mean cross entropy and its gradient by the logits."""
    rows = np.arange(len(z))
    s = z - z.max(axis=1, keepdims=True)
    picked = s[rows, y]
    np.exp(s, out=s)
    total = s.sum(axis=1, keepdims=True)
    value = np.mean(np.log(total[:, 0]) - picked)
    s /= total
    s[rows, y] -= 1.0
    s /= len(z)
    return value, s


def layer_norm(x: np.ndarray, gain: np.ndarray, shift: np.ndarray) -> tuple[np.ndarray, tuple]:
    c = x - x.mean(axis=-1, keepdims=True)
    r = 1.0 / np.sqrt(np.mean(c * c, axis=-1, keepdims=True) + 1e-5)
    c *= r
    return c * gain + shift, (c, r, gain)


def layer_norm_backward(g: np.ndarray, residuals: tuple) -> tuple[np.ndarray, ...]:
    """Return the gradients by x, gain and shift."""
    n, r, gain = residuals
    leading = tuple(range(g.ndim - 1))
    by_gain, by_shift = np.sum(g * n, axis=leading), np.sum(g, axis=leading)
    d = g * gain
    along = np.mean(d * n, axis=-1, keepdims=True)
    d -= d.mean(axis=-1, keepdims=True)
    d -= n * along
    d *= r
    return d, by_gain, by_shift


def gelu(x: np.ndarray) -> tuple[np.ndarray, tuple]:
    square = x * x
    t = square * (0.044715 * GELU_C)
    t += GELU_C
    t *= x
    np.tanh(t, out=t)
    y = t + 1.0
    y *= x
    y *= 0.5
    return y, (x, square, t)


def gelu_backward(g: np.ndarray, residuals: tuple) -> np.ndarray:
    x, square, t = residuals
    d = square * (3 * 0.044715 * GELU_C)
    d += GELU_C
    d *= x
    d *= 1.0 - t * t
    d += t
    d += 1.0
    d *= 0.5
    d *= g
    return d


def attention(q: np.ndarray, k: np.ndarray, v: np.ndarray) -> tuple[np.ndarray, tuple]:
    t, e = q.shape[-2:]
    scale = 1.0 / math.sqrt(e)
    w = q @ np.swapaxes(k, -1, -2)
    w *= scale
    w[..., ~np.tril(np.ones((t, t), dtype=bool))] = -1e30
    w -= w.max(axis=-1, keepdims=True)
    np.exp(w, out=w)
    w /= w.sum(axis=-1, keepdims=True)
    return w @ v, (q, k, v, w, scale)


def attention_backward(g: np.ndarray, residuals: tuple) -> tuple[np.ndarray, ...]:
    """Return the gradients by q, k and v."""
    q, k, v, w, scale = residuals
    by_v = np.swapaxes(w, -1, -2) @ g
    s = g @ np.swapaxes(v, -1, -2)
    s -= np.sum(s * w, axis=-1, keepdims=True)
    s *= w
    s *= scale
    return s @ k, np.swapaxes(s, -1, -2) @ q, by_v


def patches(x: np.ndarray) -> np.ndarray:
    """Return the 3x3 neighbourhood of each pixel as a row, zeros outside the image."""
    n, h, w, c = x.shape
    padded = np.zeros((n, h + 2, w + 2, c), dtype=x.dtype)
    padded[:, 1:-1, 1:-1] = x
    rows = np.empty((n, h, w, 3, 3, c), dtype=x.dtype)
    for i in range(3):
        for j in range(3):
            rows[:, :, :, i, j] = padded[:, i : i + h, j : j + w]
    return rows.reshape(n * h * w, 9 * c)


def patches_backward(g: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    n, h, w, c = shape
    g = g.reshape(n, h, w, 3, 3, c)
    padded = np.zeros((n, h + 2, w + 2, c), dtype=g.dtype)
    for i in range(3):
        for j in range(3):
            padded[:, i : i + h, j : j + w] += g[:, :, :, i, j]
    return padded[:, 1:-1, 1:-1]


def conv_block(x: np.ndarray, w: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, tuple]:
    """Convolution, bias, relu, 2x2 maximum."""
    rows = patches(x)
    n, height, width, _ = x.shape
    z = rows @ w.reshape(-1, w.shape[-1])
    z += b
    np.maximum(z, 0.0, out=z)
    z = z.reshape(n, height // 2, 2, width // 2, 2, -1)
    top = z.max(axis=(2, 4))
    return top, (rows, z, top, w, x.shape)


def conv_block_backward(g: np.ndarray, residuals: tuple, by_input: bool) -> tuple:
    """Return the gradients by x (None unless asked for), w and b.

    Ties within a window are all at zero, where relu stops the gradient.
    """
    rows, z, top, w, shape = residuals
    top = top[:, :, None, :, None]
    d = np.where((z == top) & (z > 0.0), g[:, :, None, :, None], g.dtype.type(0))
    d = d.reshape(len(rows), -1)
    by_w = (rows.T @ d).reshape(w.shape)
    by_x = patches_backward(d @ w.reshape(-1, w.shape[-1]).T, shape) if by_input else None
    return by_x, by_w, d.sum(axis=0)


# Values and gradients


def lecture_net(p: dict, b: dict) -> tuple[Any, dict]:
    a = b["x"] @ p["w1"]
    np.negative(a, out=a)
    with np.errstate(over="ignore"):
        np.exp(a, out=a)
    a += 1.0
    np.reciprocal(a, out=a)
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


BY_HAND = {
    f.__name__: f for f in (lecture_net, mlp3, residual_mlp, transformer, conv_net, w8, deep_chain)
}
