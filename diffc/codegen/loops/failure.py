"""Which steps may fail, and whether a run that fails leaves the caller's memory as it was.

A step may fail when a kernel below it checks indices. ``stops`` says where the entry has to look at
the status: before a step that writes to an input, if something may have failed since. Where one
step may fail after another one (or itself) has written to an input, looking doesn't help:
``is_atomic`` is false, and whoever runs the program works on copies.
"""

from __future__ import annotations

from diffc.codegen.loops.module import (
    Address,
    Copy,
    Cycle,
    Invoke,
    Launch,
    Module,
    Repeat,
    Routine,
    Select,
    Step,
)
from diffc.codegen.loops.nodes import GatherLoad, Kernel, Scatter
from diffc.codegen.loops.walk import expressions, operands, statements


def stops(module: Module) -> frozenset[int]:
    """Positions of the entry's steps before which a nonzero status ends the run."""
    if not module.messages or not module.aliases:
        return frozenset()
    found: set[int] = set()
    is_open = False
    for position, step in enumerate(module.entry.steps):
        if is_open and _writes_inputs(module, step):
            found.add(position)
            is_open = False
        is_open |= _can_fail(step)
    return frozenset(found)


def is_atomic(module: Module) -> bool:
    """Whether no step may fail once an input has been written to."""
    if not module.messages or not module.aliases:
        return True
    has_written = False
    for step in module.entry.steps:
        has_written |= _writes_inputs(module, step)
        if has_written and _can_fail(step):
            return False
    return True


def _can_fail(step: Step) -> bool:
    stack: list[Step] = [step]
    while stack:
        current = stack.pop()
        if isinstance(current, Launch):
            if _checks(current.kernel):
                return True
        else:
            for routine in _routines(current):
                stack += routine.steps
    return False


def _routines(step: Step) -> tuple[Routine, ...]:
    if isinstance(step, Invoke | Repeat):
        return (step.routine,)
    if isinstance(step, Select):
        return step.routines
    return (step.test, step.body) if isinstance(step, Cycle) else ()


def _checks(kernel: Kernel) -> bool:
    for stmt in statements(kernel.body):
        if isinstance(stmt, Scatter) and stmt.mode == "check":
            return True
        for expr in expressions(operands(stmt)):
            if isinstance(expr, GatherLoad) and expr.mode == "check":
                return True
    return False


def _writes_inputs(module: Module, step: Step) -> bool:
    inputs = set(module.aliases.values())
    return any(
        at.index in (inputs if at.base == "input" else module.aliases)
        for at in _written(step)
        if at.base in ("input", "output")
    )


def _written(step: Step) -> tuple[Address, ...]:
    if isinstance(step, Launch):
        params = zip(step.kernel.params, step.addresses, strict=False)
        return tuple(at for buffer, at in params if buffer.mode != "in")
    if isinstance(step, Copy):
        return (step.target,)
    if isinstance(step, Invoke | Select):
        return step.outputs
    if isinstance(step, Repeat):
        return (*step.spare, *step.final, *(at for at, _ in step.stacked))
    return (*step.spare, *step.final)


__all__ = ["is_atomic", "stops"]
