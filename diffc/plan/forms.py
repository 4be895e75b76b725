"""What kind of kernel an equation starts or joins, read from the bodies of the ops.

A *view* is an equation whose result is another look at one operand (reshape, transpose, broadcast,
slice, ...): it is never computed for its own sake, only when its result must lie in memory.
A *point* equation computes each element by itself. The other kinds bring their own loops.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Literal as Choice
from weakref import WeakKeyDictionary

from diffc.ir.graph import Eqn, Graph, Operand, Value
from diffc.ir.index import TRUE, Dim, Guard
from diffc.ops.declare import Fold, Generate, Map, Move, Op, Regional, Special

Kind = Choice["view", "source", "point", "fold", "contract", "solo", "region"]

#: what an element of a movement or source that is computed again costs
MOVE_PRICE = 0.5
#: elements of a constant that a kernel spells out
MAX_SPELLED = 16
#: reductions over rows go by blocks of about so many elements,
BLOCK = 32768
#: of at least and at most so many rows
LEAST_ROWS = 16
MOST_ROWS = 256
#: special bodies that compute each element by itself, from computed positions
POINTWISE_SPECIALS = frozenset({"gather", "dynamic_slice"})


def normal(indices: Iterable[Dim], shape: Iterable[Dim]) -> tuple[Dim, ...]:
    """The indices of an element, with 0 on axes of length 1: the same element has the same ones."""
    return tuple(0 if n == 1 else i for i, n in zip(indices, shape, strict=True))


def kind_of(eqn: Eqn) -> Kind:
    """The kind of an equation."""
    op: Op = eqn.op
    match op.body:
        case Regional():
            return "region"
        case Map():
            return "point"
        case Move():
            return "view" if len(eqn.operands) == 1 else "point"
        case Generate():
            return "point" if eqn.operands else "source"
        case Fold():
            return "fold"
        case Special(kind=special):
            if special in POINTWISE_SPECIALS:
                return "point"
            if special == "constant":
                return "source"
            return "contract" if special == "contract" else "solo"


def is_table(eqn: Eqn) -> bool:
    """Whether the equation is a constant too large to be spelled out in code."""
    is_constant = isinstance(eqn.op.body, Special) and eqn.op.body.kind == "constant"
    return is_constant and eqn.result.aval.size not in range(MAX_SPELLED + 1)


def is_indexed(eqn: Eqn) -> bool:
    """Whether the equation reads its operand at computed positions."""
    return isinstance(eqn.op.body, Special) and eqn.op.body.kind in POINTWISE_SPECIALS


#: whether a region may fail at run time; fifty layers run one region
_MAY_FAIL: WeakKeyDictionary[Graph, bool] = WeakKeyDictionary()


def may_fail(eqn: Eqn) -> bool:
    """Whether the equation, or a region of it, checks indices at run time or makes a store."""
    if eqn.params.get("mode") == "check" or any(x.aval.is_store for x in eqn.results):
        return True
    return any(map(_region_may_fail, eqn.regions))


def _region_may_fail(region: Graph) -> bool:
    found = _MAY_FAIL.get(region)
    if found is None:
        found = _MAY_FAIL[region] = any(map(may_fail, region.eqns))
    return found


def checks_reads(eqn: Eqn, operand: Operand) -> bool:
    """Whether the equation checks where it reads the operand.

    The bounds are those of memory, so that a view has to be stored first; not so a reshape, which
    is the same memory under another shape.
    """
    return is_indexed(eqn) and operand is eqn.operands[0] and eqn.params.get("mode") == "check"


def unshaped(value: Value) -> Value:
    """The value of which this one is a reshape, or the value itself."""
    while value.eqn is not None and value.eqn.op.name == "reshape":
        (operand,) = value.eqn.operands
        if not isinstance(operand, Value):
            break
        value = operand
    return value


def fold_axes(eqn: Eqn) -> tuple[int, ...]:
    """The axes that a reduction removes."""
    axes = eqn.params.get("axes")
    return (eqn.params["axis"],) if axes is None else tuple(axes)


def is_column_fold(eqn: Eqn) -> bool:
    """Whether the equation reduces the leading axes of its operand, and not all, to values.

    Axes of one element don't count, and positions are no values.
    """
    body, shape = eqn.op.body, eqn.operands[0].aval.shape
    if not isinstance(body, Fold) or body.monoid in ("argmax", "argmin") or 0 in shape:
        return False
    long = [axis for axis, dim in enumerate(shape) if dim != 1]
    axes = [axis for axis in fold_axes(eqn) if shape[axis] != 1]
    return 0 < len(axes) < len(long) and axes == long[: len(axes)]


def block_rows(columns: int) -> int:
    """How many rows make a block of a reduction over rows: a power of two, fewer of wide rows."""
    fitting = max(1, BLOCK // columns)
    return min(MOST_ROWS, max(LEAST_ROWS, 1 << (fitting.bit_length() - 1)))


def is_gathering(eqn: Eqn) -> bool:
    """Whether the equation's own loops ask for each element of its operand once."""
    return isinstance(eqn.op.body, Special) and eqn.op.body.kind == "overlap_add"


def reads_memory(eqn: Eqn, operand: Operand) -> bool:
    """Whether the loops read the operand from memory, so that even a literal lies there."""
    if isinstance(eqn.op.body, Special) and eqn.op.body.kind == "contract":
        return True
    return is_indexed(eqn) and operand is eqn.operands[0]


def price_of(eqn: Eqn) -> float:
    """What computing an element again costs, in bytes of memory traffic for four-byte elements.

    Infinite where it needs more than the same elements of the operands.
    """
    body = eqn.op.body
    if isinstance(body, Map):
        return body.price
    return MOVE_PRICE if isinstance(body, (Move, Generate)) else math.inf


def access(eqn: Eqn, indices: tuple[Dim, ...]) -> list[tuple[int, tuple[Dim, ...], Guard]]:
    """Which operand elements element ``indices`` of the result of a view or point equation reads.

    Computed positions (gather) are unknown here: such operands are left out.
    """
    body = eqn.op.body
    if isinstance(body, Move):
        avals = tuple(operand.aval for operand in eqn.operands)
        return list(body.access(indices, avals, eqn.params))
    if isinstance(body, Map):
        return [(i, indices, TRUE) for i in range(len(eqn.operands))]
    return []
