"""Batches and splits of arrays that lie in memory; every draw comes from a given generator."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from diffc import tree
from diffc.errors import ShapeError, UsageError

Array = np.ndarray[Any, Any]


def minibatches(
    data: Any, size: int, rng: np.random.Generator | None = None, *, keep_rest: bool = False
) -> Iterator[Any]:
    """One pass over ``data`` in batches of ``size`` rows, in a random order.

    Args:
        data: a pytree of arrays with one common first dimension; a batch has the same structure.
        size: rows in a batch.
        rng: draws the order; None keeps the order of the rows.
        keep_rest: whether the last, smaller batch is given too. It is left out by default, since
            another shape is another compilation.

    Raises:
        ShapeError: the arrays differ in their first dimension.
        UsageError: ``size`` is not positive, or no batch fits.

    Example:
        >>> [batch.tolist() for batch in minibatches(np.arange(5), 2)]
        [[0, 1], [2, 3]]
    """
    if size < 1:
        raise UsageError(f"size is {size}; a batch has at least one row")
    count = _rows(data)
    if count < size and not keep_rest:
        raise UsageError(
            f"no batch of {size} rows fits into {count}", hint="lower size, or pass keep_rest=True"
        )
    return _batches(data, count, size, rng, keep_rest)


def _batches(
    data: Any, count: int, size: int, rng: np.random.Generator | None, keep_rest: bool
) -> Iterator[Any]:
    order = np.arange(count) if rng is None else rng.permutation(count)
    end = count if keep_rest else count - count % size
    for start in range(0, end, size):
        rows = order[start : start + size]
        yield tree.map(lambda array: array[rows], data)  # noqa: B023  # used at once


def _rows(data: Any) -> int:
    counts = {path: len(leaf) for path, leaf in tree.flatten_with_paths(data, "data")[0]}
    if len(set(counts.values())) != 1:
        found = ", ".join(f"{path} has {count}" for path, count in counts.items()) or "no arrays"
        raise ShapeError(f"a batch takes the same rows of all arrays; found: {found}")
    return next(iter(counts.values()))


def stratified_split(
    labels: Array, held_out: float, rng: np.random.Generator
) -> tuple[Array, Array]:
    """Random row numbers to train on and to hold out, with the same share of every label.

    Args:
        labels: one label per row.
        held_out: the share held out; of each label the nearest whole number of rows.
        rng: draws the rows.

    Returns:
        Two sorted arrays of row numbers, disjoint, together all rows.

    Raises:
        UsageError: ``held_out`` is no share.
    """
    if not 0.0 <= held_out <= 1.0:
        raise UsageError(f"held_out is {held_out}; a share lies between 0 and 1")
    mask = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        rows = rng.permutation(np.flatnonzero(labels == label))
        mask[rows[: round(held_out * len(rows))]] = True
    return np.flatnonzero(~mask), np.flatnonzero(mask)
