"""Loops to loops: how each nest runs on a target.

`tile(kernel, target)` changes nothing of what is computed, and not one bit of the results: it
collapses, reorders and vectorizes loops whose points are independent. Orders of summation are
given, not chosen here.
"""

from diffc.codegen.tile.nest import tile

__all__ = ["tile"]
