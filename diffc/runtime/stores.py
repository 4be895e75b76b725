"""Memory of stores: what loops of unknown length keep of each of their trips.

Emitted programs call the functions of `stores.ll`. These get memory from Python's raw allocator,
which needs no GIL; in guard mode from pages that end flush with an unreadable one. A run frees what
it takes, also where it fails; large blocks are kept for the next one, whose pages are there then
(the system clears each page that it hands out, which can take longer than the loop). Only a program
whose outputs are stores hands its blocks over: they are freed when the last array that shows one of
them goes.
"""

import ctypes
import functools
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diffc.codegen.emit.stores import COUNT_AT, LIST_AT, ROOM_AT
from diffc.codegen.loops.module import ROWS_AT
from diffc.errors import InternalError
from diffc.runtime import guard
from diffc.runtime.build import Library, build
from diffc.runtime.target import host

__all__ = ["Blocks", "check", "imports", "trim"]

FUNCTIONS = ("grow", "make", "keep", "release", "drop", "trim")
HEADER = 16
#: smaller blocks give back what they don't need, and are not kept when they are freed.
LARGE = 64 * 1024
#: at most so many bytes of freed blocks are kept, in at most so many blocks.
LIMIT = 128 * 1024 * 1024
SLOTS = 64

_REALLOC = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64)
_FREE = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
_DROP = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64)


def imports(is_guarded: bool) -> dict[str, int]:
    """The address of each function that emitted code calls, by its symbol."""
    library = _library(is_guarded)
    names = [f"diffc_store_{name}" for name in FUNCTIONS]
    return {name: library.address(name) for name in names}


@functools.cache
def _library(is_guarded: bool) -> Library:
    """The code; it gets a reference that nobody gives back, as blocks may outlive all else."""
    text = Path(__file__).with_name("stores.ll").read_text("utf-8")
    words = {"LIST": LIST_AT, "COUNT": COUNT_AT, "ROOM": ROOM_AT, "ROWS": ROWS_AT}
    words |= {"HEADER": HEADER, "LIMIT": LIMIT, "SLOTS": SLOTS}
    words["LARGE"] = LIMIT + 1 if is_guarded else LARGE  # each block is a new one
    for name, value in words.items():
        text = text.replace(f"{{{name}}}", str(value))
    symbols = tuple(f"diffc_store_{name}" for name in FUNCTIONS)
    library = build(text, symbols, host(), _guarded() if is_guarded else _plain())
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(library))
    return library


def _plain() -> dict[str, int]:
    return {
        "diffc_realloc": _address(ctypes.pythonapi.PyMem_RawRealloc),
        "diffc_free": _address(ctypes.pythonapi.PyMem_RawFree),
    }


def _address(function: Any) -> int:
    found = ctypes.cast(function, ctypes.c_void_p).value
    assert found is not None
    return found


class Blocks:
    """The memory of stores that a program returned; freed with the object.

    Args:
        listed: The words that the program wrote: the address of a list of blocks, their number.
        is_guarded: Whether the program is made for guard mode.
    """

    def __init__(self, listed: NDArray[np.int64], is_guarded: bool) -> None:
        self._list, self._count = int(listed[0]), int(listed[1])
        self._drop = _DROP(_library(is_guarded).address("diffc_store_drop"))

    def __del__(self) -> None:
        if self._list:
            self._drop(self._list, self._count)


def trim() -> int:
    """Gives memory that no run uses back to the system; says how many bytes."""
    function = ctypes.CFUNCTYPE(ctypes.c_int64)
    return int(function(_library(is_guarded=False).address("diffc_store_trim"))())


# --- guard mode -------------------------------------------------------------------------------


class _Guarded:
    """Blocks between unreadable pages. Errors wait for `check`: native code can't raise them."""

    def __init__(self) -> None:
        self.values: dict[int, guard.GuardedValue] = {}
        self.errors: list[InternalError] = []

    def realloc(self, old: int | None, size: int) -> int | None:
        """As C's; null where there is no memory."""
        try:
            value = guard.GuardedValue("a store", size)
        except (OSError, ValueError, OverflowError, MemoryError):
            return None
        if old is not None:
            known = self.values[old].bytes
            count = min(len(known), size)
            value.bytes[:count] = known[:count]
            self.free(old)
        self.values[value.address] = value
        return value.address

    def free(self, old: int | None) -> None:
        """As C's."""
        if old is None:
            return
        try:
            self.values.pop(old).check()
        except InternalError as error:
            self.errors.append(error)


_GUARDED = _Guarded()


@functools.cache
def _guarded() -> dict[str, int]:
    functions = _REALLOC(_GUARDED.realloc), _FREE(_GUARDED.free)
    for function in functions:
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(function))
    return {
        "diffc_realloc": _address(functions[0]),
        "diffc_free": _address(functions[1]),
    }


def check() -> None:
    """Raises what guard mode found wrong with a store since the last check.

    Raises:
        InternalError: a kernel wrote in front of a store.
    """
    if _GUARDED.errors:
        raise _GUARDED.errors.pop()
