"""Bounds statements along a variable, where what lies beyond a border is known (see `bands`)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import count

from diffc.codegen.loops.contraction import contraction, extent_of, is_tiled
from diffc.codegen.loops.monoids import identity
from diffc.codegen.loops.nodes import (
    Apply,
    Buffer,
    Const,
    Contract,
    Expr,
    IndexValue,
    Load,
    Par,
    Reduce,
    Scalar,
    Stmt,
    Store,
    Sweep,
    Turn,
    Vector,
    Within,
)
from diffc.codegen.loops.walk import (
    bound,
    expressions,
    operands,
    read,
    statements,
    stored,
    variables,
)
from diffc.codegen.targets import FLOATS, Target
from diffc.codegen.tile.outside import Known, Side, outside
from diffc.ir.index import Var

__all__ = ["LEAST_POINTS", "Band", "Room", "Walk"]

LEAST_POINTS = 128
"""Along fewer points nothing is left out."""


@dataclass(slots=True)
class Room:
    """What a kernel gets besides its statements.

    Attributes:
        target: The machine.
        names: Those that are taken.
        scratch: New scratch.
        ahead: What runs before everything else: tests of operands that stay.
    """

    target: Target
    names: frozenset[str]
    scratch: list[Buffer] = field(default_factory=list)
    ahead: list[Stmt] = field(default_factory=list)
    _numbers: Iterator[int] = field(default_factory=count)

    def fresh(self, stem: str) -> str:
        """A name that the kernel does not have."""
        return next(n for k in self._numbers if (n := f"{stem}{k}") not in self.names)

    def new_scratch(self, stem: str, dtype: str, shape: tuple[int, ...]) -> Buffer:
        """New scratch."""
        made = Buffer(self.fresh(stem), dtype, shape, "scratch")
        self.scratch.append(made)
        return made

    def mark(self) -> tuple[int, int]:
        """How much there is now."""
        return len(self.scratch), len(self.ahead)

    def back(self, mark: tuple[int, int]) -> None:
        """Forgets what came after a mark."""
        del self.scratch[mark[0] :], self.ahead[mark[1] :]


@dataclass(frozen=True, slots=True)
class Band:
    """Between which borders values differ.

    Attributes:
        extent: Extent of the axis.
        sides: What lies beyond.
    """

    extent: int
    sides: tuple[Side, ...]


@dataclass(slots=True)
class _Step:
    """A statement, and how far it goes.

    Attributes:
        stmt: A nest, or anything where no variable is bounded.
        var: The bounded variable.
        bounded: The statements inside that are bounded; empty: the nest itself.
        pad: How many points beyond the borders it covers.
        slack: How many more it may touch, because it goes on to the end of a tile.
        reads: What it reads of what is short.
        writes: What it leaves short.
    """

    stmt: Stmt
    var: Var | None = None
    bounded: frozenset[int] = frozenset()
    pad: int = 0
    slack: int = 0
    reads: frozenset[Buffer] = frozenset()
    writes: frozenset[Buffer] = frozenset()


@dataclass(slots=True)
class Walk:
    """Goes through the statements of a loop's body in order.

    Attributes:
        room: Gives names and scratch.
        band: The borders.
        inner: Scratch that only this body uses.
        loops: The variables around the body.
        known: What scratch holds beyond the borders, while the slab is short.
        steps: What the statements have become.
        cells: Where the borders are now (at 0) and will be after a test (at 1), by side.
    """

    room: Room
    band: Band
    inner: frozenset[Buffer]
    loops: tuple[Var, ...]
    known: dict[Buffer, Known] = field(default_factory=dict)
    steps: list[_Step] = field(default_factory=list)
    cells: dict[bool, Buffer] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Borders are moved into the axis, and the first one below the other."""
        ends: dict[bool, Expr] = {}
        for side in sorted(self.band.sides, key=lambda side: not side.is_above):
            low, high = Const("i64", 0), ends.get(True, Const("i64", self.band.extent))
            border: Expr = IndexValue("i64", side.border)
            border = Apply("i64", "maximum", (low, Apply("i64", "minimum", (border, high))))
            name = "stop" if side.is_above else "first"
            cell = self.cells[side.is_above] = self.room.new_scratch(name, "i64", (2,))
            self.steps.append(_Step(Store(cell, (0,), border)))
            ends[side.is_above] = Load(cell, (0,))

    def statement(self, stmt: Stmt) -> None:
        """Takes one statement."""
        if isinstance(stmt, Par):
            vars = [var for var in bound((stmt,)) if var.extent == self.band.extent]
            for var in dict.fromkeys(vars):
                if self._bounds(stmt, var):
                    return
        self._whole(stmt)

    def _whole(self, stmt: Stmt) -> None:
        """A statement that needs all of what it reads: what was left out is written before."""
        for buffer in self.known.keys() & read((stmt,)):
            for is_above, cell in self.cells.items():
                ends = Load(cell, (0,)), Const("i64", self.band.extent)
                first, stop = ends if is_above else (Const("i64", 0), ends[0])
                self.steps.append(_Step(self._filled(buffer, first, stop)))
        for buffer in stored((stmt,)):
            self.known.pop(buffer, None)
        self.steps.append(_Step(stmt))

    def _filled(self, buffer: Buffer, first: Expr, stop: Expr) -> Within:
        """Writes what a buffer holds beyond the borders from a point to another."""
        it = self.known[buffer]
        vars = tuple(Var(f"fill{axis}", size) for axis, size in enumerate(buffer.shape))
        fill = Par(vars, (Store(buffer, vars, it.value),))
        return Within(vars[it.axis], first, stop, fill)

    def _bounds(self, par: Par, var: Var) -> bool:
        """Bounds a nest along a variable, if that is possible."""
        if is_tiled(par):
            return self._contraction(par, var)
        if var in par.vars:
            return self._map(par, var)
        return self._rows(par, var)

    def _outside(
        self, expr: Expr, var: Var, scalars: Mapping[str, Expr | None]
    ) -> list[Expr | None]:
        """An expression beyond each border."""
        return [outside(expr, var, side, self.known, scalars) for side in self.band.sides]

    def _stored(
        self, stores: Iterable[Store], var: Var, scalars: Mapping[str, Expr | None]
    ) -> dict[Buffer, Known] | None:
        """What stores leave beyond the borders; None where that is not known, or used elsewhere."""
        found: dict[Buffer, Known] = {}
        for store in stores:
            axis = self._axis(store, var)
            if axis is None or store.buffer in found:
                return None
            value = _agreed(self._outside(store.value, var, scalars))
            if value is None:
                return None
            found[store.buffer] = Known(axis, value)
        return found

    def _axis(self, store: Store, var: Var) -> int | None:
        """Along which axis a variable runs where what is handed on is stored whole."""
        axes = [axis for axis, index in enumerate(store.indices) if index is var]
        if store.buffer not in self.inner or not _is_whole(store) or len(axes) != 1:
            return None
        return axes[0] if store.buffer.shape[axes[0]] >= LEAST_POINTS else None

    # --- contractions

    def _contraction(self, par: Par, var: Var) -> bool:
        c = contraction(par)
        first = par.body[0]
        assert isinstance(first, Contract)
        assert isinstance(first.lhs, Load) and isinstance(first.rhs, Load)
        if var in c.depth:
            return self._depth(par, first, var)
        if var not in (c.row, c.column):
            return False
        if not self._reads_along(par, var):
            return False
        size = c.how.rows if var is c.row else c.how.vectors * (1 if c.how.dot else c.how.lanes)
        made = _Step(par, var, slack=size - 1)
        left = self._stored(c.stores, var, {c.target.name: None})
        if left is not None:
            self._add(made, left)
            return True
        for one, other in ((first.lhs, first.rhs), (first.rhs, first.lhs)):
            if not self._is_zero(one, var):
                continue
            if first.start is not None:
                left = {} if _goes_on(first, c.stores) else None
            else:
                left = self._stored(c.stores, var, {c.target.name: _zero(c.target.dtype)})
            if left is not None and other.buffer not in self.known:
                self._check(self._finite(other, first.vars, par.vars))
                self._add(made, left)
                return True
        return False

    def _depth(self, par: Par, first: Contract, var: Var) -> bool:
        """Bounds the contracted variable, where an operand is zero beyond the borders."""
        assert first.how is not None
        assert isinstance(first.lhs, Load) and isinstance(first.rhs, Load)
        if len(first.vars) != 1 or first.how.dot:
            return False
        for one, other in ((first.lhs, first.rhs), (first.rhs, first.lhs)):
            reads = {load.buffer for load in _loads(par) if load.buffer in self.known}
            if self._is_zero(one, var) and reads == {one.buffer}:
                self._check(self._finite(other, first.vars, par.vars))
                self._add(_Step(par, var), {})
                return True
        return False

    def _is_zero(self, load: Load, var: Var) -> bool:
        """Whether an operand is zero beyond the borders of a variable."""
        it = self.known.get(load.buffer)
        return it is not None and it.value.value == 0 and load.indices[it.axis] is var

    def _finite(self, load: Load, *vars: Sequence[Var]) -> Expr:
        """Whether all elements of an operand are finite, as a bool."""
        if load.dtype not in FLOATS:
            return Const("bool", value=True)
        used = variables(load)
        summed = tuple(var for each in vars for var in each if var in used)
        around = tuple(var for var in self.loops if var in used)
        test = Scalar(self.room.fresh("finite"), "bool")
        fold = Reduce(test, "all", summed, Apply("bool", "is_finite", (load,)))
        if around == self.loops or load.buffer.mode != "in":
            self.steps.append(_Step(fold))
            return test
        place = self.room.new_scratch("is_finite", "bool", tuple(map(extent_of, around)))
        body: tuple[Stmt, ...] = (fold, Store(place, around, test))
        self.room.ahead += (Par(around, body),) if around else body
        return Load(place, around)

    # --- maps and rows

    def _map(self, par: Par, var: Var) -> bool:
        stores = [stmt for stmt in par.body if isinstance(stmt, Store)]
        if len(stores) < len(par.body) or isinstance(par.how, Turn):
            return False
        left = self._stored(stores, var, {})
        if left is None or not self._reads_along(par, var):
            return False
        is_vector = par.how is not None and var is par.vars[-1]
        slack = par.how.lanes - 1 if par.how is not None and is_vector else 0
        self._add(_Step(par, var, slack=slack), left)
        return True

    def _rows(self, par: Par, var: Var, *, is_tested: bool = False) -> bool:
        """Bounds the folds and sweeps at each point of a nest of vectors.

        Where one asks for a test, the nest is cut before it: the test needs all points.
        """
        slack = self._slack_of_rows(par, var)
        if slack is None or not self._reads_along(par, var):
            return False
        folds: dict[int, _Folded] = {}
        left: dict[Buffer, Known] = {}
        for position, stmt in enumerate(par.body):
            if not isinstance(stmt, Reduce | Sweep) or stmt.vars != (var,):
                continue
            if not (read((stmt,)) | stored((stmt,))) & {*self.known, *left}:
                continue
            if left.keys() & read((stmt,)):
                return False
            folded = self._folded(stmt, var)
            if folded is None:
                return False
            if folded.tests and not is_tested:
                return self._cut(par, position, var, folded.tests)
            folds[position] = folded
            left |= folded.left
        if not folds:
            return False
        pad = max(folded.pad for folded in folds.values())
        self._add(_Step(par, var, frozenset(folds), pad, slack), left)
        return True

    def _slack_of_rows(self, par: Par, var: Var) -> int | None:
        """How many points beyond a border folds along a variable touch; None: all, perhaps."""
        if isinstance(par.how, Vector):
            # a lone point beside vectors of points has vectors along the fold
            return None if extent_of(par.vars[-1]) % par.how.lanes == 1 else 0
        folds = [stmt for stmt in statements(par.body) if isinstance(stmt, Reduce)]
        most = max((4 * self.room.target.lanes(fold.value.dtype) for fold in folds), default=1)
        return most - 1 if par.how is None and extent_of(var) >= 2 * most else None

    def _folded(self, stmt: Reduce | Sweep, var: Var) -> _Folded | None:
        """What folds and stores along a variable need and leave; None: all of it."""
        made = _Folded()
        seen: set[int] = set()
        parts: tuple[Reduce | Store, ...]
        parts = (*stmt.reduces, *stmt.stores) if isinstance(stmt, Sweep) else (stmt,)
        for part in parts:
            values = [value for value in self._outside(part.value, var, {}) if value is not None]
            if len(values) < len(self.band.sides):
                return None
            is_zero = all(not isinstance(v, Const) or v.value == 0 for v in values)
            tests = [value for value in values if not isinstance(value, Const)]
            new = [] if id(part.value) in seen else tests
            seen.add(id(part.value))
            if isinstance(part, Store):
                axis, value = self._axis(part, var), _agreed(values)
                if axis is None or (value is None and not is_zero):
                    return None
                made.left[part.buffer] = Known(axis, value or _zero(part.buffer.dtype))
                made.tests += new
            elif part.monoid in ("max", "min"):
                made.pad = 1
            elif tests and part.monoid == "sum" and is_zero:
                made.tests += new
            elif tests or any(
                v != identity(part.monoid, part.value.dtype) for v in _numbers(values)
            ):
                return None
        return made

    def _cut(self, par: Par, position: int, var: Var, tests: Sequence[Expr]) -> bool:
        """Cuts a nest before a statement, and tests that values beyond the borders are zero."""
        before, after = par.body[:position], par.body[position:]
        names = {stmt.target.name for stmt in before if isinstance(stmt, Reduce)}
        names |= {r.target.name for stmt in before if isinstance(stmt, Sweep) for r in stmt.reduces}
        roots = [*tests, *(root for stmt in statements(after) for root in operands(stmt))]
        used = {e.name: e for e in expressions(roots) if isinstance(e, Scalar) and e.name in names}
        shape = tuple(map(extent_of, par.vars))
        kept: list[Stmt] = []
        again: list[Stmt] = []
        for scalar in used.values():
            place = self.room.new_scratch("kept", scalar.dtype, shape)
            kept.append(Store(place, par.vars, scalar))
            load = Load(place, par.vars)
            again.append(Reduce(scalar, "max", (), load, "sequence"))
        holds: list[Expr] = []
        checks: list[_Step] = []
        for test in tests:
            place = self.room.new_scratch("is_zero", "bool", shape)
            kept.append(Store(place, par.vars, Apply("bool", "eq", (test, _zero(test.dtype)))))
            target = Scalar(self.room.fresh("vanishes"), "bool")
            checks.append(_Step(Reduce(target, "all", par.vars, Load(place, par.vars))))
            holds.append(target)
        self.statement(replace(par, body=(*before, *kept)))
        self.steps += checks
        self._check(*holds)
        rest = replace(par, body=(*again, *after))
        if not self._rows(rest, var, is_tested=True):
            self._whole(rest)
        return True

    # --- what comes of it

    def _reads_along(self, par: Par, var: Var) -> bool:
        """Whether a nest reads what is short along one variable only."""
        return all(
            load.indices[self.known[load.buffer].axis] is var
            for load in _loads(par)
            if load.buffer in self.known
        )

    def _add(self, step: _Step, left: Mapping[Buffer, Known]) -> None:
        """A statement that leaves known values beyond the borders."""
        step.reads = frozenset(read((step.stmt,)) & self.known.keys())
        step.writes = frozenset(left)
        for buffer in stored((step.stmt,)):
            self.known.pop(buffer, None)
        self.known.update(left)
        self.steps.append(step)

    def _check(self, *tests: Expr) -> None:
        """Where a test fails, what was left out is written, and the slab is whole from then on."""
        tests = tuple(test for test in tests if not isinstance(test, Const) or not test.value)
        if not tests:
            return
        holds = tests[0]
        for test in tests[1:]:
            holds = Apply("bool", "bitwise_and", (holds, test))
        for is_above, cell in self.cells.items():
            end = Const("i64", self.band.extent if is_above else 0)
            self.steps.append(
                _Step(Store(cell, (1,), Apply("i64", "select", (holds, Load(cell, (0,)), end))))
            )
        for buffer in self.known:
            for is_above, cell in self.cells.items():
                ends = Load(cell, (0,)), Load(cell, (1,))
                first, stop = ends if is_above else reversed(ends)
                self.steps.append(_Step(self._filled(buffer, first, stop)))
        for cell in self.cells.values():
            self.steps.append(_Step(Store(cell, (0,), Load(cell, (1,)))))

    def built(self) -> tuple[Stmt, ...]:
        """The statements; whoever writes what another one reads covers as much."""
        needed: dict[Buffer, int] = {}
        found: list[Stmt] = []
        for step in reversed(self.steps):
            if step.var is None:
                found.append(step.stmt)
                continue
            pad = max([step.pad, *(needed.pop(buffer, 0) for buffer in step.writes)])
            for buffer in step.reads:
                needed[buffer] = max(needed.get(buffer, 0), pad + step.slack)
            found.append(self._ranged(step, step.var, pad))
        return tuple(reversed(found))

    def _ranged(self, step: _Step, var: Var, pad: int) -> Stmt:
        ends: dict[bool, Expr] = {False: Const("i64", 0), True: Const("i64", self.band.extent)}
        for is_above, cell in self.cells.items():
            moved = Const("i64", pad if is_above else -pad)
            load = Load(cell, (0,))
            ends[is_above] = Apply("i64", "add", (load, moved)) if pad else load
        if not step.bounded:
            return Within(var, ends[False], ends[True], step.stmt)
        assert isinstance(step.stmt, Par)
        body = tuple(
            Within(var, ends[False], ends[True], stmt) if position in step.bounded else stmt
            for position, stmt in enumerate(step.stmt.body)
        )
        return replace(step.stmt, body=body)


@dataclass(slots=True)
class _Folded:
    """What folds and stores along a variable need.

    Attributes:
        tests: Values that have to be zero.
        pad: Points beyond the borders that stand for all of them.
        left: What is stored beyond the borders.
    """

    tests: list[Expr] = field(default_factory=list)
    pad: int = 0
    left: dict[Buffer, Known] = field(default_factory=dict)


def _is_whole(store: Store) -> bool:
    """Whether a store in a nest over its indices writes all of a buffer."""
    shape = store.buffer.shape
    is_free = all(
        index == 0 if size == 1 else isinstance(index, Var) and index.extent == size
        for index, size in zip(store.indices, shape, strict=True)
    )
    return is_free and len(set(store.indices) - {0}) == sum(size != 1 for size in shape)


def _zero(dtype: str) -> Const:
    return Const(dtype, identity("sum", dtype))


def _agreed(values: Sequence[Expr | None]) -> Const | None:
    """The constant that all values are."""
    first = values[0]
    if not isinstance(first, Const):
        return None
    same = all(isinstance(v, Const) and repr(v.value) == repr(first.value) for v in values)
    return first if same else None


def _numbers(values: Iterable[Expr]) -> list[bool | int | float]:
    return [value.value for value in values if isinstance(value, Const)]


def _goes_on(contract: Contract, stores: Sequence[Store]) -> bool:
    """Whether all that happens to a sum is that it goes on in its place."""
    if len(stores) != 1 or not isinstance(contract.start, Load):
        return False
    (store,) = stores
    is_bare = isinstance(store.value, Scalar) and store.value.name == contract.target.name
    here = contract.start.buffer is store.buffer and contract.start.indices == store.indices
    return is_bare and here and store.guard.is_true


def _loads(*body: Stmt) -> list[Load]:
    roots = (root for stmt in statements(body) for root in operands(stmt))
    return [expr for expr in expressions(roots) if isinstance(expr, Load)]
