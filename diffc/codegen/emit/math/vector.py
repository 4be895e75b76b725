"""Arithmetic on vectors of one float dtype, and the tricks that elementary functions share.

A `Vector` writes instructions into a function. Operands are SSA names or Python floats (splatted
constants). All lanes of one operation round in the same way for any number of lanes, so a value
does not depend on how a loop was cut into vectors.

`mul_add` is fused where the target can fuse and rounds twice elsewhere; error-free products
(`two_product`) then come from splitting. No operation becomes a library call.
"""

import struct
from collections.abc import Sequence

from diffc.codegen.emit.text import FunctionText, constant, intrinsic_suffix, vector_type
from diffc.codegen.targets import Target

__all__ = ["Operand", "Vector"]

Operand = str | float
LONG_POLYNOMIAL = 8


class Vector:
    """Vector arithmetic for `lanes` elements of `dtype` (`f32` or `f64`) on `target`.

    Attributes:
        scalar: LLVM type of an element.
        integer: LLVM integer type of the same width.
        kind: LLVM type of a vector (the scalar type for one lane).
        integers: LLVM type of a vector of `integer`.
        masks: LLVM type of a vector of `i1`.
        fused: Whether `mul_add` rounds once.
        native512: Whether a vector fills exactly one AVX-512 register.
    """

    def __init__(self, fn: FunctionText, dtype: str, lanes: int, target: Target) -> None:
        if dtype not in ("f32", "f64"):
            raise ValueError(f"elementary functions are for f32 and f64, not {dtype!r}")
        self.fn = fn
        self.dtype = dtype
        self.lanes = lanes
        self.target = target
        self.is_single = dtype == "f32"
        self.bytes = 4 if self.is_single else 8
        self.scalar = "float" if self.is_single else "double"
        self.integer = "i32" if self.is_single else "i64"
        self.kind = vector_type(self.scalar, lanes)
        self.integers = vector_type(self.integer, lanes)
        self.masks = vector_type("i1", lanes)
        self.suffix = intrinsic_suffix(self.scalar, lanes)
        self.mantissa_bits = 23 if self.is_single else 52
        self.bias = 127 if self.is_single else 1023
        self.sign_bit = 8 * self.bytes - 1
        self.fused = target.has_fma
        self.native512 = target.has_avx512 and lanes * self.bytes == 64
        # Adding 1.5 * 2^mantissa_bits rounds to an integer, which is then in the low bits.
        self.magic = 1.5 * 2.0**self.mantissa_bits

    def pick(self, single: float, double: float) -> float:
        """The constant of this dtype."""
        return single if self.is_single else double

    def table(self, single: Sequence[float], double: Sequence[float]) -> Sequence[float]:
        """The coefficients of this dtype."""
        return single if self.is_single else double

    # Floating point

    def operand(self, value: Operand) -> str:
        """The text of an operand."""
        return value if isinstance(value, str) else constant(value, self.scalar, self.lanes)

    def _binary(self, name: str, a: Operand, b: Operand) -> str:
        return self.fn.value(f"{name} {self.kind} {self.operand(a)}, {self.operand(b)}")

    def add(self, a: Operand, b: Operand) -> str:
        """Sum a + b."""
        return self._binary("fadd", a, b)

    def sub(self, a: Operand, b: Operand) -> str:
        """Difference a - b."""
        return self._binary("fsub", a, b)

    def mul(self, a: Operand, b: Operand) -> str:
        """Product a * b."""
        return self._binary("fmul", a, b)

    def div(self, a: Operand, b: Operand) -> str:
        """Quotient a / b."""
        return self._binary("fdiv", a, b)

    def neg(self, a: Operand) -> str:
        """-a."""
        return self.fn.value(f"fneg {self.kind} {self.operand(a)}")

    def _intrinsic(self, name: str, *operands: Operand) -> str:
        arguments = [(self.kind, self.operand(operand)) for operand in operands]
        return self.fn.call(self.kind, f"llvm.{name}.{self.suffix}", *arguments)

    def abs(self, a: Operand) -> str:
        """|a|."""
        return self._intrinsic("fabs", a)

    def sqrt(self, a: Operand) -> str:
        """Square root."""
        return self._intrinsic("sqrt", a)

    def copysign(self, a: Operand, sign: Operand) -> str:
        """|a| with the sign of `sign`."""
        return self._intrinsic("copysign", a, sign)

    def mul_add(self, a: Operand, b: Operand, c: Operand) -> str:
        """Sum a * b + c: one rounding on targets that fuse, two elsewhere."""
        if self.fused:
            return self._intrinsic("fma", a, b, c)
        return self.add(self.mul(a, b), c)

    def neg_mul_add(self, a: Operand, b: Operand, c: Operand) -> str:
        """Difference c - a * b, rounded like `mul_add`."""
        if self.fused:
            return self._intrinsic("fma", self.neg(a), b, c)
        return self.sub(c, self.mul(a, b))

    def polynomial(self, x: str, coefficients: Sequence[float]) -> str:
        """A polynomial; coefficients are lowest power first.

        Horner's scheme, but a long tail goes by even and odd powers side by side: loops are
        bound by the length of the chain once the registers that rename them are used up.
        """
        if len(coefficients) < LONG_POLYNOMIAL:
            return self._horner(x, coefficients)
        tail = coefficients[2:]
        square = self.mul(x, x)
        total = self.mul_add(x, self._horner(square, tail[1::2]), self._horner(square, tail[::2]))
        return self.mul_add(x, self.mul_add(x, total, coefficients[1]), coefficients[0])

    def _horner(self, x: str, coefficients: Sequence[float]) -> str:
        total = self.mul_add(x, coefficients[-1], coefficients[-2])
        for coefficient in coefficients[-3::-1]:
            total = self.mul_add(x, total, coefficient)
        return total

    # Choices

    def compare(self, predicate: str, a: Operand, b: Operand) -> str:
        """An `fcmp` mask."""
        return self.fn.value(f"fcmp {predicate} {self.kind} {self.operand(a)}, {self.operand(b)}")

    def select(self, mask: str, a: Operand, b: Operand) -> str:
        """Take a where the mask holds, else b."""
        return self.fn.value(
            f"select {self.masks} {mask}, {self.kind} {self.operand(a)}, "
            f"{self.kind} {self.operand(b)}"
        )

    def mask_and(self, a: str, b: str) -> str:
        """Both masks."""
        return self.fn.value(f"and {self.masks} {a}, {b}")

    def mask_or(self, a: str, b: str) -> str:
        """Either mask."""
        return self.fn.value(f"or {self.masks} {a}, {b}")

    def any(self, mask: str) -> str:
        """A scalar `i1`: whether the mask holds in any lane."""
        if self.lanes == 1:
            return mask
        packed = self.fn.value(f"bitcast {self.masks} {mask} to i{self.lanes}")
        return self.fn.value(f"icmp ne i{self.lanes} {packed}, 0")

    def at_most(self, x: str, bound: float) -> str:
        """min(x, bound); NaN passes."""
        return self.select(self.compare("ogt", x, bound), bound, x)

    def at_least(self, x: str, bound: float) -> str:
        """max(x, bound); NaN passes."""
        return self.select(self.compare("olt", x, bound), bound, x)

    # Bits

    def bits_of(self, value: float) -> int:
        """The bit pattern of a constant."""
        form, whole = ("<f", "<I") if self.is_single else ("<d", "<Q")
        (bits,) = struct.unpack(whole, struct.pack(form, value))
        return int(bits)

    def bits(self, x: str) -> str:
        """The bit pattern of each lane."""
        return self.fn.value(f"bitcast {self.kind} {x} to {self.integers}")

    def from_bits(self, x: str) -> str:
        """The floats of bit patterns."""
        return self.fn.value(f"bitcast {self.integers} {x} to {self.kind}")

    def integer_op(self, name: str, a: str | int, b: str | int) -> str:
        """An integer instruction on patterns (`add`, `and`, `shl`, ...)."""
        left, right = (
            value if isinstance(value, str) else constant(value, self.integer, self.lanes)
            for value in (a, b)
        )
        return self.fn.value(f"{name} {self.integers} {left}, {right}")

    def is_odd(self, integers: str) -> str:
        """A mask: the lowest bit of each lane."""
        zero = constant(0, self.integer, self.lanes)
        low = self.integer_op("and", integers, 1)
        return self.fn.value(f"icmp ne {self.integers} {low}, {zero}")

    def is_negative(self, x: str) -> str:
        """A mask: the sign bit, of -0.0 and NaN too."""
        zero = constant(0, self.integer, self.lanes)
        return self.fn.value(f"icmp slt {self.integers} {self.bits(x)}, {zero}")

    def flip_sign(self, x: str, integers: str, bit: int) -> str:
        """Negate x where `bit` of `integers` is set."""
        picked = self.integer_op("and", integers, 1 << bit)
        sign = self.integer_op("shl", picked, self.sign_bit - bit)
        return self.from_bits(self.integer_op("xor", self.bits(x), sign))

    def round_scaled(self, x: str, factor: Operand) -> tuple[str, str]:
        """round(x * factor) as floats, and integers whose low bits are the rounded value.

        Valid for magnitudes below 2^(mantissa_bits - 1); needs no rounding instruction.
        """
        shifted = self.mul_add(x, factor, self.magic)
        return self.sub(shifted, self.magic), self.bits(shifted)

    # Exponents

    def power_of_two(self, low_bits: str, shift: int = 0) -> str:
        """2^(n + shift), normal, for n in the low bits as `round_scaled` gives it."""
        placed = self.integer_op("shl", low_bits, self.mantissa_bits)
        one = (self.bias + shift) << self.mantissa_bits
        return self.from_bits(self.integer_op("add", placed, one))

    def scale(self, x: str, n: str, low_bits: str, shift: int = 0) -> str:
        """Product x * 2^(n + shift), rounded once, also to subnormals; x is near 1.

        `n` and `low_bits` are as `round_scaled` gives them, within the range of exponents and
        subnormals. One instruction on AVX-512, two products by halves of the power elsewhere.
        """
        if self.native512:
            if shift:
                n = self.add(n, float(shift))
            return self._avx512("scalef", [(self.kind, x), (self.kind, n)], x)
        i = self.integer_op("sub", low_bits, self.bits_of(self.magic) - shift)
        # Biased floor(i / 2), by a logical shift: AVX2 has no arithmetic one for 64 bits.
        half = self.integer_op("lshr", self.integer_op("add", i, 2 * self.bias + 2), 1)
        half = self.integer_op("sub", half, 1)
        rest = self.integer_op("add", self.integer_op("sub", i, half), 2 * self.bias)
        for part in (half, rest):
            x = self.mul(x, self.from_bits(self.integer_op("shl", part, self.mantissa_bits)))
        return x

    def _avx512(self, name: str, arguments: list[tuple[str, str]], passthrough: str) -> str:
        """A masked AVX-512 intrinsic under a full mask and the current rounding mode."""
        mask = f"i{self.lanes}"
        packed = "ps" if self.is_single else "pd"
        return self.fn.call(
            self.kind,
            f"llvm.x86.avx512.mask.{name}.{packed}.512",
            *arguments,
            (self.kind, passthrough),
            (mask, "-1"),
            ("i32", "4"),
        )

    def exponent_to_float(self, biased: str, bias: Operand) -> str:
        """Small non-negative integers as floats, less `bias`."""
        if self.is_single:
            converted = self.fn.value(f"sitofp {self.integers} {biased} to {self.kind}")
            return self.sub(converted, bias)
        base = 2.0**52
        placed = self.from_bits(self.integer_op("or", biased, self.bits_of(base)))
        return self.sub(self.sub(placed, base), bias)

    def exponent_and_mantissa(self, x: str) -> tuple[str, str]:
        """Find e and m with x = m * 2^e, m in [0.75, 1.5), for positive x.

        On `native512`, zero and infinity give an infinite e with m = 1, negatives give NaN;
        elsewhere anything.
        """
        if self.native512:
            e = self._avx512("getexp", [(self.kind, x)], x)
            # 11: mantissa in [0.75, 1.5), NaN for negative arguments.
            m = self._avx512("getmant", [(self.kind, x), ("i32", "11")], x)
            return self.select(self.compare("olt", m, 1.0), self.add(e, 1.0), e), m
        tiny = self.compare("olt", x, 2.0 ** (1 - self.bias))
        grown = self.select(tiny, self.mul(x, 2.0**self.mantissa_bits), x)
        bias = self.select(tiny, float(self.bias + self.mantissa_bits), float(self.bias))
        moved, m = self.split_at_three_quarters(self.bits(grown))
        return self.exponent_to_float(
            self.integer_op("lshr", moved, self.mantissa_bits), bias
        ), self.from_bits(m)

    def split_at_three_quarters(self, bits: str) -> tuple[str, str]:
        """The pattern moved so that its exponent field is e + bias, and the pattern of m."""
        moved = self.integer_op("add", bits, self.bits_of(1.0) - self.bits_of(0.75))
        fraction = self.integer_op("and", moved, (1 << self.mantissa_bits) - 1)
        return moved, self.integer_op("add", fraction, self.bits_of(0.75))

    # Pairs: unevaluated sums of a value and its rounding error

    def fast_two_sum(self, a: Operand, b: Operand) -> tuple[str, str]:
        """Sum a + b and its rounding error, for |a| >= |b| or a = 0."""
        total = self.add(a, b)
        return total, self.sub(b, self.sub(total, a))

    def two_sum(self, a: Operand, b: Operand) -> tuple[str, str]:
        """Sum a + b and its rounding error, whichever is larger."""
        total = self.add(a, b)
        second = self.sub(total, a)
        first = self.sub(total, second)
        return total, self.add(self.sub(a, first), self.sub(b, second))

    def halves(self, a: Operand) -> tuple[str, str]:
        """Cut a into a sum of two values of half the bits (no overflow guard)."""
        scaled = self.mul(a, self.pick(4097.0, 134217729.0))
        high = self.sub(scaled, self.sub(scaled, a))
        return high, self.sub(a, high)

    def two_product(self, a: Operand, b: Operand) -> tuple[str, str]:
        """Product a * b and its rounding error."""
        product = self.mul(a, b)
        if self.fused:
            return product, self.mul_add(a, b, self.neg(product))
        (ah, al), (bh, bl) = self.halves(a), self.halves(b)
        error = self.sub(self.mul(ah, bh), product)
        error = self.add(self.add(error, self.mul(ah, bl)), self.mul(al, bh))
        return product, self.add(error, self.mul(al, bl))
