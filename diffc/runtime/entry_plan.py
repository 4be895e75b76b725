"""The plan of a signature: the words by which the native entry checks, allocates and answers.

A plan names objects by their addresses; `Plan.alive` holds them. Words and codes are those of
`entry_code`.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from diffc.runtime import abi, blocks
from diffc.runtime.entry_code import (
    ARRAY,
    CHECK,
    FETCHES,
    HEADER,
    KINDS,
    LANES,
    OUTPUT,
    RESULT,
    RESULT_CODES,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from diffc.runtime.executable import Executable, InputSpec

__all__ = ["GIL_WORK", "MAX_WORDS", "Plan"]

# Up to this many elements of work the GIL is kept: releasing it costs more than waiting.
GIL_WORK = 1 << 15
RESULT_WORDS = len(RESULT)
# The scratch of a call lies on the stack.
MAX_WORDS = 1 << 14

Words = NDArray[np.int64]


class Plan:
    """Lays out one signature.

    Args:
        executable: The program.
        args_spec: One spec per positional argument.
        out_spec: The spec of the result.
        slow: The slow path.

    Attributes:
        header: What the entry gets as `self`.
        scratch_words: What a call takes from the stack, in words.
        alive: What must live as long as the header is used.
    """

    def __init__(
        self,
        executable: "Executable",
        args_spec: Sequence[Any],
        out_spec: Any,
        slow: "Callable[..., Any]",
    ) -> None:
        self.executable = executable
        self.alive: list[object] = [executable, slow]
        self._checks: list[int] = []
        self._results: list[int] = []
        self._containers = 0
        self._held = 0
        self._last_use: dict[int, int] = {}
        for position, spec in enumerate(args_spec):
            self._check(spec, "argument", position, 0)
        for index, array in enumerate(executable.captured, len(executable.inputs)):
            self._array(index, "constant", 0, self._object(array))
        self._result(out_spec)
        for place in self._last_use.values():
            self._results[place] = RESULT_CODES.index("moved")
        self.scratch_words = 0
        self.header = self._header(len(args_spec), slow)

    # Addresses.

    def _object(self, thing: object) -> int:
        self.alive.append(thing)
        return id(thing)

    def _table(self, words: Sequence[int]) -> int:
        table: Words = np.array([*words, 0], dtype=np.uint64).view(np.int64)
        self.alive.append(table)
        return int(table.ctypes.data)

    # Checks.

    def _check(self, spec: Any, fetch: str, source: int, place: int) -> None:
        if spec is None:
            self._add(fetch, source, place, "none")
        elif type(spec) is int:
            kind = self.executable.inputs[spec].kind
            if kind == "array":
                self._array(spec, fetch, source, place)
            else:
                python = {"float": float, "int": int, "bool": bool}[kind]
                self._add(fetch, source, place, kind, self._object(python), spec)
        else:
            self._container(spec, fetch, source, place)

    def _container(self, spec: Any, fetch: str, source: int, place: int) -> None:
        kind = type(spec)
        slot = self._containers
        self._containers += 1
        # Looking up a key may run a foreign key's __eq__, which may drop this container.
        is_owned = fetch != "argument" and _has_dict(spec)
        self._add(fetch, source, place, "container", self._object(kind), slot, is_owned, len(spec))
        if kind is dict:
            for key, part in spec.items():
                self._check(part, "dict", slot, self._object(key))
        else:
            for position, part in enumerate(spec):
                self._check(part, kind.__name__, slot, position)

    def _array(self, index: int, fetch: str, source: int, place: int) -> None:
        spec = self.executable.all_inputs[index]
        mask = abi.C_CONTIGUOUS | abi.ALIGNED
        if index in self.executable.written:
            mask |= abi.WRITEABLE
        expected = [self._object(_descr(spec.dtype)), len(spec.shape) | mask << 32, *spec.shape]
        assert len(expected) == len(ARRAY) - 1 + len(spec.shape)
        is_owned = fetch not in ("argument", "constant")
        self._add(fetch, source, place, "array", self._table(expected), index, is_owned)

    def _add(
        self,
        fetch: str,
        source: int,
        place: int,
        kind: str,
        expected: int = 0,
        index: int = 0,
        is_owned: bool = False,
        length: int = 0,
    ) -> None:
        words = (
            FETCHES.index(fetch),
            source,
            place,
            KINDS.index(kind),
            expected,
            index,
            int(is_owned),
            length,
        )
        assert len(words) == len(CHECK)
        self._checks.extend(words)
        self._held += is_owned

    # The result.

    def _result(self, spec: Any) -> None:
        if spec is None:
            self._say("none", 0)
        elif type(spec) is int:
            alias = self.executable.outputs[spec].alias
            if alias is None:
                self._say("fresh", spec)
                self._last_use[spec] = len(self._results) - RESULT_WORDS
            else:
                self._say("alias", alias)
        elif type(spec) is dict:
            for part in spec.values():
                self._result(part)
            self._say("dict", len(spec), self._table([self._object(key) for key in spec]))
        else:
            for part in spec:
                self._result(part)
            self._say(type(spec).__name__, len(spec))

    def _say(self, code: str, argument: int, keys: int = 0) -> None:
        self._results.extend((RESULT_CODES.index(code), argument, keys))

    # The header.

    def _header(self, nargs: int, slow: object) -> Words:
        executable = self.executable
        specs = executable.all_inputs
        sizes = [_nbytes(spec) if spec.kind == "array" else 0 for spec in specs]
        slots = max(LANES, -(-len(specs) // LANES) * LANES)
        written = [index for index in executable.written if sizes[index]]
        if len(written) == sum(size > 0 for size in sizes) == 1:
            written = []  # there is nothing else that it could overlap
        outputs: list[int] = []
        for out in executable.outputs:
            alias = -1 if out.alias is None else out.alias
            words = (
                self._object(_descr(out.dtype)),
                len(out.shape),
                self._table(out.shape),
                alias % 2**64,
            )
            assert len(words) == len(OUTPUT)
            outputs.extend(words)
        pool = executable.pool.free if executable.arena_bytes else None
        is_large = executable.largest_output >= blocks.POOLED_FROM
        allocator = blocks.allocator() if is_large else None
        places: dict[str, int] = {}
        for name, count in (
            ("", slots),
            ("LEAVES_AT", len(specs)),
            ("SCALARS_AT", len(specs)),
            ("ADDRESSES_AT", len(outputs)),
            ("FRESH_AT", len(outputs)),
            ("CONTAINERS_AT", self._containers),
            ("HELD_AT", self._held),
            ("STACK_AT", len(self._results) + 1),
        ):
            places[name] = self.scratch_words
            self.scratch_words += count
        del places[""]
        words_by_name = {
            "NARGS": nargs,
            "SLOW": id(slow),
            "RAISE": self._object(executable.raise_status),
            "PROGRAM": executable.address,
            "THREADS": executable.threads,
            "POOL": 0 if pool is None else self._object(pool),
            "ALLOCATOR": 0 if allocator is None else self._object(allocator),
            "RELEASES": int(executable.work > GIL_WORK),
            "ARRAY_TYPE": id(np.ndarray),
            "NONE": id(None),
            "TRUE": id(True),
            "FALSE": id(False),
            "CHECKS": self._table(self._checks),
            "CHECK_COUNT": len(self._checks) // len(CHECK),
            "OUTPUTS": self._table(outputs),
            "OUTPUT_COUNT": len(executable.outputs),
            "RESULTS": self._table(self._results),
            "RESULT_COUNT": len(self._results) // RESULT_WORDS,
            "WRITTEN": self._table(written),
            "WRITTEN_COUNT": len(written),
            "SIZES": self._table([*sizes, *[0] * (slots - len(sizes))]),
            "OPERAND_COUNT": len(specs),
            "SLOTS": slots,
            "SCRATCH_WORDS": self.scratch_words,
            **places,
        }
        return np.array([words_by_name[name] for name in HEADER], dtype=np.int64)


def _descr(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """The dtype object that arrays of this dtype usually share."""
    return np.dtype(dtype.str if dtype.isbuiltin == 1 else dtype.type)


def _nbytes(spec: "InputSpec") -> int:
    total = spec.dtype.itemsize
    for size in spec.shape:
        total *= size
    return total


def _has_dict(spec: Any) -> bool:
    if spec is None or type(spec) is int:
        return False
    return type(spec) is dict or any(_has_dict(part) for part in spec)
