"""Compiled graphs as programs on arrays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from diffc.errors import InternalError
from diffc.ir.aval import DTYPES, Aval
from diffc.ir.graph import Graph
from diffc.ir.index import size
from diffc.leaves import Leaf, as_leaf
from diffc.pipeline import Compilation, compile_graph
from diffc.runtime.executable import Executable, InputSpec, OutputSpec, StatusMessage
from diffc.trace import Captured

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
        InputSpec(DTYPES[a.dtype], _known(a), KINDS.get(type(leaf), "array"))
        for a, leaf in zip(graph.input_avals[:count], leaves, strict=True)
    ]
    outputs = [
        OutputSpec(
            DTYPES[a.dtype],
            _known(a),
            module.aliases.get(i),
            is_writeback=results is not None and i >= results,
        )
        for i, a in enumerate(graph.output_avals)
    ]
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


def _known(a: Aval) -> tuple[int, ...]:
    return tuple(int(dim) for dim in a.shape)  # type: ignore[arg-type]  # the pipeline has ints only


#: how many steps a loop of unknown length is taken for
_MANY_STEPS = 1 << 20


def work_of(graph: Graph) -> int:
    """Roughly how many elements a graph touches."""
    total = 0
    for eqn in graph.eqns:
        for result in eqn.results:
            total += int(result.aval.size)  # type: ignore[arg-type]  # ints, as above
        if eqn.op.name == "contract":
            total += int(size(eqn.operands[0].aval.shape))  # type: ignore[arg-type]  # ints too
        for region in eqn.regions:
            steps = _MANY_STEPS if eqn.op.name == "while" else eqn.params.get("length", 1)
            total += work_of(region) * steps
    return total


class GraphProgram:
    """A graph compiled by itself, on flat arrays: what ``vjp`` and ``linearize`` run."""

    def __init__(self, graph: Graph, name: str, captured: Sequence[Captured] = ()) -> None:
        self.compilation = compile_graph(graph, name=name)
        self.captured = captured
        self._executables: dict[Any, Executable] = {}

    def __call__(self, leaves: Sequence[Leaf]) -> list[np.ndarray[Any, Any]]:
        """The outputs of the graph."""
        leaves = [as_leaf(leaf) for leaf in leaves]
        key = tuple(type(leaf) for leaf in leaves)
        executable = self._executables.get(key)
        if executable is None:
            executable = make_executable(self.compilation, self.captured, leaves)
            self._executables[key] = executable
        return executable.run(leaves)
