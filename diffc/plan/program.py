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
    """A fused group: ``graph``'s inputs are read from ``reads``, its outputs go to ``writes``."""

    graph: Graph
    reads: tuple[Buffer, ...]
    writes: tuple[Buffer, ...]
    loc: Location | None = None


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
    outputs. ``constants`` and ``carries`` count them.
    """

    body: Program
    length: int
    reverse: bool
    constants: int
    carries: int
    reads: tuple[Buffer, ...]
    writes: tuple[Buffer, ...]


Node = Kernel | Copy | Fill | Call | Loop


@dataclass(slots=True, eq=False)
class Program:
    """Nodes in order. ``donated``: output index -> input index whose memory it should reuse."""

    name: str
    inputs: tuple[Buffer, ...]
    outputs: tuple[Buffer, ...]
    temporaries: tuple[Buffer, ...]
    nodes: tuple[Node, ...]
    donated: dict[int, int] = field(default_factory=dict)
