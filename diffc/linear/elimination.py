"""Gaussian elimination and substitution on traced matrices: loops over columns, if not small.

Plain values: nothing here is meant to be differentiated, ``solve`` and ``functions`` say the
derivatives. A singular matrix gives inf or nan, as LAPACK leaves them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy

from diffc.control import fori_loop
from diffc.linear.unrolled import SMALL, Unrolled
from diffc.trace import emit
from diffc.trace.namespace import stand_in

np: Any = stand_in(numpy)


def column(a: Any, k: Any) -> Any:
    """Column ``k`` of a matrix, ``k`` within bounds."""
    (found,) = emit("dynamic_slice", a, 0, k, sizes=(a.shape[0], 1))
    return found[:, 0]


def row(a: Any, k: Any) -> Any:
    """Row ``k`` of a matrix, ``k`` within bounds."""
    (found,) = emit("dynamic_slice", a, k, 0, sizes=(1, a.shape[1]))
    return found[0]


def rows_at(a: Any, order: Any) -> Any:
    """The rows of a matrix in another order, all of it within bounds."""
    (found,) = emit("gather", a, order, axes=(0,), mode="clip")
    return found


def factor(a: Any) -> Unrolled | Looped:
    """``L U`` of a matrix with its rows in another order, the greatest pivots first."""
    return Unrolled(a) if 0 < a.shape[0] <= SMALL else Looped(*_loop(a))


@dataclass(frozen=True, slots=True)
class Looped:
    """``a[order] = L U``: L (below the diagonal, ones on it) and U in one matrix."""

    lu: Any
    order: Any

    def solve(self, b: Any) -> Any:
        """Solves ``a x = b``; `b` has a column for each system."""
        y = substitute(self.lu, rows_at(b, self.order), lower=True, unit=True)
        return substitute(self.lu, y, lower=False)

    def solve_transposed(self, b: Any) -> Any:
        """Solves ``a.T x = b``."""
        y = substitute(self.lu.T, b, lower=True)
        y = substitute(self.lu.T, y, lower=False, unit=True)
        return rows_at(y, np.argsort(self.order))

    def diagonal(self) -> Any:
        """The diagonal of U."""
        return np.diagonal(self.lu)

    def flips(self) -> Any:
        """A number that is odd as the order is: how many pairs are the wrong way round."""
        wrong = np.triu(self.order[:, None] > self.order[None, :], 1)
        return np.sum(wrong.astype(numpy.int64))


def _loop(a: Any) -> tuple[Any, Any]:
    """The factors, column by column (Doolittle, right-looking), and the order of the rows."""
    n = a.shape[0]
    places = np.arange(n)

    def step(k: Any, carry: tuple[Any, Any]) -> tuple[Any, Any]:
        a, order = carry
        sizes = np.where(places >= k, np.abs(column(a, k)), -1.0)
        pivot = np.argmax(sizes)
        swap = np.where(places == k, pivot, np.where(places == pivot, k, places))
        a = rows_at(a, swap)
        (order,) = emit("gather", order, swap, axes=(0,), mode="clip")
        top = row(a, k)
        below = places > k
        ratios = np.where(below, column(a, k) / column(top[None, :], k), 0.0)
        reduced = a - ratios[:, None] * np.where(places > k, top, 0.0)[None, :]
        is_ratio = below[:, None] & (places == k)[None, :]
        return np.where(is_ratio, ratios[:, None], reduced), order

    found: tuple[Any, Any] = fori_loop(0, n, step, (a, places))
    return found


def substitute(a: Any, b: Any, lower: bool, unit: bool = False) -> Any:
    """Solves ``a x = b`` for a triangular matrix, of which only its triangle is read.

    Args:
        a: a square matrix.
        b: a matrix, one column for each system.
        lower: whether ``a`` is lower triangular, else upper.
        unit: whether its diagonal is taken for ones.
    """
    n = a.shape[0]
    places = np.arange(n)

    def step(i: Any, b: Any) -> Any:
        k = i if lower else n - 1 - i
        own = column(a, k)
        x = row(b, k)
        if not unit:
            x = x / column(own[None, :], k)
        rest = places > k if lower else places < k
        reduced = b - np.where(rest, own, 0.0)[:, None] * x[None, :]
        return np.where((places == k)[:, None], x[None, :], reduced)

    return fori_loop(0, n, step, b)


def cholesky_factor(a: Any) -> Any:
    """The lower triangular L with ``L L.T = a`` (right-looking); reads the lower triangle."""
    n = a.shape[0]
    places = np.arange(n)

    def step(k: Any, a: Any) -> Any:
        own = column(a, k)
        own = np.where(places >= k, own / np.sqrt(column(own[None, :], k)), 0.0)
        outer = own[:, None] * own[None, :]
        reduced = np.where((places > k)[None, :], a - outer, a)
        return np.where((places == k)[None, :], own[:, None], reduced)

    return np.tril(fori_loop(0, n, step, a))
