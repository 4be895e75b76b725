"""A compiled program and what its operands must be; `run` calls it from Python.

`run` is the complete path: it takes arrays of any layout, copies where memory overlaps, allocates,
checks the status, and obeys guard mode. `entry.native_entry` is the same for the common case, in
emitted code, and comes back here for everything else.

Operands are pointers to C-contiguous data, aligned to the item size (the arena to 64 bytes).
Types and shapes must be right already: whoever calls has the avals.
"""

import ctypes
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NoReturn

import numpy as np
from numpy.lib.array_utils import byte_bounds
from numpy.typing import NDArray

from diffc.errors import ExecutionError, InternalError, UsageError
from diffc.runtime import blocks, guard, stores
from diffc.runtime.build import Library
from diffc.runtime.memory import ArenaPool

__all__ = [
    "SCALAR_DTYPES",
    "Executable",
    "InputSpec",
    "Kind",
    "OutputSpec",
    "StatusMessage",
    "Writeback",
]

Kind = Literal["array", "float", "int", "bool"]
Array = NDArray[Any]

# What a Python scalar of each kind is for the program.
SCALAR_DTYPES: dict[str, np.dtype[Any]] = {
    "float": np.dtype(np.float64),
    "int": np.dtype(np.int64),
    "bool": np.dtype(np.bool_),
}
_PROGRAM = ctypes.CFUNCTYPE(ctypes.c_int64, *[ctypes.c_void_p] * 3, ctypes.c_int64)


@dataclass(frozen=True, slots=True)
class InputSpec:
    """One input.

    Attributes:
        dtype: Its dtype, in native byte order.
        shape: Its shape.
        kind: `array`, or the Python type of a scalar that is passed at run time; a scalar has shape
            `()` and the dtype of `SCALAR_DTYPES`.
    """

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    kind: Kind = "array"

    def __post_init__(self) -> None:
        if self.kind != "array" and (self.shape or self.dtype != SCALAR_DTYPES[self.kind]):
            raise UsageError(
                f"a Python {self.kind} is {SCALAR_DTYPES[self.kind]}[], "
                f"not {self.dtype}{list(self.shape)}"
            )


@dataclass(frozen=True, slots=True)
class OutputSpec:
    """One output.

    Attributes:
        dtype: Its dtype.
        shape: Its shape.
        alias: The input in whose memory it lies (the program updates that memory in place, and the
            same array object is returned); None for a fresh array.
        is_writeback: The caller sees it only through that input, so a read-only one is an error
            (else what is written may go to a copy, which is returned).
    """

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    alias: int | None = None
    is_writeback: bool = False


@dataclass(frozen=True, slots=True)
class Writeback:
    """An input that the program writes in place and that is not an output.

    Attributes:
        input: Its index.
    """

    input: int


@dataclass(frozen=True, slots=True)
class StatusMessage:
    """What a non-zero status means.

    Attributes:
        text: The message.
        location: The user's line, as `file:line`.
    """

    text: str
    location: str | None = None


class Executable:
    """A program that can be run.

    Args:
        library: Where its code lives.
        symbol: The program's symbol in it.
        inputs: The inputs that are passed at each call.
        outputs: The outputs.
        arena_bytes: Scratch that each call needs.
        messages: What the status `k > 0` means is `messages[k - 1]`.
        captured: Arrays bound to the inputs that follow `inputs`, by reference: each call reads
            what they hold then.
        writebacks: Inputs that are written and not returned.
        guard_regions: `(offset, size)` of the arena's values, laid out for guard mode; without
            them only the arena's ends are guarded.
        work: How many elements the program touches, roughly; the native entry keeps the GIL for
            little work.
        threads: How many threads may share a kernel; 0: as many as the pool is set to.

    Attributes:
        entry_kind: `native` or `python`: how calls reach the program. `entry` sets it.
        entry_reason: Why the entry is not native, or the empty string.
    """

    def __init__(
        self,
        library: Library,
        symbol: str,
        inputs: Sequence[InputSpec],
        outputs: Sequence[OutputSpec],
        arena_bytes: int = 0,
        messages: Sequence[StatusMessage] = (),
        captured: Sequence[Array] = (),
        writebacks: Sequence[Writeback] = (),
        guard_regions: Sequence[tuple[int, int]] = (),
        work: int = 0,
        threads: int = 0,
    ) -> None:
        self.library = library
        self.symbol = symbol
        self.address = library.address(symbol)
        self.inputs = tuple(inputs)
        self.outputs = tuple(outputs)
        self.arena_bytes = arena_bytes
        self.messages = tuple(messages)
        self.captured = tuple(captured)
        self.guard_regions = tuple(guard_regions)
        self.work = work
        self.threads = threads
        self.pool = ArenaPool(arena_bytes)
        self.entry_kind: Literal["native", "python"] = "python"
        self.entry_reason = "no native entry was asked for"
        self.all_inputs = self.inputs + tuple(
            InputSpec(array.dtype.newbyteorder("="), array.shape) for array in self.captured
        )
        aliased = {out.alias: out for out in self.outputs if out.alias is not None}
        self.returned = frozenset(k for k, out in aliased.items() if not out.is_writeback)
        self.written = tuple(sorted(aliased.keys() | {w.input for w in writebacks}))
        self.largest_output = max(
            (
                math.prod(out.shape) * out.dtype.itemsize
                for out in self.outputs
                if out.alias is None
            ),
            default=0,
        )
        self._check_specs()
        self._program = _PROGRAM(self.address)

    def _check_specs(self) -> None:
        aliased = [out.alias for out in self.outputs if out.alias is not None]
        if len(aliased) != len(set(aliased)):
            raise InternalError("two outputs lie in the memory of one input")
        for index in self.written:
            if not 0 <= index < len(self.inputs):
                raise InternalError(f"input {index} is written, but there is no such input")
            if self.inputs[index].kind != "array":
                raise InternalError(f"input {index} is a Python scalar and cannot be written")
        for out in self.outputs:
            if out.alias is not None:
                spec = self.inputs[out.alias]
                if (spec.dtype, spec.shape) != (out.dtype, out.shape):
                    raise InternalError(f"an output cannot lie in input {out.alias}: {out}, {spec}")

    @property
    def resident(self) -> int:
        """Bytes of scratch that the executable holds now."""
        return self.pool.resident

    def run(self, leaves: Sequence[Any]) -> list[Array]:
        """Runs the program.

        Args:
            leaves: The inputs, captured ones left out. Arrays of the right dtype and shape may
                have any layout; array-likes and scalars are converted.

        Returns:
            The outputs; one that aliases an input is that array itself where it is writeable.

        Raises:
            ExecutionError: The program stopped with a status, or there is no memory.
            ValueError: An input that must be written is read-only, or overlaps another such.
        """
        operands = self._operands(leaves)
        fresh = self._outputs()
        results = [
            operands[out.alias].result if out.alias is not None else array
            for out, array in zip(self.outputs, fresh, strict=True)
        ]
        stored = [
            operands[out.alias].data if out.alias is not None else array
            for out, array in zip(self.outputs, fresh, strict=True)
        ]
        if guard.is_enabled():
            status = self._run_guarded([operand.data for operand in operands], stored)
        else:
            status = self._run_plain([operand.data for operand in operands], stored)
        if status:
            self.raise_status(status)
        for operand in operands:
            operand.write_back()
        return results

    def raise_status(self, status: int) -> NoReturn:
        """Raises what a non-zero status says."""
        if not 0 < status <= len(self.messages):
            raise InternalError(f"{self.symbol} returned status {status}, which means nothing")
        message = self.messages[status - 1]
        raise ExecutionError(message.text, location=message.location)

    def _outputs(self) -> list[Array]:
        """Fresh arrays for the outputs that have no memory yet (empty ones for the others)."""
        try:
            with blocks.pooled(self.largest_output):
                return [
                    np.empty(out.shape if out.alias is None else (0,), out.dtype)
                    for out in self.outputs
                ]
        except MemoryError as error:
            total = sum(
                int(np.prod(out.shape, dtype=object)) * out.dtype.itemsize
                for out in self.outputs
                if out.alias is None
            )
            raise ExecutionError(f"no memory for outputs of {total:,} bytes") from error

    def _operands(self, leaves: Sequence[Any]) -> list["_Operand"]:
        """The operands in the layout that the program wants, written ones free of overlap."""
        if len(leaves) != len(self.inputs):
            raise UsageError(f"{self.symbol} takes {len(self.inputs)} arrays, got {len(leaves)}")
        written, returned = set(self.written), self.returned
        operands = [
            _Operand(index, spec, value, index in written, index in returned)
            for index, (spec, value) in enumerate(
                zip(self.all_inputs, (*leaves, *self.captured), strict=True)
            )
        ]
        if written:
            _separate(operands)
        return operands

    def _run_plain(self, inputs: Sequence[Array], outputs: Sequence[Array]) -> int:
        arena = self.pool.take()
        try:
            return self._call(
                [array.ctypes.data for array in inputs],
                [array.ctypes.data for array in outputs],
                0 if arena is None else arena.ctypes.data,
            )
        finally:
            self.pool.give(arena)

    def _run_guarded(self, inputs: Sequence[Array], outputs: Sequence[Array]) -> int:
        ins = [guard.GuardedValue(f"input {k}", array.nbytes) for k, array in enumerate(inputs)]
        outs = [
            guard.GuardedValue(f"output {k}", array.nbytes) if out.alias is None else ins[out.alias]
            for k, (out, array) in enumerate(zip(self.outputs, outputs, strict=True))
        ]
        for value, array in zip(ins, inputs, strict=True):
            value.bytes[:] = _bytes(array)
        arena = guard.GuardedArena(self.arena_bytes, self.guard_regions)
        status = self._call(
            [value.address for value in ins], [value.address for value in outs], arena.address
        )
        for value in (*ins, *outs):
            value.check()
        arena.check()
        stores.check()
        for index in self.written:
            _bytes(inputs[index])[:] = ins[index].bytes
        for out, value, array in zip(self.outputs, outs, outputs, strict=True):
            if out.alias is None:
                _bytes(array)[:] = value.bytes
        for k, (value, array) in enumerate(zip(ins, inputs, strict=True)):
            if k not in self.written and not np.array_equal(value.bytes, _bytes(array)):
                raise InternalError(f"{self.symbol} wrote to its input {k}, which it only reads")
        return status

    def _call(self, inputs: Sequence[int], outputs: Sequence[int], arena: int) -> int:
        ins = (ctypes.c_void_p * max(1, len(inputs)))(*inputs)
        outs = (ctypes.c_void_p * max(1, len(outputs)))(*outputs)
        places = ctypes.addressof(ins), ctypes.addressof(outs), arena or None
        return int(self._program(*places, self.threads))


class _Operand:
    """One input of one call.

    Attributes:
        data: What the program sees: C-contiguous, aligned.
        result: What is returned for an output in this memory.
    """

    __slots__ = ("_owner", "data", "index", "is_returned", "is_written", "result")

    def __init__(
        self, index: int, spec: InputSpec, value: Any, is_written: bool, is_returned: bool
    ) -> None:
        self.index = index
        self.is_written = is_written
        self.is_returned = is_returned
        try:
            whole = np.asarray(value, dtype=spec.dtype)
        except OverflowError as error:
            raise UsageError(
                f"argument {index} is a number that {spec.dtype} can't hold",
                hint="pass a float, or np.uint64",
            ) from error
        self.data: Array = np.require(whole, requirements=("C", "A"))
        if self.data.shape != spec.shape:
            raise UsageError(f"argument {index} has shape {self.data.shape}, not {spec.shape}")
        # The caller's array, where what the program writes has to arrive.
        self._owner: Array | None = None
        self.result: Array = self.data
        if not is_written:
            return
        if isinstance(value, np.ndarray) and value.flags.writeable:
            self._owner = value
            self.result = value
        elif is_returned:
            self.detach()
        elif isinstance(value, np.ndarray):
            raise UsageError(
                f"argument {index} is read-only, and the function writes to it",
                hint="pass a writeable copy",
            )

    @property
    def extent(self) -> tuple[int, int]:
        """Addresses of the first byte and after the last byte of the caller's memory."""
        low, high = byte_bounds(self.data if self._owner is None else self._owner)
        return int(low), int(high)

    def shares_memory(self, other: "_Operand") -> bool:
        """Whether what the program writes to this operand may show in the other one."""
        mine = self.data if self._owner is None else self._owner
        theirs = other.data if other._owner is None else other._owner
        return bool(np.shares_memory(mine, theirs))

    def detach(self) -> None:
        """Moves the data to memory of its own; a returned operand is then a new array."""
        self.data = np.array(self.data, order="C", copy=True)
        if self.is_written:
            self.result = self.data
            self._owner = None

    def write_back(self) -> None:
        """Carries what the program wrote to the caller's array, where it wrote to a copy."""
        owner = self._owner
        if owner is not None and owner.ctypes.data != self.data.ctypes.data:
            np.copyto(owner, self.data)


def _separate(operands: Sequence[_Operand]) -> None:
    """Gives memory of their own to operands that share memory with a written one."""
    extents = np.array([operand.extent for operand in operands], dtype=np.uint64).reshape(-1, 2)
    for target in operands:
        if not target.is_written:
            continue
        low, high = extents[target.index]
        for k in np.flatnonzero((extents[:, 0] < high) & (extents[:, 1] > low)):
            other = operands[int(k)]
            if other is target or not target.shares_memory(other):
                continue
            if other.is_written and not other.is_returned and not target.is_returned:
                raise UsageError(
                    f"arguments {target.index} and {other.index} share memory, "
                    "and the function writes to both",
                    hint="pass a copy of one of them",
                )
            (other if other.is_returned or not other.is_written else target).detach()


def _bytes(array: Array) -> NDArray[np.uint8]:
    """The memory of a C-contiguous array."""
    return array.reshape(-1).view(np.uint8)
