"""Row-major positions: from indices to the offset in an array's storage, and back."""

from __future__ import annotations

from collections.abc import Sequence

from diffc.ir.index.divide import divide
from diffc.ir.index.expr import Dim


def size(shape: Sequence[Dim]) -> Dim:
    """Returns the number of elements.

    >>> size((2, 3, 4))
    24
    """
    total: Dim = 1
    for extent in shape:
        total = total * extent
    return total


def strides(shape: Sequence[Dim]) -> tuple[Dim, ...]:
    """Returns the row-major strides, in elements.

    >>> strides((2, 3, 4))
    (12, 4, 1)
    """
    steps: list[Dim] = []
    step: Dim = 1
    for extent in reversed(shape):
        steps.append(step)
        step = step * extent
    return tuple(reversed(steps))


def ravel(indices: Sequence[Dim], shape: Sequence[Dim]) -> Dim:
    """Returns the row-major offset of an element; the index of an axis of length 1 counts as 0."""
    if len(indices) != len(shape):
        raise ValueError(f"{len(indices)} indices for the {len(shape)} axes of {tuple(shape)}")
    offset: Dim = 0
    for index, extent, step in zip(indices, shape, strides(shape), strict=True):
        if extent != 1:
            offset = offset + index * step
    return offset


def unravel(offset: Dim, shape: Sequence[Dim]) -> tuple[Dim, ...]:
    """Returns the indices of the element at a row-major offset, which must lie in the array.

    Raises:
        ValueError: an axis is a named dimension by which the offset cannot be divided.
    """
    if 0 in shape:  # no elements: any index is right
        return (0,) * len(shape)
    indices: list[Dim] = []
    for position in range(len(shape) - 1, -1, -1):
        extent = shape[position]
        if extent == 1:
            indices.append(0)
        elif all(outer == 1 for outer in shape[:position]):
            indices.append(offset)
            indices.extend([0] * position)
            break
        else:
            offset, index = divide(offset, extent)
            indices.append(index)
    return tuple(reversed(indices))
