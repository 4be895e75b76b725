"""NumPy's promotion rules, asked of NumPy itself: a ufunc knows which loop its operands take.

Operands are described by keys: the short name of a dtype, or Python's ``bool``, ``int`` or
``float`` for a weak scalar (NEP 50). Answers are remembered.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from diffc.errors import DtypeError
from diffc.ir.aval import DTYPES, dtype_name
from diffc.trace.location import line

Key = str | type[Any]
Loop = tuple[tuple[str, ...], tuple[str, ...]]

_LOOPS: dict[tuple[Any, ...], Loop] = {}
_COMMON: dict[tuple[Key, ...], str] = {}
WEAK: dict[type[Any], str] = {bool: "bool", int: "i64", float: "f64"}


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
    asked = tuple(
        DTYPES[key] if isinstance(key, str) else np.dtype(bool) if key is bool else key
        for key in keys
    )
    try:
        found = ufunc.resolve_dtypes(asked + (None,) * ufunc.nout)
        if any(dtype.hasobject for dtype in found):  # comparisons of two Python numbers
            asked = tuple(np.dtype(key) if isinstance(key, type) else key for key in asked)
            found = ufunc.resolve_dtypes(asked + (None,) * ufunc.nout)
        names = tuple(dtype_name(dtype) for dtype in found)
    except (TypeError, ValueError) as error:
        listed = ", ".join(key if isinstance(key, str) else key.__name__ for key in keys)
        raise DtypeError(f"np.{ufunc.__name__}({listed}): {error}", location=line()) from None
    return names[: ufunc.nin], names[ufunc.nin :]


def common(keys: tuple[Key, ...]) -> str:
    """The dtype of ``np.result_type``, for functions that are no ufuncs."""
    known = _COMMON.get(keys)
    if known is None:
        asked: list[Any] = [DTYPES[key] if isinstance(key, str) else key(0) for key in keys]
        try:
            known = dtype_name(np.result_type(*asked))
        except (TypeError, ValueError) as error:
            raise DtypeError(str(error), location=line()) from None
        _COMMON[keys] = known
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
    if source != target and not np.can_cast(DTYPES[source], DTYPES[target], "same_kind"):
        raise DtypeError(
            f"{what}: a result of dtype {DTYPES[source]} can't be written into an array of dtype "
            f"{DTYPES[target]}",
            location=line(),
            hint=f"make the array {DTYPES[source]}, or convert the result with "
            f".astype(np.{DTYPES[target]})",
        )
