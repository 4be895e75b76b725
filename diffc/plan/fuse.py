"""Groups equations into kernels.

Equations are visited in order. Each joins the group of an operand when its outer loops are those of
the group: it reads what the group computes at just the point at which the group computes it. Forms
of groups and what may join them:

- *map*: all points of a domain; elementwise chains, gathers, sources of any number of outputs.
- *rows*: a domain with reduced axes; reductions with their producers, a row's statistics and what
  uses them. Where the reduced axes are not the last ones (sums over columns), only values of the
  kept shape are stored.
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
from diffc.plan.forms import Kind, access, checks_reads, is_table, kind_of, unshaped

Form = Choice["map", "rows", "contract", "solo", "region"]
Coords = tuple[Dim, ...]

#: a group stops growing here: beyond it, registers spill and compile time grows.
MAX_EQNS = 160
#: beyond this many elements a full reduction runs in chunks, so nothing may wait for its result.
CHUNK = 16384


@dataclass(slots=True, eq=False)
class Group:
    """Equations that will be one kernel.

    Attributes:
        number: bit of this group in the reachability sets.
        form: see the module docstring.
        domain: the points, one variable per axis.
        reduced: the variables that rows reduce over.
        coords: the point at which each value of the group is computed.
        bits: bit of this group, and of those that it absorbed, in the sets ``before``.
        before: bit set of the groups that must run earlier, directly or not.
        following: groups that must run later, directly.
    """

    number: int
    form: Form
    domain: tuple[Var, ...]
    reduced: frozenset[Var] = frozenset()
    eqns: list[Eqn] = field(default_factory=list)
    coords: dict[Value, Coords] = field(default_factory=dict)
    bits: int = 0
    before: int = 0
    following: set[Group] = field(default_factory=set)

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
    def has_trailing_rows(self) -> bool:
        """Whether the reduced axes are the last ones."""
        count = len(self.reduced)
        return self.reduced == frozenset(self.domain[len(self.domain) - count :])


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
        if group.form == "rows":
            kept = group.kept
            kept_shape = tuple(var.extent for var in kept)
            if shape == kept_shape:
                yield kept
            elif size(shape) == size(kept_shape) != 0:
                yield unravel(ravel(kept, kept_shape), shape)

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
                if operand in placed:
                    if normal(read) != normal(placed[operand]):
                        return None
                    reached.add(operand)
                elif operand.eqn is not None and self.dissolves(operand):
                    work.append((operand.eqn, tuple(read)))
        return reached

    def may_store(self, group: Group, eqn: Eqn, coords: Coords) -> bool:
        """Whether the group's loops can hold a value at this point."""
        if group.form != "rows":
            return True
        is_full = any(var in group.reduced for var in free_vars(coords))
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
            if coords is None or not self._fits_fold(group, eqn, coords, axes):
                continue
            reduced = frozenset(x for axis in axes for x in free_vars((coords[axis],)))
            group.form, group.reduced = "rows", reduced
            kept = tuple(c for axis, c in enumerate(coords) if axis not in axes)
            group.coords[eqn.result] = kept
            self._add(group, eqn)
            return
        domain = domain_of(shape)
        group = self._start("rows", domain, eqn)
        group.reduced = frozenset(domain[axis] for axis in axes)
        group.coords[eqn.result] = group.kept

    def _fits_fold(self, group: Group, eqn: Eqn, coords: Coords, axes: tuple[int, ...]) -> bool:
        """Whether the group can reduce its domain as this equation asks."""
        if not self.folds_at(eqn, coords, group.coords):
            return False
        reduced: list[Var] = []
        for axis in axes:
            coord = coords[axis]
            if coord == 0:
                continue
            if not isinstance(coord, Var):
                return False
            reduced.append(coord)
        kept = [c for axis, c in enumerate(coords) if axis not in axes]
        if any(var in reduced for var in free_vars(kept)):
            return False
        wanted = frozenset(reduced)
        if group.form == "rows":
            return wanted == group.reduced
        is_trailing = wanted == frozenset(group.domain[len(group.domain) - len(wanted) :])
        return is_trailing or self._is_private(group, eqn)

    def folds_at(self, eqn: Eqn, coords: Coords, placed: Mapping[Value, Coords]) -> bool:
        """Whether a reduction over the points ``coords`` reads a placed value just there."""
        (operand,) = eqn.operands
        value, indices = operand, coords
        while isinstance(value, Value) and value not in placed:
            if value.eqn is None or not self.dissolves(value) or not value.eqn.operands:
                return False
            ((_, read, _),) = access(value.eqn, indices)
            value, indices = value.eqn.operands[0], tuple(read)
        return isinstance(value, Value) and normal(indices) == normal(placed[value])

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


def fold_axes(eqn: Eqn) -> tuple[int, ...]:
    """The axes that a reduction removes."""
    axes = eqn.params.get("axes")
    return (eqn.params["axis"],) if axes is None else tuple(axes)


def normal(coords: Iterable[Dim]) -> tuple[Dim, ...]:
    """Coordinates with axes of one element at 0."""
    return tuple(0 if isinstance(c, Var) and c.extent == 1 else c for c in coords)


def fold_coords(group: Group, shape: tuple[Dim, ...]) -> Coords | None:
    """The points of the group as indices of an array of this shape, if their number is the same."""
    if shape == group.shape:
        return group.domain
    if size(shape) == size(group.shape) != 0:
        return unravel(ravel(group.domain, group.shape), shape)
    return None


def free_vars(coords: Iterable[Dim]) -> set[Var]:
    """The variables that coordinates depend on."""
    return {atom for coord in coords for atom in free(coord) if isinstance(atom, Var)}


def is_small(group: Group) -> bool:
    """Whether a reduction over the whole domain runs in one chunk."""
    total = size(group.shape)
    return isinstance(total, int) and total <= CHUNK
