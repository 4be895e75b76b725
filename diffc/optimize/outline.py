"""Outlining: equal blocks of an unrolled chain become calls of one shared graph.

Before: fifty residual blocks written by a Python loop, two thousand equations. After: one callee
and fifty calls of it, each with its own weights as operands. Everything later (differentiation,
planning, code generation) then works once for each distinct block.

A run of equal blocks is a stretch of the equations that repeats with a period: the same ops, params
and avals on the values of their own block. Candidate periods come from the distances between
equal equations. Of all ways to cut a run into blocks, the one at which the fewest values cross is
taken. The walk is linear in the number of equations.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diffc.ir.graph import Builder, Eqn, Graph, Literal, Operand, Value, prune
from diffc.ops.registry import find
from diffc.optimize.driver import optimize

#: fewer equal blocks are left alone, and so are smaller ones
MIN_BLOCKS = 4
MIN_EQNS = 6
#: where there are so many blocks, so small ones do
MANY_BLOCKS = 32
FEW_EQNS = 3
#: how many candidate periods are tried
MAX_PERIODS = 8


@dataclass(frozen=True, slots=True)
class Outlined:
    """What was outlined: ``count`` blocks of ``eqns`` equations each became calls of ``name``."""

    name: str
    count: int
    eqns: int
    inputs: int
    outputs: int

    def __str__(self) -> str:
        return (
            f"@{self.name}: {self.count} blocks of {self.eqns} equations, "
            f"{self.inputs} inputs and {self.outputs} outputs each"
        )


@dataclass(frozen=True, slots=True)
class Blocks:
    """Blocks ``[start + k * period, start + (k + 1) * period)`` for ``k`` below ``count``."""

    start: int
    period: int
    count: int

    @property
    def stop(self) -> int:
        """Behind the last block."""
        return self.start + self.period * self.count

    def blocks(self) -> Iterator[range]:
        """The positions of each block's equations."""
        for k in range(self.count):
            first = self.start + k * self.period
            yield range(first, first + self.period)


def outline(
    graph: Graph, report: list[Outlined] | None = None, *, only_chains: bool = False
) -> Graph:
    """Replaces runs of equal blocks by calls; the same graph if there are none.

    Args:
        graph: any graph; regions are left as they are.
        report: gets what was outlined.
        only_chains: leave blocks alone that do not compute with each other's results.
    """
    found = _with_rows_first(graph)
    made: list[Outlined] = []
    while (run := _longest_run(found, only_chains)) is not None:
        found, outlined = _replace(found, run)
        made.append(outlined)
    if report is not None:
        report += made
    return found if made else graph


def compact(
    graph: Graph,
    *,
    only: Sequence[str] | None = None,
    report: list[Outlined] | None = None,
    fired: Counter[str] | None = None,
) -> Graph:
    """The graph optimized, with its equal blocks as calls: what is to be differentiated.

    Chains of blocks are outlined as they were traced, so that rules see each block once. Blocks
    that do not read each other's results wait until the rules have seen them all: sums of shifted
    products are a convolution.

    Args:
        graph: a traced graph.
        only: names of the rewrite rules to use (default: those that are on).
        report: gets what was outlined.
        fired: counts, by rule, how often it was applied.
    """
    chains = outline(prune(graph), report, only_chains=True)
    return outline(optimize(chains, only=only, fired=fired), report)


def _with_rows_first(graph: Graph) -> Graph:
    """The graph with the slices of a stack right behind it, so that blocks reading a row are equal.

    Before: each block starts with ``slice(xs)`` at another place. After: all rows are operands.
    """
    places: dict[Operand, set[Any]] = {}
    for eqn in graph.eqns:
        if eqn.op.name == "slice":
            places.setdefault(eqn.operands[0], set()).add(eqn.params["start"])
    stacks = {value for value, starts in places.items() if len(starts) >= MIN_BLOCKS}
    if not stacks:
        return graph
    rows: dict[Operand, list[Eqn]] = {stack: [] for stack in stacks}
    moved: set[Eqn] = set()
    for eqn in graph.eqns:
        if eqn.op.name == "slice" and eqn.operands[0] in stacks:
            rows[eqn.operands[0]].append(eqn)
            moved.add(eqn)
    order: list[Eqn] = []

    def bring(values: Sequence[Value]) -> None:
        ready = [value for value in reversed(values) if value in stacks]
        while ready:
            for row in rows[ready.pop()]:
                order.append(row)
                ready += (result for result in row.results if result in stacks)

    bring(graph.inputs)
    for eqn in graph.eqns:
        if eqn not in moved:
            order.append(eqn)
            bring(eqn.results)
    return Graph(graph.name, graph.inputs, tuple(order), graph.outputs)


# --- finding runs -----------------------------------------------------------------------------


def _signatures(graph: Graph) -> NDArray[np.int64]:
    """A number for each equation; equal ones do the same to operands of the same avals."""
    numbers: dict[Any, int] = {}
    found = []
    for eqn in graph.eqns:
        operands = tuple([x if x.__class__ is Literal else x.aval for x in eqn.operands])
        key = (eqn.op.name, operands, eqn.key[2], eqn.key[3])
        found.append(numbers.setdefault(key, len(numbers)))
    return np.array(found, np.int64)


def _longest_run(graph: Graph, only_chains: bool) -> Blocks | None:
    """The run that covers most equations."""
    if len(graph.eqns) < MIN_BLOCKS * MIN_EQNS:
        return None
    signatures = _signatures(graph)
    best: Blocks | None = None
    for period in _periods(signatures):
        if period < FEW_EQNS:
            continue
        for run in _runs(signatures, period):
            is_worth = _is_worth_a_call(graph.eqns[run.start : run.start + period], run.count)
            aligned = _aligned(graph, run, signatures) if is_worth else None
            if aligned is None or (only_chains and not _is_chain(graph, aligned)):
                continue
            if best is None or aligned.count * period > best.count * best.period:
                best = aligned
    return best


def _is_worth_a_call(block: Sequence[Eqn], count: int) -> bool:
    """Whether a block does enough, and not only what could fuse with its neighbours."""
    least = FEW_EQNS if count >= MANY_BLOCKS else MIN_EQNS
    if sum(not eqn.regions for eqn in block) < least:
        return False
    return any(not (eqn.op.is_elementwise or eqn.op.is_movement) for eqn in block)


def _is_chain(graph: Graph, run: Blocks) -> bool:
    """Whether blocks compute with results of the blocks before, other than adding to them."""
    first, second, *_ = run.blocks()
    earlier = {result for i in first for result in graph.eqns[i].results}
    read = {operand for i in second for operand in graph.eqns[i].operands}
    for i in second:
        eqn = graph.eqns[i]
        if not earlier.isdisjoint(eqn.operands):
            is_sum = eqn.op.name == "add" and eqn.result not in read
            if not is_sum:
                return True
    return False


def _periods(signatures: NDArray[np.int64]) -> list[int]:
    """The most frequent distances between equations that do the same."""
    order = np.argsort(signatures, kind="stable")
    is_next = signatures[order[1:]] == signatures[order[:-1]]
    distances = np.diff(order)[is_next]
    periods, first, votes = np.unique(distances, return_index=True, return_counts=True)
    return [int(p) for p in periods[np.lexsort((first, -votes))][:MAX_PERIODS]]


def _runs(signatures: NDArray[np.int64], period: int) -> Iterator[Blocks]:
    """Maximal stretches that repeat with this period."""
    is_equal = np.zeros(len(signatures) - period + 2, np.int8)
    is_equal[1:-1] = signatures[:-period] == signatures[period:]
    change = np.diff(is_equal)
    for start, stop in zip(np.flatnonzero(change > 0), np.flatnonzero(change < 0), strict=True):
        length = int(stop - start) + period
        if length >= MIN_BLOCKS * period:
            yield Blocks(int(start), period, length // period)


def _aligned(graph: Graph, run: Blocks, signatures: NDArray[np.int64]) -> Blocks | None:
    """The run cut where the fewest values cross, if its blocks then do the same."""
    position = {eqn: i for i, eqn in enumerate(graph.eqns)}
    limit = len(graph.eqns)
    end = min(limit, run.start + run.period * (run.count + 1) - 1)
    last_use: dict[Value, int] = {}
    for i, eqn in enumerate(graph.eqns):
        for operand in eqn.operands:
            if isinstance(operand, Value) and operand.eqn is not None:
                last_use[operand] = i
    for output in graph.outputs:
        if isinstance(output, Value) and output.eqn is not None:
            last_use[output] = limit
    crossing = [0] * (limit + 2)
    for value, used in last_use.items():
        assert value.eqn is not None
        crossing[position[value.eqn] + 1] += 1
        crossing[used + 1] -= 1
    total = 0
    for i in range(limit + 1):
        total += crossing[i]
        crossing[i] = total
    middle = run.start + (run.count // 2) * run.period
    offsets = sorted(range(run.period), key=lambda r: (crossing[middle + r], r))
    for offset in offsets[:4]:
        start = run.start + offset
        count = (run.start + run.period * run.count - start) // run.period
        if start + run.period * (count + 1) <= end:
            count += 1
        candidate = _consistent(graph, Blocks(start, run.period, count), position, signatures)
        if candidate is not None:
            return candidate
    return None


def _consistent(
    graph: Graph, run: Blocks, position: dict[Eqn, int], signatures: NDArray[np.int64]
) -> Blocks | None:
    """The longest part of the run whose blocks read their own values at equal places."""
    best_start, best_count = 0, 0
    shapes = [_shape_of(graph, block, position, signatures) for block in run.blocks()]
    first = 0
    for k in range(1, len(shapes) + 1):
        if k == len(shapes) or shapes[k] != shapes[first]:
            if k - first > best_count:
                best_start, best_count = first, k - first
            first = k
    if best_count < MIN_BLOCKS:
        return None
    return Blocks(run.start + best_start * run.period, run.period, best_count)


def _shape_of(
    graph: Graph, block: range, position: dict[Eqn, int], signatures: NDArray[np.int64]
) -> tuple[bytes, list[tuple[int, int] | None]]:
    """What each equation of a block does, and where it reads values of its own block."""
    places: list[tuple[int, int] | None] = []
    for eqn in graph.eqns[block.start : block.stop]:
        for operand in eqn.operands:
            if isinstance(operand, Literal) or operand.eqn is None:
                places.append(None)
            else:
                at = position[operand.eqn] - block.start
                places.append((at, operand.index) if at >= 0 else None)
    return signatures[block.start : block.stop].tobytes(), places


# --- replacing --------------------------------------------------------------------------------


def _replace(graph: Graph, run: Blocks) -> tuple[Graph, Outlined]:
    """The graph with each block of the run as a call."""
    blocks = list(run.blocks())
    position = {eqn: i for i, eqn in enumerate(graph.eqns)}
    slots = _slots(graph, blocks, position)
    outputs = _escaping(graph, blocks, position)
    callee = _callee(graph, blocks[0], slots, outputs, position)
    env: dict[Operand, Operand] = {}
    builder = Builder(graph.name)
    builder.inputs = list(graph.inputs)
    starts = {block.start: block for block in blocks}
    inside = set(range(run.start, run.stop))
    for i, eqn in enumerate(graph.eqns):
        builder.loc = eqn.loc
        if i in starts:
            block = starts[i]
            operands = [env.get(x, x) for x in (_operand(graph, block, slot) for slot in slots)]
            results = builder.emit(find("call"), operands, {}, (callee,), eqn.loc)
            for (place, index), result in zip(outputs, results, strict=True):
                old = graph.eqns[block.start + place].results[index]
                env[old] = result
                result.name = old.name
        elif i not in inside:
            if all(env.get(x, x) is x for x in eqn.operands):
                builder.adopt(eqn)
            else:
                builder.copy(eqn, env)
    new = prune(builder.build([env.get(x, x) for x in graph.outputs]))
    made = Outlined(callee.name, run.count, len(callee.eqns), len(slots), len(outputs))
    return new, made


Slot = tuple[int, int]  # an operand of the block: which equation, which operand of it


def _operand(graph: Graph, block: range, slot: Slot) -> Operand:
    return graph.eqns[block.start + slot[0]].operands[slot[1]]


def _slots(graph: Graph, blocks: Sequence[range], position: dict[Eqn, int]) -> list[Slot]:
    """The external operands of a block, those that are the same value in every block once."""
    found: dict[tuple[Operand, ...], Slot] = {}
    for place, i in enumerate(blocks[0]):
        for n, operand in enumerate(graph.eqns[i].operands):
            if isinstance(operand, Literal):
                continue
            if operand.eqn is not None and position[operand.eqn] in blocks[0]:
                continue
            column = tuple(_operand(graph, block, (place, n)) for block in blocks)
            found.setdefault(column, (place, n))
    return list(found.values())


def _escaping(
    graph: Graph, blocks: Sequence[range], position: dict[Eqn, int]
) -> list[tuple[int, int]]:
    """The results of a block that any block's outside reads: which equation, which result."""
    found: dict[tuple[int, int], None] = {}
    first, period = blocks[0].start, len(blocks[0])
    stop = blocks[-1].stop

    def note(value: Operand, reader: int) -> None:
        if not isinstance(value, Value) or value.eqn is None:
            return
        at = position[value.eqn]
        if first <= at < stop and (at - first) // period != (reader - first) // period:
            found[(at - first) % period, value.index] = None

    for i, eqn in enumerate(graph.eqns):
        for operand in eqn.operands:
            note(operand, i)
    for output in graph.outputs:
        note(output, stop + period)
    return sorted(found)


def _callee(
    graph: Graph,
    block: range,
    slots: Sequence[Slot],
    outputs: Sequence[tuple[int, int]],
    position: dict[Eqn, int],
) -> Graph:
    """The block as a graph of its own."""
    builder = Builder(f"{graph.name}_block")
    env: dict[Operand, Operand] = {}
    for slot in slots:
        operand = _operand(graph, block, slot)
        name = operand.name if isinstance(operand, Value) else ""
        env[operand] = builder.input(operand.aval, name or "a")
    for i in block:
        builder.loc = graph.eqns[i].loc
        builder.copy(graph.eqns[i], env)
    found = [env[graph.eqns[block.start + place].results[index]] for place, index in outputs]
    return builder.build(found)
