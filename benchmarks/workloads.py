"""The workloads: objective, inputs, dtype, optimizer, and what one unit of work is.

Every peer and diffc computes what `objectives` defines (a peer may use its own faster form of an
operation) on what `data` draws. `NAMED` are the workloads that figures are quoted of, `OTHERS` a
sample of what else users write. `definitions` gives the objectives over another array namespace.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from types import ModuleType
from typing import Any, Literal, NamedTuple

import numpy as np

from benchmarks import data, objectives

Kind = Literal["step", "gradient", "pullback", "forward", "update"]


class Workload(NamedTuple):
    """One workload: what is computed, on what, and what one unit of work is.

    `kind` says what a unit does with each batch:

    - `step`: value, gradient and the optimizer's update of all params.
    - `gradient`: a scalar value and its gradient by all params.
    - `pullback`: a result, and the gradient by all params for the cotangent `ct` of the batch.
    - `forward`: a result and no gradient.
    - `update`: the optimizer's update alone; the batch holds the gradients.
    """

    objective: Callable[[dict, dict], Any]
    make: Callable[[np.random.Generator], tuple[dict, list[dict]]]
    dtype: str
    optimizer: dict | None
    unit: str
    kind: Kind

    @property
    def derives(self) -> bool:
        """Whether a unit has a gradient in it."""
        return self.kind in ("step", "gradient", "pullback")


ADAM = {"kind": "adam", "lr": 1e-3, "b1": 0.9, "b2": 0.999, "eps": 1e-8}
ADAMW = {"kind": "adamw", "lr": 3e-4, "b1": 0.9, "b2": 0.999, "eps": 1e-8, "weight_decay": 0.01}
MOMENTUM = {"kind": "momentum", "lr": 1e-2, "mu": 0.9}  # v = mu v + g; p = p - lr v
UNITS = {
    "gradient": "value and gradient",
    "pullback": "result and gradient",
    "forward": "result",
    "update": "update",
}


def sgd(lr):
    return {"kind": "sgd", "lr": lr}


def step(objective, make, optimizer, dtype="float32", unit="step") -> Workload:
    return Workload(objective, make, dtype, optimizer, unit, "step")


def without_optimizer(kind: Kind, objective, make, dtype="float32", unit="") -> Workload:
    return Workload(objective, make, dtype, None, unit or UNITS[kind], kind)


def gradient(objective, make, dtype="float32", unit="") -> Workload:
    return without_optimizer("gradient", objective, make, dtype, unit)


def pullback(objective, make) -> Workload:
    return without_optimizer("pullback", objective, make)


def forward(objective, make) -> Workload:
    return without_optimizer("forward", objective, make)


def lecture(dtype) -> Workload:
    return step(objectives.lecture_net, data.make_lecture_net(dtype), sgd(1e-4), dtype)


def cross_entropy(rows, classes) -> Workload:
    return gradient(objectives.cross_entropy_alone, data.make_cross_entropy(rows, classes))


def layer_norm(rows, width) -> Workload:
    return pullback(objectives.layer_norm_alone, data.make_layer_norm(rows, width))


def attention(time) -> Workload:
    return pullback(objectives.attention_alone, data.make_attention(time))


MLP_LARGE = data.make_mlp([1024, 1024, 1024, 10], batch=512)
MLP_ODD = data.make_mlp([37, 101, 53, 7], batch=61)

NAMED = {
    "lecture_net_f64": lecture("float64"),
    "lecture_net_f32": lecture("float32"),
    "digits": step(objectives.mlp3, data.make_digits, ADAM, unit="epoch of 28 steps"),
    "residual50": step(objectives.residual_mlp, data.make_residual, MOMENTUM),
    "transformer": step(objectives.transformer, data.make_transformer, ADAMW),
    "conv_net": step(objectives.conv_net, data.make_conv, MOMENTUM),
    "conv_net_8x8": step(objectives.conv_net, lambda rng: data.make_conv(rng, size=8), MOMENTUM),
    "mlp_large": step(objectives.mlp3, MLP_LARGE, sgd(1e-2)),
    "w8": gradient(objectives.w8, data.make_w8, "float64"),
    "w8_scalar": gradient(
        objectives.w8, data.make_w8_scalar, "float64", "call, Python floats in and out"
    ),
    "deep_chain": gradient(objectives.deep_chain, data.make_chain),
    "lstm": gradient(objectives.lstm, data.make_lstm),
    "cross_entropy_64x10": cross_entropy(64, 10),
    "cross_entropy_512x1000": cross_entropy(512, 1000),
    "cross_entropy_2048x32000": cross_entropy(2048, 32000),
    "layer_norm_128x64": layer_norm(128, 64),
    "layer_norm_4096x768": layer_norm(4096, 768),
    "layer_norm_512x8192": layer_norm(512, 8192),
    "attention_64": attention(64),
    "attention_512": attention(512),
    "attention_2048": attention(2048),
}

OTHERS = {
    "heat": forward(objectives.heat, data.make_heat),
    "heat_gradient": gradient(objectives.heat_misfit, data.make_heat),
    "products_3x3": pullback(objectives.products, data.make_products(3)),
    "products_4x4": pullback(objectives.products, data.make_products(4)),
    "solve_6x6": pullback(objectives.solutions, data.make_solutions),
    "mixture": gradient(objectives.mixture, data.make_mixture),
    "running_sum": pullback(objectives.running_sum, data.make_running_sum),
    "recurrence": pullback(objectives.recurrence, data.make_recurrence),
    "mlp_odd": step(objectives.mlp3, MLP_ODD, sgd(1e-2)),
    "graph_net": gradient(objectives.graph_net, data.make_graph),
    "sort": pullback(objectives.sorted_rows, data.make_sorted),
    "add_transposed": forward(objectives.add_transposed, data.make_transposed),
    "elementwise": forward(objectives.elementwise, data.make_elementwise),
    "elementwise_gradient": pullback(objectives.elementwise, data.make_elementwise),
    "adam_200_arrays": Workload(
        objectives.no_objective, data.make_many, "float32", ADAM, UNITS["update"], "update"
    ),
}

WORKLOADS = NAMED | OTHERS


def definitions(namespace: Any, **own: Any) -> ModuleType:
    """Return a copy of `objectives` whose `np` is `namespace`.

    Args:
        namespace: An array namespace with NumPy's names, such as `jax.numpy`.
        **own: Functions of the module to replace by the namespace's own form of them.
    """
    spec = importlib.util.find_spec(objectives.__name__)
    if spec is None or spec.loader is None:
        raise ImportError(f"{objectives.__name__} has no source to copy")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    vars(module).update(own, np=namespace)
    return module


def objective_of(module: ModuleType, workload: Workload) -> Callable[[dict, dict], Any]:
    """Return the objective of a workload as a copy of `objectives` defines it."""
    return getattr(module, workload.objective.__name__)
