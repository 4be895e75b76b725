"""Floats of 16 bits without library calls: conversions that the target lacks, by integers.

Everything rounds once, to nearest even. f64 goes through f32 rounded to odd, which keeps enough of
the lost bits for the second rounding to be right; 64-bit integers go through f64 with a mark for
the bits that it loses. Machines without conversions of f16 get the usual integer algorithms: rebias
by a multiplication, or round with an addition of bits. bf16 is the upper half of f32, so shifts and
an addition do everywhere (the instruction of AVX512-BF16 takes subnormal numbers for zero).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from diffc.codegen.emit.registers import is_signed, register
from diffc.codegen.emit.text import vector_type

if TYPE_CHECKING:
    from diffc.codegen.emit.scalars import Ops

__all__ = ["cut", "marked", "narrow", "negate", "round_to_odd", "size", "spread", "widen"]

SIGN = 0x80000000
QUIET = 0x00400000
_LOST = 11  # bits of a 64-bit integer that f64 does not hold


def _has_conversions(ops: Ops) -> bool:
    """Whether f16 and f32 convert by instructions."""
    return ops.target.family != "x86_64" or ops.target.vector_bytes > 16


def _bits(ops: Ops, text: str, old: str, new: str) -> str:
    return ops.apply("bitcast", new, (old,), (text,))


def _integer(ops: Ops, name: str, a: str, b: int, dtype: str = "u32") -> str:
    return ops.fn.value(f"{name} {ops.kind(dtype)} {a}, {ops.literal(b, dtype)}")


def negate(ops: Ops, a: str, dtype: str) -> str:
    """-a of 16 bits."""
    flipped = _integer(ops, "xor", _bits(ops, a, dtype, "u16"), -(2**15), "u16")
    return _bits(ops, flipped, "u16", dtype)


def size(ops: Ops, a: str, dtype: str) -> str:
    """|a| of 16 bits."""
    return _bits(
        ops, _integer(ops, "and", _bits(ops, a, dtype, "u16"), 0x7FFF, "u16"), "u16", dtype
    )


def widen(ops: Ops, a: str, dtype: str) -> str:
    """16 bits as f32, exactly."""
    if dtype == "bf16":
        wide = ops.fn.value(f"zext {ops.kind('bf16')} {a} to {ops.kind('u32')}")
        return _bits(ops, _integer(ops, "shl", wide, 16), "u32", "f32")
    if _has_conversions(ops):
        return ops.fn.value(f"fpext {ops.kind('f16')} {a} to {ops.kind('f32')}")
    return _from_half(ops, a)


def spread(ops: Ops, a: str, dtype: str) -> str:
    """A scalar of 16 bits in all lanes, as f32."""
    fn, scalar = ops.fn, register(dtype)
    if dtype != "bf16":
        return widen(ops, fn.broadcast(a, scalar, ops.lanes), dtype)
    pairs = fn.broadcast(a, scalar, 2 * ops.lanes)
    kind, wide = vector_type(scalar, 2 * ops.lanes), ops.kind("u32")
    bits = fn.value(f"bitcast {kind} {pairs} to {wide}")
    return _bits(ops, _integer(ops, "and", bits, 0xFFFF0000), "u32", "f32")


def narrow(ops: Ops, a: str, dtype: str, *, is_plain: bool = False) -> str:
    """f32 as 16 bits.

    Args:
        ops: The lanes.
        a: The numbers.
        dtype: What they become.
        is_plain: Whether a nan among them is one of 16 bits, or the one that arithmetic makes: its
            lower bits are 0, so rounding leaves it alone.
    """
    if dtype == "bf16":
        return _to_bfloat(ops, a, is_plain)
    if _has_conversions(ops):
        return ops.fn.value(f"fptrunc {ops.kind('f32')} {a} to {ops.kind('f16')}")
    return _to_half(ops, a)


def cut(ops: Ops, a: str, dtype: str) -> str:
    """f32 that is one of 16 bits already."""
    if dtype == "bf16":
        return _upper(ops, _bits(ops, a, "f32", "u32"))
    return narrow(ops, a, dtype)


def marked(ops: Ops, a: str, dtype: str) -> str:
    """A 64-bit integer that f64 holds: what would be lost only says whether it was 0.

    Small ones stay as they are. f64 as 16 bits then rounds as the integer would.
    """
    fn, kind = ops.fn, ops.kind(dtype)
    low = _integer(ops, "and", a, 2**_LOST - 1, dtype)
    mark = ops.select(
        ops.compare("ne", low, ops.literal(0, dtype), dtype),
        ops.literal(2 ** (_LOST - 1), dtype),
        ops.literal(0, dtype),
        dtype,
    )
    short = fn.value(f"or {kind} {_integer(ops, 'and', a, -(2**_LOST), dtype)}, {mark}")
    if is_signed(dtype):
        moved, reach = _integer(ops, "add", a, 2**53, dtype), 2**54
    else:
        moved, reach = a, 2**53
    return ops.select(ops.compare("ugt", moved, ops.literal(reach, dtype), dtype), short, a, dtype)


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


def _from_half(ops: Ops, a: str) -> str:
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


def _to_half(ops: Ops, a: str) -> str:
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


def _to_bfloat(ops: Ops, a: str, is_plain: bool) -> str:
    """f32 as bf16: just below half of the last place is added, or half where that is odd."""
    fn, wide = ops.fn, ops.kind("u32")
    bits = _bits(ops, a, "f32", "u32")
    odd = _integer(ops, "and", _integer(ops, "lshr", bits, 16), 1)
    near = fn.value(f"add {wide} {_integer(ops, 'add', bits, 0x7FFF)}, {odd}")
    if not is_plain:
        is_nan = ops.compare("uno", a, a, "f32")
        near = ops.select(is_nan, _integer(ops, "or", bits, QUIET), near, "u32")
    return _upper(ops, near)


def _upper(ops: Ops, bits: str) -> str:
    """The upper halves of 32 bits, as bf16."""
    upper = _integer(ops, "lshr", bits, 16)
    return ops.fn.value(f"trunc {ops.kind('u32')} {upper} to {ops.kind('bf16')}")
