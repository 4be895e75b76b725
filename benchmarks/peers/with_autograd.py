"""autograd on the definitions, optimizers in place.

The sigmoid is written through tanh: `1 / (1 + exp(-x))` overflows in float32 and its gradient by
autograd is not finite. Padding names its mode, which the library's rule asks for; sums over
segments, which it has no rule for, have their own.
"""

from __future__ import annotations

import autograd
import autograd.numpy as anp
from autograd.extend import defvjp, primitive

from benchmarks import objectives
from benchmarks.peers.with_numpy import InPlace
from benchmarks.workloads import definitions, objective_of


def sigmoid(x):
    return 0.5 * anp.tanh(0.5 * x) + 0.5


def conv3x3(x, w):
    h, wd = x.shape[1:3]
    xp = anp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), "constant")
    return sum(xp[:, i : i + h, j : j + wd, :] @ w[i, j] for i in range(3) for j in range(3))


def heat_step(u, _):
    around = u[:-2, 1:-1] + u[2:, 1:-1] + u[1:-1, :-2] + u[1:-1, 2:]
    change = objectives.HEAT_RATE * (around - 4.0 * u[1:-1, 1:-1])
    return u + anp.pad(change, ((1, 1), (1, 1)), "constant"), None


segment_sum = primitive(objectives.segment_sum)
defvjp(segment_sum, lambda total, rows, segments, count: lambda ct: ct[segments])

OWN = {f.__name__: f for f in (sigmoid, conv3x3, heat_step)} | {"segment_sum": segment_sum}


class Autograd(InPlace):
    """`autograd.value_and_grad` or `make_vjp` of the objective."""

    def prepare(self) -> None:
        objective = objective_of(definitions(anp, **OWN), self.workload)

        def pullback(params, batch):
            back, value = autograd.make_vjp(lambda p: objective(p, batch))(params)
            return value, back(batch["ct"])

        is_pullback = self.kind == "pullback"
        self.gradient = pullback if is_pullback else autograd.value_and_grad(objective)
