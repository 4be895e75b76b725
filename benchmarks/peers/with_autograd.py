"""autograd on the definitions, optimizers in place.

The sigmoid is written through tanh: `1 / (1 + exp(-x))` overflows in float32 and its gradient by
autograd is not finite. Padding names its mode, which the library's rule asks for.
"""

from __future__ import annotations

import autograd
import autograd.numpy as anp

from benchmarks.peers.with_numpy import InPlace
from benchmarks.workloads import definitions, objective_of


def lecture_net(p, b):
    d = (0.5 * anp.tanh(0.5 * anp.dot(b["x"], p["w1"])) + 0.5) @ p["w2"] - b["y"]
    return anp.sum(d * d)


def conv3x3(x, w):
    h, wd = x.shape[1:3]
    xp = anp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), "constant")
    return sum(xp[:, i : i + h, j : j + wd, :] @ w[i, j] for i in range(3) for j in range(3))


class Autograd(InPlace):
    """`autograd.value_and_grad` of the objective."""

    def prepare(self) -> None:
        module = definitions(anp, lecture_net=lecture_net, conv3x3=conv3x3)
        self.gradient = autograd.value_and_grad(objective_of(module, self.workload))
