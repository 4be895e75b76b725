"""Half precision without library calls: conversions that the target lacks, by integers.

Everything rounds once, to nearest even. f64 goes through f32 rounded to odd, which keeps enough of
the lost bits for the second rounding to be right. Machines without half conversions get the usual
integer algorithms: rebias by a multiplication, or round with an addition of bits.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from diffc.codegen.emit.scalars import Ops

__all__ = ["from_half", "has_conversions", "negate", "round_to_odd", "size", "to_half"]

SIGN = 0x80000000


def has_conversions(ops: Ops) -> bool:
    """Whether f16 and f32 convert by instructions."""
    return ops.target.family != "x86_64" or ops.target.vector_bytes > 16


def _bits(ops: Ops, text: str, old: str, new: str) -> str:
    return ops.fn.value(f"bitcast {ops.kind(old)} {text} to {ops.kind(new)}")


def _integer(ops: Ops, name: str, a: str, b: int, dtype: str = "u32") -> str:
    return ops.fn.value(f"{name} {ops.kind(dtype)} {a}, {ops.literal(b, dtype)}")


def negate(ops: Ops, a: str) -> str:
    """-a of f16."""
    return _bits(
        ops, _integer(ops, "xor", _bits(ops, a, "f16", "u16"), -(2**15), "u16"), "u16", "f16"
    )


def size(ops: Ops, a: str) -> str:
    """|a| of f16."""
    return _bits(
        ops, _integer(ops, "and", _bits(ops, a, "f16", "u16"), 0x7FFF, "u16"), "u16", "f16"
    )


def round_to_odd(ops: Ops, a: str) -> str:
    """f64 as f32: what is inexact gets an odd last bit."""
    near = ops.fn.value(f"fptrunc {ops.kind('f64')} {a} to {ops.kind('f32')}")
    back = ops.fn.value(f"fpext {ops.kind('f32')} {near} to {ops.kind('f64')}")
    is_beyond = ops.compare(
        "ogt", ops.unary(back, "f64", "fabs"), ops.unary(a, "f64", "fabs"), "f64"
    )
    bits = _bits(ops, near, "f32", "u32")
    bits = ops.select(is_beyond, _integer(ops, "sub", bits, 1), bits, "u32")
    odd = _bits(ops, _integer(ops, "or", bits, 1), "u32", "f32")
    return ops.select(ops.compare("one", back, a, "f64"), odd, near, "f32")


def from_half(ops: Ops, a: str) -> str:
    """f16 as f32, by integers."""
    fn, wide = ops.fn, ops.kind("u32")
    bits = fn.value(f"zext {ops.kind('u16')} {_bits(ops, a, 'f16', 'u16')} to {wide}")
    magnitude = _integer(ops, "and", bits, 0x7FFF)
    sign = _integer(ops, "shl", _integer(ops, "and", bits, 0x8000), 16)
    moved = _integer(ops, "shl", magnitude, 13)
    scale = ops.literal(2.0**112, "f32")
    number = fn.value(f"fmul {ops.kind('f32')} {_bits(ops, moved, 'u32', 'f32')}, {scale}")
    special = _integer(ops, "or", moved, 0x7F800000)
    is_special = ops.compare("uge", magnitude, ops.literal(0x7C00, "u32"), "u32")
    chosen = ops.select(is_special, special, _bits(ops, number, "f32", "u32"), "u32")
    return _bits(ops, fn.value(f"or {wide} {chosen}, {sign}"), "u32", "f32")


def to_half(ops: Ops, a: str) -> str:
    """f32 as f16, by integers."""
    fn, wide = ops.fn, ops.kind("u32")
    bits = _bits(ops, a, "f32", "u32")
    magnitude = _integer(ops, "and", bits, SIGN - 1)
    # below 2^-14: adding 0.5 rounds to a multiple of 2^-24 in the low bits
    half = ops.literal(0.5, "f32")
    shifted = fn.value(f"fadd {ops.kind('f32')} {_bits(ops, magnitude, 'u32', 'f32')}, {half}")
    tiny = _integer(ops, "sub", _bits(ops, shifted, "f32", "u32"), 0x3F000000)
    # else: rebias, and add just below half of the last place, or half where that is odd
    odd = _integer(ops, "and", _integer(ops, "lshr", magnitude, 13), 1)
    biased = _integer(ops, "add", magnitude, ((15 - 127) << 23) + 0xFFF)
    normal = _integer(ops, "lshr", fn.value(f"add {wide} {biased}, {odd}"), 13)
    is_nan = ops.compare("ugt", magnitude, ops.literal(0x7F800000, "u32"), "u32")
    huge = ops.select(is_nan, ops.literal(0x7E00, "u32"), ops.literal(0x7C00, "u32"), "u32")
    is_tiny = ops.compare("ult", magnitude, ops.literal(0x38800000, "u32"), "u32")
    is_huge = ops.compare("uge", magnitude, ops.literal(0x47800000, "u32"), "u32")
    result = ops.select(is_huge, huge, ops.select(is_tiny, tiny, normal, "u32"), "u32")
    sign = _integer(ops, "and", _integer(ops, "lshr", bits, 16), 0x8000)
    result = fn.value(f"or {wide} {result}, {sign}")
    narrow = fn.value(f"trunc {wide} {result} to {ops.kind('u16')}")
    return _bits(ops, narrow, "u16", "f16")
