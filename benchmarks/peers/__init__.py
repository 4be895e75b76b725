"""The peers: one class each, in a module that imports its library at the top.

`PEERS` maps a name to the module and class; only a worker imports them, one per process.
`base.Peer` says what a peer does. A peer may use its own faster form of an operation, never
another result.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, NamedTuple

from benchmarks.workloads import WORKLOADS

if TYPE_CHECKING:
    from benchmarks.peers.base import Peer


class Entry(NamedTuple):
    """Where a peer is, the workloads it has (empty: all), and what it is."""

    module: str
    name: str
    workloads: tuple[str, ...]
    doc: str


LAYERED = ("residual50", "deep_chain")
STEPPED = tuple(k for k, w in WORKLOADS.items() if w.kind == "step" and k not in LAYERED)
DERIVED = tuple(k for k, w in WORKLOADS.items() if w.derives)
# torch.compile unrolls loops: hundreds of steps on whole images or sequences take it many minutes.
COMPILED = tuple(k for k in WORKLOADS if k not in ("heat", "heat_gradient", "recurrence"))
# It has no rule for sorting rows, and nothing to do with what has no gradient.
AUTOGRAD = tuple(k for k in DERIVED if k != "sort")

PEERS = {
    "diffc": Entry("with_diffc", "Diffc", (), "one native call per unit's step"),
    "diffc_scan": Entry("with_diffc", "DiffcScan", STEPPED, "diffc.scan over steps"),
    "jax": Entry("with_jax", "Jax", (), "jax.jit of a whole step, params and state donated"),
    "jax_scan": Entry(
        "with_jax", "JaxScan", STEPPED + LAYERED, "lax.scan over steps, or over layers"
    ),
    "torch": Entry("with_torch", "Torch", (), "eager, fused optimizers"),
    "torch_loop": Entry("with_torch", "TorchLoop", ("lstm",), "eager, a loop over time steps"),
    "torch_compile": Entry("with_torch", "TorchCompile", COMPILED, "torch.compile of a whole step"),
    "torch_compile_loss": Entry(
        "with_torch",
        "TorchCompileLoss",
        tuple(k for k in DERIVED if k in COMPILED),
        "torch.compile of the loss, fused optimizers",
    ),
    "autograd": Entry("with_autograd", "Autograd", AUTOGRAD, "autograd, optimizers in place"),
    "numpy": Entry("with_numpy", "ByHand", (), "NumPy, derivatives by hand, optimizers in place"),
}


def is_own(peer: str) -> bool:
    """Say whether a peer is a form of diffc."""
    return PEERS[peer].module == "with_diffc"


def has_workload(peer: str, workload: str) -> bool:
    """Say whether a peer has a form of a workload."""
    return not PEERS[peer].workloads or workload in PEERS[peer].workloads


def load(peer: str) -> type[Peer]:
    """Import a peer's module and return its class; ImportError where its library is missing."""
    entry = PEERS[peer]
    return getattr(importlib.import_module(f"benchmarks.peers.{entry.module}"), entry.name)
