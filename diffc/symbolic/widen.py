"""The same graph in double precision, for yardsticks: every float becomes f64.

Finite differences of a function in f32 say little; those of its widened graph say much.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from diffc.ir.aval import DTYPES, FLOATS, Aval
from diffc.ir.graph import Builder, Graph, Literal, Operand, literal


def widen(graph: Graph) -> Graph:
    """The graph with f64 for every float, regions included.

    Before: ``%0: f32[4] = mul(x, 0.1:f32[4])``. After: ``%0: f64[4] = mul(x, 0.1:f64[4])``; the
    literal keeps the value that the f32 had.
    """
    return _widen(graph, {})


def _widen(graph: Graph, known: dict[int, Graph]) -> Graph:
    if id(graph) in known:
        return known[id(graph)]
    builder = Builder(graph.name)
    env: dict[Operand, Operand] = {}
    for value in graph.inputs:
        env[value] = builder.input(_wide(value.aval), value.name)

    def read(operand: Operand) -> Operand:
        if isinstance(operand, Literal):
            return literal(operand.value, _wide(operand.aval))
        return env[operand]

    for eqn in graph.eqns:
        regions = tuple(_widen(region, known) for region in eqn.regions)
        operands = [read(operand) for operand in eqn.operands]
        found = builder.emit(eqn.op, operands, _params(eqn.params), regions, eqn.loc)
        env.update(zip(eqn.results, found, strict=True))
    known[id(graph)] = made = builder.build([read(output) for output in graph.outputs])
    return made


def _wide(aval: Aval) -> Aval:
    return aval.with_dtype("f64") if aval.dtype in FLOATS else aval


def _params(params: Mapping[str, Any]) -> Mapping[str, Any]:
    dtype = params.get("dtype")
    if dtype not in FLOATS:
        return params
    wide = {**params, "dtype": "f64"}
    if "data" in params:
        array = np.frombuffer(params["data"], DTYPES[str(dtype)])
        wide["data"] = array.astype(np.float64).tobytes()
    return wide
