"""The reference interpreter: a graph's meaning, made of the ``numpy`` facets.

Slow and plain; everything compiled is compared with it. Regions are run by a stack of generators,
so neither deep nesting nor long graphs recurse. Warnings of NumPy are off: nan and inf are values.
Results keep the dtype of their avals exactly. Arrays of objects (SymPy's symbols) pass through the
same facets, except elementwise ones: for those give a ``compute`` of your own.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from typing import Any

import numpy as np

from diffc.errors import InternalError, UsageError
from diffc.ir.aval import Aval, aval_of
from diffc.ir.graph import Eqn, Graph, Literal, Operand, Value
from diffc.ops import stores

Array = np.ndarray[Any, Any]
Steps = Generator[tuple[Graph, list[Array]], list[Array], list[Array]]
#: How an equation without regions is computed: from its operands, an array or one for each result.
Compute = Callable[[Eqn, list[Array]], Any]


def by_numpy(eqn: Eqn, arrays: list[Array]) -> Any:
    """The results of an equation by its op's ``numpy`` facet."""
    if eqn.op.ulp:  # NumPy's elementary functions depend on the layout
        arrays = [np.asarray(array, order="C") for array in arrays]
    return eqn.op.numpy(*arrays, **eqn.params)


def evaluate(graph: Graph, arrays: Iterable[Any], compute: Compute = by_numpy) -> list[Array]:
    """The outputs of ``graph`` on these inputs, as new arrays.

    Args:
        graph: a graph whose dimensions are all integers.
        arrays: one array for each input, of its aval (or of dtype object and its shape); stores
            as ``ops.stores`` says.
        compute: what computes equations without regions; to watch them, or to replace facets.

    Raises:
        UsageError: an input does not have its aval.
        ExecutionError: an index of a checked gather or scatter is out of bounds.
    """
    inputs = [np.asarray(array) for array in arrays]
    if len(inputs) != len(graph.inputs):
        raise UsageError(f"@{graph.name} takes {len(graph.inputs)} inputs, found {len(inputs)}")
    for value, array in zip(graph.inputs, inputs, strict=True):
        if not stores.fits(value.aval, array):
            found = f"{array.dtype}{list(array.shape)}"
            raise UsageError(f"input {value.name} of @{graph.name} is {value.aval}, found {found}")
    with np.errstate(all="ignore"):
        return [np.array(array) for array in _drive(graph, inputs, compute)]


def results_of(eqn: Eqn, arrays: list[Array]) -> list[Array]:
    """The results of one equation on arrays, its regions run; they may share memory with them."""
    if eqn.regions:
        avals = [operand.aval for operand in eqn.operands]
        inputs = tuple(Value(aval, None, i, f"x{i}") for i, aval in enumerate(avals))
        alone = Eqn(eqn.op, inputs, eqn.params, eqn.regions, _avals(eqn.results), eqn.loc, eqn.key)
        return _drive(Graph(eqn.op.name, inputs, (alone,), alone.results), arrays, by_numpy)
    results = by_numpy(eqn, arrays)
    return list(results) if isinstance(results, list | tuple) else [results]


def _avals(values: tuple[Value, ...]) -> tuple[Aval, ...]:
    return tuple(value.aval for value in values)


def _drive(graph: Graph, inputs: list[Array], compute: Compute) -> list[Array]:
    """Runs a generator and those it asks for, the innermost first."""
    stack, answer = [_run(graph, inputs, compute)], None
    while True:
        try:
            region, arrays = stack[-1].send(answer)  # type: ignore[arg-type]  # None starts it
        except StopIteration as stop:
            answer = stop.value
            stack.pop()
            if not stack:
                return list(stop.value)
        else:
            stack.append(_run(region, arrays, compute))
            answer = None


def _run(graph: Graph, inputs: list[Array], compute: Compute) -> Steps:
    """Runs one graph; each array is dropped after its last use."""
    env: dict[Value, Array] = dict(zip(graph.inputs, inputs, strict=True))
    last = _last_uses(graph)
    for position, eqn in enumerate(graph.eqns):
        arrays = [_read(env, operand) for operand in eqn.operands]
        if eqn.regions:
            steps: Steps = eqn.op.numpy(*arrays, regions=eqn.regions, **eqn.params)
            results: Any = yield from steps
        else:
            results = compute(eqn, arrays)
        if not isinstance(results, list | tuple):
            results = (results,)
        for value, result in zip(eqn.results, results, strict=True):
            array = np.asarray(result)
            if not stores.fits(value.aval, array):
                found = aval_of(array) if array.dtype != object else array.shape
                raise InternalError(f"numpy facet of {eqn.op.name} gives {found}, not {value.aval}")
            env[value] = array
        for value in last.get(position, ()):
            del env[value]
    return [_read(env, output) for output in graph.outputs]


def _last_uses(graph: Graph) -> dict[int, list[Value]]:
    """The values that die with each equation."""
    kept = {id(output) for output in graph.outputs}
    uses: dict[Value, int] = {}
    for position, eqn in enumerate(graph.eqns):
        for value in (*eqn.operands, *eqn.results):
            if isinstance(value, Value) and id(value) not in kept:
                uses[value] = position
    dying: dict[int, list[Value]] = {}
    for value, position in uses.items():
        dying.setdefault(position, []).append(value)
    return dying


def _read(env: dict[Value, Array], operand: Operand) -> Array:
    if isinstance(operand, Literal):
        if operand.aval.is_store:
            return stores.zeros(operand.aval)
        scalar = np.array(operand.value, operand.aval.numpy)
        shape: Any = operand.aval.shape
        return np.broadcast_to(scalar, shape)
    return env[operand]
