"""sin, cos, tan, with exact argument reduction for every finite argument.

x = n pi/2 + r, |r| <= pi/4. Up to a limit, n times pi/2 in parts is subtracted (Cody and Waite);
`Vector` values may then carry the low part of r. Where any lane is beyond the limit, a cold block
multiplies, lane by lane, by the needed window of the bits of 2/pi (Payne and Hanek) in integers.
"""

from diffc.codegen.emit.math import coefficients as co
from diffc.codegen.emit.math.constants import PI, split
from diffc.codegen.emit.math.reduction import reduction_function
from diffc.codegen.emit.math.vector import Vector

__all__ = ["Trigonometrics"]


class Trigonometrics(Vector):
    """Sine, cosine, tangent."""

    @property
    def _reduction_limit(self) -> float:
        """Largest argument whose reduction by parts of pi/2 is good."""
        if self.fused:
            return self.pick(100000.0, 2.0**27)
        return self.pick(100000.0, 2.0**19)

    def _reduce(self, x: str, with_low: bool) -> tuple[str, str | None, str]:
        """r, its low part, and integers whose two low bits are n modulo 4."""
        if self.fused:
            r, low, quadrant = self._reduce_fused(x, with_low)
        elif self.is_single:
            r, low, quadrant = self._reduce_wide(x, with_low)
        else:
            r, low, quadrant = self._reduce_exact_parts(x)
        limit = self._reduction_limit
        far = self.any(self.compare("ogt", self.abs(x), limit))
        otherwise = [(self.kind, r), (self.integers, quadrant)]
        if low is not None:
            otherwise.append((self.kind, low))
        with self.fn.when(far, otherwise, unlikely=True) as arm:
            arm.values = self._reduce_far(x, r, quadrant, low, limit)
        r, quadrant = arm.merged[:2]
        return r, arm.merged[2] if low is not None else None, quadrant

    def _reduce_far(
        self, x: str, r: str, quadrant: str, low: str | None, limit: float
    ) -> list[str]:
        """The same values with the lanes beyond the limit replaced."""
        fn, size = self.fn, self.lanes * self.bytes
        name = reduction_function(fn.module, self.dtype, limit)
        areas = []
        for part, kind, value in (
            ("x", self.kind, x),
            ("r", self.kind, r),
            ("q", self.integers, quadrant),
            ("l", self.kind, low),
        ):
            areas.append(fn.stack(f"reduce_{part}{self.bytes}", max(size, 64)))
            if value is not None:
                fn.store(kind, value, areas[-1], self.bytes)
        arguments = [("ptr", area) for area in areas]
        fn.call("void", name, *arguments, ("i64", str(self.lanes)), declare=False)
        loaded = [
            fn.load(self.kind, areas[1], self.bytes),
            fn.load(self.integers, areas[2], self.bytes),
        ]
        if low is not None:
            loaded.append(fn.load(self.kind, areas[3], self.bytes))
        return loaded

    def _reduce_fused(self, x: str, with_low: bool) -> tuple[str, str | None, str]:
        """Full-width parts: x - n p1 is exact under one rounding."""
        n, quadrant = self.round_scaled(x, float(2 / PI))
        bits = 24 if self.is_single else 53
        p1, p2, p3 = split(PI / 2, self.scalar, bits, bits)
        first = self.mul_add(n, -p1, x)
        if not with_low:
            return self.mul_add(n, -p3, self.mul_add(n, -p2, first)), None, quadrant
        second, second_low = self.two_product(n, -p2)
        r, low = self.two_sum(first, second)
        low = self.mul_add(n, -p3, self.add(low, second_low))
        r, low = self.fast_two_sum(r, low)
        return r, low, quadrant

    def _reduce_exact_parts(self, x: str) -> tuple[str, str, str]:
        """f64 without fusing: n times the 33-bit parts is exact."""
        n, quadrant = self.round_scaled(x, float(2 / PI))
        p1, p2, p3 = split(PI / 2, self.scalar, 33, 33)
        first = self.sub(x, self.mul(n, p1))
        r, low = self.two_sum(first, self.mul(n, -p2))
        r, low = self.fast_two_sum(r, self.sub(low, self.mul(n, p3)))
        return r, low, quadrant

    def _reduce_wide(self, x: str, with_low: bool) -> tuple[str, str | None, str]:
        """f32 without fusing: in f64."""
        wide = Vector(self.fn, "f64", self.lanes, self.target)
        value = self.fn.value(f"fpext {self.kind} {x} to {wide.kind}")
        n, quadrant = wide.round_scaled(value, float(2 / PI))
        p1, p2 = split(PI / 2, wide.scalar, 33)
        rest = wide.sub(wide.sub(value, wide.mul(n, p1)), wide.mul(n, p2))
        quadrant = self.fn.value(f"trunc {wide.integers} {quadrant} to {self.integers}")
        r = self.fn.value(f"fptrunc {wide.kind} {rest} to {self.kind}")
        if not with_low:
            return r, None, quadrant
        lost = wide.sub(rest, self.fn.value(f"fpext {self.kind} {r} to {wide.kind}"))
        return r, self.fn.value(f"fptrunc {wide.kind} {lost} to {self.kind}"), quadrant

    def _kernels(self, r: str, low: str | None) -> tuple[str, str]:
        """Sine and cosine of r + low."""
        z = self.mul(r, r)
        sine = self.mul(self.polynomial(z, self.table(co.SIN_F32, co.SIN_F64)), z)
        tail = self.table(co.COS_F32, co.COS_F64)
        if low is None:
            cosine = self.polynomial(z, [-0.5, *tail])
            return self.mul_add(sine, r, r), self.mul_add(z, cosine, 1.0)
        # cos = 1 - z/2 + (z*z*P(z) - r low), with the rounding error of 1 - z/2 added back.
        half = self.mul(z, 0.5)
        rest = self.mul(self.mul(z, z), self.polynomial(z, tail))
        rest = self.neg_mul_add(r, low, rest)
        lead = self.sub(1.0, half)
        rest = self.add(self.sub(self.sub(1.0, lead), half), rest)
        return self.add(r, self.mul_add(sine, r, low)), self.add(lead, rest)

    def turn(self, x: str) -> tuple[str, str, str]:
        """What sin(x) and cos(x) share: sine and cosine of x - n pi/2, and n in its low bits."""
        r, low, quadrant = self._reduce(x, with_low=not self.is_single)
        return *self._kernels(r, low), quadrant

    def _turned(self, parts: tuple[str, str, str], turn: int) -> str:
        """sin(x + turn pi/2)."""
        sine, cosine, quadrant = parts
        if turn:
            quadrant = self.integer_op("add", quadrant, turn)
        y = self.select(self.is_odd(quadrant), cosine, sine)
        return self.flip_sign(y, quadrant, 1)

    def sin(self, x: str, parts: tuple[str, str, str] | None = None) -> str:
        """Sine; `parts` is what `turn` gave."""
        turned = self._turned(self.turn(x) if parts is None else parts, 0)
        return self.select(self.compare("oeq", x, 0.0), x, turned)

    def cos(self, x: str, parts: tuple[str, str, str] | None = None) -> str:
        """Cosine; `parts` is what `turn` gave."""
        return self._turned(self.turn(x) if parts is None else parts, 1)

    def tan(self, x: str) -> str:
        """Tangent: sin/cos of r, or -cos/sin in odd quadrants."""
        r, low, quadrant = self._reduce(x, with_low=True)
        sine, cosine = self._kernels(r, low)
        odd = self.is_odd(quadrant)
        y = self.div(self.select(odd, cosine, sine), self.select(odd, sine, cosine))
        return self.select(self.compare("oeq", x, 0.0), x, self.flip_sign(y, quadrant, 0))
