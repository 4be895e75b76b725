"""Linear systems: ``linear_solve`` and its methods; ``functions`` fills in NumPy's names."""

from diffc.linear.methods import bicgstab, cg, dense
from diffc.linear.solve import linear_solve

__all__ = ["bicgstab", "cg", "dense", "linear_solve"]
