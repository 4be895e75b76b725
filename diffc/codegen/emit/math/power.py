"""pow: x ** y through a logarithm with more bits than the result.

f32 goes through f64: 2 ** (y log2(x)). f64 takes pairs: log(x) = e ln 2 + 2 atanh(s) with
s = f / (2 + f), then y log(x), and exp of that.
"""

import math
from fractions import Fraction

from diffc.codegen.emit.math import coefficients as co
from diffc.codegen.emit.math.constants import LN2, split
from diffc.codegen.emit.math.exponential import Exponentials
from diffc.codegen.emit.math.vector import Vector

__all__ = ["Powers"]

Pair = tuple[str, str]


class Powers(Exponentials):
    """General powers."""

    def _twice_atanh(self, m: str) -> Pair:
        """log(m) for m in [0.75, 1.5) as a pair: 2 s (1 + z/3 + z*z*P(z)), z = s*s."""
        f, d = self.sub(m, 1.0), self.add(m, 1.0)
        lost = self.sub(m, self.sub(d, 1.0))
        inverse = self.div(1.0, d)
        s = self.mul(f, inverse)
        if self.fused:
            rest = self.neg_mul_add(s, d, f)
        else:
            product, error = self.two_product(s, d)
            rest = self.sub(self.sub(f, product), error)
        s_low = self.mul(self.neg_mul_add(s, lost, rest), inverse)
        z, z_low = self.two_product(s, s)
        z_low = self.mul_add(self.add(s, s), s_low, z_low)
        third, third_low = split(Fraction(1, 3), self.scalar, 53)
        u, u_low = self.two_product(z, third)
        u_low = self.mul_add(z, third_low, self.mul_add(z_low, third, u_low))
        rest = self.polynomial(z, co.ATANH_F64)
        u, error = self.fast_two_sum(u, self.mul(self.mul(z, z), rest))
        u_low = self.add(u_low, error)
        v, v_low = self.two_product(s, u)
        v_low = self.add(v_low, self.mul_add(s, u_low, self.mul_add(s_low, u, s_low)))
        high, low = self.fast_two_sum(s, v)
        low = self.add(low, v_low)
        return self.add(high, high), self.add(low, low)

    def _log_pair(self, a: str) -> Pair:
        """log(a) as a pair; infinite high part at 0 and infinity."""
        e, m = self.exponent_and_mantissa(a)
        t, t_low = self._twice_atanh(m)
        octave, octave_low = split(LN2, self.scalar, 41)
        high, low = self.fast_two_sum(self.mul(e, octave), t)
        low = self.add(low, self.mul_add(e, octave_low, t_low))
        high = self.select(self.compare("oeq", a, 0.0), -math.inf, high)
        return self.select(self.compare("oeq", a, math.inf), math.inf, high), low

    def _integer_masks(self, y: str) -> Pair:
        """Whether y is an integer, and whether it is odd."""
        a, edge = self.abs(y), 2.0**self.mantissa_bits
        whole = self.sub(self.add(a, edge), edge)
        is_integer = self.mask_or(self.compare("oeq", whole, a), self.compare("oge", a, edge))
        half = self.mul(a, 0.5)
        whole = self.sub(self.add(half, edge), edge)
        is_odd = self.mask_and(self.compare("one", whole, half), self.compare("olt", a, 2 * edge))
        return is_integer, self.mask_and(is_odd, is_integer)

    def _pow_positive(self, a: str, y: str) -> str:
        """Power a ** y of a >= 0 (f64); NaN for some of the cases that have their own answers."""
        high, low = self._log_pair(a)
        bounded = y
        if not self.fused:
            # Splitting would overflow; a power so large under- or overflows all the same.
            bound = 2.0 ** (self.bias - 27)
            bounded = self.at_least(self.at_most(y, bound), -bound)
        p, p_low = self.two_product(bounded, high)
        p_low = self.mul_add(bounded, low, p_low)
        beyond = self.compare("ogt", self.abs(p), 746.0)
        p_low = self.select(beyond, 0.0, p_low)
        p = self.at_most(p, 710.0)
        p = self.at_least(p, -746.0)
        r, n, low_bits = self.reduce_ln2(p)
        return self.scale(self.exp_polynomial(self.add(r, p_low)), n, low_bits)

    def _pow_positive_wide(self, a: str, y: str) -> str:
        """The same for f32, in f64."""
        e, m = self.exponent_and_mantissa(a)
        if not self.native512:
            e = self.select(self.compare("oeq", a, 0.0), -math.inf, e)
            e = self.select(self.compare("oeq", a, math.inf), math.inf, e)
        wide = Vector(self.fn, "f64", self.lanes, self.target)
        e, m, y = (
            self.fn.value(f"fpext {self.kind} {value} to {wide.kind}") for value in (e, m, y)
        )
        f = wide.sub(m, 1.0)
        p = wide.mul(y, wide.mul_add(f, wide.polynomial(f, co.LOG2_WIDE), e))
        p = wide.at_least(wide.at_most(p, 130.0), -152.0)
        n, low_bits = wide.round_scaled(p, 1.0)
        value = wide.polynomial(wide.sub(p, n), co.EXP2_WIDE)
        value = wide.mul(value, wide.power_of_two(low_bits))
        return self.fn.value(f"fptrunc {wide.kind} {value} to {self.kind}")

    def pow(self, x: str, y: str) -> str:
        """Power with C's special cases: 1 for x = 1 or y = 0, NaN for x < 0 and fractional y."""
        positive = self._pow_positive_wide if self.is_single else self._pow_positive
        value = positive(self.abs(x), y)
        is_integer, is_odd = self._integer_masks(y)
        flipped = self.mask_and(self.is_negative(x), is_odd)
        value = self.select(flipped, self.neg(value), value)
        below = self.mask_and(self.compare("olt", x, 0.0), self.compare("one", x, -math.inf))
        value = self.select(
            self.mask_and(below, is_integer), value, self.select(below, math.nan, value)
        )
        value = self.select(self.compare("uno", x, y), math.nan, value)
        is_one = self.mask_or(self.compare("oeq", x, 1.0), self.compare("oeq", y, 0.0))
        turning = self.mask_and(
            self.compare("oeq", x, -1.0), self.compare("oeq", self.abs(y), math.inf)
        )
        return self.select(self.mask_or(is_one, turning), 1.0, value)
