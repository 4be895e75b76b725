"""The thread pool of this process: how many threads, and the symbol that emitted code calls.

The pool is loaded with the first program that has parallel parts, its workers start with the first
region that has use for them. They hold no Python state and know no GIL; they end before the
interpreter does, and a forked child starts workers of its own.

The number of threads is one setting of the process, read at each region: a change needs no
compilation. Results have the same bits for any number.
"""

import atexit
import ctypes
import functools
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from diffc.errors import UsageError
from diffc.runtime.build import Library, build
from diffc.runtime.cores import Budget, budget
from diffc.runtime.pool_code import MAX_THREADS, PARALLEL_FOR, STATE, pool_text, unsupported
from diffc.runtime.target import host

__all__ = ["MAX_THREADS", "PARALLEL_FOR", "describe", "imports", "threads", "use_threads"]

# Pauses before a thread sleeps, about half a millisecond: waking one takes up to 30 microseconds on
# a virtual machine, so workers stay awake from call to call of a loop in Python.
WORKER_SPINS = 25_000
CALLER_SPINS = 20_000

_LOCK = threading.RLock()


class Pool:
    """The loaded pool.

    Attributes:
        library: Its code.
    """

    def __init__(self, library: Library) -> None:
        self.library = library
        if unsupported():
            return
        self._state = library.address("diffc_pool")
        self._stop = ctypes.CFUNCTYPE(None)(library.address("diffc_pool_stop"))
        self._reset = ctypes.CFUNCTYPE(None)(library.address("diffc_pool_reset"))
        self._reset()
        for name, value in (("WORKER_SPINS", WORKER_SPINS), ("CALLER_SPINS", CALLER_SPINS)):
            ctypes.c_int64.from_address(self._state + STATE[name]).value = value

    def word(self, name: str) -> int:
        """A 32-bit word of the state."""
        return ctypes.c_int32.from_address(self._state + STATE[name]).value

    def set_threads(self, count: int) -> None:
        """Sets how many threads the next regions use."""
        if not unsupported():
            ctypes.c_int32.from_address(self._state + STATE["THREADS"]).value = count

    def set_steady(self, is_steady: bool) -> None:
        """Sets whether regions are dealt out whatever was learnt about them: for tests."""
        if not unsupported():
            ctypes.c_int64.from_address(self._state + STATE["STEADY"]).value = int(is_steady)

    def regions(self) -> int:
        """How many regions were dealt out to several threads so far."""
        if unsupported():
            return 0
        return ctypes.c_int64.from_address(self._state + STATE["REGIONS"]).value

    def stop(self) -> None:
        """Ends the workers; regions run in their callers from then on."""
        if not unsupported():
            self.set_threads(1)
            self._stop()

    def reset(self) -> None:
        """Forgets the workers, which a forked child does not have."""
        if not unsupported():
            self._reset()


class _Setting:
    """The number of threads that was asked for; None: the default."""

    __slots__ = ("count",)

    def __init__(self) -> None:
        self.count: int | None = None


_SETTING = _Setting()


@functools.cache
def _default() -> Budget:
    """What the environment and the system say."""
    reason = unsupported()
    return Budget(1, reason) if reason else budget(MAX_THREADS)


@functools.cache
def pool() -> Pool:
    """The pool, loaded at the first use."""
    with _LOCK:
        exports = [PARALLEL_FOR]
        if not unsupported():
            exports += ["diffc_pool", "diffc_pool_stop", "diffc_pool_reset"]
        found = Pool(build(pool_text(), exports, host()))
        found.set_threads(threads())
        atexit.register(found.stop)
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=found.reset)
        return found


def imports() -> dict[str, int]:
    """The address of the symbol that programs with parallel parts call."""
    return {PARALLEL_FOR: pool().library.address(PARALLEL_FOR)}


def threads() -> int:
    """How many threads parallel parts may use now, the caller's included."""
    return _default().threads if _SETTING.count is None else _SETTING.count


def describe() -> str:
    """The number of threads and where it comes from."""
    reason = _default().reason if _SETTING.count is None else "set by diffc.threads"
    return f"{threads()} ({reason})"


def checked(count: object) -> int:
    """A number of threads that a user gave; more than the pool can have become as many.

    Raises:
        UsageError: It is not a positive integer.
    """
    if isinstance(count, bool) or not isinstance(count, int) or count < 1:
        raise UsageError(
            f"{count!r} is no number of threads", hint="give an integer that is 1 or more"
        )
    return 1 if unsupported() else min(count, MAX_THREADS)


@contextmanager
def use_threads(count: int) -> Iterator[None]:
    """Sets the number of threads of the process, and puts the old one back."""
    count = checked(count)
    with _LOCK:
        before = _SETTING.count
        _apply(count)
    try:
        yield
    finally:
        with _LOCK:
            _apply(before)


def _apply(count: int | None) -> None:
    _SETTING.count = count
    if pool.cache_info().currsize:
        pool().set_threads(threads())
