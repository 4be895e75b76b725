"""A quick builder of LLVM IR as text.

A `ModuleText` collects functions, globals, declarations and metadata; a `FunctionText` is a list
of lines with fresh SSA names, labels, counted loops and guarded blocks. Types are LLVM's own
spelling (`float`, `<8 x double>`, `ptr`), values are SSA names (`%v3`) or literals.

Invariants: every name handed out is fresh within its function; a float literal denotes exactly
the value rounded to its type; a vector of one lane is the scalar type itself, so one code path
serves both. Nothing here knows a target; the text carries no triple and no data layout.
"""

import math
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import blake2b

__all__ = [
    "FLOAT_TYPES",
    "LLVM_TYPES",
    "Arm",
    "FunctionText",
    "Loop",
    "ModuleText",
    "bfloat_bits",
    "constant",
    "float_literal",
    "intrinsic_suffix",
    "round_to",
    "vector_type",
]

LLVM_TYPES = {
    "bool": "i8",
    "i8": "i8",
    "i16": "i16",
    "i32": "i32",
    "i64": "i64",
    "u8": "i8",
    "u16": "i16",
    "u32": "i32",
    "u64": "i64",
    "bf16": "i16",
    "f16": "half",
    "f32": "float",
    "f64": "double",
}
"""Type in memory of each dtype.

bf16 is its bits: of LLVM's own `bfloat` x86 without AVX512-BF16 makes scalar code and calls, even
for loads, selects and shuffles of vectors.
"""

FLOAT_TYPES = frozenset({"half", "float", "double"})
INTRINSIC_NAMES = {"half": "f16", "float": "f32", "double": "f64", "ptr": "p0"}
PACK_FORMATS = {"half": "<e", "float": "<f", "double": "<d"}
UNLIKELY = '!{!"branch_weights", i32 1, i32 4000}'


def vector_type(scalar: str, lanes: int) -> str:
    """`<lanes x scalar>`, or the scalar itself for one lane."""
    return scalar if lanes == 1 else f"<{lanes} x {scalar}>"


def intrinsic_suffix(scalar: str, lanes: int) -> str:
    """The overload suffix of an intrinsic: `v16f32`, `f64`, `v8i32`."""
    name = INTRINSIC_NAMES.get(scalar, scalar)
    return name if lanes == 1 else f"v{lanes}{name}"


def round_to(value: float, scalar: str) -> float:
    """`value` rounded to the nearest value of a float type; too large becomes infinite."""
    if scalar == "double" or math.isnan(value) or math.isinf(value):
        return value
    form = PACK_FORMATS[scalar]
    try:
        (rounded,) = struct.unpack(form, struct.pack(form, value))
    except OverflowError:
        return math.copysign(math.inf, value)
    return float(rounded)


def float_literal(value: float, scalar: str) -> str:
    """The exact literal of `value` rounded to `scalar`."""
    value = round_to(value, scalar)
    if scalar == "half":
        (half,) = struct.unpack("<H", struct.pack("<e", value))
        return f"0xH{half:04X}"
    (bits,) = struct.unpack("<Q", struct.pack("<d", value))
    return f"0x{bits:016X}"


def bfloat_bits(value: float) -> int:
    """The bits of `value` rounded to bf16, to nearest even."""
    if math.isnan(value):
        return 0x7FC0
    if abs(value) < 2.0**128:
        fraction, exponent = math.frexp(value)
        digits = min(8, exponent + 133)  # fewer below 2**-126
        size = math.ldexp(round(math.ldexp(abs(fraction), digits)), exponent - digits)
        value = math.copysign(size, value)
    (bits,) = struct.unpack("<I", struct.pack("<f", round_to(value, "float")))
    return int(bits) >> 16


def constant(value: float | bool, scalar: str, lanes: int = 1) -> str:
    """A literal of `scalar`, splatted over `lanes`; the type is not part of it."""
    if scalar in FLOAT_TYPES:
        literal = float_literal(float(value), scalar)
    else:
        literal = str(int(value))
    return literal if lanes == 1 else f"splat ({scalar} {literal})"


@dataclass(slots=True)
class Loop:
    """A counted loop being built.

    Attributes:
        index: The induction variable (`i64`).
        carried: Names of the carried values in this trip.
        next: To be set by the body: the carried values of the next trip, in the same order.
        results: The carried values after the loop; valid once its context is left.
    """

    index: str
    carried: list[str]
    next: list[str] = field(default_factory=list)
    results: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Arm:
    """A guarded block being built.

    Attributes:
        values: To be set by the body: what replaces the `otherwise` values, in the same order.
        merged: The values after the block; valid once its context is left.
    """

    values: list[str] = field(default_factory=list)
    merged: list[str] = field(default_factory=list)


class ModuleText:
    """Functions, globals and declarations of one LLVM module."""

    __slots__ = ("_declarations", "_functions", "_globals", "_metadata", "_names")

    def __init__(self) -> None:
        self._functions: list[FunctionText | str] = []
        self._declarations: dict[str, None] = {}
        self._globals: dict[str, str] = {}
        self._metadata: dict[str, int] = {}
        self._names: set[str] = set()

    def function(
        self,
        name: str,
        result: str,
        parameters: Sequence[tuple[str, str]],
        *,
        attributes: str = "nounwind",
        internal: bool = False,
    ) -> "FunctionText":
        """A new function, appended to the module.

        Args:
            name: Symbol without `@`.
            result: Result type.
            parameters: Type (with its attributes, as in `ptr noalias readonly`) and name
                (with `%`) of each parameter.
            attributes: Function attributes, written after the parameters.
            internal: Whether the function is invisible outside the module.

        Raises:
            ValueError: The module has a function of that name.
        """
        if name in self._names:
            raise ValueError(f"module already defines @{name}")
        self._names.add(name)
        signature = ", ".join(f"{kind} {parameter}" for kind, parameter in parameters)
        linkage = "internal " if internal else ""
        made = FunctionText(self, f"define {linkage}{result} @{name}({signature}) {attributes} {{")
        self._functions.append(made)
        return made

    def fresh_name(self, stem: str) -> str:
        """A function name that the module does not define yet (it is not reserved)."""
        if stem not in self._names:
            return stem
        number = 1
        while f"{stem}_{number}" in self._names:
            number += 1
        return f"{stem}_{number}"

    def declare(self, line: str) -> None:
        """Add a declaration line once, such as `declare double @llvm.fabs.f64(double)`."""
        self._declarations[line] = None

    def add_global(self, name: str, definition: str) -> str:
        """Define `@name` once as `definition` (`internal constant ...`); returns `@name`.

        Raises:
            ValueError: The name has another definition.
        """
        known = self._globals.setdefault(name, definition)
        if known != definition:
            raise ValueError(f"module already defines @{name} otherwise")
        return f"@{name}"

    def fresh_global(self, stem: str) -> str:
        """A name that no global has."""
        number = 0
        while f"{stem}{number}" in self._globals:
            number += 1
        return f"{stem}{number}"

    def add_text(self, text: str) -> None:
        """Append a function that was written elsewhere, as it stands."""
        self._functions.append(text)

    def add_once(self, stem: str, text: str) -> str:
        """Append an internal function that names itself `@SELF`, unless the module has it already.

        Returns:
            Its name, made from `stem` and a digest of the text: equal functions are one.
        """
        name = f"{stem}_{blake2b(text.encode(), digest_size=8).hexdigest()}"
        if name not in self._names:
            self._names.add(name)
            self._functions.append(text.replace("@SELF", f"@{name}"))
        return name

    def metadata(self, node: str) -> str:
        """The reference (`!3`) of a metadata node, added once."""
        return f"!{self._metadata.setdefault(node, len(self._metadata))}"

    def text(self) -> str:
        """The module. Every function must be finished."""
        parts = [f"@{name} = {definition}" for name, definition in self._globals.items()]
        parts += [item if isinstance(item, str) else item.text() for item in self._functions]
        parts += sorted(self._declarations)
        parts += [f"!{number} = {node}" for node, number in self._metadata.items()]
        return "\n".join(parts) + "\n"


class FunctionText:
    """One function under construction; made by `ModuleText.function`.

    Attributes:
        module: The module that the function belongs to.
        block: Label of the block that lines are added to.
    """

    __slots__ = ("_count", "_lines", "_stack", "block", "module")

    def __init__(self, module: ModuleText, head: str) -> None:
        self.module = module
        self.block = "entry"
        self._lines: list[str] = [head, "entry:"]
        self._count = 0
        self._stack: dict[str, tuple[str, int]] = {}

    def fresh(self, stem: str = "v") -> str:
        """A new SSA name."""
        self._count += 1
        return f"%{stem}{self._count}"

    def emit(self, line: str) -> None:
        """Add an instruction that has no result."""
        self._lines.append(f"  {line}")

    def value(self, instruction: str) -> str:
        """Add an instruction and return the fresh name of its result."""
        self._count += 1
        name = f"%v{self._count}"
        self._lines.append(f"  {name} = {instruction}")
        return name

    def fresh_label(self, stem: str = "b") -> str:
        """A new label; `label` places it."""
        self._count += 1
        return f"{stem}{self._count}"

    def label(self, label: str) -> None:
        """Start the block `label`; the block before must have ended in a terminator."""
        self._lines.append(f"{label}:")
        self.block = label

    def jump(self, label: str) -> None:
        """End the block by going to `label`."""
        self.emit(f"br label %{label}")

    def branch(self, condition: str, yes: str, no: str) -> None:
        """End the block by going to `yes` where `condition` (i1) holds, else to `no`."""
        self.emit(f"br i1 {condition}, label %{yes}, label %{no}")

    def call(
        self, result: str, name: str, *arguments: tuple[str, str], declare: bool = True
    ) -> str:
        """Call `@name` with (type, value) arguments; the result's name, or "" for void.

        With `declare`, the module gets a matching declaration: right for intrinsics and imported
        symbols, wrong for functions that the module defines.
        """
        if declare:
            kinds = ", ".join(kind for kind, _ in arguments)
            self.module.declare(f"declare {result} @{name}({kinds})")
        passed = ", ".join(f"{kind} {value}" for kind, value in arguments)
        if result == "void":
            self.emit(f"call void @{name}({passed})")
            return ""
        return self.value(f"call {result} @{name}({passed})")

    def gep(self, pointer: str, offset: str | int) -> str:
        """`pointer` moved by a number of bytes within its object."""
        if offset in (0, "0"):
            return pointer
        return self.value(f"getelementptr inbounds i8, ptr {pointer}, i64 {offset}")

    def index(self, pointer: str, scalar: str, offset: str | int) -> str:
        """`pointer` moved by a number of elements of type `scalar` within its object."""
        if offset in (0, "0"):
            return pointer
        return self.value(f"getelementptr inbounds {scalar}, ptr {pointer}, i64 {offset}")

    def scaled(self, index: str, factor: int) -> str:
        """`index * factor` for a non-negative `i64` that does not overflow."""
        if factor == 0 or index == "0":
            return "0"
        if factor == 1:
            return index
        if index.lstrip("-").isdigit():
            return str(int(index) * factor)
        return self.value(f"mul nuw nsw i64 {index}, {factor}")

    def load(self, kind: str, pointer: str, align: int) -> str:
        """Load a value of type `kind`."""
        return self.value(f"load {kind}, ptr {pointer}, align {align}")

    def store(self, kind: str, value: str, pointer: str, align: int) -> None:
        """Store a value of type `kind`."""
        self.emit(f"store {kind} {value}, ptr {pointer}, align {align}")

    def broadcast(self, value: str, scalar: str, lanes: int) -> str:
        """A scalar in every lane."""
        if lanes == 1:
            return value
        kind = vector_type(scalar, lanes)
        first = self.value(f"insertelement {kind} poison, {scalar} {value}, i64 0")
        return self.value(
            f"shufflevector {kind} {first}, {kind} poison, <{lanes} x i32> zeroinitializer"
        )

    @contextmanager
    def loop(
        self,
        count: str | int,
        carried: Sequence[tuple[str, str]] = (),
        *,
        start: str | int = 0,
        step: int = 1,
        may_be_empty: bool = False,
    ) -> Iterator[Loop]:
        """Count an index from `start` by `step` while it is below `count` (all `i64`).

        The body is tested at its end: it runs once at least, unless `may_be_empty` asks for a
        test before it. With a step other than 1, the trip that would reach past `count` still
        runs when its index is below it.

        Args:
            count: End of the range, a literal or an SSA name.
            carried: Type and initial value of each value carried from trip to trip; the body
                sets `Loop.next`, and `Loop.results` are the values after the loop.
            start: First index.
            step: Increment, positive.
            may_be_empty: Whether the range can be empty; then `results` are the initial values.

        Raises:
            ValueError: The body did not set one next value for each carried one.
        """
        head, exit_label = self.fresh_label("loop"), self.fresh_label("exit")
        before = self.block
        if may_be_empty:
            some = self.value(f"icmp slt i64 {start}, {count}")
            self.branch(some, head, exit_label)
        else:
            self.jump(head)
        self.label(head)
        place = len(self._lines)
        self._lines.append("")
        index = self.fresh("i")
        loop = Loop(index, [self.fresh("c") for _ in carried])
        yield loop
        if len(loop.next) != len(loop.carried):
            raise ValueError(f"loop carries {len(loop.carried)} values, body set {len(loop.next)}")
        latch = self.block
        following = self.value(f"add nuw nsw i64 {index}, {step}")
        again = self.value(f"icmp slt i64 {following}, {count}")
        self.branch(again, head, exit_label)
        phis = [f"  {index} = phi i64 [ {start}, %{before} ], [ {following}, %{latch} ]"]
        phis += [
            f"  {name} = phi {kind} [ {initial}, %{before} ], [ {later}, %{latch} ]"
            for name, (kind, initial), later in zip(loop.carried, carried, loop.next, strict=True)
        ]
        self._lines[place] = "\n".join(phis)
        self.label(exit_label)
        loop.results = list(loop.next)
        if may_be_empty:
            loop.results = [
                self.value(f"phi {kind} [ {initial}, %{before} ], [ {later}, %{latch} ]")
                for (kind, initial), later in zip(carried, loop.next, strict=True)
            ]

    @contextmanager
    def when(
        self,
        condition: str,
        otherwise: Sequence[tuple[str, str]] = (),
        *,
        unlikely: bool = False,
    ) -> Iterator[Arm]:
        """Run the body only where `condition` (i1) holds.

        Args:
            condition: A scalar `i1`.
            otherwise: Type and value of each result where the condition fails; the body sets
                `Arm.values`, and `Arm.merged` are the results after the block.
            unlikely: Whether the block is cold, which moves it out of the way.

        Raises:
            ValueError: The body did not set one value for each of `otherwise`.
        """
        inside, after = self.fresh_label("when"), self.fresh_label("after")
        before = self.block
        weights = f", !prof {self.module.metadata(UNLIKELY)}" if unlikely else ""
        self.emit(f"br i1 {condition}, label %{inside}, label %{after}{weights}")
        self.label(inside)
        arm = Arm()
        yield arm
        if len(arm.values) != len(otherwise):
            raise ValueError(f"block yields {len(otherwise)} values, body set {len(arm.values)}")
        last = self.block
        self.jump(after)
        self.label(after)
        arm.merged = [
            self.value(f"phi {kind} [ {value}, %{before} ], [ {taken}, %{last} ]")
            for (kind, value), taken in zip(otherwise, arm.values, strict=True)
        ]

    def stack(self, key: str, size: int) -> str:
        """A 64-byte aligned stack area of at least `size` bytes, one for each `key`.

        It is allocated where the function is entered, so that loops do not grow the stack;
        whoever uses the same key shares the area.
        """
        name, known = self._stack.get(key, (f"%stack{len(self._stack)}", 0))
        self._stack[key] = name, max(size, known)
        return name

    def divert(self, lines: list[str], block: str) -> tuple[list[str], str]:
        """Send what follows to `lines`, which continue `block`; returns what these were before.

        So code can still be added at an earlier place: lines kept aside there are put in later.
        """
        before = self._lines, self.block
        self._lines, self.block = lines, block
        return before

    def ret(self, kind: str = "void", value: str = "") -> None:
        """Return, which ends the block."""
        self.emit(f"ret {kind} {value}".rstrip())

    def text(self) -> str:
        """The function; its last block must have ended in a terminator."""
        areas = [
            f"  {name} = alloca [{size} x i8], align 64" for name, size in self._stack.values()
        ]
        return "\n".join([*self._lines[:2], *areas, *self._lines[2:], "}"])
