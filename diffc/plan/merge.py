"""Merges whole groups, after equations have found theirs.

A map group goes into a neighbour (a group that it reads or that reads it) whose loops pass over the
same points: an optimizer's update into the epilogue of the gradient's contraction, a row's shift
into the row. Map groups over one domain that read a common value are siblings, and merge too.
Reading and being read stay in place, and no cycle arises.
"""

from __future__ import annotations

from collections.abc import Iterator

from diffc.ir.graph import Value
from diffc.ir.index import Dim, Var, substitute
from diffc.plan.fuse import MAX_EQNS, Coords, Fusion, Group, fold_coords, free_vars, is_small

#: how many groups that read a common value are tried as partners of one
MAX_SIBLINGS = 64


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
                if group.form != "map" or not group.eqns:
                    continue
                for other in self._partners(group):
                    coords = self._merged_coords(group, other)
                    if coords is not None:
                        self._merge(group, other, coords)
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
        """Neighbours, contractions first; then siblings."""
        neighbours = self._neighbours(group)
        order = {"contract": 0, "rows": 1, "map": 2}
        yield from sorted(
            (other for other in neighbours if other.form in order),
            key=lambda other: order[other.form],
        )
        seen = {group, *neighbours}
        for value in sorted(self.reads[group], key=lambda v: (v.name, v.index)):
            if value.aval.ndim == 0 and group.shape:
                continue
            for other in self._nearest_readers(value, group):
                if other not in seen and other.form == "map" and other.shape == group.shape:
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

    def _merged_coords(self, group: Group, other: Group) -> dict[Value, Coords] | None:
        """Where ``other`` would compute the values of ``group``; None if it can't."""
        if not other.eqns or other.form in ("solo", "region"):
            return None
        if len(group.eqns) + len(other.eqns) > MAX_EQNS or self._makes_cycle(group, other):
            return None
        for place in self.fusion.candidates(other, group.shape):
            mapping: dict[Var, Dim] = dict(zip(group.domain, place, strict=True))
            moved = {
                value: tuple(substitute(c, mapping) for c in coords)
                for value, coords in group.coords.items()
            }
            if self._is_in_place(group, other, moved) and self._may_store(group, other, moved):
                return moved
        return None

    def _makes_cycle(self, group: Group, other: Group) -> bool:
        """Whether a third group runs between the two."""
        if other.runs_before(group):
            return other.has_detour(group)
        return group.runs_before(other) and group.has_detour(other)

    def _is_in_place(self, group: Group, other: Group, moved: dict[Value, Coords]) -> bool:
        """Whether each reads of the other only what is computed at the same point."""
        for eqn in group.eqns:
            if self.fusion.reads_at(eqn, moved[eqn.result], other.coords) is None:
                return False
            needed = {value for value in self.fusion.roots(eqn) if value in other.coords}
            if needed != self.fusion.reads_at(eqn, moved[eqn.result], other.coords):
                return False
        for eqn in other.eqns:
            needed = {value for value in self.fusion.roots(eqn) if value in moved}
            if not needed:
                continue
            kind = self.fusion.kinds[eqn]
            if kind == "fold":
                coords = fold_coords(other, eqn.operands[0].aval.shape)
                if coords is None or not self.fusion.folds_at(eqn, coords, moved):
                    return False
                continue
            if kind not in ("point", "view", "source"):
                return False
            if self.fusion.reads_at(eqn, other.coords[eqn.result], moved) != needed:
                return False
        return True

    def _may_store(self, group: Group, other: Group, moved: dict[Value, Coords]) -> bool:
        """Whether the other group's loops can hold these values where they are needed."""
        if other.form != "rows":
            return True
        is_full = any(v in other.reduced for coords in moved.values() for v in free_vars(coords))
        if not is_full:
            return True
        if not other.has_trailing_rows:
            return False
        if other.kept or is_small(other):
            return True
        return not any(
            value in other.coords and self._follows_fold(other, value)
            for value in self.reads[group]
        )

    def _follows_fold(self, other: Group, value: Value) -> bool:
        eqn = value.eqn
        if eqn is None:
            return False
        return self.fusion.kinds[eqn] == "fold" or self.fusion.depends_on_fold(other, eqn)

    # --- merging ------------------------------------------------------------------------------

    def _merge(self, group: Group, other: Group, moved: dict[Value, Coords]) -> None:
        """Moves all of ``group`` into ``other``."""
        fusion = self.fusion
        other.eqns += group.eqns
        other.coords |= moved
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
