"""Which steps may fail, and whether a run that fails leaves the caller's memory as it was.

A step may fail when a kernel below it checks indices, or when there is no memory for a store.
``stops`` says where the entry has to look at the status: before a step that writes to an input, if
something may have failed since. Where one step may fail after another one (or itself) has written
to an input, looking doesn't help: ``is_atomic`` is false, and the module has to be allocated in
another way.
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
    Sweep,
    routines_of,
)
from diffc.codegen.loops.nodes import GatherLoad, Kernel, Scatter
from diffc.codegen.loops.walk import expressions, operands, statements


def stops(module: Module) -> frozenset[int]:
    """Positions of the entry's steps before which a nonzero status ends the run."""
    if not module.messages or not module.aliases:
        return frozenset()
    walk = _Walk(module)
    found: set[int] = set()
    is_open = False
    for position, step in enumerate(module.entry.steps):
        if is_open and walk.writes_inputs(step):
            found.add(position)
            is_open = False
        is_open = is_open or walk.can_fail(step)
    return frozenset(found)


def is_atomic(module: Module) -> bool:
    """Whether no step may fail once an input has been written to."""
    if not module.messages or not module.aliases:
        return True
    walk = _Walk(module)
    has_written = False
    for step in module.entry.steps:
        has_written = has_written or walk.writes_inputs(step)
        if has_written and walk.can_fail(step):
            return False
    return True


class _Walk:
    """Looks at the steps of one module, and at each kernel and routine once."""

    def __init__(self, module: Module) -> None:
        self.inputs = frozenset(module.aliases.values())
        self.outputs = module.aliases
        self.known: dict[Kernel | Routine, bool] = {}

    def can_fail(self, step: Step) -> bool:
        """Whether a kernel below the step checks indices, or the step makes stores."""
        if takes_memory(step):
            return True
        below = _below(step)
        stack: list[Kernel | Routine] = list(below)
        while stack:
            part = stack[-1]
            if part in self.known:
                stack.pop()
                continue
            if isinstance(part, Kernel):
                self.known[part] = _checks(part)
                continue
            if any(map(takes_memory, part.steps)):
                self.known[part] = True
                continue
            inner = [each for inside in part.steps for each in _below(inside)]
            waiting = [each for each in inner if each not in self.known]
            if not waiting:
                self.known[part] = any(self.known[each] for each in inner)
            stack += waiting
        return any(self.known[part] for part in below)

    def writes_inputs(self, step: Step) -> bool:
        """Whether the step writes to the memory of an input."""
        return any(
            at.index in (self.inputs if at.base == "input" else self.outputs)
            for at in _written(step)
            if at.base in ("input", "output")
        )


def takes_memory(step: Step) -> bool:
    """Whether a step takes memory for stores."""
    return isinstance(step, Cycle | Sweep) and step.status > 0


def _below(step: Step) -> tuple[Kernel | Routine, ...]:
    """The kernel or the routines that a step runs."""
    return (step.kernel,) if isinstance(step, Launch) else routines_of(step)


def _checks(kernel: Kernel) -> bool:
    for stmt in statements(kernel.body):
        if isinstance(stmt, Scatter) and stmt.mode == "check":
            return True
        for expr in expressions(operands(stmt)):
            if isinstance(expr, GatherLoad) and expr.mode == "check":
                return True
    return False


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
    return (*step.spare, *step.final, *(at for at, _ in step.stores))


__all__ = ["is_atomic", "stops", "takes_memory"]
