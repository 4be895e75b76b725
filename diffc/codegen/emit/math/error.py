"""erf.

Up to 1, erf(a) = a + a P(a*a); above, erf(a) = 1 - exp(-Q(a)) with Q = -log erfc.
"""

from diffc.codegen.emit.math import coefficients as co
from diffc.codegen.emit.math.exponential import Exponentials

__all__ = ["ErrorFunctions"]


class ErrorFunctions(Exponentials):
    """The error function."""

    def erf(self, x: str) -> str:
        """Error function."""
        a = self.at_most(self.abs(x), self.pick(4.0, 6.0))
        small = self.polynomial(self.mul(a, a), self.table(co.ERF_F32, co.ERF_F64))
        small = self.mul_add(small, a, a)
        q = self.polynomial(a, self.table(co.ERFC_F32, co.ERFC_F64))
        large = self.sub(1.0, self.exp_bounded(self.neg(q)))
        return self.copysign(self.select(self.compare("ogt", a, 1.0), large, small), x)
