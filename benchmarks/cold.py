"""Cold start: a fresh process to the first gradient of the digits loss, imports included.

The clock is the driver's, from starting the interpreter to the answer. A first start has empty code
caches; a second one has what an earlier process left. Peers take turns.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from benchmarks import check, inputs, machine
from benchmarks.cold_worker import DONE, NAME
from benchmarks.driver import ROOT, Settings
from benchmarks.summary import seconds_text
from benchmarks.table import table
from benchmarks.workloads import WORKLOADS


def start(peer: str, path: Path, caches: Path, settings: Settings) -> tuple[float, dict]:
    """Run a fresh process; return its seconds and its last line.

    Raises:
        RuntimeError: If it fails, with its last words.
    """
    cores = ",".join(map(str, settings.cores))
    command = [sys.executable, "-m", "benchmarks.cold_worker", peer, str(path), cores]
    environment = machine.environment(settings.threads, caches)
    began = time.perf_counter()
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    seconds = time.perf_counter() - began
    lines = [line for line in done.stdout.splitlines() if line.startswith(DONE)]
    if done.returncode or not lines:
        raise RuntimeError(done.stderr.strip()[-2000:])
    answer = json.loads(lines[-1].removeprefix(DONE))
    return seconds - answer["after_s"], answer


def measure(
    chosen: Iterable[str], rounds: int, settings: Settings, say: Callable[[str], None]
) -> dict[str, dict]:
    """Return for each peer the seconds of first and second starts, or its problem."""
    records: dict[str, dict] = {p: {"first": [], "second": [], "problem": ""} for p in chosen}
    with tempfile.TemporaryDirectory(prefix="bench-cold-") as folder:
        params, batches = inputs.draw(NAME, settings.seed)
        path = Path(folder) / "inputs.npz"
        inputs.save(path, params, batches)
        reference = check.Reference(WORKLOADS[NAME], params, batches)
        for number in range(rounds):
            for peer, record in records.items():
                if record["problem"]:
                    continue
                caches = Path(folder) / f"{peer}-{number}"
                try:
                    for kind in ("first", "second"):
                        seconds, answer = start(peer, path, caches, settings)
                        record[kind].append(seconds)
                        record["problem"] = disagreement(answer, reference)
                except RuntimeError as error:
                    record["problem"] = str(error)
                say(f"cold start {number + 1}/{rounds}: {peer}")
    return records


def disagreement(answer: dict, reference: check.Reference) -> str:
    """Say what is wrong with the value and the norm of the gradient; empty if nothing is."""
    wanted = {"value": float(reference.value), "norm": check.norm(list(reference.grads.values()))}
    wrong = [k for k, w in wanted.items() if not abs(answer[k] - w) <= 1e-3 * abs(w)]
    return f"disagrees: {', '.join(wrong)}" if wrong else ""


def text(records: dict[str, dict]) -> str:
    """Return the table: medians, with the fastest start in brackets."""

    def cell(seconds: list[float]) -> str:
        return f"{seconds_text(statistics.median(seconds))} ({seconds_text(min(seconds))})"

    rows, problems = [], []
    for peer, record in records.items():
        if record["problem"]:
            rows.append([peer, "failed", ""])
            problems.append(f"{peer}: {record['problem']}")
        else:
            rows.append([peer, cell(record["first"]), cell(record["second"])])
    header = ["peer", "empty caches", "caches of an earlier process"]
    return "\n".join([table(header, rows, left=1), *problems])
