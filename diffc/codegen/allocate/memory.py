"""What the memory plan says: the promise of a peak, and how it comes about."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Entry:
    """A value in the arena, alive from step ``first`` to step ``last``."""

    name: str
    aval: str
    offset: int
    nbytes: int
    first: int
    last: int


@dataclass(frozen=True, slots=True)
class Memory:
    """The memory plan of a program.

    Attributes:
        name: the program.
        peak: bytes of its arena, those of its callees included: what a run takes.
        least: the most bytes that live at once; no placement has a lower peak.
        entries: what lies in the arena, in order of time.
        in_place: (output, input) of the kernels that write over an operand.
        copies: (target, source, bytes) of the copies that are left.
        donated: (output, input, how) for each donated input.
        grows: (stores, bytes per trip) of each loop that keeps something of each trip, in memory of
            its own, as nobody knows before the run how many trips there are.
        callees: plans of the loops' bodies and callees, whose arenas are entries here.
    """

    name: str
    peak: int
    least: int
    entries: tuple[Entry, ...]
    in_place: tuple[tuple[str, str], ...]
    copies: tuple[tuple[str, str, int], ...]
    donated: tuple[tuple[str, str, str], ...]
    grows: tuple[tuple[str, int], ...]
    callees: tuple[Memory, ...]

    def __str__(self) -> str:
        lines: list[str] = []
        stack = [(self, "")]
        while stack:
            memory, indent = stack.pop()
            lines += (indent + line for line in memory._lines())
            stack += ((callee, indent + "  ") for callee in reversed(memory.callees))
        return "\n".join(lines)

    def _lines(self) -> list[str]:
        lines = [f"memory @{self.name}: peak {self.peak} bytes, at most {self.least} alive at once"]
        lines += (f"  grows: {nbytes} bytes per trip ({names})" for names, nbytes in self.grows)
        if self.entries:
            name = max(4, *(len(entry.name) for entry in self.entries))
            aval = max(5, *(len(entry.aval) for entry in self.entries))
            lines.append(
                f"  {'name':{name}}  {'value':{aval}}  {'offset':>10}  {'bytes':>10}  steps"
            )
            lines += (
                f"  {e.name:{name}}  {e.aval:{aval}}  {e.offset:>10}  {e.nbytes:>10}  "
                f"{e.first}-{e.last}"
                for e in self.entries
            )
        lines += (f"  in place: {target} over {source}" for target, source in self.in_place)
        lines += (f"  donated: {target} in {source}, {how}" for target, source, how in self.donated)
        lines += (f"  copy: {target} from {source}, {n} bytes" for target, source, n in self.copies)
        return lines
