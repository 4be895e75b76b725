"""Building blocks: `name` gives the result and what `name_backward` needs for its gradients."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from benchmarks.objectives import GELU_C


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


def sigmoid_in_place(x: np.ndarray) -> np.ndarray:
    """Overwrite x by its logistic sigmoid and return it."""
    np.negative(x, out=x)
    with np.errstate(over="ignore"):
        np.exp(x, out=x)
    x += 1.0
    return np.reciprocal(x, out=x)
