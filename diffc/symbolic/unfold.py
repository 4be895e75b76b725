"""Unfolds a graph to SymPy: every element of every output as an expression of the inputs.

The interpreter runs on arrays of expressions. Elementwise ops go by their SymPy texts; movement,
sums and contractions by their own NumPy meaning on objects. Integers and booleans stay arrays of
numbers as long as they do not depend on symbols.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from typing import Any

import numpy as np
import sympy

from diffc.errors import UsageError
from diffc.ir.aval import BOOLS, FLOATS, Aval
from diffc.ir.graph import Eqn, Graph
from diffc.ops.interpret import evaluate
from diffc.symbolic.terms import exact, meaning

Array = np.ndarray[Any, Any]

#: what a real, finite number answers
_FINITE = {"is_nan": sympy.false, "is_inf": sympy.false, "is_finite": sympy.true}


def _extremum(items: list[Any], is_max: bool) -> Any:
    """The greatest or least item as a choice: what beats all that follow, if no earlier one did."""
    pieces = []
    for k, item in enumerate(items[:-1]):
        beaten = [item > other if is_max else item < other for other in items[k + 1 :]]
        pieces.append((item, sympy.And(*beaten)))
    return sympy.Piecewise(*pieces, (items[-1], True)) if pieces else items[-1]


_REDUCTIONS: dict[str, Callable[[list[Any]], Any]] = {
    "max": lambda items: _extremum(items, True),
    "min": lambda items: _extremum(items, False),
    "any": lambda items: sympy.Or(*items),
    "all": lambda items: sympy.And(*items),
    "prod": lambda items: reduce(lambda a, b: a * b, items, sympy.Integer(1)),
    "sum": lambda items: sympy.Add(*items),
}


class CannotUnfold(UsageError):  # noqa: N818 - it says what is the case
    """The graph has no formula: what it does depends on bits, or on values behind an index."""


@dataclass(slots=True)
class Unfolded:
    """A graph as formulas.

    Attributes:
        outputs: one array of expressions for each output.
        frozen: what ``stop_gradient`` cut off, by the symbol that stands for it.
    """

    outputs: list[Array]
    frozen: dict[Any, Any] = field(default_factory=dict)

    def thawed(self, expr: Any) -> Any:
        """An expression with what was cut off put back."""
        while found := expr.free_symbols & self.frozen.keys():
            expr = expr.xreplace({symbol: self.frozen[symbol] for symbol in found})
        return expr


def symbols(name: str, aval: Aval, **assumptions: Any) -> Array:
    """An array of real symbols named ``x``, or ``x[0,1]``."""
    shape: Any = aval.shape
    array = np.empty(shape, object)
    for index in np.ndindex(*shape):
        text = name + (f"[{','.join(map(str, index))}]" if index else "")
        array[index] = sympy.Symbol(text, real=True, **assumptions)
    return array


def unfold(graph: Graph, inputs: Sequence[Any], *, freeze: bool = False) -> Unfolded:
    """The formulas of a graph.

    Args:
        graph: a graph whose dimensions are integers.
        inputs: for each input an array of symbols (or numbers as objects), or of its own dtype.
        freeze: stand symbols for what ``stop_gradient`` cuts off, so that SymPy's derivative does
            not pass; :meth:`Unfolded.thawed` puts it back.

    Raises:
        CannotUnfold: something in it has no formula.
    """
    result = Unfolded([])

    def compute(eqn: Eqn, arrays: list[Array]) -> Any:
        if freeze and eqn.op.name == "stop_gradient" and arrays[0].dtype == object:
            return _each(lambda x: _frozen(x, result.frozen), arrays)
        return _compute(eqn, arrays)

    try:
        outputs = evaluate(graph, inputs, compute)
    except TypeError as error:  # a condition has no truth value
        raise CannotUnfold(f"a branch or a loop depends on the values: {error}") from error
    result.outputs = [
        _lift(array, output.aval.dtype)
        for array, output in zip(outputs, graph.outputs, strict=True)
    ]
    return result


def _frozen(x: Any, table: dict[Any, Any]) -> Any:
    if not x.free_symbols:
        return x
    symbol = sympy.Dummy("frozen", real=True)
    table[symbol] = x
    return symbol


def _lift(array: Array, dtype: str) -> Array:
    """Exact expressions for the elements."""
    lifted = np.empty(array.shape, object)
    for index in np.ndindex(array.shape):
        item: Any = array[index]
        while isinstance(item, np.ndarray):  # stacked results of a scan
            item = item.item()
        lifted[index] = exact(item, dtype)
    return lifted


def _each(function: Callable[..., Any], arrays: Sequence[Array]) -> Array:
    """``function`` of the elements of arrays of one shape."""
    found = np.empty(arrays[0].shape, object)
    for index in np.ndindex(arrays[0].shape):
        found[index] = function(*(array[index] for array in arrays))
    return found


def _compute(eqn: Eqn, arrays: list[Array]) -> Any:
    op, operands = eqn.op, eqn.operands
    aval = eqn.results[0].aval
    is_symbolic = any(array.dtype == object for array in arrays)
    if not is_symbolic:
        return op.numpy(*arrays, **eqn.params)
    lifted = [
        _lift(array, operand.aval.dtype)
        if array.dtype == object or operand.aval.dtype in FLOATS or op.is_elementwise
        else array
        for array, operand in zip(arrays, operands, strict=True)
    ]
    try:
        found = _formula(eqn, lifted, operands[0].aval if operands else aval)
    except (TypeError, AttributeError, NotImplementedError) as error:
        raise CannotUnfold(
            f"{op.name} has no formula here: {error}",
            location=None if eqn.loc is None else str(eqn.loc),
        ) from error
    return _settled(found, aval) if aval.dtype not in FLOATS else found


def _formula(eqn: Eqn, arrays: list[Array], first: Aval) -> Any:
    op, params = eqn.op, dict(eqn.params)
    if op.name in _FINITE:
        return _each(lambda x: _FINITE[op.name], arrays)
    if op.name == "stop_gradient":
        return arrays[0]
    if op.name == "convert":
        return _each(lambda x: _converted(x, first.dtype, params["dtype"]), arrays)
    if op.name in ("maximum", "minimum"):
        return _each(lambda *xs: _extremum(list(xs), op.name == "maximum"), arrays)
    if op.is_elementwise:
        return _each(lambda *xs: meaning(op, xs, params), arrays)
    if op.name in _REDUCTIONS:
        return _reduced(arrays[0], params["axes"], _REDUCTIONS[op.name])
    if op.name in ("cummax", "cummin"):
        return _running_extremum(arrays[0], params["axis"], op.name == "cummax")
    if op.name in ("argmax", "argmin", "sort", "argsort", "random_bits"):
        raise TypeError("its order depends on the values")
    return op.numpy(*arrays, **params)


def _running_extremum(array: Array, axis: int, is_max: bool) -> Array:
    found = array.copy()
    rows = np.moveaxis(found, axis, 0)
    for row in range(1, len(rows)):
        pairs = (np.asarray(rows[row - 1]), np.asarray(rows[row]))
        rows[row] = _each(lambda *xs: _extremum(list(xs), is_max), pairs)
    return found


def _reduced(array: Array, axes: tuple[int, ...], combine: Callable[[list[Any]], Any]) -> Array:
    kept = tuple(axis for axis in range(array.ndim) if axis not in axes)
    shape = tuple(array.shape[axis] for axis in kept)
    flat = array.transpose(*kept, *axes).reshape(*shape, -1) if array.size else array
    found = np.empty(shape, object)
    for index in np.ndindex(*shape):
        found[index] = combine(list(flat[index]) if array.size else [])
    return found


def _converted(x: Any, source: str, target: str) -> Any:
    if target in BOOLS:
        return x if source in BOOLS else sympy.Ne(x, 0)
    if source in BOOLS:
        return sympy.Piecewise((1, x), (0, True))
    if target in FLOATS or source not in FLOATS:
        return x
    return sympy.sign(x) * sympy.floor(sympy.Abs(x))


def _settled(found: Any, aval: Aval) -> Any:
    """An array of numbers, if no element depends on symbols."""
    array = np.asarray(found)
    if array.dtype != object:
        return array
    items = [sympy.sympify(item) for item in array.ravel()]
    if not all(item in (True, False) or item.is_Integer for item in items):
        return array
    numbers = [bool(item) if item in (True, False) else int(item) for item in items]
    return np.array(numbers, aval.numpy).reshape(array.shape)


def tree_size(exprs: Sequence[Any]) -> int:
    """How many nodes the expressions have as trees, counted without walking shared parts twice."""
    sizes: dict[Any, int] = {}
    for expr in exprs:
        stack = [expr]
        while stack:
            node = stack[-1]
            if node in sizes:
                stack.pop()
                continue
            missing = [arg for arg in node.args if arg not in sizes]
            if missing:
                stack.extend(missing)
            else:
                sizes[node] = 1 + sum(sizes[arg] for arg in node.args)
                stack.pop()
    return sum(sizes[expr] for expr in exprs)


def flat(arrays: Sequence[Array]) -> list[Any]:
    """All elements in order."""
    return [item for array in arrays for item in array.ravel()]


Point = Mapping[Any, Any]
