"""Arrays out of nothing: indices, constants, random bits.

Random bits are counter-based: a pure function of the key and the position, so they can be computed
again instead of kept.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from diffc.errors import ShapeError
from diffc.ir.aval import ANY, DTYPES, NUMBERS, Aval, aval
from diffc.ops.avals import need_dims, need_dtype, need_known_dtype, need_shape, product, text
from diffc.ops.batching import Batched, shifted
from diffc.ops.declare import Generate, Special, Waived, Zero, op
from diffc.ops.term import ArrayTerm, GraphTerm

if TYPE_CHECKING:
    from diffc.ir.index import Dim

Array = np.ndarray[Any, Any]


def _iota_aval(*, dtype: str, shape: tuple[Dim, ...], axis: int) -> Aval:
    need_known_dtype(dtype)
    need_dims(shape)
    result = aval(dtype, shape)
    need_dtype(0, result, NUMBERS)
    if not 0 <= axis < len(shape):
        raise ShapeError(f"axis {axis} is not an axis of shape {text(shape)}")
    return result


def _iota(*, dtype: str, shape: tuple[int, ...], axis: int) -> Array:
    length = [1] * len(shape)
    length[axis] = shape[axis]
    return np.broadcast_to(np.arange(shape[axis]).astype(DTYPES[dtype]).reshape(length), shape)


iota = op(
    "iota",
    doc="The index along `axis` of each element.",
    aval=_iota_aval,
    numpy=_iota,
    sympy=Waived("its numpy facet needs no symbols"),
    derivative=Zero("it has no operands"),
    body=Generate(
        lambda indices, operands, params, term_of_index: term_of_index(indices[params["axis"]])
    ),
    params=("dtype", "shape", "axis"),
    dtypes=NUMBERS,
)


def positions(near: GraphTerm, shape: tuple[Any, ...], axis: int) -> GraphTerm:
    """i64 indices along an axis, in the builder of another term."""
    (value,) = near.builder.emit(iota, (), {"dtype": "i64", "shape": shape, "axis": axis})
    return GraphTerm(near.builder, value)


def _constant_aval(*, dtype: str, shape: tuple[int, ...], data: bytes) -> Aval:
    need_known_dtype(dtype)
    need_dims(shape)
    result = aval(dtype, shape)
    if result.nbytes != len(data):
        raise ShapeError(f"data has {len(data)} bytes; {result} needs {result.nbytes}")
    return result


constant = op(
    "constant",
    doc="An array known at compile time, as its bytes in row-major order.",
    aval=_constant_aval,
    numpy=lambda *, dtype, shape, data: np.frombuffer(data, DTYPES[dtype]).reshape(shape),
    sympy=Waived("its numpy facet needs no symbols"),
    derivative=Zero("it has no operands"),
    body=Special("constant"),
    params=("dtype", "shape", "data"),
    dtypes=ANY,
)


_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
_PARITY = 0x1BD11BDA


def threefry(key0: Any, key1: Any, high: Any, low: Any) -> tuple[Any, Any]:
    """Threefry-2x32 with 20 rounds, on u32 terms (Salmon et al., "Parallel random numbers", 2011).

    Returns both words; ``high``, ``low`` are the words of the counter.
    """
    keys = (key0, key1, key0 ^ key1 ^ key0.lift(_PARITY))
    x0, x1 = high + keys[0], low + keys[1]
    for group in range(5):
        for rotation in _ROTATIONS[group % 2]:
            x0 = x0 + x1
            x1 = ((x1 << rotation) | (x1 >> (32 - rotation))) ^ x0
        x0 = x0 + keys[(group + 1) % 3]
        x1 = x1 + keys[(group + 2) % 3] + keys[0].lift(group + 1)
    return x0, x1


def _random_bits_aval(key: Aval, *, shape: tuple[Dim, ...]) -> Aval:
    need_dtype(0, key, frozenset({"u32"}))
    need_shape(0, key, (2,), "the two words of a key")
    need_dims(shape)
    return aval("u32", shape)


def _random_bits(key: Array, *, shape: tuple[int, ...]) -> Array:
    size = int(np.prod(shape, dtype=np.int64))
    counter = np.arange(size, dtype=np.uint64)
    words = (counter >> np.uint64(32), counter & np.uint64(0xFFFFFFFF))
    high, low = (ArrayTerm(word.astype(np.uint32)) for word in words)
    key0, key1 = ArrayTerm(key[:1]), ArrayTerm(key[1:])
    bits = threefry(key0, key1, high, low)[0].array
    return np.asarray(bits, np.uint32).reshape(shape)


def _batched_bits(eqn: Batched) -> GraphTerm:
    """The formula itself: each batch has its own key, the counters are the same."""
    (keys,), shape = eqn.operands, eqn.params["shape"]
    counters = positions(keys, (product(shape),), 0)
    words = [counters >> 32, counters & 0xFFFFFFFF]
    high, low = (
        word.call("convert", dtype="u32")
        .call("reshape", shape=shape)
        .call("broadcast", shape=(eqn.size, *shape), axes=shifted(range(len(shape))))
        for word in words
    )
    key0, key1 = (
        keys.call("slice", start=(0, k), stop=(eqn.size, k + 1), step=(1, 1))
        .call("reshape", shape=(eqn.size,))
        .call("broadcast", shape=(eqn.size, *shape), axes=(0,))
        for k in range(2)
    )
    bits: GraphTerm = threefry(key0, key1, high, low)[0]
    return bits


random_bits = op(
    "random_bits",
    doc="Random words: threefry-2x32 of the key and each element's row-major position, word 0.",
    aval=_random_bits_aval,
    numpy=_random_bits,
    sympy=Waived("it is about bits"),
    derivative=Zero("its results are integers"),
    body=Special("random_bits"),
    params=("shape",),
    dtypes=frozenset({"u32"}),
    batching=_batched_bits,
)
