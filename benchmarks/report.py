"""Results as a table of text, as Markdown and as JSON, and how diffc stands in them."""

from __future__ import annotations

import platform
import statistics
from dataclasses import asdict
from importlib import metadata
from typing import NamedTuple

from benchmarks import peers, summary
from benchmarks.driver import Result, Settings
from benchmarks.table import markdown_table, table
from benchmarks.workloads import NAMED, WORKLOADS

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
    """Return the table of all workloads, the summary, then what went wrong, if anything did."""
    rows: list[list[str]] = []
    for results in groups:
        baseline = baseline_of(results, wished)
        rows += [row(r, baseline) for r in results]
        rows.append([])
    parts = [[table(HEADER, rows[:-1])], summarized(groups), problems_of(groups)]
    return "\n\n".join("\n".join(part) for part in parts if part)


class Standing(NamedTuple):
    """diffc on one workload against the best peer; a ratio above 1 means that diffc is faster.

    Of systems with two forms of a workload the faster one counts, diffc's as the peers'.
    """

    workload: str
    own: Result
    best: str  # the peer with the least ratio of medians
    ratio: float
    fastest: float  # of the fastest chunks of each


def standing(results: list[Result]) -> Standing | None:
    """Return how diffc stands on a workload; None where it or all peers were not timed."""
    timed = [r for r in results if r.seconds and not r.problem]
    forms = [r for r in timed if peers.is_own(r.peer)]
    others = [r for r in timed if not peers.is_own(r.peer)]
    if not forms or not others:
        return None
    own = min(forms, key=lambda r: statistics.median(r.seconds))
    ratios = {r.peer: summary.ratio(r.seconds, own.seconds).median for r in others}
    best = min(ratios, key=ratios.__getitem__)
    least_own, least = (min(min(r.seconds) for r in some) for some in (forms, others))
    return Standing(own.workload, own, best, ratios[best], least / least_own)


def summarized(groups: list[list[Result]]) -> list[str]:
    """Return lines: geometric means over the named workloads, and where diffc is slower."""
    found = [s for s in map(standing, groups) if s is not None]
    named = [s for s in found if s.workload in NAMED]
    lines = []
    if named:
        medians = statistics.geometric_mean(s.ratio for s in named)
        fastest = statistics.geometric_mean(s.fastest for s in named)
        lines.append(
            f"best peer / diffc, geometric mean of {len(named)} of {len(NAMED)} named workloads: "
            f"{medians:.2f} by medians of ratios, {fastest:.2f} by fastest chunks"
        )
    slower = [
        f"{s.workload}: {s.best} {s.ratio:.2f}, by fastest chunks {s.fastest:.2f}"
        for s in sorted(found, key=lambda s: s.ratio)
        if min(s.ratio, s.fastest) < 1.0
    ]
    if found:
        lines.append("slower than the best peer: " + ("" if slower else "none"))
    return lines + ["  " + line for line in slower]


def markdown(groups: list[list[Result]], settings: Settings) -> str:
    """Return a page: the summary, a row for each workload, what went wrong."""
    columns = [p for p in peers.PEERS if any(r.peer == p for g in groups for r in g)]
    columns = [p for p in columns if not peers.is_own(p)]
    header = ["workload", "unit", "diffc", "best peer / diffc", "fastest chunks", *columns]
    rows = []
    for results in groups:
        place = standing(results)
        if place is None:
            continue
        ratios = {
            r.peer: f"{summary.ratio(r.seconds, place.own.seconds).median:.2f}"
            for r in results
            if r.seconds and not r.problem
        }
        seconds = summary.seconds_text(summary.fastest(place.own.seconds))
        figures = [seconds, f"{place.ratio:.2f}", f"{place.fastest:.2f}"]
        unit = WORKLOADS[place.workload].unit
        rows.append([place.workload, unit, *figures, *(ratios.get(p, "") for p in columns)])
    problems = [f"- {line}" for line in problems_of(groups)]
    about = ", ".join(f"{k} {v}" for k, v in versions().items())
    parts = [
        "# Benchmarks",
        f"{processor()}, {settings.threads} threads, {settings.rounds} rounds; {about}.",
        "Times of diffc are of its fastest chunk; ratios are medians over the rounds of a peer's "
        "time by diffc's: above 1, diffc is faster.",
        markdown_table(header, rows, left=2),
        "\n".join(f"- {line.strip()}" for line in summarized(groups)),
        *(["## Not timed", "\n".join(problems)] if problems else []),
    ]
    return "\n\n".join(parts) + "\n"


def problems_of(groups: list[list[Result]]) -> list[str]:
    """Return what went wrong, a line or more for each result that was not timed."""
    return [f"{r.workload}: {r.peer}: {r.problem.strip()}" for g in groups for r in g if r.problem]


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
