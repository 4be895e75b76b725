"""The messages that a nonzero status of a program stands for."""

from __future__ import annotations

from diffc.ir.graph import Location


class Messages:
    """Numbers messages from 1 on, equal ones once; :attr:`table` is what the module carries."""

    __slots__ = ("_found",)

    def __init__(self) -> None:
        self._found: dict[tuple[str, str], int] = {}

    def add(self, text: str, loc: Location | None) -> int:
        """The status that stands for a text and the user's line ("" where it is not known)."""
        entry = text, str(loc) if loc is not None else ""
        return self._found.setdefault(entry, len(self._found) + 1)

    @property
    def table(self) -> tuple[tuple[str, str], ...]:
        """(text, line) of each status, in the order of the statuses."""
        return tuple(self._found)
