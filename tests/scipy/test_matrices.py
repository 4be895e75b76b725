"""Sparse derivatives as SciPy's matrices."""

import numpy as np
import pytest

import diffc

scipy_sparse = pytest.importorskip("scipy.sparse")


def test_matrices_are_scipys():
    from diffc.scipy import sparse_hessian, sparse_jacobian

    x = np.arange(1.0, 8.0)
    f = lambda x: x[1:] * x[:-1]  # noqa: E731
    found = sparse_jacobian(f)(x)
    assert scipy_sparse.issparse(found) and found.format == "csr"
    np.testing.assert_array_equal(found.toarray(), diffc.jacobian(f)(x))
    curved = sparse_hessian(lambda x: np.sum(f(x) ** 2))(x)
    np.testing.assert_allclose(curved.toarray(), diffc.hessian(lambda x: np.sum(f(x) ** 2))(x))
    assert (curved @ x).shape == (7,)
