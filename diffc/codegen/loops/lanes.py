"""Where the lanes of one vector lie, as far as that is known when compiling."""

from __future__ import annotations

import numpy as np

from diffc.ir.index import Dim, Expr, Var, evaluate, free

__all__ = ["lane_offsets"]


def lane_offsets(index: Dim, var: Var, lanes: int) -> tuple[Dim, tuple[int, ...]] | None:
    """What all lanes have in common of an index, and how far each lies above it.

    Args:
        index: The index.
        var: The vector variable; its values are 0, 1, ... in the lanes.
        lanes: Number of lanes.

    Returns:
        The least index, without ``var``, and the distance of each lane; None where distances
        depend on more than the lane. So ``48*i + (v + 16)//3`` is ``48*i + 5`` and
        0, 0, 1, 1, 1, 2, ...
    """
    if not isinstance(index, Expr):
        return index, (0,) * lanes
    common: Dim = index.const
    moving = np.zeros(lanes, np.int64)
    for atom, coef in index.terms:
        atoms = free(atom)
        if var not in atoms:
            common = common + coef * atom
        elif len(atoms) > 1:
            return None
        else:
            moving += coef * evaluate(atom, {var: np.arange(lanes)})
    least = int(moving.min())
    return common + least, tuple((moving - least).tolist())
