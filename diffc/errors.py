"""The exceptions that diffc raises for its users.

Every message has the same three parts: what was found, where (the user's own line), and what to do
instead. This module stands below all layers and imports none of them; finding the user's line is
the business of whoever raises.
"""

from typing import Self


class DiffcError(Exception):
    """Base of all errors that diffc raises.

    Args:
        message: What was found, in one or more lines.
        location: The user's line, as `file:line`; None when it is not known.
        hint: What to write or do instead; None when there is nothing to say.

    Example:
        >>> print(ShapeError("cannot add f32[3] and f32[4]", location="m.py:7", hint="reshape x"))
        cannot add f32[3] and f32[4]
          at m.py:7
          hint: reshape x
    """

    def __init__(
        self, message: str, *, location: str | None = None, hint: str | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.location = location
        self.hint = hint

    def at(self, location: str | None) -> Self:
        """Fills in the location if there is none yet, and returns the error itself.

        The innermost location wins: a stage that knows only the outer call must not hide the line
        that a lower layer has already named.
        """
        if self.location is None:
            self.location = location
        return self

    def __str__(self) -> str:
        lines = [self.message]
        if self.location is not None:
            lines.append(f"  at {self.location}")
        if self.hint is not None:
            lines.append("  hint: " + self.hint.replace("\n", "\n        "))
        return "\n".join(lines)


class ShapeError(DiffcError, ValueError):
    """Shapes, axes or sizes that do not fit together."""


class DtypeError(DiffcError, TypeError):
    """A dtype that an operation does not accept, or a pair that does not combine."""


class TraceError(DiffcError, TypeError):
    """Code that cannot be traced, such as a branch on a traced value under `jit`."""


class UsageError(DiffcError, ValueError):
    """A call of diffc's own interface with arguments that make no sense together."""


class ExecutionError(DiffcError, RuntimeError):
    """A compiled program stopped: a singular matrix, an index out of bounds, no memory."""


class InternalError(DiffcError):
    """A broken invariant inside diffc: never the user's fault, always worth a report."""


class DiffcWarning(UserWarning):
    """Base of all warnings about users' functions."""


class StructuralZeroWarning(DiffcWarning):
    """A gradient that is zero for all values: the input reaches the result by no derivative."""


class DetachedValueWarning(DiffcWarning):
    """A Python number made of a traced float: derivatives don't flow through it."""
