"""A kernel as a part of a joined one: its nest, and where it touches the program's buffers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from diffc.codegen.loops.contraction import accumulator
from diffc.codegen.loops.nodes import Buffer as Param
from diffc.codegen.loops.nodes import (
    Contract,
    Expr,
    For,
    GatherLoad,
    Load,
    Par,
    Prefix,
    Scalar,
    Scatter,
    Sort,
    Store,
)
from diffc.codegen.loops.nodes import Kernel as Nest
from diffc.codegen.loops.walk import bound, expressions, operands, statements
from diffc.ir.index import Dim, Var
from diffc.plan.program import Buffer, Kernel

__all__ = ["Part", "part_of"]

Place = tuple[Dim | Expr, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """A kernel of which rows can run by themselves.

    Attributes:
        node: The kernel in the program.
        kernel: As lowered, loops as they come from the graph.
        nest: All of its body: independent points.
        buffers: What each parameter is in the program.
        loads: Where it reads each buffer; None: somewhere else than a nest can tell.
        stores: Where it writes each buffer.
    """

    node: Kernel
    kernel: Nest
    nest: Par
    buffers: Mapping[Param, Buffer]
    loads: dict[Buffer, list[Place | None]] = field(default_factory=dict)
    stores: dict[Buffer, list[Place]] = field(default_factory=dict)

    @property
    def contract(self) -> Contract | None:
        """The contraction that it is."""
        first = self.nest.body[0]
        return first if isinstance(first, Contract) else None

    @property
    def sums(self) -> tuple[Var, ...]:
        """The summed variables along which it can go on with sums that were begun; outermost first.

        Such a part is a contraction that stores its sums as they are.
        """
        first, *rest = self.nest.body
        if not isinstance(first, Contract) or len(rest) != 1 or not isinstance(rest[0], Store):
            return ()
        store, dtype = rest[0], first.target.dtype
        is_bare = store.value == first.target or _is(store.value, first.target)
        if not is_bare or not store.guard.is_true or accumulator(dtype) != dtype:
            return ()
        return first.vars


def _is(value: Expr, target: Scalar) -> bool:
    return isinstance(value, Scalar) and value.name == target.name


def part_of(node: Kernel, kernel: Nest) -> Part | None:
    """The kernel as a part; None where it is more than one nest of independent points."""
    if len(kernel.body) != 1:
        return None
    (nest,) = kernel.body
    if not isinstance(nest, Par) or any(var.extent == 0 for var in bound((nest,))):
        return None
    if any(isinstance(stmt, For | Scatter | Prefix | Sort) for stmt in statements(nest.body)):
        return None
    known = (*node.reads, *node.writes)
    part = Part(node, kernel, nest, dict(zip(kernel.params, known, strict=True)))
    roots = [root for stmt in statements(nest.body) for root in operands(stmt)]
    for expr in expressions(roots):
        if isinstance(expr, Load | GatherLoad) and expr.buffer in part.buffers:
            place: Place | None = tuple(expr.indices)
            if isinstance(expr, GatherLoad) or not _is_as_in_program(expr.buffer, part):
                place = None
            part.loads.setdefault(part.buffers[expr.buffer], []).append(place)
    for stmt in statements(nest.body):
        if isinstance(stmt, Store) and stmt.buffer in part.buffers:
            part.stores.setdefault(part.buffers[stmt.buffer], []).append(stmt.indices)
    return part


def _is_as_in_program(param: Param, part: Part) -> bool:
    return param.shape == tuple(part.buffers[param].aval.shape)
