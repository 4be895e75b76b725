"""Constant folding: equations on literals, by the ops' own NumPy meaning.

Elementwise ops on splat literals give a splat; movement of equal literals gives that literal;
reductions that don't depend on the number of elements (``max``, ``all``, ...) too.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from diffc.ir.graph import Literal, Operand, literal
from diffc.ops.declare import Fold, Map, Op, Waived

#: monoids for which folding any positive number of equal elements gives the element itself.
IDEMPOTENT = frozenset({"max", "min", "any", "all"})


def fold(op: Op, operands: tuple[Operand, ...], params: Mapping[str, Any]) -> Operand | None:
    """The literal (or operand) that an equation equals, or None."""
    if op.name == "convert" and operands[0].aval.dtype == params["dtype"]:
        return operands[0]
    if not operands or not all(isinstance(operand, Literal) for operand in operands):
        return None
    literals = [operand for operand in operands if isinstance(operand, Literal)]
    avals = tuple(operand.aval for operand in literals)
    if isinstance(op.body, Map) and not isinstance(op.numpy, Waived):
        scalars = [np.asarray(x.value, x.aval.numpy) for x in literals]
        with np.errstate(all="ignore"):
            found = np.asarray(op.numpy(*scalars, **params))
        (result,) = op.infer(avals, params, ())
        return literal(found.astype(result.numpy)[()], result)
    values = {(x.aval.dtype, np.asarray(x.value, x.aval.numpy).tobytes()) for x in literals}
    if len(values) != 1:
        return None
    if op.is_movement:
        (result,) = op.infer(avals, params, ())
        return literal(literals[0].value, result)
    if isinstance(op.body, Fold) and op.body.monoid in IDEMPOTENT:
        (result,) = op.infer(avals, params, ())
        if literals[0].aval.size != 0 and result.dtype == literals[0].aval.dtype:
            return literal(literals[0].value, result)
    return None
