"""bfloat16: rounding once from every dtype, its text, and life without ml_dtypes."""

from __future__ import annotations

import subprocess
import sys
from fractions import Fraction

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffc.codegen.emit.text import bfloat_bits
from diffc.ir import bfloat16
from diffc.ir.aval import aval, dtype_name, is_float, limits, wide

BF16 = np.dtype(ml_dtypes.bfloat16)
EVERY = np.arange(1 << 16, dtype=np.uint16).view(BF16)


def rounded(value: Fraction) -> float:
    """To nearest, halves to even, from the definition: 8 bits, exponents from -126 to 127."""
    size, exponent = abs(value), -126
    while size >= 2 ** Fraction(exponent + 1):
        exponent += 1
    unit = Fraction(2) ** (exponent - 7)
    found = round(size / unit) * unit  # Python rounds fractions to even
    return (np.inf if found >= 2**128 else float(found)) * (-1 if value < 0 else 1)


def test_every_value_is_what_it_was():
    for other in (EVERY.astype(np.float32), EVERY.astype(np.float64)):
        back = bfloat16.rounded(other)
        nan = np.isnan(other)
        assert (np.isnan(back) == nan).all()
        assert (back.view(np.uint16) == EVERY.view(np.uint16))[~nan].all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_between_every_two_values(dtype):
    """The middle goes to the even one, what is beside it to the nearer one."""
    low = EVERY[:0x7F80].astype(dtype)  # zero and the positive numbers
    half = np.append(low[1:] - low[:-1], low[-1] - low[-2]).astype(dtype) / 2
    high = np.append(low[1:], np.inf).astype(dtype)  # beyond the last there is infinity
    middle, even = low + half, np.where(np.arange(0x7F80) % 2 == 0, low, high)
    below, above = np.nextafter(middle, dtype(0)), np.nextafter(middle, dtype(np.inf))
    for sign in (dtype(1), dtype(-1)):
        for x, want in ((middle, even), (below, low), (above, high)):
            found = bfloat16.rounded(sign * x).astype(dtype)
            np.testing.assert_array_equal(found, sign * want)
            np.testing.assert_array_equal(np.signbit(found), sign < 0)


NEAR = st.builds(
    lambda top, shift, off: (top << shift) + off,
    st.integers(-511, 511),
    st.integers(0, 54),
    st.integers(-2, 2),
)


@given(st.one_of(NEAR, st.integers(-(2**63), 2**63 - 1)))
def test_integers_round_once(value):
    if -(2**63) <= value < 2**63:
        assert float(bfloat16.rounded(np.asarray(value, np.int64))) == rounded(Fraction(value))
    if 0 <= value < 2**64:
        assert float(bfloat16.rounded(np.asarray(value, np.uint64))) == rounded(Fraction(value))


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_floats_round_once(value):
    found = bfloat16.rounded(np.asarray(value))
    assert float(found) == rounded(Fraction(value))
    assert found.view(np.uint16) == bfloat_bits(value)


def test_rounding_twice_would_differ():
    """Just above a middle: f32 rounds it to the middle, which then goes to the even one."""
    value = 1 + 2.0**-8 + 2.0**-40
    assert float(np.asarray(value).astype(np.float32).astype(BF16)) == 1
    assert float(bfloat16.rounded(np.asarray(value))) == 1 + 2.0**-7


def test_literals():
    for value, bits in ((0.0, 0), (-0.0, 0x8000), (np.inf, 0x7F80), (-np.inf, 0xFF80)):
        assert bfloat_bits(value) == bits
    assert bfloat_bits(np.nan) == 0x7FC0
    assert bfloat_bits(1e300) == 0x7F80
    assert bfloat_bits(2.0**-150) == 0


def test_texts_are_short_and_parse_back():
    for bits in (0, 1, 0x7F, 0x80, 0x3DCD, 0x3F80, 0x42C8, 0x4780, 0x7F7F):
        value = float(EVERY[bits])
        assert float(bfloat16.rounded(np.asarray(float(bfloat16.text(value))))) == value
    assert bfloat16.text(float(EVERY[0x3DCD])) == "0.1"


def test_what_diffc_knows_of_it():
    assert dtype_name(ml_dtypes.bfloat16) == dtype_name("bfloat16") == "bf16"
    assert aval("bf16", (3,)).nbytes == 6
    assert is_float(BF16) and wide(BF16) == np.float32
    assert float(limits(BF16).eps) == 2.0**-7


WITHOUT = """
import sys
sys.modules["ml_dtypes"] = None
import numpy as np
import diffc
from diffc.errors import DtypeError
from diffc.ir.text import parse_aval

x = np.ones(3, np.float16)
assert diffc.jit(lambda x: x @ x)(x) == 3
for ask in (
    lambda: diffc.jit(lambda x: x.astype("bfloat16"))(x),
    lambda: diffc.jit(lambda x: np.zeros(3, "bfloat16") + x)(x),
    lambda: parse_aval("bf16[3]"),
):
    try:
        ask()
    except DtypeError as error:
        assert "pip install 'diffc[bf16]'" in str(error), error
    else:
        raise AssertionError("no error")
"""


def test_without_ml_dtypes():
    subprocess.run([sys.executable, "-c", WITHOUT], check=True, timeout=120)
