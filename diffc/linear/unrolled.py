"""Gaussian elimination of small matrices, number by number.

Every element is a value of its own, so that a stack of matrices is one kernel without loops: its
lanes are matrices, its registers elements, and rows change places by selection. The operations, and
so the bits, are those of ``elimination``. It takes about ``n**3`` equations.
"""

from __future__ import annotations

from typing import Any

import numpy

from diffc.trace.namespace import stand_in

np: Any = stand_in(numpy)

SMALL = 6
"""The largest matrices that are worth so many equations."""


class Unrolled:
    """``L U`` of a small matrix with its rows in another order, the greatest pivots first.

    Attributes:
        elements: L (below the diagonal, ones on it) and U, row by row.
        pivots: for each column but the last, the row that changed places with that of the diagonal.
    """

    def __init__(self, a: Any) -> None:
        n = a.shape[0]
        rows = [[a[i, j] for j in range(n)] for i in range(n)]
        self.elements = rows
        self.pivots = []
        for k in range(n):
            if k < n - 1:
                pivot = _greatest([row[k] for row in rows], k)
                self.pivots.append(pivot)
                _swap(rows, k, pivot)
            for row in rows[k + 1 :]:
                row[k] = row[k] / rows[k][k]
                for j in range(k + 1, n):
                    row[j] = row[j] - row[k] * rows[k][j]

    def solve(self, b: Any) -> Any:
        """Solves ``a x = b``; `b` has a column for each system."""
        n = len(self.elements)
        x = [[b[i]] for i in range(n)]
        for k, pivot in enumerate(self.pivots):
            _swap(x, k, pivot)
        rows = [row for (row,) in x]
        for k in range(n):
            for i in range(k + 1, n):
                rows[i] = rows[i] - self.elements[i][k] * rows[k]
        for k in reversed(range(n)):
            rows[k] = rows[k] / self.elements[k][k]
            for i in range(k):
                rows[i] = rows[i] - self.elements[i][k] * rows[k]
        return np.stack(rows)

    def solve_transposed(self, b: Any) -> Any:
        """Solves ``a.T x = b``."""
        n = len(self.elements)
        rows = [b[i] for i in range(n)]
        for k in range(n):
            rows[k] = rows[k] / self.elements[k][k]
            for i in range(k + 1, n):
                rows[i] = rows[i] - self.elements[k][i] * rows[k]
        for k in reversed(range(n)):
            for i in range(k):
                rows[i] = rows[i] - self.elements[k][i] * rows[k]
        x = [[row] for row in rows]
        for k, pivot in reversed([*enumerate(self.pivots)]):
            _swap(x, k, pivot)
        return np.stack([row for (row,) in x])

    def diagonal(self) -> Any:
        """The diagonal of U."""
        return np.stack([row[k] for k, row in enumerate(self.elements)])

    def flips(self) -> Any:
        """How many rows changed places."""
        return sum((pivot != k).astype(numpy.int64) for k, pivot in enumerate(self.pivots))


def _greatest(column: list[Any], first: int) -> Any:
    """The row of the greatest element from a row on; of equal ones the first."""
    best, at = np.abs(column[first]), numpy.int32(first)
    for i in range(first + 1, len(column)):
        size = np.abs(column[i])
        is_greater = size > best
        best = np.where(is_greater, size, best)
        at = np.where(is_greater, numpy.int32(i), at)
    return at


def _swap(rows: list[list[Any]], k: int, pivot: Any) -> None:
    """Exchanges row `k` with the row below it that `pivot` says, or with itself."""
    for i in range(k + 1, len(rows)):
        is_pivot = pivot == numpy.int32(i)
        pairs = [*zip(rows[k], rows[i], strict=True)]
        rows[k][:] = [np.where(is_pivot, lower, upper) for upper, lower in pairs]
        rows[i][:] = [np.where(is_pivot, upper, lower) for upper, lower in pairs]
