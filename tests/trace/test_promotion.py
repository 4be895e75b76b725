"""NEP 50 against NumPy itself: dtypes of operators on arrays, NumPy scalars and Python scalars."""

from __future__ import annotations

import operator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

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
