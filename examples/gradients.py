"""Derivatives of plain NumPy code: grad, jvp, vjp, and what the compiler made of it."""

import numpy as np

import diffc


def f(x):
    """A curve through a loop and an array that is filled in place."""
    powers = np.zeros(4)
    for i in range(4):
        powers[i] = x ** (i + 1)
    return np.sum(np.sin(powers))


def loss(x, w):
    return np.sum(np.tanh(x * w))


def main():
    print("f'(0.5)        ", float(diffc.grad(f)(0.5)))
    print("f''(0.5)       ", float(diffc.grad(diffc.grad(f))(0.5)))

    x, w = np.array([0.1, -0.2, 0.3, 0.4]), np.array([1.0, 2.0, 0.0, -1.0])
    value, (x_ct, w_ct) = diffc.value_and_grad(loss, argnums=(0, 1))(x, w)
    print("loss           ", float(value))
    print("by x           ", np.round(x_ct, 6))
    print("by w           ", np.round(w_ct, 6))

    _, out_dot = diffc.jvp(lambda w: np.tanh(x * w), (w,), (np.ones(4),))
    print("along ones     ", np.round(out_dot, 6))
    _, pull = diffc.vjp(lambda w: np.tanh(x * w), w)
    print("pulled back    ", np.round(pull(np.ones(4))[0], 6))

    # a branch that is not taken contributes exactly nothing: no nan from the root of -1
    safe_root = diffc.grad(lambda x: np.sum(np.where(x > 0.0, np.sqrt(x), 0.0)))
    print("root, or 0     ", safe_root(np.array([4.0, -1.0])))

    print(diffc.grad(loss, argnums=1).compile(x, w).stage("optimize"))


if __name__ == "__main__":
    main()
