"""What is known of a converted statement, and the errors that name it."""

from __future__ import annotations

from typing import Any, NamedTuple, NoReturn

from diffc.errors import TraceError


class Forbidden(NamedTuple):
    """Something in a statement that can't be steered by a traced value."""

    line: int
    what: str
    hint: str


class Site(NamedTuple):
    """A converted statement.

    Attributes:
        kind: "if", "while" or "for".
        file: the user's file.
        line: the statement's line.
        names: the local variables that it assigns, in order.
        live: for each, whether its value may be read later (by the next trip, too).
        plain: why traced values can't steer it, or "".
        forbidden: what can't be in it if a traced value steers it.
        mutated: variables whose objects it changes in place, with the line.
    """

    kind: str
    file: str
    line: int
    names: tuple[str, ...]
    live: tuple[bool, ...]
    plain: str
    forbidden: tuple[Forbidden, ...]
    mutated: tuple[tuple[str, int], ...]

    @property
    def where(self) -> str:
        """File and line."""
        return f"{self.file}:{self.line}"

    def error(self, message: str, hint: str, line: int | None = None) -> TraceError:
        """An error at this statement, or at a line within it."""
        return TraceError(message, location=f"{self.file}:{line or self.line}", hint=hint)

    def check(self) -> None:
        """Raises if a traced value can't steer this statement."""
        if self.plain:
            is_test = ":=" in self.plain
            raise self.error(
                f"a traced value steers this `{self.kind}`, but {self.plain}",
                "assign before the loop and at its end"
                if is_test
                else "move the inner statement into a function of its own, or jump after it",
            )
        for found in self.forbidden:
            raise self.error(
                f"a traced value steers the `{self.kind}` in line {self.line}, which contains "
                f"{found.what}",
                found.hint,
                found.line,
            )


class Undefined:
    """The value of a variable that has none on some path; every use of it is an error."""

    __slots__ = ("name", "reason", "site")

    def __init__(self, name: str, site: Site | None = None, reason: str = "") -> None:
        self.name = name
        self.site = site
        self.reason = reason

    def complain(self, location: str | None = None) -> NoReturn:
        """Raises the error for a use at ``location``."""
        if self.site is None:
            raise UnboundLocalError(
                f"cannot access local variable {self.name!r} where it is not associated with a "
                "value"
            )
        raise TraceError(
            f"the variable {self.name!r} may have no value here: {self.reason}",
            location=location or self.site.where,
            hint=f"give {self.name!r} a value before the `{self.site.kind}` in line "
            f"{self.site.line}",
        )

    def __repr__(self) -> str:
        return f"<undefined {self.name}>"


def _use(self: Undefined, *_: Any) -> NoReturn:
    from diffc.trace import line

    self.complain(line())


for _name in [
    "add",
    "sub",
    "mul",
    "truediv",
    "floordiv",
    "mod",
    "pow",
    "matmul",
    "and",
    "or",
    "xor",
    "lshift",
    "rshift",
    "divmod",
]:
    for _prefix in ("", "r", "i"):
        setattr(Undefined, f"__{_prefix}{_name}__", _use)
for _name in [
    "neg",
    "pos",
    "abs",
    "invert",
    "bool",
    "int",
    "float",
    "index",
    "len",
    "iter",
    "getitem",
    "setitem",
    "call",
]:
    setattr(Undefined, f"__{_name}__", _use)
