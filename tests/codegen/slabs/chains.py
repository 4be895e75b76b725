"""Programs whose kernels can run together, and joining of kernels however small they are."""

from contextlib import contextmanager
from unittest import mock

import numpy as np

import diffc
from diffc.codegen import slabs
from diffc.codegen.slabs import price

RNG = np.random.default_rng(5)


@contextmanager
def joining(rows=8, turned=None):
    """Joins whatever can be joined, in slabs of so many rows at most.

    `turned`: whether places have the rows along their last axis; None: as it is priced.
    """

    def together(*args):
        cycles, found = priced(*args)
        return cycles, found if turned is None else dict.fromkeys(found, turned)

    priced = price.together
    with (
        mock.patch.object(slabs, "least_bytes", lambda target: 0),
        mock.patch.object(slabs, "is_worth", lambda cost, saved: True),
        mock.patch.object(slabs, "together", together),
        mock.patch.object(price, "FEW_UNITS", 1),
        mock.patch.object(price, "LEAST_ROWS", min(rows, price.LEAST_ROWS)),
        mock.patch.object(price, "MOST_ROWS", rows),
    ):
        yield


@contextmanager
def alone():
    """Joins nothing."""
    with mock.patch.object(slabs, "find_slabs", lambda *args: []):
        yield


def softmax(s):
    e = np.exp(s - np.max(s, axis=-1, keepdims=True))
    return e / np.sum(e, axis=-1, keepdims=True)


def attention(q, k, v):
    return softmax((q @ np.swapaxes(k, -1, -2)) * 0.3) @ v


def causal(q, k, v):
    shape = q.shape[-2], k.shape[-2]
    scores = (q @ np.swapaxes(k, -1, -2)) * 0.3
    return softmax(np.where(np.tril(np.ones(shape, bool)), scores, -1e30)) @ v


def biased(q, k, v, bias):
    return softmax(q @ np.swapaxes(k, -1, -2) + bias) @ v


def grouped(q, k, v):
    """Several groups of queries for one head of keys."""
    scores = np.einsum("bhgqe,bhke->bhgqk", q, k)
    return np.einsum("bhgqk,bhke->bhgqe", softmax(scores), v)


def turned_around(q, k, v):
    """Time before heads, as projections leave it."""
    scores = np.einsum("bqhe,bkhe->bhqk", q, k)
    return np.einsum("bhqk,bkhe->bqhe", softmax(scores), v)


def weights_too(q, k, v):
    """The weights are a result themselves."""
    w = softmax(q @ np.swapaxes(k, -1, -2))
    return w @ v, w


def layers(x, g, w1, b1, w2):
    """Rows go through a norm, two layers and a residual."""
    c = x - np.mean(x, axis=-1, keepdims=True)
    h = c / np.sqrt(np.mean(c * c, axis=-1, keepdims=True) + 1e-5) * g
    return x + np.tanh(h @ w1 + b1) @ w2


def normal(dtype, *shape):
    return RNG.standard_normal(shape).astype(dtype)


def heads(dtype, *around, queries=23, keys=23, features=5, values=5):
    """Queries, keys and values."""
    shapes = (queries, features), (keys, features), (keys, values)
    return tuple(normal(dtype, *around, *shape) for shape in shapes)


def summed(f, count):
    """The sum of the results of a function, weighted, with its gradients."""

    def loss(*args):
        found = f(*args)
        found = found if isinstance(found, tuple) else (found,)
        total = 0.0
        for result in found:
            weights = np.cos(np.arange(result.size, dtype=result.dtype)).reshape(result.shape)
            total = total + np.sum(result * weights)
        return total

    return diffc.value_and_grad(loss, argnums=tuple(range(count)))
