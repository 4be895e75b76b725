"""``map``: a function on one slice after another."""

from __future__ import annotations

from typing import Any

from diffc.control.outside import run_outside
from diffc.control.region import (
    Carry,
    Function,
    flat,
    need_arguments,
    need_function,
    trace_region,
)
from diffc.control.scan import emit_scan, length_of
from diffc.leaves import abstract_leaf
from diffc.trace import Abstract, Traced, Tracer, active


def map(function: Function, xs: Any) -> Any:
    """Runs ``function`` on each slice of ``xs`` along the leading axis, one after another.

    It gives what ``diffc.vmap(function)(xs)`` gives, with the memory of one slice at a time.

    Args:
        function: takes a pytree like ``xs`` without the leading axis, gives any pytree.
        xs: a pytree of arrays with one common leading length.

    Returns:
        The results, stacked along a new leading axis.

    Raises:
        ShapeError: lengths differ, or a leaf has no axis.
        UsageError: the function writes to an array from outside.

    Example:
        >>> import numpy as np, diffc
        >>> diffc.map(lambda x: x @ x, np.arange(6.0).reshape(3, 2))
        array([ 1., 13., 41.])
    """
    need_function(function, "the function of map")
    need_arguments(function, 1, "the function of map", "one slice of xs, a pytree like xs")
    slices, xs_tree = flat(xs, "xs")
    if not active():
        return run_outside(map, [function], xs)
    steps = length_of(slices, xs_tree.paths("xs"), None, "map")
    rows = [abstract_leaf(x).aval for x in slices]
    ones = [Abstract(a.with_shape(a.shape[1:]), scalar=a.ndim == 1) for a in rows]
    empty = flat((), "carry")[1]

    def run(*given: Tracer) -> Any:
        return (), function(xs_tree.build(given))

    def trace(given: list[Abstract]) -> Traced:
        return trace_region(function, run, ones, xs_tree.paths("x"))

    results, traced = emit_scan(
        "map", Carry([], empty), trace, lambda out: out.children[0], slices, steps
    )
    return traced.out_tree.children[1].build(results)
