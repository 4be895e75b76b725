"""Inputs drawn for checks: arrays for a pytree of abstract leaves."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from diffc import tree
from diffc.ir.aval import FLOATS
from diffc.trace import Abstract

Rng = np.random.Generator


def _normal(rng: Rng, shape: Any) -> Any:
    return rng.normal(size=shape)


def _positive(rng: Rng, shape: Any) -> Any:
    return 0.1 + np.abs(rng.normal(size=shape))


def _unit(rng: Rng, shape: Any) -> Any:
    return rng.uniform(0.05, 0.95, size=shape)


#: how floats are drawn, in the order in which it is tried, and how integers are bounded
DRAWS = (
    ("normal", _normal, 5),
    ("normal", _normal, 2),
    ("positive", _positive, 5),
    ("in (0, 1)", _unit, 5),
    ("in (0, 1)", _unit, 1),
)


def draws(args: Sequence[Any], seed: int) -> Iterator[tuple[str, tuple[Any, ...]]]:
    """Arguments of the structure of ``args``, drawn in several ways, each with its name."""
    leaves, structure = tree.flatten(tuple(args))
    for attempt, (name, floats, bound) in enumerate(DRAWS):
        rng = np.random.default_rng((seed, attempt))
        drawn = [_leaf(rng, leaf, floats, bound) for leaf in leaves]
        yield name, structure.build(drawn)


def _leaf(rng: Rng, leaf: Any, floats: Any, bound: int) -> Any:
    if not isinstance(leaf, Abstract):
        return leaf
    aval = leaf.aval
    shape: Any = aval.shape
    if aval.dtype in FLOATS:
        array = np.asarray(floats(rng, shape)).astype(aval.numpy)
    elif aval.dtype == "bool":
        array = np.asarray(rng.integers(0, 2, shape)).astype(np.bool_)
    else:
        array = np.asarray(rng.integers(0, bound, shape)).astype(aval.numpy)
    return array.item() if leaf.scalar else array


def copied(args: Sequence[Any]) -> tuple[Any, ...]:
    """The arguments with arrays of their own, as functions may write to them."""
    found: tuple[Any, ...] = tree.map(
        lambda leaf: leaf.copy() if isinstance(leaf, np.ndarray) else leaf, tuple(args)
    )
    return found
