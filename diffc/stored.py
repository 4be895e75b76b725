"""Stores between programs: their words in native code, and the arrays that Python sees.

A store is two words, the address of its rows and their number. As an array it is what
``ops.stores`` says; the rows stay where they are.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from diffc.ir.aval import GROWING, Aval
from diffc.ops import stores
from diffc.ops.stores import row_of

Array = np.ndarray[Any, Any]

_WORDS = 2


def words(aval: Aval) -> tuple[int, ...]:
    """The shape of the words that stand for a store, or for an array of stores."""
    outer = aval.shape[: aval.shape.index(GROWING)]
    return (*(int(dim) for dim in outer), _WORDS)  # type: ignore[arg-type]  # ints before the run


def packed(aval: Aval, store: Array) -> tuple[Array, list[Array]]:
    """The words of a store, and the arrays that must live as long as they are used."""
    shape = words(aval)
    found = np.zeros(shape, np.int64)
    alive: list[Array] = []
    if len(shape) > 1:
        inner = aval.with_shape(aval.shape[len(shape) - 1 :])
        for place in np.ndindex(*shape[:-1]):
            found[place], held = packed(inner, store[place])
            alive += held
        return found, alive
    row = row_of(aval)
    if not row.is_store:
        rows = np.ascontiguousarray(store, row.numpy)
    else:
        rows = np.zeros((len(store), *words(row)), np.int64)
        for k in range(len(store)):
            rows[k], held = packed(row, store[k])
            alive += held
    alive.append(rows)
    if len(rows):
        found[:] = rows.ctypes.data, len(rows)
    return found, alive


def unpacked(aval: Aval, found: Array, owner: object) -> Array:
    """The store that words stand for; it keeps ``owner`` alive, and so the memory of its rows."""
    shape = words(aval)
    if len(shape) > 1:
        inner = aval.with_shape(aval.shape[len(shape) - 1 :])
        result = np.empty(shape[:-1], np.dtype(object))
        for place in np.ndindex(*shape[:-1]):
            result[place] = unpacked(inner, found[place], owner)
        return result
    row, (address, count) = row_of(aval), map(int, found)
    if not address:
        return stores.stacked([], row)
    if not row.is_store:
        dims: Any = row.shape
        return np.asarray(_Rows(address, (count, *dims), row.numpy, owner)).view(row.numpy)
    inside = np.asarray(_Rows(address, (count, *words(row)), np.dtype(np.int64), owner))
    return stores.stacked([unpacked(row, each, owner) for each in inside], row)


class _Rows:
    """Memory as NumPy takes it, with its owner."""

    def __init__(
        self, address: int, shape: tuple[int, ...], dtype: np.dtype[Any], owner: object
    ) -> None:
        self.owner = owner
        self.__array_interface__ = {
            "data": (address, False),
            "shape": shape,
            "typestr": dtype.str,
            "version": 3,
        }
