"""From the seconds of chunks to the figures of the table.

Peers take turns, so the chunks of one round met the same neighbours on a shared machine: ratios
are taken within a round, and their median over the rounds is reported. The fastest chunk says what
a peer reaches when nothing disturbs it.
"""

from __future__ import annotations

import math
import statistics
from typing import NamedTuple


class Ratio(NamedTuple):
    """Ratios of a peer to the baseline over the rounds: median and quartiles."""

    median: float
    low: float
    high: float


def chunk_units(call_seconds: float, units_per_call: int, target: float) -> int:
    """Return how many units fill about `target` seconds: a multiple of a call's units."""
    calls = max(1, round(target / max(call_seconds, 1e-9)))
    return calls * units_per_call


def fastest(seconds: list[float]) -> float:
    """Return the seconds of a unit in the fastest chunk."""
    return min(seconds)


def ratio(peer: list[float], baseline: list[float]) -> Ratio:
    """Return the ratios peer / baseline, round by round: above 1 means that the baseline is faster.

    Raises:
        ValueError: If the two do not have the same rounds, or none.
    """
    if len(peer) != len(baseline) or not peer:
        raise ValueError(f"{len(peer)} rounds of a peer, {len(baseline)} of the baseline")
    low, median, high = quartiles([p / b for p, b in zip(peer, baseline, strict=True)])
    return Ratio(median, low, high)


def quartiles(figures: list[float]) -> tuple[float, float, float]:
    """Return lower quartile, median and upper quartile."""
    if len(figures) == 1:
        return figures[0], figures[0], figures[0]
    low, median, high = statistics.quantiles(figures, n=4, method="inclusive")
    return low, median, high


def seconds_text(seconds: float) -> str:
    """Return seconds with a unit that leaves three digits: `7.03 ms`."""
    if not math.isfinite(seconds):
        return str(seconds)
    for scale, unit in ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs")):
        if seconds >= scale:
            return f"{seconds / scale:.3g} {unit}"
    return f"{seconds * 1e9:.3g} ns"
