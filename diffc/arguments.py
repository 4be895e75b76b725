"""The arguments of a call by position and by name, and which of them a derivative is by."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from diffc import tree
from diffc.errors import UsageError
from diffc.trace import line
from diffc.trace.run import parameter_names

Argnums = int | Sequence[int] | None
Argnames = str | Sequence[str]


@dataclass(frozen=True, slots=True)
class Static:
    """A static argument of a jitted function: a Python value without leaves."""

    value: Any


@dataclass(frozen=True, slots=True)
class Argument:
    """One argument of a call.

    Attributes:
        place: its position, or its keyword.
        label: its name, as errors give it.
        first: the number of its first leaf among those of all arguments.
        value: a pytree, or :class:`Static`.
    """

    place: int | str
    label: str
    first: int
    value: Any

    @property
    def structure(self) -> tree.TreeDef:
        """The structure of its value."""
        return tree.structure(() if isinstance(self.value, Static) else self.value)

    @property
    def leaves(self) -> range:
        """The numbers of its leaves."""
        return range(self.first, self.first + self.structure.num_leaves)


def arguments_of(
    origin: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]
) -> list[Argument]:
    """All arguments in the order of their leaves: by position, then keywords by name."""
    labels = parameter_names(origin, len(args))
    given: list[tuple[int | str, str, Any]] = [
        (place, label, value) for place, (label, value) in enumerate(zip(labels, args, strict=True))
    ]
    given += [(name, name, kwargs[name]) for name in sorted(kwargs)]
    found: list[Argument] = []
    first = 0
    for place, label, value in given:
        found.append(Argument(place, label, first, value))
        first += found[-1].structure.num_leaves
    return found


class Selection:
    """What ``argnums`` and ``argnames`` ask for; without both, the first argument.

    Raises:
        UsageError: both are given.
    """

    def __init__(self, title: str, argnums: Argnums, argnames: Argnames = ()) -> None:
        self.title = title
        self.argnums = argnums
        self.argnames = argnames
        if argnums is not None and argnames != ():
            raise UsageError(
                f"{title} has both argnums and argnames",
                location=line(),
                hint="name all arguments by argnames, or count them by argnums",
            )
        self.is_single = isinstance(argnames, str) or (
            argnames == () and (argnums is None or isinstance(argnums, int))
        )

    def among(self, arguments: Sequence[Argument]) -> list[Argument]:
        """The chosen arguments, in the order in which they are asked for.

        Raises:
            UsageError: there is no such argument, or it is static.
        """
        found = self._chosen(arguments)
        for argument in found:
            if isinstance(argument.value, Static):
                raise UsageError(
                    f"{self.title} is by {argument.label}, which is static",
                    location=line(),
                    hint="leave it out of static_argnums and static_argnames, or of the gradient",
                )
        return found

    def _chosen(self, arguments: Sequence[Argument]) -> list[Argument]:
        if self.argnames != ():
            by_label = {argument.label: argument for argument in arguments}
            return [self._named(name, by_label) for name in texts(self.argnames)]
        positional = [a for a in arguments if isinstance(a.place, int)]
        count = len(positional)
        found: list[Argument] = []
        for position in (0,) if self.argnums is None else integers(self.argnums):
            if not -count <= position < count:
                raise UsageError(
                    f"argnums of {self.title} names argument {position}, but there are {count}",
                    location=line(),
                    hint="argnums counts positional arguments from 0; argnames takes names",
                )
            found.append(positional[position])
        return found

    def _named(self, name: str, by_label: Mapping[str, Argument]) -> Argument:
        if name not in by_label:
            raise UsageError(
                f"argnames of {self.title} names {name!r}; the arguments are "
                + (", ".join(by_label) or "none"),
                location=line(),
            )
        return by_label[name]

    def packed(self, values: Sequence[Any]) -> Any:
        """One value for each chosen argument, as users get them: one, or a tuple."""
        return values[0] if self.is_single else tuple(values)


def integers(given: int | Sequence[int]) -> tuple[int, ...]:
    """One or several positions as a tuple."""
    return (given,) if isinstance(given, int) else tuple(given)


def texts(given: str | Iterable[str]) -> tuple[str, ...]:
    """One or several names as a tuple."""
    return (given,) if isinstance(given, str) else tuple(given)


def places(
    function: Callable[..., Any], argnums: int | Sequence[int], argnames: str | Iterable[str]
) -> tuple[frozenset[int], frozenset[str]]:
    """Positions and names that are meant, a parameter that can be given either way by both.

    Negative positions count from the last positional parameter.

    Raises:
        UsageError: there is no such parameter.
    """
    numbers, names = integers(argnums), texts(argnames)
    if not numbers and not names:
        return frozenset(), frozenset()
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        parameters = []
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    positional = [p for p in parameters if p.kind in kinds]
    count = len(positional)
    is_open = not parameters or any(p.kind is p.VAR_POSITIONAL for p in parameters)
    for number in numbers:
        if number < -count or (number >= count and not is_open):
            raise UsageError(f"there is no argument {number} of {count}", location=line())
    takes_any = not parameters or any(p.kind is p.VAR_KEYWORD for p in parameters)
    known = {p.name for p in parameters}
    for name in names:
        if name not in known and not takes_any:
            raise UsageError(
                f"there is no argument named {name!r}; the parameters are {', '.join(known)}",
                location=line(),
            )
    numbers = tuple(n % count if n < 0 else n for n in numbers)
    either = {i: p.name for i, p in enumerate(positional) if p.kind is p.POSITIONAL_OR_KEYWORD}
    return (
        frozenset(numbers) | {i for i, name in either.items() if name in names},
        frozenset(names) | {either[i] for i in numbers if i in either},
    )
