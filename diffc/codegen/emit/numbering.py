"""Structural numbers of expressions: equal numbers mean equal values at every point.

With the number come the facts that decide where an expression can be computed: the loop variables,
the bound scalars and the buffers that it depends on. Nodes are numbered once, without recursion.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from diffc.codegen.emit.math import FUNCTIONS
from diffc.codegen.loops.nodes import (
    Apply,
    Buffer,
    Choose,
    Const,
    Expr,
    GatherLoad,
    IndexValue,
    Load,
    Scalar,
)
from diffc.codegen.loops.walk import children, expressions
from diffc.ir.index import Atom, Dim, free

__all__ = ["Facts", "Numbering", "is_long"]

LONG = 40

_NO_ATOMS: frozenset[Atom] = frozenset()
_NO_NAMES: frozenset[str] = frozenset()
_NO_BUFFERS: frozenset[Buffer] = frozenset()


def is_long(roots: Iterable[Expr]) -> bool:
    """Whether expressions take so many instructions that they should be written only once."""
    nodes = expressions(roots)
    return len(nodes) > LONG or any(
        isinstance(node, Apply) and node.name in FUNCTIONS for node in nodes
    )


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of an expression.

    Attributes:
        number: Equal for structurally equal expressions.
        vars: The loop variables that occur.
        scalars: Names of the bound scalars that occur.
        buffers: The buffers that are read.
    """

    number: int
    vars: frozenset[Atom]
    scalars: frozenset[str]
    buffers: frozenset[Buffer]


class Numbering:
    """Numbers the expressions of one kernel, and those that are made while it is written.

    It keeps them all: a new expression might else have the `id` of one that is gone.
    """

    __slots__ = ("_facts", "_kept", "_numbers")

    def __init__(self) -> None:
        self._facts: dict[int, Facts] = {}
        self._kept: list[Expr] = []
        self._numbers: dict[tuple[object, ...], int] = {}

    def of(self, expr: Expr) -> Facts:
        """The facts of an expression."""
        known = self._facts.get(id(expr))
        if known is not None:
            return known
        for node in expressions((expr,)):
            if id(node) not in self._facts:
                self._facts[id(node)] = self._make(node)
                self._kept.append(node)
        return self._facts[id(expr)]

    def _make(self, expr: Expr) -> Facts:
        below = [self._facts[id(child)] for child in children(expr)]
        atoms, names, buffers = _NO_ATOMS, _NO_NAMES, _NO_BUFFERS
        for facts in below:
            atoms, names, buffers = (
                atoms | facts.vars,
                names | facts.scalars,
                buffers | facts.buffers,
            )
        numbers = tuple(facts.number for facts in below)
        key: tuple[object, ...]
        if isinstance(expr, Const):
            key = ("const", expr.dtype, repr(expr.value))
        elif isinstance(expr, Scalar):
            key = ("scalar", expr.name)
            names = frozenset((expr.name,))
        elif isinstance(expr, IndexValue):
            key = ("index", expr.dtype, expr.index)
            atoms = free(expr.index)
        elif isinstance(expr, Load):
            key = ("load", expr.buffer, expr.indices)
            buffers = frozenset((expr.buffer,))
            atoms = _NO_ATOMS.union(*(free(index) for index in expr.indices))
        elif isinstance(expr, GatherLoad):
            plain: list[Dim] = [i for i in expr.indices if not isinstance(i, Expr)]
            where = tuple(not isinstance(i, Expr) for i in expr.indices)
            key = ("gather", expr.buffer, where, tuple(plain), expr.mode, expr.status, *numbers)
            buffers = buffers | {expr.buffer}
            atoms = atoms.union(*(free(index) for index in plain))
        elif isinstance(expr, Choose):
            key = ("choose", expr.guard, *numbers)
            atoms = atoms | expr.guard.free()
        elif isinstance(expr, Apply):
            types = tuple(arg.dtype for arg in expr.args)
            key = (expr.name, expr.dtype, types, *numbers)
        else:
            raise TypeError(f"not an expression: {expr!r}")
        number = self._numbers.setdefault(key, len(self._numbers))
        return Facts(number, atoms, names, buffers)
