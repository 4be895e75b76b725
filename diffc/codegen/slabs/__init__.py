"""Kernels that run together, slab by slab, so that what they hand on never reaches memory.

The scores of an attention are larger than its operands by the number of keys. Kernel by kernel
they go through memory several times. Here the kernels that need the same rows of each other's
results (`find`) become one nest around their own ones (`build`), with as many rows at a time as
stay in the cache (`price`). Nothing is particular to attention: what counts is along which
variables nests read what others wrote.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from math import inf

from diffc.codegen.loops.nodes import Kernel as Nest
from diffc.codegen.loops.overlap import Overlap
from diffc.codegen.slabs.build import Joiner, joined_kernel, ordered, places
from diffc.codegen.slabs.find import Slabs, edges, find_slabs, nbytes_of
from diffc.codegen.slabs.part import Part, part_of
from diffc.codegen.slabs.price import alone, can_share, least_bytes, rows_of, together, traffic
from diffc.codegen.targets import Target
from diffc.errors import InternalError
from diffc.plan.program import (
    Branch,
    Buffer,
    Call,
    Kernel,
    Loop,
    Node,
    Program,
    While,
    callees_first,
)

__all__ = ["join"]

Nests = dict[Kernel, Nest]


def join(program: Program, nests: Mapping[Kernel, Nest], target: Target) -> tuple[Program, Nests]:
    """The program, and those that it runs, with kernels that run together.

    Args:
        program: What runs.
        nests: Its kernels as lowered, those of its callees included.
        target: The machine.

    Returns:
        The program (the same object where nothing is joined) and the nests of its kernels.
    """
    joiner = _Join(dict(nests), target)
    return joiner.program(program), joiner.nests


Key = tuple[tuple[int, tuple[int, ...]], ...]


@dataclass(slots=True)
class _Join:
    """Joins the kernels of programs; equal ones are looked at once."""

    nests: Nests
    target: Target
    programs: dict[Program, Program] = field(default_factory=dict)
    made: dict[Key, tuple[Kernel, list[Buffer]] | None] = field(default_factory=dict)

    def program(self, program: Program) -> Program:
        """What a program becomes, and before it those that it runs."""
        for current in callees_first(program):
            self.programs[current] = self._joined(_with_callees(current, self.programs))
        return self.programs[program]

    def _joined(self, program: Program) -> Program:
        """One program with its own kernels joined; their nests are added."""
        least = least_bytes(self.target)
        if all(nbytes_of(buffer) < least for buffer in program.temporaries):
            return program
        parts: dict[Node, Part] = {}
        for node in program.nodes:
            part = part_of(node, self.nests[node]) if isinstance(node, Kernel) else None
            if part is not None:
                parts[node] = part
        made: dict[Node, Kernel] = {}
        gone: set[Buffer] = set()
        for slabs in find_slabs(program, parts, least):
            kernel = self._kernel(slabs)
            if kernel is not None:
                made.update((part.node, kernel) for part in slabs.parts)
                gone |= set(slabs.inner)
        if not made:
            return program
        left = tuple(buffer for buffer in program.temporaries if buffer not in gone)
        return replace(program, nodes=_in_order(program, made), temporaries=left)

    def _kernel(self, slabs: Slabs) -> Kernel | None:
        """The kernel of parts that run together, if that is worth it; its nest is added."""
        key, buffers = _key(slabs)
        if key not in self.made:
            kernel = self._new_kernel(slabs)
            self.made[key] = None if kernel is None else (kernel, buffers)
            return kernel
        known = self.made[key]
        if known is None:
            return None
        first, its = known
        here = dict(zip(its, buffers, strict=True))
        kernel = replace(
            first,
            reads=tuple(here[buffer] for buffer in first.reads),
            writes=tuple(here[buffer] for buffer in first.writes),
            loc=next(iter(slabs.parts)).node.loc,
            parts=tuple(part.node for part in slabs.parts),
        )
        self.nests[kernel] = self.nests[first]
        return kernel

    def _new_kernel(self, slabs: Slabs) -> Kernel | None:
        overlap = Overlap()
        order = ordered(slabs, overlap)
        found = places(slabs, order, overlap)
        rows = rows_of(slabs, found, self.target)
        if not can_share(slabs, rows):
            return None
        before, orders = alone(slabs, self.target)
        if any(slabs.sums_rows(part) and orders[part] == "lanes" for part in slabs.parts):
            return None
        after, turned = together(slabs, found, rows, orders, self.target)
        if after == inf or not is_worth(after - before, traffic(slabs)):
            return None
        number, _, _ = order[0].kernel.name.partition("_")
        name = "_".join(dict.fromkeys(part.kernel.name.partition("_")[2] for part in order))
        joiner = Joiner(slabs, found, rows, turned, orders)
        kernel, nest = joined_kernel(joiner, order, f"{number}_{name}")
        self.nests[kernel] = nest
        return kernel


def is_worth(cost: float, saved: float) -> bool:
    """Whether what running together saves is more than what it costs."""
    return saved > cost


def _key(slabs: Slabs) -> tuple[Key, list[Buffer]]:
    """The same for kernels that are joined in the same way; and their values in order."""
    numbers: dict[Buffer, int] = {}
    key: list[tuple[int, tuple[int, ...]]] = []
    for part in slabs.parts:
        values = [*part.node.reads, *part.node.writes]
        used = tuple(numbers.setdefault(value, len(numbers)) for value in values)
        key.append((id(part.kernel), used))
    key.append((0, tuple(numbers[buffer] for buffer in slabs.inner)))
    return tuple(key), list(numbers)


def _with_callees(program: Program, known: Mapping[Program, Program]) -> Program:
    nodes = tuple(_calling(node, known) for node in program.nodes)
    changed = any(new is not old for new, old in zip(nodes, program.nodes, strict=True))
    return replace(program, nodes=nodes) if changed else program


def _calling(node: Node, known: Mapping[Program, Program]) -> Node:
    """The node with what its callees became."""
    if isinstance(node, Call) and known[node.program] is not node.program:
        return replace(node, program=known[node.program])
    if isinstance(node, Loop) and known[node.body] is not node.body:
        return replace(node, body=known[node.body])
    if isinstance(node, Branch) and any(known[b] is not b for b in node.branches):
        return replace(node, branches=tuple(known[branch] for branch in node.branches))
    if isinstance(node, While) and any(known[p] is not p for p in (node.test, node.body)):
        return replace(node, test=known[node.test], body=known[node.body])
    return node


def _in_order(program: Program, made: Mapping[Node, Kernel]) -> tuple[Node, ...]:
    """The nodes with joined kernels instead of their parts, each after what it reads.

    Whoever reads an input whose memory is taken over still runs before that.
    """
    position = {made.get(node, node): k for k, node in enumerate(program.nodes)}
    following: dict[Node, set[Node]] = {node: set() for node in position}
    for early, late in edges(program):
        one, other = (made.get(program.nodes[k], program.nodes[k]) for k in (early, late))
        if one is not other:
            following[one].add(other)
    waiting = dict.fromkeys(position, 0)
    for others in following.values():
        for node in others:
            waiting[node] += 1
    ready = [(position[node], node) for node, count in waiting.items() if not count]
    heapq.heapify(ready)
    found: list[Node] = []
    while ready:
        _, node = heapq.heappop(ready)
        found.append(node)
        for other in following[node]:
            waiting[other] -= 1
            if not waiting[other]:
                heapq.heappush(ready, (position[other], other))
    if len(found) != len(position):
        raise InternalError(f"the joined kernels of @{program.name} form a cycle")
    return tuple(found)
