"""The inputs of a workload, drawn once by the driver and read from a file by every worker.

So that no worker needs what `make` needs (scikit-learn), and all have the same bits. Python floats
stay Python floats.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from benchmarks.workloads import WORKLOADS


def draw(name: str, seed: int = 0) -> tuple[dict, list[dict]]:
    """Return params and batches of a workload."""
    return WORKLOADS[name].make(np.random.default_rng(seed))


def save(path: Path, params: dict, batches: list[dict]) -> None:
    """Write params and batches to a `.npz` file."""
    arrays = {f"p/{k}": a for k, a in params.items()}
    arrays |= {f"b/{i}/{k}": a for i, b in enumerate(batches) for k, a in b.items()}
    np.savez(path, batches=np.array(len(batches)), **arrays)


def load(path: Path) -> tuple[dict, list[dict]]:
    """Read what `save` wrote."""
    params: dict = {}
    with np.load(path) as stored:
        batches: list[dict] = [{} for _ in range(int(stored["batches"]))]
        for key in stored.files:
            kind, _, rest = key.partition("/")
            if kind == "p":
                a = stored[key]
                params[rest] = a if a.ndim else float(a)
            elif kind == "b":
                i, _, name = rest.partition("/")
                batches[int(i)][name] = stored[key]
    return params, batches


def upcast(tree: dict) -> dict:
    """Return a dict of arrays with its floats in float64; integers stay."""
    return {
        k: a if isinstance(a, float) or a.dtype.kind != "f" else a.astype("float64")
        for k, a in tree.items()
    }
