"""``kinks``: which derivative is meant where there is none; see ``trace.kinks``."""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextvars import Token
from typing import Any

from diffc.errors import UsageError
from diffc.trace import active, line
from diffc.trace import kinks as settings

Function = Callable[..., Any]


class Choice:
    """Conventions for kinks, as a decorator or in a ``with`` statement; see :func:`diffc.kinks`."""

    def __init__(self, choices: dict[str, Any]) -> None:
        self.choices = settings.checked(choices)
        self._tokens: list[Token[settings.Kinks]] = []

    def __call__(self, function: Function) -> Function:
        """The function with these conventions."""
        if not callable(function):
            raise UsageError(f"kinks decorates a function, found {function!r}", location=line())

        @functools.wraps(function)
        def chosen(*args: Any, **kwargs: Any) -> Any:
            if not active():
                if hasattr(function, "compile"):  # a derivative, or compiled
                    settings.refuse(self.choices)
                with settings.waiting(self.choices):
                    return function(*args, **kwargs)
            token = settings.enter(self.choices)
            try:
                return function(*args, **kwargs)
            finally:
                settings.leave(token)

        chosen.origin = getattr(function, "origin", function)  # type: ignore[attr-defined]  # as all transforms
        return chosen

    def __enter__(self) -> None:
        if not active():
            raise UsageError(
                "kinks is entered outside a trace, where it has no effect on compiled functions",
                location=line(),
                hint="write `with diffc.kinks(...)` within the function, or decorate the function",
            )
        self._tokens.append(settings.enter(self.choices))

    def __exit__(self, *exception: object) -> None:
        settings.leave(self._tokens.pop())
