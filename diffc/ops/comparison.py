"""Comparisons, predicates, bits, ``select`` and ``convert``: all elementwise.

Shifts by a count outside ``0 .. bits-1`` give what shifting bit by bit would: 0, or the sign. A
float that no integer of the wanted dtype equals, once truncated, is undefined in NumPy; here it
becomes the least i64 (for u32 and 64 bits) or the least i32, cut to the width, on every CPU.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from diffc.ir.aval import ANY, BOOLS, DTYPES, FLOATS, INTEGERS, Aval, as_dtype, is_float
from diffc.ops.avals import (
    elementwise,
    need_dtype,
    need_known_dtype,
    need_same_dtype,
    need_shape,
)
from diffc.ops.declare import Linear, Map, Routes, Waived, Zero, op

Array = np.ndarray[Any, Any]

_STEP = Zero("its results are not floats")


def _compare(name: str, doc: str, numpy: Any, sympy: str, domain: str) -> None:
    op(
        name,
        doc=doc,
        aval=elementwise(ANY, 2, result="bool"),
        numpy=numpy,
        sympy=sympy,
        domain=domain,
        derivative=_STEP,
        body=Map(lambda x, y: x.call(name, y)),
    )


_compare("eq", "Whether elements are equal.", np.equal, "Eq(x, y)", "Ne(x, y)")
_compare("ne", "Whether elements differ.", np.not_equal, "Ne(x, y)", "Ne(x, y)")
_compare("lt", "Whether x < y.", np.less, "x < y", "Ne(x, y)")
_compare("le", "Whether x <= y.", np.less_equal, "x <= y", "Ne(x, y)")
_compare("gt", "Whether x > y.", np.greater, "x > y", "Ne(x, y)")
_compare("ge", "Whether x >= y.", np.greater_equal, "x >= y", "Ne(x, y)")


def _predicate(name: str, doc: str, numpy: Any, body: Any) -> None:
    op(
        name,
        doc=doc,
        aval=elementwise(FLOATS, result="bool"),
        numpy=numpy,
        sympy=Waived("real numbers are finite"),
        derivative=_STEP,
        body=Map(body),
    )


_predicate("is_nan", "Whether each element is nan.", np.isnan, lambda x: x.ne(x))
_predicate("is_inf", "Whether each element is inf or -inf.", np.isinf, lambda x: x.call("is_inf"))
_predicate(
    "is_finite",
    "Whether each element is neither nan nor infinite.",
    np.isfinite,
    lambda x: x.call("is_finite"),
)


def _bits(name: str, doc: str, numpy: Any, sympy: str) -> None:
    op(
        name,
        doc=doc,
        aval=elementwise(INTEGERS | BOOLS, 2),
        numpy=numpy,
        sympy=sympy,
        derivative=_STEP,
        body=Map(lambda x, y: x.call(name, y)),
    )


_bits("bitwise_and", "Bits that both have; `and` of booleans.", np.bitwise_and, "And(x, y)")
_bits("bitwise_or", "Bits that either has; `or` of booleans.", np.bitwise_or, "Or(x, y)")
_bits("bitwise_xor", "Bits that one has; `ne` of booleans.", np.bitwise_xor, "Xor(x, y)")

bitwise_not = op(
    "bitwise_not",
    doc="All bits inverted; `not` of booleans.",
    aval=elementwise(INTEGERS | BOOLS),
    numpy=np.invert,
    sympy="Not(x)",
    derivative=_STEP,
    body=Map(lambda x: x.call("bitwise_not")),
)


def _shift(name: str, doc: str, numpy: Any) -> None:
    op(
        name,
        doc=doc,
        aval=elementwise(INTEGERS, 2),
        numpy=numpy,
        sympy=Waived("it is about bits"),
        derivative=_STEP,
        body=Map(lambda x, y: x.call(name, y)),
    )


_shift("shift_left", "Bits of x moved up by y places.", np.left_shift)
_shift("shift_right", "Bits of x moved down by y places, keeping the sign.", np.right_shift)


def _select_aval(condition: Aval, x: Aval, y: Aval) -> Aval:
    need_dtype(0, condition, BOOLS)
    need_shape(1, x, condition.shape, "as operand 0")
    need_same_dtype(2, y, x, 1)
    need_shape(2, y, condition.shape, "as operand 0")
    return x


select = op(
    "select",
    doc="Elements of the second operand where the first is true, else of the third.",
    aval=_select_aval,
    numpy=np.where,
    sympy="Piecewise((y, x), (z, True))",
    derivative=Routes(lambda x, y, z, out: (None, ((x, 1),), ((~x, 1),))),
    body=Map(lambda x, y, z: x.call("select", y, z)),
    dtypes=ANY,
)


def _convert_aval(x: Aval, *, dtype: str) -> Aval:
    need_known_dtype(dtype)
    return x.with_dtype(dtype)


def _convert(x: Array, *, dtype: str) -> Array:
    like = DTYPES[dtype]
    if x.dtype == object:
        return x
    if not is_float(x.dtype) or like.kind not in "iu":
        return as_dtype(x, dtype)
    number = np.trunc(x.astype(np.float64))
    if dtype == "u64":
        is_high = number >= 2.0**63
        low = _signed(np.where(is_high, number - 2.0**63, number), "i64").astype(like)
        return np.asarray(np.where(is_high, low ^ like.type(1 << 63), low))
    through = "i64" if dtype in ("i64", "u32") else "i32"
    return np.asarray(_signed(number, through).astype(like))


def _signed(number: Array, dtype: str) -> Array:
    """Whole floats as signed integers; the least one where they don't fit."""
    info = np.iinfo(DTYPES[dtype])
    fits = (number >= float(info.min)) & (number < -float(info.min))
    return np.where(fits, np.where(fits, number, 0).astype(DTYPES[dtype]), info.min)


convert = op(
    "convert",
    doc="The same values in another dtype; to bool: not 0; float to integer truncates.",
    aval=_convert_aval,
    numpy=_convert,
    sympy=Waived("the identity between floats, else it depends on the dtypes"),
    derivative=Linear(
        lambda ct, operands, avals, params, index: ct.call("convert", dtype=avals[0].dtype)
    ),
    body=Map(lambda x, dtype: x.call("convert", dtype=dtype)),
    params=("dtype",),
    dtypes=ANY,
)
