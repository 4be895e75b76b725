"""The optimizers of the workloads, as formulas over any array namespace and in place for NumPy.

`update` is pure: it serves systems that compile a whole step. `update_in_place` is what one writes
by hand in NumPy. State is a flat dict of arrays: `m:NAME`, `v:NAME` and the count of steps `t`.

    sgd       p = p - lr g
    momentum  v = mu v + g;  p = p - lr v
    adam      m = b1 m + (1 - b1) g;  v = b2 v + (1 - b2) g g
              p = p - lr (m / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) + eps)
    adamw     as adam, and p loses lr weight_decay p besides
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

MOMENTS = {"sgd": "", "momentum": "v", "adam": "mv", "adamw": "mv"}


def initial_state(optimizer: dict, params: dict) -> dict:
    """Return zero moments for every param and, for Adam, a step count of the params' dtype."""
    moments = MOMENTS[optimizer["kind"]]
    state = {f"{m}:{k}": np.zeros_like(a) for m in moments for k, a in params.items()}
    if "m" in moments:
        state["t"] = np.zeros((), dtype=next(iter(params.values())).dtype)
    return state


def update(
    optimizer: dict, params: dict, grads: dict, state: dict, sqrt: Callable[[Any], Any]
) -> tuple[dict, dict]:
    """Return params and state after one step; nothing is changed in place.

    Args:
        optimizer: The dict of a workload.
        params: Arrays by name.
        grads: Arrays of the same names and shapes.
        state: What `initial_state` or the last step gave.
        sqrt: The namespace's square root.
    """
    kind, lr = optimizer["kind"], optimizer["lr"]
    if kind == "sgd":
        return {k: p - lr * grads[k] for k, p in params.items()}, {}
    if kind == "momentum":
        state = {f"v:{k}": optimizer["mu"] * state[f"v:{k}"] + g for k, g in grads.items()}
        return {k: p - lr * state[f"v:{k}"] for k, p in params.items()}, state
    b1, b2, eps, decay = (optimizer.get(k, 0.0) for k in ("b1", "b2", "eps", "weight_decay"))
    t = state["t"] + 1.0
    c1, c2 = 1.0 - b1**t, 1.0 - b2**t
    new_params, new_state = {}, {"t": t}
    for k, p in params.items():
        g = grads[k]
        m = b1 * state[f"m:{k}"] + (1.0 - b1) * g
        v = b2 * state[f"v:{k}"] + (1.0 - b2) * (g * g)
        change = (m / c1) / (sqrt(v / c2) + eps)
        if decay:
            change = change + decay * p
        new_params[k], new_state[f"m:{k}"], new_state[f"v:{k}"] = p - lr * change, m, v
    return new_params, new_state


def update_in_place(optimizer: dict, params: dict, grads: dict, state: dict) -> None:
    """Do one step on NumPy arrays: params and state change.

    With `sgd` and `momentum` the gradients serve as scratch.
    """
    kind, lr = optimizer["kind"], optimizer["lr"]
    if kind in ("adam", "adamw"):
        adam_in_place(optimizer, params, grads, state)
        return
    for k, p in params.items():
        g = grads[k]
        if kind == "momentum":
            v = state[f"v:{k}"]
            v *= optimizer["mu"]
            v += g
            np.multiply(v, lr, out=g)
        else:
            g *= lr
        p -= g


def adam_in_place(optimizer: dict, params: dict, grads: dict, state: dict) -> None:
    """Do one step of Adam or AdamW in place."""
    lr, b1, b2, eps = (optimizer[k] for k in ("lr", "b1", "b2", "eps"))
    state["t"] += 1
    t = float(state["t"])
    rate, root = lr / (1.0 - b1**t), 1.0 / math.sqrt(1.0 - b2**t)
    for k, p in params.items():
        g, m, v = grads[k], state[f"m:{k}"], state[f"v:{k}"]
        square = g * g
        square *= 1.0 - b2
        v *= b2
        v += square
        np.multiply(g, 1.0 - b1, out=square)
        m *= b1
        m += square
        np.sqrt(v, out=square)
        square *= root
        square += eps
        np.divide(m, square, out=square)
        square *= rate
        if optimizer["kind"] == "adamw":
            p *= 1.0 - lr * optimizer["weight_decay"]
        p -= square
