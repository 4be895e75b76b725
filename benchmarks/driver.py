"""The driver: starts a worker for each peer, compares, then lets them take turns.

One workload at a time. Workers start one after another, each in a fresh process with empty code
caches, so that compile times and memory are of a first use and nothing else runs meanwhile. A peer
that disagrees with the reference, fails or lacks its library is reported and not timed. In every
round each peer does one chunk, in an order drawn anew.
"""

from __future__ import annotations

import contextlib
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks import check, inputs, machine, peers, summary, wire
from benchmarks.workloads import WORKLOADS

# Threads of a BLAS or OpenMP pool go on spinning when their work is done, and take a core from
# the next peer: with several threads a turn begins after they have gone to sleep.
PAUSE_SECONDS = 0.06

ROOT = Path(__file__).resolve().parent.parent


@dataclass
class Settings:
    """How a run is made."""

    threads: int = 1
    rounds: int = 30
    chunk_seconds: float = 0.03
    seed: int = 0
    cores: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.cores = self.cores or machine.choose_cores(self.threads)


@dataclass
class Result:
    """What was found about one peer on one workload; `problem` says why there are no times."""

    workload: str
    peer: str
    problem: str = ""
    started: dict = field(default_factory=dict)
    verdict: check.Verdict | None = None
    units: int = 0
    seconds: list[float] = field(default_factory=list)  # of a unit, by round


class Process:
    """A worker's process, seen from the driver: a module's own, given words and the cores."""

    def __init__(self, module: str, words: Iterable[str], settings: Settings) -> None:
        self.caches = tempfile.TemporaryDirectory(prefix="bench-cache-")
        self.log = tempfile.TemporaryFile()  # noqa: SIM115 - open as long as the process
        cores = ",".join(map(str, settings.cores))
        self.process = subprocess.Popen(
            [sys.executable, "-m", module, *words, cores],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log,
            cwd=ROOT,
            env=machine.environment(settings.threads, Path(self.caches.name)),
        )
        assert self.process.stdin is not None and self.process.stdout is not None
        self.wire = wire.Wire(self.process.stdout, self.process.stdin)

    def ask(self, *request: Any) -> dict:
        """Send a request, return the answer; a dead worker gives an error with its last words."""
        try:
            self.wire.send(request)
            return self.wire.receive()
        except (EOFError, BrokenPipeError):
            code = self.process.wait()
            self.log.seek(0)
            words = self.log.read().decode(errors="replace").strip()[-2000:]
            return {"error": f"the worker ended with status {code}\n{words}"}

    def close(self) -> None:
        """End the worker: it leaves when its input ends."""
        assert self.process.stdin is not None and self.process.stdout is not None
        with contextlib.suppress(BrokenPipeError):  # it has left already
            self.process.stdin.close()
        try:
            self.process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()
        self.log.close()
        self.caches.cleanup()


def run_workload(
    name: str,
    chosen: Iterable[str],
    settings: Settings,
    say: Callable[[str], None],
    around: Callable[[], AbstractContextManager] = contextlib.nullcontext,
) -> list[Result]:
    """Return the results of the peers on one workload.

    Args:
        name: A key of `WORKLOADS`.
        chosen: Keys of `PEERS`; those without a form of the workload are left out.
        settings: Threads, rounds, chunks, seed.
        say: Called with a line at each step.
        around: Gives the context in which the peers take turns; they were started before.
    """
    results, processes = [], {}
    with tempfile.TemporaryDirectory(prefix="bench-inputs-") as folder:
        params, batches = inputs.draw(name, settings.seed)
        path = Path(folder) / "inputs.npz"
        inputs.save(path, params, batches)
        reference = check.Reference(WORKLOADS[name], params, batches)
        try:
            for peer in chosen:
                if not peers.has_workload(peer, name):
                    continue
                result = Result(name, peer)
                results.append(result)
                processes[peer] = Process("benchmarks.worker", [peer, name, str(path)], settings)
                admit(result, processes[peer], reference, settings)
                say(f"{name}: {peer}: {(result.problem or 'agrees').strip().splitlines()[-1]}")
            timed = [r for r in results if not r.problem]
            with around():
                take_turns(timed, processes, settings)
        finally:
            for process in processes.values():
                process.close()
    return results


def admit(result: Result, process: Process, reference: check.Reference, settings: Settings) -> None:
    """Start a worker, compare what it computes, and choose its chunk length."""
    started = process.ask("start")
    if problem_of(result, started):
        return
    result.started = started
    answer = process.ask("check")
    if problem_of(result, answer):
        return
    units_per_call = started["units_per_call"]
    dtype = WORKLOADS[result.workload].dtype
    result.verdict = check.compare(answer, reference, dtype, units_per_call)
    result.problem = f"disagrees: {result.verdict.problem}" if result.verdict.problem else ""
    result.units = summary.chunk_units(started["call_s"], units_per_call, settings.chunk_seconds)


def problem_of(result: Result, answer: dict) -> bool:
    """Note what an answer says went wrong; return whether something did."""
    if "missing" in answer:
        result.problem = f"not installed: {answer['missing']}"
    if "error" in answer:
        result.problem = f"failed: {answer['error']}"
    return bool(result.problem)


def take_turns(results: list[Result], processes: dict, settings: Settings) -> None:
    """Let each peer do one chunk per round, in an order drawn anew; the first round is not kept."""
    order = random.Random(settings.seed)
    turn = list(results)
    for number in range(settings.rounds + 1):
        order.shuffle(turn)
        for result in turn:
            if result.problem:
                continue
            if settings.threads > 1:
                time.sleep(PAUSE_SECONDS)
            answer = processes[result.peer].ask("chunk", result.units)
            if problem_of(result, answer):
                continue
            if number:
                result.seconds.append(answer["seconds"] / result.units)
            else:
                adjust(result, answer["seconds"], settings)


def adjust(result: Result, seconds: float, settings: Settings) -> None:
    """Choose the chunk length again from a whole chunk: single calls say little."""
    calls = result.units // result.started["units_per_call"]
    result.units = summary.chunk_units(
        seconds / calls, result.started["units_per_call"], settings.chunk_seconds
    )
