"""log, log2, log10, log1p.

x = m 2^e with m in [0.75, 1.5) and f = m - 1. For f32, log(1 + f) = f + f*f*P(f); for f64,
log(1 + f) = f - f*f/2 + s (f*f/2 + s*s R(s*s)) with s = f / (2 + f).
"""

import math
from collections.abc import Sequence
from fractions import Fraction

from diffc.codegen.emit.math import coefficients as co
from diffc.codegen.emit.math.constants import LN2, LOG2_E, LOG10_2, LOG10_E, split
from diffc.codegen.emit.math.vector import Vector

__all__ = ["Logarithms"]


class Logarithms(Vector):
    """The logarithm family."""

    def _tail(self, f: str, extra: str | None = None) -> str:
        """The rest log(1 + f) - f, plus `extra`, for f in [-0.25, 0.5]."""
        if self.is_single:
            polynomial, square = self.polynomial(f, co.LOG1P_F32), self.mul(f, f)
            if extra is None:
                return self.mul(square, polynomial)
            return self.mul_add(square, polynomial, extra)
        s = self.div(f, self.add(f, 2.0))
        z = self.mul(s, s)
        rest = self.mul(self.polynomial(z, co.LOG_F64), z)
        half_square = self.mul(self.mul(f, 0.5), f)
        rest = self.add(half_square, rest)
        corrected = self.mul(s, rest) if extra is None else self.mul_add(s, rest, extra)
        return self.sub(corrected, half_square)

    def _combine(self, e: str, f: str) -> str:
        """The sum e ln 2 + log(1 + f); infinite e passes."""
        if self.is_single and self.fused:
            return self.mul_add(e, float(LN2), self._tail(f, f))
        high, low = split(LN2, self.scalar, 15 if self.is_single else 41)
        return self.mul_add(e, high, self.add(f, self._tail(f, self.mul(e, low))))

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
        tail = self._tail(f)
        if self.fused:
            y = self._log_base_fused(e, f, tail, per_log, per_octave)
            if not self.native512:
                return self._guard(x, y)
            return self.select(self.compare("oeq", self.abs(e), math.inf), self.add(e, f), y)
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

    def _log_base_fused(
        self, e: str, f: str, tail: str, per_log: Fraction, per_octave: Fraction
    ) -> str:
        """The sum e `per_octave` + (f + tail) `per_log`, its leading parts exact."""
        high, low = split(per_log, self.scalar, 53)
        lead, lost = self.two_product(f, high)
        rest = self.mul_add(tail, high, self.mul_add(f, low, lost))
        octave, octave_low = split(per_octave, self.scalar, 41)
        if octave_low:
            rest = self.mul_add(e, octave_low, rest)
        total, error = self.fast_two_sum(self.mul(e, octave), lead)
        return self.add(total, self.add(error, rest))

    def _log_base_quick(
        self, x: str, per_log: Fraction, per_octave: Fraction, slope: Sequence[float]
    ) -> str:
        """The same for f32 with fused multiply-add.

        log(1 + f) = f (h + P(f)) with the first 24 bits h of the scale.
        """
        e, m = self.exponent_and_mantissa(x)
        f = self.sub(m, 1.0)
        high, _ = split(per_log, self.scalar, 24)
        p = self.polynomial(f, slope)
        if per_octave == 1:
            y = self.add(e, self.mul_add(f, high, self.mul(f, p)))
        else:
            octave, octave_low = split(per_octave, self.scalar, 24)
            y = self.mul_add(f, high, self.mul_add(f, p, self.mul(e, octave_low)))
            y = self.mul_add(e, octave, y)
        return y if self.native512 else self._guard(x, y)

    def log2(self, x: str) -> str:
        """Logarithm to base 2; exact for powers of 2."""
        if self.is_single and self.fused:
            return self._log_base_quick(x, LOG2_E, Fraction(1), co.LOG2_F32)
        return self._log_base(x, LOG2_E, Fraction(1))

    def log10(self, x: str) -> str:
        """Logarithm to base 10."""
        if self.is_single and self.fused:
            return self._log_base_quick(x, LOG10_E, LOG10_2, co.LOG10_F32)
        return self._log_base(x, LOG10_E, LOG10_2)
