"""Loops to loops: how each nest runs on a target.

`tile(kernel, target)` changes nothing of what is computed, and not one bit of the results: it
collapses, reorders and vectorizes loops whose points are independent, and marks those that threads
share. Orders of summation are given, not chosen here.
"""

from diffc.codegen.loops.nodes import Kernel
from diffc.codegen.targets import Target
from diffc.codegen.tile.ahead import look_ahead
from diffc.codegen.tile.bands import within_bands
from diffc.codegen.tile.nest import tile as arrange
from diffc.codegen.tile.shares import share

__all__ = ["tile"]


def tile(kernel: Kernel, target: Target) -> Kernel:
    """A kernel that computes the same, arranged for a target; threads share what is much work."""
    arranged = within_bands(arrange(kernel, target), target)
    return share(look_ahead(arranged, target), target)
