"""Memory of large outputs: blocks that arrays give back are used again.

The system clears each page that it hands out, at the first touch: filling a fresh array of a few
megabytes takes several times as long as filling one whose pages are there. So outputs from
`POOLED_FROM` bytes on get their memory from a NumPy data allocator (NEP 49) of our own, which keeps
up to `LIMIT` bytes of freed blocks. The arrays own their data as any others do; only how these are
freed differs. The code stands in `blocks.ll`; it runs under the GIL and is never unloaded, as
arrays may outlive everything else. Data lie at multiples of 64 bytes.
"""

import contextlib
import ctypes
import functools
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from diffc.runtime import abi
from diffc.runtime.build import Library, build
from diffc.runtime.target import host

__all__ = ["LIMIT", "POOLED_FROM", "allocator", "held", "pooled", "trim"]

MIB = 1024 * 1024
#: outputs from this size on are pooled.
POOLED_FROM = 64 * 1024


def _limit() -> int:
    """A sixteenth of the machine's memory, between 128 MiB and 1 GiB."""
    try:
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):  # not every system knows these names
        memory = 0
    return min(max(memory // 16 // MIB, 128), 1024) * MIB


#: at most so many bytes of freed blocks are kept.
LIMIT = _limit()
HEADER = 64
SLOTS = 1024
MADV_HUGEPAGE = 14
# Huge pages are asked for from here on; only Linux knows the advice.
HUGE_FROM = 1 << 21 if sys.platform == "linux" else 1 << 62

FUNCTIONS = ("malloc", "calloc", "realloc", "free", "trim", "held")
SYSTEM = ("posix_memalign", "free", "madvise")


class _Handler(ctypes.Structure):
    """`PyDataMem_Handler` of NumPy's `ndarraytypes.h`."""

    _fields_ = (
        ("name", ctypes.c_char * 127),
        ("version", ctypes.c_uint8),
        ("context", ctypes.c_void_p),
        ("malloc", ctypes.c_void_p),
        ("calloc", ctypes.c_void_p),
        ("realloc", ctypes.c_void_p),
        ("free", ctypes.c_void_p),
    )


@functools.cache
def _library() -> Library:
    """The allocator's code; it gets a reference that nobody gives back."""
    text = Path(__file__).with_name("blocks.ll").read_text("utf-8")
    names = {"LIMIT": LIMIT, "POOLED_FROM": POOLED_FROM, "HEADER": HEADER, "SLOTS": SLOTS}
    for name, value in {**names, "HUGE_FROM": HUGE_FROM, "HUGE_ADVICE": MADV_HUGEPAGE}.items():
        text = text.replace(f"{{{name}}}", str(value))
    library = build(text, tuple(f"diffc_blocks_{name}" for name in FUNCTIONS), host())
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(library))
    return library


@functools.cache
def allocator() -> Any:
    """The capsule that NumPy knows the allocator by; None where the system lacks its functions."""
    process = ctypes.CDLL(None) if sys.platform != "win32" else None
    if not all(hasattr(process, name) for name in SYSTEM):
        return None
    library = _library()
    parts = [library.address(f"diffc_blocks_{name}") for name in FUNCTIONS[:4]]
    handler = _Handler(b"diffc_blocks", 1, None, *parts)
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(handler))
    new = ctypes.pythonapi.PyCapsule_New
    new.restype = ctypes.py_object
    new.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]
    capsule = new(ctypes.addressof(handler), b"mem_handler", None)
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(capsule))
    return capsule


@contextlib.contextmanager
def pooled(size: int) -> Iterator[None]:
    """Arrays that are made inside, by this thread, get their memory from the pool.

    Args:
        size: Bytes of the largest; where it is small, nothing changes.
    """
    capsule = allocator() if size >= POOLED_FROM else None
    if capsule is None:
        yield
        return
    set_handler = _set_handler()
    before = set_handler(capsule)
    try:
        yield
    finally:
        set_handler(before)


@functools.cache
def _set_handler() -> Any:
    address = abi.function_addresses()[abi.SET_HANDLER]
    return ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.py_object)(address)


def held() -> int:
    """Bytes of freed blocks that are kept at present."""
    if allocator() is None:
        return 0
    return int(ctypes.PYFUNCTYPE(ctypes.c_int64)(_library().address("diffc_blocks_held"))())


def trim(goal: int = 0) -> int:
    """Gives kept blocks back to the system until at most `goal` bytes are held; says how many."""
    if allocator() is None:
        return 0
    function = ctypes.PYFUNCTYPE(ctypes.c_int64, ctypes.c_int64)
    return int(function(_library().address("diffc_blocks_trim"))(goal))
