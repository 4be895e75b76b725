"""Which kernels run together, slab by slab: those that need the same rows of each other's results.

A *slab* is a few rows of everything that some kernels compute: a block of the queries of one head.
All variables that the kernels share are its *dims*: every value that one of them hands to another
has an axis along each dim, and both move along it by a variable of their own. The last dim is the
*row*, of which a slab has several values; of the others it has one. A kernel that sums over the
row may belong too, as the last in line: it goes on with its sums from slab to slab.

A search starts from a large value that only kernels read (the scores of an attention), with the
kernel that computes it and those that read it. Then come kernels that share values as large with
these, and whatever stands between two of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from diffc.codegen.loops.nodes import Expr
from diffc.codegen.slabs.part import Part, Place
from diffc.ir.index import Var
from diffc.plan.program import Buffer, Node, Program, reads_of, writes_of

__all__ = ["Slabs", "find_slabs"]

Dims = tuple[Var, ...]
"""The variables of a part along the dims, the row last."""

#: a kernel joins others for a value that is not smaller than the first one by more than this
COMPARABLE = 4


@dataclass(slots=True, eq=False)
class Slabs:
    """Kernels that run together.

    Attributes:
        parts: In the order of the program, with their variables along the dims.
        inner: The values that nobody else reads.
        handed: The values that one part hands to another, with their axes along the dims.
    """

    parts: dict[Part, Dims]
    inner: list[Buffer]
    handed: dict[Buffer, tuple[int, ...]]

    @property
    def extents(self) -> tuple[int, ...]:
        """Of the dims."""
        dims = next(iter(self.parts.values()))
        return tuple(var.extent for var in dims if isinstance(var.extent, int))

    def sums_rows(self, part: Part) -> bool:
        """Whether a part sums over the row."""
        return self.parts[part][-1] not in part.nest.vars


def find_slabs(program: Program, parts: Mapping[Node, Part], least: int) -> list[Slabs]:
    """The sets of kernels of a program that can run together, none overlapping another.

    Args:
        program: The program.
        parts: The kernels that can be parts.
        least: Bytes from which a value is worth a search.
    """
    values = [
        buffer
        for node in program.nodes
        if node in parts
        for buffer in writes_of(node)
        if buffer.role == "temporary" and nbytes_of(buffer) >= least
    ]
    if not values:
        return []
    finder = _Finder(program, parts)
    found: list[Slabs] = []
    for value in sorted(values, key=nbytes_of, reverse=True):
        slabs = finder.around(value)
        if slabs is not None:
            found.append(slabs)
            finder.taken |= {finder.number[part.node] for part in slabs.parts}
    return found


def edges(program: Program) -> list[tuple[int, int]]:
    """Pairs of nodes, by number, of which the first has to run before the second.

    The second reads what the first writes, or takes over the memory of an input that it reads.
    """
    found: dict[tuple[int, int], None] = {}
    maker: dict[Buffer, int] = {}
    readers: dict[Buffer, list[int]] = {}
    for number, node in enumerate(program.nodes):
        for buffer in reads_of(node):
            readers.setdefault(buffer, []).append(number)
            if buffer in maker:
                found[maker[buffer], number] = None
        maker.update(dict.fromkeys(writes_of(node), number))
    for output, given in (program.offered | program.donated).items():
        writer = maker[program.outputs[output]]
        for reader in readers.get(program.inputs[given], ()):
            if reader < writer:
                found[reader, writer] = None
    return list(found)


def nbytes_of(buffer: Buffer) -> int:
    """Bytes of a value, which are known in a program."""
    nbytes = buffer.aval.nbytes
    assert isinstance(nbytes, int), f"the size of {buffer.name} is not known"
    return nbytes


class _Finder:
    def __init__(self, program: Program, parts: Mapping[Node, Part]) -> None:
        self.parts = parts
        self.nodes = program.nodes
        self.number = {node: number for number, node in enumerate(program.nodes)}
        self.producer: dict[Buffer, int] = {}
        self.readers: dict[Buffer, list[int]] = {}
        for number, node in enumerate(program.nodes):
            for buffer in dict.fromkeys(reads_of(node)):
                self.readers.setdefault(buffer, []).append(number)
            for buffer in writes_of(node):
                self.producer[buffer] = number
        self.after = [0] * len(self.nodes)
        for early, late in sorted(edges(program), reverse=True):
            self.after[early] |= self.after[late] | 1 << late
        self.taken: set[int] = set()
        self._known_axes: dict[tuple[Buffer, int, Dims], tuple[int, ...] | None] = {}

    def between(self, members: Iterable[int]) -> list[int]:
        """The other nodes that run after one member and before another."""
        chosen = sum(1 << member for member in members)
        later = 0
        for member in members:
            later |= self.after[member]
        later &= ~chosen
        return [n for n in _bits(later) if self.after[n] & chosen]

    # --- a set of kernels ---------------------------------------------------------------------

    def around(self, value: Buffer) -> Slabs | None:
        """The kernels that run together around a value; None where there are none."""
        members = self._core(value)
        if members is None:
            return None
        members = self._closed(members)
        if members is None:
            return None
        least = nbytes_of(value) // COMPARABLE
        is_growing = True
        while is_growing:
            is_growing = False
            for candidate in self._neighbours(members, least):
                grown = self._with(members, candidate)
                grown = None if grown is None else self._closed(grown)
                if grown is not None:
                    members, is_growing = grown, True
                    break
        return self._slabs(members)

    def _part(self, number: int) -> Part | None:
        return None if number in self.taken else self.parts.get(self.nodes[number])

    def _core(self, value: Buffer) -> dict[int, Dims] | None:
        """The kernel that computes a value and all that read it, with the dims that they share."""
        numbers = [self.producer[value], *self.readers.get(value, ())]
        found = [self._part(number) for number in numbers]
        if len(found) < 2 or any(part is None for part in found):
            return None
        maker, *users = (part for part in found if part is not None)
        places = maker.stores.get(value, [])
        if len(places) != 1:
            return None
        common: list[tuple[bool, list[Var]]] = []
        for axis, at in enumerate(places[0]):
            if not isinstance(at, Var) or at not in maker.nest.vars:
                continue
            along = [_at(user, user.loads.get(value, []), axis) for user in users]
            vars = [var for var in along if var is not None]
            if len(vars) == len(users):
                is_kept = all(v in u.nest.vars for v, u in zip(vars, users, strict=True))
                if is_kept or any(v in u.nest.vars for v, u in zip(vars, users, strict=True)):
                    common.append((is_kept, [at, *vars]))
        shared = [vars for is_kept, vars in common if is_kept]
        summed = [vars for is_kept, vars in common if not is_kept]
        dims = [*shared, *summed[:1]]
        if not dims:
            return None
        members: dict[int, Dims] = {}
        for position, number in enumerate(numbers):
            members[number] = tuple(vars[position] for vars in dims)
        if not all(self._is_valid(members, number) for number in members):
            return None
        return members

    def _closed(self, members: dict[int, Dims]) -> dict[int, Dims] | None:
        """The members with all that runs between them; None where some of that can't join."""
        while between := self.between(members):
            grown = members
            for number in between:
                grown = self._with(grown, number) or grown
            if len(grown) == len(members):
                return None
            members = grown
        return members

    def _neighbours(self, members: Mapping[int, Dims], least: int) -> Iterator[int]:
        """Kernels that share a value of some size with members, and are none."""
        seen = set(members)
        for member in sorted(members):
            node = self.nodes[member]
            for buffer in (*writes_of(node), *reads_of(node)):
                if nbytes_of(buffer) < least or buffer not in self.producer:
                    continue
                for number in (self.producer[buffer], *self.readers.get(buffer, ())):
                    if number not in seen:
                        seen.add(number)
                        yield number

    def _with(self, members: dict[int, Dims], number: int) -> dict[int, Dims] | None:
        """The members and one more; None where it does not move along the dims as they do."""
        part = self._part(number)
        if part is None:
            return None
        dims = self._dims(members, part, number)
        if dims is None:
            return None
        grown = dict(sorted({**members, number: dims}.items()))
        around = [n for n in grown if n == number or self._are_linked(n, number)]
        return grown if all(self._is_valid(grown, n) for n in around) else None

    def _are_linked(self, one: int, other: int) -> bool:
        pairs = ((one, other), (other, one))
        return any(
            not set(writes_of(self.nodes[a])).isdisjoint(reads_of(self.nodes[b])) for a, b in pairs
        )

    def _dims(self, members: Mapping[int, Dims], part: Part, number: int) -> Dims | None:
        """The variables of a kernel along the dims, by what it shares with members."""
        found: dict[int, Var] = {}
        for buffer in (*part.stores, *part.loads):
            maker = self.producer.get(buffer)
            others = self.readers.get(buffer, []) if maker == number else [maker]
            for other in others:
                if other is None or other not in members:
                    continue
                axes = self._axes(buffer, members[other], other)
                if axes is None:
                    return None
                places = part.stores[buffer] if maker == number else part.loads[buffer]
                for dim, axis in enumerate(axes):
                    var = _at(part, places, axis)
                    if var is None or found.setdefault(dim, var) is not var:
                        return None
        count = len(next(iter(members.values())))
        return tuple(found[dim] for dim in range(count)) if len(found) == count else None

    def _axes(self, buffer: Buffer, dims: Dims, number: int) -> tuple[int, ...] | None:
        """The axes of a value along which a member moves with its dims."""
        key = buffer, number, dims
        if key not in self._known_axes:
            self._known_axes[key] = self._find_axes(buffer, dims, number)
        return self._known_axes[key]

    def _find_axes(self, buffer: Buffer, dims: Dims, number: int) -> tuple[int, ...] | None:
        part = self._part(number)
        assert part is not None
        places = [*part.stores.get(buffer, []), *part.loads.get(buffer, [])]
        found: list[int] = []
        for var in dims:
            axes = [
                axis
                for axis in range(buffer.aval.ndim)
                if places and all(_is_along(place, axis, var) for place in places)
            ]
            if len(axes) != 1:
                return None
            found.append(axes[0])
        return tuple(found)

    def _is_valid(self, members: Mapping[int, Dims], number: int) -> bool:
        """Whether a member computes by itself what its slab needs."""
        part, dims = self._part(number), members[number]
        assert part is not None
        if any(var not in part.nest.vars for var in dims[:-1]) or len(set(dims)) < len(dims):
            return False
        if not all(isinstance(var.extent, int) and var.extent > 0 for var in dims):
            return False
        if dims[-1] not in part.nest.vars:
            has_reader = any(
                reader in members for b in part.stores for reader in self.readers.get(b, ())
            )
            if has_reader or part.sums[:1] != dims[-1:]:
                return False
        for buffer in (*part.stores, *part.loads):
            maker = self.producer.get(buffer)
            is_linked = maker in members and maker != number
            if maker == number:
                is_linked = any(reader in members for reader in self.readers.get(buffer, ()))
            if not is_linked:
                continue
            mine = self._axes(buffer, dims, number)
            others = [n for n in (maker, *self.readers.get(buffer, ())) if n in members]
            for other in others:
                assert other is not None
                if mine is None or self._axes(buffer, members[other], other) != mine:
                    return False
        return True

    def _slabs(self, members: Mapping[int, Dims]) -> Slabs:
        parts: dict[Part, Dims] = {}
        for number in sorted(members):
            part = self._part(number)
            assert part is not None
            parts[part] = members[number]
        inner: list[Buffer] = []
        handed: dict[Buffer, tuple[int, ...]] = {}
        for number in sorted(members):
            for buffer in dict.fromkeys(writes_of(self.nodes[number])):
                readers = self.readers.get(buffer, [])
                if not any(reader in members for reader in readers):
                    continue
                axes = self._axes(buffer, members[number], number)
                assert axes is not None
                handed[buffer] = axes
                if buffer.role == "temporary" and all(reader in members for reader in readers):
                    inner.append(buffer)
        return Slabs(parts, inner, handed)


def _at(part: Part, places: Iterable[Place | None], axis: int) -> Var | None:
    """The variable of a part at an axis of a value, the same at all its accesses.

    It is one of its points, or one along which it can go on with sums.
    """
    found: set[Var] = set()
    for place in places:
        index = None if place is None else place[axis]
        if not isinstance(index, Var) or isinstance(index, Expr):
            return None
        found.add(index)
    if len(found) != 1:
        return None
    (var,) = found
    return var if var in part.nest.vars or var in part.sums else None


def _is_along(place: Place | None, axis: int, var: Var) -> bool:
    return place is not None and place[axis] is var


def _bits(number: int) -> list[int]:
    """The positions of the bits of a number."""
    found: list[int] = []
    while number:
        low = number & -number
        found.append(low.bit_length() - 1)
        number ^= low
    return found
