"""Scratch memory of executables: a pool of arenas, one to each concurrent call.

A pool is a plain list of NumPy arrays under the GIL: a call takes the last one, or makes another,
and appends it again when it is done. The native entry does the same from emitted code, which is why
the list holds arrays (their data pointer lies at a known offset) and nothing else. A pool never
holds more arenas than calls ran at once, and `resident` says exactly what it took.
"""

import contextlib
import mmap
import sys
import threading

import numpy as np
from numpy.typing import NDArray

from diffc.errors import ExecutionError, UsageError

__all__ = ["ALIGNMENT", "Arena", "ArenaPool", "aligned_block"]

ALIGNMENT = 64
# Blocks from here on are mapped on their own: page-aligned, and returned to the system when freed.
MAP_FROM_BYTES = 2**20

Arena = NDArray[np.uint8]


def aligned_block(size: int) -> Arena:
    """`size` bytes at a multiple of `ALIGNMENT`, with undefined content.

    Raises:
        MemoryError: The system has no such block.
    """
    if size >= MAP_FROM_BYTES:
        try:
            mapping = mmap.mmap(-1, size)
        except (OSError, ValueError, OverflowError) as error:
            raise MemoryError(f"cannot map {size} bytes: {error}") from error
        if sys.platform == "linux":
            with contextlib.suppress(OSError):  # a kernel without huge pages
                mapping.madvise(mmap.MADV_HUGEPAGE)
        return np.frombuffer(mapping, dtype=np.uint8)
    padded = np.empty(size + ALIGNMENT, dtype=np.uint8)
    start = -padded.ctypes.data % ALIGNMENT
    return padded[start : start + size]


class ArenaPool:
    """Arenas of one size.

    Args:
        size: Bytes of each arena; with 0 there is no arena and `take` gives None.

    Attributes:
        free: The arenas that no call uses; shared with the native entry, which pops and appends.
    """

    def __init__(self, size: int) -> None:
        if size < 0:
            raise UsageError(f"an arena cannot have {size} bytes")
        self.size = size
        self.free: list[Arena] = []
        self._made = 0
        self._lock = threading.Lock()

    @property
    def resident(self) -> int:
        """Bytes that the pool has taken from the system, arenas in use included."""
        return self._made * self.size

    def take(self) -> Arena | None:
        """An arena for one call.

        Raises:
            ExecutionError: The system has no memory for another arena.
        """
        if not self.size:
            return None
        try:
            return self.free.pop()
        except IndexError:
            pass  # all are in use, or this is the first call
        try:
            arena = aligned_block(self.size)
        except MemoryError as error:
            raise ExecutionError(
                f"no memory for an arena of {self.size:,} bytes",
                hint="give `jit` a memory limit, or call it from fewer threads at once",
            ) from error
        with self._lock:
            self._made += 1
        return arena

    def give(self, arena: Arena | None) -> None:
        """Returns what `take` gave."""
        if arena is not None:
            self.free.append(arena)

    def trim(self) -> int:
        """Frees the arenas that no call uses, and says how many bytes that gave."""
        count = 0
        while self.free:
            self.free.pop()
            count += 1
        with self._lock:
            self._made -= count
        return count * self.size
