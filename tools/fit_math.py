"""Fit the polynomials of the emitted elementary functions and print them as a Python module.

Each polynomial minimises the largest weighted error on an interval (Remez exchange, in mpmath);
its coefficients are rounded to the type one after another, lowest first, with the rest fitted
again after each rounding. The weight turns the error of the polynomial into the relative error
of the function. Run: python tools/fit_math.py [NAME ...] > coefficients.py
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import mpmath as mp
import numpy as np

mp.mp.prec = 170
Real = Callable[[mp.mpf], mp.mpf]
GRID_PER_TERM = 40
EXCHANGES = 20
TWO_OVER_PI_BITS = 1280
HEADER = '''"""Coefficients of the elementary functions, lowest power first.

Written by tools/fit_math.py; the formula that each belongs to stands with its use.
"""
'''
TINY = mp.mpf(10) ** -10


def rounded(value: mp.mpf, dtype: str) -> mp.mpf:
    """`value` as the nearest float of `dtype`."""
    return mp.mpf(float(np.float32(float(value)))) if dtype == "f32" else mp.mpf(float(value))


def chebyshev(low: mp.mpf, high: mp.mpf, count: int) -> list[mp.mpf]:
    """Points that crowd at the ends of an interval."""
    steps = [mp.cos(mp.pi * (mp.mpf(i) + 0.5) / count) for i in range(count)]
    return [low + (high - low) * (1 - step) / 2 for step in steps]


def alternating(errors: Sequence[float], wanted: int) -> list[int]:
    """Indices of extrema with alternating signs, at most `wanted`."""
    runs: list[int] = []
    positive: bool | None = None
    for i, error in enumerate(errors):
        if positive is None or (error >= 0) != positive:
            runs.append(i)
            positive = error >= 0
        elif abs(error) > abs(errors[runs[-1]]):
            runs[-1] = i
    while len(runs) > wanted:
        if len(runs) == wanted + 1:
            runs.pop(0 if abs(errors[runs[0]]) < abs(errors[runs[-1]]) else -1)
        else:
            pairs = range(len(runs) - 1)
            j = min(pairs, key=lambda k: max(abs(errors[runs[k]]), abs(errors[runs[k + 1]])))
            del runs[j : j + 2]
    return runs


def remez(
    grid: list[mp.mpf], values: list[mp.mpf], weights: list[mp.mpf], powers: Sequence[int]
) -> tuple[list[mp.mpf], float]:
    """Weighted minimax coefficients of the given powers, and the error in bits (log2)."""
    terms = len(powers)
    basis = [[w * x**p for p in powers] for x, w in zip(grid, weights, strict=True)]
    scaled = [v * w for v, w in zip(values, weights, strict=True)]
    indices = [int((i + 0.5) * len(grid) / (terms + 1)) for i in range(terms + 1)]
    best: tuple[list[mp.mpf], mp.mpf] | None = None
    for _ in range(EXCHANGES):
        system = mp.matrix(terms + 1, terms + 1)
        right = mp.matrix(terms + 1, 1)
        for row, i in enumerate(indices):
            for column in range(terms):
                system[row, column] = basis[i][column]
            system[row, terms] = (-1) ** row
            right[row] = scaled[i]
        solved = mp.lu_solve(system, right)
        found = [solved[i] for i in range(terms)]
        errors = [
            s - sum(c * b for c, b in zip(found, bs, strict=True))
            for s, bs in zip(scaled, basis, strict=True)
        ]
        largest = max(abs(error) for error in errors)
        if best is None or largest < best[1]:
            best = found, largest
        runs = alternating([float(error * mp.mpf(2) ** 60) for error in errors], terms + 1)
        if len(runs) < terms + 1 or runs == indices:
            break
        indices = runs
    assert best is not None
    return best[0], float(mp.log(best[1], 2))


@dataclass(frozen=True)
class Fit:
    """One polynomial: sum of coefficients times powers 0, 1, ..., terms - 1."""

    function: Real
    weight: Real
    low: mp.mpf
    high: mp.mpf
    terms: int
    dtype: str
    fixed: tuple[float, ...] = ()
    sequential: int = 4
    first_again: bool = False

    def run(self) -> tuple[list[float], float]:
        """Coefficients, lowest power first, and the log2 of the largest weighted error."""
        grid = chebyshev(mp.mpf(self.low), mp.mpf(self.high), GRID_PER_TERM * self.terms)
        exact = [self.function(x) for x in grid]
        weights = [self.weight(x) for x in grid]
        known = [mp.mpf(c) for c in self.fixed]
        while len(known) < self.terms:
            start = len(known)
            rest = [
                v - sum(c * x**p for p, c in enumerate(known))
                for v, x in zip(exact, grid, strict=True)
            ]
            found, _ = remez(grid, rest, weights, range(start, self.terms))
            many = start >= len(self.fixed) + self.sequential
            known += [rounded(c, self.dtype) for c in (found if many else found[:1])]
        if self.first_again:
            # Much smaller than the others, so rounded more finely: it makes up for them.
            rest = [
                v - sum(c * x**p for p, c in enumerate(known) if p)
                for v, x in zip(exact, grid, strict=True)
            ]
            known[0] = rounded(remez(grid, rest, weights, [0])[0][0], self.dtype)
        worst = max(
            abs(w * (v - sum(c * x**p for p, c in enumerate(known))))
            for v, x, w in zip(exact, grid, weights, strict=True)
        )
        return [float(c) for c in known], float(mp.log(worst, 2))


def root(function: Real) -> Real:
    """z -> function(sqrt z)."""
    return lambda z: function(mp.sqrt(z))


def odd_tail(function: Real) -> tuple[Real, Real]:
    """For f(x) = x + x z P(z) with z = x*x: P, and the weight that makes errors relative."""
    value = root(lambda x: (function(x) / x - 1) / (x * x))
    return value, root(lambda x: x * x * x / function(x))


LN2 = mp.log(2)
HALF_LN2 = LN2 / 2 * mp.mpf("1.001")
QUARTER_PI = (mp.pi / 4 * mp.mpf("1.001")) ** 2
TAN_EIGHTH = mp.tan(mp.pi / 8 * mp.mpf("1.001")) ** 2
ATANH_RANGE = (mp.mpf("0.2001")) ** 2


def both(name: str, function: Real, weight: Real, low: mp.mpf, high: mp.mpf, *sizes: int,
         fixed: tuple[float, ...] = ()) -> dict[str, Fit]:  # fmt: skip
    """The same fit for f32 and f64, with their numbers of terms."""
    return {
        f"{name}_F{bits}": Fit(function, weight, low, high, terms, f"f{bits}", fixed)
        for bits, terms in zip((32, 64), sizes, strict=True)
    }


def expm1_tail(x: mp.mpf) -> mp.mpf:
    """P of expm1(x) = x + x*x*P(x)."""
    return (mp.expm1(x) - x) / (x * x) if x else mp.mpf("0.5")


def log1p_tail(x: mp.mpf) -> mp.mpf:
    """P of log1p(x) = x + x*x*P(x)."""
    return (mp.log1p(x) - x) / (x * x) if x else mp.mpf("-0.5")


def log_slope(base: int, x: mp.mpf) -> mp.mpf:
    """P of log(1 + x) = x P(x), to the given base."""
    return (mp.log1p(x) / x if x else mp.mpf(1)) / mp.log(base)


def log_slope_rest(base: int, x: mp.mpf) -> mp.mpf:
    """The same less the first 24 bits of 1 / log(base)."""
    scale = mp.mpf(2) ** (23 if base == 2 else 25)
    return log_slope(base, x) - mp.floor(scale / mp.log(base)) / scale


def atanh_tail(z: mp.mpf) -> mp.mpf:
    """P of atanh(s) = s (1 + z/3 + z*z*P(z)), z = s*s."""
    s = mp.sqrt(z)
    return (mp.atanh(s) / s - 1 - z / 3) / (z * z)


def fits() -> dict[str, Fit]:
    """Every polynomial by name."""
    made: dict[str, Fit] = {}
    made |= both("EXP", mp.exp, lambda x: mp.exp(-x), -HALF_LN2, HALF_LN2, 7, 12, fixed=(1.0, 1.0))
    made |= both("EXP2", lambda x: mp.mpf(2) ** x, lambda x: mp.mpf(2) ** -x,
                 mp.mpf("-0.5005"), mp.mpf("0.5005"), 7, 13, fixed=(1.0,))  # fmt: skip
    made |= both("EXPM1", expm1_tail, lambda x: x * x / mp.expm1(x), -HALF_LN2, HALF_LN2, 6, 11,
                 fixed=(0.5,))  # fmt: skip
    made["LOG1P_F32"] = Fit(log1p_tail, lambda x: x * x / mp.log1p(x), mp.mpf("-0.2501"),
                            mp.mpf("0.5001"), 9, "f32", (-0.5,))  # fmt: skip
    for base in (2, 10):
        made[f"LOG{base}_F32"] = Fit(partial(log_slope_rest, base), lambda x: x / mp.log1p(x),
                                     mp.mpf("-0.2501"), mp.mpf("0.5001"), 10, "f32",
                                     first_again=True)  # fmt: skip
    made["LOG2_WIDE"] = Fit(partial(log_slope, 2), lambda x: x / mp.log1p(x), mp.mpf("-0.2501"),
                            mp.mpf("0.5001"), 13, "f64")  # fmt: skip
    made["EXP2_WIDE"] = Fit(lambda x: mp.mpf(2) ** x, lambda x: mp.mpf(2) ** -x, mp.mpf("-0.5"),
                            mp.mpf("0.5"), 7, "f64")  # fmt: skip
    made["LOG_F64"] = Fit(root(lambda s: (mp.atanh(s) / s - 1) * 2 / (s * s)),
                          root(lambda s: s * s * s / (2 * mp.atanh(s))), TINY, ATANH_RANGE, 8,
                          "f64")  # fmt: skip
    made["ATANH_F64"] = Fit(atanh_tail, root(lambda s: s**5 / mp.atanh(s)), TINY, ATANH_RANGE, 9,
                            "f64")  # fmt: skip
    made |= both("SIN", *odd_tail(mp.sin), TINY, QUARTER_PI, 4, 7)
    made |= both("COS", root(lambda x: (mp.cos(x) - 1 + x * x / 2) / x**4),
                 root(lambda x: x**4 / mp.cos(x)), TINY, QUARTER_PI, 3, 6)  # fmt: skip
    made |= both("SINH", *odd_tail(mp.sinh), TINY, mp.mpf(1), 4, 8)
    made |= both("ATAN", *odd_tail(mp.atan), TINY, TAN_EIGHTH, 5, 11)
    made |= both("ASIN", *odd_tail(mp.asin), TINY, mp.mpf("0.2501"), 5, 12)
    value, weight = odd_tail(mp.tanh)
    made["TANH_F32"] = Fit(value, weight, TINY, mp.mpf("0.625") ** 2, 5, "f32")
    made |= both("ERF", root(lambda x: mp.erf(x) / x - 1), root(lambda x: x / mp.erf(x)), TINY,
                 mp.mpf(1), 7, 13)  # fmt: skip
    for bits, end, terms in ((32, "4.0", 7), (64, "6.0", 20)):
        made[f"ERFC_F{bits}"] = Fit(
            lambda x: -mp.log(mp.erfc(x)), lambda x: mp.erfc(x) / mp.erf(x), mp.mpf(1),
            mp.mpf(end), terms, f"f{bits}", sequential=8 if bits == 32 else 2)  # fmt: skip
    return made


def main(names: Sequence[str]) -> None:
    """Print the module; the error of each fit goes to stderr."""
    print(HEADER)
    for name, fit in fits().items():
        if names and name not in names:
            continue
        coefficients, bits = fit.run()
        print(f"{name}: 2^{bits:.2f}", file=sys.stderr, flush=True)
        print(f"{name} = (")
        for coefficient in coefficients:
            print(f"    {coefficient!r},")
        print(")", flush=True)
    if not names:
        with mp.workprec(1400):
            digits = int(mp.floor(2 / mp.pi * mp.mpf(2) ** TWO_OVER_PI_BITS))
        words = [(digits >> (64 * i)) & (2**64 - 1) for i in range(TWO_OVER_PI_BITS // 64)]
        print("TWO_OVER_PI = (")
        for word in [0, *reversed(words)]:
            print(f"    0x{word:016X},")
        print(")")


if __name__ == "__main__":
    main(sys.argv[1:])
