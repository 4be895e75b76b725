"""What the demo trains: a 64-256-128-10 ReLU network on scikit-learn's digits, in plain NumPy.

The loss is written the way one thinks of it, with ``np.exp`` and ``np.log``; nothing here knows of
diffc but `make_step` and `make_scores`, which compile. ``examples/digits.py`` says the same in one
page.
"""

from __future__ import annotations

import itertools
import math
from typing import Any, NamedTuple

import numpy as np

from diffc import optim
from diffc.api import jit, value_and_grad
from diffc.train import stratified_split

SIZES = (64, 256, 128, 10)
BATCH = 64
HELD_OUT = 0.2
LEARNING_RATE = 1e-3

Array = np.ndarray[Any, Any]
Params = dict[str, Array]


class Digits(NamedTuple):
    """Hand-written digits: images ``f32[n,64]`` in 0..1, labels ``i32[n]``."""

    images: Array
    labels: Array
    held_images: Array
    held_labels: Array


def load(rng: np.random.Generator) -> Digits:
    """Scikit-learn's digits, 20 % of each digit held out at random.

    Raises:
        ImportError: scikit-learn is not installed.
    """
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = (digits.data / 16.0).astype(np.float32)
    labels = digits.target.astype(np.int32)
    fit, held = stratified_split(labels, HELD_OUT, rng)
    return Digits(images[fit], labels[fit], images[held], labels[held])


def initial_params(rng: np.random.Generator) -> Params:
    """Weights of variance ``2 / fan_in`` (He et al. 2015), biases 0."""
    params = {}
    for i, (fan_in, fan_out) in enumerate(itertools.pairwise(SIZES)):
        weights = rng.standard_normal((fan_in, fan_out)) * math.sqrt(2.0 / fan_in)
        params[f"w{i}"] = weights.astype(np.float32)
        params[f"b{i}"] = np.zeros(fan_out, np.float32)
    return params


def scores(params: Params, x: Array) -> Any:
    """One score per class for each image."""
    h = np.maximum(x @ params["w0"] + params["b0"], 0.0)
    h = np.maximum(h @ params["w1"] + params["b1"], 0.0)
    return h @ params["w2"] + params["b2"]


def loss(params: Params, x: Array, y: Array) -> Any:
    """Mean softmax cross-entropy."""
    z = scores(params, x)
    s = z - np.max(z, axis=1, keepdims=True)
    log_p = s - np.log(np.sum(np.exp(s), axis=1, keepdims=True))
    return -np.mean(log_p[np.arange(len(y)), y])


def make_step() -> tuple[Any, optim.Optimizer]:
    """The compiled step ``(params, state, x, y) -> (loss, params, state)``, and its optimizer.

    Loss, gradients and the update of Adam are one program; it takes over the memory of ``params``
    and ``state``.
    """
    optimizer = optim.adam(LEARNING_RATE)

    def step(params: Params, state: Any, x: Array, y: Array) -> tuple[Array, Params, Any]:
        value, grads = value_and_grad(loss)(params, x, y)
        params, state = optimizer.update(grads, state, params)
        return value, params, state

    return jit(step, donate_argnums=(0, 1)), optimizer


def make_scores() -> Any:
    """The compiled forward pass."""
    return jit(scores)
