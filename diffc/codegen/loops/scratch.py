"""Where a kernel's scratch lies: small buffers on the stack, the others in the arena.

A kernel is called with one address per parameter, followed by one per buffer that
`scratch_in_arena` lists. Sorting needs a workspace, which stands at the end of the scratch.

A nest that threads share keeps what only it uses on the stack of each share. Where that is much it
is *lent*: the thread that calls has it in the arena, and only helpers, whose stacks are large, have
it there.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import prod

from diffc.codegen.loops.contraction import contraction, is_tiled, panel_name, workspace
from diffc.codegen.loops.nodes import Buffer, Kernel, Par, Sort, Stmt
from diffc.codegen.loops.sorting import workspace_bytes
from diffc.codegen.loops.walk import buffers, statements
from diffc.codegen.targets import ITEM_BYTES

__all__ = [
    "LENT_BYTES",
    "PRIVATE_BYTES",
    "STACK_BYTES",
    "WORKSPACE",
    "lent_scratch",
    "nbytes_of",
    "private_scratch",
    "scratch_in_arena",
    "scratch_of",
    "scratch_on_stack",
]

STACK_BYTES = 16 * 1024
PRIVATE_BYTES = 128 * 1024
LENT_BYTES = 4 * 1024 * 1024
WORKSPACE = "~workspace"


def nbytes_of(buffer: Buffer) -> int:
    """Bytes of a buffer, in whole lines."""
    return (prod(buffer.shape) * ITEM_BYTES[buffer.dtype] + 63) // 64 * 64


def _workspace(body: Iterable[Stmt]) -> list[Buffer]:
    """Room for the items of the row that takes most to sort."""
    nbytes = 0
    for stmt in statements(body):
        if isinstance(stmt, Sort):
            assert isinstance(stmt.var.extent, int)
            length = stmt.var.extent
            if length:
                needed = workspace_bytes(length, stmt.keys.dtype, stmt.positions)
                nbytes = max(nbytes, needed)
    return [Buffer(WORKSPACE, "u8", (nbytes,), "scratch")] if nbytes else []


def scratch_of(kernel: Kernel, stmt: Stmt) -> list[Buffer]:
    """The scratch of a kernel that a statement uses, by access or as a contraction's workspace."""
    used = buffers((stmt,))
    tiled = (s for s in statements((stmt,)) if isinstance(s, Par) and is_tiled(s))
    names = {buffer.name for par in tiled for buffer in workspace(par)}
    return [buffer for buffer in kernel.scratch if buffer in used or buffer.name in names]


def private_scratch(kernel: Kernel, stmt: Par) -> list[Buffer]:
    """The scratch that each share of a nest has for itself; a workspace for sorting is new."""
    assert stmt.split is not None, "threads share this nest"
    others = {b for other in kernel.body if other is not stmt for b in scratch_of(kernel, other)}
    own = [buffer for buffer in scratch_of(kernel, stmt) if buffer not in others]
    if is_tiled(stmt):
        common = _common(stmt)
        return [buffer for buffer in own if buffer.name not in common]
    return [*own, *_workspace((stmt,))]


def lent_scratch(kernel: Kernel, stmt: Par) -> list[Buffer]:
    """The private scratch that is too much for the stack of any thread; the largest first."""
    private = [b for b in private_scratch(kernel, stmt) if b in kernel.scratch]
    total = sum(nbytes_of(buffer) for buffer in private)
    found: list[Buffer] = []
    for buffer in sorted(private, key=nbytes_of, reverse=True):
        if total <= PRIVATE_BYTES:
            break
        found.append(buffer)
        total -= nbytes_of(buffer)
    return found


def _common(stmt: Par) -> set[str]:
    """Names of the panels that the shares of a contraction have in common."""
    c = contraction(stmt)
    assert stmt.split is not None
    over_tiles = stmt.split.over != "points"
    found: set[str] = set()
    if over_tiles or not any(c.rhs.strides[var] for var in c.outer):
        found.add(panel_name(c.target, "rhs"))
    if over_tiles:
        found.add(panel_name(c.target, "lhs"))
    if over_tiles and not c.how.dot:
        found.add(panel_name(c.target, "sums"))
    return found


def _split(kernel: Kernel) -> tuple[list[Buffer], list[Buffer]]:
    shared = [stmt for stmt in kernel.body if isinstance(stmt, Par) and stmt.split is not None]
    private = {buffer for stmt in shared for buffer in private_scratch(kernel, stmt)}
    lent = {buffer for stmt in shared for buffer in lent_scratch(kernel, stmt)}
    rest = _workspace(stmt for stmt in kernel.body if stmt not in shared)
    stack: list[Buffer] = []
    arena: list[Buffer] = []
    used = 0
    for buffer in (*kernel.scratch, *rest):
        if buffer in private and buffer not in lent:
            continue
        nbytes = nbytes_of(buffer)
        if buffer not in lent and used + nbytes <= STACK_BYTES:
            stack.append(buffer)
            used += nbytes
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
