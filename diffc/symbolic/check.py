"""What a check says: proved, checked or failed, never mixed up.

``proved``: SymPy decides it for all inputs. ``checked``: it held at drawn points, to the error that
is given. ``failed``: it did not.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Verdict = Literal["proved", "checked", "failed"]


@dataclass(frozen=True, slots=True)
class Check:
    """One statement and what became of it.

    Attributes:
        name: the statement, such as ``gradient: compiled = interpreter``.
        verdict: proved, checked or failed.
        error: the greatest (relative) error met; None where there are no numbers.
        detail: what was done, to which limit, or where it failed.
    """

    name: str
    verdict: Verdict
    error: float | None = None
    detail: str = ""

    @property
    def is_good(self) -> bool:
        """Whether it did not fail."""
        return self.verdict != "failed"


def worst(verdicts: Iterable[Verdict]) -> Verdict:
    """What can be said of all together: the weakest of them."""
    order: tuple[Verdict, ...] = ("proved", "checked", "failed")
    return max(verdicts, key=order.index, default="proved")


def measured(name: str, error: float, limit: float, detail: str = "") -> Check:
    """A check of numbers: they held if the error is within the limit."""
    verdict: Verdict = "checked" if error <= limit else "failed"  # nan fails
    return Check(name, verdict, error, f"limit {limit:.0e}" + (f", {detail}" if detail else ""))
