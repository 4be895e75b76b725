"""The stages, in one straight list: from a traced graph to native code.

``trace → outline → transform → optimize → plan → lower → tile → allocate → emit → build``. Each
stage is a function from one printable value to the next. A :class:`Compilation` keeps every stage's
value, text and time; texts are made when they are asked for.
"""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from diffc.codegen.allocate import Memory, allocate
from diffc.codegen.emit.module import emit
from diffc.codegen.loops.module import Module
from diffc.codegen.loops.nodes import Kernel as LoopKernel
from diffc.codegen.loops.text import print_kernel
from diffc.codegen.lower import Messages, coalesce, lower
from diffc.codegen.slabs import join
from diffc.codegen.targets import Target
from diffc.codegen.tile import tile
from diffc.errors import DiffcError, InternalError, UsageError
from diffc.ir.check import check
from diffc.ir.graph import Graph, prune
from diffc.ir.keys import structural_key
from diffc.ir.note import Note
from diffc.ir.text import print_graph
from diffc.optimize import Outlined, compact, outline
from diffc.plan.plan import plan
from diffc.plan.program import Kernel, Program, callees_first
from diffc.plan.text import print_program
from diffc.runtime import build, guard, pool, stores
from diffc.runtime.target import host
from diffc.transforms import expand

#: names of the stages, in order; ``asm`` is the text of ``build``.
STAGES = (
    "trace",
    "outline",
    "transform",
    "optimize",
    "plan",
    "lower",
    "tile",
    "allocate",
    "emit",
    "asm",
)

Transform = Callable[[Graph], Graph]


@dataclass(slots=True)
class Stage:
    """One stage of one compilation.

    Attributes:
        name: one of ``STAGES``.
        value: what the stage made.
        seconds: how long it took.
    """

    name: str
    value: Any
    seconds: float
    _text: Callable[[], str]

    @property
    def text(self) -> str:
        """The value as text."""
        return self._text()

    def __str__(self) -> str:
        return self.text


@dataclass(slots=True)
class Compilation:
    """What every stage made, and the native library at the end."""

    name: str
    symbol: str
    target: Target
    stages: dict[str, Stage] = field(default_factory=dict)
    outlined: list[Outlined] = field(default_factory=list)
    notes: tuple[Note, ...] = ()

    def report(self) -> str:
        """What was outlined, and what there is to note, as comment lines."""
        return "".join(f"# outlined {part}\n" for part in self.outlined) + self.noted()

    def noted(self) -> str:
        """What transforms had to say of the user's code, as comment lines."""
        return "".join(f"# note: {note}\n" for note in self.notes)

    def stage(self, name: str) -> Stage:
        """A stage by name.

        Raises:
            UsageError: no stage has this name.
        """
        if name not in self.stages:
            raise UsageError(f"no stage is named {name!r}", hint=f"stages: {', '.join(STAGES)}")
        return self.stages[name]

    @property
    def graph(self) -> Graph:
        """The optimized graph."""
        graph: Graph = self.stages["optimize"].value
        return graph

    @property
    def module(self) -> Module:
        """The module with addresses."""
        module: Module = self.stages["allocate"].value[0]
        return module

    @property
    def memory(self) -> Memory:
        """The memory plan."""
        memory: Memory = self.stages["allocate"].value[1]
        return memory

    @property
    def library(self) -> build.Library:
        """The native code."""
        library: build.Library = self.stages["asm"].value
        return library

    def timings(self) -> dict[str, float]:
        """Seconds of each stage, in order."""
        return {name: stage.seconds for name, stage in self.stages.items()}


def compile_graph(
    traced: Graph,
    *,
    name: str,
    transform: Transform | None = None,
    donated: Callable[[Graph], Mapping[int, int]] | None = None,
    trace_seconds: float = 0.0,
    until: str = "asm",
    rules: tuple[str, ...] | None = None,
    target: Target | None = None,
    notes: tuple[Note, ...] = (),
) -> Compilation:
    """Runs all stages on a traced graph.

    Args:
        traced: the graph of the function; all dimensions are ints.
        name: the function's name; it becomes part of the native symbol.
        transform: a graph-to-graph transform (a vjp, ...), given the optimized graph.
        donated: which outputs take over which inputs, given the transformed graph.
        trace_seconds: how long tracing took, for ``timings``.
        until: the last stage to run.
        rules: the only rewrite rules to use (default: all that are on).
        target: the CPU (default: the host's).
        notes: what there is to say of the user's code; the texts of graphs end with it.

    Raises:
        InternalError: a stage failed; it names the stage and the user's line.
    """
    target = target or host()
    symbol = "diffc_" + "".join(c if c.isalnum() else "_" for c in name)
    result = Compilation(name, symbol, target, notes=notes)
    result.stages["trace"] = Stage(
        "trace",
        traced,
        trace_seconds,
        lambda: print_graph(traced, locations=True) + result.noted(),
    )
    for stage_name, value, seconds, text in _run(traced, result, transform, donated, rules, target):
        result.stages[stage_name] = Stage(stage_name, value, seconds, text)
        if stage_name == until:
            break
    return result


Step = tuple[str, Any, float, Callable[[], str]]


def _run(
    traced: Graph,
    result: Compilation,
    transform: Transform | None,
    donated: Callable[[Graph], Mapping[int, int]] | None,
    rules: tuple[str, ...] | None,
    target: Target,
) -> Iterator[Step]:
    clock = _Clock()
    with clock("outline"):
        graph = outline(prune(traced), result.outlined, only_chains=True)
    outlined, report = graph, result.report()
    yield "outline", graph, clock.seconds, lambda: print_graph(outlined, locations=True) + report
    if transform is not None:
        with clock("transform"):
            graph = prune(transform(compact(graph, only=rules, report=result.outlined)))
    transformed = graph
    yield (
        "transform",
        graph,
        clock.seconds,
        lambda: print_graph(transformed, locations=True) + result.noted(),
    )
    with clock("optimize"):
        graph = compact(expand(graph, solves=True), only=rules, report=result.outlined)
        check(graph, "optimize")
    final = graph
    yield "optimize", graph, clock.seconds, lambda: print_graph(final) + result.report()
    with clock("plan"):
        program = plan(graph, donated(graph) if donated else None)
    yield "plan", program, clock.seconds, lambda: print_program(program)
    messages = Messages()
    with clock("lower"):
        program, lowered = _lower_all(program, messages, target)
    yield "lower", lowered, clock.seconds, lambda: _print_kernels(lowered)
    with clock("tile"):
        tiled = _tile_all(lowered, target)
    yield "tile", tiled, clock.seconds, lambda: _print_kernels(tiled)
    with clock("allocate"):
        module, memory = allocate(program, tiled, messages, guard=guard.is_enabled())
    yield "allocate", (module, memory), clock.seconds, lambda: str(memory)
    with clock("emit"):
        text = emit(module, result.symbol, target)
    yield "emit", text, clock.seconds, lambda: text
    with clock("build"):
        imports = pool.imports() if module.has_shares else {}
        if module.has_stores:
            imports = imports | stores.imports(module.is_guarded)
        library = build.build(text, (result.symbol,), target, imports)
    yield "asm", library, clock.seconds, lambda: build.assembly(text, target)


class _Pause:
    """Pauses the garbage collector, which would walk growing graphs again and again."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._depth = 0
        self._was_on = False

    def __enter__(self) -> None:
        with self._lock:
            if self._depth == 0:
                self._was_on = gc.isenabled()
                gc.disable()
            self._depth += 1

    def __exit__(self, *error: object) -> None:
        with self._lock:
            self._depth -= 1
            if self._depth == 0 and self._was_on:
                gc.enable()


#: ``with PAUSE:`` around tracing and compiling
PAUSE = _Pause()


class _Clock:
    """Times stages, and says which one failed."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self, stage: str) -> _Clock:
        self.stage = stage
        return self

    def __enter__(self) -> None:
        self.start = time.perf_counter()

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        self.seconds = time.perf_counter() - self.start
        if isinstance(error, Exception) and not isinstance(error, DiffcError):
            raise InternalError(f"stage {self.stage} failed: {error!r}") from error


def _lower_all(
    program: Program, messages: Messages, target: Target
) -> tuple[Program, dict[Kernel, LoopKernel]]:
    """Lowers every kernel, equal kernel graphs once, and joins those that run together."""
    lowered: dict[Kernel, LoopKernel] = {}
    known: dict[tuple[Any, ...], LoopKernel] = {}
    for current in reversed(callees_first(program)):
        for node in current.nodes:
            if isinstance(node, Kernel):
                checks = any(eqn.params.get("mode") == "check" for eqn in node.graph.eqns)
                lines = tuple(eqn.loc for eqn in node.graph.eqns) if checks else ()
                key = structural_key(node.graph), lines  # a message names one line
                if key not in known:
                    name = f"k{len(known)}_{node.graph.name}"
                    known[key] = lower(node.graph, name, messages, is_whole=False)
                lowered[node] = known[key]
    joined, lowered = join(program, lowered, target)
    kernels = {node for p in callees_first(joined) for node in p.nodes if isinstance(node, Kernel)}
    whole = {id(nest): coalesce(nest) for node, nest in lowered.items() if node in kernels}
    return joined, {node: whole[id(nest)] for node, nest in lowered.items() if node in kernels}


def _tile_all(lowered: Mapping[Kernel, LoopKernel], target: Target) -> dict[Kernel, LoopKernel]:
    tiled: dict[int, LoopKernel] = {}
    for kernel in lowered.values():
        if id(kernel) not in tiled:
            tiled[id(kernel)] = tile(kernel, target)
    return {node: tiled[id(kernel)] for node, kernel in lowered.items()}


def _print_kernels(kernels: Mapping[Kernel, LoopKernel]) -> str:
    distinct = {id(kernel): kernel for kernel in kernels.values()}
    return "\n".join(print_kernel(kernel) for kernel in distinct.values())
