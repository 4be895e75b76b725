"""A worker: one peer on one workload in a process of its own, doing what the driver says.

    python -m benchmarks.worker PEER WORKLOAD INPUTS CORES

Requests are tuples on the wire, each answered by one dict; `{"error": text}` ends the worker.

    ("start",)       import, first unit of work: seconds to import and compile, memory in MiB
    ("check",)       result and gradient at the start; params after one call's units
    ("chunk", n)     n units from the initial params after a first one: seconds
"""

from __future__ import annotations

import sys
import time

from benchmarks import machine

if __name__ == "__main__":
    machine.pin([int(core) for core in sys.argv[4].split(",")])

import gc
import statistics
import traceback
from pathlib import Path

from benchmarks import inputs, peers, wire
from benchmarks.peers.base import Peer
from benchmarks.workloads import WORKLOADS

STEADY_CALLS = 3
WARM_BELOW = 0.02  # a first call after a reset is made, untimed, where it is shorter than this


class Worker:
    """What a worker knows between requests."""

    def __init__(self, peer: str, workload: str, path: Path) -> None:
        self.peer_name, self.workload, self.path = peer, workload, path
        self.call_seconds = 0.0
        self.peer: Peer

    def start(self) -> dict:
        """Import, read the inputs, do the first unit of work and a few more."""
        began = time.perf_counter()
        make = peers.load(self.peer_name)
        imported = time.perf_counter()
        bare = machine.resident()
        params, batches = inputs.load(self.path)
        machine.reset_peak()
        built = time.perf_counter()
        self.peer = make(self.workload, WORKLOADS[self.workload], params, batches)
        held = machine.resident()
        self.peer.run(self.peer.units_per_call)
        first = time.perf_counter() - built
        peak = machine.peak()
        gc.collect()
        machine.reset_peak()
        calls = [timed(self.peer, self.peer.units_per_call) for _ in range(STEADY_CALLS)]
        self.call_seconds = statistics.median(calls)
        return {
            "units_per_call": self.peer.units_per_call,
            "import_s": imported - began,
            "first_s": first,
            "compile_s": max(0.0, first - self.call_seconds),
            "call_s": self.call_seconds,
            "held_mib": held - bare,
            "peak_mib": peak - bare,
            "steady_mib": machine.peak() - bare,
        }

    def check(self) -> dict:
        """Return what the driver compares, before anything is timed."""
        value, grads = self.peer.result_and_gradient()
        if self.peer.optimizer is None:
            return {"value": value, "grads": grads, "after": None}
        self.peer.reset()
        self.peer.run(self.peer.units_per_call)
        return {"value": value, "grads": grads, "after": self.peer.parameters()}

    def chunk(self, units: int) -> dict:
        """Time units of work from the initial params, without the garbage collector."""
        self.peer.reset()
        if self.call_seconds < WARM_BELOW:
            self.peer.run(self.peer.units_per_call)
        gc.collect()
        gc.disable()
        try:
            return {"seconds": timed(self.peer, units)}
        finally:
            gc.enable()


def timed(peer: Peer, units: int) -> float:
    """Return the seconds that units of work take; results of earlier ones are dropped first."""
    peer.result = None
    began = time.perf_counter()
    peer.run(units)
    return time.perf_counter() - began


def serve(connection: wire.Wire, worker: object, requests: tuple[str, ...]) -> None:
    """Answer requests for methods of a worker until the driver hangs up or one fails."""
    while True:
        try:
            name, *arguments = connection.receive()
        except EOFError:
            return
        try:
            if name not in requests:
                raise ValueError(f"no request {name!r}")
            answer = getattr(worker, name)(*arguments)
        except ImportError as error:
            connection.send({"missing": str(error)})
            return
        except Exception:  # whatever a peer raises is the driver's to report, with its traceback
            connection.send({"error": traceback.format_exc()})
            return
        connection.send(answer)


if __name__ == "__main__":
    own = Worker(sys.argv[1], sys.argv[2], Path(sys.argv[3]))
    serve(wire.of_worker(), own, ("start", "check", "chunk"))
