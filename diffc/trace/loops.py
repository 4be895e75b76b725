"""How loops of unknown length get at what their reverse reads, where they don't say so themselves.

A setting of the code that runs within ``storing``; it is read while the code is traced.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from diffc.errors import UsageError
from diffc.trace.location import line

#: some carries are kept and those between computed again, or all that is needed of each trip is
STORES = ("slots", "grow")

_CURRENT: ContextVar[str] = ContextVar("store", default=STORES[0])


def default_store() -> str:
    """What holds for a loop that is traced now."""
    return _CURRENT.get()


def checked_store(store: str, what: str) -> str:
    """The store, if there is such a one.

    Raises:
        UsageError: there is none.
    """
    if store not in STORES:
        known = " and ".join(f"store={name!r}" for name in STORES)
        raise UsageError(f"{what} knows {known}, found {store!r}", location=line())
    return store


@contextmanager
def storing(store: str | None) -> Iterator[None]:
    """Loops that are traced inside use this store; None: the one that holds around."""
    token = _CURRENT.set(_CURRENT.get() if store is None else store)
    try:
        yield
    finally:
        _CURRENT.reset(token)
