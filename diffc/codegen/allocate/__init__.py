"""Every value gets its address: lifetimes in one arena, in place, in donated inputs, in outputs.

``share`` decides which values follow one another in the same memory, ``place`` assigns offsets by
lifetime, ``routine`` writes the steps. The planned peak is what a run takes. A run that fails
leaves the caller's memory as it was: where a step may fail after another one (or itself) has
written to it, the results are made elsewhere and copied there at the end.
"""

from __future__ import annotations

from collections.abc import Mapping

from diffc.codegen.allocate.memory import Entry, Memory
from diffc.codegen.allocate.routine import Allocated, Allocator, returns_stores
from diffc.codegen.loops.failure import is_atomic
from diffc.codegen.loops.module import Module
from diffc.codegen.loops.nodes import Kernel as LoopKernel
from diffc.codegen.lower.messages import Messages
from diffc.plan.program import Kernel, Program

__all__ = ["Entry", "Memory", "allocate"]


def allocate(
    program: Program,
    kernels: Mapping[Kernel, LoopKernel],
    messages: Messages,
    *,
    guard: bool = False,
) -> tuple[Module, Memory]:
    """The native module of a program, and its memory plan.

    Args:
        program: what runs; all sizes known.
        kernels: the tiled nest of each of its kernels, callees' included.
        messages: what statuses stand for; gets those of stores that find no memory.
        guard: each value of the arena in pages of its own, ending flush with an unused page.

    Raises:
        InternalError: the program is malformed (a value read before it is written, ...).
    """
    allocator = Allocator(kernels, messages, guard)

    def module(found: Allocated) -> Module:
        return Module(
            found.routine,
            tuple(allocator.constants),
            messages.table,
            dict(sorted(program.donated.items())),
            found.guards,
            returns_stores(program),
            guard,
        )

    found = allocator.run(program)
    made = module(found)
    if not is_atomic(made):  # the caller's memory is written when nothing can fail any more
        found = allocator.run_apart(program)
        made = module(found)
    return made, found.memory
