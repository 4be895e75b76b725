"""``scan``: a loop of a known number of steps over leading axes, with carries."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from diffc import tree
from diffc.control.outside import run_outside
from diffc.control.region import (
    Carry,
    Function,
    flat,
    need_arguments,
    need_function,
    operand_of,
    region_of,
    results_of,
    settle,
    trace_region,
)
from diffc.errors import ShapeError, UsageError
from diffc.leaves import abstract_leaf
from diffc.trace import Abstract, Traced, Tracer, active, emit, line
from diffc.transforms.scan_rules import counted

if TYPE_CHECKING:
    from diffc.ir.index import Dim


def scan(
    function: Function,
    init: Any,
    xs: Any = None,
    length: int | None = None,
    reverse: bool = False,
) -> tuple[Any, Any]:
    """Runs ``carry, y = function(carry, x)`` over the leading axis of ``xs``, as one native loop.

    Args:
        function: takes and gives a carry of the same structure, shapes and dtypes. The carry is the
            loop's own: it may be written in place, and ``init`` stays as it is.
        init: the first carry.
        xs: a pytree of arrays with one common leading length, or None.
        length: number of steps, where ``xs`` doesn't tell.
        reverse: start from the last step; ``ys`` stay in the order of ``xs``.

    Returns:
        ``(carry, ys)``, each y stacked along a new leading axis.

    Raises:
        ShapeError: lengths differ, or the carry changes its shape or dtype.

    Example:
        >>> import numpy as np, diffc
        >>> diffc.scan(lambda total, x: (total + x, total), 0.0, np.arange(4.0))
        (array(6.), array([0., 0., 1., 3.]))
    """
    need_function(function, "the step of a scan")
    need_arguments(function, 2, "the step of a scan", "the carry and a slice of xs")
    leaves, carry_tree = flat(init, "init")
    slices, xs_tree = flat(xs, "xs")
    if not active():
        call = partial(scan, length=length, reverse=reverse)
        return run_outside(call, [function], init, xs)  # type: ignore[no-any-return]  # a pair
    carry = Carry(leaves, carry_tree)
    steps = length_of(slices, xs_tree.paths("xs"), length, "scan")
    rows = [abstract_leaf(x).aval for x in slices]
    ones = [Abstract(a.with_shape(a.shape[1:]), scalar=a.ndim == 1) for a in rows]

    def run_step(*given: Tracer) -> Any:
        state = carry_tree.build(given[: len(carry)])
        found = function(state, xs_tree.build(given[len(carry) :]))
        if not isinstance(found, tuple) or len(found) != 2:
            words = f"a {type(found).__name__}"
            if isinstance(found, Tracer):
                words = f"an array {found.aval}"
            elif isinstance(found, tuple):
                words += f" of length {len(found)}"
            raise UsageError(
                f"the step of a scan returns a pair (carry, y), found {words}",
                location=line(),
                hint="return carry, None where nothing is to be stacked",
            )
        return found

    def trace(given: list[Abstract]) -> Traced:
        paths = [*carry.paths, *xs_tree.paths("x")]
        return trace_region(function, run_step, [*given, *ones], paths)

    results, traced = emit_scan(
        "a scan", carry, trace, lambda out: out.children[0], slices, steps, reverse
    )
    count = len(carry)
    ys_tree = traced.out_tree.children[1]
    return carry_tree.build(results[:count]), ys_tree.build(results[count:])


def emit_scan(
    what: str,
    carry: Carry,
    trace: Callable[[list[Abstract]], Traced],
    part: Callable[[tree.TreeDef], tree.TreeDef],
    slices: Sequence[Any],
    steps: Dim,
    reverse: bool = False,
    count: Tracer | None = None,
) -> tuple[list[Tracer], Traced]:
    """Emits a scan; its results are the carries and the stacked ys. Arguments as ``settle``.

    ``count``: the number of steps, where it is traced.
    """
    traced, given, initial = settle(what, carry, trace, part)
    own = len(carry)
    wanted = [*(g.aval for g in given), *traced.graph.output_avals[own : traced.num_results]]
    hidden = [operand_of(captured) for captured in traced.captured]
    region = region_of(traced, wanted)
    if count is not None:
        hidden, region = [count, *hidden], counted(region, count.aval)
    results = emit(
        "scan",
        *hidden,
        *initial,
        *slices,
        regions=(region,),
        consts=len(hidden),
        carry=own,
        length=steps,
        reverse=bool(reverse),
    )
    weak = [g.weak for g in given] + [False] * (len(results) - own)
    return results_of(results, weak), traced


def length_of(slices: Sequence[Any], paths: Sequence[str], length: int | None, what: str) -> int:
    """The common number of steps."""
    order = "scan(step, init, xs)" if what == "scan" else None
    found = _length(length)
    for path, leaf in zip(paths, slices, strict=True):
        shape = abstract_leaf(leaf).aval.shape
        if not shape:
            raise ShapeError(
                f"{path} is a scalar; {what} runs over a leading axis",
                location=line(),
                hint=None if order is None else f"the order of arguments is {order}",
            )
        if found is None:
            found = int(shape[0])  # type: ignore[arg-type]  # traces have integer dimensions
        elif shape[0] != found:
            raise ShapeError(
                f"{what} runs {found} steps, but {path} has leading length {shape[0]}",
                location=line(),
            )
    if found is None:
        raise UsageError(
            f"{what} needs xs or a length", location=line(), hint=f"{order}, or length=10"
        )
    if found < 0:
        raise UsageError(f"{what} can't run {found} steps", location=line())
    return found


def _length(length: Any) -> int | None:
    """The length that is given: None, or an int that is known."""
    if length is None or type(length) is int:
        return length
    if isinstance(length, np.integer):
        return int(length)
    raise UsageError(
        f"length of scan is {length!r}; needs an int that is known while the function is traced",
        location=line(),
        hint="make it static (static_argnums), or use diffc.fori_loop, whose bounds may be traced",
    )
