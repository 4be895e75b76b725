"""What other users compute: results and gradients by hand."""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.by_hand.blocks import cross_entropy
from benchmarks.objectives import HEAT_RATE, HEAT_STEPS

AROUND = tuple(
    (slice(1 + i, i - 1 or None), slice(1 + j, j - 1 or None))
    for i, j in ((-1, 0), (1, 0), (0, -1), (0, 1))
)  # the neighbours of the inner points
INNER = (slice(1, -1), slice(1, -1))


def heat(p: dict, b: dict) -> np.ndarray:
    u = p["u"].copy()
    inner = u[INNER]
    change = np.empty_like(inner)
    for _ in range(HEAT_STEPS):
        np.add(u[AROUND[0]], u[AROUND[1]], out=change)
        change += u[AROUND[2]]
        change += u[AROUND[3]]
        change *= HEAT_RATE
        inner *= 1.0 - 4.0 * HEAT_RATE
        inner += change
    return u


def heat_misfit(p: dict, b: dict) -> tuple[Any, dict]:
    d = heat(p, b)
    d -= b["y"]
    value = np.vdot(d, d)
    d *= 2.0
    inner = d[INNER]
    for _ in range(HEAT_STEPS):
        share = inner * HEAT_RATE
        inner *= 1.0 - 4.0 * HEAT_RATE
        for where in AROUND:
            d[where] += share
    return value, {"u": d}


def products(p: dict, b: dict) -> tuple[np.ndarray, dict]:
    x, y, ct = p["x"], p["y"], b["ct"]
    return x @ y, {"x": ct @ np.swapaxes(y, 1, 2), "y": np.swapaxes(x, 1, 2) @ ct}


def solutions(p: dict, b: dict) -> tuple[np.ndarray, dict]:
    x = np.linalg.solve(p["a"], p["y"])
    by_y = np.linalg.solve(np.swapaxes(p["a"], 1, 2), b["ct"])
    return x, {"a": -by_y * np.swapaxes(x, 1, 2), "y": by_y}


def mixture(p: dict, b: dict) -> tuple[Any, dict]:
    n = p["mean"].shape[1]
    diagonal = np.arange(n)
    spread = np.exp(p["scale"])
    factor = np.tril(p["low"], -1)
    factor[:, diagonal, diagonal] = spread
    d = b["x"] - p["mean"][:, None, :]  # of parts, points and coordinates
    z = d @ np.swapaxes(factor, 1, 2)
    q = np.einsum("kni,kni->kn", z, z)
    q *= -0.5
    q += (p["logit"] + p["scale"].sum(axis=1))[:, None]
    top = q.max(axis=0)
    q -= top
    np.exp(q, out=q)
    total = q.sum(axis=0)
    prior = np.exp(p["logit"] - p["logit"].max())
    value = np.log(prior.sum()) + p["logit"].max() - np.mean(np.log(total) + top)
    q /= total * len(total)  # the share of each part in each point, over the points
    share = q.sum(axis=1)
    z *= q[:, :, None]
    by_factor = np.swapaxes(z, 1, 2) @ d
    return value, {
        "logit": prior / prior.sum() - share,
        "mean": -(z.sum(axis=1)[:, None, :] @ factor)[:, 0],
        "scale": by_factor[:, diagonal, diagonal] * spread - share[:, None],
        "low": np.tril(by_factor, -1),
    }


def running_sum(p: dict, b: dict) -> tuple[np.ndarray, dict]:
    backward = np.cumsum(b["ct"][:, ::-1], axis=1)[:, ::-1]
    return np.cumsum(p["x"], axis=1), {"x": backward}


def recurrence(p: dict, b: dict) -> tuple[np.ndarray, dict]:
    a, x, ct = p["a"], p["x"], b["ct"]
    h = x.copy()
    for t in range(1, len(h)):
        h[t] += a[t] * h[t - 1]
    by_x = ct.copy()
    for t in reversed(range(len(h) - 1)):
        by_x[t] += a[t + 1] * by_x[t + 1]
    by_a = np.zeros_like(a)
    np.multiply(by_x[1:], h[:-1], out=by_a[1:])
    return h, {"a": by_a, "x": by_x}


class Edges:
    """Weighted edges sorted by their ends, so that sums over segments are sums of ranges."""

    def __init__(self, into: np.ndarray, out_of: np.ndarray, weight: np.ndarray) -> None:
        order = np.argsort(into, kind="stable")
        self.out_of, self.weight = out_of[order], weight[order, None]
        ends, self.starts = np.unique(into[order], return_index=True)
        self.ends = ends

    def sum(self, rows: np.ndarray) -> np.ndarray:
        """Sum the weighted rows at one end of the edges for each node at the other end."""
        total = np.zeros_like(rows)
        total[self.ends] = np.add.reduceat(rows[self.out_of] * self.weight, self.starts, axis=0)
        return total


def graph_net(p: dict, b: dict) -> tuple[Any, dict]:
    edges = Edges(b["target"], b["source"], b["weight"])
    s0 = edges.sum(b["x"])
    h = s0 @ p["w0"]
    h += p["b0"]
    np.tanh(h, out=h)
    s1 = edges.sum(h)
    z = s1 @ p["w1"]
    z += p["b1"]
    value, d = cross_entropy(z, b["y"])
    g = {"w1": s1.T @ d, "b1": d.sum(axis=0)}
    d = Edges(b["source"], b["target"], b["weight"]).sum(d @ p["w1"].T)
    h *= h
    np.subtract(1.0, h, out=h)
    d *= h
    return value, g | {"w0": s0.T @ d, "b0": d.sum(axis=0)}


def sorted_rows(p: dict, b: dict) -> tuple[np.ndarray, dict]:
    order = np.argsort(p["x"], axis=1)
    by_x = np.empty_like(p["x"])
    np.put_along_axis(by_x, order, b["ct"], axis=1)
    return np.take_along_axis(p["x"], order, axis=1), {"x": by_x}


def add_transposed(p: dict, b: dict) -> np.ndarray:
    return p["x"] + p["y"].T


def elementwise_result(p: dict, b: dict) -> np.ndarray:
    x, y = p["x"], p["y"]
    u = x * y
    u += 0.5
    np.tanh(u, out=u)
    v = x * x
    v += y * y
    v += 1.0
    np.sqrt(v, out=v)
    w = u * v
    np.negative(w, out=w)
    np.exp(w, out=w)
    t = x - y
    w += np.maximum(t, 0.0, out=t)
    w += 1.0
    np.log(w, out=w)
    w /= v
    u *= np.sin(w, out=v)
    np.subtract(y, w, out=w)
    np.abs(w, out=w)
    w *= 0.25
    u += w
    return u


def elementwise(p: dict, b: dict) -> tuple[np.ndarray, dict]:
    x, y, ct = p["x"], p["y"], b["ct"]
    u = np.tanh(x * y + 0.5)
    v = np.sqrt(x * x + y * y + 1.0)
    e = np.exp(-u * v)
    w1 = e + np.maximum(x - y, 0.0) + 1.0
    r = np.log(w1) / v
    wave, left = np.sin(r), y - r
    result = wave * u + np.abs(left) * 0.25
    by_left = (0.25 * ct) * np.sign(left)
    by_r = ct * u * np.cos(r) - by_left
    by_r /= v
    by_w = by_r / w1
    by_rise = by_w * (x > y)
    by_w *= e
    by_v = by_r * r + by_w * u
    by_v /= -v
    by_u = ct * wave - by_w * v
    by_u *= 1.0 - u * u
    by_x = by_v * x + by_u * y + by_rise
    by_y = by_v * y + by_u * x + by_left - by_rise
    return result, {"x": by_x, "y": by_y}
