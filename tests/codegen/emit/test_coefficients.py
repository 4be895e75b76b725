"""The data of the elementary functions against mpmath."""

from fractions import Fraction

import mpmath as mp
import numpy as np
import pytest

from diffc.codegen.emit.math import coefficients, constants
from diffc.codegen.emit.math.constants import split

# Name, the function that the polynomial stands for, its interval, and the bits it must have.
POLYNOMIALS = [
    ("EXP", mp.exp, -0.3466, 0.3466, 27, 57),
    ("EXP2", lambda x: mp.mpf(2) ** x, -0.5, 0.5, 27, 57),
    ("EXPM1", lambda x: (mp.expm1(x) - x) / x**2, -0.3466, 0.3466, 27, 55),
    ("SIN", lambda z: (mp.sin(mp.sqrt(z)) / mp.sqrt(z) - 1) / z, 1e-6, 0.616, 28, 58),
    ("ATAN", lambda z: (mp.atan(mp.sqrt(z)) / mp.sqrt(z) - 1) / z, 1e-6, 0.171, 26, 56),
    ("ASIN", lambda z: (mp.asin(mp.sqrt(z)) / mp.sqrt(z) - 1) / z, 1e-6, 0.25, 26, 54),
    ("ERF", lambda z: mp.erf(mp.sqrt(z)) / mp.sqrt(z) - 1, 1e-6, 1.0, 24, 52),
]


def test_two_over_pi_is_exact() -> None:
    words = coefficients.TWO_OVER_PI
    value = sum(Fraction(word, 2 ** (64 * i)) for i, word in enumerate(words))
    bits = 64 * (len(words) - 1)
    with mp.workprec(bits + 80):
        assert int(value * 2**bits) == int(mp.floor(2 / mp.pi * mp.mpf(2) ** bits))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PI", lambda: mp.pi),
        ("LN2", lambda: mp.log(2)),
        ("LOG2_E", lambda: 1 / mp.log(2)),
        ("LOG10_E", lambda: 1 / mp.log(10)),
        ("LOG10_2", lambda: mp.log(2) / mp.log(10)),
    ],
)
def test_constants_have_sixty_digits(name: str, value: object) -> None:
    held = getattr(constants, name)
    with mp.workdps(90):
        assert abs(mp.mpf(held.numerator) / held.denominator - value()) < mp.mpf(10) ** -60


@pytest.mark.parametrize(("scalar", "digits"), [("float", 24), ("double", 53)])
def test_split_parts_are_short_and_sum_up(scalar: str, digits: int) -> None:
    parts = split(constants.PI / 2, scalar, 15, 11)
    for part, bits in zip(parts, (15, 11, digits), strict=True):
        numerator = Fraction(part).numerator
        assert (numerator // (numerator & -numerator)).bit_length() <= bits
    error = abs(sum(map(Fraction, parts)) - constants.PI / 2)
    assert error <= Fraction(parts[-1]) / 2**digits


@pytest.mark.parametrize("bits", [32, 64])
@pytest.mark.parametrize("case", POLYNOMIALS, ids=lambda case: case[0])
def test_polynomials_are_near_their_functions(case: tuple, bits: int) -> None:
    name, function, low, high, single, double = case
    held = getattr(coefficients, f"{name}_F{bits}")
    with mp.workprec(120):
        for x in np.linspace(low, high, 101):
            x = mp.mpf(float(x)) or mp.mpf(1e-7)
            error = mp.polyval(list(reversed(held)), x) - function(x)
            if name not in ("EXP", "EXP2", "ERF"):
                error *= x  # P counts with z (or r) before it, relative to the function
            assert abs(error) < mp.mpf(2) ** -(single if bits == 32 else double)


def test_single_coefficients_are_single() -> None:
    names = [name for name in dir(coefficients) if name.endswith("_F32")]
    assert len(names) > 10
    for name in names:
        held = getattr(coefficients, name)
        assert np.array_equal(np.array(held, np.float32).astype(float), held), name
