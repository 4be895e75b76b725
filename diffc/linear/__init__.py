"""Linear systems: ``linear_solve`` and its methods; ``np.linalg`` on traced arrays."""

from diffc.linear.functions import triangular_solve
from diffc.linear.methods import bicgstab, cg, dense
from diffc.linear.solve import linear_solve

__all__ = ["bicgstab", "cg", "dense", "linear_solve", "triangular_solve"]
