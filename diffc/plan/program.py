"""A program: kernels, loops and calls in order, on named buffers.

The plan of one graph. A kernel is a small graph of its own, fused from equations that share their
outer loops; it reads and writes buffers. Buffers have no addresses yet: ``allocate`` decides them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal as Choice

from diffc.ir.aval import Aval
from diffc.ir.graph import Graph, Location

Role = Choice["input", "output", "temporary", "constant"]


@dataclass(slots=True, eq=False)
class Buffer:
    """Memory of one value. ``index``: which input, output or constant of the program.

    ``data`` holds a constant's bytes.
    """

    name: str
    aval: Aval
    role: Role
    index: int = 0
    data: bytes = b""


@dataclass(slots=True, eq=False)
class Kernel:
    """A fused group: ``graph``'s inputs are read from ``reads``, its outputs go to ``writes``.

    ``parts``: the kernels of which it is made, where it is made of several (``codegen.slabs``).
    """

    graph: Graph
    reads: tuple[Buffer, ...]
    writes: tuple[Buffer, ...]
    loc: Location | None = None
    parts: tuple[Kernel, ...] = ()


@dataclass(slots=True, eq=False)
class Copy:
    """``target`` becomes what ``source`` holds."""

    source: Buffer
    target: Buffer


@dataclass(slots=True, eq=False)
class Fill:
    """``target`` becomes a literal splat."""

    target: Buffer
    value: bool | int | float


@dataclass(slots=True, eq=False)
class Call:
    """Runs a program of its own on these buffers."""

    program: Program
    reads: tuple[Buffer, ...]
    writes: tuple[Buffer, ...]


@dataclass(slots=True, eq=False)
class Loop:
    """A scan: runs ``body`` ``length`` times.

    ``body``'s inputs: constants, carries, slices; its outputs: carries, slices.
    ``reads``: constants, initial carries, stacked inputs; ``writes``: final carries, stacked
    outputs. ``constants`` and ``carries`` count them. With ``length`` None the first constant says
    how many steps there are, and what is stacked are stores.
    """

    body: Program
    length: int | None
    reverse: bool
    constants: int
    carries: int
    reads: tuple[Buffer, ...]
    writes: tuple[Buffer, ...]
    loc: Location | None = None


@dataclass(slots=True, eq=False)
class Branch:
    """Runs one of several programs of the same inputs and outputs.

    ``reads``: the index (a bool or i32, clamped) and the programs' inputs. ``updated``: output ->
    input (of the programs) whose memory it takes over in all of them.
    """

    branches: tuple[Program, ...]
    reads: tuple[Buffer, ...]
    writes: tuple[Buffer, ...]
    updated: dict[int, int] = field(default_factory=dict)


@dataclass(slots=True, eq=False)
class While:
    """Runs ``body`` on its own results for as long as ``test`` gives true of them.

    ``reads``: what only the test reads, what only the body reads, initial carries; ``tests`` and
    ``constants`` count the first two. ``writes``: final carries, then stores of what else the body
    gives in each trip.
    """

    test: Program
    body: Program
    tests: int
    constants: int
    reads: tuple[Buffer, ...]
    writes: tuple[Buffer, ...]
    loc: Location | None = None

    @property
    def first(self) -> int:
        """Position of the first carry in ``reads``."""
        return self.tests + self.constants

    @property
    def carries(self) -> int:
        """How many values are carried."""
        return len(self.reads) - self.first


Node = Kernel | Copy | Fill | Call | Loop | Branch | While


@dataclass(slots=True, eq=False)
class Program:
    """Nodes in order.

    Attributes:
        donated: output index -> input index whose memory it reuses, at the price of a copy if
            need be.
        offered: output index -> input index whose memory it takes over where no copy is needed.
    """

    name: str
    inputs: tuple[Buffer, ...]
    outputs: tuple[Buffer, ...]
    temporaries: tuple[Buffer, ...]
    nodes: tuple[Node, ...]
    donated: dict[int, int] = field(default_factory=dict)
    offered: dict[int, int] = field(default_factory=dict)


def reads_of(node: Node) -> tuple[Buffer, ...]:
    """What a node reads."""
    if isinstance(node, Copy):
        return (node.source,)
    return () if isinstance(node, Fill) else node.reads


def writes_of(node: Node) -> tuple[Buffer, ...]:
    """What a node writes."""
    return (node.target,) if isinstance(node, Copy | Fill) else node.writes


def programs_of(node: Node) -> tuple[Program, ...]:
    """The programs that a node runs."""
    match node:
        case Call():
            return (node.program,)
        case Loop():
            return (node.body,)
        case Branch():
            return node.branches
        case While():
            return node.test, node.body
    return ()


def callees(program: Program) -> list[Program]:
    """The programs that the nodes of a program run, each once."""
    return list(dict.fromkeys(callee for node in program.nodes for callee in programs_of(node)))


def callees_first(program: Program) -> list[Program]:
    """The program and all that it runs, each once and behind those that it runs itself."""
    found: dict[Program, None] = {}
    stack = [program]
    while stack:
        current = stack[-1]
        waiting = [callee for callee in callees(current) if callee not in found]
        if waiting:
            stack += waiting
        else:
            found[stack.pop()] = None
    return list(found)
