"""Cutting a space into chunks, by its shape alone."""

from __future__ import annotations

from dataclasses import dataclass

from diffc.codegen.lower.elements import Indices
from diffc.codegen.lower.frame import Shape, points
from diffc.ir.index import TRUE, Dim, Guard, Var, lt

__all__ = ["Cut", "Piece", "cut"]


@dataclass(frozen=True, slots=True)
class Piece:
    """Chunks of one size, or all of them.

    Attributes:
        outer: The loop over the chunks.
        inner: The loop within one.
        extents: The extents within one.
        full: The indices of the space.
        partial: Where a chunk's partial result goes.
        guard: Which points of the two loops there are.
    """

    outer: Indices
    inner: Indices
    extents: Shape
    full: Indices
    partial: Indices
    guard: Guard = TRUE


@dataclass(frozen=True, slots=True)
class Cut:
    """How a space is cut: one axis into steps, those before it into single points.

    Attributes:
        shape: Of the space.
        axis: The axis that is cut.
        step: Its points in a chunk; the last chunk may have fewer.
    """

    shape: Shape
    axis: int
    step: int

    @property
    def chunks(self) -> Shape:
        """The shape of the chunks' partial results."""
        return (*self.shape[: self.axis], -(-self.shape[self.axis] // self.step))

    def pieces(self) -> list[Piece]:
        """The chunks of full size, then the rest."""
        count, rest = divmod(self.shape[self.axis], self.step)
        made = ((self.step, count, 0), (rest, 1, count))
        return [self._piece(*each) for each in made if each[0] and each[1]]

    def whole(self) -> Piece:
        """All chunks as one piece, with a guard where the last one is short."""
        length, count = self.shape[self.axis], self.chunks[-1]
        made = self._piece(self.step, count, 0, "n")
        if count * self.step == length:
            return made
        guard = lt(made.full[self.axis], length)
        return Piece(made.outer, made.inner, made.extents, made.full, made.partial, guard)

    def _piece(self, size: int, number: int, at: int, name: str = "r") -> Piece:
        """``number`` chunks of ``size`` from chunk ``at`` on."""
        shape, axis = self.shape, self.axis
        lead, tail = points("i", shape[:axis]), points(name, shape)[axis + 1 :]
        chunk: Dim = Var("c", number) if number > 1 else 0
        within: Dim = Var(f"{name}{axis}", size) if size > 1 else 0
        return Piece(
            (*lead, chunk),
            (within, *tail),
            (size, *shape[axis + 1 :]),
            (*lead, (chunk + at) * self.step + within, *tail),
            (*lead, chunk + at),
        )


def cut(shape: Shape, size: int, aligned: int = 1) -> Cut:
    """Chunks of about `size` points.

    The last axes that fit stay whole, the one before is cut, those further out are chunks each.

    Args:
        shape: Of the space; no axis is empty.
        size: The most points of a chunk.
        aligned: Chunks of the last axis alone are multiples of this.
    """
    axis, whole = len(shape) - 1, 1
    while axis > 0 and whole * shape[axis] <= size:
        whole *= shape[axis]
        axis -= 1
    length = shape[axis]
    count = -(-length // max(1, size // whole))
    step = -(-length // count)
    if whole == 1:
        step = -(-step // aligned) * aligned
    return Cut(shape, axis, step)
