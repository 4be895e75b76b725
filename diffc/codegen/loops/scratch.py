"""Where a kernel's scratch lies: small buffers on the stack, the others in the arena.

A kernel is called with one address per parameter, followed by one per buffer that
`scratch_in_arena` lists.
"""

from __future__ import annotations

from math import prod

from diffc.codegen.loops.nodes import Buffer, Kernel
from diffc.codegen.targets import ITEM_BYTES

__all__ = ["STACK_BYTES", "scratch_in_arena", "scratch_on_stack"]

STACK_BYTES = 16 * 1024


def _split(kernel: Kernel) -> tuple[list[Buffer], list[Buffer]]:
    stack: list[Buffer] = []
    arena: list[Buffer] = []
    used = 0
    for buffer in kernel.scratch:
        nbytes = prod(buffer.shape) * ITEM_BYTES[buffer.dtype]
        padded = (nbytes + 63) // 64 * 64
        if used + padded <= STACK_BYTES:
            stack.append(buffer)
            used += padded
        else:
            arena.append(buffer)
    return stack, arena


def scratch_on_stack(kernel: Kernel) -> list[Buffer]:
    """The scratch buffers that the kernel's function keeps on its stack."""
    return _split(kernel)[0]


def scratch_in_arena(kernel: Kernel) -> list[Buffer]:
    """The scratch buffers for which the caller passes memory, in the order of their addresses."""
    return _split(kernel)[1]
