"""A program becomes a routine: slots get addresses, nodes become steps."""

from __future__ import annotations

import mmap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from math import prod

from diffc.codegen.allocate.memory import Entry, Memory
from diffc.codegen.allocate.place import Block, most_alive, place, place_guarded, round_up
from diffc.codegen.allocate.share import Sharing, Slot, nbytes_of, share
from diffc.codegen.loops.failure import takes_memory
from diffc.codegen.loops.module import (
    ROWS_AT,
    Address,
    Copy,
    Cycle,
    Invoke,
    Launch,
    Repeat,
    Routine,
    Select,
    Step,
    Sweep,
)
from diffc.codegen.loops.nodes import Buffer as Param
from diffc.codegen.loops.nodes import Const, Par, Store, Vector
from diffc.codegen.loops.nodes import Kernel as LoopKernel
from diffc.codegen.loops.overlap import Overlap, without_copies
from diffc.codegen.loops.scratch import scratch_in_arena
from diffc.codegen.lower.messages import Messages
from diffc.codegen.targets import ITEM_BYTES
from diffc.ir.index import Var
from diffc.plan.program import (
    Branch,
    Buffer,
    Call,
    Fill,
    Kernel,
    Loop,
    Node,
    Program,
    While,
    callees,
    callees_first,
    programs_of,
)
from diffc.plan.program import Copy as PlannedCopy

#: how many bytes of a splat are written at once.
_FILL_BYTES = 64


@dataclass(slots=True, eq=False)
class Allocated:
    """A routine, its plan, and where its values lie (in guard mode).

    ``taken``: the outputs that lie in the memory of an input that was offered.
    ``leaves_stores``: there may be stores after it that were not there before.
    """

    routine: Routine
    memory: Memory
    guards: tuple[tuple[int, int], ...]
    taken: frozenset[int]
    leaves_stores: bool


@dataclass(slots=True, eq=False)
class Workspace:
    """Memory that one node needs while it runs; ``programs``: whose arena it is, if it is one."""

    name: str
    nbytes: int
    step: int
    programs: tuple[Program, ...] = ()
    offset: int = 0


@dataclass(slots=True, eq=False)
class Allocator:
    """Allocates a program and what it runs; shared programs once."""

    kernels: Mapping[Kernel, LoopKernel]
    messages: Messages
    guard: bool
    constants: dict[bytes, int] = field(default_factory=dict)
    known: dict[Program, Allocated] = field(default_factory=dict)
    names: set[str] = field(default_factory=set)
    fills: dict[tuple[str, int, str], LoopKernel] = field(default_factory=dict)
    overlap: Overlap = field(default_factory=Overlap)

    def run(self, program: Program) -> Allocated:
        """The program as a routine, those that it runs first."""
        for current in callees_first(program):
            self.known[current] = _Routine(self, current).build()
        return self.known[program]

    def run_apart(self, program: Program) -> Allocated:
        """The program allocated once more, donated inputs written at the end only."""
        self.names.discard(self.known[program].routine.name)
        return _Routine(self, program, apart=True).build()

    def constant(self, data: bytes) -> Address:
        """The place of constant data."""
        return Address("constant", self.constants.setdefault(data, len(self.constants)))

    def unique(self, name: str) -> str:
        """A name that no other routine has."""
        found, count = name, 1
        while found in self.names:
            found = f"{name}_{count}"
            count += 1
        self.names.add(found)
        return found

    def fill(self, buffer: Buffer, value: bool | int | float) -> LoopKernel:
        """The kernel that writes a splat of this size."""
        dtype = buffer.aval.dtype
        count = nbytes_of(buffer) // ITEM_BYTES[dtype]
        key = dtype, count, repr(value)
        found = self.fills.get(key)
        if found is None:
            target = Param("out", dtype, (count,), "out")
            at = Var("i", count)
            store = Store(target, (at,), Const(dtype, value))
            lanes = _FILL_BYTES // ITEM_BYTES[dtype]
            body = (Par((at,), (store,), Vector(lanes)),)
            found = self.fills[key] = LoopKernel(f"fill_{dtype}", (target,), (), body)
        return found


class _Routine:
    """One program being allocated."""

    def __init__(self, allocator: Allocator, program: Program, apart: bool = False) -> None:
        self.allocator = allocator
        self.program = program
        taken = {callee: allocator.known[callee].taken for callee in callees(program)}
        self.sharing: Sharing = share(program, allocator.kernels, taken, allocator.overlap, apart)
        self.workspaces: dict[int, list[Workspace]] = {}
        self.offsets: dict[Slot, int] = {}
        self.copies: list[tuple[str, str, int]] = []
        self.steps: list[Step] = []
        loops = (node for node in program.nodes if isinstance(node, Loop | While))
        self.filled = {buffer for node in loops for buffer in node.writes[node.carries :]}

    def build(self) -> Allocated:
        """Asks for workspaces, assigns offsets, then writes the steps."""
        for step, node in enumerate(self.program.nodes):
            self.workspaces[step] = self._workspaces(node, step)
        slots = [s for s in dict.fromkeys(self.sharing.slots.values()) if s.home is None]
        spaces = [space for group in self.workspaces.values() for space in group]
        blocks = [Block(slot.nbytes, slot.first, slot.last) for slot in slots]
        blocks += [Block(space.nbytes, space.step, space.step) for space in spaces]
        if self.allocator.guard:
            offsets, peak = place_guarded(blocks, mmap.PAGESIZE)
        else:
            offsets, peak = place(blocks)
        self.offsets = dict(zip(slots, offsets, strict=False))
        for space, offset in zip(spaces, offsets[len(slots) :], strict=True):
            space.offset = offset
        for step, node in enumerate(self.program.nodes):
            self._step(node, step)
        self._donated_at_the_end()
        inner = [self.allocator.known[callee] for callee in callees(self.program)]
        makes_stores = any(map(takes_memory, self.steps))
        makes_stores = makes_stores or any(each.leaves_stores for each in inner)
        routine = Routine(
            self.allocator.unique(self.program.name),
            len(self.program.inputs),
            len(self.program.outputs),
            peak,
            tuple(self.steps),
            makes_stores and not returns_stores(self.program),
        )
        memory = self._memory(peak, most_alive(blocks), slots, spaces)
        taken = frozenset(self.sharing.taken)
        leaves_stores = makes_stores and not routine.frees
        return Allocated(routine, memory, self._guards(slots, spaces), taken, leaves_stores)

    # --- workspaces

    def _workspaces(self, node: Node, step: int) -> list[Workspace]:
        if isinstance(node, Kernel):
            kernel = self.allocator.kernels[node]
            return [
                Workspace(f"{kernel.name}.{b.name}", prod(b.shape) * ITEM_BYTES[b.dtype], step)
                for b in scratch_in_arena(kernel)
            ]
        spaces: list[Workspace] = []
        if isinstance(node, Loop):
            if node.length == 0:
                return []
            carries = node.writes[: node.carries] if node.length != 1 else ()
            spaces = [
                Workspace(f"{buffer.name}.spare", nbytes_of(buffer), step)
                for carry, buffer in enumerate(carries)
                if (step, carry) not in self.sharing.spares
                and carry not in self.allocator.known[node.body].taken
            ]
        elif isinstance(node, While):
            spaces = [
                Workspace(f"{buffer.name}.spare", nbytes_of(buffer), step)
                for carry, buffer in enumerate(node.writes[: node.carries])
                if carry not in self.allocator.known[node.body].taken
            ]
            spaces.append(Workspace("test", 1, step))
        if isinstance(node, Loop) and node.length is None:
            rows = node.body.inputs[node.constants + node.carries :]
            nbytes = max((nbytes_of(rows[k]) for k in self._bare(node)), default=0)
            spaces.append(Workspace("zeros", nbytes, step))
        return [*spaces, *self._arenas(programs_of(node), step)]

    def _arenas(self, programs: tuple[Program, ...], step: int) -> list[Workspace]:
        """One arena for programs of which one runs at a time; in guard mode one for each."""
        known = self.allocator.known
        if not programs:
            return []
        if not self.allocator.guard:
            nbytes = max(known[program].routine.arena_bytes for program in programs)
            return [Workspace(f"@{programs[-1].name}", nbytes, step, programs)]
        return [
            Workspace(
                f"@{program.name}",
                round_up(known[program].routine.arena_bytes, mmap.PAGESIZE),
                step,
                (program,),
            )
            for program in programs
        ]

    # --- steps

    def address(self, buffer: Buffer) -> Address:
        """Where a value lies."""
        if buffer.role == "input":
            return Address("input", buffer.index)
        if buffer.role == "constant":
            return self.allocator.constant(buffer.data)
        slot = self.sharing.slots[buffer]
        return slot.home or Address("arena", 0, self.offsets[slot])

    def _addresses(self, buffers: tuple[Buffer, ...]) -> tuple[Address, ...]:
        return tuple(map(self.address, buffers))

    def _step(self, node: Node, step: int) -> None:
        places = [Address("arena", 0, space.offset) for space in self.workspaces[step]]
        if isinstance(node, Kernel):
            self._launch(node, places)
        elif isinstance(node, PlannedCopy):
            self._copy(node.target, node.source)
        elif isinstance(node, Fill):
            if nbytes_of(node.target):
                kernel = self.allocator.fill(node.target, node.value)
                self.steps.append(Launch(kernel, (self.address(node.target),)))
        elif isinstance(node, Call):
            routine = self.allocator.known[node.program].routine
            reads, writes = self._addresses(node.reads), self._addresses(node.writes)
            self.steps.append(Invoke(routine, reads, writes, places[0]))
        elif isinstance(node, Branch):
            writes, given = self._addresses(node.writes), list(node.reads)
            for output, place in node.updated.items():
                self._copy(node.writes[output], node.reads[place + 1])
                given[place + 1] = node.writes[output]
            reads = self._addresses(tuple(given))
            routines = tuple(self.allocator.known[branch].routine for branch in node.branches)
            is_wide = node.reads[0].aval.dtype == "i32"
            arenas = tuple(places if len(places) > 1 else places * len(routines))
            self.steps.append(Select(reads[0], is_wide, routines, reads[1:], writes, arenas))
        elif isinstance(node, Loop) and node.length is not None:
            self._repeat(node, node.length, step, places)
        elif isinstance(node, Loop):
            self._sweep(node, places)
        else:
            self._cycle(node, places)

    def _copy(self, target: Buffer, source: Buffer) -> None:
        to, origin, nbytes = self.address(target), self.address(source), nbytes_of(target)
        if to != origin and nbytes:
            self.steps.append(Copy(to, origin, nbytes))
            self.copies.append((target.name, source.name, nbytes))

    def _launch(self, node: Kernel, places: list[Address]) -> None:
        kernel = self.allocator.kernels[node]
        reads, writes = self._addresses(node.reads), self._addresses(node.writes)
        count = len(reads)
        is_aliased = False
        for k, target in enumerate(writes):
            for source, origin in zip(kernel.params, reads, strict=False):
                if origin == target and nbytes_of(node.writes[k]):
                    is_aliased = True
                    kernel = without_copies(kernel, source, kernel.params[count + k])
        if kernel.body:
            self.steps.append(Launch(kernel, (*reads, *writes, *places), is_aliased))

    def _repeat(self, node: Loop, length: int, step: int, places: list[Address]) -> None:
        first, last = node.constants, node.constants + node.carries
        if not length:
            for target, source in zip(node.writes, node.reads[first:last], strict=False):
                self._copy(target, source)
            return
        body = node.body
        reads, writes = self._addresses(node.reads), self._addresses(node.writes)
        final = writes[: node.carries]
        spare, initial = list(final), list(reads[first:last])
        free = iter(places[:-1])
        taken = self.allocator.known[body].taken
        for carry, source in enumerate(node.reads[first:last]):
            if carry in taken:
                self._copy(node.writes[carry], source)
                initial[carry] = final[carry]
            elif length > 1:
                given = self.sharing.spares.get((step, carry))
                spare[carry] = next(free) if given is None else self.address(given)
        slices = [nbytes_of(buffer) for buffer in body.inputs[last:]]
        stacked = [nbytes_of(buffer) for buffer in body.outputs[node.carries :]]
        self.steps.append(
            Repeat(
                self.allocator.known[body].routine,
                length,
                node.reverse,
                reads[:first],
                tuple(initial),
                tuple(spare),
                final,
                tuple(zip(reads[last:], slices, strict=True)),
                tuple(zip(writes[node.carries :], stacked, strict=True)),
                places[-1],
                tuple(map(nbytes_of, node.writes[: node.carries])),
            )
        )

    def _spare(
        self, body: Program, final: tuple[Address, ...], places: Iterator[Address]
    ) -> tuple[Address, ...]:
        """Second places of carries that alternate; those that the body updates stay where they are.

        For loops of unknown length.
        """
        taken = self.allocator.known[body].taken
        return tuple(at if k in taken else next(places) for k, at in enumerate(final))

    def _stores(
        self, writes: tuple[Buffer, ...], rows: tuple[Buffer, ...]
    ) -> tuple[tuple[Address, int], ...]:
        return tuple(zip(self._addresses(writes), map(nbytes_of, rows), strict=True))

    def _no_memory(self, node: Loop | While) -> int:
        """The status of a loop that finds no memory for its stores."""
        nbytes = sum(_grown(node))
        text = f"no memory for what the loop keeps of each trip ({nbytes:,} bytes)"
        if isinstance(node, While):
            text += "; store='slots' keeps some checkpoints instead"
        return self.allocator.messages.add(text, node.loc)

    def _cycle(self, node: While, places: list[Address]) -> None:
        known, count = self.allocator.known, node.carries
        reads, final = self._addresses(node.reads), self._addresses(node.writes[:count])
        rest = iter(places)
        spare = self._spare(node.body, final, rest)
        flag, test_arena, *others = rest
        stores = self._stores(node.writes[count:], node.body.outputs[count:])
        self.steps.append(
            Cycle(
                known[node.test].routine,
                known[node.body].routine,
                reads[: node.tests],
                reads[node.tests : node.first],
                reads[node.first :],
                spare,
                final,
                tuple(map(nbytes_of, node.writes[:count])),
                flag,
                test_arena,
                others[0] if others else test_arena,
                stores,
                self._no_memory(node) if stores else 0,
                self.allocator.guard,
            )
        )

    def _bare(self, node: Loop) -> frozenset[int]:
        """Which slices may be stores that have no memory: those that no loop here has filled."""
        slices = node.reads[node.constants + node.carries :]
        return frozenset(k for k, store in enumerate(slices) if store not in self.filled)

    def _sweep(self, node: Loop, places: list[Address]) -> None:
        first, last = node.constants, node.constants + node.carries
        reads, final = self._addresses(node.reads), self._addresses(node.writes[: node.carries])
        rest = iter(places)
        spare = self._spare(node.body, final, rest)
        zeros, arena = rest
        count = reads[0]
        if node.reads[0].aval.is_store:
            count = replace(count, offset=count.offset + ROWS_AT)
        slices = self._stores(node.reads[last:], node.body.inputs[last:])
        stores = self._stores(node.writes[node.carries :], node.body.outputs[node.carries :])
        self.steps.append(
            Sweep(
                self.allocator.known[node.body].routine,
                count,
                node.reverse,
                reads[:first],
                reads[first:last],
                spare,
                final,
                tuple(map(nbytes_of, node.writes[: node.carries])),
                slices,
                stores,
                self._bare(node),
                zeros,
                arena,
                self._no_memory(node) if stores else 0,
            )
        )

    def _donated_at_the_end(self) -> None:
        for output, how in self.sharing.donated.items():
            if how == "copied at the end":
                target = self.program.inputs[self.program.donated[output]]
                self._copy(target, self.program.outputs[output])

    # --- report

    def _memory(self, peak: int, least: int, slots: list[Slot], spaces: list[Workspace]) -> Memory:
        entries = [
            Entry(
                _listed([buffer.name for buffer in slot.members], " = "),
                str(slot.members[0].aval),
                self.offsets[slot],
                slot.nbytes,
                slot.first,
                slot.last,
            )
            for slot in slots
        ]
        entries += [
            Entry(s.name, "arena" if s.programs else "scratch", s.offset, s.nbytes, s.step, s.step)
            for s in spaces
            if s.nbytes
        ]
        outputs, inputs = self.program.outputs, self.program.inputs
        return Memory(
            self.program.name,
            peak,
            least,
            tuple(sorted(entries, key=lambda entry: (entry.first, entry.offset, entry.name))),
            tuple((target.name, source.name) for target, source in self.sharing.in_place),
            tuple(self.copies),
            tuple(
                (outputs[k].name, inputs[self.program.donated[k]].name, how)
                for k, how in self.sharing.donated.items()
            ),
            tuple(
                (_listed([buffer.name for buffer in node.writes[node.carries :]], ", "), nbytes)
                for node in self.program.nodes
                if isinstance(node, Loop | While) and (nbytes := sum(_grown(node)))
            ),
            tuple(self.allocator.known[callee].memory for callee in callees(self.program)),
        )

    def _guards(self, slots: list[Slot], spaces: list[Workspace]) -> tuple[tuple[int, int], ...]:
        """Where values lie, callees' included."""
        if not self.allocator.guard:
            return ()
        found = [(self.offsets[slot], slot.nbytes) for slot in slots]
        for space in spaces:
            if not space.programs:
                found.append((space.offset, space.nbytes))
            for program in space.programs:
                inner = self.allocator.known[program].guards
                found += [(space.offset + offset, nbytes) for offset, nbytes in inner]
        return tuple(sorted(found))


def _grown(node: Loop | While) -> list[int]:
    """Bytes that each store of a loop grows by in a trip."""
    if isinstance(node, Loop) and node.length is not None:
        return []
    return [nbytes_of(row) for row in node.body.outputs[node.carries :]]


def returns_stores(program: Program) -> bool:
    """Whether an output is a store, so that the memory of stores must outlive the program."""
    return any(output.aval.is_store for output in program.outputs)


def _listed(names: list[str], between: str) -> str:
    """Names, the middle of many left out."""
    if len(names) > 3:
        names = [names[0], f"... ({len(names) - 2} more)", names[-1]]
    return between.join(names)
