"""Which functions are copied to where they are called: those of a few numbers, in loops and arms.

A loop that carries scalars spends most of its time in calls otherwise. Nothing is recomputed or
reordered, so results stay the same, bit for bit.
"""

from __future__ import annotations

from diffc.codegen.loops.module import Copy, Cycle, Launch, Routine, Select
from diffc.codegen.loops.nodes import Kernel, Store
from diffc.codegen.loops.walk import expressions

#: expressions of a kernel, steps of a routine
_FEW_EXPRESSIONS, _FEW_STEPS = 48, 8


def is_straight(kernel: Kernel) -> bool:
    """Whether the kernel has no loop and is short."""
    stores = [stmt for stmt in kernel.body if isinstance(stmt, Store)]
    if len(stores) != len(kernel.body) or kernel.scratch:
        return False
    count = sum(1 for _ in expressions(store.value for store in stores))
    return count <= _FEW_EXPRESSIONS


def is_short(routine: Routine) -> bool:
    """Whether the routine is a few short kernels, or chooses between such."""
    return _weight(routine, 3) <= _FEW_STEPS


def _weight(routine: Routine, depth: int) -> int:
    """How many kernels are copied with it; more than a few if it does anything else."""
    total = 0
    for step in routine.steps:
        if (isinstance(step, Launch) and is_straight(step.kernel)) or isinstance(step, Copy):
            total += 1
        elif isinstance(step, Select) and depth:
            total += 1 + sum(_weight(arm, depth - 1) for arm in step.routines)
        elif isinstance(step, Cycle) and depth:
            total += 2 + _weight(step.test, depth - 1) + _weight(step.body, depth - 1)
        else:
            return _FEW_STEPS + 1
    return total
