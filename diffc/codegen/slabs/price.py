"""What running together gains, how many rows a slab has, and how its values lie.

The figures are data, of the same kind as those in ``tile``: they rank choices. No bit of a result
depends on them: sums over the rows go on in the order of the rows, whatever a slab has of these.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from math import prod
from operator import ne

from diffc.codegen.loops.nodes import Order, Par, Stmt
from diffc.codegen.slabs.build import Joiner, Places
from diffc.codegen.slabs.find import Slabs, nbytes_of
from diffc.codegen.slabs.part import Part
from diffc.codegen.targets import ITEM_BYTES, Target
from diffc.codegen.tile.contract import contract_price

__all__ = ["alone", "can_share", "least_bytes", "rows_of", "together", "traffic"]

#: Rows of a slab: more of them waste work where a mask cuts rows short.
MOST_ROWS = 64
#: Rows in a slab that are worth the work around them.
LEAST_ROWS = 16
#: More places are not tried in all ways.
MOST_PLACES = 4
#: Bytes that go through in a cycle: between caches, and beyond the last one.
NEAR_BYTES = 16.0
FAR_BYTES = 4.0
LAST_CACHE = 16 * 1024 * 1024
#: The part of the second cache that what is handed on may take; the rest is for what streams by.
SHARE = 2
#: Units of work that threads can share, at least, where sums over the rows keep these in order: in
#: slabs one thread does what two or three do otherwise.
FEW_UNITS = 4


def least_bytes(target: Target) -> int:
    """Bytes from which a value is worth keeping out of memory: less stays in the second cache."""
    return target.l2_bytes // 2


def rows_of(slabs: Slabs, found: Places, target: Target) -> int:
    """Rows of a slab, an even share if there is: what is handed on stays in the second cache."""
    extent = slabs.extents[-1]
    row = sum(prod(shape) * ITEM_BYTES[dtype] for dtype, shape in found.forms)
    lanes = max(1, target.vector_bytes // 4)
    fitting = round(target.l2_bytes / SHARE / max(1, row) / lanes) * lanes
    most = min(MOST_ROWS, max(LEAST_ROWS, fitting))
    if extent <= most + most // 2:
        return extent
    for rows in range(most, most * 3 // 4, -1):
        if extent % rows == 0:
            return rows
    return most


def can_share(slabs: Slabs, rows: int) -> bool:
    """Whether threads find enough to share: sums over the rows keep these in order."""
    *around, extent = slabs.extents
    has_sums = any(slabs.sums_rows(part) for part in slabs.parts)
    units = prod(around) if rows == extent or has_sums else prod(around) * (extent // rows)
    return units >= FEW_UNITS


def alone(slabs: Slabs, target: Target) -> tuple[float, dict[Part, Order]]:
    """What the contractions cost by themselves, in cycles, and in which order each sums.

    They sum in the same order when they run together, so the bits are the same.
    """
    prices = {
        part: contract_price(part.nest, target) for part in slabs.parts if part.contract is not None
    }
    cycles = sum(cycles for cycles, _ in prices.values())
    return cycles, {part: order for part, (_, order) in prices.items()}


def together(
    slabs: Slabs, found: Places, rows: int, orders: Mapping[Part, Order], target: Target
) -> tuple[float, Mapping[int, bool]]:
    """What the contractions cost in slabs, and which places have the rows along their last axis.

    A few rows can cost more than all rows at once: they are packed more often. How places lie is
    chosen so that contractions read and write them best; of equal ways as the values themselves do.
    """
    *around, extent = slabs.extents
    times = prod(around) * extent / rows
    touched = {part: _places_of(part, found) for part in orders}
    known: dict[tuple[Part, tuple[bool, ...]], float] = {}

    def cycles(part: Part, way: Sequence[bool]) -> float:
        key = part, tuple(way[place] for place in touched[part])
        if key not in known:
            joiner = Joiner(slabs, found, rows, dict(enumerate(way)), orders)
            known[key] = sum(_cycles(stmt, target) for stmt in joiner.part(part, 0, rows))
        return known[key]

    best: tuple[float, tuple[bool, ...]] | None = None
    lying = _lying(slabs, found)
    for way in sorted(_ways(found), key=lambda way: sum(map(ne, way, lying))):
        total = sum(cycles(part, way) for part in orders)
        if best is None or total < best[0]:
            best = total, way
    assert best is not None
    return best[0] * times, dict(enumerate(best[1]))


def traffic(slabs: Slabs) -> float:
    """Cycles of what does not go through memory: written once, read by each part that does."""
    total = 0.0
    for buffer in slabs.inner:
        nbytes = nbytes_of(buffer)
        readers = sum(buffer in part.node.reads for part in slabs.parts)
        total += nbytes * (1 + readers) / (FAR_BYTES if nbytes > LAST_CACHE else NEAR_BYTES)
    return total


def _places_of(part: Part, found: Places) -> tuple[int, ...]:
    """The places that a part reads or writes."""
    touched = {found.of[b] for b in (*part.node.reads, *part.node.writes) if b in found.of}
    return tuple(sorted(touched))


def _lying(slabs: Slabs, found: Places) -> list[bool]:
    """Which places hold values whose last axis is that of the rows."""
    lying = [False] * len(found.forms)
    for buffer, place in found.of.items():
        lying[place] = slabs.handed[buffer][-1] == len(buffer.aval.shape) - 1
    return lying


def _ways(found: Places) -> list[tuple[bool, ...]]:
    """How places can lie: one number for each row can lie in one way only."""
    wide = [prod(shape) > 1 for _, shape in found.forms]
    if sum(wide) > MOST_PLACES:
        return [(False,) * len(wide), tuple(wide)]
    return list(product(*((False, True) if is_wide else (False,) for is_wide in wide)))


def _cycles(stmt: Stmt, target: Target) -> float:
    assert isinstance(stmt, Par)
    return contract_price(stmt, target)[0]
