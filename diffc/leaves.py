"""Leaves of arguments: arrays and numbers, what is taken for them, and how traces see them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from diffc.errors import DtypeError, UsageError
from diffc.ir.aval import aval, dtype_name
from diffc.trace import ORDINARY, Abstract, Tracer, is_ordinary, line

#: what a Python scalar is at run time
SCALARS: dict[type, str] = {float: "f64", int: "i64", bool: "bool"}

Leaf = Any


def as_leaf(leaf: Leaf, name: str = "an argument") -> Leaf:
    """An argument's leaf as an array or Python scalar; ``name`` is what an error calls it.

    Raises:
        UsageError, DtypeError: it is no array and no number; says what to do.
    """
    kind = type(leaf)
    if kind is np.ndarray or kind in SCALARS or kind is Tracer:
        return leaf
    if isinstance(leaf, np.ndarray) and not is_ordinary(leaf):
        raise UsageError(
            f"{name} is a {kind.__name__}, which does not compute as arrays do",
            location=line(),
            hint=ORDINARY,
        )
    if isinstance(leaf, np.ndarray | np.generic):
        return np.asarray(leaf)
    if isinstance(leaf, (bool, int, float)):
        return next(cast(leaf) for cast in (bool, int, float) if isinstance(leaf, cast))
    if hasattr(leaf, "__array__") or hasattr(leaf, "__array_interface__"):
        return np.asarray(leaf)
    raise UsageError(
        f"{name} is a {kind.__name__}, neither an array nor a number: {leaf!r:.80}",
        location=line(),
        hint="pass an array, or make it static: jit(f, static_argnums=...)",
    )


def as_leaves(leaves: Sequence[Leaf], paths: Callable[[], list[str]]) -> list[Leaf]:
    """As :func:`as_leaf` for each, but abstract ones stay; errors name the leaf's path."""
    found: list[Leaf] = []
    for leaf in leaves:
        try:
            found.append(leaf if isinstance(leaf, Abstract) else as_leaf(leaf))
        except UsageError:
            as_leaf(leaf, paths()[len(found)])
            raise
    return found


def signature_of(leaf: Leaf) -> Any:
    """What a compiled function depends on of a leaf."""
    kind = type(leaf)
    return (leaf.dtype, leaf.shape) if kind is np.ndarray else kind


def abstract_leaf(leaf: Leaf, name: str = "an argument") -> Abstract:
    """What the trace sees of a leaf; ``name`` is what an error calls it.

    Raises:
        DtypeError: its dtype is not one of diffc's.
    """
    kind = type(leaf)
    if kind is Tracer:
        return Abstract(leaf.aval, leaf.weak, leaf.scalar)
    if kind in SCALARS:
        return Abstract(aval(SCALARS[kind]), True, True)
    try:
        return Abstract(aval(dtype_name(leaf.dtype), leaf.shape))
    except ValueError as error:
        raise DtypeError(f"{name}: {error}", location=line()) from None


def valued_leaf(leaf: Leaf) -> Abstract:
    """As :func:`abstract_leaf`, with the leaf's value for a concrete trace (if this is one)."""
    found = abstract_leaf(leaf)
    return Abstract(found.aval, found.weak, found.scalar, leaf)


def identifier(path: str) -> str:
    """``params['w'][0]`` as an identifier: ``params_w_0``."""
    text = "".join(c if c.isalnum() or c == "_" else " " for c in path)
    return "_".join(text.split())
