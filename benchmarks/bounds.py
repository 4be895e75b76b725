"""What bounds a workload: its multiply-adds and least traffic against the machine's peaks.

The multiply-adds are those of the matrix products and convolutions of diffc's own graph, forward
and backward; elementwise work is not counted, nor what a mask makes needless. The least traffic is
each input read once and each result written once.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

import diffc
from benchmarks import inputs, peers
from benchmarks.peaks import LARGE, Peaks
from benchmarks.summary import seconds_text
from benchmarks.table import table
from benchmarks.workloads import WORKLOADS
from diffc.ir.graph import Graph

HEADER = ("workload", "dtype", "fastest", "GFLOP", "GFLOP/s", "of peak", "MB", "GB/s", "of peak")


@dataclass(frozen=True)
class Bound:
    """The work of a unit, and how long it took.

    Attributes:
        workload: Its name.
        seconds: Of the fastest unit.
        flops: Two for each multiply-add of products.
        nbytes: Inputs and results.
    """

    workload: str
    seconds: float
    flops: float
    nbytes: float


def flops_of(graph: Graph) -> float:
    """Return the floating-point operations of a graph's products; loops count all their trips."""
    total = 0.0
    for eqn in graph.eqns:
        if eqn.op.name == "contract":
            letters: dict[str, int] = {}
            parts = re.split(",|->", eqn.params["spec"])
            for axes, operand in zip(parts, eqn.operands, strict=False):
                letters |= dict(zip(axes, operand.aval.shape, strict=True))
            total += 2.0 * prod(letters.values())
        trips = eqn.params.get("length", 1)
        inner = [flops_of(region) for region in eqn.regions]
        total += trips * (max(inner) if eqn.op.name in ("cond", "switch") else sum(inner, 0.0))
    return total


def nbytes_of(*trees: Any) -> float:
    """Return the bytes of all arrays in some trees."""
    return sum(np.asarray(leaf).nbytes for tree in trees for leaf in diffc.tree.leaves(tree))


def measure(names: Iterable[str], seconds: float = 1.0) -> list[Bound]:
    """Time diffc on some workloads, for about so many seconds each."""
    found: list[Bound] = []
    for name in names:
        params, batches = inputs.draw(name)
        peer = peers.load("diffc")(name, WORKLOADS[name], params, batches)
        has_steps = peer.optimizer is not None
        jitted = peer.step if has_steps else peer.gradient
        args = (peer.params, peer.state, batches[0]) if has_steps else (params, batches[0])
        graph = jitted.stages(*args, until="transform").stage("transform").value
        for _ in range(3):
            peer.run(1)
        times: list[float] = []
        while sum(times) < seconds or len(times) < 3:
            began = time.perf_counter()
            peer.run(1)
            times.append(time.perf_counter() - began)
        many = len(batches) if has_steps else 1
        moved = nbytes_of(args, peer.result, *([peer.params, peer.state] if has_steps else []))
        found.append(Bound(name, min(times), many * flops_of(graph), many * moved))
    return found


def text(found: list[Bound], peaks: Peaks) -> str:
    """Return a table of the workloads, and one of the machine."""
    rows = []
    for bound in found:
        dtype = WORKLOADS[bound.workload].dtype
        flops, moved = bound.flops / bound.seconds, bound.nbytes / bound.seconds
        rows.append([
            bound.workload, dtype, seconds_text(bound.seconds),
            f"{bound.flops / 1e9:.3g}", f"{flops / 1e9:.1f}", f"{flops / peaks.flops[dtype]:.0%}",
            f"{bound.nbytes / 1e6:.3g}", f"{moved / 1e9:.1f}", f"{moved / peaks.memory:.0%}",
        ])  # fmt: skip
    lines = [table(HEADER, rows), "", f"peaks of {peaks.threads} threads:"]
    lines += [f"  {rate / 1e9:.1f} GFLOP/s in {dtype}" for dtype, rate in peaks.flops.items()]
    for (name, nbytes), rate in peaks.bandwidth.items():
        where = "memory" if nbytes == LARGE else f"{nbytes // 1024} KiB"
        lines.append(f"  {rate / 1e9:.1f} GB/s by {name}, {where}")
    return "\n".join(lines)
