"""SciPy's types: needs ``pip install diffc[scipy]``."""

from diffc.scipy.matrices import sparse_hessian, sparse_jacobian

__all__ = ["sparse_hessian", "sparse_jacobian"]
