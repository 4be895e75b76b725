"""What contractions cost, as data: cycles of one core, by width of the vectors.

The figures are measured on an AMD Zen 4 for 64-byte vectors and scaled by the widths of the other
targets' units; they rank choices, they predict no times. Nothing is measured at run time.
"""

from __future__ import annotations

from dataclasses import dataclass

from diffc.codegen.targets import Target

__all__ = ["Costs", "costs"]


@dataclass(frozen=True, slots=True)
class Costs:
    """Cycles, and the sizes from which another way pays.

    Attributes:
        multiply_add: A vector multiply-add, in a stream of independent ones.
        latency: A multiply-add that waits for the one before it.
        load: A vector load.
        broadcast: A load of one element into all lanes.
        call: Calling a tile: arguments, loop set-up, addresses of the epilogue.
        finish: Storing one vector of sums through a small epilogue.
        kind: What one more distinct tile costs, as a share of the time: it is compiled.
        code: What one more sum in a distinct tile costs, as such a share.
        pack: What packing costs, as such a share.
        jump: Going to the next row of a strip of rhs beyond the second cache.
        stream: Loading a vector of rhs from beyond the second cache.
        conflict: Factor where rows of lhs push each other out of the first cache.
        reduce: Adding up one vector of a dot tile.
        copy: Packing one element along unit stride.
        transpose: Packing one element of rows into columns.
        gather: Packing one element of another layout.
        scatter: Storing one element that does not lie along the lanes.
        many_rows: From so many rows on a large rhs is packed.
        pack_bytes: From this size of rhs on it is packed although its columns are contiguous.
        depth_block: Length of the blocks of the contracted index, once packed.
        row_block: Rows of lhs that stay in the second cache, once packed.
        column_block: Columns of rhs that are packed together.
        stream_depth: Blocks of the contracted index where rhs is read once (few rows).
    """

    multiply_add: float = 1.0
    latency: float = 8.0
    load: float = 1.0
    broadcast: float = 0.5
    call: float = 40.0
    finish: float = 3.0
    kind: float = 0.01
    code: float = 0.0004
    pack: float = 0.03
    jump: float = 4.0
    stream: float = 8.0
    conflict: float = 1.1
    reduce: float = 6.0
    copy: float = 0.15
    transpose: float = 0.4
    gather: float = 2.0
    scatter: float = 2.5
    many_rows: int = 48
    pack_bytes: int = 1536 * 1024
    depth_block: int = 512
    row_block: int = 234
    column_block: int = 1024
    stream_depth: int = 128


WIDE = Costs()
MIDDLE = Costs(multiply_add=0.5, latency=4.0, load=0.5, stream=4.0, transpose=0.5, copy=0.2)
NARROW = Costs(
    multiply_add=0.5, latency=4.0, load=0.5, stream=2.0, transpose=0.6, copy=0.3, row_block=120
)


def costs(target: Target) -> Costs:
    """The figures for a target."""
    if target.vector_bytes >= 64:
        return WIDE
    return MIDDLE if target.vector_bytes >= 32 else NARROW
