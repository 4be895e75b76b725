"""NEP 50 against NumPy itself: dtypes of operators on arrays, NumPy scalars and Python scalars."""

from __future__ import annotations

import operator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import diffc
from diffc.errors import DtypeError

DTYPES = ["?", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8"]
OPERATORS = [
    operator.add, operator.sub, operator.mul, operator.truediv, operator.floordiv, operator.mod,
    operator.and_, operator.or_, operator.xor, operator.lt, operator.ge, operator.eq, operator.ne,
    operator.matmul,
]  # fmt: skip


def array(dtype):
    return np.array([1, 3, 2, 1]).astype(dtype)


def compare(check, function, *args):
    """The same dtype and value, or an error from both."""
    try:
        with np.errstate(all="ignore"):
            if isinstance(function(*args), int) and abs(function(*args)) >= 2**63:
                return  # Python's unbounded integers
    except ZeroDivisionError:  # Python's numbers, where NumPy's give inf
        return
    except (TypeError, OverflowError) as error:
        with pytest.raises((type(error), TypeError)):
            check(function, *args)
    else:
        check(function, *args, rtol=1e-2)


@pytest.mark.parametrize("op", OPERATORS, ids=lambda op: op.__name__)
@pytest.mark.parametrize("left", DTYPES)
def test_two_arrays(op, left, check):
    for right in DTYPES:
        compare(check, op, array(left), array(right))


operands = st.one_of(
    st.sampled_from(DTYPES).map(array),
    st.sampled_from(DTYPES).map(lambda d: array(d)[1]),
    st.sampled_from([True, False, 1, 2, 7, -1, 300, 2**40, 0.5, 2.0, -1.5, float("inf")]),
)


@given(st.sampled_from(OPERATORS[:-1]), operands, operands)
def test_scalars_and_arrays(check, op, left, right):
    compare(check, op, left, right)


@given(st.sampled_from(OPERATORS[:-1]), operands, operands)
def test_captured_scalars_and_literals(check, op, left, right):
    compare(check, lambda x: op(x, right), left)
    compare(check, lambda y: op(left, y), right)


@given(st.sampled_from(DTYPES), st.sampled_from([2, 3, 0, 1, -1, 0.5, 2.0, 1.5, -2]))
def test_powers(check, dtype, exponent):
    x = array(dtype)
    try:
        x**exponent
    except (ValueError, OverflowError):
        with pytest.raises(TypeError, match="negative power"):
            check(lambda x: x**exponent, x)
        return
    if dtype == "?":
        return
    check(lambda x: x**exponent, x, rtol=1e-2)


@pytest.mark.parametrize("dtype", DTYPES)
def test_reductions_and_functions(dtype, check):
    def f(x):
        return (
            x.sum(), x.prod(), x.mean(), x.max(), x.min(), x.std(), np.cumsum(x), x.argmax(),
            np.where(x > 1, x, 2), np.concatenate([x, array("i2")]), np.clip(x, 0, 2),
            np.stack([x, x]), np.array([x[0], 2]), abs(x), np.sign(x) if dtype != "?" else x,
            np.median(x), np.round(x), np.dot(x, x), np.linspace(x[0], x[1], 3), np.full(2, x[0]),
        )  # fmt: skip

    check(f, array(dtype), rtol=1e-2)


@given(st.sampled_from(DTYPES), st.sampled_from(DTYPES), st.sampled_from(OPERATORS[:6]))
def test_in_place(check, left, right, op):
    name = f"__i{op.__name__}__"

    def f(x, y):
        getattr(x, name)(y)
        return x

    compare(check, f, array(left), array(right))


BF16 = "bfloat16"
WITH_BF16 = {
    **dict.fromkeys(("?", "i1", "u1", BF16, True, 2, 0.5), BF16),
    **dict.fromkeys(("i2", "u2", "f2", "f4"), "float32"),
    **dict.fromkeys(("i4", "u4", "i8", "u8", "f8"), "float64"),
}


@pytest.mark.parametrize("other", WITH_BF16, ids=str)
def test_bfloat16_promotes_as_float16(other):
    """But for Python's floats, which are weak, it is what NumPy's ufuncs do with ml_dtypes."""
    x = array(BF16)
    y = array(other) if isinstance(other, str) else other
    found = diffc.jit(lambda x, y: (x * y, y + x, np.where(x > 1, x, y)))
    if not isinstance(other, str):
        found = diffc.jit(lambda x, y=y: (x * y, y + x, np.where(x > 1, x, y)))
    results = found(x, y) if isinstance(other, str) else found(x)
    assert [result.dtype.name for result in results] == [WITH_BF16[other]] * 3
    if type(other) is not float:
        assert (x * y).dtype == results[0].dtype
    if other not in (BF16, "f2"):
        like = array("f2") * y
        assert like.dtype.name.replace("float16", BF16) == WITH_BF16[other]


def test_bfloat16_scalars_are_not_weak():
    one = np.asarray(1.5).astype(BF16)[()]
    for dtype, want in (("f4", "float32"), (BF16, BF16), ("f2", "float32"), ("i1", BF16)):
        found = diffc.jit(lambda x: (one * x, x * one))(array(dtype))
        assert [np.asarray(x).dtype.name for x in found] == [want] * 2


def test_bfloat16_in_place():
    def f(x, y):
        x = x.copy()
        x += y
        return x

    assert diffc.jit(f)(array(BF16), array("f8")).dtype.name == BF16
    with pytest.raises(DtypeError, match="can't be written"):
        diffc.jit(f)(array("i4"), array(BF16))


def test_reductions_of_bfloat16_keep_it():
    x = array(BF16)
    found = diffc.jit(lambda x: (x.sum(), x.mean(), x.var(), x.prod(), x @ x, np.median(x)))(x)
    assert {np.asarray(y).dtype.name for y in found} == {BF16}
    assert diffc.jit(lambda x: np.sum(x, dtype=np.float32))(x).dtype == np.float32
