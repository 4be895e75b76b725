"""Nodes of the loop IR: scalar expressions, statements, kernels.

A kernel is a nest over dense, row-major buffers. ``lower`` says *what* is computed: ``Par`` (all
points independent), ``For`` (in order), ``Reduce``, ``Sweep`` (reductions and stores in one pass),
``Prefix`` (cumulative), ``Contract``, ``Store``, ``Scatter``. ``tile`` says *how* by filling in the
``how`` of the same nodes, and adds ``Fetch`` and ``Within``. Sizes are integers here. Expressions
are directed acyclic graphs: a node shared in Python is computed once per point.

Meaning of the order of summation: it is fixed by ``Reduce.order``, the extents and the target, and
by nothing else, so that fusing a reduction never changes its bits. ``lanes``: the (row-major
flattened) reduced space is dealt to ``4 * lanes(dtype)`` partial results in turn, which are then
combined by halving. ``sequence``: one after the other. ``Contract`` sums in order of the
(row-major) contracted index with one fused multiply-add each, unless its ``how`` says dot (lanes).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal as Choice

from diffc.ir.index import TRUE, Dim, Guard, Var

Mode = Choice["in", "out", "mut", "scratch"]
Order = Choice["lanes", "sequence"]
Monoid = Choice["sum", "prod", "max", "min", "any", "all", "argmax", "argmin"]


@dataclass(frozen=True, slots=True, eq=False)
class Buffer:
    """Dense row-major memory that a kernel sees: a parameter (in, out, mut) or its scratch.

    ``dtype`` is a short name (``f32``; ``bool`` is one byte). ``mut`` is read and written.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    mode: Mode


# --- expressions ------------------------------------------------------------------------------


class Expr:
    """A scalar at each point of the nest. ``dtype`` is a short name."""

    __slots__ = ()
    dtype: str

    def __repr__(self) -> str:
        """Short: an expression that is shared a lot has a very long text."""
        return f"<{type(self).__name__}: {self.dtype}>"


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Const(Expr):
    """A known scalar."""

    dtype: str
    value: bool | int | float


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class IndexValue(Expr):
    """The value of an index expression, converted to ``dtype``."""

    dtype: str
    index: Dim


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Load(Expr):
    """An element of a buffer at quasi-affine indices, which the guards around it keep in bounds."""

    buffer: Buffer
    indices: tuple[Dim, ...]

    @property
    def dtype(self) -> str:  # type: ignore[override]  # a field of the others
        """The buffer's dtype."""
        return self.buffer.dtype


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class GatherLoad(Expr):
    """An element at indices of which some are computed values (``Expr`` of an integer dtype).

    ``mode``: ``clip`` moves an index into bounds, ``fill`` gives zero outside, ``check`` reports
    ``status`` (an index into the module's messages) and clips.
    """

    buffer: Buffer
    indices: tuple[Dim | Expr, ...]
    mode: Choice["clip", "fill", "check"] = "clip"
    status: int = 0

    @property
    def dtype(self) -> str:  # type: ignore[override]  # a field of the others
        """The buffer's dtype."""
        return self.buffer.dtype


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Apply(Expr):
    """An op of the closed scalar set (``SCALARS``), IEEE by itself: no contraction, no fast-math.

    ``convert`` takes its source dtype from its argument.
    """

    dtype: str
    name: str
    args: tuple[Expr, ...]


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Choose(Expr):
    """``on_true`` where the guard on indices holds, else ``on_false``.

    Loads in a branch are performed only where that branch is taken.
    """

    guard: Guard
    on_true: Expr
    on_false: Expr

    @property
    def dtype(self) -> str:  # type: ignore[override]  # a field of the others
        """The dtype of both branches."""
        return self.on_true.dtype


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Scalar(Expr):
    """What an earlier ``Reduce`` or ``Contract`` of an enclosing body found at this point."""

    name: str
    dtype: str


# --- statements -------------------------------------------------------------------------------


class Stmt:
    """A statement of a kernel."""

    __slots__ = ()


@dataclass(frozen=True, slots=True, eq=False)
class Vector:
    """How a Par runs its last variable: ``lanes`` points at once, a masked rest."""

    lanes: int


@dataclass(frozen=True, slots=True, eq=False)
class Turn:
    """How a Par of stores over two variables transposes their values.

    Values are computed in vectors of ``lanes`` along the first variable, which has that extent, and
    stored along the second one. That has the same extent, or a smaller one: then results go on from
    row to row in memory, and all of them are stored in whole vectors.
    """

    lanes: int


@dataclass(frozen=True, slots=True, eq=False)
class Tile:
    """How a contraction runs: see ``tile/contract.py``.

    ``rows`` x ``vectors``: register tile (vectors of ``lanes``), ``unroll`` of the contracted loop,
    ``row_block``/``column_block``/``depth_block``: cache blocks (0: none); ``pack_lhs``,
    ``pack_rhs``: copied to panels first; ``dot``: vectors along the contracted index; ``narrow``: a
    last vector with half the lanes, in tiles of its own, where that is enough; ``prefetch_lhs``,
    ``prefetch_rhs``: tiles ask for the next tile's rows or columns, where these are neighbours and
    not packed; ``turn``: sums are transposed, and stored with lanes along rows.
    """

    rows: int
    vectors: int
    lanes: int
    unroll: int
    row_block: int = 0
    column_block: int = 0
    depth_block: int = 0
    pack_lhs: bool = False
    pack_rhs: bool = False
    dot: bool = False
    narrow: bool = False
    prefetch_lhs: bool = False
    prefetch_rhs: bool = False
    turn: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Split:
    """How a Par is dealt out to threads, in shares of whole units.

    ``over``, the units: ``points`` of the first ``count`` variables (row-major), ``vectors`` of the
    last variable, or ``rows`` or ``columns`` of a contraction's tiles. A share has at least
    ``grain`` units and at most ``most`` (0: any number). ``pack``: the least share, in tiles, of
    packing rhs (0: in one thread). No bit of a result depends on any of it.
    """

    over: Choice["points", "vectors", "rows", "columns"]
    grain: int
    count: int = 0
    most: int = 0
    pack: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class Par(Stmt):
    """All points of the product of ``vars`` (row-major), in any order.

    ``split``: threads share it, where it stands directly in a kernel.
    """

    vars: tuple[Var, ...]
    body: tuple[Stmt, ...]
    how: Vector | Turn | None = None
    split: Split | None = None


@dataclass(frozen=True, slots=True, eq=False)
class For(Stmt):
    """``var`` from 0 up (down, if ``reverse``), in order.

    Steps at which the guard fails are left out.
    """

    var: Var
    body: tuple[Stmt, ...]
    reverse: bool = False
    guard: Guard = field(default=TRUE)


@dataclass(frozen=True, slots=True, eq=False)
class Within(Stmt):
    """A statement of which only the points with ``first <= var < stop`` are needed.

    ``first`` and ``stop`` are i64, the same at all points around it, and may lie outside of the
    range of ``var``, which ``body`` binds. Other points are left out where that is cheap: whoever
    needs what they would give has to make sure of it.
    """

    var: Var
    first: Expr
    stop: Expr
    body: Stmt


@dataclass(frozen=True, slots=True, eq=False)
class Reduce(Stmt):
    """``target`` = fold of ``value`` over the product of ``vars`` (never written back by itself).

    The empty fold gives the monoid's identity. ``argmax``/``argmin``: position (row-major in
    ``vars``, i64) of the first extreme, a NaN counting as extreme. ``max``/``min`` pass NaN on.
    """

    target: Scalar
    monoid: Monoid
    vars: tuple[Var, ...]
    value: Expr
    order: Order = "lanes"


@dataclass(frozen=True, slots=True, eq=False)
class Sweep(Stmt):
    """One pass over the product of ``vars``: reductions and stores that share each point's values.

    ``body`` holds ``Fetch``, then ``Reduce``, all over just these variables and of one order, then
    ``Store``. The points come in any order, each in one piece: all values are computed, then
    stored. What the reductions find is known after the sweep only, and no value reads what the
    sweep stores at another point.
    """

    vars: tuple[Var, ...]
    body: tuple[Reduce | Store | Fetch, ...]

    @property
    def reduces(self) -> tuple[Reduce, ...]:
        """The reductions."""
        return tuple(stmt for stmt in self.body if isinstance(stmt, Reduce))

    @property
    def stores(self) -> tuple[Store, ...]:
        """The stores."""
        return tuple(stmt for stmt in self.body if isinstance(stmt, Store))

    @property
    def fetches(self) -> tuple[Fetch, ...]:
        """What is asked for."""
        return tuple(stmt for stmt in self.body if isinstance(stmt, Fetch))


@dataclass(frozen=True, slots=True, eq=False)
class Contract(Stmt):
    """``target`` = Σ over ``vars`` of ``lhs * rhs``, fused multiply-adds in f32/f64 (ints wrap).

    ``start``: the sum so far, with which it goes on (None: zero); of the target's dtype.
    ``order``: in which it sums, where that is known before it is tiled: one product after the
    other, or by lanes (the dot tiles of ``tile``).
    """

    target: Scalar
    vars: tuple[Var, ...]
    lhs: Expr
    rhs: Expr
    how: Tile | None = None
    start: Expr | None = None
    order: Order | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Store(Stmt):
    """``buffer[indices] = value`` where the guard holds."""

    buffer: Buffer
    indices: tuple[Dim, ...]
    value: Expr
    guard: Guard = field(default=TRUE)


@dataclass(frozen=True, slots=True, eq=False)
class Fetch(Stmt):
    """Asks for ``buffer[indices]``, which may lie outside of the buffer, to be in a cache soon.

    It reads nothing. Lanes of a vector variable along which it moves follow each other in memory.
    ``near``: the first cache, else the second one.
    """

    buffer: Buffer
    indices: tuple[Dim, ...]
    near: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Scatter(Stmt):
    """``buffer[indices]`` combined with ``value``; indices may be computed; stands inside ``For``.

    ``mode``: ``drop`` skips what is out of bounds, ``check`` reports ``status`` too.
    """

    buffer: Buffer
    indices: tuple[Dim | Expr, ...]
    value: Expr
    combine: Choice["set", "add", "mul", "min", "max"]
    mode: Choice["drop", "check"] = "drop"
    status: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class Prefix(Stmt):
    """``buffer[indices]`` = fold of ``value`` over ``var`` from 0 up to each point, point included.

    It is kept in ``value``'s dtype, and converted to the buffer's where it is stored. ``sequence``:
    one after the other. ``lanes``: the points are cut into blocks of ``lanes(dtype)``. In a block,
    each joins what lies 1 before it, then 2, then 4, ... (Hillis and Steele); then what all blocks
    before have come to, which joins the blocks' results one after the other. All values of a block
    are computed, then stored; no value reads what another block stores.
    """

    buffer: Buffer
    indices: tuple[Dim, ...]
    var: Var
    monoid: Monoid
    value: Expr
    order: Order = "lanes"


@dataclass(frozen=True, slots=True, eq=False)
class Sort(Stmt):
    """Sorts rows of ``length`` values, stably, NaN last; writes values or positions (i64).

    ``keys[indices]`` with ``var`` running over the row; result to ``buffer`` at the same indices.
    """

    buffer: Buffer
    keys: Buffer
    indices: tuple[Dim, ...]
    var: Var
    positions: bool


@dataclass(frozen=True, slots=True, eq=False)
class Kernel:
    """A nest with its parameters. ``scratch`` buffers are private and undefined at the start."""

    name: str
    params: tuple[Buffer, ...]
    scratch: tuple[Buffer, ...]
    body: tuple[Stmt, ...]


#: the closed set of scalar ops: name -> arity
SCALARS = {
    **dict.fromkeys(
        [
            "neg",
            "abs",
            "sign",
            "sqrt",
            "floor",
            "ceil",
            "round",
            "trunc",
            "exp",
            "exp2",
            "log",
            "log2",
            "log10",
            "log1p",
            "expm1",
            "tanh",
            "logistic",
            "erf",
            "sin",
            "cos",
            "tan",
            "sinh",
            "cosh",
            "arctan",
            "arcsin",
            "arccos",
            "is_nan",
            "is_inf",
            "is_finite",
            "bitwise_not",
            "convert",
            "bitcast",
        ],
        1,
    ),
    **dict.fromkeys(
        [
            "add",
            "sub",
            "mul",
            "div",
            "floor_divide",
            "remainder",
            "pow",
            "maximum",
            "minimum",
            "arctan2",
            "eq",
            "ne",
            "lt",
            "le",
            "gt",
            "ge",
            "bitwise_and",
            "bitwise_or",
            "bitwise_xor",
            "shift_left",
            "shift_right",
        ],
        2,
    ),
    "select": 3,
    "fma": 3,
}
