"""Leaves out what a mask on indices hides, where nests hand values on slab by slab.

::

    for slab in 32 {                                                 # scores of a causal attention
      par key in 2048, local in 64 {
        s = contract(...)
        scores[key, local] = select(le(key, 64*slab + local), s, -1e30)
      }
      par local in 64 { m = reduce max ...; sweep key in 2048 { scores[key, local] = exp(...) } }
      par local in 64, e in 64 { s = contract(key in 2048: scores[key, local], v[key, e]) ... }
    }

Beyond the *border* ``64*slab + 64`` every key is masked. There the scores are a constant, their
exponentials zero, and so are the products with them. Statements are bounded by ``Within``: half of
a causal attention is never computed. Nothing names attention: a border comes from a comparison of
indices in what is stored to scratch, and constants are followed from statement to statement.

No result differs, not even by what is not a number. What follows from indices alone needs no test:
a score behind the mask, a cotangent that a `select` drops. The others are tested as the code runs.
``exp(-1e30 - m)`` is zero for all sums that are not extreme; zero times an element of `v` is zero
if that is finite. Where a test fails, constants are written to the rest of the scratch, and from
there on this slab goes the whole way.

A maximum takes one point beyond the border, which stands for all of them. Tiles of contractions go
on to their end, so whoever writes what they read covers a few points more (`_Step.pad`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from diffc.codegen.loops.contraction import extent_of, is_tiled
from diffc.codegen.loops.nodes import (
    Buffer,
    Const,
    Contract,
    For,
    Kernel,
    Par,
    Stmt,
    Store,
)
from diffc.codegen.loops.walk import buffers, read, stored
from diffc.codegen.targets import Target
from diffc.codegen.tile.bounded import LEAST_POINTS, Band, Room, Walk
from diffc.codegen.tile.outside import Side, borders, outside
from diffc.ir.index import Dim, Var, free

__all__ = ["within_bands"]


def within_bands(kernel: Kernel, target: Target) -> Kernel:
    """The kernel without what masks hide in the loops in which nests hand values on."""
    names = frozenset(buffer.name for buffer in (*kernel.params, *kernel.scratch))
    room = Room(target, names)
    body = _Maker(room, _lasting(kernel.body)).body(kernel.body, ())
    if not room.scratch:
        return kernel
    scratch = (*kernel.scratch, *room.scratch)
    return replace(kernel, scratch=scratch, body=(*room.ahead, *body))


@dataclass(frozen=True, slots=True)
class _Maker:
    """Bounds the statements of one kernel.

    Attributes:
        room: Names and scratch.
        lasting: What keeps values from body to body.
    """

    room: Room
    lasting: frozenset[Buffer]

    def body(self, body: Sequence[Stmt], loops: tuple[Var, ...]) -> tuple[Stmt, ...]:
        """Statements, with those bounded that stand in loops."""
        return tuple(self._statement(stmt, loops) for stmt in body)

    def _statement(self, stmt: Stmt, loops: tuple[Var, ...]) -> Stmt:
        if not _is_loop_of_nests(stmt):
            return stmt
        assert isinstance(stmt, Par | For)
        inside = (*loops, *(stmt.vars if isinstance(stmt, Par) else (stmt.var,)))
        bounded = self._bounded(stmt.body, inside)
        return replace(stmt, body=bounded or self.body(stmt.body, inside))

    def _bounded(self, body: tuple[Stmt, ...], loops: tuple[Var, ...]) -> tuple[Stmt, ...] | None:
        """The body of a loop with its statements bounded; None where nothing bounds them."""
        inner = frozenset(b for b in buffers(body) if b.mode == "scratch") - self.lasting
        band = _find(body, inner, loops)
        if band is None:
            return None
        before = self.room.mark()
        walk = Walk(self.room, band, inner, loops)
        for stmt in body:
            walk.statement(stmt)
        if not any(is_tiled(step.stmt) and step.var is not None for step in walk.steps):
            self.room.back(before)
            return None
        return walk.built()


def _is_loop_of_nests(stmt: Stmt) -> bool:
    """Whether a statement is a plain loop over several nests."""
    if not isinstance(stmt, Par | For) or (isinstance(stmt, Par) and stmt.how is not None):
        return False
    return not is_tiled(stmt) and any(isinstance(inner, Par | For) for inner in stmt.body)


def _lasting(body: Sequence[Stmt]) -> frozenset[Buffer]:
    """What some body reads before it writes it: left by another one, or by its last trip."""
    found: frozenset[Buffer] = frozenset()
    written: set[Buffer] = set()
    for stmt in body:
        if _is_loop_of_nests(stmt):
            assert isinstance(stmt, Par | For)
            found |= _lasting(stmt.body)
            continue
        found |= read((stmt,)) - written
        written |= stored((stmt,))
    return found


# --- borders ----------------------------------------------------------------------------------


def _find(body: Sequence[Stmt], inner: frozenset[Buffer], loops: Sequence[Var]) -> Band | None:
    """The first band of what is handed on."""
    for stmt in body:
        if not isinstance(stmt, Par):
            continue
        for store in stmt.body:
            if not isinstance(store, Store) or store.buffer not in inner:
                continue
            for axis, index in enumerate(store.indices):
                if not _is_row(store.buffer, axis, index) or index not in stmt.vars:
                    continue
                assert isinstance(index, Var)
                rest = [var for var in stmt.vars if var is not index]
                scalars = {s.target.name: None for s in stmt.body if isinstance(s, Contract)}
                sides: dict[bool, Side] = {}
                for side in borders((store.value,), index, rest):
                    is_moving = not free(side.border).isdisjoint(loops)
                    value = outside(store.value, index, side, {}, scalars)
                    if is_moving and isinstance(value, Const):
                        sides.setdefault(side.is_above, side)
                if sides:
                    return Band(extent_of(index), tuple(sides.values()))
    return None


def _is_row(buffer: Buffer, axis: int, index: Dim) -> bool:
    """Whether an index is a variable that runs along a whole axis which is long."""
    is_whole = isinstance(index, Var) and index.extent == buffer.shape[axis]
    return is_whole and buffer.shape[axis] >= LEAST_POINTS
