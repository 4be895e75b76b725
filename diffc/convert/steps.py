"""What a ``for`` runs over where a traced value or an array decides: ranges, rows, and both."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from diffc.errors import TraceError
from diffc.ir.aval import INTEGERS
from diffc.trace import Tracer, active, line
from diffc.trace.arguments import tracer
from diffc.trace.context import current
from diffc.trace.tracer import read


def _is_unknown(value: Any) -> bool:
    return isinstance(value, Tracer) and current().ask(read(value)) is None


class Steps:
    """Items by number: the ``k``-th is computed from ``k`` and from rows of arrays.

    Attributes:
        length: how many; traced for a range with traced bounds.
        rows: arrays along whose first axis the loop runs; None if the length is traced.
        is_traced: whether Python can't run over it.
    """

    is_traced = False
    length: Any
    rows: Sequence[Any] | None = None

    def item(self, k: Any) -> Any:
        """The ``k``-th item, for a counter."""
        raise NotImplementedError

    def element(self, rows: Sequence[Any]) -> Any:
        """An item made of the rows of ``self.rows``."""
        raise NotImplementedError

    def reversed(self) -> Steps:
        """The same items from the last to the first."""
        raise NotImplementedError

    def __iter__(self) -> Iterator[Any]:
        return (self.item(k) for k in range(self.length))

    def __len__(self) -> int:
        return int(self.length)

    @staticmethod
    def of_range(items: range) -> Steps:
        """A range that a traced value may stop."""
        return Range(items.start, len(items), items.step)


class Range(Steps):
    """``start + k * step`` for ``k`` below a length, which may be traced."""

    def __init__(self, start: Any, length: Any, step: Any) -> None:
        self.first = start
        self.length = length
        self.step = step
        self.is_traced = True

    def item(self, k: Any) -> Any:
        """The ``k``-th item."""
        return self.first + k * self.step

    def reversed(self) -> Steps:
        """From the last to the first."""
        return Range(self.item(self.length - 1), self.length, -self.step)

    def __iter__(self) -> Iterator[Any]:
        raise TraceError(
            "a range with traced bounds can only be run over by a `for` statement",
            location=line(),
            hint="write a loop instead of the comprehension or call, or make the bound static",
        )

    def __len__(self) -> int:
        raise TraceError(
            "the length of a range with traced bounds is not known",
            location=line(),
            hint="make the bound a static argument (static_argnums)",
        )

    def __getitem__(self, k: Any) -> Any:
        return self.item(k)


class Rows(Steps):
    """The rows of an array."""

    def __init__(self, array: Any, is_backwards: bool = False) -> None:
        self.array = tracer(array)[::-1] if is_backwards else tracer(array)
        self.length = len(self.array)
        self.rows = [self.array]

    def item(self, k: Any) -> Any:
        """The ``k``-th item."""
        return self.array[k]

    def element(self, rows: Sequence[Any]) -> Any:
        """An item made of rows."""
        return rows[0]

    def reversed(self) -> Steps:
        """From the last to the first."""
        return Rows(self.array, is_backwards=True)


class Together(Steps):
    """Tuples of the items of several, as ``zip`` and ``enumerate`` give them; of the shortest."""

    def __init__(self, parts: Sequence[Steps]) -> None:
        self.parts = parts
        self.length = min(part.length for part in parts)
        self.rows = []
        for part in parts:
            if isinstance(part, Range):
                self.rows.append(part.first + np.arange(self.length) * part.step)
            else:
                self.rows += [row[: self.length] for row in part.rows or ()]

    def item(self, k: Any) -> Any:
        """The ``k``-th item."""
        return tuple(part.item(k) for part in self.parts)

    def element(self, rows: Sequence[Any]) -> Any:
        """An item made of rows."""
        found: list[Any] = []
        at = 0
        for part in self.parts:
            if isinstance(part, Range):
                found.append(rows[at])
                at += 1
            else:
                count = len(part.rows or ())
                found.append(part.element(rows[at : at + count]))
                at += count
        return tuple(found)

    def reversed(self) -> Steps:
        """From the last to the first."""
        raise TypeError("object is not reversible")


def as_steps(items: Any) -> Steps | None:
    """Items that the graph may run over; None for what only Python can."""
    if isinstance(items, Steps):
        return items
    is_array = isinstance(items, Tracer) or (isinstance(items, np.ndarray) and active())
    return Rows(items) if is_array and items.ndim else None


def traced_range(*args: Any) -> Any:
    """``range``, whose bounds may be traced."""
    if not any(map(_is_unknown, args)) or not 1 <= len(args) <= 3:
        return range(*args)
    start, stop, step = (0, args[0], 1) if len(args) == 1 else (*args, 1)[:3]
    for bound in (start, stop, step):
        if isinstance(bound, Tracer) and (
            bound.shape or bound.aval.dtype not in {*INTEGERS, "bool"}
        ):
            raise TypeError(f"a bound of a range is {bound.aval}, and no integer")
    count = -((start - stop) // step)
    return Range(start, _where_positive(count), step)


def _where_positive(count: Any) -> Any:
    from diffc.trace.table import FUNCTIONS

    return FUNCTIONS["maximum"](count, 0) if "maximum" in FUNCTIONS else np.maximum(count, 0)


def enumerated(items: Any, start: Any = 0) -> Any:
    """``enumerate``, over an array too."""
    steps = as_steps(items)
    if steps is None or steps.rows is None:
        return enumerate(items, start)
    return Together([Range(start, steps.length, 1), steps])


def zipped(*items: Any, strict: bool = False) -> Any:
    """``zip``, over arrays too if there are only arrays and ranges."""
    steps = [Range(x.start, len(x), x.step) if isinstance(x, range) else as_steps(x) for x in items]
    lengths = [None if s is None else s.length for s in steps]
    is_known = all(isinstance(length, int) for length in lengths)
    if not is_known or all(isinstance(s, Range) for s in steps):
        return zip(*items, strict=strict)
    if strict and len(set(lengths)) > 1:
        return zip(*items, strict=True)  # raises, and says why
    return Together([s for s in steps if s is not None])
