"""Division with NumPy's meaning: floor division, remainder, and powers of integers.

Floats follow NumPy's `divmod` step by step from an exact `fmod`. Integers never trap: the two cases
that the hardware refuses (a zero divisor, the least number by -1) are computed with the divisor 1.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from diffc.codegen.emit.registers import bits_of, is_signed, register
from diffc.codegen.emit.text import intrinsic_suffix

if TYPE_CHECKING:
    from diffc.codegen.emit.scalars import Ops

__all__ = ["float_divmod", "integer_divmod", "integer_power"]


def float_divmod(ops: Ops, dtype: str, a: str, b: str) -> tuple[str, str]:
    """(a // b, a % b) of floats; `frem` is exact and has the sign of `a`."""
    fn, kind = ops.fn, ops.kind(dtype)
    zero = ops.literal(0.0, dtype)
    suffix = intrinsic_suffix(register(dtype), ops.lanes)

    def copysign(size: str, sign: str) -> str:
        return fn.call(kind, f"llvm.copysign.{suffix}", (kind, size), (kind, sign))

    rest = fn.value(f"frem {kind} {a}, {b}")
    ratio = fn.value(f"fdiv {kind} {a}, {b}")
    whole = fn.value(f"fdiv {kind} {fn.value(f'fsub {kind} {a}, {rest}')}, {b}")
    # where the signs of rest and b differ, one divisor more
    masks = ops.kind("bool")
    rest_negative = ops.compare("olt", rest, zero, dtype)
    b_negative = ops.compare("olt", b, zero, dtype)
    differ = fn.value(f"xor {masks} {rest_negative}, {b_negative}")
    nonzero = ops.compare("une", rest, zero, dtype)
    adjust = fn.value(f"and {masks} {differ}, {nonzero}")
    moved = ops.select(adjust, fn.value(f"fadd {kind} {rest}, {b}"), rest, dtype)
    one = ops.literal(1.0, dtype)
    whole = ops.select(adjust, fn.value(f"fsub {kind} {whole}, {one}"), whole, dtype)
    remainder = ops.select(nonzero, moved, copysign(zero, b), dtype)
    # whole is an integer up to rounding: snap it
    floored = ops.unary(whole, dtype, "floor")
    error = fn.value(f"fsub {kind} {whole}, {floored}")
    far = ops.compare("ogt", error, ops.literal(0.5, dtype), dtype)
    snapped = ops.select(far, fn.value(f"fadd {kind} {floored}, {one}"), floored, dtype)
    has_whole = ops.compare("une", whole, zero, dtype)
    quotient = ops.select(has_whole, snapped, copysign(zero, ratio), dtype)
    by_zero = ops.compare("oeq", b, zero, dtype)
    return ops.select(by_zero, ratio, quotient, dtype), ops.select(by_zero, rest, remainder, dtype)


def integer_divmod(ops: Ops, dtype: str, a: str, b: str) -> tuple[str, str]:
    """(a // b, a % b) of integers, rounded down; both 0 for b = 0; least // -1 wraps."""
    fn, kind, masks = ops.fn, ops.kind(dtype), ops.kind("bool")
    zero, one = ops.literal(0, dtype), ops.literal(1, dtype)
    by_zero = ops.compare("eq", b, zero, dtype)
    if not is_signed(dtype):
        safe = ops.select(by_zero, one, b, dtype)
        quotient = fn.value(f"udiv {kind} {a}, {safe}")
        remainder = fn.value(f"urem {kind} {a}, {safe}")
        return (
            ops.select(by_zero, zero, quotient, dtype),
            ops.select(by_zero, zero, remainder, dtype),
        )
    # a // -1 == -a wraps by itself, and the remainder is 0
    by_minus_one = ops.compare("eq", b, ops.literal(-1, dtype), dtype)
    special = fn.value(f"or {masks} {by_zero}, {by_minus_one}")
    safe = ops.select(special, one, b, dtype)
    quotient = fn.value(f"sdiv {kind} {a}, {safe}")
    remainder = fn.value(f"sub {kind} {a}, {fn.value(f'mul {kind} {quotient}, {safe}')}")
    nonzero = ops.compare("ne", remainder, zero, dtype)
    signs = ops.compare("slt", fn.value(f"xor {kind} {remainder}, {safe}"), zero, dtype)
    adjust = fn.value(f"and {masks} {nonzero}, {signs}")
    lower = fn.value(f"sub {kind} {quotient}, {one}")
    quotient = ops.select(adjust, lower, quotient, dtype)
    moved = fn.value(f"add {kind} {remainder}, {safe}")
    remainder = ops.select(adjust, moved, remainder, dtype)
    negated = fn.value(f"sub {kind} {zero}, {a}")
    quotient = ops.select(by_minus_one, negated, quotient, dtype)
    return ops.select(by_zero, zero, quotient, dtype), ops.select(by_zero, zero, remainder, dtype)


def integer_power(ops: Ops, dtype: str, a: str, b: str) -> str:
    """Power of integers by squaring, wrapping; 0 for a negative exponent."""
    fn, kind = ops.fn, ops.kind(dtype)
    zero, one = ops.literal(0, dtype), ops.literal(1, dtype)
    carried = [(kind, one), (kind, a), (kind, b)]
    with fn.loop(bits_of(dtype), carried) as loop:
        result, base, left = loop.carried
        bit = fn.value(f"and {kind} {left}, {one}")
        is_odd = ops.compare("ne", bit, zero, dtype)
        result = ops.select(is_odd, fn.value(f"mul {kind} {result}, {base}"), result, dtype)
        squared = fn.value(f"mul {kind} {base}, {base}")
        loop.next = [result, squared, fn.value(f"lshr {kind} {left}, {one}")]
    if not is_signed(dtype):
        return loop.results[0]
    negative = ops.compare("slt", b, zero, dtype)
    return ops.select(negative, zero, loop.results[0], dtype)
