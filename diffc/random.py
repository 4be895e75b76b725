"""Random numbers from keys: the same key gives the same numbers, in a trace and outside.

Counter-based (Threefry-2x32, 20 rounds; Salmon et al., "Parallel random numbers: as easy as 1, 2,
3", 2011), so numbers can be computed again instead of being stored. A key is ``u32[2]``; never use
one key twice: :func:`split` it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from diffc.errors import DtypeError, ShapeError
from diffc.ops.registry import find
from diffc.trace import active, emit, line

Shape = int | Sequence[int]


def key(seed: int) -> np.ndarray[Any, Any]:
    """The key of a seed (64 bits count)."""
    return np.array([(seed >> 32) & 0xFFFFFFFF, seed & 0xFFFFFFFF], np.uint32)


def bits(key: Any, shape: Shape = ()) -> Any:
    """Uniform 32-bit words: ``u32[shape]``."""
    if np.shape(key) != (2,):
        raise ShapeError(f"a key is u32[2], found shape {np.shape(key)}", location=line())
    dims = (shape,) if isinstance(shape, int) else tuple(shape)
    if active():
        return emit("random_bits", key, shape=dims)[0]
    numpy = find("random_bits").numpy
    assert callable(numpy)
    return numpy(np.asarray(key, np.uint32), shape=dims)


def split(key: Any, count: int = 2) -> Any:
    """``count`` new keys: ``u32[count, 2]``."""
    return bits(key, (count, 2))


def uniform(
    key: Any, shape: Shape = (), dtype: Any = np.float64, low: float = 0.0, high: float = 1.0
) -> Any:
    """Uniform in ``[low, high)``, with all the bits that the dtype's fraction holds."""
    unit = _unit(key, shape, np.dtype(dtype))
    return unit * (high - low) + low if (low, high) != (0.0, 1.0) else unit


def _unit(key: Any, shape: Shape, dtype: np.dtype[Any]) -> Any:
    dims = (shape,) if isinstance(shape, int) else tuple(shape)
    if dtype == np.float32:
        return (bits(key, dims) >> np.uint32(8)).astype(np.float32) * np.float32(2.0**-24)
    if dtype == np.float64:
        words = bits(key, (2, *dims))
        high = (words[0] >> np.uint32(5)).astype(np.float64)
        low = (words[1] >> np.uint32(6)).astype(np.float64)
        return (high * 67108864.0 + low) * (1.0 / 9007199254740992.0)
    raise DtypeError(f"uniform gives float32 or float64, not {dtype}", location=line())


def normal(key: Any, shape: Shape = (), dtype: Any = np.float64) -> Any:
    """Standard normal, by Box and Muller (1958)."""
    dims = (shape,) if isinstance(shape, int) else tuple(shape)
    pair = _unit(key, (2, *dims), np.dtype(dtype))
    radius = np.sqrt(np.log1p(-pair[0]) * -2.0)
    return radius * np.cos(pair[1] * (2.0 * math.pi))


def bernoulli(key: Any, p: float = 0.5, shape: Shape = ()) -> Any:
    """True with probability ``p``."""
    return _unit(key, shape, np.dtype(np.float32)) < p
