"""Control flow that is called outside any trace: traced at each call, compiled once.

The functions of a loop are made anew at most calls (``lambda x: x * rate``), and what they reach
may change between any two. So each call traces them, which takes well below a millisecond for a few
operations; what comes out is known by its structure, and has been compiled if it came out before.
Arrays that the functions reach are operands of the program. So are the Python floats in their
closures: ``rate`` may change from call to call. Where a function asks for the value of such a float
(an ``if``, ``range(int(rate))``), it is traced with the number itself.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from types import CellType, FunctionType
from typing import Any
from weakref import WeakKeyDictionary

from diffc import tree
from diffc.concrete import Paths
from diffc.errors import DiffcError, InternalError
from diffc.ir.graph import Graph, graphs_of
from diffc.ir.keys import structural_key
from diffc.leaves import abstract_leaf, as_leaves, identifier
from diffc.pipeline import PAUSE
from diffc.plan.forms import may_fail
from diffc.programs import GraphProgram
from diffc.trace import trace_flat
from diffc.trace.kinks import adopted
from diffc.trace.rebind import is_library
from diffc.trace.run import name_of, parameter_names
from diffc.transforms import expand

Function = Callable[..., Any]

_PROGRAMS: Paths[GraphProgram] = Paths()
#: code of functions that ask for the values of floats in their closures
_ASKS: WeakKeyDictionary[Any, bool] = WeakKeyDictionary()


def run_outside(
    call: Function,
    functions: Sequence[Function],
    *args: Any,
) -> Any:
    """Runs control flow that is used outside any trace.

    Args:
        call: what is traced: it takes functions like ``functions``, then the arguments.
        functions: the user's. The last one names the arguments.
        args: pytrees of arrays and numbers.
    """
    with adopted():
        cells = _floats(functions)
        if not cells:
            return _run(call, functions, [], args)
        try:
            return _run(call, functions, cells, args)
        except DiffcError:
            pass  # once more, with the numbers themselves: that may work, or tell what is wrong
        result = _run(call, functions, [], args)
        _ASKS.update({f.__code__: True for f in functions if type(f) is FunctionType})
        return result


def _floats(functions: Sequence[Function]) -> list[CellType]:
    """The closure cells of the user's functions that hold floats, each once."""
    found: dict[int, CellType] = {}
    for function in functions:
        if type(function) is not FunctionType or function.__code__ in _ASKS:
            continue
        if not is_library(function.__code__):
            for cell in function.__closure__ or ():
                if type(_content(cell)) is float:
                    found[id(cell)] = cell
    return list(found.values())


def _content(cell: CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # not bound yet
        return None


def _lifted(function: Function, cells: Sequence[CellType], numbers: Sequence[Any]) -> Function:
    """The function with other contents in these cells of its closure."""
    if type(function) is not FunctionType or not function.__closure__:
        return function
    known = {id(cell): x for cell, x in zip(cells, numbers, strict=True)}
    closure = tuple(
        CellType(known[id(cell)]) if id(cell) in known else cell for cell in function.__closure__
    )
    code, names = function.__code__, function.__globals__
    copy = FunctionType(code, names, function.__name__, function.__defaults__, closure)
    copy.__kwdefaults__ = function.__kwdefaults__
    copy.__dict__.update(function.__dict__)
    return copy


def _run(
    call: Function,
    functions: Sequence[Function],
    cells: Sequence[CellType],
    args: tuple[Any, ...],
) -> Any:
    def run(*given: Any) -> Any:
        numbers, rest = given[: len(cells)], in_tree.build(given[len(cells) :])
        return call(*(_lifted(f, cells, numbers) for f in functions), *rest)

    origin = functions[-1] if functions else getattr(call, "func", call)
    origin = getattr(origin, "origin", origin)
    labels = parameter_names(origin, len(args))
    paths = [
        p for label, x in zip(labels, args, strict=True) for p in tree.structure(x).paths(label)
    ]
    leaves, in_tree = tree.flatten(args)
    leaves = [cell.cell_contents for cell in cells] + as_leaves(leaves, lambda: paths)
    names = ["number"] * len(cells) + [identifier(path) for path in paths]
    with PAUSE:
        traced = trace_flat(
            run, [abstract_leaf(x) for x in leaves], names, name=name_of(origin), origin=origin
        )
        if traced.written:
            raise InternalError("control flow writes to its arguments")
        graph = expand(traced.graph)  # rules of derivatives, which nobody asks any more, go
        key = structural_key(graph), _lines(graph)
        program = _PROGRAMS.get(key, lambda: GraphProgram(graph, graph.name))
    outputs = program([*leaves, *(c.array for c in traced.captured)])
    return traced.out_tree.build(outputs)


def _lines(graph: Graph) -> Hashable:
    """The user's lines, where one of them may be the subject of an error."""
    parts = list(graphs_of(graph))
    if not any(may_fail(eqn) for part in parts for eqn in part.eqns):
        return ()
    return tuple(eqn.loc for part in parts for eqn in part.eqns)
