"""What the function of a routine knows: its pointers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from diffc.codegen.emit.text import FunctionText
from diffc.codegen.loops.module import Address

ALIGNMENT = 64


@dataclass(frozen=True, slots=True)
class Call:
    """A routine being written, and its pointers; ``arrays``: pointers to pointers, by base."""

    fn: FunctionText
    inputs: Sequence[str]
    outputs: Sequence[str]
    arena: str
    status: str
    aligned: bool
    arrays: Mapping[str, str] = field(default_factory=dict)

    def pointer(self, at: Address) -> str:
        """The pointer of an address."""
        base = {
            "input": lambda: self.inputs[at.index],
            "output": lambda: self.outputs[at.index],
            "arena": lambda: self.arena,
            "constant": lambda: f"@constant{at.index}",
        }[at.base]()
        return self.fn.gep(base, at.offset)

    def alignment(self, at: Address, itemsize: int) -> int:
        """What is known of the alignment of an address.

        Inputs are the caller's, and so are outputs that live in them; the pointers of a routine
        other than the entry may move with a loop.
        """
        known = at.base == "constant" or (self.aligned and at.base == "arena")
        return ALIGNMENT if known and at.offset % ALIGNMENT == 0 else itemsize


def copy_bytes(fn: FunctionText, target: str, source: str, nbytes: int) -> None:
    """Copies bytes between two places that do not overlap."""
    fn.call(
        "void",
        "llvm.memcpy.p0.p0.i64",
        ("ptr", target),
        ("ptr", source),
        ("i64", str(nbytes)),
        ("i1", "false"),
    )
