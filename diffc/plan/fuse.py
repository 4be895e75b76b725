"""Groups equations into kernels.

Equations are visited in order. Each joins the group of an operand when its outer loops are those of
the group: it reads what the group computes at just the point at which the group computes it. Forms
of groups and what may join them:

- *map*: all points of a domain; elementwise chains, gathers, sources of any number of outputs.
- *rows*: a domain with reduced axes; reductions with their producers, a row's statistics and what
  uses them. Where the reduced axes are in the middle, only values of the kept shape are stored.
  Reductions over leading axes (sums of columns) stand beside those along rows, or alone; what
  follows from them is known after all rows, so no row may read it.
- *contract*: one contraction and elementwise consumers of its result (its epilogue).
- *solo*: one equation that brings its own loops (scatter, sort, ...); *region*: a call or loop.

Views join nobody: they dissolve in the accesses of whoever reads them. Groups never form a cycle:
reachability is kept in bit sets. ``merge`` then joins whole groups.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal as Choice

from diffc.ir.graph import Eqn, Graph, Operand, Value
from diffc.ir.index import Dim, Var, free, ravel, size, unravel
from diffc.plan.forms import (
    Kind,
    access,
    block_rows,
    checks_reads,
    fold_axes,
    is_column_fold,
    is_table,
    kind_of,
    normal,
    unshaped,
)

Form = Choice["map", "rows", "contract", "solo", "region"]
Coords = tuple[Dim, ...]

#: a group stops growing here: beyond it, registers spill and compile time grows.
MAX_EQNS = 160
#: beyond this many elements a full reduction runs in chunks, so nothing may wait for its result.
CHUNK = 16384
#: where more elements than these have fewer blocks of rows, reductions along and over rows stay
#: apart, so that threads have enough to share.
FEW_ELEMENTS = 65536
ENOUGH_BLOCKS = 8


@dataclass(slots=True, eq=False)
class Group:
    """Equations that will be one kernel.

    Attributes:
        number: bit of this group in the reachability sets.
        form: see the module docstring.
        domain: the points, one variable per axis.
        reduced: the variables that rows reduce over.
        crossed: the variables that columns reduce over, the first ones of the domain.
        coords: the point at which each value of the group is computed.
        after: the values that follow from reductions over columns.
        bits: bit of this group, and of those that it absorbed, in the sets ``before``.
        before: bit set of the groups that must run earlier, directly or not.
        following: groups that must run later, directly.
    """

    number: int
    form: Form
    domain: tuple[Var, ...]
    reduced: frozenset[Var] = frozenset()
    crossed: frozenset[Var] = frozenset()
    eqns: list[Eqn] = field(default_factory=list)
    coords: dict[Value, Coords] = field(default_factory=dict)
    bits: int = 0
    before: int = 0
    following: set[Group] = field(default_factory=set)
    after: set[Value] = field(default_factory=set)

    def runs_before(self, other: Group) -> bool:
        """Whether this group must run before another."""
        return bool(other.before & self.bits)

    def run_after(self, other: Group) -> None:
        """Records that this group runs after another; what follows this one learns of it."""
        if self in other.following:
            return
        other.following.add(self)
        self.learn(other.before | other.bits)

    def learn(self, before: int) -> None:
        """Adds to what runs before this group and whatever follows it."""
        stack = [self]
        while stack:
            group = stack.pop()
            if before & ~group.before:
                group.before |= before
                stack.extend(group.following)

    def has_detour(self, other: Group) -> bool:
        """Whether another group runs between this one and ``other``, which follows it."""
        return any(
            between is not other and between.runs_before(other) for between in self.following
        )

    def absorb(self, group: Group) -> None:
        """Takes the place of ``group`` in the order."""
        self.bits |= group.bits
        for third in tuple(group.following):
            if third is not self:
                self.following.add(third)
        group.following = set()
        self.following.discard(group)
        self.before = (self.before | group.before) & ~self.bits
        for third in self.following:
            third.learn(self.before | self.bits)

    @property
    def shape(self) -> tuple[Dim, ...]:
        """Extents of the domain."""
        return tuple(var.extent for var in self.domain)

    @property
    def kept(self) -> tuple[Var, ...]:
        """The variables that are not reduced."""
        return tuple(var for var in self.domain if var not in self.reduced)

    @property
    def rest(self) -> tuple[Var, ...]:
        """The variables that columns leave."""
        return tuple(var for var in self.domain if var not in self.crossed)

    @property
    def has_trailing_rows(self) -> bool:
        """Whether the reduced axes are the last ones."""
        return is_trailing(self.domain, self.reduced)


def domain_of(shape: tuple[Dim, ...]) -> tuple[Var, ...]:
    """Variables for the points of a shape."""
    return tuple(Var(f"d{axis}", extent) for axis, extent in enumerate(shape))


class Fusion:
    """The state of grouping one graph. ``run`` returns the groups."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.position = {eqn: number for number, eqn in enumerate(graph.eqns)}
        self.kinds: dict[Eqn, Kind] = {eqn: kind_of(eqn) for eqn in graph.eqns}
        self.groups: list[Group] = []
        self.group_of: dict[Eqn, Group] = {}
        self.users: dict[Value, list[Eqn]] = {}
        self.outputs = {output for output in graph.outputs if isinstance(output, Value)}
        for eqn in graph.eqns:
            for operand in set(eqn.operands):
                if isinstance(operand, Value):
                    self.users.setdefault(operand, []).append(eqn)

    def run(self) -> list[Group]:
        """Groups all equations that compute something; in no particular order."""
        for eqn in self.graph.eqns:
            kind = self.kinds[eqn]
            if kind in ("view", "source"):
                if not self._must_lie_in_memory(eqn):
                    continue
                kind = "point"
            if kind == "point":
                self._place_point(eqn)
            elif kind == "fold":
                self._place_fold(eqn)
            elif kind == "contract":
                group = self._start("contract", domain_of(eqn.result.aval.shape), eqn)
                group.coords[eqn.result] = group.domain
            else:
                self._start("region" if kind == "region" else "solo", (), eqn)
        return self.groups

    # --- what an equation reads ---------------------------------------------------------------

    def _must_lie_in_memory(self, eqn: Eqn) -> bool:
        """Whether a view or source is an output, an operand of a region, or read with a check."""
        if is_table(eqn):
            return False
        if eqn.result in self.outputs:
            return True
        root = unshaped(eqn.result).eqn
        is_view = root is not None and self.kinds[root] in ("view", "source")
        return any(
            self.kinds[user] == "region" or (is_view and checks_reads(user, eqn.result))
            for user in self.users.get(eqn.result, ())
        )

    def dissolves(self, value: Value) -> bool:
        """Whether a value lives only in the accesses of its readers."""
        eqn = value.eqn
        return (
            eqn is not None and self.kinds[eqn] in ("view", "source") and eqn not in self.group_of
        )

    def roots(self, eqn: Eqn) -> list[Value]:
        """The values that the equation reads, dissolved views looked through."""
        found: dict[Value, None] = {}
        for operand in eqn.operands:
            if not isinstance(operand, Value):
                continue
            if operand.eqn is None:
                found[operand] = None
                continue
            value: Operand | None = operand
            while isinstance(value, Value) and self.dissolves(value):
                assert value.eqn is not None
                value = value.eqn.operands[0] if value.eqn.operands else None
            if isinstance(value, Value):
                found[value] = None
        return list(found)

    def _producers(self, eqn: Eqn) -> list[Group]:
        """Groups that compute operands of the equation, latest first."""
        found = {}
        for value in self.roots(eqn):
            if value.eqn is not None:
                group = self.group_of[value.eqn]
                found[group.number] = group
        return [found[number] for number in sorted(found, reverse=True)]

    # --- placing ------------------------------------------------------------------------------

    def _start(self, form: Form, domain: tuple[Var, ...], eqn: Eqn) -> Group:
        number = len(self.groups)
        group = Group(number, form, domain, bits=1 << number)
        self.groups.append(group)
        self._add(group, eqn)
        return group

    def _add(self, group: Group, eqn: Eqn) -> None:
        """Adds an equation and what must run before it."""
        group.eqns.append(eqn)
        self.group_of[eqn] = group
        if any(value in group.after for value in self.roots(eqn)):
            group.after.update(eqn.results)
        for producer in self._producers(eqn):
            if producer is not group:
                group.run_after(producer)

    def _can_join(self, group: Group, eqn: Eqn) -> bool:
        """Whether joining makes no cycle: nothing else that is read runs after the group."""
        if len(group.eqns) >= MAX_EQNS:
            return False
        return not any(
            group.runs_before(other) for other in self._producers(eqn) if other is not group
        )

    def _place_point(self, eqn: Eqn) -> None:
        for group in self._producers(eqn):
            if group.form in ("solo", "region") or not self._can_join(group, eqn):
                continue
            for coords in self.candidates(group, eqn.result.aval.shape):
                if self._reads_in_place(group, eqn, coords) and self.may_store(group, eqn, coords):
                    group.coords[eqn.result] = coords
                    self._add(group, eqn)
                    return
        group = self._start("map", domain_of(eqn.result.aval.shape), eqn)
        group.coords[eqn.result] = group.domain

    def candidates(self, group: Group, shape: tuple[Dim, ...]) -> Iterable[Coords]:
        """Points of the group at which a value of this shape could be computed."""
        if shape == group.shape:
            yield group.domain
        elif size(shape) == size(group.shape) != 0:
            yield unravel(ravel(group.domain, group.shape), shape)
        for vars in (group.kept if group.reduced else None, group.rest if group.crossed else None):
            if vars is None:
                continue
            extents = tuple(var.extent for var in vars)
            if shape == extents:
                yield vars
            elif size(shape) == size(extents) != 0:
                yield unravel(ravel(vars, extents), shape)

    def _reads_in_place(self, group: Group, eqn: Eqn, coords: Coords) -> bool:
        """Whether all that the equation reads of the group is computed at this point."""
        inside = {value for value in self.roots(eqn) if value in group.coords}
        return bool(inside) and self.reads_at(eqn, coords, group.coords) == inside

    def reads_at(
        self, eqn: Eqn, coords: Coords, placed: Mapping[Value, Coords]
    ) -> set[Value] | None:
        """Which placed values the equation at ``coords`` reads; None if any at another point."""
        work: list[tuple[Eqn, Coords]] = [(eqn, coords)]
        reached: set[Value] = set()
        while work:
            current, indices = work.pop()
            for position, read, _ in access(current, indices):
                operand = current.operands[position]
                if not isinstance(operand, Value):
                    continue
                shape = operand.aval.shape
                if operand in placed:
                    if normal(read, shape) != normal(placed[operand], shape):
                        return None
                    reached.add(operand)
                elif operand.eqn is not None and self.dissolves(operand):
                    work.append((operand.eqn, normal(read, shape)))
        return reached

    def may_store(self, group: Group, eqn: Eqn, coords: Coords) -> bool:
        """Whether the group's loops can hold a value at this point."""
        if group.form != "rows":
            return True
        found = free_vars(coords)
        if any(value in group.after for value in self.roots(eqn)):
            return found.isdisjoint(group.crossed)
        is_full = not found.isdisjoint(group.reduced)
        if is_full and not group.has_trailing_rows:
            return False
        if is_full and not group.kept and not is_small(group):
            return not self.depends_on_fold(group, eqn)
        return True

    def depends_on_fold(self, group: Group, eqn: Eqn) -> bool:
        """Whether an equation reads, within the group, what a reduction found."""
        work, seen = [eqn], set()
        while work:
            current = work.pop()
            for value in self.roots(current):
                if value.eqn is None or value.eqn in seen or value not in group.coords:
                    continue
                if self.kinds[value.eqn] == "fold":
                    return True
                seen.add(value.eqn)
                work.append(value.eqn)
        return False

    def _place_fold(self, eqn: Eqn) -> None:
        (operand,) = eqn.operands
        shape, axes = operand.aval.shape, fold_axes(eqn)
        for group in self._producers(eqn):
            if group.form not in ("map", "rows") or not self._can_join(group, eqn):
                continue
            coords = fold_coords(group, shape)
            if coords is None or not self.folds_at(eqn, coords, group.coords):
                continue
            if any(value in group.after for value in self.roots(eqn)):
                continue
            vars = reduced_vars(coords, axes)
            if vars is None or not self._fits_fold(group, eqn, vars):
                continue
            group.form = "rows"
            kept = tuple(c for axis, c in enumerate(coords) if axis not in axes)
            self._add_fold(group, eqn, vars, kept)
            return
        domain = domain_of(shape)
        group = self._start("rows", domain, eqn)
        vars = frozenset(domain[axis] for axis in axes)
        self._add_fold(group, eqn, vars, tuple(var for var in domain if var not in vars))

    def _add_fold(self, group: Group, eqn: Eqn, vars: frozenset[Var], kept: Coords) -> None:
        """Adds a reduction of a group over ``vars``, with its result at ``kept``."""
        if is_column_fold(eqn):
            group.crossed = vars
            group.after.update(eqn.results)
        else:
            group.reduced = vars
        group.coords[eqn.result] = kept
        if eqn not in self.group_of:
            self._add(group, eqn)

    def _fits_fold(self, group: Group, eqn: Eqn, vars: frozenset[Var]) -> bool:
        """Whether the group can reduce these variables of its domain as this equation asks."""
        if is_column_fold(eqn):
            is_known = not group.crossed or vars == group.crossed
            return is_known and can_cross(group.domain, group.reduced, vars)
        if group.form == "rows" and (group.reduced or not group.crossed):
            return vars == group.reduced
        if not vars or not vars.isdisjoint(group.crossed):
            return False
        if is_trailing(group.domain, vars):
            return not group.crossed or can_cross(group.domain, vars, group.crossed)
        return not group.crossed and self._is_private(group, eqn)

    def folds_at(self, eqn: Eqn, coords: Coords, placed: Mapping[Value, Coords]) -> bool:
        """Whether a reduction over the points ``coords`` reads a placed value just there."""
        (operand,) = eqn.operands
        value, indices = operand, coords
        while isinstance(value, Value) and value not in placed:
            if value.eqn is None or not self.dissolves(value) or not value.eqn.operands:
                return False
            ((_, read, _),) = access(value.eqn, indices)
            value = value.eqn.operands[0]
            indices = normal(read, value.aval.shape)
        if not isinstance(value, Value):
            return False
        shape = value.aval.shape
        return normal(indices, shape) == normal(placed[value], shape)

    def _is_private(self, group: Group, eqn: Eqn) -> bool:
        """Whether nothing but the group and ``eqn`` uses what the group computes."""
        for member in group.eqns:
            for result in member.results:
                if result in self.outputs:
                    return False
                work = list(self.users.get(result, ()))
                while work:
                    user = work.pop()
                    if user is eqn or self.group_of.get(user) is group:
                        continue
                    if user in self.group_of or self.kinds[user] != "view":
                        return False
                    if self._must_lie_in_memory(user):
                        return False
                    work.extend(self.users.get(user.result, ()))
        return True


def fold_coords(group: Group, shape: tuple[Dim, ...]) -> Coords | None:
    """The points of the group as indices of an array of this shape, if their number is the same."""
    if shape == group.shape:
        return group.domain
    if size(shape) == size(group.shape) != 0:
        return unravel(ravel(group.domain, group.shape), shape)
    return None


def reduced_vars(coords: Coords, axes: tuple[int, ...]) -> frozenset[Var] | None:
    """The variables that a reduction over axes with these coordinates runs through, if all of each.

    None if an axis that is kept depends on one of them.
    """
    found = free_vars(c for axis, c in enumerate(coords) if axis in axes)
    kept = free_vars(c for axis, c in enumerate(coords) if axis not in axes)
    return frozenset(found) if found.isdisjoint(kept) else None


def is_trailing(domain: tuple[Var, ...], vars: frozenset[Var]) -> bool:
    """Whether variables are the last ones of a domain."""
    return vars == frozenset(domain[len(domain) - len(vars) :])


def can_cross(domain: tuple[Var, ...], reduced: frozenset[Var], crossed: frozenset[Var]) -> bool:
    """Whether rows over ``reduced`` can be computed along with reductions over ``crossed``.

    Rows then run in order within a block, so there have to be blocks enough for the threads.
    """
    long = [var for var in domain if var.extent != 1]
    wanted = [var for var in long if var in crossed]
    if not wanted or wanted != long[: len(wanted)] or len(wanted) == len(long):
        return False
    if not reduced:
        return True
    if not reduced.isdisjoint(crossed) or not is_trailing(domain, reduced):
        return False
    rows, columns = extent_of(wanted), extent_of(long[len(wanted) :])
    return rows >= ENOUGH_BLOCKS * block_rows(columns) or rows * columns <= FEW_ELEMENTS


def extent_of(vars: Iterable[Var]) -> int:
    """How many values variables have together."""
    total = size(tuple(var.extent for var in vars))
    assert isinstance(total, int), "dimensions are known when a program is planned"
    return total


def free_vars(coords: Iterable[Dim]) -> set[Var]:
    """The variables that coordinates depend on."""
    return {atom for coord in coords for atom in free(coord) if isinstance(atom, Var)}


def is_small(group: Group) -> bool:
    """Whether a reduction over the whole domain runs in one chunk."""
    total = size(group.shape)
    return isinstance(total, int) and total <= CHUNK
