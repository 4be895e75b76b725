"""``plan``: a graph becomes a program of kernels, calls and loops on buffers.

Before: one graph. After: a :class:`Program` whose kernels are the groups of ``fuse``, in an order
that respects what they read, and, where an input is donated, that reads it before it is written.
Equal callees are planned once. Memory is not assigned here; see ``codegen.allocate``.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping
from weakref import WeakKeyDictionary

from diffc.errors import InternalError
from diffc.ir.aval import Aval
from diffc.ir.graph import Builder, Eqn, Graph, Literal, Operand, Value
from diffc.plan.fuse import Fusion, Group
from diffc.plan.merge import merge_groups
from diffc.plan.program import Buffer, Call, Copy, Fill, Kernel, Loop, Node, Program

_PLANS: WeakKeyDictionary[Graph, Program] = WeakKeyDictionary()


def plan(graph: Graph, donated: Mapping[int, int] | None = None) -> Program:
    """Plans a graph.

    Args:
        graph: what to run; all dimensions are ints.
        donated: output index -> index of the input whose memory it should take over.
    """
    if donated:
        return _Planner(graph, donated).program()
    found = _PLANS.get(graph)
    if found is None:
        found = _PLANS[graph] = _Planner(graph, {}).program()
    return found


class _Planner:
    def __init__(self, graph: Graph, donated: Mapping[int, int]) -> None:
        self.graph = graph
        self.donated = dict(donated)
        self.fusion = Fusion(graph)
        self.fusion.run()
        merge_groups(self.fusion)
        self.groups = self.fusion.groups
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
        late: list[Node] = []
        for buffer, output in zip(outputs, graph.outputs, strict=True):
            if isinstance(output, Literal):
                late.append(Fill(buffer, output.value))
            elif output in self.buffers:
                late.append(Copy(self.buffers[output], buffer))
            else:
                self.buffers[output] = buffer
        self._read_before_donated_writes()
        needed = self._values_in_memory()
        for group in self._ordered():
            self._place(group, needed)
        return Program(
            graph.name,
            inputs,
            tuple(outputs),
            tuple(self.temporaries),
            (*self.nodes, *late),
            self.donated,
        )

    # --- order --------------------------------------------------------------------------------

    def _read_before_donated_writes(self) -> None:
        """Lets who reads a donated input run before its memory is taken over, if it can."""
        readers: dict[Value, dict[Group, None]] = {}
        for group in self.groups:
            for eqn in group.eqns:
                for value in self.fusion.roots(eqn):
                    if value.eqn is None:
                        readers.setdefault(value, {})[group] = None
        for output_index, input_index in self.donated.items():
            output = self.graph.outputs[output_index]
            if not isinstance(output, Value) or output.eqn is None:
                continue
            writer = self.fusion.group_of[output.eqn]
            for group in readers.get(self.graph.inputs[input_index], ()):
                if group is not writer and not writer.runs_before(group):
                    writer.run_after(group)

    def _ordered(self) -> list[Group]:
        """Topological order: as soon as what is read is there, so that it is still in the cache.

        Among groups that become ready together, the one that stands first.
        """
        waiting = dict.fromkeys(self.groups, 0)
        for group in self.groups:
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
        if len(ordered) != len(self.groups):
            raise InternalError(f"the kernels of @{self.graph.name} form a cycle")
        return ordered

    def _first(self, group: Group) -> int:
        return max(self.position[eqn] for eqn in group.eqns)

    # --- buffers ------------------------------------------------------------------------------

    def _values_in_memory(self) -> set[Value]:
        """Values that another group reads, or that leave the graph."""
        needed = {output for output in self.graph.outputs if isinstance(output, Value)}
        for group in self.groups:
            for eqn in group.eqns:
                for value in self.fusion.roots(eqn):
                    if value.eqn is None or self.fusion.group_of[value.eqn] is not group:
                        needed.add(value)
        return needed

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
        return found

    # --- nodes --------------------------------------------------------------------------------

    def _place(self, group: Group, needed: set[Value]) -> None:
        eqns = sorted(group.eqns, key=self.position.__getitem__)
        if group.form == "region":
            self._place_region(eqns[0])
            return
        written = [r for eqn in eqns for r in eqn.results if r in needed or group.form == "solo"]
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
            for operand in eqn.operands:
                if isinstance(operand, Literal):
                    if group.form == "contract" and eqn is eqns[0]:
                        env[operand] = builder.input(operand.aval, "splat")
                        reads.append(operand)
                    continue
                self._bring(builder, operand, env, reads)
            builder.loc = eqn.loc
            if group.form == "contract" and eqn is not eqns[0]:
                splats = {
                    x: env.pop(x) for x in eqn.operands if isinstance(x, Literal) and x in env
                }
                builder.copy(eqn, env)
                env.update(splats.items())
            else:
                builder.copy(eqn, env)
        return builder.build(env[value] for value in written), reads

    def _bring(
        self,
        builder: Builder,
        value: Value,
        env: dict[Operand, Operand],
        reads: list[Operand],
    ) -> None:
        """Makes ``value`` available in the kernel: dissolved views are copied, the rest is read."""
        chain: list[Eqn] = []
        current: Operand = value
        while isinstance(current, Value) and current not in env and self.fusion.dissolves(current):
            assert current.eqn is not None
            chain.append(current.eqn)
            if not current.eqn.operands:
                break
            current = current.eqn.operands[0]
        if isinstance(current, Value) and current not in env and not self.fusion.dissolves(current):
            env[current] = builder.input(current.aval, current.name or "a")
            reads.append(current)
        for eqn in reversed(chain):
            builder.copy(eqn, env)

    def _place_region(self, eqn: Eqn) -> None:
        (body,) = eqn.regions
        reads = tuple(self._buffer(operand) for operand in eqn.operands)
        writes = tuple(self._buffer(result) for result in eqn.results)
        program = plan(body)
        if "length" not in eqn.params:
            self.nodes.append(Call(program, reads, writes))
            return
        params = eqn.params
        self.nodes.append(
            Loop(
                program,
                params["length"],
                params["reverse"],
                params["consts"],
                params["carry"],
                reads,
                writes,
            )
        )


def _kernel_name(eqns: list[Eqn]) -> str:
    """A name that tells what the kernel is about."""
    kinds = [eqn.op.name for eqn in eqns]
    heavy = [name for name in dict.fromkeys(kinds) if name in ("contract", "sum", "max", "scatter")]
    return "_".join((heavy or kinds)[:3])
