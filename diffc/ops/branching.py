"""Ops with regions that data steer: ``cond`` and ``while``.

Their transforms are functions on graphs, elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from diffc.errors import ShapeError
from diffc.ir.aval import ANY, GROWING, Aval, aval
from diffc.ir.graph import Graph
from diffc.ops import stores
from diffc.ops.avals import need_dtype, need_scalar
from diffc.ops.control import Steps
from diffc.ops.declare import Regional, Waived, op

Array = np.ndarray[Any, Any]

_REGIONAL = Regional("transforms rewrite the regions")
_RUNS = Waived("the interpreter runs the regions, also on arrays of symbols")


def _need_inputs(region: Graph, avals: tuple[Aval, ...], positions: Iterable[int]) -> None:
    """Raises unless the region takes the operands at these positions."""
    given, needed = list(positions), region.input_avals
    if len(given) != len(needed):
        raise ShapeError(
            f"region @{region.name} takes {len(needed)} inputs, {len(given)} operands are for it"
        )
    for k, (position, taken) in enumerate(zip(given, needed, strict=True)):
        if avals[position] is not taken:
            raise ShapeError(
                f"operand {position} is {avals[position]}; input {k} of region @{region.name} "
                f"is {taken}"
            )


#: what chooses a branch
_INDICES = frozenset({"bool", "i32"})


def _cond_aval(index: Aval, *avals: Aval, regions: tuple[Graph, ...]) -> tuple[Aval, ...]:
    if not regions:
        raise ShapeError("found no regions; needs one for each branch")
    need_dtype(0, index, _INDICES)
    need_scalar(0, index, "the index")
    first = regions[0].output_avals
    for region in regions:
        _need_inputs(region, (index, *avals), range(1, len(avals) + 1))
        found = region.output_avals
        if len(found) != len(first):
            raise ShapeError(
                f"region @{region.name} gives {len(found)} results; region @{regions[0].name} "
                f"gives {len(first)}"
            )
        for k, (given, needed) in enumerate(zip(found, first, strict=True)):
            if given is not needed:
                raise ShapeError(
                    f"result {k} of region @{region.name} is {given}; region @{regions[0].name} "
                    f"gives {needed}"
                )
    return first


def _cond(index: Array, *arrays: Array, regions: tuple[Graph, ...]) -> Steps:
    chosen = min(max(int(index), 0), len(regions) - 1)
    return (yield regions[chosen], list(arrays))


cond = op(
    "cond",
    doc="The outputs of the region that the first operand (false: 0, true: 1; clamped) names.",
    aval=_cond_aval,
    numpy=_cond,
    sympy=_RUNS,
    derivative=_REGIONAL,
    body=_REGIONAL,
    results=None,
    dtypes=ANY,
)


def _while_aval(
    *avals: Aval, tests: int, consts: int, slots: int | None, regions: tuple[Graph, ...]
) -> tuple[Aval, ...]:
    if len(regions) != 2:
        raise ShapeError(f"found {len(regions)} regions; needs two, a test and a body")
    test, body = regions
    first = tests + consts
    if not 0 <= tests <= first <= len(avals):
        raise ShapeError(
            f"found {len(avals)} operands; tests {tests} and consts {consts} need at least {first}"
        )
    if slots is not None and slots < LEAST_SLOTS:
        raise ShapeError(f"slots {slots}; needs at least {LEAST_SLOTS}")
    carried = range(first, len(avals))
    _need_inputs(test, avals, (*range(tests), *carried))
    if test.output_avals != (aval("bool"),):
        found = ", ".join(map(str, test.output_avals))
        raise ShapeError(f"region @{test.name} gives ({found}); a test gives one bool[]")
    _need_inputs(body, avals, range(tests, len(avals)))
    results = body.output_avals
    if len(results) < len(carried):
        raise ShapeError(
            f"region @{body.name} gives {len(results)} results; {len(carried)} are carried"
        )
    for position, result in zip(carried, results, strict=False):
        if result is not avals[position]:
            raise ShapeError(
                f"operand {position} is carried as {avals[position]}, but region @{body.name} "
                f"gives {result}; needs one aval"
            )
    rows = results[len(carried) :]
    if rows and slots is not None:
        raise ShapeError(f"region @{body.name} gives rows of stores; needs slots none")
    return (*results[: len(carried)], *(y.with_shape((GROWING, *y.shape)) for y in rows))


#: checkpoints that the reverse of a ``while`` keeps at least
LEAST_SLOTS = 2
_FEW_SLOTS, _MANY_SLOTS, _SLOT_BYTES = 16, 128, 1 << 20


def default_slots(carry: Iterable[Aval]) -> int:
    """How many checkpoints of these carries are kept: as many as fit in a megabyte, 16 to 128."""
    total = 0
    for each in carry:
        nbytes = each.nbytes
        total += nbytes if isinstance(nbytes, int) else 0
    return min(max(_SLOT_BYTES // max(total, 1), _FEW_SLOTS), _MANY_SLOTS)


def _while(
    *arrays: Array, tests: int, consts: int, slots: int | None, regions: tuple[Graph, ...]
) -> Steps:
    test, body = regions
    first = tests + consts
    count = len(arrays) - first
    state = list(arrays[first:])
    rows = body.output_avals[count:]
    stacks: list[list[Array]] = [[] for _ in rows]
    while True:
        (again,) = yield test, [*arrays[:tests], *state]
        if not again:
            break
        found = yield body, [*arrays[tests:first], *state]
        state = found[:count]
        for stack, row in zip(stacks, found[count:], strict=True):
            stack.append(row)
    return [*state, *(stores.stacked(s, a) for s, a in zip(stacks, rows, strict=True))]


while_ = op(
    "while",
    doc="A body run while a test holds; reversed, with `slots` checkpoints, or none and stores.",
    aval=_while_aval,
    numpy=_while,
    sympy=_RUNS,
    derivative=_REGIONAL,
    body=_REGIONAL,
    params=("tests", "consts", "slots"),
    results=None,
    dtypes=ANY,
)
