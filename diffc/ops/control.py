"""Ops with regions: ``call`` and ``scan``. Their transforms are functions on graphs, elsewhere."""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING, Any

import numpy as np

from diffc.errors import ShapeError
from diffc.ir.aval import ANY, GROWING, Aval, aval
from diffc.ir.graph import Graph
from diffc.ops import stores
from diffc.ops.avals import is_less
from diffc.ops.declare import Regional, Waived, op

if TYPE_CHECKING:
    from diffc.ir.index import Dim

Array = np.ndarray[Any, Any]
#: What the numpy facet of a region op is: it asks for regions to be run and gets their results.
Steps = Generator[tuple[Graph, list[Array]], list[Array], list[Array]]

#: what region ops share
REGIONAL = Regional("transforms rewrite the region")
RUNS = Waived("the interpreter runs the region, also on arrays of symbols")


def need_region(regions: tuple[Graph, ...]) -> Graph:
    """The only region."""
    if len(regions) != 1:
        raise ShapeError(f"found {len(regions)} regions; needs one")
    return regions[0]


def need_inputs(
    region: Graph, found: tuple[Aval, ...], needed: tuple[Aval, ...] | None = None
) -> None:
    """Raises unless operands are what a region takes (or ``needed``)."""
    needed = region.input_avals if needed is None else needed
    if found == needed:
        return
    if len(found) != len(needed):
        raise ShapeError(f"found {len(found)} operands; region @{region.name} takes {len(needed)}")
    for position, (given, taken) in enumerate(zip(found, needed, strict=True)):
        if given is not taken:
            raise ShapeError(
                f"operand {position} gives {given}; input {position} of region @{region.name} "
                f"is {taken}"
            )


def _call_aval(*avals: Aval, regions: tuple[Graph, ...]) -> tuple[Aval, ...]:
    callee = need_region(regions)
    need_inputs(callee, avals)
    return callee.output_avals


def _call(*arrays: Array, regions: tuple[Graph, ...]) -> Steps:
    return (yield regions[0], list(arrays))


call = op(
    "call",
    doc="The outputs of a graph on the operands.",
    aval=_call_aval,
    numpy=_call,
    sympy=RUNS,
    derivative=REGIONAL,
    body=REGIONAL,
    results=None,
    dtypes=ANY,
)


def _scan_aval(
    *avals: Aval,
    consts: int,
    carry: int,
    length: Dim,
    reverse: bool,
    regions: tuple[Graph, ...],
) -> tuple[Aval, ...]:
    body = need_region(regions)
    first = consts + carry
    if not 0 <= consts <= first <= len(avals):
        raise ShapeError(
            f"found {len(avals)} operands; consts {consts} and carry {carry} need at least {first}"
        )
    if is_less(length, 0):
        raise ShapeError(f"length {length} is negative")
    if length is GROWING:
        _need_steps(avals, consts)
    slices = []
    for position, xs in enumerate(avals[first:], first):
        if not xs.shape or xs.shape[0] != length:
            raise ShapeError(f"operand {position} is {xs}; needs length {length} on axis 0")
        slices.append(xs.with_shape(xs.shape[1:]))
    need_inputs(body, (*avals[:first], *slices))
    results = body.output_avals
    if len(results) < carry:
        raise ShapeError(f"region @{body.name} gives {len(results)} results; carry is {carry}")
    for k in range(carry):
        if results[k] is not avals[consts + k]:
            raise ShapeError(
                f"operand {consts + k} is carried as {avals[consts + k]}, but region @{body.name} "
                f"gives {results[k]}; needs one aval"
            )
    return (*results[:carry], *(y.with_shape((length, *y.shape)) for y in results[carry:]))


def _need_steps(avals: tuple[Aval, ...], consts: int) -> None:
    """Raises unless the first constant says how many steps there are."""
    if consts < 1:
        raise ShapeError("found no constants; the first one says how many steps there are")
    is_count = avals[0] is aval("i64")
    if not is_count and avals[0].shape[:1] != (GROWING,):
        raise ShapeError(f"operand 0 is {avals[0]}; needs the number of steps, i64[], or a store")


def _scan(
    *arrays: Array,
    consts: int,
    carry: int,
    length: Dim,
    reverse: bool,
    regions: tuple[Graph, ...],
) -> Steps:
    (body,) = regions
    first = consts + carry
    fixed, state, xs = list(arrays[:consts]), list(arrays[consts:first]), arrays[first:]
    slices, rows = body.input_avals[first:], body.output_avals[carry:]
    steps = range(_steps(length, arrays))
    stacks: list[list[Array]] = [[] for _ in rows]
    for step in reversed(steps) if reverse else steps:
        given = [stores.row_at(x, step, a) for x, a in zip(xs, slices, strict=True)]
        found = yield body, [*fixed, *state, *given]
        state = found[:carry]
        for stack, row in zip(stacks, found[carry:], strict=True):
            stack.append(row)
    # an array of symbols gives results of symbols
    objects = np.dtype(object)
    of_symbols = any(
        array.dtype == objects and not each.is_store
        for array, each in zip(arrays, body.input_avals, strict=True)
    )
    ordered = [stack[::-1] if reverse else stack for stack in stacks]
    ys = [
        stores.stacked(stack, row, of_symbols=of_symbols)
        for stack, row in zip(ordered, rows, strict=True)
    ]
    return [*state, *ys]


def _steps(length: Dim, arrays: tuple[Array, ...]) -> int:
    """How many steps there are: the first constant says so, or has as many rows."""
    if length is not GROWING:
        assert isinstance(length, int), "arrays have integer dimensions"
        return length
    return len(arrays[0]) if arrays[0].ndim else int(arrays[0])


scan = op(
    "scan",
    doc="A body with carries, run for each slice of axis 0, or `*` times: as operand 0 says.",
    aval=_scan_aval,
    numpy=_scan,
    sympy=RUNS,
    derivative=REGIONAL,
    body=REGIONAL,
    params=("consts", "carry", "length", "reverse"),
    results=None,
    dtypes=ANY,
)
