"""How the demo shows its progress: a bar in a terminal, a line per epoch in a pipe or file."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol, TextIO


class Progress(Protocol):
    """What the training loop reports to."""

    def step(self, loss: float) -> None:
        """One step is done."""

    def epoch(self, number: int, loss: float, accuracy: float) -> None:
        """One epoch is done."""


def is_plain(stream: TextIO) -> bool:
    """Whether a stream wants no control codes: it is no terminal, or a dumb one."""
    return not stream.isatty() or os.environ.get("TERM", "") in ("", "dumb")


@contextmanager
def progress(epochs: int, steps: int, stream: TextIO | None = None) -> Iterator[Progress]:
    """The progress of ``epochs`` of ``steps`` steps each.

    Raises:
        ImportError: rich is not installed.
    """
    stream = stream or sys.stdout
    if is_plain(stream):
        yield _Lines(epochs, stream)
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    bar = Bar(
        TextColumn("epoch {task.fields[epoch]}/{task.fields[epochs]}"),
        BarColumn(bar_width=None),
        MofNCompleteColumn(),
        TextColumn("loss {task.fields[loss]}"),
        TextColumn("accuracy {task.fields[accuracy]}"),
        TimeRemainingColumn(),
        console=Console(file=stream),
    )
    with bar:
        yield _Bar(bar, epochs, steps)


class _Lines:
    """Every epoch is a line."""

    def __init__(self, epochs: int, stream: TextIO) -> None:
        self.epochs = epochs
        self.stream = stream

    def step(self, loss: float) -> None:
        """Nothing is shown."""

    def epoch(self, number: int, loss: float, accuracy: float) -> None:
        """Shows the line."""
        width = len(str(self.epochs))
        line = f"epoch {number:{width}d}/{self.epochs}  loss {loss:.4f}  accuracy {accuracy:.2%}"
        print(line, file=self.stream, flush=True)


class _Bar:
    """One bar over all steps; the loss is of the last step, the accuracy of the last epoch."""

    def __init__(self, bar: object, epochs: int, steps: int) -> None:
        from rich.progress import Progress as Bar

        assert isinstance(bar, Bar)
        self.bar = bar
        self.epochs = epochs
        self.task = bar.add_task(
            "train", total=epochs * steps, epoch=1, epochs=epochs, loss="–", accuracy="–"
        )

    def step(self, loss: float) -> None:
        """Moves the bar."""
        self.bar.update(self.task, advance=1, loss=f"{loss:.4f}")

    def epoch(self, number: int, loss: float, accuracy: float) -> None:
        """Shows the epoch's loss and accuracy."""
        following = min(number + 1, self.epochs)
        self.bar.update(self.task, epoch=following, loss=f"{loss:.4f}", accuracy=f"{accuracy:.2%}")
