"""The fresh process of a cold start: import the peer, do one gradient, say what it gave.

    python -m benchmarks.cold_worker PEER INPUTS CORES

It imports no more than a user's program would. What it does after the gradient is in `after_s`, for
the driver to take off.
"""

from __future__ import annotations

import sys
import time

from benchmarks import machine

if __name__ == "__main__":
    machine.pin([int(core) for core in sys.argv[3].split(",")])

from pathlib import Path

from benchmarks import inputs, peers
from benchmarks.workloads import WORKLOADS

NAME = "digits"
DONE = "first gradient"


def main(peer: str, path: Path) -> None:
    """Do one value and gradient and print it as JSON."""
    params, batches = inputs.load(path)
    value, grads = peers.load(peer)(NAME, WORKLOADS[NAME], params, batches).result_and_gradient()
    done = time.perf_counter()
    import json

    norm = sum(float((g.astype("float64") ** 2).sum()) for g in grads.values()) ** 0.5
    answer = {"value": float(value), "norm": norm}
    print(DONE, json.dumps(answer | {"after_s": time.perf_counter() - done}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
