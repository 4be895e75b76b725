"""Results as a table of text and as JSON."""

from __future__ import annotations

import platform
from dataclasses import asdict
from importlib import metadata

from benchmarks import summary
from benchmarks.driver import Result, Settings
from benchmarks.table import table

HEADER = (
    "workload",
    "peer",
    "fastest",
    "ratio",
    "quartiles",
    "compile s",
    "peak MiB",
    "steady MiB",
)
PACKAGES = ("diffc", "numpy", "jax", "jaxlib", "torch", "autograd", "llvmlite")


def baseline_of(results: list[Result], wished: str) -> Result | None:
    """Return the timed result of the wished peer, else the fastest one, else None."""
    timed = [r for r in results if r.seconds and not r.problem]
    for result in timed:
        if result.peer == wished:
            return result
    return min(timed, key=lambda r: min(r.seconds), default=None)


def row(result: Result, baseline: Result | None) -> list[str]:
    """Return the cells of one result."""
    started = result.started
    memory = [f"{started[k]:.0f}" if started else "" for k in ("peak_mib", "steady_mib")]
    compiled = f"{started['compile_s']:.2f}" if started else ""
    if result.problem or baseline is None:
        reason = result.problem.strip().splitlines() or ["not timed"]
        kind = reason[0].partition(":")[0]
        return [result.workload, result.peer, kind, "", "", compiled, *memory]
    ratio = summary.ratio(result.seconds, baseline.seconds)
    return [
        result.workload,
        result.peer,
        summary.seconds_text(summary.fastest(result.seconds)),
        f"{ratio.median:.2f}" + ("*" if result is baseline else " "),
        f"{ratio.low:.2f}-{ratio.high:.2f}",
        compiled,
        *memory,
    ]


def text(groups: list[list[Result]], wished: str) -> str:
    """Return the table of all workloads, then what went wrong, if anything did."""
    rows: list[list[str]] = []
    for results in groups:
        baseline = baseline_of(results, wished)
        rows += [row(r, baseline) for r in results]
        rows.append([])
    problems = [
        f"{r.workload}: {r.peer}: {r.problem.strip()}" for g in groups for r in g if r.problem
    ]
    return "\n".join([table(HEADER, rows[:-1]), *([""] if problems else []), *problems])


def versions() -> dict[str, str]:
    """Return the versions of the packages that are installed."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def as_json(groups: list[list[Result]], settings: Settings, wished: str) -> dict:
    """Return everything that was measured, with the figures of the table."""
    return {
        "settings": asdict(settings),
        "processor": processor(),
        "versions": versions(),
        "results": [as_dict(r, baseline_of(g, wished)) for g in groups for r in g],
    }


def as_dict(result: Result, baseline: Result | None) -> dict:
    """Return one result as a dict; ratio and fastest only where it was timed."""
    record = asdict(result) | {"verdict": result.verdict and result.verdict._asdict()}
    if baseline is not None and result.seconds and not result.problem:
        record["baseline"] = baseline.peer
        record["ratio"] = summary.ratio(result.seconds, baseline.seconds)._asdict()
        record["fastest_s"] = summary.fastest(result.seconds)
    return record


def processor() -> str:
    """Return the name of the processor as the system gives it."""
    try:
        with open("/proc/cpuinfo") as lines:
            names = [line.partition(":")[2].strip() for line in lines if "model name" in line]
    except OSError:
        names = []
    return names[0] if names else platform.processor()
