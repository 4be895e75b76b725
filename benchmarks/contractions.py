"""diffc's matrix products against NumPy's, PyTorch's and JAX's, over many random shapes.

One call of a jitted product, and the product within a loop, where no call weighs. For each shape
the ratio is the best peer's time by diffc's: above 1, diffc is faster. The distribution says more
than any one shape; the worst ones say where to look.
"""

from __future__ import annotations

import contextlib
import random
import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field

from benchmarks import summary
from benchmarks.driver import PAUSE_SECONDS, Process, Settings
from benchmarks.products import FORMS, Product
from benchmarks.table import table

PEERS = ("diffc", "jax", "torch", "numpy")
BASELINE = PEERS[0]
LIMIT = 2.0  # of `Product.error`
TOGETHER = 25  # products timed within one context
WORST = 20


@dataclass
class Timed:
    """One product in one form: seconds by peer and round."""

    product: Product
    form: str
    seconds: dict[str, list[float]] = field(default_factory=dict)

    def ratios(self) -> dict[str, float]:
        """Return the median ratio of each peer to the baseline."""
        own = self.seconds[BASELINE]
        return {
            peer: summary.ratio(seconds, own).median
            for peer, seconds in self.seconds.items()
            if peer != BASELINE
        }

    def best(self) -> tuple[float, str]:
        """Return the least ratio and whose it is."""
        return min((ratio, peer) for peer, ratio in self.ratios().items())

    def fastest(self) -> float:
        """Return the ratio of the fastest chunks: the best peer's by the baseline's."""
        least = {peer: min(seconds) for peer, seconds in self.seconds.items()}
        return min(s for peer, s in least.items() if peer != BASELINE) / least[BASELINE]

    def rate(self) -> float:
        """Return the baseline's operations per nanosecond in its fastest chunk."""
        return self.product.flops / min(self.seconds[BASELINE]) / 1e9


def measure(
    products: Sequence[Product],
    dtype: str,
    settings: Settings,
    say: Callable[[str], None],
    around: Callable[[], AbstractContextManager] = contextlib.nullcontext,
    peers: Sequence[str] = PEERS,
) -> tuple[list[Timed], list[str]]:
    """Time products; return what was timed, and what peers got wrong.

    A peer whose library is missing is left out, and said so; one that is wrong about a product has
    no times of it.
    """
    words = [dtype, str(settings.seed)]
    processes = {p: Process("benchmarks.contractions_worker", [p, *words], settings) for p in peers}
    found: list[Timed] = []
    problems: list[str] = []
    order = random.Random(settings.seed)
    try:
        for first in range(0, len(products), TOGETHER):
            some = products[first : first + TOGETHER]
            plans = [prepare(product, processes, problems) for product in some]
            with around():
                for product, plan in zip(some, plans, strict=True):
                    for form in FORMS:
                        timed = Timed(product, form)
                        take_turns(timed, plan, processes, settings, order)
                        found.append(timed)
            say(f"{first + len(some)} of {len(products)} products")
    finally:
        for process in processes.values():
            process.close()
    return found, problems


def prepare(
    product: Product, processes: dict[str, Process], problems: list[str]
) -> dict[str, dict]:
    """Let every peer compile and check a product; return the seconds of a first call by peer."""
    plans = {}
    for peer, process in list(processes.items()):
        answer = process.ask("prepare", product)
        if "error" in answer and isinstance(answer["error"], str):
            problems.append(f"{peer}: {product}: failed: {answer['error'].strip()}")
        elif "missing" in answer:
            problems.append(f"{peer}: not installed: {answer['missing']}")
        elif not answer["error"] <= LIMIT:
            problems.append(f"{peer}: {product}: disagrees: {answer['error']:.1e} of the bound")
            continue
        else:
            plans[peer] = answer["seconds"]
            continue
        process.close()
        del processes[peer]
    return plans


def take_turns(
    timed: Timed,
    plans: dict[str, dict],
    processes: dict[str, Process],
    settings: Settings,
    order: random.Random,
) -> None:
    """Let each peer do one chunk per round, in an order drawn anew; the first is not kept."""
    units = {
        peer: summary.chunk_units(seconds[timed.form], 1, settings.chunk_seconds)
        for peer, seconds in plans.items()
    }
    turn = list(units)
    for number in range(settings.rounds + 1):
        order.shuffle(turn)
        for peer in turn:
            if settings.threads > 1:
                time.sleep(PAUSE_SECONDS)
            seconds = processes[peer].ask("chunk", timed.product, timed.form, units[peer])[
                "seconds"
            ]
            if number:
                timed.seconds.setdefault(peer, []).append(seconds / units[peer])
            else:
                call = seconds / units[peer]
                units[peer] = summary.chunk_units(call, 1, settings.chunk_seconds)


def compared(found: list[Timed], form: str) -> list[Timed]:
    """Return what the baseline and some other peer were timed on in a form."""
    return [t for t in found if t.form == form and BASELINE in t.seconds and len(t.seconds) > 1]


def distribution(ratios: list[float]) -> list[str]:
    """Return cells: least, quartiles, largest, geometric mean, share that is at least 1."""
    low, median, high = summary.quartiles(ratios)
    share = sum(r >= 1.0 for r in ratios) / len(ratios)
    figures = [min(ratios), low, median, high, max(ratios), statistics.geometric_mean(ratios)]
    return [*(f"{f:.2f}" for f in figures), f"{share:.0%}"]


def text(found: list[Timed], problems: list[str]) -> str:
    """Return the distributions and the worst products."""
    header = ["best peer / diffc", "min", "25 %", "median", "75 %", "max", "geometric mean", ">= 1"]
    rows, parts = [], []
    for form in FORMS:
        some = compared(found, form)
        if not some:
            continue
        rows.append([f"{form}, medians", *distribution([t.best()[0] for t in some])])
        rows.append([f"{form}, fastest", *distribution([t.fastest() for t in some])])
        parts.append(f"\nworst of {len(some)} in a {form}\n" + worst(some))
    return "\n".join([table(header, rows, left=1), *parts, *([""] if problems else []), *problems])


def worst(some: list[Timed]) -> str:
    """Return the table of the products with the least ratios."""
    rows = []
    for t in sorted(some, key=lambda t: t.best()[0])[:WORST]:
        ratio, peer = t.best()
        seconds = summary.seconds_text(min(t.seconds[BASELINE]))
        rows.append([str(t.product), peer, f"{ratio:.2f}", f"{t.fastest():.2f}", seconds])
        rows[-1].append(f"{t.rate():.1f}")
    header = ["product", "best peer", "ratio", "fastest", "diffc", "GFLOP/s"]
    return table(header, rows)


def as_json(found: list[Timed], problems: list[str], dtype: str, settings: Settings) -> dict:
    """Return everything that was measured."""
    results = [asdict(t) | {"product": t.product._asdict()} for t in found]
    return {
        "settings": asdict(settings),
        "dtype": dtype,
        "problems": problems,
        "results": results,
    }
