"""A few real programs: what the stages are looked at with."""

import numpy as np

import diffc


def mlp(params, x, y):
    h = np.maximum(x @ params["w1"] + params["b1"], 0)
    logits = h @ params["w2"] + params["b2"]
    shifted = logits - np.max(logits, axis=-1, keepdims=True)
    logp = shifted - np.log(np.sum(np.exp(shifted), axis=-1, keepdims=True))
    return -np.mean(logp[np.arange(len(y)), y])


def train(params, x, y, lr):
    value, gradient = diffc.value_and_grad(mlp)(params, x, y)
    for name in params:
        params[name] -= lr * gradient[name]
    return value


def attention(q, k, v):
    s = q @ np.swapaxes(k, -1, -2) / np.sqrt(np.float32(q.shape[-1]))
    e = np.exp(s - np.max(s, axis=-1, keepdims=True))
    return (e / np.sum(e, axis=-1, keepdims=True)) @ v


def attention_grad(q, k, v):
    return diffc.grad(lambda *a: np.sum(attention(*a) ** 2), (0, 1, 2))(q, k, v)


def recurrent(w, h, xs):
    def loss(w):
        h_last, hs = diffc.scan(lambda h, x: (np.tanh(h @ w + x),) * 2, h, xs)
        return np.sum(h_last) + np.sum(hs * hs)

    return diffc.grad(loss)(w)


def convolution(x, w):
    rows, columns = x.shape[0] - w.shape[0] + 1, x.shape[1] - w.shape[1] + 1
    shifted = [
        x[i : i + rows, j : j + columns] for i in range(w.shape[0]) for j in range(w.shape[1])
    ]
    return np.maximum(np.tensordot(w.ravel(), np.stack(shifted), 1), 0)


def sorting(x, i):
    out = np.zeros(7)
    np.add.at(out, i, np.sort(x)[:3])
    return out, np.argsort(x), np.cumsum(x)[::-1]


def programs():
    """Name, function and arguments of each."""
    rng = np.random.default_rng(0)

    def drawn(*shape, dtype="f4"):
        return rng.standard_normal(shape).astype(dtype)

    params = {"w1": drawn(13, 32), "b1": drawn(32), "w2": drawn(32, 5), "b2": drawn(5)}
    batch = drawn(16, 13), rng.integers(0, 5, 16)
    heads = [drawn(2, 9, 8) for _ in range(3)]
    return {
        "mlp": (mlp, (params, *batch)),
        "train": (train, (params, *batch, 0.1)),
        "attention": (attention, heads),
        "attention_grad": (attention_grad, heads),
        "recurrent": (recurrent, (drawn(6, 6), drawn(3, 6), drawn(11, 3, 6))),
        "convolution": (convolution, (drawn(12, 17), drawn(3, 5))),
        "sorting": (sorting, (drawn(50, dtype="f8"), np.array([1, 6, 1]))),
    }
