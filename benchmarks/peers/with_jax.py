"""JAX: `jax.jit` of a whole step, and `lax.scan` over steps or layers.

The sigmoid is `jax.nn.sigmoid`: the gradient of `1 / (1 + exp(-x))` is not finite in float32. Cross
entropy and attention are in the library's terms, as those are faster (its own function for
attention is slower); small matrices are multiplied by broadcasting where that is faster.
"""

from __future__ import annotations

import math
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from benchmarks import optimizers
from benchmarks.peers.base import Peer
from benchmarks.workloads import definitions, objective_of

STEPS_PER_CALL = 10


def cross_entropy(z, y):
    return jnp.mean(jax.nn.logsumexp(z, axis=1) - jnp.take_along_axis(z, y[:, None], axis=1)[:, 0])


def attention(q, k, v):
    t, e = q.shape[-2:]
    s = jnp.einsum("bhqe,bhke->bhqk", q, k) * (1.0 / math.sqrt(e))
    w = jax.nn.softmax(jnp.where(jnp.tril(jnp.ones((t, t), dtype=bool)), s, -1e30))
    return jnp.einsum("bhqk,bhke->bhqe", w, v)


def products(p, b):
    if p["x"].shape[-1] < 4:
        return p["x"] @ p["y"]
    return jnp.sum(p["x"][:, :, :, None] * p["y"][:, None], axis=2)


def segment_sum(rows, segments, count):
    return jax.ops.segment_sum(rows, segments, num_segments=count)


OWN = {f.__name__: f for f in (cross_entropy, attention, products, segment_sum)}
FORMS = definitions(jnp, sigmoid=jax.nn.sigmoid, scan=lax.scan, **OWN)


class Jax(Peer):
    """One jitted call per step: value, gradient and update, with params and state donated."""

    def prepare(self) -> None:
        jax.config.update("jax_enable_x64", self.workload.dtype == "float64")
        self.batches = [to_jax(b) for b in self.batches]
        gradient = self.derivative(self.form())
        self.gradient = jax.jit(gradient)

        def step(params, state, batch):
            value, grads = gradient(params, batch)
            params, state = optimizers.update(self.optimizer, params, grads, state, jnp.sqrt)
            return value, params, state

        self.body = step
        self.step = jax.jit(step, donate_argnums=(0, 1))

    def derivative(self, objective):
        """Return the function of params and batch that gives result and gradient."""

        def pullback(params, batch):
            value, back = jax.vjp(lambda p: objective(p, batch), params)
            return value, *back(batch["ct"])

        return {
            "pullback": pullback,
            "forward": lambda params, batch: (objective(params, batch), {}),
            "update": lambda params, batch: (0.0, batch),
        }.get(self.kind) or jax.value_and_grad(objective)

    def form(self):
        """Return the objective to differentiate."""
        return objective_of(FORMS, self.workload)

    def own(self, params: dict) -> dict:
        """Return params in the form the objective takes."""
        return params

    def disown(self, params: dict) -> dict:
        """Return params in the form of the definition."""
        return params

    def reset(self) -> None:
        params = self.own(self.initial)
        if self.optimizer is not None:
            self.state = to_jax(optimizers.initial_state(self.optimizer, params))
        self.params = params if self.is_scalar else to_jax(params)

    def run(self, units: int) -> None:
        if self.optimizer is None:
            self.evaluate(units)
            return
        step, params, state = self.step, self.params, self.state
        for _ in range(units):
            for batch in self.batches:
                value, params, state = step(params, state, batch)
        jax.block_until_ready((value, params, state))
        self.params, self.state = params, state

    def evaluate(self, units: int) -> None:
        """Do results and gradients; one at a time, so that no two are alive at once."""
        gradient, params, batch = self.gradient, self.params, self.batches[0]
        if self.is_scalar:
            for _ in range(units):
                value, grads = gradient(params, batch)
                self.result = float(value), float(grads["x"]), float(grads["z"])
            return
        for _ in range(units):
            jax.block_until_ready(gradient(params, batch))

    def result_and_gradient(self) -> tuple[Any, dict[str, np.ndarray]]:
        value, grads = self.gradient(self.params_at_start(), self.batches[0])
        return np.asarray(value), self.disown({k: np.asarray(g) for k, g in grads.items()})

    def params_at_start(self) -> dict:
        return self.initial if self.is_scalar else to_jax(self.own(self.initial))

    def parameters(self) -> dict[str, np.ndarray]:
        return self.disown({k: np.asarray(a) for k, a in self.params.items()})


class JaxScan(Jax):
    """`lax.scan`: over layers where there are many, else over the steps of an epoch or ten."""

    def prepare(self) -> None:
        self.layered = {"residual50": residual_mlp, "deep_chain": deep_chain}.get(self.name)
        super().prepare()
        if self.layered is not None:
            return
        if len(self.batches) == 1:
            self.units_per_call = STEPS_PER_CALL
        if len(self.batches) > 1:
            self.stacked = {k: jnp.stack([b[k] for b in self.batches]) for k in self.batches[0]}
        else:
            self.stacked = None

        def many(params, state, batch):
            def body(carry, each):
                value, *new = self.body(*carry, batch if each is None else each)
                return tuple(new), value

            count = None if self.stacked else STEPS_PER_CALL
            xs = batch if self.stacked else None
            return lax.scan(body, (params, state), xs, length=count)

        self.calls = jax.jit(many, donate_argnums=(0, 1))

    def form(self):
        return super().form() if self.layered is None else self.layered

    def own(self, params: dict) -> dict:
        return params if self.layered is None else stack_layers(params)

    def disown(self, params: dict) -> dict:
        return params if self.layered is None else unstack_layers(params)

    def run(self, units: int) -> None:
        if self.layered is not None:
            super().run(units)
            return
        batch = self.stacked or self.batches[0]
        for _ in range(units // self.units_per_call):
            (self.params, self.state), values = self.calls(self.params, self.state, batch)
        jax.block_until_ready((self.params, self.state, values))


def to_jax(tree: dict) -> dict:
    """Copy arrays: a donated buffer must not be the memory of the inputs."""
    return {k: jnp.array(a, copy=True) for k, a in tree.items()}


NUMBERED = re.compile(r"([a-z]+)(\d+)")


def stack_layers(params: dict) -> dict:
    """Stack `w0`, `w1`, … to `w` with a leading axis; other names stay."""
    groups: dict[str, list] = {}
    for k in params:
        match = NUMBERED.fullmatch(k)
        groups.setdefault(match[1] + "*" if match else k, []).append(params[k])
    return {k: np.stack(v) if k.endswith("*") else v[0] for k, v in groups.items()}


def unstack_layers(params: dict) -> dict:
    """Undo `stack_layers`."""
    result = {}
    for k, a in params.items():
        if k.endswith("*"):
            result |= {f"{k[:-1]}{i}": row for i, row in enumerate(a)}
        else:
            result[k] = a
    return result


def residual_mlp(p, b):
    layers = {k: a for k, a in p.items() if k.endswith("*")}

    def layer(h, w):
        u = FORMS.gelu(FORMS.layer_norm(h, w["g*"], w["s*"]) @ w["wa*"] + w["ba*"])
        return h + u @ w["wb*"] + w["bb*"], None

    h, _ = lax.scan(layer, b["x"] @ p["win"] + p["bin"], layers)
    return FORMS.cross_entropy(h @ p["wout"] + p["bout"], b["y"])


def deep_chain(p, b):
    def layer(h, w):
        return h + 0.1 * jnp.tanh(h @ w["w*"] + w["b*"]), None

    h, _ = lax.scan(layer, b["x"], p)
    return jnp.mean(h * h)
