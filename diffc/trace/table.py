"""The table of NumPy functions that can be traced, and how a call finds its entry.

Entries are keyed by the name under which users reach them: ``sum``, ``linalg.norm``. Modules of
this package fill the table with :func:`implements`; nothing here knows single functions.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np

from diffc.errors import TraceError
from diffc.trace.location import line

F = TypeVar("F", bound=Callable[..., Any])

FUNCTIONS: dict[str, Callable[..., Any]] = {}
UFUNC_METHODS: dict[str, Callable[..., Any]] = {}
_POSITIONS = frozenset(("nonzero", "argwhere", "flatnonzero", "compress", "extract"))
_ACCEPTED: dict[str, frozenset[str] | None] = {}
_NAMES: dict[Any, str] = {}


def implements(*names: str) -> Callable[[F], F]:
    """Enters a function under NumPy's names for it."""

    def enter(function: F) -> F:
        for name in names:
            if name in FUNCTIONS:
                raise ValueError(f"{name} is entered twice")
            FUNCTIONS[name] = function
            parameters = inspect.signature(function).parameters.values()
            _ACCEPTED[name] = (
                None
                if any(p.kind is p.VAR_KEYWORD for p in parameters)
                else frozenset(p.name for p in parameters)
            )
        return function

    return enter


def name_of(function: Any) -> str:
    """The name of a NumPy function or ufunc: ``sum``, ``linalg.norm``."""
    if not _NAMES:
        for prefix, module in (("", np), ("linalg.", np.linalg), ("fft.", np.fft)):
            for name, found in vars(module).items():  # dir() would import what NumPy loads lazily
                if name.startswith("_"):
                    continue
                if callable(found) and not isinstance(found, type):
                    known = _NAMES.get(found)
                    if known is None or (known not in FUNCTIONS and prefix + name in FUNCTIONS):
                        _NAMES[found] = prefix + name
    try:
        found = _NAMES.get(function)
    except TypeError:  # not hashable
        found = None
    return found or str(getattr(function, "__name__", function))


def dispatch(function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Calls the traced meaning of a NumPy function (or of the name of one).

    Raises:
        TraceError: there is none, or not with these keywords.
    """
    name = function if isinstance(function, str) else name_of(function)
    found = FUNCTIONS.get(name)
    if found is None or name in _POSITIONS:
        return _on_known_values(function, name, found, args, kwargs)
    if not kwargs:
        return _call(found, name, args, kwargs)
    accepted = _ACCEPTED[name]
    out = None
    if "out" in kwargs and accepted is not None and "out" not in accepted:
        kwargs = dict(kwargs)
        out = kwargs.pop("out")
    if accepted is not None:
        for key in kwargs:
            if key not in accepted:
                raise TraceError(
                    f"np.{name.removeprefix('ndarray.')}(..., {key}=...) can't be traced",
                    location=line(),
                    hint=f"leave {key} out, or write the function with others of np",
                )
    result = _call(found, name, args, kwargs)
    if out is None:
        return result
    FUNCTIONS["__store__"](out, result, f"np.{name}(..., out=)")
    return out


def _call(
    found: Callable[..., Any], name: str, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    try:
        return found(*args, **kwargs)
    except TypeError as error:
        trace = error.__traceback__
        if isinstance(error, TraceError) or trace is None or trace.tb_next is not None:
            raise
        reason = str(error).partition(" ")[2]  # Python's words, after the function's name
        raise TraceError(
            f"np.{name.removeprefix('ndarray.')} {reason}",
            location=line(),
            hint="give what comes after the array and the axis by keyword",
        ) from None


def _on_known_values(
    function: Any,
    name: str,
    found: Callable[..., Any] | None,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Any:
    """What is not traced still has a value where its arguments have."""
    from diffc.trace.arguments import NotKnown, evaluated

    original = getattr(np, function) if isinstance(function, str) else function
    try:
        return evaluated(original, args, kwargs)
    except NotKnown:
        if found is None:
            raise unknown(name) from None
        return found(*args, **kwargs)


def unknown(name: str) -> TraceError:
    """The error for a NumPy function without traced meaning."""
    return TraceError(
        f"np.{name} can't be traced",
        location=line(),
        hint="write it with other functions of np, or call it outside the traced function; "
        "diffc.numpy lists what can be traced",
    )
