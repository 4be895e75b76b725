"""Stores in emitted code: the state of a run, and the functions of the runtime that keep memory.

A run's state begins with its status and the threads it may use; three words more are the list of
the blocks of memory that stores have taken. Each block is freed when the routine ends that made it
and returns no stores, at the latest with the run: so also where the run fails. A run whose outputs
are stores hands the list to its caller.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from diffc.codegen.emit.text import FunctionText

__all__ = [
    "COUNT_AT",
    "LIST_AT",
    "ROOM_AT",
    "STATE_WORDS",
    "drop",
    "hand_over",
    "released",
    "start_list",
]

#: the status and the threads are the first two
STATE_WORDS = 5
LIST_AT, COUNT_AT, ROOM_AT = 16, 24, 32


def start_list(fn: FunctionText, state: str) -> None:
    """A list without blocks."""
    fn.store("ptr", "null", fn.gep(state, LIST_AT), 8)
    fn.store("i64", "0", fn.gep(state, COUNT_AT), 8)
    fn.store("i64", "0", fn.gep(state, ROOM_AT), 8)


@contextmanager
def released(fn: FunctionText, state: str) -> Iterator[None]:
    """Frees, at the end, the blocks that were taken inside."""
    at = fn.gep(state, COUNT_AT)
    before = fn.load("i64", at, 8)
    yield
    now = fn.load("i64", at, 8)
    with fn.when(fn.value(f"icmp ne i64 {now}, {before}")):
        fn.call("void", "diffc_store_release", ("ptr", state), ("i64", before))


def drop(fn: FunctionText, state: str) -> None:
    """Frees all blocks, and the list."""
    blocks = fn.load("ptr", fn.gep(state, LIST_AT), 8)
    with fn.when(fn.value(f"icmp ne ptr {blocks}, null")):
        count = fn.load("i64", fn.gep(state, COUNT_AT), 8)
        fn.call("void", "diffc_store_drop", ("ptr", blocks), ("i64", count))


def hand_over(fn: FunctionText, state: str, code: str, output: str) -> None:
    """Writes the list and its length to an output; a run that fails frees all instead."""
    with fn.when(fn.value(f"icmp ne i64 {code}, 0")):
        drop(fn, state)
        start_list(fn, state)
    fn.store("ptr", fn.load("ptr", fn.gep(state, LIST_AT), 8), output, 8)
    count = fn.load("i64", fn.gep(state, COUNT_AT), 8)
    fn.store("i64", count, fn.gep(output, 8), 8)
