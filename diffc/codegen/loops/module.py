"""A native module: kernels with every address decided, in the order in which they run.

This is what ``allocate`` makes and ``emit`` reads. A routine is a native function
``(inputs..., outputs..., arena)``; the first one is the program's entry with the ABI
``i64 @NAME(ptr inputs, ptr outputs, ptr arena)``, the others are bodies of loops and callees.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal as Choice

from diffc.codegen.loops.nodes import Kernel, Par

#: where the number of a store's rows stands, behind their address
ROWS_AT = 8


@dataclass(frozen=True, slots=True)
class Address:
    """A place: ``offset`` bytes into an input, an output, a constant, or the arena."""

    base: Choice["input", "output", "arena", "constant"]
    index: int = 0
    offset: int = 0

    @property
    def start(self) -> Address:
        """Where the value begins that this place is in."""
        return Address(self.base, self.index) if self.offset else self

    def __str__(self) -> str:
        base = self.base if self.base == "arena" else f"{self.base}{self.index}"
        return f"{base}+{self.offset}" if self.offset else base


@dataclass(frozen=True, slots=True, eq=False)
class Launch:
    """Runs a kernel on addresses, one per parameter.

    ``aliased``: two parameters may share memory.
    """

    kernel: Kernel
    addresses: tuple[Address, ...]
    aliased: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Copy:
    """Copies ``nbytes``; the two places are the same or do not overlap."""

    target: Address
    source: Address
    nbytes: int


@dataclass(frozen=True, slots=True, eq=False)
class Invoke:
    """Calls a routine once."""

    routine: Routine
    inputs: tuple[Address, ...]
    outputs: tuple[Address, ...]
    arena: Address


@dataclass(frozen=True, slots=True, eq=False)
class Repeat:
    """Calls a routine ``length`` times (from the last index down, if ``reverse``).

    Inputs: constants, then carries, then slices; outputs: carries, then slices. A slice moves by
    its stride (bytes) per step. Each carry is read from ``initial`` in the first step and written
    in turn to ``spare`` and ``final`` so that the last step writes ``final``. With length 0, final
    becomes a copy of initial, which needs ``carry_bytes`` (one per carry).
    """

    routine: Routine
    length: int
    reverse: bool
    constants: tuple[Address, ...]
    initial: tuple[Address, ...]
    spare: tuple[Address, ...]
    final: tuple[Address, ...]
    slices: tuple[tuple[Address, int], ...]
    stacked: tuple[tuple[Address, int], ...]
    arena: Address
    carry_bytes: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Select:
    """Calls one of several routines with the same inputs and outputs, and an arena for each.

    ``index`` is a byte (a bool), or an i32 if ``is_wide``; it is clamped to the routines.
    """

    index: Address
    is_wide: bool
    routines: tuple[Routine, ...]
    inputs: tuple[Address, ...]
    outputs: tuple[Address, ...]
    arenas: tuple[Address, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Cycle:
    """Calls ``body`` for as long as ``test`` writes true, and no error has been met.

    Inputs of ``test``: ``tests``, then carries; its output: ``flag``, a byte. Inputs of ``body``:
    ``constants``, then carries; outputs: carries, then a row of each store. First each initial
    carry is copied to its final place. A carry whose spare place is its final one is updated there;
    the others alternate between the two places, and end in the final one. ``stores``: where each
    store is, and bytes of a row; they grow with the trips, in memory of their own. ``status``: what
    is wrong when there is none. ``grows_by_one``: so that each row ends where its memory does.
    """

    test: Routine
    body: Routine
    tests: tuple[Address, ...]
    constants: tuple[Address, ...]
    initial: tuple[Address, ...]
    spare: tuple[Address, ...]
    final: tuple[Address, ...]
    carry_bytes: tuple[int, ...]
    flag: Address
    test_arena: Address
    arena: Address
    stores: tuple[tuple[Address, int], ...] = ()
    status: int = 0
    grows_by_one: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Sweep:
    """Calls a routine as often as the i64 at ``count`` says (from the last row, if ``reverse``).

    It ends when an error has been met. Inputs: constants, carries, a row of each of ``slices``;
    outputs: carries, a row of each of ``stores``. Both are (where a store is, bytes of a row).
    Carries as those of a ``Cycle``. Slices in ``bare`` may be stores that have no memory, of which
    all rows are zero; ``zeros`` has room for one. ``status``: what is wrong when there is no memory
    for ``stores``.
    """

    routine: Routine
    count: Address
    reverse: bool
    constants: tuple[Address, ...]
    initial: tuple[Address, ...]
    spare: tuple[Address, ...]
    final: tuple[Address, ...]
    carry_bytes: tuple[int, ...]
    slices: tuple[tuple[Address, int], ...]
    stores: tuple[tuple[Address, int], ...]
    bare: frozenset[int]
    zeros: Address
    arena: Address
    status: int


Step = Launch | Copy | Invoke | Repeat | Select | Cycle | Sweep


@dataclass(frozen=True, slots=True, eq=False)
class Routine:
    """A native function: steps in order. ``arena_bytes`` is what it needs of its arena argument.

    ``frees``: the memory of stores that it makes is of no use after it.
    """

    name: str
    inputs: int
    outputs: int
    arena_bytes: int
    steps: tuple[Step, ...]
    frees: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Module:
    """The entry routine, constant data, and messages that a nonzero status stands for.

    ``messages[k - 1]`` belongs to status ``k``: text and the user's line.
    ``aliases``: output index -> index of the input in whose memory it lives.
    ``guards``: (offset, nbytes) of each value in the arena, in guard mode.
    ``returns_stores``: outputs are stores. Their memory goes to the caller, who is told where it is
    by one more output: the address of a list of blocks, and their number.
    ``is_guarded``: it is made for guard mode.
    """

    entry: Routine
    constants: tuple[bytes, ...]
    messages: tuple[tuple[str, str], ...]
    aliases: dict[int, int]
    guards: tuple[tuple[int, int], ...] = ()
    returns_stores: bool = False
    is_guarded: bool = False

    @property
    def has_shares(self) -> bool:
        """Whether there is a kernel that threads share."""
        return any(isinstance(s, Launch) and is_shared(s.kernel) for s in self._steps())

    @property
    def has_stores(self) -> bool:
        """Whether there is a store."""
        return self.returns_stores or any(
            isinstance(s, Sweep) or (isinstance(s, Cycle) and s.stores) for s in self._steps()
        )

    def _steps(self) -> Iterator[Step]:
        """The steps of all routines, each routine once."""
        known: set[int] = set()
        stack = [self.entry]
        while stack:
            routine = stack.pop()
            if id(routine) in known:
                continue
            known.add(id(routine))
            for step in routine.steps:
                yield step
                stack += routines_of(step)


def is_shared(kernel: Kernel) -> bool:
    """Whether threads share a nest of a kernel."""
    return any(isinstance(stmt, Par) and stmt.split is not None for stmt in kernel.body)


def routines_of(step: Step) -> tuple[Routine, ...]:
    """The routines that a step calls."""
    if isinstance(step, Invoke | Repeat | Sweep):
        return (step.routine,)
    if isinstance(step, Select):
        return step.routines
    return (step.test, step.body) if isinstance(step, Cycle) else ()
