"""A native module: kernels with every address decided, in the order in which they run.

This is what ``allocate`` makes and ``emit`` reads. A routine is a native function
``(inputs..., outputs..., arena)``; the first one is the program's entry with the ABI
``i64 @NAME(ptr inputs, ptr outputs, ptr arena)``, the others are bodies of loops and callees.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal as Choice

from diffc.codegen.loops.nodes import Kernel, Par


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
    ``constants``, then carries; outputs: carries. First each initial carry is copied to its final
    place. A carry whose spare place is its final one is updated there; the others alternate
    between the two places, and end in the final one.
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


Step = Launch | Copy | Invoke | Repeat | Select | Cycle


@dataclass(frozen=True, slots=True, eq=False)
class Routine:
    """A native function: steps in order. ``arena_bytes`` is what it needs of its arena argument."""

    name: str
    inputs: int
    outputs: int
    arena_bytes: int
    steps: tuple[Step, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Module:
    """The entry routine, constant data, and messages that a nonzero status stands for.

    ``messages[k - 1]`` belongs to status ``k``: text and the user's line.
    ``aliases``: output index -> index of the input in whose memory it lives.
    ``guards``: (offset, nbytes) of each value in the arena, in guard mode.
    """

    entry: Routine
    constants: tuple[bytes, ...]
    messages: tuple[tuple[str, str], ...]
    aliases: dict[int, int]
    guards: tuple[tuple[int, int], ...] = ()

    @property
    def has_shares(self) -> bool:
        """Whether there is a kernel that threads share."""
        known: set[int] = set()
        stack = [self.entry]
        while stack:
            routine = stack.pop()
            if id(routine) in known:
                continue
            known.add(id(routine))
            for step in routine.steps:
                if isinstance(step, Launch) and is_shared(step.kernel):
                    return True
                stack += routines_of(step)
        return False


def is_shared(kernel: Kernel) -> bool:
    """Whether threads share a nest of a kernel."""
    return any(isinstance(stmt, Par) and stmt.split is not None for stmt in kernel.body)


def routines_of(step: Step) -> tuple[Routine, ...]:
    """The routines that a step calls."""
    if isinstance(step, Invoke | Repeat):
        return (step.routine,)
    if isinstance(step, Select):
        return step.routines
    return (step.test, step.body) if isinstance(step, Cycle) else ()
