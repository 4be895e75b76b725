"""Hand-written digits: what `diffc demo` trains, as one writes it oneself.

Needs scikit-learn for the data.
"""

import math

import numpy as np
from sklearn.datasets import load_digits

import diffc
from diffc import optim, train

SIZES = (64, 256, 128, 10)


def scores(params, x):
    h = np.maximum(x @ params["w0"] + params["b0"], 0.0)
    h = np.maximum(h @ params["w1"] + params["b1"], 0.0)
    return h @ params["w2"] + params["b2"]


def loss(params, x, y):
    z = scores(params, x)
    s = z - np.max(z, axis=1, keepdims=True)
    log_p = s - np.log(np.sum(np.exp(s), axis=1, keepdims=True))
    return -np.mean(log_p[np.arange(len(y)), y])


def initial_params(rng):
    params = {}
    for i in range(3):
        w = rng.standard_normal(SIZES[i : i + 2]) * math.sqrt(2.0 / SIZES[i])
        params[f"w{i}"] = w.astype(np.float32)
        params[f"b{i}"] = np.zeros(SIZES[i + 1], np.float32)
    return params


optimizer = optim.adam(1e-3)


def step(params, state, x, y):
    value, grads = diffc.value_and_grad(loss)(params, x, y)
    params, state = optimizer.update(grads, state, params)
    return value, params, state


def main(epochs=40):
    rng = np.random.default_rng(1)
    digits = load_digits()
    x, y = (digits.data / 16.0).astype(np.float32), digits.target.astype(np.int32)
    fit, held = train.stratified_split(y, 0.2, rng)
    params = initial_params(rng)
    state = optimizer.init(params)

    one_call = diffc.jit(step, donate_argnums=(0, 1))  # params and state are updated in place
    predict = diffc.jit(scores)
    for epoch in range(1, epochs + 1):
        for batch in train.minibatches((x[fit], y[fit]), 64, rng):
            value, params, state = one_call(params, state, *batch)
        if epoch % 10 == 0 or epoch == epochs:
            accuracy = train.accuracy(predict(params, x[held]), y[held])
            print(f"epoch {epoch:2d}  loss {float(value):.4f}  accuracy {accuracy:.2%}")
    return accuracy


if __name__ == "__main__":
    main()
