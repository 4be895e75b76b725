"""The closed set of scalar ops as LLVM instructions, on scalars and on vectors alike.

Each op has NumPy's meaning, by itself and without flags: integers wrap, division by zero of
integers gives 0, shifts by the width or more give 0 (or the sign), `maximum` passes NaN on. Nothing
here traps and nothing is undefined: operands that LLVM leaves undefined are replaced first.

f16 and bf16 are computed in f32 and rounded after each op. A float that does not fit an integer
type converts as x86 does it: to the least i32 or i64, of which narrower types keep the low bits.
`bool` is `i1` in registers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from diffc.codegen.emit import half
from diffc.codegen.emit.divide import float_divmod, integer_divmod, integer_power
from diffc.codegen.emit.math import FUNCTIONS, VectorMath
from diffc.codegen.emit.registers import (
    FLOATS,
    bits_of,
    concatenate,
    is_signed,
    number,
    register,
    slice_lanes,
)
from diffc.codegen.emit.text import FunctionText, intrinsic_suffix, vector_type
from diffc.codegen.targets import HALVES, Target
from diffc.errors import InternalError

__all__ = ["ELEMENTARY", "Ops"]

ELEMENTARY = frozenset(FUNCTIONS)
FLOAT_PREDICATES = {"eq": "oeq", "ne": "une", "lt": "olt", "le": "ole", "gt": "ogt", "ge": "oge"}
FLOAT_BINARY = {"add": "fadd", "sub": "fsub", "mul": "fmul", "div": "fdiv"}
FLOAT_UNARY = {
    "abs": "fabs",
    "sqrt": "sqrt",
    "floor": "floor",
    "ceil": "ceil",
    "round": "rint",
    "trunc": "trunc",
}
# Of these, results of 16 bits need no rounding; of those, nan comes from operands or arithmetic
# (tried of all operands, for functions of one).
KEPT = frozenset({"maximum", "minimum", "sign", "floor", "ceil", "round", "trunc"})
PLAIN = frozenset({*FLOAT_BINARY, "sqrt", "fma", *ELEMENTARY} - {"pow", "arctan2"})
INTEGER_BINARY = {
    "add": "add",
    "sub": "sub",
    "mul": "mul",
    "bitwise_and": "and",
    "bitwise_or": "or",
    "bitwise_xor": "xor",
}
BOOL_BINARY = {
    "add": "or",
    "mul": "and",
    "maximum": "or",
    "minimum": "and",
    "bitwise_and": "and",
    "bitwise_or": "or",
    "bitwise_xor": "xor",
}


@dataclass(frozen=True, slots=True)
class Ops:
    """Writes ops on values of `lanes` lanes into a function.

    Attributes:
        fn: The function.
        target: The machine.
        lanes: Lanes of every operand.
    """

    fn: FunctionText
    target: Target
    lanes: int

    def kind(self, dtype: str) -> str:
        """LLVM type of a value of `dtype` in registers."""
        return vector_type(register(dtype), self.lanes)

    def literal(self, value: float | bool, dtype: str) -> str:
        """A constant in every lane."""
        return number(value, dtype, self.lanes)

    def unary(self, text: str, dtype: str, name: str) -> str:
        """A unary intrinsic of a float dtype."""
        kind = self.kind(dtype)
        suffix = intrinsic_suffix(register(dtype), self.lanes)
        return self.fn.call(kind, f"llvm.{name}.{suffix}", (kind, text))

    def select(self, mask: str, a: str, b: str, dtype: str) -> str:
        """`a` where the mask holds, else `b`."""
        kind = self.kind(dtype)
        return self.fn.value(f"select {self.kind('bool')} {mask}, {kind} {a}, {kind} {b}")

    def compare(self, predicate: str, a: str, b: str, dtype: str) -> str:
        """A mask by `fcmp` or `icmp`."""
        if dtype in HALVES:
            a, b, dtype = half.widen(self, a, dtype), half.widen(self, b, dtype), "f32"
        name = "fcmp" if dtype in FLOATS else "icmp"
        return self.fn.value(f"{name} {predicate} {self.kind(dtype)} {a}, {b}")

    def apply(self, name: str, dtype: str, sources: Sequence[str], args: Sequence[str]) -> str:
        """An op of the closed set.

        Args:
            name: The op.
            dtype: Its result's dtype.
            sources: Dtype of each operand.
            args: The operands.

        Raises:
            InternalError: The op does not exist for these dtypes.
        """
        if name == "convert":
            return self.convert(args[0], sources[0], dtype)
        if name == "bitcast":
            return self._bitcast(args[0], sources[0], dtype)
        if name == "select":
            return self.select(args[0], args[1], args[2], dtype)
        source = sources[0]
        if source in HALVES:
            return self._through_single(name, dtype, sources, args)
        if source in FLOATS:
            return self._float(name, source, args)
        if source == "bool":
            return self._bool(name, args)
        return self._integer(name, source, args)

    def _through_single(
        self, name: str, dtype: str, sources: Sequence[str], args: Sequence[str]
    ) -> str:
        if name in ("neg", "abs"):
            change = half.negate if name == "neg" else half.size
            return change(self, args[0], sources[0])
        wide = [self.convert(arg, source, "f32") for arg, source in zip(args, sources, strict=True)]
        result = self._float(name, "f32", wide)
        if dtype not in HALVES:
            return result
        if name in KEPT:
            return half.cut(self, result, dtype)
        return half.narrow(self, result, dtype, is_plain=name in PLAIN)

    def _float(self, name: str, dtype: str, args: Sequence[str]) -> str:
        kind, a = self.kind(dtype), args[0]
        if name in FLOAT_BINARY:
            return self.fn.value(f"{FLOAT_BINARY[name]} {kind} {a}, {args[1]}")
        if name in FLOAT_PREDICATES:
            return self.compare(FLOAT_PREDICATES[name], a, args[1], dtype)
        if name in FLOAT_UNARY:
            return self.unary(a, dtype, FLOAT_UNARY[name])
        if name in ELEMENTARY:
            return self._elementary(name, dtype, args)
        match name:
            case "neg":
                return self.fn.value(f"fneg {kind} {a}")
            case "maximum" | "minimum":
                # of two equal ones (zeros) the second; the first if it is NaN
                order = "ogt" if name == "maximum" else "olt"
                best = self.select(self.compare(order, a, args[1], dtype), a, args[1], dtype)
                return self.select(self.compare("uno", a, a, dtype), a, best, dtype)
            case "sign":
                zero, one = self.literal(0.0, dtype), self.literal(1.0, dtype)
                nan_or_zero = self.select(self.compare("une", a, a, dtype), a, zero, dtype)
                down = self.select(
                    self.compare("olt", a, zero, dtype),
                    self.literal(-1.0, dtype),
                    nan_or_zero,
                    dtype,
                )
                return self.select(self.compare("ogt", a, zero, dtype), one, down, dtype)
            case "floor_divide" | "remainder":
                quotient, remainder = float_divmod(self, dtype, a, args[1])
                return quotient if name == "floor_divide" else remainder
            case "is_nan":
                return self.compare("uno", a, a, dtype)
            case "is_inf" | "is_finite":
                size = self.unary(a, dtype, "fabs")
                order = "oeq" if name == "is_inf" else "olt"
                return self.compare(order, size, self.literal(float("inf"), dtype), dtype)
            case "fma":
                suffix = intrinsic_suffix(register(dtype), self.lanes)
                operands = [(kind, arg) for arg in args]
                return self.fn.call(kind, f"llvm.fma.{suffix}", *operands)
        raise InternalError(f"no scalar op {name} for {dtype}")

    def _elementary(self, name: str, dtype: str, args: Sequence[str]) -> str:
        """Calls the vector functions on one register at a time: their constants fill the rest."""
        native = max(1, self.target.lanes(dtype))
        if self.lanes <= native:
            return VectorMath(self.fn, dtype, self.lanes, self.target).call(name, *args)
        math = VectorMath(self.fn, dtype, native, self.target)
        scalar, parts = register(dtype), []
        for first in range(0, self.lanes, native):
            cut = [slice_lanes(self.fn, arg, scalar, self.lanes, first, native) for arg in args]
            parts.append(math.call(name, *cut))
        return concatenate(self.fn, parts, scalar, native)

    def _bool(self, name: str, args: Sequence[str]) -> str:
        kind = self.kind("bool")
        if name in BOOL_BINARY:
            return self.fn.value(f"{BOOL_BINARY[name]} {kind} {args[0]}, {args[1]}")
        if name in FLOAT_PREDICATES:
            predicate = _integer_predicate(name, "u8")
            return self.fn.value(f"icmp {predicate} {kind} {args[0]}, {args[1]}")
        if name == "bitwise_not":
            return self.fn.value(f"xor {kind} {args[0]}, {self.literal(True, 'bool')}")
        if name == "abs":
            return args[0]
        raise InternalError(f"no scalar op {name} for bool")

    def _integer(self, name: str, dtype: str, args: Sequence[str]) -> str:
        kind, a = self.kind(dtype), args[0]
        zero = self.literal(0, dtype)
        if name in INTEGER_BINARY:
            return self.fn.value(f"{INTEGER_BINARY[name]} {kind} {a}, {args[1]}")
        if name in FLOAT_PREDICATES:
            return self.compare(_integer_predicate(name, dtype), a, args[1], dtype)
        signed = is_signed(dtype)
        match name:
            case "neg":
                return self.fn.value(f"sub {kind} {zero}, {a}")
            case "bitwise_not":
                return self.fn.value(f"xor {kind} {a}, {self.literal(-1, dtype)}")
            case "abs":
                if not signed:
                    return a
                negative = self.compare("slt", a, zero, dtype)
                return self.select(negative, self.fn.value(f"sub {kind} {zero}, {a}"), a, dtype)
            case "sign":
                positive = self.compare("sgt" if signed else "ne", a, zero, dtype)
                up = self.select(positive, self.literal(1, dtype), zero, dtype)
                if not signed:
                    return up
                negative = self.compare("slt", a, zero, dtype)
                return self.select(negative, self.literal(-1, dtype), up, dtype)
            case "floor" | "ceil" | "round" | "trunc":
                return a
            case "maximum" | "minimum":
                order = ("s" if signed else "u") + ("gt" if name == "maximum" else "lt")
                return self.select(self.compare(order, a, args[1], dtype), a, args[1], dtype)
            case "floor_divide" | "remainder":
                quotient, remainder = integer_divmod(self, dtype, a, args[1])
                return quotient if name == "floor_divide" else remainder
            case "shift_left" | "shift_right":
                return self._shift(name, dtype, a, args[1])
            case "pow":
                return integer_power(self, dtype, a, args[1])
            case "is_nan" | "is_inf":
                return self.literal(False, "bool")
            case "is_finite":
                return self.literal(True, "bool")
            case "fma":
                product = self.fn.value(f"mul {kind} {a}, {args[1]}")
                return self.fn.value(f"add {kind} {product}, {args[2]}")
        raise InternalError(f"no scalar op {name} for {dtype}")

    def _shift(self, name: str, dtype: str, a: str, by: str) -> str:
        width, kind = bits_of(dtype), self.kind(dtype)
        inside = self.compare("ult", by, self.literal(width, dtype), dtype)
        if name == "shift_right" and is_signed(dtype):
            amount = self.select(inside, by, self.literal(width - 1, dtype), dtype)
            return self.fn.value(f"ashr {kind} {a}, {amount}")
        zero = self.literal(0, dtype)
        amount = self.select(inside, by, zero, dtype)
        op = "shl" if name == "shift_left" else "lshr"
        return self.select(inside, self.fn.value(f"{op} {kind} {a}, {amount}"), zero, dtype)

    # --- conversions

    def convert(self, a: str, source: str, dtype: str) -> str:
        """A value of `source` as `dtype`; to bool: whether it is not 0."""
        if source == dtype:
            return a
        old, new = self.kind(source), self.kind(dtype)
        if source in HALVES:
            return self.convert(half.widen(self, a, source), "f32", dtype)
        if dtype in HALVES:
            return self._to_half(a, source, dtype)
        if dtype == "bool":
            predicate = "une" if source in FLOATS else "ne"
            return self.compare(predicate, a, self.literal(0, source), source)
        if source == "bool":
            return self._cast("uitofp" if dtype in FLOATS else "zext", a, old, new)
        if source in FLOATS and dtype in FLOATS:
            widens = bits_of(dtype) > bits_of(source)
            return self._cast("fpext" if widens else "fptrunc", a, old, new)
        if source in FLOATS:
            return self._to_integer(a, source, dtype)
        if dtype in FLOATS:
            return self._cast("sitofp" if is_signed(source) else "uitofp", a, old, new)
        if bits_of(source) == bits_of(dtype):
            return a
        if bits_of(dtype) < bits_of(source):
            return self._cast("trunc", a, old, new)
        return self._cast("sext" if is_signed(source) else "zext", a, old, new)

    def _to_half(self, a: str, source: str, dtype: str) -> str:
        """Conversions to 16 bits, rounded once: through f32, where what is inexact is odd."""
        if source in ("i64", "u64"):
            a = half.marked(self, a, source)
        if source in ("i32", "u32", "i64", "u64"):
            a, source = self.convert(a, source, "f64"), "f64"
        if source == "f64":
            a = half.round_to_odd(self, a)
        else:
            a = self.convert(a, source, "f32")
        return half.narrow(self, a, dtype)

    def _cast(self, name: str, a: str, old: str, new: str) -> str:
        return self.fn.value(f"{name} {old} {a} to {new}")

    def _bitcast(self, a: str, source: str, dtype: str) -> str:
        old, new = self.kind(source), self.kind(dtype)
        return a if old == new else self._cast("bitcast", a, old, new)

    def _to_integer(self, a: str, source: str, dtype: str) -> str:
        if dtype == "u64":
            return self._to_u64(a, source)
        through = "i64" if dtype in ("i64", "u32") else "i32"
        number = self._to_signed(a, source, through)
        return self.convert(number, through, dtype)

    def _to_signed(self, a: str, source: str, through: str) -> str:
        limit = 2.0 ** (bits_of(through) - 1)
        small = self.compare("olt", a, self.literal(limit, source), source)
        large = self.compare("oge", a, self.literal(-limit, source), source)
        fits = self.fn.value(f"and {self.kind('bool')} {small}, {large}")
        safe = self.select(fits, a, self.literal(0.0, source), source)
        number = self._cast("fptosi", safe, self.kind(source), self.kind(through))
        return self.select(fits, number, self.literal(-int(limit), through), through)

    def _to_u64(self, a: str, source: str) -> str:
        top = self.literal(2.0**63, source)
        is_high = self.compare("oge", a, top, source)
        low = self.fn.value(f"fsub {self.kind(source)} {a}, {top}")
        reduced = self.select(is_high, low, a, source)
        number = self._to_signed(reduced, source, "i64")
        kind = self.kind("i64")
        high = self.fn.value(f"xor {kind} {number}, {self.literal(-(2**63), 'i64')}")
        return self.select(is_high, high, number, "i64")


def _integer_predicate(name: str, dtype: str) -> str:
    if name in ("eq", "ne"):
        return name
    return ("s" if is_signed(dtype) else "u") + name
