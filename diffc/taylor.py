"""``jet``: higher derivatives along a curve, by Taylor polynomials."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any
from weakref import WeakKeyDictionary

from diffc import tree
from diffc.concrete import Valued
from diffc.errors import DtypeError, ShapeError, UsageError
from diffc.leaves import abstract_leaf, as_leaf, valued_leaf
from diffc.trace import active, emit, inline, line
from diffc.transformed import Function, trace_inner
from diffc.transforms import taylor


class _Jet:
    """``(primals, series) -> (out, out_series)``, to be traced."""

    def __init__(self, function: Function) -> None:
        self.function = function
        self.origin: Function = getattr(function, "origin", function)

    def __call__(self, primals: tuple[Any, ...], series: tuple[Any, ...]) -> Any:
        leaves = [as_leaf(leaf) for leaf in tree.leaves(primals)]
        order = _order(primals, series)
        columns = _columns(primals, series, order)
        inner = trace_inner(self.function, primals, {}, [valued_leaf(leaf) for leaf in leaves])
        mask = [abstract_leaf(leaf).aval.is_float for leaf in leaves]
        count = len(inner.graph.outputs)
        wanted = [output.aval.is_float for output in inner.graph.outputs]
        hidden = [False] * len(inner.hidden)
        made = taylor(inner.graph, [*mask, *hidden], order, wanted)
        coefficients = [
            _over_factorial(_like(part, leaf), power)
            for leaf, column, on in zip(leaves, columns, mask, strict=True)
            if on
            for power, part in enumerate(column, 1)
        ]
        results = inline(made.graph, [*leaves, *inner.hidden, *coefficients])
        outs, rest = results[:count], iter(results[count:])
        derivatives: list[list[Any]] = [[] for _ in range(order)]
        for out, is_float in zip(outs, wanted, strict=True):
            for power in range(1, order + 1):
                part: Any = next(rest) if is_float else out
                factor = math.factorial(power) if is_float else 0
                derivatives[power - 1].append(part * factor)
        build = inner.traced.out_tree.build
        return build(outs), [build(each) for each in derivatives]


def _order(primals: tuple[Any, ...], series: tuple[Any, ...]) -> int:
    """How many derivatives are given, the same for each argument."""
    if len(primals) != len(series):
        raise UsageError(
            f"jet has {len(primals)} primals and {len(series)} series", location=line()
        )
    lengths = set()
    for each in series:
        if not isinstance(each, (list, tuple)):
            raise UsageError(
                f"a series is a list of derivatives, found {type(each).__name__}", location=line()
            )
        lengths.add(len(each))
    if len(lengths) != 1 or lengths == {0}:
        raise UsageError(
            "jet needs one and the same number of derivatives for each argument, at least 1; found "
            + ", ".join(str(len(each)) for each in series),
            location=line(),
        )
    return lengths.pop()


def _columns(primals: tuple[Any, ...], series: tuple[Any, ...], order: int) -> list[list[Any]]:
    """The derivatives of each leaf."""
    columns: list[list[Any]] = []
    for i, (primal, parts) in enumerate(zip(primals, series, strict=True)):
        leaves, structure = tree.flatten(primal)
        own: list[list[Any]] = [[] for _ in leaves]
        for k, part in enumerate(parts):
            what = f"series[{i}][{k}]"
            found, part_tree = tree.flatten(part)
            if part_tree is not structure:
                problem = tree.explain_mismatch(structure, part_tree, what)
                raise UsageError(
                    f"a derivative differs from its primal: {problem}", location=line()
                )
            for column, x, dot, path in zip(own, leaves, found, structure.paths(what), strict=True):
                shape = abstract_leaf(as_leaf(x)).aval.shape
                given = abstract_leaf(as_leaf(dot)).aval.shape
                if shape != given:
                    raise ShapeError(
                        f"{path} has shape {list(given)}, its primal {list(shape)}",
                        location=line(),
                    )
                column.append(as_leaf(dot))
        columns += own
    return columns


def _like(part: Any, leaf: Any) -> Any:
    """A derivative in the dtype of its primal; Python numbers take it."""
    wanted, found = abstract_leaf(leaf).aval, abstract_leaf(part)
    if found.aval is wanted:
        return part
    if not found.weak:
        raise DtypeError(
            f"a derivative has dtype {found.aval.dtype}, its primal {wanted.dtype}",
            location=line(),
        )
    return emit("convert", part, dtype=wanted.dtype)[0]


def _over_factorial(part: Any, power: int) -> Any:
    return part if power == 1 else part / math.factorial(power)


_JETS: WeakKeyDictionary[Any, Valued] = WeakKeyDictionary()


def jet(function: Function, primals: Sequence[Any], series: Sequence[Any]) -> Any:
    """See :func:`diffc.jet`."""
    given = tuple(primals), tuple(series)
    if active():
        return _Jet(function)(*given)
    try:
        jitted = _JETS.get(function)
        if jitted is None:
            jitted = _JETS[function] = Valued(_Jet(function))
    except TypeError:  # no weak references to it
        jitted = Valued(_Jet(function))
    return jitted(*given)
