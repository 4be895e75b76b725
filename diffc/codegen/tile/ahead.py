"""Asks for the next row while one is worked on, where rows come from memory.

A row that is reduced, then used, comes from memory in its first pass; the others find it in the
cache, and memory waits. So a later pass, the one with most work, asks for the next row.

Before: `par i in 4096 { s = reduce sum(r: x[i, r]); par r { y[i, r] = x[i, r] / s } }`. After:
`par i in 4096 { s = ...; par r { fetch x[i + 1, r]; y[i, r] = x[i, r] / s } }`. What only the last
pass reads is asked for by an earlier one, for the same row.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from math import prod

from diffc.codegen.loops.contraction import extent_of, is_tiled
from diffc.codegen.loops.nodes import (
    Buffer,
    Fetch,
    For,
    Kernel,
    Load,
    Par,
    Reduce,
    Stmt,
    Store,
    Sweep,
    Turn,
)
from diffc.codegen.loops.scratch import nbytes_of
from diffc.codegen.loops.walk import expressions, operands, statements, stored
from diffc.codegen.targets import ITEM_BYTES, Target
from diffc.codegen.tile.work import cycles
from diffc.ir.index import Dim, Var, coefficient, ravel, substitute

__all__ = ["look_ahead"]

#: Bytes of a row; the processor itself looks far enough ahead for shorter ones.
SHORT = 512
#: Buffers come from memory that would fill so many second caches.
FAR = 1
#: What a row reads and stores fits so many times into the second cache, or into the first.
ROWS_HELD = 2
ROWS_NEAR = 1

Pass = Reduce | Sweep | Par
Place = tuple[Buffer, Dim]


def look_ahead(kernel: Kernel, target: Target) -> Kernel:
    """The kernel with passes over rows that ask for the next row."""
    body = tuple(_outside(stmt, target) for stmt in kernel.body)
    return kernel if body == kernel.body else replace(kernel, body=body)


def _outside(stmt: Stmt, target: Target) -> Stmt:
    if not isinstance(stmt, Par | For) or (isinstance(stmt, Par) and _is_done(stmt)):
        return stmt
    row = stmt.vars[-1] if isinstance(stmt, Par) else stmt.var
    is_down = isinstance(stmt, For) and stmt.reverse
    passes = _passes(stmt.body)
    if passes is None or is_down:
        body = tuple(_outside(inner, target) for inner in stmt.body)
    else:
        body = _with_fetches(stmt.body, passes, row, target)
    return stmt if body == stmt.body else replace(stmt, body=body)


def _is_done(par: Par) -> bool:
    """Whether a nest has no rows inside that run one by one."""
    if par.how is not None or not par.vars or is_tiled(par):
        return True
    return any(extent_of(var) == 0 for var in par.vars)


def _passes(body: Sequence[Stmt]) -> list[int] | None:
    """Which statements are passes along a row, if there are two at least, in vectors."""
    found = [at for at, stmt in enumerate(body) if isinstance(stmt, Pass) and stmt.vars]
    return found if len(found) > 1 and all(_is_plain(body[at]) for at in found) else None


def _is_plain(stmt: Stmt) -> bool:
    if isinstance(stmt, Par):  # of a block that is transposed each point is its own
        is_turned = isinstance(stmt.how, Turn)
        return not is_turned and all(isinstance(inner, Store) for inner in stmt.body)
    reduces = stmt.reduces if isinstance(stmt, Sweep) else (stmt,)
    return all(isinstance(each, Reduce) and each.order == "lanes" for each in reduces)


@dataclass(frozen=True, slots=True)
class _Read:
    """What passes read: where, and which pass is the first to do it."""

    load: Load
    number: int


def _with_fetches(
    body: tuple[Stmt, ...], at: Sequence[int], row: Var, target: Target
) -> tuple[Stmt, ...]:
    passes, written = [body[k] for k in at], stored(body)
    reads: dict[Place, _Read] = {}
    for number, stmt in enumerate(passes):
        for load in _loads(stmt):
            place = load.buffer, ravel(load.indices, load.buffer.shape)
            reads.setdefault(place, _Read(load, number))
    moving = {place: read for place, read in reads.items() if coefficient(place[1], row)}
    held = sum(_length(passes[read.number], place[0]) for place, read in moving.items())
    held += sum(_length(stmt, buffer) for stmt in passes for buffer in stored((stmt,)))
    if held * ROWS_HELD > target.l2_bytes:
        return body
    made: dict[int, list[Fetch]] = {}
    near = held * ROWS_NEAR <= target.l1_bytes
    work = [cycles((stmt,), target) for stmt in passes]
    for (buffer, offset), read in moving.items():
        length = _length(passes[read.number], buffer)
        if buffer in written or nbytes_of(buffer) < FAR * target.l2_bytes or length < SHORT:
            continue
        if coefficient(offset, _vars(passes[read.number])[-1]) != 1:
            continue
        user = _user(read.number, passes, work)
        if user is None:
            continue
        moved: dict[Var, Dim] = dict(
            zip(_vars(passes[read.number]), _vars(passes[user]), strict=True)
        )
        if user > read.number:
            moved[row] = row + 1
        indices = tuple(substitute(index, moved) for index in read.load.indices)
        if user > read.number and (buffer, ravel(indices, buffer.shape)) in reads:
            continue
        work[user] = 0.0  # the next one finds another
        made.setdefault(at[user], []).append(Fetch(buffer, indices, near))
    return tuple(_asking(stmt, made[k]) if k in made else stmt for k, stmt in enumerate(body))


def _user(number: int, passes: Sequence[Stmt], work: Sequence[float]) -> int | None:
    """Which pass asks for what another one is the first to read: one over the same points."""
    shape = tuple(map(extent_of, _vars(passes[number])))
    same = [k for k, stmt in enumerate(passes) if tuple(map(extent_of, _vars(stmt))) == shape]
    others = [k for k in same if k > number] or [k for k in same if k < number]
    return max(others, key=lambda k: work[k], default=None)


def _vars(stmt: Stmt) -> tuple[Var, ...]:
    assert isinstance(stmt, Pass)
    return stmt.vars


def _length(stmt: Stmt, buffer: Buffer) -> int:
    """Bytes of a row."""
    return prod(map(extent_of, _vars(stmt))) * ITEM_BYTES[buffer.dtype]


def _loads(stmt: Stmt) -> Iterator[Load]:
    roots = (root for inner in statements((stmt,)) for root in operands(inner))
    return (node for node in expressions(roots) if isinstance(node, Load))


def _asking(stmt: Stmt, fetches: Sequence[Fetch]) -> Stmt:
    """A pass that asks for rows too."""
    if isinstance(stmt, Reduce):
        return Sweep(stmt.vars, (*fetches, stmt))
    if isinstance(stmt, Sweep):
        return replace(stmt, body=(*fetches, *stmt.body))
    assert isinstance(stmt, Par)
    return replace(stmt, body=(*fetches, *stmt.body))
