"""Nests whose accesses run along two variables: square blocks, transposed in registers.

In vectors along one variable, what is contiguous along the other one would be gathered or scattered
lane by lane. Instead both are cut into blocks of a vector's length. Where all that a result reads
is contiguous along one variable and the result along the other, a block of its values is computed
in vectors along the one, transposed, and stored along the other. Where it reads both, blocks of
those operands that run the other way are transposed into scratch first.

Blocks that lie side by side in what is read come one after the other, so that whole lines are used
while they are near.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from diffc.codegen.loops.nodes import Buffer, Load, Par, Stmt, Store, Turn, Vector
from diffc.codegen.loops.walk import expressions, map_body
from diffc.codegen.targets import Target
from diffc.codegen.tile.access import PICKED, stride, widest
from diffc.codegen.tile.collapse import replace_vars
from diffc.ir.index import TRUE, Dim, Guard, Var, lt, ravel

__all__ = ["turned"]

#: how many blocks side by side are computed one after the other
RUN = 16
#: lanes of a block at most, and the least extent of a variable that is cut into blocks
MOST, LEAST = 16, 8


def turned(par: Par, target: Target) -> tuple[Par, list[Buffer]] | None:
    """A nest of stores in blocks, and its scratch; None where one variable suits all accesses."""
    stores = [stmt for stmt in par.body if isinstance(stmt, Store)]
    lanes = min(MOST, target.vector_bytes // widest(par.body))
    long = [var for var in par.vars if _extent(var) >= LEAST]
    if lanes < 4 or len(long) < 2:
        return None
    ways = [_Way.of(store, long, lanes) for store in stores]
    pairs = Counter(pair for way in ways if (pair := way.pair) is not None)
    if not pairs:
        return None
    (read, written), _ = pairs.most_common(1)[0]
    return _Writer(par, ways, read, written, lanes).run()


def _extent(var: Var) -> int:
    assert isinstance(var.extent, int)
    return var.extent


def _line(offset: Dim, vars: Sequence[Var], lanes: int) -> Var | None:
    """The variable along which an access is contiguous, if it is far apart along another one."""
    steps = {var: stride(offset, var, lanes) for var in vars}
    lines = [var for var, step in steps.items() if step == 1]
    is_far = any(not isinstance(step, int) or abs(step) > PICKED for step in steps.values())
    return lines[0] if len(lines) == 1 and is_far else None


@dataclass(frozen=True, slots=True)
class _Way:
    """A store, the variable along which it runs, and those along which its loads do."""

    store: Store
    line: Var | None
    loads: dict[Load, Var]

    @classmethod
    def of(cls, store: Store, vars: Sequence[Var], lanes: int) -> _Way:
        line = _line(ravel(store.indices, store.buffer.shape), vars, lanes)
        found: dict[Load, Var] = {}
        for load in expressions((store.value,)):
            if isinstance(load, Load):
                along = _line(ravel(load.indices, load.buffer.shape), vars, lanes)
                if along is not None:
                    found[load] = along
        return cls(store, line, found)

    @property
    def pair(self) -> tuple[Var, Var] | None:
        """The variables of loads that run another way than the store, and of the store."""
        others = Counter(var for var in self.loads.values() if var is not self.line)
        if self.line is None or not others:
            return None
        return others.most_common(1)[0][0], self.line

    def reads_only(self, var: Var) -> bool:
        """Whether all its loads run along one variable."""
        return set(self.loads.values()) == {var}


@dataclass(slots=True)
class _Writer:
    """Makes the blocks of one nest.

    Attributes:
        par: The nest.
        ways: Its stores.
        read, written: The two variables.
        lanes: Points of a block along each.
        scratch: Transposed blocks of operands.
    """

    par: Par
    ways: list[_Way]
    read: Var
    written: Var
    lanes: int
    scratch: list[Buffer] = field(default_factory=list)

    def run(self) -> tuple[Par, list[Buffer]]:
        """The nest over the blocks."""
        inner = {var: Var(f"{var.name}_b", self.lanes) for var in (self.read, self.written)}
        outer, mapping, guard = self._cut(inner)
        fills: dict[Var, list[Store]] = {}
        turns: dict[Var, list[Store]] = {}
        plain: dict[Var, list[Store]] = {}
        for way in self.ways:
            pair = way.pair
            if pair is not None and set(pair) == set(inner) and way.reads_only(pair[0]):
                turns.setdefault(pair[1], []).append(way.store)
                continue
            along = self.read if way.line is self.read else self.written
            filled, store = self._filled(way, along, inner)
            fills.setdefault(along, []).extend(filled)
            plain.setdefault(along, []).append(store)
        body: list[Par] = []
        for stores, how in ((fills, Turn), (plain, Vector), (turns, Turn)):
            for along, group in stores.items():
                other = self.read if along is self.written else self.written
                if group:
                    body.append(Par((inner[other], inner[along]), tuple(group), how(self.lanes)))
        inside = replace_vars(body, mapping)
        return Par(outer, tuple(_guarded(stmt, guard) for stmt in inside)), self.scratch

    def _filled(self, way: _Way, along: Var, inner: dict[Var, Var]) -> tuple[list[Store], Store]:
        """Transposes into scratch what runs the other way; the store that reads it there."""
        other = self.read if along is self.written else self.written
        place = inner[other], inner[along]
        made: dict[tuple[Buffer, tuple[Dim, ...]], Buffer] = {}
        fills: list[Store] = []
        for load, line in way.loads.items():
            key = load.buffer, load.indices
            if line is other and key not in made:
                shape = self.lanes, self.lanes
                name = f"{load.buffer.name}_t{len(self.scratch)}"
                made[key] = Buffer(name, load.buffer.dtype, shape, "scratch")
                self.scratch.append(made[key])
                fills.append(Store(made[key], place, load))

        def on_access(buffer: Buffer, indices: tuple[Dim, ...]) -> tuple[Buffer, tuple[Dim, ...]]:
            found = made.get((buffer, indices))
            return (buffer, indices) if found is None else (found, place)

        (store,) = map_body((way.store,), lambda index: index, lambda guard: guard, on_access)
        assert isinstance(store, Store)
        return fills, store

    def _cut(self, inner: dict[Var, Var]) -> tuple[tuple[Var, ...], dict[Var, Dim], Guard]:
        """The loops over blocks, what the two variables become, and which points there are."""
        lanes, read, written = self.lanes, self.read, self.written
        columns, rows = -(-_extent(read) // lanes), -(-_extent(written) // lanes)
        run = max(n for n in range(1, RUN + 1) if columns % n == 0)
        if 2 * run < min(RUN, columns):
            run = min(RUN, columns)
        strips = -(-columns // run)
        strip = Var(f"{read.name}_r", strips)
        row, column = Var(f"{written.name}_t", rows), Var(f"{read.name}_t", run)
        mapping: dict[Var, Dim] = {
            read: lanes * (run * strip + column) + inner[read],
            written: lanes * row + inner[written],
        }
        guard = TRUE
        for var, extent in ((read, lanes * run * strips), (written, lanes * rows)):
            if extent > _extent(var):
                guard &= lt(mapping[var], _extent(var))
        others = tuple(var for var in self.par.vars if var not in (read, written))
        return (*others, strip, row, column), mapping, guard


def _guarded(stmt: Stmt, guard: Guard) -> Stmt:
    """A nest of stores, of which only those where a guard holds happen."""
    assert isinstance(stmt, Par)
    stores = [store for store in stmt.body if isinstance(store, Store)]
    body = tuple(replace(store, guard=store.guard & guard) for store in stores)
    return replace(stmt, body=body)
