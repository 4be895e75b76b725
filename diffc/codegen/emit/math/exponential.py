"""exp, exp2, expm1, logistic, tanh, sinh, cosh.

All start from x = n ln 2 + r with |r| <= ln(2) / 2 and a polynomial in r.
"""

from diffc.codegen.emit.math import coefficients as co
from diffc.codegen.emit.math.constants import LN2, LOG2_E, split
from diffc.codegen.emit.math.vector import Vector

__all__ = ["Exponentials"]


class Exponentials(Vector):
    """The exponential family."""

    def reduce_ln2(self, x: str) -> tuple[str, str, str]:
        """r, n and the low bits of n, with x = n ln 2 + r; x must be in the range of exp."""
        n, low_bits = self.round_scaled(x, float(LOG2_E))
        # Fused: the first product is exact anyway, so the first part may have all bits.
        bits = (24, 53) if self.fused else (15, 41)
        high, low = split(LN2, self.scalar, bits[0] if self.is_single else bits[1])
        r = self.mul_add(n, -high, x)
        return self.mul_add(n, -low, r), n, low_bits

    def exp_polynomial(self, r: str) -> str:
        """exp(r) on the reduced range."""
        return self.polynomial(r, self.table(co.EXP_F32, co.EXP_F64))

    def exp_bounded(self, x: str) -> str:
        """exp(x) where neither argument nor result leaves the normal range."""
        r, _, low_bits = self.reduce_ln2(x)
        return self.mul(self.exp_polynomial(r), self.power_of_two(low_bits))

    def half_exp(self, x: str) -> str:
        """exp(x) / 2 for x >= 0, infinite only where exp(x) / 2 is."""
        r, n, low_bits = self.reduce_ln2(self.at_most(x, self.pick(90.0, 711.0)))
        return self.scale(self.exp_polynomial(r), n, low_bits, shift=-1)

    def exp(self, x: str) -> str:
        """e**x."""
        x = self.at_most(x, self.pick(89.5, 710.0))
        x = self.at_least(x, self.pick(-104.5, -746.0))
        r, n, low_bits = self.reduce_ln2(x)
        return self.scale(self.exp_polynomial(r), n, low_bits)

    def exp2(self, x: str) -> str:
        """2**x; exact for integers."""
        x = self.at_most(x, self.pick(129.0, 1025.0))
        x = self.at_least(x, self.pick(-151.0, -1076.0))
        n, low_bits = self.round_scaled(x, 1.0)
        p = self.polynomial(self.sub(x, n), self.table(co.EXP2_F32, co.EXP2_F64))
        return self.scale(p, n, low_bits)

    def _expm1_polynomial(self, r: str) -> str:
        """expm1(r) = r + r*r*P(r) on the reduced range."""
        p = self.polynomial(r, self.table(co.EXPM1_F32, co.EXPM1_F64))
        return self.mul_add(self.mul(r, r), p, r)

    def expm1(self, x: str) -> str:
        """e**x - 1, accurate near 0."""
        bounded = self.at_most(x, self.pick(89.0, 710.0))
        bounded = self.at_least(bounded, self.pick(-25.0, -45.0))
        r, _, low_bits = self.reduce_ln2(bounded)
        p = self._expm1_polynomial(r)
        # Twice 2^(n-1) (p + 1) - 1/2: 2^n itself would overflow before the result does.
        power = self.power_of_two(low_bits, shift=-1)
        half = self.mul_add(power, p, self.sub(power, 0.5))
        small = self.compare("olt", self.abs(x), self.pick(1e-10, 1e-18))
        return self.select(small, x, self.add(half, half))

    def logistic(self, x: str) -> str:
        """1 / (1 + exp(-x)), with the small tail right for negative x.

        Of e = exp(-|x|) the answer is 1 / (1 + e) or e / (1 + e). Fused targets carry the
        rounding errors of 1 + e and of the quotient into one correction.
        """
        a = self.at_least(self.neg(self.abs(x)), self.pick(-104.5, -746.0))
        r, n, low_bits = self.reduce_ln2(a)
        positive = self.compare("oge", x, 0.0)
        if not self.fused:
            e = self.scale(self.exp_polynomial(r), n, low_bits)
            return self.div(self.select(positive, 1.0, e), self.add(e, 1.0))
        e = self.scale(self.exp_polynomial(r), n, low_bits)
        top = self.select(positive, 1.0, e)
        d, lost = self.fast_two_sum(1.0, e)
        inverse = self.div(1.0, d)
        q = self.mul(top, inverse)
        rest = self.neg_mul_add(q, d, top)
        rest = self.neg_mul_add(q, lost, rest)
        return self.mul_add(rest, inverse, q)

    def tanh(self, x: str) -> str:
        """Hyperbolic tangent."""
        a = self.at_most(self.abs(x), self.pick(9.2, 20.0))
        twice = self.add(a, a)
        if self.is_single:
            large = self.sub(1.0, self.div(1.0, self._half_exp_plus_half(twice)))
            z = self.mul(a, a)
            small = self.mul(self.polynomial(z, co.TANH_F32), z)
            small = self.mul_add(small, a, a)
            return self.copysign(self.select(self.compare("ogt", a, 0.625), large, small), x)
        return self.copysign(self._tanh_of_half(twice), x)

    def _tanh_of_half(self, x: str) -> str:
        """tanh(x / 2) = u / (u + 2) with u = expm1(x), for x in [0, 40] (f64).

        Fused targets carry the rounding errors of u, of u + 2 and of the quotient into one
        correction.
        """
        r, _, low_bits = self.reduce_ln2(x)
        power = self.power_of_two(low_bits)
        if not self.fused:
            u = self.mul_add(power, self._expm1_polynomial(r), self.sub(power, 1.0))
            return self.div(u, self.add(u, 2.0))
        tail = self.mul(self.mul(r, r), self.polynomial(r, co.EXPM1_F64))
        p, p_low = self.fast_two_sum(r, tail)
        u, u_low = self.fast_two_sum(self.sub(power, 1.0), self.mul(power, p))
        u_low = self.mul_add(power, p_low, u_low)
        d, d_low = self.two_sum(u, 2.0)
        inverse = self.div(1.0, d)
        q = self.mul(u, inverse)
        rest = self.add(self.neg_mul_add(q, d, u), u_low)
        rest = self.neg_mul_add(q, self.add(d_low, u_low), rest)
        return self.mul_add(rest, inverse, q)

    def _half_exp_plus_half(self, x: str) -> str:
        """(exp(x) + 1) / 2 for x in [0, 20]; the error may grow with exp(x) (f32).

        So ln 2 needs no second part: what it misses is 2^-29 of exp(x) for each doubling.
        """
        if self.fused:
            n, low_bits = self.round_scaled(x, float(LOG2_E))
            r = self.mul_add(n, -float(LN2), x)
        else:
            r, _, low_bits = self.reduce_ln2(x)
        return self.mul_add(self.exp_polynomial(r), self.power_of_two(low_bits, shift=-1), 0.5)

    def sinh(self, x: str) -> str:
        """Hyperbolic sine."""
        a = self.abs(x)
        half = self.half_exp(a)
        large = self.sub(half, self.div(0.25, half))
        z = self.mul(a, a)
        small = self.mul(self.polynomial(z, self.table(co.SINH_F32, co.SINH_F64)), z)
        small = self.mul_add(small, a, a)
        return self.copysign(self.select(self.compare("olt", a, 1.0), small, large), x)

    def cosh(self, x: str) -> str:
        """Hyperbolic cosine."""
        half = self.half_exp(self.abs(x))
        return self.add(half, self.div(0.25, half))
