"""What sorting a row needs: its items, the blocks that a network sorts, and room for both.

An item is a signed integer, or two (`components`), in whose order the row is sorted. Values are
items themselves. With positions, a key of up to 4 bytes and its position are one item of 8 bytes;
a longer key has its position beside it. So all items differ, and any way to sort is stable.
"""

from __future__ import annotations

from dataclasses import dataclass

from diffc.codegen.targets import ITEM_BYTES

__all__ = ["LEAST_BLOCK", "Items", "block_of", "padded", "workspace_bytes"]

#: blocks have at least as many items as the widest vector, and are powers of two.
LEAST_BLOCK = 16
MOST_BLOCK = 1024
#: cycles of an item in one stage of a network, and in one pass that merges sorted runs.
STAGE, MERGE = 0.3, 2.5
#: room behind each component for a vector that is read and not used.
SLACK = 64


@dataclass(frozen=True, slots=True)
class Items:
    """What the items of a row are: `dtype` is that of a component."""

    dtype: str
    components: int

    @classmethod
    def of(cls, dtype: str, positions: bool) -> Items:
        """The items for keys of a dtype."""
        is_long = ITEM_BYTES[dtype] == 8
        if not positions:
            return cls("i64" if is_long else "i32", 1)
        return cls("i64", 2 if is_long else 1)


def block_of(length: int) -> int:
    """How many items a network sorts at once; sorted blocks are merged."""
    best, block = (float("inf"), 0), LEAST_BLOCK
    while block <= MOST_BLOCK:
        stages, whole = block.bit_length() - 1, -(-length // block) * block
        merges = (whole // block - 1).bit_length()
        best = min(best, (whole * (STAGE * stages * (stages + 1) / 2 + MERGE * merges), block))
        block *= 2
    return best[1]


def padded(length: int) -> int:
    """The items of a row in whole blocks."""
    block = block_of(length)
    return -(-length // block) * block


def component_bytes(length: int, items: Items) -> int:
    """Bytes of one component of all items."""
    return padded(length) * ITEM_BYTES[items.dtype] + SLACK


def workspace_bytes(length: int, dtype: str, positions: bool) -> int:
    """Bytes that sorting a row takes: the items, twice where blocks are merged."""
    items = Items.of(dtype, positions)
    copies = 1 if padded(length) == block_of(length) else 2
    return copies * items.components * component_bytes(length, items)
