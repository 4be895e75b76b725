"""How each nest of independent points runs: which variable is the vector, and how wide.

A nest of stores alone is collapsed and gets vectors along the variable that most accesses follow.
A nest with reductions has two ways: its points one by one, with vectors inside (along the reduced
space, and along inner nests), or vectors of points, each lane with its own reduction. The accesses
decide: vectors go where memory is contiguous.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from diffc.codegen.loops.contraction import is_tiled
from diffc.codegen.loops.nodes import (
    Buffer,
    Contract,
    For,
    Kernel,
    Load,
    Par,
    Prefix,
    Reduce,
    Stmt,
    Store,
    Sweep,
    Vector,
)
from diffc.codegen.loops.walk import (
    buffers,
    expressions,
    map_body,
    operands,
    statements,
    stored,
    varying,
)
from diffc.codegen.targets import Target
from diffc.codegen.tile.access import Accesses, is_heavy, reduced, widest
from diffc.codegen.tile.collapse import collapse, drop_units
from diffc.codegen.tile.contract import tile_contractions
from diffc.codegen.tile.gaps import by_gaps
from diffc.codegen.tile.interleave import interleaved
from diffc.codegen.tile.jam import jam
from diffc.codegen.tile.ranges import by_ranges
from diffc.codegen.tile.short_rows import side_by_side
from diffc.codegen.tile.streams import in_streams
from diffc.codegen.tile.turn import turned
from diffc.ir.index import Dim, Var

__all__ = ["tile"]

FEW_TERMS = 16
# Sums in sequence of longer expressions run in narrow strips: their values need registers.
STRIP_NODES = 12
# Registers of columns that cumulative folds run along at once.
STRIP = 8


def tile(kernel: Kernel, target: Target) -> Kernel:
    """A kernel that computes the same, with its loops arranged for a target.

    Before: `par i in 64, j in 100: y[i, j] = max(x[i, j], 0)`. After, on 16 lanes of f32:
    `par i_j in 6400 by vectors of 32: y[i_j//100, i_j%100] = max(x[i_j//100, i_j%100], 0)`.
    """
    kernel = tile_contractions(kernel, target)
    tiler = _Tiler(target)
    body = tiler.body(kernel.body)
    gone = buffers(kernel.body) - buffers(body)
    scratch = (*(buffer for buffer in kernel.scratch if buffer not in gone), *tiler.scratch)
    return replace(kernel, body=body, scratch=scratch)


@dataclass(frozen=True, slots=True)
class _Tiler:
    """Arranges the loops of one kernel.

    Attributes:
        target: The machine.
        scratch: New scratch, with an axis of lanes.
    """

    target: Target
    scratch: list[Buffer] = field(default_factory=list)

    def body(self, body: Sequence[Stmt]) -> tuple[Stmt, ...]:
        return tuple(made for stmt in body for made in self.statement(stmt))

    def statement(self, stmt: Stmt) -> Iterator[Stmt]:
        if isinstance(stmt, For):
            pairs = jam(stmt, self.target)
            if pairs is None:
                yield replace(stmt, body=self.body(stmt.body))
            else:
                self.scratch.extend(pairs.scratch)
                yield replace(pairs.loop, body=self.body(pairs.loop.body))
                yield from self.body(pairs.last)
        elif isinstance(stmt, Par) and stmt.how is None and not is_tiled(stmt):
            is_map = all(isinstance(inner, Store) for inner in stmt.body)
            for part in by_gaps(stmt) if is_map else (stmt,):
                for piece in by_ranges(part):
                    yield from self.par(piece)
        else:
            yield stmt

    def par(self, par: Par) -> Iterator[Stmt]:
        if any(var.extent == 0 for var in par.vars):
            yield par
            return
        par = drop_units(par)
        is_map = all(isinstance(stmt, Store) for stmt in par.body)
        if is_map:
            par = collapse(par)
        inner = [stmt for stmt in statements(par.body) if isinstance(stmt, Par)]
        if not par.vars or any(is_tiled(stmt) for stmt in inner):
            yield replace(par, body=self.body(par.body))
            return
        columns = interleaved(par, self.target) if is_map else None
        if columns is not None:
            yield columns[0]
            if columns[1] is not None:
                yield from self.par(columns[1])
            return
        blocks = turned(par, self.target) if is_map else None
        if blocks is not None:
            self.scratch.extend(blocks[1])
            yield blocks[0]
            return
        accesses = Accesses.of(par)
        least = max(1, self.target.vector_bytes // widest(par.body))
        best = max(par.vars, key=lambda var: _worth(accesses, var, par.vars, least))
        if not accesses.allow_vectors(best) or not _prefers_points(par, best, accesses, least):
            yield replace(par, body=self.body(par.body))
            return
        least = max(1, self.target.vector_bytes // widest(par.body, best))
        rows = side_by_side(par, best, accesses, least)
        if rows is not None:
            yield rows[0]
            if rows[1] is not None:
                yield from self.par(rows[1])
            return
        streams = in_streams(par, best, self.target)
        if streams is not None:
            yield streams
            return
        lanes = _lanes(par, best, self.target)
        others = tuple(var for var in par.vars if var is not best)
        while lanes > least and accesses.score(best, lanes) < accesses.score(best, least):
            lanes //= 2  # rows that are shorter than several registers
        body = self.private(par.body, accesses.shared(best), best, lanes)
        yield replace(par, vars=(*others, best), body=body, how=Vector(lanes))

    def private(
        self, body: Sequence[Stmt], shared: Sequence[Buffer], var: Var, lanes: int
    ) -> tuple[Stmt, ...]:
        """Gives each lane its own scratch: a last axis, along which the lanes lie."""
        if not shared:
            return tuple(body)
        moved = {buffer: replace(buffer, shape=(*buffer.shape, lanes)) for buffer in shared}
        self.scratch.extend(moved.values())

        def on_access(buffer: Buffer, indices: tuple[Dim, ...]) -> tuple[Buffer, tuple[Dim, ...]]:
            if buffer not in moved:
                return buffer, indices
            return moved[buffer], (*indices, var % lanes)

        return map_body(body, lambda index: index, lambda guard: guard, on_access)


def _worth(
    accesses: Accesses, var: Var, vars: Sequence[Var], lanes: int
) -> tuple[bool, float, int]:
    """Order of preference; of equals the last variable, which is the innermost."""
    return accesses.allow_vectors(var), accesses.score(var, lanes), vars.index(var)


def _prefers_points(par: Par, best: Var, accesses: Accesses, lanes: int) -> bool:
    """Whether vectors of points beat vectors inside each point."""
    loops = Par | Reduce | Sweep | Contract | Prefix
    inner = [stmt for stmt in statements(par.body) if isinstance(stmt, loops)]
    if not inner:
        has_loop = any(isinstance(stmt, For) for stmt in par.body)
        return not has_loop or accesses.score(best, lanes) > 0
    score = accesses.score(best, lanes)
    if any(reduce.order == "sequence" for reduce, _ in reduced(par.body)):
        return score > 0
    if any(isinstance(stmt, Contract | Prefix) for stmt in inner):
        return score > 0
    nests = {stmt.vars for stmt in inner if isinstance(stmt, Par | Reduce | Sweep) and stmt.vars}
    inside = sum(max(accesses.score(var, lanes) for var in vars) for vars in nests)
    is_short = all(total <= FEW_TERMS for _, total in reduced(par.body))
    if is_short and not any(isinstance(stmt, Par | Sweep) and stored((stmt,)) for stmt in inner):
        assert isinstance(best.extent, int)
        return score > 0 or best.extent >= max(total for _, total in reduced(par.body))
    return score > inside


def _strip(inner: Sequence[Stmt], reduces: Sequence[Reduce], var: Var, registers: int) -> int:
    """How many registers of columns sums in sequence find at once: half of all at most.

    Each column needs its sums, the values along `var` that stay, and room for a result.
    """
    roots = [root for stmt in inner for root in operands(stmt)]
    if len(expressions(roots)) > STRIP_NODES:
        return 1
    turning = {id(expr) for expr in varying(roots, {r for fold in reduces for r in fold.vars})}
    along = (expr for expr in varying(roots, (var,)) if isinstance(expr, Load))
    held = len(reduces) + sum(id(expr) not in turning for expr in along)
    held += not all(isinstance(reduce.value, Load) for reduce in reduces)
    held += any(reduce.monoid in ("max", "min") for reduce in reduces)  # what is compared stays
    return min(registers // 2, (registers - 2) // held)


def _lanes(par: Par, var: Var, target: Target) -> int:
    """Vectors of one or more registers: several hide latency where few values are alive.

    Sums in sequence take half of the registers: a wide strip of columns reads memory in long runs.
    """
    native = max(1, target.vector_bytes // widest(par.body, var))
    if is_heavy(par.body):
        return native
    inner = tuple(statements(par.body))
    if any(isinstance(stmt, Prefix) for stmt in inner):
        return STRIP * native
    folds = [stmt for stmt in inner if isinstance(stmt, Reduce | Contract)]
    if not folds:
        return 2 * native
    many = max(1, 4 // len(folds))
    reduces = [stmt for stmt in folds if isinstance(stmt, Reduce) and stmt.order == "sequence"]
    if len(reduces) == len(folds):
        many = max(many, _strip(inner, reduces, var, target.vector_registers))
    return native * (1 << (many.bit_length() - 1))
