"""Compiled graphs as programs on arrays."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from diffc.errors import InternalError
from diffc.ir.aval import DTYPES, GROWING, Aval
from diffc.ir.graph import Graph
from diffc.ir.index import size
from diffc.leaves import Leaf, as_leaf
from diffc.pipeline import Compilation, compile_graph
from diffc.runtime.executable import Executable, InputSpec, OutputSpec, StatusMessage
from diffc.runtime.stores import Blocks
from diffc.stored import packed, unpacked, words
from diffc.trace import Captured

__all__ = ["KINDS", "GraphProgram", "make_executable", "work_of"]

#: how the native entry takes a Python scalar
KINDS: dict[type, Any] = {float: "float", int: "int", bool: "bool"}


def make_executable(
    compilation: Compilation,
    captured: Sequence[Captured],
    leaves: Sequence[Leaf],
    results: int | None = None,
    threads: int = 0,
) -> Executable:
    """The runtime's form of a compilation; outputs after the first ``results`` are written back.

    At most ``threads`` threads share a kernel (0: as many as the pool is set to).
    """
    graph, module, memory = compilation.graph, compilation.module, compilation.memory
    count = len(leaves)
    if count + len(captured) != len(graph.inputs):
        raise InternalError(
            f"@{graph.name} takes {len(graph.inputs)} arrays, found {count} and {len(captured)}"
        )
    inputs = [
        InputSpec(*_layout(a), KINDS.get(type(leaf), "array"))
        for a, leaf in zip(graph.input_avals[:count], leaves, strict=True)
    ]
    outputs = [
        OutputSpec(
            *_layout(a),
            module.aliases.get(i),
            is_writeback=results is not None and i >= results,
        )
        for i, a in enumerate(graph.output_avals)
    ]
    if module.returns_stores:
        outputs.append(OutputSpec(DTYPES["i64"], (2,)))
    return Executable(
        compilation.library,
        compilation.symbol,
        inputs,
        outputs,
        memory.peak,
        [StatusMessage(text, where or None) for text, where in module.messages],
        [c.array for c in captured if c.array is not None],
        guard_regions=module.guards,
        work=work_of(graph),
        threads=threads,
    )


def _layout(a: Aval) -> tuple[np.dtype[Any], tuple[int, ...]]:
    """Dtype and shape in memory; of stores, of the words that stand for them."""
    if a.is_store:
        return DTYPES["i64"], words(a)
    return DTYPES[a.dtype], tuple(int(dim) for dim in a.shape)  # type: ignore[arg-type]  # the pipeline has ints only


#: how many steps a loop of unknown length is taken for
_MANY_STEPS = 1 << 20


def work_of(graph: Graph) -> int:
    """Roughly how many elements a graph touches."""
    total = 0
    for eqn in graph.eqns:
        for result in eqn.results:
            total += math.prod(_layout(result.aval)[1])
        if eqn.op.name == "contract":
            total += int(size(eqn.operands[0].aval.shape))  # type: ignore[arg-type]  # ints too
        for region in eqn.regions:
            length = eqn.params.get("length", 1)
            is_unknown = eqn.op.name == "while" or length is GROWING
            total += work_of(region) * (_MANY_STEPS if is_unknown else length)
    return total


class GraphProgram:
    """A graph compiled by itself, on flat arrays: what ``vjp`` and ``linearize`` run.

    Stores are arrays as those of the reference interpreter; see ``ops.stores``.
    """

    def __init__(self, graph: Graph, name: str, captured: Sequence[Captured] = ()) -> None:
        self.compilation = compile_graph(graph, name=name)
        self.captured = captured
        self._executables: dict[Any, Executable] = {}

    def __call__(self, leaves: Sequence[Leaf]) -> list[np.ndarray[Any, Any]]:
        """The outputs of the graph."""
        graph, held = self.compilation.graph, []
        given: list[Leaf] = []
        for value, leaf in zip(graph.inputs, leaves, strict=False):
            if value.aval.is_store:
                leaf, alive = packed(value.aval, leaf)
                held.append(alive)
            given.append(as_leaf(leaf))
        key = tuple(type(leaf) for leaf in given)
        executable = self._executables.get(key)
        if executable is None:
            executable = make_executable(self.compilation, self.captured, given)
            self._executables[key] = executable
        found = executable.run(given)
        if not self.compilation.module.returns_stores:
            return found
        owner = Blocks(found.pop(), self.compilation.module.is_guarded)
        return [
            unpacked(output.aval, array, owner) if output.aval.is_store else array
            for output, array in zip(graph.outputs, found, strict=True)
        ]
