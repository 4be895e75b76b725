"""Sparse derivatives as SciPy's matrices."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from scipy.sparse import csr_array

from diffc import api


def sparse_jacobian(
    function: Callable[..., Any], argnum: int = 0, mode: str = "cheaper"
) -> Callable[..., csr_array]:
    """As :func:`diffc.sparse_jacobian`; the function gives a ``scipy.sparse.csr_array``.

    Example:
        >>> import numpy as np
        >>> from diffc.scipy import sparse_jacobian
        >>> sparse_jacobian(lambda x: x[1:] - x[:-1])(np.zeros(3)).toarray()
        array([[-1.,  1.,  0.],
               [ 0., -1.,  1.]])
    """
    return _in_rows(api.sparse_jacobian(function, argnum, mode))


def sparse_hessian(function: Callable[..., Any], argnum: int = 0) -> Callable[..., csr_array]:
    """As :func:`diffc.sparse_hessian`; the function gives a ``scipy.sparse.csr_array``."""
    return _in_rows(api.sparse_hessian(function, argnum))


def _in_rows(entries: Callable[..., Any]) -> Callable[..., csr_array]:
    def matrix(*args: Any) -> csr_array:
        found = entries(*args)
        return csr_array((found.data, (found.rows, found.columns)), shape=found.shape)

    return matrix
