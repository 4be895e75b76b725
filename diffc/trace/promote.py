"""NumPy's promotion rules, asked of NumPy itself: a ufunc knows which loop its operands take.

Operands are described by keys: the short name of a dtype, or Python's ``bool``, ``int`` or
``float`` for a weak scalar (NEP 50). Answers are remembered.

Of bfloat16 NumPy knows too little (Python's floats are not weak with it, and most integers have no
common dtype). It promotes as float16 does; both together are float32.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from diffc.errors import DtypeError
from diffc.ir.aval import DTYPES, HALVES, dtype_name
from diffc.trace.location import line

Key = str | type[Any]
Loop = tuple[tuple[str, ...], tuple[str, ...]]

_LOOPS: dict[tuple[Any, ...], Loop] = {}
_COMMON: dict[tuple[Key, ...], str] = {}
WEAK: dict[type[Any], str] = {bool: "bool", int: "i64", float: "f64"}


def _asked(keys: tuple[Key, ...]) -> tuple[tuple[Key, ...], str]:
    """Keys that NumPy knows all about, and what a f16 among the answers stands for."""
    if "bf16" not in keys:
        return keys, "f16"
    if "f16" in keys:
        return tuple("f32" if key in HALVES else key for key in keys), "f16"
    return tuple("f16" if key == "bf16" else key for key in keys), "bf16"


def loop(ufunc: np.ufunc, keys: tuple[Key, ...]) -> Loop:
    """Dtypes to which the operands are converted, and those of the results.

    Raises:
        DtypeError: the ufunc has no loop for these dtypes, or none that diffc knows.
    """
    known = _LOOPS.get((ufunc, keys))
    if known is None:
        known = _LOOPS[ufunc, keys] = _loop(ufunc, keys)
    return known


def _loop(ufunc: np.ufunc, keys: tuple[Key, ...]) -> Loop:
    known, half = _asked(keys)
    asked = tuple(
        DTYPES[key] if isinstance(key, str) else np.dtype(bool) if key is bool else key
        for key in known
    )
    try:
        found = ufunc.resolve_dtypes(asked + (None,) * ufunc.nout)
        if any(dtype.hasobject for dtype in found):  # comparisons of two Python numbers
            asked = tuple(np.dtype(key) if isinstance(key, type) else key for key in asked)
            found = ufunc.resolve_dtypes(asked + (None,) * ufunc.nout)
        names = tuple(half if dtype == np.float16 else dtype_name(dtype) for dtype in found)
    except (TypeError, ValueError) as error:
        listed = ", ".join(key if isinstance(key, str) else key.__name__ for key in keys)
        raise DtypeError(f"np.{ufunc.__name__}({listed}): {error}", location=line()) from None
    return names[: ufunc.nin], names[ufunc.nin :]


def common(keys: tuple[Key, ...]) -> str:
    """The dtype of ``np.result_type``, for functions that are no ufuncs."""
    known = _COMMON.get(keys)
    if known is None:
        shown, half = _asked(keys)
        asked: list[Any] = [DTYPES[key] if isinstance(key, str) else key(0) for key in shown]
        try:
            known = dtype_name(np.result_type(*asked))
        except (TypeError, ValueError) as error:
            raise DtypeError(str(error), location=line()) from None
        known = _COMMON[keys] = half if known == "f16" else known
    return known


def dtype_arg(dtype: Any) -> str:
    """Short name of a ``dtype=`` argument.

    Raises:
        DtypeError: not a dtype that diffc knows.
    """
    try:
        return dtype_name(dtype)
    except (ValueError, TypeError) as error:
        raise DtypeError(str(error), location=line()) from None


def check_same_kind(source: str, target: str, what: str) -> None:
    """Raises as NumPy does when an in-place result can't be cast back.

    Raises:
        DtypeError: e.g. float into int.
    """
    (one, other), _ = _asked((source, target))
    if source != target and not np.can_cast(DTYPES[one], DTYPES[other], "same_kind"):  # type: ignore[index]  # no weak ones
        raise DtypeError(
            f"{what}: a result of dtype {DTYPES[source]} can't be written into an array of dtype "
            f"{DTYPES[target]}",
            location=line(),
            hint=f"make the array {DTYPES[source]}, or convert the result with "
            f".astype(np.{DTYPES[target]})",
        )
