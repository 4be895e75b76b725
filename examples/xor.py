"""A two-layer network learns XOR: loss, gradient and momentum in one compiled step."""

import numpy as np

import diffc
from diffc import optim

X = np.array([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
Y = np.array([0.0, 1.0, 1.0, 0.0])


def network(params, x):
    hidden = np.tanh(x @ params["w1"] + params["b1"])
    return hidden @ params["w2"] + params["b2"]


def loss(params):
    return np.mean((network(params, X) - Y) ** 2)


optimizer = optim.momentum(0.1, 0.9)


@diffc.jit
def step(params, state):
    value, grads = diffc.value_and_grad(loss)(params)
    params, state = optimizer.update(grads, state, params)
    return value, params, state


def main():
    rng = np.random.default_rng(0)
    params = {
        "w1": rng.standard_normal((2, 4)),
        "b1": np.zeros(4),
        "w2": rng.standard_normal(4),
        "b2": np.array(0.0),
    }
    state = optimizer.init(params)
    for i in range(401):
        value, params, state = step(params, state)
        if i % 100 == 0:
            print(f"step {i:3d}  loss {float(value):.6f}")
    answers = diffc.jit(network)(params, X)
    for x, answer in zip(X, answers, strict=True):
        print(f"{x[0]:.0f} xor {x[1]:.0f} = {answer:.2f}")


if __name__ == "__main__":
    main()
