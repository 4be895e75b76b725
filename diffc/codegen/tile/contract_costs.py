"""What contractions cost, as data: cycles of one core, by width of the vectors.

The figures for 64-byte vectors are fitted by ``tools/fit_contractions.py`` to times of drawn shapes
and tiles, on an AMD Zen 4; those of the other targets are scaled by the widths of their units. They
rank choices, they predict no times. Nothing is measured at run time.
"""

from __future__ import annotations

from dataclasses import dataclass

from diffc.codegen.targets import Target

__all__ = ["Costs", "costs"]


@dataclass(frozen=True, slots=True)
class Costs:
    """Cycles, unless said otherwise. A line is what caches move, 64 bytes.

    Attributes:
        multiply_add: A vector multiply-add, in a stream of independent ones.
        half: The same of half a vector, as a share; 1 where vectors are never halved.
        latency: The least time of a step of the contracted index, in which each sum waits for the
            one before it.
        load: A vector load.
        split: What it costs more where the vector does not lie in one line.
        broadcast: A load of one element into all lanes.
        widen_f16: What it costs more to load f16, as a vector or into all lanes: widening takes of
            what the arithmetic takes.
        widen_bf16: The same of bf16.
        ask: Prefetching a line.
        call: Calling a tile: arguments, loop set-up, addresses of the epilogue.
        finish: Storing one vector of sums through a small epilogue.
        drain: The same more where a tile has many, which the next tile waits for.
        keep: Reading and writing one vector of sums between blocks of the contracted index.
        turn: Transposing one sum.
        scatter: Storing one element that does not lie along the lanes.
        reduce: Adding up one vector of a dot tile.
        copy: Packing one vector along unit stride.
        transpose: Packing one element of rows into columns.
        gather: Packing one element of another layout.
        near: A line from the second cache.
        conflict: The same where it meets others in the first cache which push it out.
        far: A line from the third one, in a row.
        far_jump: Going from one row of lines to the next there.
        far_asked: A line from there that was prefetched, whatever lies between.
        deep: A line from memory, in a row.
        deep_jump: Going from one row of lines to the next there.
        deep_asked: A line from memory that was prefetched, whatever lies between.
        page: Going to another page, where there are more than the processor knows.
        write: A line of the result beyond the first cache.
        write_jump: Going from one run of the result to the next there.
        spill: Writing a line of the result to memory.
        spill_jump: Going from one run of the result to the next there.
        overlap: Of the loads and of the arithmetic, the share of the shorter that the longer does
            not hide.
        stall: The same of loads that lie far off and apart.
        first: Share of the first cache that data may take; beyond it they are not found there.
        second: The same for the second cache.
        third: The same for a core's part of the third one.
        pages: How many pages the processor knows.
        kind: What one more distinct tile costs, as a share of the time: it is compiled.
        code: What one more sum in a distinct tile costs, as such a share.
        pack: What packing costs, as such a share.
        depth_blocks: Lengths of blocks of the contracted index that are tried.
    """

    multiply_add: float = 1.0
    half: float = 0.5
    latency: float = 3.3
    load: float = 1.05
    split: float = 0.75
    broadcast: float = 0.5
    widen_f16: float = 0.6
    widen_bf16: float = 0.5
    ask: float = 1.45
    call: float = 2.1
    finish: float = 2.1
    drain: float = 0.45
    keep: float = 1.15
    turn: float = 0.38
    scatter: float = 2.2
    reduce: float = 2.6
    copy: float = 1.75
    transpose: float = 0.27
    gather: float = 2.0
    near: float = 1.9
    conflict: float = 2.0
    far: float = 2.2
    far_jump: float = 0.5
    far_asked: float = 2.8
    deep: float = 5.7
    deep_jump: float = 14.2
    deep_asked: float = 10.4
    page: float = 0.56
    write: float = 0.55
    write_jump: float = 0.57
    spill: float = 9.9
    spill_jump: float = 30.0
    overlap: float = 0.073
    stall: float = 0.2
    first: float = 0.68
    second: float = 0.47
    third: float = 0.98
    pages: int = 60
    kind: float = 0.012
    code: float = 0.0003
    pack: float = 0.01
    depth_blocks: tuple[int, ...] = (128, 256, 512)

    def widened(self, dtype: str) -> float:
        """What it costs to widen a load of a dtype where it is loaded."""
        return {"f16": self.widen_f16, "bf16": self.widen_bf16}.get(dtype, 0.0)


WIDE = Costs()
MIDDLE = Costs(
    multiply_add=0.5,
    half=1.0,
    latency=4.0,
    load=0.5,
    split=0.3,
    widen_f16=0.6,
    widen_bf16=0.4,
    near=2.0,
    transpose=0.5,
    copy=2.5,
)
NARROW = Costs(
    multiply_add=0.5,
    half=1.0,
    latency=4.0,
    load=0.5,
    split=0.1,
    widen_f16=3.0,
    widen_bf16=0.7,
    near=2.0,
    transpose=0.6,
    copy=1.5,
)


def costs(target: Target) -> Costs:
    """The figures for a target."""
    if target.vector_bytes >= 64:
        return WIDE
    return MIDDLE if target.vector_bytes >= 32 else NARROW
