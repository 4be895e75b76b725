"""``cond`` and ``switch``: one of several functions is run, chosen by a traced value."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from diffc import tree
from diffc.control.outside import run_outside
from diffc.control.region import (
    VALUE,
    Function,
    fits,
    flat,
    kind_of,
    need_arguments,
    need_function,
    operand_of,
    refuse_writes,
    region_of,
    results_of,
    trace_region,
    united,
)
from diffc.errors import DtypeError, ShapeError, UsageError
from diffc.ir.aval import Aval, aval
from diffc.ir.graph import literal
from diffc.leaves import abstract_leaf, as_leaf
from diffc.trace import Traced, Tracer, active, emit, line
from diffc.trace.run import parameter_names

CHOOSE = (
    "write a function that gives it (lambda: x); or choose between arrays with "
    "np.where(condition, a, b)"
)

#: what Python numbers are that come from all branches
_WEAK = {"bool": aval("bool"), "int": aval("i64"), "float": aval("f64")}


def cond(pred: Any, true_fun: Function, false_fun: Function, *operands: Any) -> Any:
    """Runs ``true_fun(*operands)`` where ``pred`` is true, else ``false_fun(*operands)``.

    Only the chosen function runs, also in derivatives. Both are traced; they may use arrays of the
    code around them.

    Args:
        pred: one boolean.
        true_fun: takes the operands, gives a pytree of arrays and numbers.
        false_fun: the same; its results have the same structure, shapes and dtypes. Neither writes
            to an array from outside.
        operands: pytrees of arrays and numbers.

    Returns:
        The result of the chosen function.

    Raises:
        DtypeError: ``pred`` is not one boolean.
        ShapeError: the results of the functions differ in structure, shape or dtype.
        UsageError: a function writes to an array from outside.

    Example:
        >>> import numpy as np, diffc
        >>> @diffc.jit
        ... def f(x):
        ...     return diffc.cond(np.sum(x) > 0, np.sqrt, lambda x: x * 0, x)
        >>> f(np.array([4.0, 9.0])), f(np.array([-4.0, 1.0]))
        (array([2., 3.]), array([-0.,  0.]))
    """
    for function, name in ((true_fun, "true"), (false_fun, "false")):
        need_function(function, f"the {name} branch of cond", CHOOSE)
        need_operands(function, f"the {name} branch of cond", operands)
    leaf = as_leaf(pred, "the predicate of cond")
    if not active():

        def chosen(true_fun: Function, false_fun: Function, pred: Any, *operands: Any) -> Any:
            return cond(pred, true_fun, false_fun, *operands)

        return run_outside(chosen, [true_fun, false_fun], pred, *operands)
    found = abstract_leaf(leaf, "the predicate of cond").aval
    if found is not aval("bool"):
        raise DtypeError(
            f"the predicate of cond is {found}; needs one boolean",
            location=line(),
            hint="compare (x > 0), and reduce arrays with np.any or np.all; to choose for each "
            "element use np.where",
        )
    names = ["the false branch", "the true branch"]
    return _choose("cond", leaf, [false_fun, true_fun], names, operands)


def switch(index: Any, branches: Sequence[Function], *operands: Any) -> Any:
    """Runs ``branches[index](*operands)``; an index out of range is moved into it.

    Args:
        index: one integer. Below 0 it is 0, and past the end it is the last.
        branches: functions, at least one; as those of :func:`diffc.cond`.
        operands: pytrees of arrays and numbers.

    Returns:
        The result of the chosen function.

    Raises:
        DtypeError, ShapeError, UsageError: as :func:`diffc.cond`.

    Example:
        >>> import numpy as np, diffc
        >>> diffc.switch(1, [np.sin, np.exp, np.negative], 0.0)
        array(1.)
    """
    functions = list(branches) if isinstance(branches, Sequence) else None
    if not functions:
        raise UsageError(
            "switch needs a sequence of functions, found "
            + ("one function" if callable(branches) else f"{branches!r:.80}"),
            location=line(),
            hint="switch(index, [first, second], operands...)",
        )
    for k, function in enumerate(functions):
        need_function(function, f"branch {k} of switch", CHOOSE)
        need_operands(function, f"branch {k} of switch", operands)
    leaf = as_leaf(index, "the index of switch")
    if not active():
        count = len(functions)

        def one_of(*given: Any) -> Any:
            return switch(given[count], given[:count], *given[count + 1 :])

        return run_outside(one_of, functions, index, *operands)
    found = abstract_leaf(leaf, "the index of switch").aval
    if found.shape or kind_of(found) != "int":
        raise DtypeError(
            f"the index of switch is {found}; needs one integer",
            location=line(),
            hint="for one choice for each element, use diffc.vmap"
            if found.shape
            else "convert it with astype(int), or use diffc.cond for a boolean",
        )
    names = [f"branch {k}" for k in range(len(functions))]
    return _choose("switch", _index(leaf, found, len(functions)), functions, names, operands)


def need_operands(function: Function, what: str, operands: Sequence[Any]) -> None:
    """Raises unless a branch takes the operands."""
    count = len(operands)
    given = "no operands" if not count else f"{count} operand{'s' if count > 1 else ''}"
    need_arguments(function, count, what, given)


def _index(leaf: Any, found: Aval, count: int) -> Any:
    """The index in range, as i32."""
    last = literal(min(count - 1, int(np.iinfo(found.numpy).max)), found)
    (low,) = emit("maximum", leaf, literal(0, found))
    (clamped,) = emit("minimum", low, last)
    return clamped if found.dtype == "i32" else emit("convert", clamped, dtype="i32")[0]


def _choose(
    what: str, index: Any, functions: list[Function], names: list[str], operands: Sequence[Any]
) -> Any:
    """Emits the choice between functions, of which ``names`` are used in messages."""
    labels = parameter_names(functions[-1], len(operands))
    leaves: list[Any] = []
    paths: list[str] = []
    trees: list[tree.TreeDef] = []
    for label, operand in zip(labels, operands, strict=True):
        found, structure = flat(operand, label)
        leaves += found
        paths += structure.paths(label)
        trees.append(structure)

    def bound(function: Function) -> Function:
        def run(*given: Tracer) -> Any:
            rest = iter(given)
            return function(*(t.build([next(rest) for _ in range(t.num_leaves)]) for t in trees))

        return run

    abstracts = [abstract_leaf(leaf) for leaf in leaves]
    traceds = []
    for function, name in zip(functions, names, strict=True):
        traced = trace_region(function, bound(function), abstracts, paths)
        refuse_writes(traced, f"{name} of {what}", "write into a copy (x.copy()), and return it")
        traceds.append(traced)
    wanted, weak = _agreed(what, traceds, names)
    hidden = united(traceds)
    results = emit(
        "cond",
        index,
        *map(operand_of, hidden),
        *leaves,
        regions=tuple(region_of(traced, wanted, hidden) for traced in traceds),
    )
    return traceds[0].out_tree.build(results_of(results, weak))


def _agreed(
    what: str, traceds: Sequence[Traced], names: Sequence[str]
) -> tuple[list[Aval], list[bool]]:
    """The avals of the results, and which are Python numbers.

    Python numbers take the dtype that other branches give.
    """
    first = traceds[0].out_tree
    for traced, name in zip(traceds, names, strict=True):
        if traced.out_tree is not first:
            differs = tree.first_mismatch(first, traced.out_tree, "result", VALUE)
            assert differs is not None
            path, left, right = differs
            is_forgotten = path == "result" and "None" in (left, right)
            raise ShapeError(
                f"{path} of {what} is {left} from {names[0]} and {right} from {name}",
                location=line(),
                hint="a branch without `return` gives None; return the same containers from all"
                if is_forgotten
                else "return the same containers from all branches",
            )
    wanted: list[Aval] = []
    weak: list[bool] = []
    for k, path in enumerate(first.paths("result")):
        found = [(t.graph.outputs[k].aval, t.out_weak[k]) for t in traceds]
        strong = [a for a, is_weak in found if not is_weak]
        widest = max((kind_of(a) for a, _ in found), key=tuple(_WEAK).index)
        agreed = strong[0] if strong else _WEAK[widest]
        for (given, is_weak), name in zip(found, names, strict=True):
            if not fits(given, is_weak, agreed):
                other = next(n for n, (a, _) in zip(names, found, strict=True) if a is agreed)
                raise ShapeError(
                    f"{path} of {what} is {agreed} from {other} and {given} from {name}",
                    location=line(),
                    hint="all branches give the same shapes; np.broadcast_to and np.pad help"
                    if agreed.shape != given.shape
                    else "all branches give the same dtypes; convert with astype",
                )
        wanted.append(agreed)
        weak.append(not strong)
    return wanted, weak
