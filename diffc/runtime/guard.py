"""Guard mode: every value of a run between unreadable pages, to prove that no kernel strays.

With `DIFFC_GUARD=1` the arena, the inputs and the outputs of each call lie in mappings of their
own. A value ends flush with an unreadable page, so that reading or writing one element past its end
stops the process at the very instruction. At the front there are, by the value's size, up to a page
less one byte before the next unreadable page: these hold a canary that is compared after the run
(a write is found there, a read is not).

Linux and macOS; elsewhere `available` says why not. Slow, and meant for tests.
"""

import ctypes
import functools
import mmap
import os
import sys
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from diffc.errors import InternalError, UsageError
from diffc.runtime.memory import ALIGNMENT

__all__ = ["GuardedArena", "GuardedValue", "is_enabled"]

PAGE = mmap.PAGESIZE
CANARY = 0xA5
PROT_NONE = 0


def is_enabled() -> bool:
    """Whether the environment asks for guard pages.

    Raises:
        UsageError: It does, on a system that has no `mprotect`.
    """
    if os.environ.get("DIFFC_GUARD", "0") != "1":
        return False
    if sys.platform == "win32":
        raise UsageError(
            "DIFFC_GUARD=1 needs mprotect, which Windows does not have",
            hint="unset DIFFC_GUARD, or run on Linux or macOS",
        )
    return True


@functools.cache
def _libc() -> ctypes.CDLL:
    library = ctypes.CDLL(None, use_errno=True)
    library.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    library.mprotect.restype = ctypes.c_int
    return library


def _protect(address: int, size: int, protection: int) -> None:
    if _libc().mprotect(address, size, protection) != 0:
        error = ctypes.get_errno()
        raise InternalError(f"mprotect failed: {os.strerror(error)}")


def _round_up(size: int) -> int:
    return -(-size // PAGE) * PAGE


class _Mapping:
    """Pages of which some are made unreadable; made whole again before they are unmapped."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.map = mmap.mmap(-1, size)
        self.bytes: NDArray[np.uint8] = np.frombuffer(self.map, dtype=np.uint8)
        self.address = int(self.bytes.ctypes.data)

    def forbid(self, offset: int) -> None:
        """Makes one page unreadable."""
        _protect(self.address + offset, PAGE, PROT_NONE)


class GuardedValue:
    """One input or output of a run, flush with an unreadable page at its end.

    Args:
        name: What messages call it.
        size: Its bytes.

    Attributes:
        address: Where it lies; aligned as far as `size` is.
        bytes: Its content.
    """

    def __init__(self, name: str, size: int) -> None:
        self.name = name
        room = max(_round_up(size), PAGE)
        self._mapping = _Mapping(room + 2 * PAGE)
        end = PAGE + room
        self._slack = self._mapping.bytes[PAGE : end - size]
        self.bytes = self._mapping.bytes[end - size : end]
        self.address = self._mapping.address + end - size
        self._slack[:] = CANARY
        self.bytes[:] = CANARY
        self._mapping.forbid(0)
        self._mapping.forbid(end)

    def check(self) -> None:
        """Raises `InternalError` when the bytes before the value were written."""
        _check_canary(self._slack, self.name)


class GuardedArena:
    """An arena whose values end before unreadable pages.

    Args:
        size: Bytes of the arena.
        regions: `(offset, size)` of each value. Each ends at a page boundary, or before it by less
            than the alignment of values, and the page after it belongs to no value: that page
            becomes unreadable, as do the pages around the arena. Without regions, only the pages
            around it.

    Attributes:
        address: Where it begins, page-aligned.
    """

    def __init__(self, size: int, regions: Sequence[tuple[int, int]]) -> None:
        room = _round_up(size)
        self._mapping = _Mapping(room + 2 * PAGE)
        self.address = self._mapping.address + PAGE
        guards = self._guards(size, room, regions)
        inner = self._mapping.bytes[PAGE : PAGE + room]
        inner[:] = CANARY
        is_slack = np.ones(room, dtype=np.bool_)
        for offset, length in regions:
            is_slack[offset : offset + length] = False
        for guard in guards:
            is_slack[guard : guard + PAGE] = False
        if not regions:
            is_slack[:size] = False
        self._inner = inner
        self._slack = np.flatnonzero(is_slack)
        for guard in (-PAGE, *sorted(guards), room):
            self._mapping.forbid(PAGE + guard)

    @staticmethod
    def _guards(size: int, room: int, regions: Sequence[tuple[int, int]]) -> set[int]:
        """Offsets of the pages that become unreadable."""
        guards: set[int] = set()
        for offset, length in regions:
            end = offset + length
            if offset < 0 or length < 0 or end > size:
                raise InternalError(f"guard region ({offset}, {length}) leaves the arena of {size}")
            if not length:
                continue
            guard = _round_up(end)
            if guard - end >= ALIGNMENT:
                raise InternalError(
                    f"guard region ({offset}, {length}) ends {guard - end} bytes before a page"
                )
            if guard < room:
                guards.add(guard)
        for guard in guards:
            for offset, length in regions:
                if length and offset < guard + PAGE and guard < offset + length:
                    raise InternalError(
                        f"guard region ({offset}, {length}) lies on the guard page at {guard}"
                    )
        return guards

    def check(self) -> None:
        """Raises `InternalError` when bytes that belong to no value were written."""
        _check_canary(self._inner[self._slack], "the arena")


def _check_canary(slack: NDArray[np.uint8], name: str) -> None:
    strayed = np.count_nonzero(slack != CANARY)
    if strayed:
        raise InternalError(f"a kernel wrote {strayed} bytes outside {name}")
