"""Adam and AdamW: steps scaled by running moments of the gradient."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from diffc import tree
from diffc.optim.optimizer import (
    Grads,
    LearningRate,
    Optimizer,
    Params,
    State,
    checked,
    first_step,
    in_dtype,
    rate_of,
    zeros_like,
)


def adam(
    learning_rate: LearningRate = 1e-3, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8
) -> Optimizer:
    """Adam (Kingma and Ba 2015, Algorithm 1).

    With ``t`` counting from 1::

        m = b1 m + (1 - b1) g
        v = b2 v + (1 - b2) g²
        p = p - lr (m / (1 - b1ᵗ)) / (sqrt(v / (1 - b2ᵗ)) + eps)

    ``eps`` stands outside the root and after the correction of ``v``, as in the paper's algorithm
    (not in its ``eps-hat`` variant). ``1 - bᵗ`` is computed as ``-expm1(t log b)`` in f64, which
    does not cancel at the first steps, and rounded once to the dtype of the param.

    Args:
        learning_rate: a number, or a function of the step that counts from 0.
        b1: decay of the first moment; ``0 <= b1 < 1``.
        b2: decay of the second moment; ``0 <= b2 < 1``.
        eps: added to the root.

    Example:
        >>> import numpy as np
        >>> optimizer = adam(0.1)
        >>> p = np.array([1.0])
        >>> float(optimizer.update(p, optimizer.init(p), p)[0][0])  # the first step has length lr
        0.900000001
    """
    return _adam(learning_rate, b1, b2, eps, 0.0)


def adamw(
    learning_rate: LearningRate = 1e-3,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    weight_decay: float = 1e-2,
) -> Optimizer:
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019, Algorithm 2).

    As `adam`, and every param also loses ``lr weight_decay p``, with ``p`` from before the step::

        p = p - lr ((m / (1 - b1ᵗ)) / (sqrt(v / (1 - b2ᵗ)) + eps) + weight_decay p)

    The decay is not scaled by the moments, so it differs from a squared penalty in the loss. The
    paper's schedule multiplier is part of ``learning_rate`` here and so scales the decay too.

    Args:
        learning_rate: a number, or a function of the step that counts from 0.
        b1: decay of the first moment.
        b2: decay of the second moment.
        eps: added to the root.
        weight_decay: how strongly params are drawn to 0, all of them alike.
    """
    return _adam(learning_rate, b1, b2, eps, checked("weight_decay", weight_decay, 0.0, math.inf))


def _adam(
    learning_rate: LearningRate, b1: float, b2: float, eps: float, weight_decay: float
) -> Optimizer:
    rate = rate_of(learning_rate)
    checked("b1", b1, 0.0, 1.0)
    checked("b2", b2, 0.0, 1.0)
    checked("eps", eps, 0.0, math.inf)

    def init(params: Params) -> State:
        zeros = zeros_like(params)
        return {"m": zeros, "step": first_step(), "v": tree.map(np.zeros_like, zeros)}

    def update(grads: Grads, state: State, params: Params) -> tuple[Params, State]:
        lr = rate(state["step"])
        step = state["step"] + 1
        correction1, correction2 = _correction(b1, step), _correction(b2, step)

        def moved(p: Any, m: Any, v: Any) -> Any:
            c1, c2 = in_dtype(correction1, m), in_dtype(correction2, v)
            change = (m / c1) / (np.sqrt(v / c2) + eps)
            if weight_decay:
                change = change + weight_decay * p
            return p - in_dtype(lr, m) * change

        m = tree.map(lambda m, g: b1 * m + (1.0 - b1) * g, state["m"], grads)
        v = tree.map(lambda v, g: b2 * v + (1.0 - b2) * (g * g), state["v"], grads)
        return tree.map(moved, params, m, v), {"m": m, "step": step, "v": v}

    return Optimizer(init, update)


def _correction(decay: float, step: Any) -> Any:
    """``1 - decayᵗ`` without cancellation."""
    return -np.expm1(step * math.log(decay)) if decay else 1.0
