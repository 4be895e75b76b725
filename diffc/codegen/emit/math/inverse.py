"""arctan, arctan2, arcsin, arccos.

Each reduces to an odd polynomial t + t z P(z), z = t*t, on a short range.
"""

import math
from collections.abc import Sequence

from diffc.codegen.emit.math import coefficients as co
from diffc.codegen.emit.math.constants import PI, split
from diffc.codegen.emit.math.vector import Operand, Vector

__all__ = ["InverseTrigonometrics"]


class InverseTrigonometrics(Vector):
    """Angles."""

    def _odd_tail(self, t: str, z: str, coefficients: Sequence[float]) -> str:
        """The odd polynomial without its first term: t z P(z)."""
        return self.mul(t, self.mul(z, self.polynomial(z, coefficients)))

    def _plus_eighths(self, k: Operand, t: str, tail: str) -> str:
        """The sum k pi/4 + (t + tail) for a small integer k; the leading product is exact."""
        high, low = split(PI / 4, self.scalar, 21 if self.is_single else 50)
        return self.add(self.mul(k, high), self.add(t, self.mul_add(k, low, tail)))

    def _angle(self, y: Operand, x: Operand, k: tuple[str | None, str | None]) -> str:
        """Angle in [0, pi] of the point (x, y), y >= 0, x >= 0; masks may mirror it.

        `k` holds the masks `swapped` (y > x) and `mirrored` (x was negative), or None for no.
        """
        swapped, mirrored = k
        small: Operand
        large: Operand
        small, large = y, x
        if swapped is not None:
            small, large = self.select(swapped, x, y), self.select(swapped, y, x)
        # Beyond tan(pi/8), turn by pi/4: (small - large) / (small + large).
        middle = self.compare("ogt", small, self.mul(large, math.tan(math.pi / 8)))
        top = self.select(middle, self.sub(small, large), small)
        t = self.div(top, self.select(middle, self.add(small, large), large))
        eighths = self.select(middle, 1.0, 0.0)
        for mask, whole in ((swapped, 2.0), (mirrored, 4.0)):
            if mask is not None:
                t = self.select(mask, self.neg(t), t)
                eighths = self.select(mask, self.sub(whole, eighths), eighths)
        tail = self._odd_tail(t, self.mul(t, t), self.table(co.ATAN_F32, co.ATAN_F64))
        return self._plus_eighths(eighths, t, tail)

    def arctan(self, x: str) -> str:
        """Inverse tangent."""
        a = self.abs(x)
        swapped = self.compare("ogt", a, 1.0)
        return self.copysign(self._angle(a, 1.0, (swapped, None)), x)

    def arctan2(self, y: str, x: str) -> str:
        """Angle of the point (x, y), in [-pi, pi], with C's answers at zeros and infinities."""
        across, up = self.abs(x), self.abs(y)
        # Only the ratio matters: one where both are infinite, zero where both are zero, and
        # nothing so large that the sum overflows.
        endless = self.mask_and(
            self.compare("oeq", across, math.inf), self.compare("oeq", up, math.inf)
        )
        across, up = (self.select(endless, 1.0, value) for value in (across, up))
        across = self.select(
            self.mask_and(self.compare("oeq", across, 0.0), self.compare("oeq", up, 0.0)),
            1.0,
            across,
        )
        swapped = self.compare("ogt", up, across)
        huge = self.compare("ogt", self.select(swapped, up, across), 2.0 ** (self.bias - 2))
        factor = self.select(huge, 0.125, 1.0)
        across, up = self.mul(across, factor), self.mul(up, factor)
        angle = self._angle(up, across, (swapped, self.is_negative(x)))
        angle = self.copysign(angle, y)
        return self.select(self.compare("uno", x, y), self.add(x, y), angle)

    def _near_one(self, a: str) -> tuple[str, str, str]:
        """t, t*t and the mask a > 1/2: t = sqrt((1 - a) / 2) where it holds, else a."""
        far = self.compare("ogt", a, 0.5)
        half = self.mul(self.sub(1.0, a), 0.5)
        z = self.select(far, half, self.mul(a, a))
        return self.select(far, self.sqrt(half), a), z, far

    def arcsin(self, x: str) -> str:
        """Inverse sine; above 1/2 it is pi/2 less twice that of the half-angle."""
        t, z, far = self._near_one(self.abs(x))
        tail = self._odd_tail(t, z, self.table(co.ASIN_F32, co.ASIN_F64))
        near_value = self.add(t, tail)
        far_value = self._plus_eighths(2.0, self.mul(t, -2.0), self.mul(tail, -2.0))
        return self.copysign(self.select(far, far_value, near_value), x)

    def arccos(self, x: str) -> str:
        """Inverse cosine: pi/2 - arcsin(x), or twice the arcsin of the half-angle."""
        t, z, far = self._near_one(self.abs(x))
        tail = self._odd_tail(t, z, self.table(co.ASIN_F32, co.ASIN_F64))
        negative = self.is_negative(x)
        # far: 2 (t + tail), or pi less that; near: pi/2 less (t + tail) with the sign of x.
        factor = self.select(
            far, self.select(negative, -2.0, 2.0), self.select(negative, 1.0, -1.0)
        )
        eighths = self.select(far, self.select(negative, 4.0, 0.0), 2.0)
        return self._plus_eighths(eighths, self.mul(t, factor), self.mul(tail, factor))
