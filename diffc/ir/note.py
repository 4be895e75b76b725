"""What a transform has to say about the user's code: right, but perhaps not what one expects.

Unlike a warning, a note is not printed: it is kept with the compiled program.
"""

from __future__ import annotations

from typing import NamedTuple

from diffc.ir.graph import Location


class Note(NamedTuple):
    """One remark.

    Attributes:
        location: the user's line, where it is known.
        message: what there is to say of it.
    """

    location: Location | None
    message: str

    def __str__(self) -> str:
        return self.message if self.location is None else f"{self.location}: {self.message}"
