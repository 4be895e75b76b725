"""Abstract values: what is known of an array without its data, dtype and shape.

Avals are interned: equal avals are one object, so they compare by identity. A dimension is an
``int`` or a symbolic expression of :mod:`diffc.ir.index` (``f32[n,64]``). Python's weak scalars are
no business of avals: weakness lives in the tracer, which inserts ``convert``.

A *store* holds what the trips of a loop leave, one row for each, where nobody knows before the run
how many there are: ``f64[*,3]``. Loops make stores and run over them (``scan``, ``while``), regions
pass them on; no other op reads one. Stores are values as all others are, never changed once made.
A literal store is zero in all rows, however many are asked for. ``i64[10,*]`` is ten stores, each
with its own number of rows, and ``f64[*,*]`` a store whose rows are stores.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from diffc.ir import bfloat16
from diffc.ir.index import Dim, Symbol

#: short name -> NumPy dtype; the text form of every dtype that diffc knows. Without ml_dtypes
#: there is no ``bf16``.
DTYPES: Final[dict[str, np.dtype[Any]]] = {
    "bool": np.dtype(np.bool_),
    "i8": np.dtype(np.int8),
    "i16": np.dtype(np.int16),
    "i32": np.dtype(np.int32),
    "i64": np.dtype(np.int64),
    "u8": np.dtype(np.uint8),
    "u16": np.dtype(np.uint16),
    "u32": np.dtype(np.uint32),
    "u64": np.dtype(np.uint64),
    **({} if bfloat16.DTYPE is None else {"bf16": bfloat16.DTYPE}),
    "f16": np.dtype(np.float16),
    "f32": np.dtype(np.float32),
    "f64": np.dtype(np.float64),
}
NAMES: Final[dict[np.dtype[Any], str]] = {dtype: name for name, dtype in DTYPES.items()}

BOOLS: Final = frozenset({"bool"})
SIGNED: Final = frozenset({"i8", "i16", "i32", "i64"})
UNSIGNED: Final = frozenset({"u8", "u16", "u32", "u64"})
INTEGERS: Final = SIGNED | UNSIGNED
#: floats of 16 bits: each op computes in f32 and rounds once, sums are kept in f32
HALVES: Final = frozenset({"bf16", "f16"})
FLOATS: Final = HALVES | {"f32", "f64"}
NUMBERS: Final = INTEGERS | FLOATS
ANY: Final = NUMBERS | BOOLS

#: the dimension of a store that grows with the trips of a loop
GROWING: Final = Symbol("*")
#: what stands for a store in memory: the address of its rows, and how many there are
STORE_BYTES: Final = 16

_INTERNED: dict[tuple[str, tuple[Dim, ...]], Aval] = {}


class Aval:
    """Dtype and shape of an array value. Build it with :func:`aval`, which interns.

    Attributes:
        dtype: short name of the dtype, a key of ``DTYPES``.
        shape: tuple of dimensions, each an ``int`` or a symbolic ``index.Expr``.
        is_store: whether it is a store, or an array of stores.
    """

    __slots__ = ("_text", "dtype", "is_store", "shape")

    dtype: str
    shape: tuple[Dim, ...]
    is_store: bool

    def __init__(self, dtype: str, shape: tuple[Dim, ...]) -> None:
        self.dtype = dtype
        self.shape = shape
        self.is_store = any(dim is GROWING for dim in shape)
        self._text = f"{dtype}[{','.join(map(str, shape))}]"

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def numpy(self) -> np.dtype[Any]:
        """The NumPy dtype."""
        return DTYPES[self.dtype]

    @property
    def size(self) -> Dim:
        """Number of elements, symbolic where a dimension is."""
        size: Dim = 1
        for dim in self.shape:
            size = size * dim
        return size

    @property
    def nbytes(self) -> Dim:
        """Bytes of the array when stored densely; of a store, of what stands for it."""
        if self.is_store:
            count: Dim = STORE_BYTES
            for dim in self.shape[: self.shape.index(GROWING)]:
                count = count * dim
            return count
        return self.size * self.numpy.itemsize

    @property
    def is_float(self) -> bool:
        """Whether values of this aval are differentiable."""
        return self.dtype in FLOATS

    def with_shape(self, shape: tuple[Dim, ...]) -> Aval:
        """The same dtype with another shape."""
        return aval(self.dtype, shape)

    def with_dtype(self, dtype: str) -> Aval:
        """The same shape with another dtype."""
        return aval(dtype, self.shape)

    def __str__(self) -> str:
        return self._text

    def __repr__(self) -> str:
        return self._text

    def __reduce__(self) -> tuple[Any, ...]:
        return aval, (self.dtype, self.shape)


def aval(dtype: str | np.dtype[Any] | type[Any], shape: tuple[Dim, ...] = ()) -> Aval:
    """The interned aval of a dtype (short name or NumPy dtype) and a shape.

    Raises:
        ValueError: a dtype that diffc does not know, or a negative dimension.
    """
    if not isinstance(dtype, str) or dtype not in DTYPES:
        dtype = dtype_name(dtype)
    key = (dtype, shape)
    found = _INTERNED.get(key)
    if found is None:
        if any(isinstance(dim, int) and dim < 0 for dim in shape):
            raise ValueError(f"negative dimension in shape {shape}")
        shape = tuple(int(dim) if isinstance(dim, (int, np.integer)) else dim for dim in shape)
        found = _INTERNED[key] = Aval(dtype, shape)
    return found


def dtype_name(dtype: Any) -> str:
    """Short name of a NumPy dtype (or anything ``np.dtype`` accepts).

    Raises:
        ValueError: the dtype has no short name (complex, strings, objects, ...).
        DtypeError: ``"bfloat16"`` without ml_dtypes.
    """
    if bfloat16.DTYPE is None and isinstance(dtype, str) and dtype == "bfloat16":
        raise bfloat16.missing()
    name = NAMES.get(np.dtype(dtype).newbyteorder("="))
    if name is None:
        known = ", ".join(DTYPES)
        raise ValueError(f"dtype {np.dtype(dtype)} is not supported; diffc knows {known}")
    return name


def is_float(dtype: np.dtype[Any]) -> bool:
    """Whether a NumPy dtype is one of diffc's floats; NumPy itself does not know it of bfloat16."""
    return NAMES.get(dtype) in FLOATS


def wide(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """The dtype in which numbers of ``dtype`` are computed and added up: f32 for 16 bits."""
    return np.dtype(np.float32) if NAMES.get(dtype) in HALVES else dtype


def limits(dtype: np.dtype[Any]) -> Any:
    """``np.finfo`` of any of diffc's floats."""
    return bfloat16.limits() if dtype == bfloat16.DTYPE else np.finfo(dtype)


def as_dtype(x: Any, dtype: str) -> np.ndarray[Any, Any]:
    """Numbers as an array of a dtype; floats are rounded once.

    Raises:
        OverflowError: a Python integer that the dtype can't hold.
    """
    if dtype == "bf16":
        return bfloat16.rounded(np.asarray(x))
    return np.asarray(x, DTYPES[dtype])


def aval_of(array: np.ndarray[Any, Any]) -> Aval:
    """The aval of a NumPy array."""
    return aval(dtype_name(array.dtype), array.shape)
