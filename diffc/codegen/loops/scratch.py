"""Where a kernel's scratch lies: small buffers on the stack, the others in the arena.

A kernel is called with one address per parameter, followed by one per buffer that
`scratch_in_arena` lists. Sorting needs a workspace, which stands at the end of the scratch.
"""

from __future__ import annotations

from math import prod

from diffc.codegen.loops.nodes import Buffer, Kernel, Sort
from diffc.codegen.loops.walk import statements
from diffc.codegen.targets import ITEM_BYTES

__all__ = ["STACK_BYTES", "WORKSPACE", "scratch_in_arena", "scratch_on_stack"]

STACK_BYTES = 16 * 1024
WORKSPACE = "~workspace"


def _workspace(kernel: Kernel) -> list[Buffer]:
    """Room for two copies of the keys and positions of the longest row that is sorted."""
    nbytes = 0
    for stmt in statements(kernel.body):
        if isinstance(stmt, Sort):
            assert isinstance(stmt.var.extent, int)
            nbytes = max(nbytes, 2 * stmt.var.extent * (8 + ITEM_BYTES[stmt.keys.dtype]))
    return [Buffer(WORKSPACE, "u8", (nbytes,), "scratch")] if nbytes else []


def _split(kernel: Kernel) -> tuple[list[Buffer], list[Buffer]]:
    stack: list[Buffer] = []
    arena: list[Buffer] = []
    used = 0
    for buffer in (*kernel.scratch, *_workspace(kernel)):
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
    """The scratch buffers for which the caller passes memory, in the order of their addresses.

    The workspace is a new `Buffer` at each call; the others are the kernel's own.
    """
    return _split(kernel)[1]
