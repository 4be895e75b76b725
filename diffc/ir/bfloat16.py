"""bfloat16, which NumPy knows through ml_dtypes: an optional extra of diffc.

Its functions compute in f32 and round once, to nearest even; so do ml_dtypes' ufuncs. Its casts
from wider numbers than f32 round twice, which is why there is ``rounded``. Sorting does not know
its NaNs, and its dtype is of NumPy's kind ``V``: sort it as f32, and ask ``aval.is_float``.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from diffc.errors import DtypeError

try:
    import ml_dtypes
except ImportError:  # the tests run without it in a process of their own
    ml_dtypes = None  # type: ignore[assignment]  # an optional extra

Array = np.ndarray[Any, Any]

#: NumPy's dtype; None without ml_dtypes.
DTYPE: Final[np.dtype[Any] | None] = None if ml_dtypes is None else np.dtype(ml_dtypes.bfloat16)
_STICKY = 11  # bits that an i64 has more than f64's fraction, less the sign
_LARGE = 2**53


def missing() -> DtypeError:
    """The error where bfloat16 is asked for and there is no ml_dtypes."""
    return DtypeError(
        "bfloat16 needs the package ml_dtypes, which is not installed",
        hint="pip install 'diffc[bf16]'",
    )


def limits() -> Any:
    """What ``np.finfo`` would say."""
    return ml_dtypes.finfo(DTYPE)  # type: ignore[no-untyped-call]  # of ml_dtypes


def text(value: float) -> str:
    """The fewest digits that round to a value of bfloat16."""
    tries = (repr(float(f"{value:.{digits}g}")) for digits in range(1, 5))
    return next(text for text in tries if float(rounded(np.asarray(float(text)))) == value)


def rounded(x: Array) -> Array:
    """Numbers as bfloat16, rounded once.

    What f32 does not hold is first rounded to odd there (Boldo and Melquiond, "Emulation of FMA
    and correctly rounded sums", 2008), which leaves the second rounding what it needs.
    """
    assert DTYPE is not None
    if x.dtype == DTYPE:
        return x
    with np.errstate(all="ignore"):
        if x.dtype.kind in "iu" and x.dtype.itemsize == 8:
            x = _exact(x)
        elif x.dtype.kind in "iuO" and x.dtype.itemsize >= 4:  # an object is a large Python integer
            x = x.astype(np.float64)
        if x.dtype == np.float64:
            x = _to_odd(x)
        return x.astype(DTYPE)


def _exact(x: Array) -> Array:
    """64-bit integers as f64; of large ones the last bits only say whether they were 0."""
    low = x & x.dtype.type(2**_STICKY - 1)
    marked = (x - low) | np.where(low != 0, x.dtype.type(2 ** (_STICKY - 1)), x.dtype.type(0))
    is_large = (x > _LARGE) | ((x < -_LARGE) if x.dtype.kind == "i" else False)
    return np.where(is_large, marked, x).astype(np.float64)


def _to_odd(x: Array) -> Array:
    """f64 as f32: what is inexact gets an odd last bit, and what is beyond f32 its greatest."""
    near = np.asarray(x.astype(np.float32))
    back = near.astype(np.float64)
    bits = near.view(np.uint32)
    towards = np.where(np.abs(back) > np.abs(x), bits - np.uint32(1), bits) | np.uint32(1)
    return np.where((back == x) | np.isnan(x), bits, towards).astype(np.uint32).view(np.float32)
