"""Stores as NumPy arrays: how the reference interpreter holds what the trips of a loop leave.

A store ``f64[*,3]`` is an array of shape (rows, 3). Where stores lie in an array or in a store
(``i64[10,*]``, ``f64[*,*]``), that is an array of objects, each of them a store.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from diffc.ir.aval import GROWING, Aval

Array = np.ndarray[Any, Any]
_OBJECTS: np.dtype[Any] = np.dtype(object)


def row_of(store: Aval) -> Aval:
    """The aval of a row of a store, or of an array along its first axis."""
    return store.with_shape(store.shape[1:])


def _outer(aval: Aval) -> tuple[Any, ...]:
    """The dimensions in front of the first that grows; all of them where none does."""
    return aval.shape[: aval.shape.index(GROWING)] if aval.is_store else aval.shape


def zeros(aval: Aval) -> Array:
    """What a literal zero stands for: a store without rows, or as many of them as there are."""
    outer = _outer(aval)
    if not aval.is_store:
        return np.zeros(outer, aval.numpy)
    if not outer:
        return stacked([], row_of(aval))
    found = np.empty(outer, _OBJECTS)
    inner = aval.with_shape(aval.shape[len(outer) :])
    for place in np.ndindex(found.shape):
        found[place] = zeros(inner)
    return found


def stacked(rows: Sequence[Array], row: Aval, *, of_symbols: bool = False) -> Array:
    """Rows of an aval along a new first axis; ``of_symbols``: they are arrays of objects."""
    dtype = _OBJECTS if of_symbols or row.is_store else row.numpy
    found = np.empty((len(rows), *_outer(row)), dtype)
    for k, each in enumerate(rows):
        found[k] = each
    return found


def row_at(store: Array, place: int, row: Aval) -> Array:
    """A row of a store or array; zeros where a store has no such row."""
    return np.asarray(store[place]) if place < len(store) else zeros(row)


def fits(aval: Aval, array: Array) -> bool:
    """Whether an array is of the aval; arrays of SymPy's symbols are of any dtype."""
    if not aval.is_store:
        return array.shape == aval.shape and array.dtype in (aval.numpy, _OBJECTS)
    outer = _outer(aval)
    if outer:
        return array.shape == outer and array.dtype is _OBJECTS
    return array.shape[1:] == _outer(row_of(aval)) and array.ndim > 0
