"""Merges whole groups, after equations have found theirs.

A map group goes into a neighbour (a group that it reads or that reads it) whose loops pass over the
same points: an optimizer's update into the epilogue of the gradient's contraction, a row's shift
into the row. Groups with reductions merge where they reduce the same axes, or one along rows and
the other over them: a layer norm's backward pass and the sums of columns that it brings. Groups of
one form over one domain that read a common value are siblings, and merge too. Reading and being
read stay in place, and no cycle arises.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from diffc.ir.graph import Eqn, Value
from diffc.ir.index import Dim, Var, size, substitute
from diffc.plan.forms import is_column_fold
from diffc.plan.fuse import (
    MAX_EQNS,
    Coords,
    Fusion,
    Group,
    can_cross,
    fold_coords,
    free_vars,
    is_small,
    is_trailing,
)

#: how many groups that read a common value are tried as partners of one
MAX_SIBLINGS = 64


@dataclass(frozen=True, slots=True)
class Moved:
    """A group within another one.

    Attributes:
        mapping: What its variables become.
        coords: The points at which its values are computed there.
        reduced, crossed, after: Those of both together, as of :class:`Group`.
    """

    mapping: dict[Var, Dim]
    coords: dict[Value, Coords]
    reduced: frozenset[Var]
    crossed: frozenset[Var]
    after: set[Value] = field(default_factory=set)


def merge_groups(fusion: Fusion) -> None:
    """Merges groups until none can be."""
    _Merger(fusion).run()


class _Merger:
    def __init__(self, fusion: Fusion) -> None:
        self.fusion = fusion
        self.reads: dict[Group, set[Value]] = {
            group: self._external_roots(group) for group in fusion.groups
        }
        self.readers: dict[Value, set[Group]] = {}
        for group, values in self.reads.items():
            for value in values:
                self.readers.setdefault(value, set()).add(group)

    def run(self) -> None:
        waiting = sorted(self.fusion.groups, key=lambda group: group.number)
        while waiting:
            changed: list[Group] = []
            for group in waiting:
                if group.form not in ("map", "rows") or not group.eqns:
                    continue
                for other in self._partners(group):
                    moved = self._merged(group, other)
                    if moved is not None:
                        self._merge(group, other, moved)
                        changed.append(other)
                        break
            waiting = [group for group in changed if group.eqns]
            waiting += [g for group in waiting for g in self._neighbours(group)]
            waiting = sorted(dict.fromkeys(waiting), key=lambda group: group.number)
        self.fusion.groups = [group for group in self.fusion.groups if group.eqns]

    # --- who could merge ----------------------------------------------------------------------

    def _external_roots(self, group: Group) -> set[Value]:
        return {
            value
            for eqn in group.eqns
            for value in self.fusion.roots(eqn)
            if value not in group.coords
        }

    def _neighbours(self, group: Group) -> list[Group]:
        """Groups that this one reads, and that read it."""
        found: dict[Group, None] = {}
        for value in self.reads[group]:
            if value.eqn is not None:
                found[self.fusion.group_of[value.eqn]] = None
        for value in group.coords:
            found.update(dict.fromkeys(self.readers.get(value, ())))
        found.pop(group, None)
        return sorted(found, key=lambda other: other.number)

    def _partners(self, group: Group) -> Iterator[Group]:
        """Neighbours, contractions first; then siblings. Rows look for rows."""
        neighbours = self._neighbours(group)
        order = {"contract": 0, "rows": 1, "map": 2} if group.form == "map" else {"rows": 1}
        yield from sorted(
            (other for other in neighbours if other.form in order),
            key=lambda other: order[other.form],
        )
        seen = {group, *neighbours}
        for value in sorted(self.reads[group], key=lambda v: (v.name, v.index)):
            if value.aval.ndim == 0 and group.shape:
                continue
            for other in self._nearest_readers(value, group):
                if other not in seen and other.form == group.form and other.shape == group.shape:
                    seen.add(other)
                    yield other

    def _nearest_readers(self, value: Value, group: Group) -> list[Group]:
        """Readers of a value in their order; the nearest ones only where there are many."""
        found = self.readers[value]
        if len(found) > MAX_SIBLINGS:
            near = sorted(found, key=lambda g: (abs(g.number - group.number), g.number))
            return sorted(near[:MAX_SIBLINGS], key=lambda g: g.number)
        return sorted(found, key=lambda g: g.number)

    # --- whether they can ---------------------------------------------------------------------

    def _merged(self, group: Group, other: Group) -> Moved | None:
        """What becomes of ``group`` within ``other``; None if they can't be one."""
        if not other.eqns or other.form in ("solo", "region"):
            return None
        if len(group.eqns) + len(other.eqns) > MAX_EQNS or self._makes_cycle(group, other):
            return None
        for place in self.fusion.candidates(other, group.shape):
            mapping: dict[Var, Dim] = dict(zip(group.domain, place, strict=True))
            coords = {
                value: tuple(substitute(c, mapping) for c in at)
                for value, at in group.coords.items()
            }
            moved = _moved(group, other, mapping, coords)
            if moved is None or not self._is_in_place(group, other, moved):
                continue
            if self._may_store(group, other, moved):
                return moved
        return None

    def _makes_cycle(self, group: Group, other: Group) -> bool:
        """Whether a third group runs between the two."""
        if other.runs_before(group):
            return other.has_detour(group)
        return group.runs_before(other) and group.has_detour(other)

    def _is_in_place(self, group: Group, other: Group, moved: Moved) -> bool:
        """Whether each reads of the other only what is computed at the same point."""
        return all(
            self._reads_in_place(eqn, own, mapping, there)
            for members, own, mapping, there in (
                (group.eqns, group, moved.mapping, other.coords),
                (other.eqns, other, {}, moved.coords),
            )
            for eqn in members
        )

    def _reads_in_place(
        self, eqn: Eqn, group: Group, mapping: Mapping[Var, Dim], placed: Mapping[Value, Coords]
    ) -> bool:
        """Whether an equation of a group that moves reads placed values where they are computed."""
        fusion = self.fusion
        needed = {value for value in fusion.roots(eqn) if value in placed}
        kind = fusion.kinds[eqn]
        if kind in ("point", "view", "source"):
            coords = tuple(substitute(c, mapping) for c in group.coords[eqn.result])
            return fusion.reads_at(eqn, coords, placed) == needed
        if not needed:
            return True
        if kind != "fold":
            return False
        found = fold_coords(group, eqn.operands[0].aval.shape)
        if found is None:
            return False
        return fusion.folds_at(eqn, tuple(substitute(c, mapping) for c in found), placed)

    def _may_store(self, group: Group, other: Group, moved: Moved) -> bool:
        """Whether the merged group's loops can hold all values where they are needed."""
        if other.form != "rows":
            return True
        if moved.crossed and not self._keeps_columns_last(group, other, moved):
            return False
        is_full = any(v in moved.reduced for at in moved.coords.values() for v in free_vars(at))
        if not is_full:
            return True
        if not is_trailing(other.domain, moved.reduced):
            return False
        if len(moved.reduced) < len(other.domain) or is_small(other):
            return True
        return not any(
            self._follows_fold(producer, value)
            for reader, producer in ((group, other), (other, group))
            for value in self.reads[reader]
            if value in producer.coords
        )

    def _keeps_columns_last(self, group: Group, other: Group, moved: Moved) -> bool:
        """Whether no row reads what follows from a reduction over rows."""
        fusion, crossed = self.fusion, moved.crossed
        coords = other.coords | moved.coords
        after: set[Value] = set()
        for eqn in sorted((*group.eqns, *other.eqns), key=fusion.position.__getitem__):
            is_fold = fusion.kinds[eqn] == "fold"
            if any(value in after for value in fusion.roots(eqn)):
                if is_fold or not free_vars(coords[eqn.result]).isdisjoint(crossed):
                    return False
                after.add(eqn.result)
            elif is_fold and is_column_fold(eqn):
                after.add(eqn.result)
        moved.after.update(after)
        return True

    def _follows_fold(self, group: Group, value: Value) -> bool:
        eqn = value.eqn
        if eqn is None:
            return False
        return self.fusion.kinds[eqn] == "fold" or self.fusion.depends_on_fold(group, eqn)

    # --- merging ------------------------------------------------------------------------------

    def _merge(self, group: Group, other: Group, moved: Moved) -> None:
        """Moves all of ``group`` into ``other``."""
        fusion = self.fusion
        other.eqns += group.eqns
        other.coords |= moved.coords
        other.reduced, other.crossed, other.after = moved.reduced, moved.crossed, moved.after
        for eqn in group.eqns:
            fusion.group_of[eqn] = other
        group.eqns = []
        group.coords = {}
        for value in self.reads[group]:
            self.readers[value].discard(group)
        self.reads[other] = self._external_roots(other)
        for value in self.reads[other]:
            self.readers.setdefault(value, set()).add(other)
        for value in other.coords:
            self.readers.get(value, set()).discard(other)
        for third in self._producers_of(group):
            third.following.discard(group)
            if third is not other:
                third.following.add(other)
        other.absorb(group)

    def _producers_of(self, group: Group) -> list[Group]:
        return [
            self.fusion.group_of[value.eqn] for value in self.reads[group] if value.eqn is not None
        ]


def _moved(
    group: Group, other: Group, mapping: dict[Var, Dim], coords: dict[Value, Coords]
) -> Moved | None:
    """The two as one; None if they don't reduce the same axes of one domain."""
    if group.form != "rows":
        return Moved(mapping, coords, other.reduced, other.crossed, set(other.after))
    if size(group.shape) != size(other.shape):
        return None
    reduced = _moved_vars(group.reduced, mapping)
    crossed = _moved_vars(group.crossed, mapping)
    if reduced is None or crossed is None:
        return None
    if bool(reduced) != bool(group.reduced) or not (other.reduced or other.crossed):
        return None  # reductions of axes of one element can't be told from those of others
    if (reduced and other.reduced and reduced != other.reduced) or (
        crossed and other.crossed and crossed != other.crossed
    ):
        return None
    reduced, crossed = reduced or other.reduced, crossed or other.crossed
    if crossed and not can_cross(other.domain, reduced, crossed):
        return None
    return Moved(mapping, coords, reduced, crossed)


def _moved_vars(vars: frozenset[Var], mapping: Mapping[Var, Dim]) -> frozenset[Var] | None:
    """The variables that run through the same values together; None if none do by themselves."""
    found = frozenset(free_vars(mapping[var] for var in vars))
    same = size(tuple(var.extent for var in found)) == size(tuple(var.extent for var in vars))
    return found if same else None
