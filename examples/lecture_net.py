"""The two-layer network that lectures write in twenty lines of NumPy, with its gradient by hand.

diffc compiles the three lines of the forward pass; gradients and update come with them.
"""

import numpy as np

import diffc

N, D_IN, H, D_OUT = 64, 1000, 100, 10


def loss(weights, x, y):
    w1, w2 = weights
    h = 1.0 / (1.0 + np.exp(-x.dot(w1)))
    return np.square(h.dot(w2) - y).sum()


def step(weights, x, y):
    value, grads = diffc.value_and_grad(loss)(weights, x, y)
    return value, tuple(w - 1e-4 * g for w, g in zip(weights, grads, strict=True))


def step_by_hand(weights, x, y):
    """The same step as it is written without a compiler."""
    w1, w2 = weights
    h = 1.0 / (1.0 + np.exp(-x.dot(w1)))
    y_pred = h.dot(w2)
    value = np.square(y_pred - y).sum()
    grad_y_pred = 2.0 * (y_pred - y)
    grad_w2 = h.T.dot(grad_y_pred)
    grad_h = grad_y_pred.dot(w2.T)
    grad_w1 = x.T.dot(grad_h * h * (1.0 - h))
    return value, (w1 - 1e-4 * grad_w1, w2 - 1e-4 * grad_w2)


def main():
    rng = np.random.RandomState(0)
    x, y = rng.randn(N, D_IN), rng.randn(N, D_OUT)
    weights = by_hand = rng.randn(D_IN, H), rng.randn(H, D_OUT)
    compiled = diffc.jit(step)
    for t in range(101):
        value, weights = compiled(weights, x, y)
        expected, by_hand = step_by_hand(by_hand, x, y)
        if t in (0, 1, 10, 50, 100):
            print(f"step {t:3d}  compiled {float(value):.6f}  by hand {expected:.6f}")
    peak = compiled.compile(weights, x, y).memory().peak
    print(f"the compiled step needs {peak / 1024:.1f} KiB beside its arguments and results")


if __name__ == "__main__":
    main()
