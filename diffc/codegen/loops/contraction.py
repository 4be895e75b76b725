"""A contraction's nest in the form that code generation takes: who moves along which variable.

``contraction`` reads a ``Par`` whose last two variables are the row (moves lhs) and the column
(moves rhs) and whose body is one ``Contract`` and ``Store``s. Both operands are plain loads with
constant strides. ``tile`` makes this form and chooses the sizes; ``emit`` writes it out; what both
must agree on (how extents are cut, how large the workspaces are) is here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from math import prod

from diffc.codegen.loops.nodes import (
    Buffer,
    Contract,
    Expr,
    Load,
    Par,
    Scalar,
    Stmt,
    Store,
    Tile,
)
from diffc.codegen.targets import HALVES
from diffc.errors import InternalError
from diffc.ir.index import Dim, Var, linear_in, ravel

__all__ = [
    "Access",
    "Contraction",
    "Span",
    "access",
    "accumulator",
    "blocks",
    "contraction",
    "is_contraction",
    "is_tiled",
    "spans",
    "workspace",
]


@dataclass(frozen=True, slots=True)
class Access:
    """A load with constant strides.

    Attributes:
        buffer: What is read.
        strides: Elements by which each variable of the contraction moves.
        rest: Offset of the first element, in elements; variables outside may occur.
    """

    buffer: Buffer
    strides: Mapping[Var, int]
    rest: Dim


@dataclass(frozen=True, slots=True)
class Contraction:
    """The parts of a contraction's nest.

    Attributes:
        outer: Variables around the tiles.
        row: Moves lhs only, or nothing (extent 1).
        column: Moves rhs only, or nothing (extent 1); runs along the lanes.
        depth: The contracted variables, in the order of summation.
        target: The sum at a point.
        lhs: The operand by rows.
        rhs: The operand by columns.
        stores: What is done with the sum.
        how: Sizes.
        start: The sum so far, with which it goes on; None: zero.
    """

    outer: tuple[Var, ...]
    row: Var
    column: Var
    depth: tuple[Var, ...]
    target: Scalar
    lhs: Access
    rhs: Access
    stores: tuple[Store, ...]
    how: Tile
    start: Expr | None = None

    @property
    def depth_size(self) -> int:
        """Number of products in a sum."""
        return prod(extent_of(var) for var in self.depth)


def extent_of(var: Var) -> int:
    """A variable's extent, an integer in the loop IR."""
    if not isinstance(var.extent, int):
        raise InternalError(f"loop variable {var} has the extent {var.extent}, not an integer")
    return var.extent


def access(expr: Expr, vars: Iterable[Var]) -> Access | None:
    """How an operand moves along `vars`; None unless it is a load with constant strides."""
    if not isinstance(expr, Load):
        return None
    found = linear_in(ravel(expr.indices, expr.buffer.shape), vars)
    if found is None:
        return None
    strides: dict[Var, int] = {}
    for var, stride in found[0].items():
        if not isinstance(stride, int) or not isinstance(var, Var):
            return None
        strides[var] = stride
    return Access(expr.buffer, strides, found[1])


def is_contraction(stmt: Stmt) -> bool:
    """Whether a statement is the nest of one contraction: that, then stores."""
    if not isinstance(stmt, Par) or not stmt.body or not isinstance(stmt.body[0], Contract):
        return False
    return all(isinstance(inner, Store) for inner in stmt.body[1:])


def is_tiled(stmt: Stmt) -> bool:
    """Whether a statement is the nest of a contraction that knows how it runs."""
    if not isinstance(stmt, Par) or not stmt.body:
        return False
    first = stmt.body[0]
    return isinstance(first, Contract) and first.how is not None


def contraction(par: Par) -> Contraction:
    """The parts of a tiled contraction.

    Raises:
        InternalError: The nest has another form.
    """
    first, *rest = par.body
    if not isinstance(first, Contract) or first.how is None or len(par.vars) < 2:
        raise InternalError("a contraction was not tiled")
    stores = tuple(stmt for stmt in rest if isinstance(stmt, Store))
    if len(stores) != len(rest):
        raise InternalError("a contraction is followed by something other than stores")
    *outer, row, column = par.vars
    vars = (*par.vars, *first.vars)
    lhs, rhs = access(first.lhs, vars), access(first.rhs, vars)
    if lhs is None or rhs is None or lhs.strides[column] or rhs.strides[row]:
        raise InternalError("a contraction's operands are not rows and columns")
    return Contraction(
        tuple(outer),
        row,
        column,
        first.vars,
        first.target,
        lhs,
        rhs,
        stores,
        first.how,
        first.start,
    )


# --- how extents are cut


@dataclass(frozen=True, slots=True)
class Span:
    """``count`` pieces of ``size`` each, from ``start`` on."""

    start: int
    count: int
    size: int

    @property
    def stop(self) -> int:
        """Where the last piece ends."""
        return self.start + self.count * self.size


@lru_cache(maxsize=4096)
def spans(size: int, most: int, unit: int = 1) -> tuple[Span, ...]:
    """Cuts `size` into pieces of at most `most` as even as possible, whole `unit`s but the last.

    >>> spans(10, 4)
    (Span(start=0, count=1, size=4), Span(start=4, count=2, size=3))
    """
    if size <= 0:
        return ()
    units, per_piece = -(-size // unit), max(1, most // unit)
    pieces = -(-units // per_piece)
    low, more = divmod(units, pieces)
    found: list[Span] = []
    for start, count, length in ((0, more, low + 1), (more * (low + 1), pieces - more, low)):
        if not count:
            continue
        span = Span(start * unit, count, length * unit)
        if span.stop <= size:
            found.append(span)
            continue
        if count > 1:
            found.append(Span(span.start, count - 1, span.size))
        last = span.start + (count - 1) * span.size
        found.append(Span(last, 1, size - last))
    return tuple(found)


def blocks(tiles: tuple[Span, ...], most: int) -> tuple[tuple[Span, ...], ...]:
    """Deals tiles to blocks of at most `most` elements (0: one block), as even as possible."""
    if not most or not tiles:
        return (tiles,)
    per_block = max(1, most // max(tile.size for tile in tiles))
    found: list[tuple[Span, ...]] = []
    room: list[Span] = []
    total = sum(tile.count for tile in tiles)
    sizes = [span.size for span in spans(total, per_block) for _ in range(span.count)]
    left = sizes.pop(0)
    for tile in tiles:
        start, count = tile.start, tile.count
        while count:
            taken = min(count, left)
            room.append(Span(start, taken, tile.size))
            start, count, left = start + taken * tile.size, count - taken, left - taken
            if not left:
                found.append(tuple(room))
                room = []
                left = sizes.pop(0) if sizes else 0
    return tuple(found)


# --- workspaces

ACCUMULATORS = dict.fromkeys(HALVES, "f32")


def accumulator(dtype: str) -> str:
    """The dtype in which sums of `dtype` are kept: 16 bits are rounded once, at the end."""
    return ACCUMULATORS.get(dtype, dtype)


def padded(size: int, lanes: int) -> int:
    """`size` rounded up to whole vectors."""
    return -(-size // lanes) * lanes


def length(part: tuple[Span, ...]) -> int:
    """Elements that the tiles of a block cover."""
    return sum(span.count * span.size for span in part)


def row_tiles(c: Contraction) -> tuple[Span, ...]:
    """The heights of the tiles."""
    return spans(extent_of(c.row), c.how.rows)


def column_tiles(c: Contraction) -> tuple[Span, ...]:
    """The widths of the tiles: whole vectors, but for the last one; half a vector stands alone."""
    columns, lanes = extent_of(c.column), c.how.lanes
    if c.how.dot:
        return spans(columns, c.how.vectors)
    rest = columns % lanes
    if not (c.how.narrow and 0 < rest <= lanes // 2 and columns > rest):
        return spans(columns, c.how.vectors * lanes, lanes)
    whole = columns - rest
    return (*spans(whole, c.how.vectors * lanes, lanes), Span(whole, 1, rest))


def depth_tiles(c: Contraction) -> tuple[Span, ...]:
    """The blocks of the contracted index; all but the last are whole unrolled trips."""
    size = c.depth_size
    if not c.how.depth_block:
        return (Span(0, 1, size),)
    return spans(size, c.how.depth_block, c.how.unroll)


def workspace(par: Par) -> tuple[Buffer, ...]:
    """The scratch buffers that a tiled contraction needs, named after its target.

    ``emit`` finds them by name among the kernel's scratch.
    """
    c = contraction(par)
    how = c.how
    deepest = max((span.size for span in depth_tiles(c)), default=0)
    columns = blocks(column_tiles(c), how.column_block)
    widest = max(padded(length(part), how.lanes) for part in columns)
    if par.split is not None and par.split.over == "columns":
        widest = padded(extent_of(c.column), how.lanes)  # shares are in different blocks at once
    tallest = max(length(part) for part in blocks(row_tiles(c), how.row_block))
    found: list[Buffer] = []
    if how.pack_rhs:
        name = panel_name(c.target, "rhs")
        found.append(Buffer(name, accumulator(c.rhs.buffer.dtype), (widest * deepest,), "scratch"))
    if how.pack_lhs:
        name = panel_name(c.target, "lhs")
        size = tallest * deepest + how.lanes  # the last vector may reach beyond the last row
        if par.split is not None:  # a place for every tile: several are packed at once
            tiles = sum(span.count for span in row_tiles(c))
            size = extent_of(c.row) * deepest + tiles * how.lanes
        found.append(Buffer(name, accumulator(c.lhs.buffer.dtype), (size,), "scratch"))
    if how.depth_block:
        size = extent_of(c.row) * widest
        name = panel_name(c.target, "sums")
        found.append(Buffer(name, accumulator(c.target.dtype), (size,), "scratch"))
    if how.dot:
        name = panel_name(c.target, "sums")
        size = how.rows * padded(extent_of(c.column), how.lanes)
        found.append(Buffer(name, accumulator(c.target.dtype), (size,), "scratch"))
    return tuple(found)


def panel_name(target: Scalar, what: str) -> str:
    """The name of a contraction's scratch buffer."""
    return f"{target.name}.{what}"
