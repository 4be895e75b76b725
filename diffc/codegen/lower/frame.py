"""What the forms of kernels share: parameters, scratch, and where outputs are stored."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from diffc.codegen.loops.nodes import Buffer, Expr, Mode, Par, Stmt, Store
from diffc.codegen.lower.elements import Elements, Indices
from diffc.codegen.lower.messages import Messages
from diffc.codegen.lower.term import apply
from diffc.ir.graph import Graph, Operand, Value
from diffc.ir.index import Dim, Var, ravel, unravel
from diffc.plan.forms import normal

Shape = tuple[int, ...]


class Frame:
    """A kernel being lowered.

    Attributes:
        graph: the kernel's graph.
        elements: evaluates its values.
        inputs, outputs: the parameters.
        scratch: private buffers, in the order in which they were asked for.
    """

    __slots__ = ("_names", "_scalars", "elements", "graph", "inputs", "outputs", "scratch")

    def __init__(self, graph: Graph, messages: Messages) -> None:
        self.graph = graph
        self._names: set[str] = set()
        self._scalars = 0
        self.scratch: list[Buffer] = []
        self.inputs = tuple(self._buffer(v, v.name or "x", "in") for v in graph.inputs)
        self.outputs = tuple(
            self._buffer(v, (v.name if isinstance(v, Value) else "") or "out", "out")
            for v in graph.outputs
        )
        memory: dict[Operand, Buffer] = dict(zip(graph.inputs, self.inputs, strict=True))
        self.elements = Elements(memory, messages)

    def _buffer(self, operand: Operand, name: str, mode: Mode) -> Buffer:
        return Buffer(self._unique(name), operand.aval.dtype, shape_of(operand), mode)

    def _unique(self, name: str) -> str:
        unique, count = name, 1
        while unique in self._names:
            unique = f"{name}_{count}"
            count += 1
        self._names.add(unique)
        return unique

    def new_scratch(self, name: str, dtype: str, shape: Shape) -> Buffer:
        """A new private buffer."""
        buffer = Buffer(self._unique(name), dtype, shape, "scratch")
        self.scratch.append(buffer)
        return buffer

    def new_scalar(self) -> str:
        """A new name for what a statement finds."""
        self._scalars += 1
        return f"s{self._scalars - 1}"

    def define_converted(self, value: Value, indices: Indices, expr: Expr) -> None:
        """Declares what an element is, rounded to the value's dtype."""
        self.elements.define(value, indices, apply("convert", expr, dtype=value.aval.dtype))

    def store(self, position: int, shape: Shape, indices: Indices) -> Store:
        """Stores the part of output ``position`` that belongs to a point of a domain."""
        output = self.graph.outputs[position]
        value, where, place = placed(output, shape, indices)
        element = self.elements.element(value, where)
        return Store(self.outputs[position], place, element)


def placed(output: Operand, shape: Shape, indices: Indices) -> tuple[Operand, Indices, Indices]:
    """What to compute at a point of a domain, and where in ``output`` it goes.

    An output that only rearranges a value of the domain's own shape is written where it goes, not
    read from where it came; any other one has the domain's number of elements, in its order.
    """
    chain = []
    current = output
    while current.aval.shape != shape:
        eqn = current.eqn if isinstance(current, Value) else None
        if eqn is None or eqn.op.name not in ("reshape", "transpose"):
            where = reindex(indices, shape, shape_of(output))
            return output, where, where
        chain.append(eqn)
        current = eqn.operands[0]
    place = normal(indices, shape)
    for eqn in reversed(chain):
        if eqn.op.name == "transpose":
            place = tuple(place[axis] for axis in eqn.params["perm"])
        else:
            place = reindex(place, shape_of(eqn.operands[0]), shape_of(eqn.result))
    return current, indices, place


def reindex(indices: Sequence[Dim], shape: Shape, wanted: Shape) -> Indices:
    """The indices of the same element under another shape."""
    if shape == wanted:
        return normal(indices, shape)
    return normal(unravel(ravel(tuple(indices), shape), wanted), wanted)


def points(name: str, shape: Iterable[int]) -> Indices:
    """Variables for the points of a shape; 0 on axes of length 1."""
    return tuple(0 if n == 1 else Var(f"{name}{axis}", n) for axis, n in enumerate(shape))


def variables(*groups: Iterable[Dim]) -> tuple[Var, ...]:
    """Those of the indices that are variables."""
    return tuple(index for group in groups for index in group if isinstance(index, Var))


def par(indices: Iterable[Dim], body: Iterable[Stmt]) -> Iterator[Stmt]:
    """The body at all points; without a loop where there is one point, nothing for no body."""
    body, loop = tuple(body), variables(indices)
    if loop and body:
        yield Par(loop, body)
    else:
        yield from body


def shape_of(operand: Operand) -> Shape:
    """The shape, which is known in a kernel."""
    return tuple(map(_known, operand.aval.shape))


def size_of(shape: Iterable[int]) -> int:
    """Number of elements."""
    return math.prod(shape)


def _known(dim: Any) -> int:
    assert isinstance(dim, int), f"dimension {dim} of a kernel is not known"
    return dim
