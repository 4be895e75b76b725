"""A small function's graphs as formulas: SymPy's derivative against the gradient graph.

The traced graph is unfolded on symbols and differentiated by SymPy; the gradient graph, before and
after the rewrites, is unfolded on the same symbols. So both the transform and the rewrites are held
against an independent source.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import sympy

from diffc.ir.graph import Graph
from diffc.programs import work_of
from diffc.symbolic.check import Check
from diffc.symbolic.decide import CHOICES, decide
from diffc.symbolic.unfold import CannotUnfold, Unfolded, flat, symbols, tree_size, unfold

Array = np.ndarray[Any, Any]

#: functions of more scalars, more elements or longer formulas are left to the other checks
SCALARS_UP_TO = 12
ELEMENTS_UP_TO = 1500
NODES_UP_TO = 12_000

#: formulas are printed for so many inputs, if they are no longer than this
SHOWN_INPUTS = 4
SHOWN_LENGTH = 160
SIMPLIFIED_UP_TO = 60

_SCALES = (sympy.Integer(1), sympy.Rational(9, 10), sympy.Rational(7, 10))


@dataclass(slots=True)
class Formulas:
    """What the formulas of one function are about.

    Attributes:
        graph: the traced function.
        inputs: for each input symbols (floats), or an array of numbers (the rest, and captures).
        variables: all symbols in order.
        points: values of the variables to compare at.
    """

    graph: Graph
    inputs: list[Array]
    variables: list[Any]
    points: list[list[Any]]

    @property
    def names(self) -> list[str]:
        """The variables as text."""
        return [str(symbol) for symbol in self.variables]


def why_not(graph: Graph, leaves: int) -> str | None:
    """Why a graph is not compared with SymPy; None if it is. ``leaves`` inputs are arguments."""
    sizes = [value.aval.size for value in graph.inputs[:leaves] if value.aval.is_float]
    count = sum(size for size in sizes if isinstance(size, int))  # the pipeline has ints only
    if count == 0:
        return "it has no float arguments"
    if count > SCALARS_UP_TO:
        return f"it has {count} scalar inputs, more than {SCALARS_UP_TO}"
    work = work_of(graph)
    if work > ELEMENTS_UP_TO:
        return f"its graph has {work} elements, more than {ELEMENTS_UP_TO}"
    return None


def formulas_of(graph: Graph, arrays: Sequence[Array], leaves: int) -> Formulas:
    """Symbols for the float arguments, points near the given arrays."""
    inputs: list[Array] = []
    variables: list[Any] = []
    values: list[Any] = []
    for position, (value, array) in enumerate(zip(graph.inputs, arrays, strict=True)):
        if position < leaves and value.aval.is_float:
            made = symbols(value.name, value.aval)
            inputs.append(made)
            variables += flat([made])
            values += [sympy.Rational(round(float(x) * 1024), 1024) for x in array.ravel()]
        else:
            inputs.append(array)
    points = [[value * scale for value in values] for scale in _SCALES]
    return Formulas(graph, inputs, variables, points)


def check_value(formulas: Formulas, optimized: Graph, count: int) -> Check:
    """The function before and after the rewrites; ``count`` outputs are its own."""
    before = _unfolded(formulas.graph, formulas)
    after = _unfolded(optimized, formulas)
    left, right = flat(after.outputs[:count]), flat(before.outputs[:count])
    verdict, error, detail = decide(left, right, formulas.variables, formulas.points)
    return Check("value: optimized = traced, by SymPy", verdict, error, detail)


def gradient_by_sympy(formulas: Formulas, positions: Sequence[int]) -> list[Any]:
    """SymPy's derivatives of the first output by all elements of the inputs at ``positions``."""
    unfolded = _unfolded(formulas.graph, formulas, freeze=True)
    (value,) = flat(unfolded.outputs[:1])
    steps = {
        atom: sympy.Dummy("step", real=True)
        for atom in value.atoms(sympy.floor, sympy.ceiling, sympy.sign)
    }
    smooth = value.xreplace(steps)  # SymPy has no derivative of these; where smooth it is 0
    back = {dummy: atom for atom, dummy in steps.items()}
    found = []
    for symbol in flat([formulas.inputs[position] for position in positions]):
        slope = sympy.diff(smooth, symbol)
        while slope.free_symbols & back.keys():
            slope = slope.xreplace(back)
        found.append(unfolded.thawed(slope))
    return found


def check_gradient(
    formulas: Formulas, truth: Sequence[Any], graph: Graph, count: int, stage: str
) -> Check:
    """The last ``count`` outputs of a stage's graph against SymPy's derivatives."""
    unfolded = _unfolded(graph, formulas)
    found = flat(unfolded.outputs[-count:])
    verdict, error, detail = decide(found, truth, formulas.variables, formulas.points)
    return Check(f"gradient: {stage} = SymPy", verdict, error, detail)


def shown(
    formulas: Formulas, positions: Sequence[int], truth: Sequence[Any]
) -> list[tuple[str, str]]:
    """The gradient as text, by the inputs' names, if it is short."""
    names = [str(symbol) for symbol in flat([formulas.inputs[p] for p in positions])]
    if len(names) > SHOWN_INPUTS:
        return []
    texts = [str(sympy.simplify(expr) if _is_simple(expr) else expr) for expr in truth]
    if any(len(text) > SHOWN_LENGTH for text in texts):
        return []
    return list(zip(names, texts, strict=True))


def _is_simple(expr: Any) -> bool:
    """Whether SymPy simplifies an expression within a moment: choices take it long."""
    return bool(expr.count_ops() <= SIMPLIFIED_UP_TO) and not expr.has(*CHOICES)


def _unfolded(graph: Graph, formulas: Formulas, *, freeze: bool = False) -> Unfolded:
    result = unfold(graph, formulas.inputs, freeze=freeze)
    size = tree_size(flat(result.outputs))
    if size > NODES_UP_TO:
        raise CannotUnfold(f"its formulas have {size} nodes, more than {NODES_UP_TO}")
    return result
