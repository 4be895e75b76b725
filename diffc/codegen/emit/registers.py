"""Values in registers: their types, and cutting and joining vectors."""

from __future__ import annotations

from collections.abc import Sequence

from diffc.codegen.emit.text import (
    LLVM_TYPES,
    FunctionText,
    bfloat_bits,
    constant,
    intrinsic_suffix,
    vector_type,
)
from diffc.codegen.targets import FLOATS, ITEM_BYTES

__all__ = [
    "FLOATS",
    "bits_of",
    "concatenate",
    "fenced",
    "is_signed",
    "number",
    "register",
    "reverse_lanes",
    "shuffle",
    "slice_lanes",
    "store_some",
]


def register(dtype: str) -> str:
    """LLVM type of a scalar of `dtype` in a register."""
    return "i1" if dtype == "bool" else LLVM_TYPES[dtype]


def number(value: float | bool, dtype: str, lanes: int = 1) -> str:
    """A literal of `dtype`, rounded to it, in all lanes; the type is not part of it."""
    found = bfloat_bits(float(value)) if dtype == "bf16" else value
    return constant(found, register(dtype), lanes)


def bits_of(dtype: str) -> int:
    """Width of a number of `dtype`."""
    return 8 * ITEM_BYTES[dtype]


def is_signed(dtype: str) -> bool:
    """Whether an integer dtype has a sign."""
    return dtype[0] == "i"


def shuffle(fn: FunctionText, a: str, b: str, kind: str, picks: Sequence[int]) -> str:
    """Lanes of `a` and `b` (vectors of `kind`) by number; the result has one for each pick."""
    lanes = ", ".join(f"i32 {pick}" for pick in picks)
    return fn.value(f"shufflevector {kind} {a}, {kind} {b}, <{len(picks)} x i32> <{lanes}>")


def fenced(fn: FunctionText, a: str, scalar: str, lanes: int) -> str:
    """A vector; for LLVM, one whose lanes are not known to come from another.

    LLVM moves operations from behind a shuffle to before it and back. Lanes that are picked from
    64 bytes, of which AVX-512 has no shuffle without VBMI, it moves for ever.
    """
    if scalar != "i8" or lanes != 64:
        return a
    kind, floats = vector_type(scalar, lanes), vector_type("float", 16)
    bits = fn.value(f"bitcast {kind} {a} to {floats}")
    fence = fn.call(floats, "llvm.arithmetic.fence.v16f32", (floats, bits))
    return fn.value(f"bitcast {floats} {fence} to {kind}")


def slice_lanes(fn: FunctionText, a: str, scalar: str, lanes: int, first: int, count: int) -> str:
    """`count` lanes of a vector, from lane `first` on; one lane is a scalar."""
    if first == 0 and count == lanes:
        return a
    kind = vector_type(scalar, lanes)
    if count == 1:
        return fn.value(f"extractelement {kind} {a}, i64 {first}")
    return shuffle(fn, a, "poison", kind, range(first, first + count))


def concatenate(fn: FunctionText, parts: Sequence[str], scalar: str, lanes: int) -> str:
    """One vector of parts of `lanes` (two at least) lanes each."""
    level = list(parts)
    while len(level) > 1:
        joined = []
        kind = vector_type(scalar, lanes)
        for index in range(0, len(level) - 1, 2):
            joined.append(shuffle(fn, level[index], level[index + 1], kind, range(2 * lanes)))
        if len(level) % 2:
            picks = range(2 * lanes)  # the second half is poison
            joined.append(shuffle(fn, level[-1], "poison", kind, picks))
        level, lanes = joined, 2 * lanes
    return level[0]


def reverse_lanes(fn: FunctionText, a: str, scalar: str, lanes: int) -> str:
    """A vector with its lanes in the other order."""
    if lanes == 1:
        return a
    return shuffle(fn, a, "poison", vector_type(scalar, lanes), range(lanes - 1, -1, -1))


def store_some(
    fn: FunctionText, scalar: str, lanes: int, value: str, pointer: str, align: int, mask: str
) -> None:
    """Stores the lanes of a vector for which a mask holds; `align` is the size of one.

    One lane that is known is stored as a scalar, which LLVM would do too. But of a vector that was
    truncated (numbers of 16 bits made in 32) LLVM 22 on x86 then stores the wide element, which
    reaches beyond its place.
    """
    known = [bit.strip() == "i1 1" for bit in mask[1:-1].split(",")] if mask[0] == "<" else []
    if sum(known) == 1:
        lane = known.index(True)
        place = fn.gep(pointer, lane * align)
        fn.store(scalar, slice_lanes(fn, value, scalar, lanes, lane, 1), place, align)
        return
    fn.call(
        "void",
        f"llvm.masked.store.{intrinsic_suffix(scalar, lanes)}.p0",
        (vector_type(scalar, lanes), value),
        ("ptr", pointer),
        ("i32", str(align)),
        (vector_type("i1", lanes), mask),
    )
