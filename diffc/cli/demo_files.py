"""What the demo leaves behind: the learning curve, the weights, the text of every stage."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from diffc.jitted import Compiled
from diffc.pipeline import STAGES
from diffc.train import Log

_BLUE, _ORANGE, _GREY = "#1f6fb4", "#d9590f", "#555555"


def save_weights(path: Path, params: dict[str, np.ndarray[Any, Any]]) -> None:
    """All params by name, as NumPy's ``npz``."""
    with path.open("wb") as file:
        np.savez(file, **params)  # type: ignore[arg-type]  # the stubs take names for options


def save_stages(folder: Path, compiled: Compiled) -> list[Path]:
    """One text file per stage: ``01-trace.txt`` ... ``09-asm.txt``."""
    folder.mkdir(exist_ok=True)
    paths = []
    for number, name in enumerate(STAGES, start=1):
        path = folder / f"{number:02d}-{name}.txt"
        path.write_text(compiled.stage(name).text.rstrip("\n") + "\n", encoding="utf-8")
        paths.append(path)
    return paths


def save_curve(path: Path, log: Log, title: str) -> None:
    """Loss and held-out accuracy against epochs, as a PNG picture.

    Raises:
        ImportError: matplotlib is not installed.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator, PercentFormatter

    figure = Figure(figsize=(8.0, 6.5), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    upper, lower = figure.subplots(2, 1, sharex=True)
    epochs, accuracy = log["epoch"], log["accuracy"]

    upper.semilogy(epochs, log["loss"], color=_BLUE, linewidth=2, marker="o", markersize=4)
    upper.set_ylabel("training loss (log scale)", color=_BLUE, fontsize=12)

    lower.plot(epochs, accuracy, color=_ORANGE, linewidth=2, marker="o", markersize=4)
    lower.set_ylabel("held-out accuracy", color=_ORANGE, fontsize=12)
    lower.set_xlabel("epoch", fontsize=12)
    low = min(0.94, float(np.min(accuracy)) - 0.01)
    lower.set_ylim(max(low, 0.0), 1.0)
    lower.yaxis.set_major_formatter(PercentFormatter(1.0, symbol=" %"))
    lower.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=10))
    lower.set_xlim(0.0, float(epochs[-1]) * 1.03)
    lower.axhline(0.97, color=_GREY, linewidth=1, linestyle="--")
    lower.annotate(
        "97 %",
        (0.0, 0.97),
        xycoords=("axes fraction", "data"),
        xytext=(6, -4),
        textcoords="offset points",
        color=_GREY,
        ha="left",
        va="top",
    )
    lower.annotate(
        f"{accuracy[-1]:.2%}",
        (float(epochs[-1]), float(accuracy[-1])),
        xytext=(0, -28),
        textcoords="offset points",
        ha="right",
        va="top",
        fontsize=11,
        color=_ORANGE,
    )
    for axes in (upper, lower):
        axes.grid(True, which="major", alpha=0.35)
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=11)
    upper.set_title(title, fontsize=13)
    figure.savefig(path)
