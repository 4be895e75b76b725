"""Transforms of functions that ask for values: Python's own ``if`` and ``while``, outside ``jit``.

A transform that is called outside a trace is traced abstractly first, once for each signature. If
the function asks for a value (``if``, ``while``, ``float``, ``range(n)``, an index into a list), it
is from then on traced anew at each call, on tracers that know their values; the graph is that of
the path taken. A path's graph is interpreted when it is new, and compiled when it recurs, so what
is repeated runs native code. What a call then costs: the trace (a few microseconds for each
operation, and the values that were asked for, by NumPy), the key of the graph, and the run.

The function runs twice in the first call: once up to the question, once with values.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from typing import Any, Generic, TypeVar

import numpy as np

from diffc.ir.graph import Graph
from diffc.ir.keys import structural_key
from diffc.jitted import Bound, Compiled, Derivation, Jitted
from diffc.ops.interpret import evaluate
from diffc.optimize import optimize
from diffc.programs import make_executable
from diffc.trace import Traced, ValueNeeded, active

#: a path is compiled in its call of this number
COMPILED_FROM = 3
#: how many paths a signature remembers; the one not taken for the longest time is forgotten
MOST_PATHS = 128

T = TypeVar("T")


class Paths(Generic[T]):
    """What is remembered of each path that a function has taken, the latest ones."""

    def __init__(self) -> None:
        self._found: OrderedDict[Hashable, T] = OrderedDict()

    def __len__(self) -> int:
        return len(self._found)

    def get(self, key: Hashable, make: Callable[[], T]) -> T:
        """What is remembered, or made now."""
        found = self._found.get(key)
        if found is None:
            found = self._found[key] = make()
            if len(self._found) > MOST_PATHS:
                self._found.popitem(last=False)
        else:  # the latest again; another thread may just have forgotten it
            self._found[key] = self._found.pop(key, found)
        return found


def interpret(graph: Graph, operands: Sequence[Any]) -> list[np.ndarray[Any, Any]]:
    """The outputs of a graph on arrays and Python numbers."""
    arrays = [
        x if value.aval.is_store else np.asarray(x, value.aval.numpy)
        for x, value in zip(operands, graph.inputs, strict=True)
    ]
    return evaluate(graph, arrays)


class Path:
    """One path: interpreted when new, compiled when it recurs."""

    __slots__ = ("calls", "compiled", "derivation", "graph")

    def __init__(self, traced: Traced, derivation: Derivation | None) -> None:
        graph = optimize(traced.graph)
        self.graph = derivation.graph(graph) if derivation else graph
        self.derivation = derivation
        self.calls = 0
        self.compiled: Compiled | None = None


class Valued(Jitted):
    """A transform that compiles itself, and traces with values where its function asks for them.

    Only for functions called outside a trace; under ``jit``, asking for a value is an error.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__(function)
        self._paths: dict[Any, Paths[Path]] = {}

    def call(self, *args: Any, **kwargs: Any) -> Any:
        """As :meth:`Jitted.call`; asks the function for its path where it needs values."""
        if not self._paths or active():
            try:
                return super().call(*args, **kwargs)
            except ValueNeeded:
                if active():
                    raise
        bound = self._bind(args, kwargs)
        paths = self._paths.get(bound.key)
        if paths is None:
            if self._paths:
                try:
                    return super().call(*args, **kwargs)
                except ValueNeeded:
                    pass
            paths = Paths()
        result = self._call_path(bound, paths)
        self._paths[bound.key] = paths
        return result

    def _call_path(self, bound: Bound, paths: Paths[Path]) -> Any:
        traced, derivation, seconds = self._trace(bound, concrete=True)
        key = (structural_key(traced.graph), traced.out_tree)
        path = paths.get(key, lambda: Path(traced, derivation))
        path.calls += 1
        if path.calls < COMPILED_FROM:
            out_tree = path.derivation.out_tree if path.derivation else traced.out_tree
            captured = [c.array for c in traced.captured]
            outputs = interpret(path.graph, [*bound.leaves, *captured])
            return out_tree.build(outputs[: out_tree.num_leaves])
        return self._compiled_path(path, bound, traced, seconds).run(bound.leaves)

    def _compiled_path(self, path: Path, bound: Bound, traced: Traced, seconds: float) -> Compiled:
        """The path's program, bound to the arrays that the function reaches today."""
        known = path.compiled
        if known is not None and _same_arrays(known, traced):
            return known
        if known is None:
            compilation = self._compilation(traced, path.derivation, seconds, bound)
        else:
            compilation = known.compilation
        out_tree = path.derivation.out_tree if path.derivation else traced.out_tree
        path.compiled = Compiled(
            compilation,
            make_executable(compilation, traced.captured, bound.leaves, out_tree.num_leaves),
            out_tree,
            traced.captured,
            bound.in_tree,
            bound.signature,
        )
        return path.compiled


def _same_arrays(compiled: Compiled, traced: Traced) -> bool:
    pairs = zip(compiled.captured, traced.captured, strict=True)
    return all(old.array is new.array for old, new in pairs)
