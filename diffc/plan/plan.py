"""``plan``: a graph becomes a program of kernels, calls and loops on buffers.

Before: one graph. After: a :class:`Program` whose kernels are the groups of ``fuse``, in an order
that respects what they read, and, where an input is donated, that reads it before it is written.
Equal callees are planned once. Memory is not assigned here; see ``codegen.allocate``.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Mapping
from weakref import WeakKeyDictionary

from diffc.errors import InternalError
from diffc.ir.aval import GROWING, Aval
from diffc.ir.graph import Builder, Eqn, Graph, Literal, Operand, Value
from diffc.plan.forms import checks_reads, is_table, may_fail, reads_memory, unshaped
from diffc.plan.fuse import Fusion, Group
from diffc.plan.merge import merge_groups
from diffc.plan.program import (
    Branch,
    Buffer,
    Call,
    Copy,
    Fill,
    Kernel,
    Loop,
    Node,
    Program,
    While,
)
from diffc.plan.recompute import values_in_memory

Pairs = tuple[tuple[int, int], ...]

_PLANS: WeakKeyDictionary[Graph, dict[tuple[Pairs, Pairs], Program]] = WeakKeyDictionary()


def plan(
    graph: Graph,
    donated: Mapping[int, int] | None = None,
    offered: Mapping[int, int] | None = None,
) -> Program:
    """Plans a graph.

    Args:
        graph: what to run; all dimensions are ints.
        donated: output index -> index of the input whose memory it should take over.
        offered: the same, for memory that it takes over only where that costs no copy.
    """
    donated, offered = donated or {}, offered or {}
    key = tuple(sorted(donated.items())), tuple(sorted(offered.items()))
    known = _PLANS.setdefault(graph, {})
    if key not in known:
        known[key] = _Planner(graph, donated, offered).program()
    return known[key]


class _Planner:
    def __init__(
        self, graph: Graph, donated: Mapping[int, int], offered: Mapping[int, int]
    ) -> None:
        self.graph = graph
        self.donated = dict(donated)
        self.offered = dict(offered)
        self.fusion = Fusion(graph)
        self.fusion.run()
        merge_groups(self.fusion)
        self.memory = values_in_memory(self.fusion)
        self.groups = [group for group in self.fusion.groups if self._is_run(group)]
        self.buffers: dict[Operand, Buffer] = {}
        self.temporaries: list[Buffer] = []
        self.nodes: list[Node] = []
        self.position = {eqn: i for i, eqn in enumerate(graph.eqns)}

    def program(self) -> Program:
        graph = self.graph
        inputs = tuple(
            Buffer(value.name, value.aval, "input", i) for i, value in enumerate(graph.inputs)
        )
        self.buffers.update(zip(graph.inputs, inputs, strict=True))
        outputs = [Buffer(f"out{i}", x.aval, "output", i) for i, x in enumerate(graph.outputs)]
        early: list[Node] = []  # copies of inputs come before others take over their memory
        late: list[Node] = []
        for k, (buffer, output) in enumerate(zip(outputs, graph.outputs, strict=True)):
            if isinstance(output, Literal):
                late.append(Fill(buffer, output.value))
            elif output in self.buffers or (output.eqn is not None and is_table(output.eqn)):
                source = self._buffer(output)
                is_early = source.role == "input" and k not in self.donated
                (early if is_early else late).append(Copy(source, buffer))
            else:
                self.buffers[output] = buffer
        self._read_before_donated_writes()
        for group in self._ordered():
            self._place(group)
        return Program(
            graph.name,
            inputs,
            tuple(outputs),
            tuple(self.temporaries),
            (*early, *self.nodes, *late),
            self.donated,
            self.offered,
        )

    # --- order --------------------------------------------------------------------------------

    def _read_before_donated_writes(self) -> None:
        """Lets who reads a donated input run before its memory is taken over, if it can.

        So does what may fail: a run that fails then has not written to any argument.
        """
        taken_over = self.offered | self.donated
        if not taken_over:
            return
        failing = [group for group in self.groups if any(map(may_fail, group.eqns))]
        readers: dict[Value, dict[Group, None]] = {}
        for group in self.groups:
            for eqn in group.eqns:
                for operand in eqn.operands:
                    for value in self._reads(operand, group):
                        if value.eqn is None:
                            readers.setdefault(value, {})[group] = None
        for output_index, input_index in taken_over.items():
            output = self.graph.outputs[output_index]
            if not isinstance(output, Value) or output.eqn is None:
                continue
            writer = self.fusion.group_of[output.eqn]
            for group in (*readers.get(self.graph.inputs[input_index], ()), *failing):
                if group is not writer and not writer.runs_before(group):
                    writer.run_after(group)

    def _ordered(self) -> list[Group]:
        """Topological order: as soon as what is read is there, so that it is still in the cache.

        Among groups that become ready together, the one that stands first.
        """
        waiting = dict.fromkeys(self.fusion.groups, 0)
        for group in self.fusion.groups:
            for follower in group.following:
                waiting[follower] += 1
        ready = [(0, self._first(g), g.number, g) for g, count in waiting.items() if not count]
        heapq.heapify(ready)
        ordered: list[Group] = []
        while ready:
            *_, group = heapq.heappop(ready)
            ordered.append(group)
            for follower in group.following:
                waiting[follower] -= 1
                if not waiting[follower]:
                    entry = (len(ordered), self._first(follower), follower.number, follower)
                    heapq.heappush(ready, entry)
        if len(ordered) != len(self.fusion.groups):
            raise InternalError(f"the kernels of @{self.graph.name} form a cycle")
        return [group for group in ordered if self._is_run(group)]

    def _first(self, group: Group) -> int:
        return max(self.position[eqn] for eqn in group.eqns)

    # --- buffers ------------------------------------------------------------------------------

    def _is_run(self, group: Group) -> bool:
        """Whether anything that the group computes lies in memory."""
        if group.form in ("solo", "region"):
            return True
        return any(result in self.memory for eqn in group.eqns for result in eqn.results)

    def _is_read(self, value: Value, group: Group) -> bool:
        """Whether the kernel of ``group`` reads the value from memory."""
        if value.eqn is None or is_table(value.eqn):
            return True
        return value in self.memory and self.fusion.group_of[value.eqn] is not group

    def _reads(self, operand: Operand, group: Group) -> list[Value]:
        """What the kernel of ``group`` reads from memory to have the operand."""
        found: dict[Value, None] = {}
        seen: set[Operand] = set()
        stack = [operand]
        while stack:
            value = stack.pop()
            if not isinstance(value, Value) or value in seen:
                continue
            seen.add(value)
            if self._is_read(value, group):
                found[value] = None
            elif value.eqn is not None and self.fusion.group_of.get(value.eqn) is not group:
                stack.extend(value.eqn.operands)
        return list(found)

    def _temporary(self, name: str, aval: Aval) -> Buffer:
        buffer = Buffer(f"{name}{len(self.temporaries)}", aval, "temporary")
        self.temporaries.append(buffer)
        return buffer

    def _buffer(self, operand: Operand) -> Buffer:
        """The memory of an operand; a literal's is filled on first use."""
        found = self.buffers.get(operand)
        if found is None:
            name = operand.name or "t" if isinstance(operand, Value) else "fill"
            found = self.buffers[operand] = self._temporary(name, operand.aval)
            if isinstance(operand, Literal):
                self.nodes.append(Fill(found, operand.value))
            elif operand.eqn is not None and is_table(operand.eqn):
                data = operand.eqn.params["data"]
                self.temporaries.remove(found)
                number = sum(b.role == "constant" for b in self.buffers.values())
                found = Buffer(found.name, operand.aval, "constant", number, data)
                self.buffers[operand] = found
        return found

    # --- nodes --------------------------------------------------------------------------------

    def _place(self, group: Group) -> None:
        eqns = sorted(group.eqns, key=self.position.__getitem__)
        if group.form == "region":
            self._place_region(eqns[0])
            return
        written = [
            r for eqn in eqns for r in eqn.results if r in self.memory or group.form == "solo"
        ]
        kernel, reads = self._kernel_graph(group, eqns, written)
        self.nodes.append(
            Kernel(
                kernel,
                tuple(self._buffer(value) for value in reads),
                tuple(self._buffer(value) for value in written),
                eqns[0].loc,
            )
        )

    def _kernel_graph(
        self, group: Group, eqns: list[Eqn], written: list[Value]
    ) -> tuple[Graph, list[Operand]]:
        """The group as a graph of its own, views included; and what its inputs read."""
        builder = Builder(_kernel_name(eqns))
        env: dict[Operand, Operand] = {}
        reads: list[Operand] = []
        for eqn in eqns:
            splats: dict[Operand, Operand] = {}
            for operand in eqn.operands:
                if isinstance(operand, Value):
                    root = unshaped(operand)
                    is_reshaped = root is not operand and operand not in env
                    if is_reshaped and checks_reads(eqn, operand) and self._is_read(root, group):
                        env[operand] = builder.input(operand.aval, root.name or "a")
                        reads.append(root)  # the same memory under another shape
                    else:
                        self._bring(builder, operand, group, env, reads)
                elif reads_memory(eqn, operand) and operand not in splats:
                    splats[operand] = builder.input(operand.aval, "splat")
                    reads.append(operand)
            builder.loc = eqn.loc
            env.update(splats)
            builder.copy(eqn, env)
            for splat in splats:
                del env[splat]
        return builder.build(env[value] for value in written), reads

    def _bring(
        self,
        builder: Builder,
        wanted: Value,
        group: Group,
        env: dict[Operand, Operand],
        reads: list[Operand],
    ) -> None:
        """Makes a value available in a kernel: read, or computed there from what is read."""
        stack: list[Value] = [wanted]
        while stack:
            value = stack[-1]
            if value in env:
                stack.pop()
            elif self._is_read(value, group):
                env[value] = builder.input(value.aval, value.name or "a")
                reads.append(value)
            else:
                assert value.eqn is not None
                missing = [x for x in value.eqn.operands if isinstance(x, Value) and x not in env]
                if missing:
                    stack.extend(reversed(missing))
                else:
                    builder.loc = value.eqn.loc
                    builder.copy(value.eqn, env)

    def _place_region(self, eqn: Eqn) -> None:
        reads = tuple(self._buffer(operand) for operand in eqn.operands)
        writes = tuple(self._buffer(result) for result in eqn.results)
        if eqn.op.name == "cond":
            updated = self._updated(eqn)
            branches = tuple(plan(branch, donated=updated) for branch in eqn.regions)
            self.nodes.append(Branch(branches, reads, writes, updated))
            return
        self.nodes.append(_REGION_NODES.get(eqn.op.name, _call)(eqn, reads, writes))

    def _updated(self, eqn: Eqn) -> dict[int, int]:
        """Which results of a ``cond`` lie where an operand does that only it reads.

        Those that some branch passes on: it then has nothing to do.
        """
        found: dict[int, int] = {}
        for k, result in enumerate(eqn.results):
            for branch in eqn.regions:
                passed = branch.outputs[k]
                place = branch.inputs.index(passed) if passed in branch.inputs else None
                if place is None or place in found.values():
                    continue
                if self._may_end_in(eqn, eqn.operands[place + 1], result):
                    found[k] = place
                    break
        return found

    def _may_end_in(self, eqn: Eqn, operand: Operand, result: Value) -> bool:
        """Whether the memory of an operand is free for a result of its only reader."""
        if not isinstance(operand, Value) or operand in self.fusion.outputs:
            return False
        if self.fusion.users[operand] != [eqn] or eqn.operands.count(operand) > 1:
            return False
        if operand.eqn is not None:
            return not is_table(operand.eqn)
        given = self.graph.inputs.index(operand)
        pairs = (self.offered | self.donated).items()
        return any(self.graph.outputs[o] is result and i == given for o, i in pairs)


def _call(eqn: Eqn, reads: Buffers, writes: Buffers) -> Node:
    return Call(plan(eqn.regions[0]), reads, writes)


def _scan(eqn: Eqn, reads: Buffers, writes: Buffers) -> Node:
    params = eqn.params
    carries = {k: params["consts"] + k for k in range(params["carry"])}
    return Loop(
        plan(eqn.regions[0], offered=carries),
        None if params["length"] is GROWING else params["length"],
        params["reverse"],
        params["consts"],
        params["carry"],
        reads,
        writes,
        eqn.loc,
    )


def _while(eqn: Eqn, reads: Buffers, writes: Buffers) -> Node:
    test, body = eqn.regions
    consts = eqn.params["consts"]
    carries = {k: consts + k for k in range(len(body.inputs) - consts)}
    inner = plan(test), plan(body, offered=carries)
    return While(*inner, eqn.params["tests"], consts, reads, writes, eqn.loc)


Buffers = tuple[Buffer, ...]
_REGION_NODES: dict[str, Callable[[Eqn, Buffers, Buffers], Node]] = {
    "scan": _scan,
    "while": _while,
}


def _kernel_name(eqns: list[Eqn]) -> str:
    """A name that tells what the kernel is about."""
    kinds = [eqn.op.name for eqn in eqns]
    heavy = [name for name in dict.fromkeys(kinds) if name in ("contract", "sum", "max", "scatter")]
    return "_".join((heavy or kinds)[:3])
