"""Which values share memory: results written over operands, outputs in donated inputs.

A *slot* is memory for values that follow one another in it. It lies in the arena, in an output, or
in a donated input. Decided here, before any offset is known; nothing else decides.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal as Choice

from diffc.codegen.loops.module import Address
from diffc.codegen.loops.nodes import Buffer as Param
from diffc.codegen.loops.nodes import Kernel as LoopKernel
from diffc.codegen.loops.overlap import Overlap
from diffc.errors import InternalError
from diffc.plan.program import (
    Branch,
    Buffer,
    Copy,
    Kernel,
    Loop,
    Node,
    Program,
    While,
    reads_of,
    writes_of,
)


@dataclass(slots=True, eq=False)
class Slot:
    """Memory of values that follow one another.

    Attributes:
        members: the values, in order.
        nbytes: of each of them.
        first, last: the steps of the first write and the last read.
        home: an output or donated input that provides the memory; None: the arena.
    """

    members: list[Buffer]
    nbytes: int
    first: int
    last: int
    home: Address | None = None


Donation = Choice["in place", "copied at the end"]


@dataclass(slots=True, eq=False)
class Sharing:
    """What was decided: a slot for each written value, and why.

    ``spares``: (step, carry) of loops -> the initial value whose memory is the carry's spare place.
    ``taken``: output -> the input whose memory it takes over, of those that were offered.
    """

    slots: dict[Buffer, Slot]
    spares: dict[tuple[int, int], Buffer] = field(default_factory=dict)
    in_place: list[tuple[Buffer, Buffer]] = field(default_factory=list)
    donated: dict[int, Donation] = field(default_factory=dict)
    taken: dict[int, int] = field(default_factory=dict)


def nbytes_of(buffer: Buffer) -> int:
    """Bytes of a buffer, which are known in a program."""
    nbytes = buffer.aval.nbytes
    assert isinstance(nbytes, int), f"the size of {buffer.name}: {buffer.aval} is not known"
    return nbytes


def share(
    program: Program,
    kernels: Mapping[Kernel, LoopKernel],
    taken: Mapping[Program, frozenset[int]],
    overlap: Overlap | None = None,
    apart: bool = False,
) -> Sharing:
    """Decides what shares memory.

    Args:
        program: what is allocated.
        kernels: its kernels as nests.
        taken: for each of its callees, the outputs that lie in an input that was offered.
        overlap: remembers what it learned of the kernels.
        apart: donated inputs are written at the end only.

    Raises:
        InternalError: a value is read before it is written, or written twice; or an input is
            donated to an output of another size, or to two.
    """
    return _Sharer(program, kernels, taken, overlap or Overlap(), apart).run()


class _Sharer:
    def __init__(
        self,
        program: Program,
        kernels: Mapping[Kernel, LoopKernel],
        taken: Mapping[Program, frozenset[int]],
        overlap: Overlap,
        apart: bool,
    ) -> None:
        self.apart = apart
        self.taken = taken
        self.program = program
        self.kernels = kernels
        self.overlap = overlap
        self.written: dict[Buffer, int] = {}
        self.last_read: dict[Buffer, int] = {}
        for step, node in enumerate(program.nodes):
            for buffer in reads_of(node):
                self.last_read[buffer] = step
                if buffer.role in ("temporary", "output") and buffer not in self.written:
                    raise InternalError(f"{buffer.name} is read before it is written")
            for buffer in writes_of(node):
                if buffer in self.written or buffer.role in ("input", "constant"):
                    raise InternalError(f"{buffer.name} may not be written by step {step}")
                self.written[buffer] = step
        for buffer in program.outputs:
            if buffer not in self.written:
                raise InternalError(f"output {buffer.name} is not written")
        end = len(program.nodes)
        self.sharing = Sharing({})
        for buffer, step in self.written.items():
            is_output = buffer.role == "output"
            last = end if is_output else self.last_read.get(buffer, step)
            slot = Slot([buffer], nbytes_of(buffer), step, last)
            if is_output:
                slot.home = Address("output", buffer.index)
            self.sharing.slots[buffer] = slot

    def run(self) -> Sharing:
        """Donations first: they decide where outputs lie."""
        if len(set(self.program.donated.values())) < len(self.program.donated):
            raise InternalError(f"@{self.program.name}: an input is donated to two outputs")
        for output, given in sorted(self.program.donated.items()):
            self._donate(self.program.outputs[output], self.program.inputs[given], output, given)
        for output, given in sorted(self.program.offered.items()):
            self._offer(self.program.outputs[output], self.program.inputs[given], output, given)
        for step, node in enumerate(self.program.nodes):
            for target in writes_of(node):
                self._place_over_an_operand(node, step, target)
            if isinstance(node, Loop):
                self._find_spares(node, step)
        return self.sharing

    # --- donation

    def _donate(self, target: Buffer, source: Buffer, output: int, given: int) -> None:
        if nbytes_of(target) != nbytes_of(source):
            raise InternalError(f"{target.name} does not fit in the donated {source.name}")
        slot = self.sharing.slots[target]
        node = self.program.nodes[slot.first]
        if not self.apart and self._may_take(node, slot.first, target, source):
            slot.home = Address("input", given)
            self.sharing.donated[output] = "in place"
            if source in reads_of(node) and not isinstance(node, Copy):
                self.sharing.in_place.append((target, source))
        else:
            slot.home = None
            self.sharing.donated[output] = "copied at the end"

    def _offer(self, target: Buffer, source: Buffer, output: int, given: int) -> None:
        slot = self.sharing.slots[target]
        node = self.program.nodes[slot.first]
        if self._may_take(node, slot.first, target, source):
            slot.home = Address("input", given)
            self.sharing.taken[output] = given
            if source in reads_of(node) and not isinstance(node, Copy):
                self.sharing.in_place.append((target, source))

    def _may_take(self, node: Node, step: int, target: Buffer, source: Buffer) -> bool:
        """Whether a node may write ``target`` to the memory of a value that nobody reads later."""
        if isinstance(node, Copy) and node.source is source:
            return True  # it stays what it is
        last = self.last_read.get(source, -1)
        return last < step or (last == step and self._may_overwrite(node, target, source))

    def _may_overwrite(self, node: Node, target: Buffer, source: Buffer) -> bool:
        """Whether a node that reads ``source`` may write ``target`` over it."""
        if isinstance(node, Kernel):
            kernel = self.kernels[node]
            count = len(node.reads)
            sources = [p for p, b in zip(kernel.params, node.reads, strict=False) if b is source]
            return self.overlap.can_overwrite(
                kernel, sources, self._param(kernel, node, target, count)
            )
        if isinstance(node, Loop):
            # Steps read one place and write the other; with an even number of steps the first one
            # writes the spare place, and the last one the place that the first one read. A carry
            # that the body updates in place is copied to where the final one will be, to begin;
            # so is each one where the number of steps is not known.
            carry = node.writes.index(target)
            if carry >= node.carries or node.length == 0:
                return False
            if node.length is not None and node.length % 2 and carry not in self.taken[node.body]:
                return False
            reads = node.reads
            return reads[node.constants + carry] is source and reads.count(source) == 1
        if isinstance(node, Branch):
            # Where they can't share, the operand is copied to the result before all else.
            place = node.updated.get(node.writes.index(target))
            return place is not None and node.reads[place + 1] is source
        if isinstance(node, While):
            # Initial carries are copied to where the final ones will be before anything else.
            carry = node.first + node.writes.index(target)
            if carry >= len(node.reads):
                return False
            return node.reads[carry] is source and node.reads.count(source) == 1
        return False

    @staticmethod
    def _param(kernel: LoopKernel, node: Kernel, target: Buffer, count: int) -> Param:
        return kernel.params[count + node.writes.index(target)]

    # --- in place

    def _place_over_an_operand(self, node: Node, step: int, target: Buffer) -> None:
        """Lets ``target`` continue the slot of an operand that dies here."""
        slots = self.sharing.slots
        new = slots[target]
        if not new.nbytes or not isinstance(node, Kernel | Loop | While | Branch):
            return
        if new.members != [target]:
            return
        for source in dict.fromkeys(reads_of(node)):
            old = slots.get(source)
            if old is None or old.last != step or old.home is not None:
                continue
            if old.nbytes != new.nbytes or old.first >= step:
                continue
            if not self._home_is_free(new, old) or not self._may_overwrite(node, target, source):
                continue
            old.members.append(target)
            old.last, old.home = new.last, new.home
            slots[target] = old
            self.sharing.in_place.append((target, source))
            return

    def _find_spares(self, node: Loop, step: int) -> None:
        """With an odd number of steps, the spare place of a carry is written from step 2 on.

        By then its initial value has been read; if nobody reads that later, its memory will do.
        """
        if node.length is None or node.length < 3 or node.length % 2 == 0:
            return
        for carry in range(node.carries):
            source = node.reads[node.constants + carry]
            if node.reads.count(source) > 1 or carry in self.taken[node.body]:
                continue
            slot = self.sharing.slots.get(source)
            is_donated = source.role == "input" and source.index in self.program.donated.values()
            if (slot is not None and slot.last == step) or (
                is_donated and self.last_read[source] == step
            ):
                self.sharing.spares[step, carry] = source

    def _home_is_free(self, new: Slot, old: Slot) -> bool:
        """Whether the memory of the new value can hold the old one too, from its first step on."""
        home = new.home
        if home is None or home.base == "output":
            return True
        given = self.program.inputs[home.index]
        last = self.last_read.get(given, -1)
        if last != old.first:
            return last < old.first
        return self._may_overwrite(self.program.nodes[last], old.members[0], given)
