"""Region ops that say how they are differentiated: ``custom``, ``custom_linear``, ``checkpoint``.

By value they are calls. ``custom`` names a rule that ``transforms`` knows; ``custom_linear`` is the
linear map whose transpose is its region; ``checkpoint`` is computed again by the backward pass.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from diffc.errors import ShapeError
from diffc.ir.aval import ANY, NUMBERS, Aval
from diffc.ir.graph import Graph
from diffc.ops.control import REGIONAL, RUNS, Array, Steps, call, need_inputs, need_region
from diffc.ops.declare import op

POLICIES = ("nothing", "dots")


def _custom_aval(*avals: Aval, rule: str, regions: tuple[Graph, ...]) -> tuple[Aval, ...]:
    found: Any = call.aval(*avals, regions=regions)
    return tuple(found)


def _custom(*arrays: Array, rule: str, regions: tuple[Graph, ...]) -> Steps:
    return (yield regions[0], list(arrays))


custom = op(
    "custom",
    doc="The outputs of a graph, whose derivative is the user's own `rule`.",
    aval=_custom_aval,
    numpy=_custom,
    sympy=RUNS,
    derivative=REGIONAL,
    body=REGIONAL,
    params=("rule",),
    results=None,
    dtypes=ANY,
)


def _custom_linear_aval(
    *avals: Aval, residuals: int, regions: tuple[Graph, ...]
) -> tuple[Aval, ...]:
    backward = need_region(regions)
    if not 0 <= residuals <= min(len(avals), len(backward.inputs)):
        raise ShapeError(f"found {len(avals)} operands; residuals {residuals} needs as many")
    needed = (*backward.input_avals[:residuals], *backward.output_avals)
    need_inputs(backward, avals, needed)
    return backward.input_avals[residuals:]


def _custom_linear(*arrays: Array, residuals: int, regions: tuple[Graph, ...]) -> Steps:
    """Element by element: the region's answer to each unit cotangent, times the tangents."""
    (backward,) = regions
    given, dots = arrays[:residuals], arrays[residuals:]
    symbolic = any(array.dtype == object for array in arrays)
    avals: Any = backward.input_avals[residuals:]  # without symbols when arrays are at hand
    cts: list[Array] = [np.zeros(value.shape, value.numpy) for value in avals]
    results: list[Array] = [np.empty(ct.shape, object if symbolic else ct.dtype) for ct in cts]
    for ct, result in zip(cts, results, strict=True):
        for position in np.ndindex(ct.shape):
            ct[position] = 1
            found = yield backward, [*given, *(np.array(each) for each in cts)]
            ct[position] = 0
            total = result.dtype.type(0) if not symbolic else 0
            for back, dot in zip(found, dots, strict=True):
                total = total + np.sum(back * dot, dtype=None if symbolic else back.dtype)
            result[position] = total
    return results


custom_linear = op(
    "custom_linear",
    doc="The linear map of tangents whose transpose is the region, given its residuals.",
    aval=_custom_linear_aval,
    numpy=_custom_linear,
    sympy=RUNS,
    derivative=REGIONAL,
    body=REGIONAL,
    params=("residuals",),
    results=None,
    dtypes=NUMBERS,
)


def _checkpoint_aval(*avals: Aval, policy: str, regions: tuple[Graph, ...]) -> tuple[Aval, ...]:
    if policy not in POLICIES:
        raise ShapeError(f"policy {policy!r} is not known; needs one of {', '.join(POLICIES)}")
    found: Any = call.aval(*avals, regions=regions)
    return tuple(found)


def _checkpoint(*arrays: Array, policy: str, regions: tuple[Graph, ...]) -> Steps:
    return (yield regions[0], list(arrays))


checkpoint = op(
    "checkpoint",
    doc="The outputs of a graph, of which the backward pass keeps what `policy` says.",
    aval=_checkpoint_aval,
    numpy=_checkpoint,
    sympy=RUNS,
    derivative=REGIONAL,
    body=REGIONAL,
    params=("policy",),
    results=None,
    dtypes=ANY,
)
