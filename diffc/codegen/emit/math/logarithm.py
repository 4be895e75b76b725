"""log, log2, log10, log1p.

x = m 2^e with m in [0.75, 1.5) and f = m - 1. For f32, log(1 + f) = f + f*f*P(f); for f64,
log(1 + f) = f - f*f/2 + s (f*f/2 + s*s R(s*s)) with s = f / (2 + f).
"""

import math
from fractions import Fraction

from diffc.codegen.emit.math import coefficients as co
from diffc.codegen.emit.math.constants import LN2, LOG2_E, LOG10_2, LOG10_E, split
from diffc.codegen.emit.math.vector import Vector

__all__ = ["Logarithms"]


class Logarithms(Vector):
    """The logarithm family."""

    def _log1p_tail(self, f: str) -> str:
        """log(1 + f) - f for f in [-0.25, 0.5] (f64)."""
        s = self.div(f, self.add(f, 2.0))
        z = self.mul(s, s)
        rest = self.mul(self.polynomial(z, co.LOG_F64), z)
        half_square = self.mul(self.mul(f, 0.5), f)
        return self.sub(self.mul(s, self.add(half_square, rest)), half_square)

    def _combine(self, e: str, f: str) -> str:
        """The sum e ln 2 + log(1 + f); infinite e passes."""
        if self.is_single and self.fused:
            polynomial = self.polynomial(f, co.LOG1P_F32)
            tail = self.mul_add(self.mul(f, f), polynomial, f)
            return self.mul_add(e, float(LN2), tail)
        high, low = split(LN2, self.scalar, 15 if self.is_single else 41)
        if self.is_single:
            square = self.mul(f, f)
            tail = self.mul_add(square, self.polynomial(f, co.LOG1P_F32), self.mul(e, low))
        else:
            s = self.div(f, self.add(f, 2.0))
            z = self.mul(s, s)
            rest = self.mul(self.polynomial(z, co.LOG_F64), z)
            half_square = self.mul(self.mul(f, 0.5), f)
            tail = self.mul_add(s, self.add(half_square, rest), self.mul(e, low))
            tail = self.sub(tail, half_square)
        return self.mul_add(e, high, self.add(f, tail))

    def _guard(self, x: str, y: str, zero: float = 0.0) -> str:
        """Give y the limits of a logarithm with its pole at `zero`: -inf there, NaN below."""
        y = self.select(self.compare("oeq", x, math.inf), math.inf, y)
        pole = self.select(self.compare("oeq", x, zero), -math.inf, math.nan)
        return self.select(self.compare("ogt", x, zero), y, pole)

    def log(self, x: str) -> str:
        """Natural logarithm."""
        e, m = self.exponent_and_mantissa(x)
        y = self._combine(e, self.sub(m, 1.0))
        return y if self.native512 else self._guard(x, y)

    def log1p(self, x: str) -> str:
        """log(1 + x), accurate near 0.

        The exponent is that of the rounded 1 + x; f = x 2^-e + (2^-e - 1) has no part of its
        rounding error.
        """
        moved, _ = self.split_at_three_quarters(self.bits(self.add(x, 1.0)))
        biased = self.integer_op("lshr", moved, self.mantissa_bits)
        e = self.exponent_to_float(biased, float(self.bias))
        shift = self.integer_op("shl", biased, self.mantissa_bits)
        shift = self.integer_op("sub", shift, self.bits_of(1.0))
        scaled = self.from_bits(self.integer_op("sub", self.bits(x), shift))
        # Four times 2^-e is normal for every e.
        power = self.from_bits(self.integer_op("sub", self.bits_of(4.0), shift))
        f = self.add(scaled, self.mul_add(power, 0.25, -1.0))
        y = self._guard(x, self._combine(e, f), -1.0)
        return self.select(self.compare("oeq", x, 0.0), x, y)

    def _log_base(self, x: str, per_log: Fraction, per_octave: Fraction) -> str:
        """log(x) in another base: `per_log` for each unit of log, `per_octave` for each 2."""
        e, m = self.exponent_and_mantissa(x)
        f = self.sub(m, 1.0)
        if self.is_single:
            tail = self.mul(self.mul(f, f), self.polynomial(f, co.LOG1P_F32))
        else:
            tail = self._log1p_tail(f)
        # f and the constant in halves: the leading product is exact.
        mask = ~((1 << (12 if self.is_single else 27)) - 1)
        top = self.from_bits(self.integer_op("and", self.bits(f), mask))
        high, low = split(per_log, self.scalar, 12 if self.is_single else 26)
        lead = self.mul(top, high)
        tail = self.mul(tail, float(per_log))
        tail = self.mul_add(f, low, tail)
        tail = self.mul_add(self.sub(f, top), high, tail)
        octave, octave_low = split(per_octave, self.scalar, 15 if self.is_single else 41)
        if octave_low:
            tail = self.mul_add(e, octave_low, tail)
        total, error = self.fast_two_sum(self.mul(e, octave), lead)
        return self._guard(x, self.add(total, self.add(error, tail)))

    def log2(self, x: str) -> str:
        """Logarithm to base 2; exact for powers of 2."""
        return self._log_base(x, LOG2_E, Fraction(1))

    def log10(self, x: str) -> str:
        """Logarithm to base 10."""
        return self._log_base(x, LOG10_E, LOG10_2)
