"""``linear_solve``: the solution of a linear system that is known by its products.

By value it is what its second region computes, by whatever method. Its derivatives come from the
first, the products, alone; the third solves the transposed system for them.
"""

from __future__ import annotations

from typing import Any

from diffc.errors import ShapeError
from diffc.ir.aval import FLOATS, Aval
from diffc.ir.graph import Graph
from diffc.ops.avals import need_dtype
from diffc.ops.control import REGIONAL, RUNS, Array, Steps, need_inputs
from diffc.ops.declare import op


def _linear_solve_aval(
    *avals: Aval, products: int, forward: int, backward: int, regions: tuple[Graph, ...]
) -> tuple[Aval, ...]:
    if len(regions) != 3:
        raise ShapeError(f"found {len(regions)} regions; needs products, solution and transposed")
    counts = (products, forward, backward)
    first = sum(counts)
    if min(counts) < 0 or first > len(avals):
        raise ShapeError(f"found {len(avals)} operands; products, forward, backward are {counts}")
    right = avals[first:]
    for position, value in enumerate(right, first):
        need_dtype(position, value, FLOATS)
    at = 0
    for region, count in zip(regions, counts, strict=True):
        need_inputs(region, (*avals[at : at + count], *right))
        if region.output_avals != right:
            raise ShapeError(f"region @{region.name} doesn't give what the right-hand side is")
        at += count
    return right


def _linear_solve(
    *arrays: Array, products: int, forward: int, backward: int, regions: tuple[Graph, ...]
) -> Steps:
    given = arrays[products : products + forward]
    return (yield regions[1], [*given, *arrays[products + forward + backward :]])


linear_solve: Any = op(
    "linear_solve",
    doc="What `products`, a linear graph, maps to the last operands; as the second region solves.",
    aval=_linear_solve_aval,
    numpy=_linear_solve,
    sympy=RUNS,
    derivative=REGIONAL,
    body=REGIONAL,
    params=("products", "forward", "backward"),
    results=None,
    dtypes=FLOATS,
)
