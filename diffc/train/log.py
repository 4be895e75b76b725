"""The learning curve as a table."""

from __future__ import annotations

import csv
from os import PathLike
from typing import Any

import numpy as np

from diffc.errors import UsageError


class Log:
    """Rows of numbers under fixed names, such as one row per epoch.

    Args:
        *names: the columns.

    Example:
        >>> log = Log("epoch", "loss")
        >>> log.add(epoch=1, loss=0.5)
        >>> log.add(epoch=2, loss=0.25)
        >>> log["loss"]
        array([0.5 , 0.25])
    """

    def __init__(self, *names: str) -> None:
        self.names = names
        self.rows: list[tuple[float, ...]] = []

    def add(self, **values: float) -> None:
        """Adds a row.

        Raises:
            UsageError: a column is missing, or unknown.
        """
        if set(values) != set(self.names):
            found = ", ".join(values) or "nothing"
            raise UsageError(f"a row has {', '.join(self.names)}; found {found}")
        self.rows.append(tuple(values[name] for name in self.names))

    def __getitem__(self, name: str) -> np.ndarray[Any, Any]:
        """A column.

        Raises:
            UsageError: no column has this name.
        """
        if name not in self.names:
            raise UsageError(
                f"no column is named {name!r}", hint=f"columns: {', '.join(self.names)}"
            )
        return np.array([row[self.names.index(name)] for row in self.rows])

    def __len__(self) -> int:
        return len(self.rows)

    def save(self, path: str | PathLike[str]) -> None:
        """Writes the table as CSV, with the names in its first line."""
        with open(path, "w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(self.names)
            writer.writerows(self.rows)
