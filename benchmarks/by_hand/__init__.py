"""The workloads written by hand in NumPy, forward and backward.

`of(workload)(params, batch)` gives `(result, grads)`. The functions keep the dtype of their inputs:
in float32 and float64 they are a peer, in float64 also the reference that every peer is compared
with. They are compared themselves with finite differences in the tests.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from benchmarks.by_hand import layers, others, training
from benchmarks.workloads import Workload

GRADIENTS = {
    f.__name__: f
    for f in (
        training.lecture_net,
        training.mlp3,
        training.residual_mlp,
        training.transformer,
        training.conv_net,
        training.w8,
        training.deep_chain,
        training.lstm,
        layers.cross_entropy_alone,
        layers.layer_norm_alone,
        layers.attention_alone,
        others.heat_misfit,
        others.products,
        others.solutions,
        others.mixture,
        others.running_sum,
        others.recurrence,
        others.graph_net,
        others.sorted_rows,
        others.elementwise,
    )
}
RESULTS = {
    "heat": others.heat,
    "add_transposed": others.add_transposed,
    "elementwise": others.elementwise_result,
}


def of(workload: Workload) -> Callable[..., tuple[Any, dict]]:
    """Return the function by hand; where gradients are given, they are its gradients."""
    name = workload.objective.__name__
    if workload.kind == "update":
        return lambda params, batch: (0.0, batch)
    if workload.kind == "forward":
        result = RESULTS[name]
        return lambda params, batch: (result(params, batch), {})
    return GRADIENTS[name]
