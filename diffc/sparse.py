"""Sparse Jacobians and Hessians: structure from the graph, colours, few directions, all entries.

Columns that share no row get one colour and are computed by one directional derivative (Curtis,
Powell and Reid, 1974); in reverse mode the same goes for rows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from diffc import linearized
from diffc.errors import DtypeError, UsageError
from diffc.gradient import Gradient, paths_of
from diffc.jitted import Jitted
from diffc.leaves import abstract_leaf, as_leaf, signature_of
from diffc.optimize import optimize
from diffc.trace import Traced, active, line, trace_flat
from diffc.trace.run import name_of
from diffc.transforms import expand
from diffc.transforms.sparsity import Pattern, jacobian_pattern, mirrored, union
from diffc.vectorized import Vectorized

Function = Callable[..., Any]
Array = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True)
class Sparse:
    """A matrix by its entries, sorted by row and column (COO).

    Attributes:
        rows: for each entry, the row-major position in the result.
        columns: the row-major position in the argument.
        data: the entries; some may be 0.
        shape: of the matrix.
        passes: how many directional derivatives they took.
    """

    rows: Array
    columns: Array
    data: Array
    shape: tuple[int, int]
    passes: int

    def dense(self) -> Array:
        """The whole matrix."""
        found = np.zeros(self.shape, self.data.dtype)
        found[self.rows, self.columns] = self.data
        return found


@dataclass(frozen=True, slots=True)
class _Plan:
    """What is known of a Jacobian before its values.

    ``colors`` of columns (or, in reverse mode, of rows); ``indices`` are copies of captured
    integers that the pattern was read with.
    """

    pattern: Pattern
    shape: tuple[int, int]
    colors: Array
    mode: str
    seeds: Array
    indices: tuple[tuple[Any, Array], ...]

    @property
    def passes(self) -> int:
        return len(self.seeds)


class SparseJacobian:
    """``sparse_jacobian(f)``; see :func:`diffc.sparse_jacobian`."""

    def __init__(
        self,
        function: Function,
        argnum: int = 0,
        mode: str = "cheaper",
        is_symmetric: bool = False,
    ) -> None:
        if not callable(function):
            raise UsageError(f"sparse_jacobian takes a function, found {function!r}")
        if mode not in ("forward", "reverse", "cheaper"):
            raise UsageError(
                f"mode is {mode!r}; needs forward, reverse or cheaper", location=line()
            )
        self.function = function
        self.origin: Function = getattr(function, "origin", function)
        self.argnum = argnum
        self.mode = mode
        self.is_symmetric = is_symmetric
        self._plans: dict[Any, _Plan] = {}
        self._forward = Jitted(self._columns)
        self._reverse = Jitted(self._rows)
        self._forward.origin = self._reverse.origin = self.origin

    def __call__(self, *args: Any) -> Sparse:
        """The entries at these arguments."""
        plan = self._plan(args)
        run = self._forward if plan.mode == "forward" else self._reverse
        values = np.asarray(run(plan.seeds, *args))
        rows, columns = plan.pattern.elements, plan.pattern.sources
        across, along = (rows, columns) if plan.mode == "forward" else (columns, rows)
        if self.is_symmetric:  # an entry stands alone in its row, or its mirror image does
            keys = across * len(plan.seeds) + plan.colors[along]
            _, which, counts = np.unique(keys, return_inverse=True, return_counts=True)
            is_shared = counts[which] > 1
            across, along = (
                np.where(is_shared, along, across),
                np.where(is_shared, across, along),
            )
        data = values[plan.colors[along], across]
        return Sparse(rows, columns, data, plan.shape, plan.passes)

    def pattern(self, *args: Any) -> tuple[Array, Array]:
        """Rows and columns of the entries that may differ from 0."""
        found = self._plan(args).pattern
        return found.elements, found.sources

    def explain(self, *args: Any) -> str:
        """How the entries are computed, and in how many passes."""
        plan = self._plan(args)
        rows, columns = plan.shape
        count = len(plan.pattern.elements)
        return (
            f"sparse Jacobian of {name_of(self.origin)}: {rows} x {columns}, {count} entries, "
            f"{plan.mode} mode in {plan.passes} passes"
        )

    # --- structure ----------------------------------------------------------------------------

    def _plan(self, args: tuple[Any, ...]) -> _Plan:
        if active():
            raise UsageError("a sparse derivative can't be taken within a trace", location=line())
        leaves = [as_leaf(arg, f"argument {i}") for i, arg in enumerate(args)]
        if not -len(args) <= self.argnum < len(args):
            raise UsageError(
                f"argnum is {self.argnum}, but there are {len(args)} arguments", location=line()
            )
        key = tuple(map(signature_of, leaves))
        known = self._plans.get(key)
        if known is not None and all(
            source is not None and np.array_equal(source, copy) for source, copy in known.indices
        ):
            return known
        found = self._plans[key] = self._made(leaves)
        return found

    def _made(self, leaves: Sequence[Any]) -> _Plan:
        place = self.argnum % len(leaves)
        traced = trace_flat(
            self.function,
            [abstract_leaf(leaf) for leaf in leaves],
            paths_of(self.origin, tuple(leaves), {}),
            name=name_of(self.origin),
            origin=self.origin,
        )
        source = traced.graph.inputs[place].aval
        if not source.is_float:
            raise DtypeError(f"argument {place} is {source}; needs floats", location=line())
        if traced.num_results != 1 or not traced.graph.outputs[0].aval.is_float:
            raise UsageError("a sparse Jacobian is of one float array", location=line())
        graph = optimize(expand(traced.graph))
        count = len(leaves)
        integers = {
            count + i: (captured.array, np.array(current))
            for i, captured in enumerate(traced.captured)
            if not captured.aval.is_float and (current := captured.current()) is not None
        }
        mask = [i == place for i in range(len(graph.inputs))]
        values = {i: copy for i, (_, copy) in integers.items()}
        pattern = jacobian_pattern(graph, mask, values)[0]
        shape = (pattern.size, _size(traced, place))
        if self.is_symmetric:
            pattern = union([pattern, mirrored(pattern)])
        return _colored(pattern, shape, self.mode, self.is_symmetric, tuple(integers.values()))

    # --- values -------------------------------------------------------------------------------

    def _columns(self, seeds: Any, *args: Any) -> Any:
        x = args[self.argnum]

        def of(y: Any) -> Any:
            return self.function(*_replaced(args, self.argnum, y))

        def along(seed: Any) -> Any:
            seed = seed.reshape(x.shape).astype(x.dtype)
            return linearized.jvp(of, (x,), (seed,))[1].reshape(-1)

        return Vectorized(along, 0, 0)(seeds)

    def _rows(self, seeds: Any, *args: Any) -> Any:
        x = args[self.argnum]
        out, pull = linearized.vjp(lambda y: self.function(*_replaced(args, self.argnum, y)), (x,))

        def along(seed: Any) -> Any:
            return pull(seed.reshape(out.shape).astype(out.dtype))[0].reshape(-1)

        return Vectorized(along, 0, 0)(seeds)


def _size(traced: Traced, place: int) -> int:
    size = traced.graph.inputs[place].aval.size
    assert isinstance(size, int), "traces have integer dimensions"
    return size


def _replaced(args: Sequence[Any], place: int, value: Any) -> list[Any]:
    found = list(args)
    found[place] = value
    return found


def _colored(
    pattern: Pattern,
    shape: tuple[int, int],
    mode: str,
    is_symmetric: bool,
    indices: tuple[tuple[Any, Array], ...],
) -> _Plan:
    """Colours for columns or rows, whichever needs fewer."""
    rows, columns = pattern.elements, pattern.sources
    choices = {}
    if is_symmetric:
        choices["forward"] = color_symmetric(rows, columns, shape[0])
    elif mode != "reverse":
        choices["forward"] = color(columns, rows, shape[1], shape[0])
    if mode != "forward":
        choices["reverse"] = color(rows, columns, shape[0], shape[1])
    chosen = min(choices, key=lambda name: choices[name].max(initial=-1))
    colors = choices[chosen]
    used = int(colors.max(initial=-1)) + 1
    seeds = np.zeros((used, len(colors)))
    touched = np.flatnonzero(colors >= 0)
    seeds[colors[touched], touched] = 1.0
    return _Plan(pattern, shape, colors, chosen, seeds, indices)


def color(items: Array, groups: Array, count: int, total: int) -> Array:
    """Colours so that items that meet in a group differ; greedily, those with most entries first.

    Args:
        items: for each entry of a matrix, its column (or row).
        groups: for each entry, its row (or column).
        count: how many items there are.
        total: how many groups there are.

    Returns:
        A colour for each item, from 0; -1 for items without entries.
    """
    order = np.argsort(items, kind="stable")
    by_item = np.split(groups[order], np.cumsum(np.bincount(items, minlength=count))[:-1])
    taken: list[set[int]] = [set() for _ in range(total)]
    colors = np.full(count, -1)
    sizes = np.bincount(items, minlength=count)
    for item in np.argsort(-sizes, kind="stable"):
        if not sizes[item]:
            break
        near = [taken[group] for group in by_item[item].tolist()]
        found = 0
        while any(found in each for each in near):
            found += 1
        colors[item] = found
        for each in near:
            each.add(found)
    return colors


def color_symmetric(rows: Array, columns: Array, count: int) -> Array:
    """Colours for a symmetric matrix, such that each entry or its mirror image stands alone.

    A star colouring: neighbours differ, and no path of four has two colours (Gebremedhin, Manne and
    Pothen, 2005, algorithm 4.1); greedily, those with most entries first.

    Args:
        rows: for each entry, its row; entries are sorted by row.
        columns: for each entry, its column.
        count: how many rows there are.

    Returns:
        A colour for each column, from 0; -1 for columns without entries.
    """
    sizes = np.bincount(rows, minlength=count)
    near = [
        [w for w in each.tolist() if w != v]
        for v, each in enumerate(np.split(columns, np.cumsum(sizes)[:-1]))
    ]
    colors = [-1] * count
    # of each vertex, the colours of its neighbours, and how many have each
    around: list[dict[int, int]] = [{} for _ in range(count)]
    for v in np.argsort(-sizes, kind="stable").tolist():
        if not sizes[v]:
            break
        forbidden: set[int] = set()
        for w in near[v]:
            own = colors[w]
            if own < 0:
                forbidden.update(around[w])
                continue
            forbidden.add(own)
            # x next to w: its colour ends a path v, w, x, y if x has another neighbour like w
            forbidden.update(colors[x] for x in near[w] if around[x].get(own, 0) > 1)
        found = 0
        while found in forbidden:
            found += 1
        colors[v] = found
        for w in near[v]:
            around[w][found] = around[w].get(found, 0) + 1
    return np.array(colors, int)


def sparse_jacobian(function: Function, argnum: int = 0, mode: str = "cheaper") -> SparseJacobian:
    """The function that gives a Jacobian by its entries, where most of them are 0.

    Which entries can differ from 0 is read from the graph; columns that share no row are computed
    together. A tridiagonal Jacobian of any size takes three directional derivatives.

    Args:
        function: gives one float array; its arguments are arrays and numbers.
        argnum: by which argument.
        mode: "forward", "reverse", or "cheaper": whichever needs fewer passes.

    Returns:
        A function that gives :class:`Sparse` (rows, columns, data, shape, passes), of shape
        (elements of the result, elements of the argument); its ``pattern(*args)`` gives rows and
        columns alone, and ``explain(*args)`` says how many passes it takes. For SciPy's matrices:
        ``diffc.scipy.sparse_jacobian``.

    Raises:
        DtypeError: the argument holds integers.
        UsageError: the result is not one float array; or it is called within a trace.

    Example:
        >>> import numpy as np, diffc
        >>> by = diffc.sparse_jacobian(lambda x: x[1:] * x[:-1])
        >>> found = by(np.arange(5.0))
        >>> found.passes, found.data
        (2, array([1., 0., 2., 1., 3., 2., 4., 3.]))
    """
    return SparseJacobian(function, argnum, mode)


def sparse_hessian(function: Function, argnum: int = 0) -> SparseJacobian:
    """The function that gives second derivatives of a scalar function by their entries.

    As :func:`sparse_jacobian` of the gradient, forward over reverse. Symmetry saves passes: of an
    arrow, two are enough.

    Example:
        >>> import numpy as np, diffc
        >>> found = diffc.sparse_hessian(lambda x: np.sum(x[1:] * x[:-1]))(np.zeros(4))
        >>> found.passes, found.dense()[0]
        (2, array([0., 1., 0., 0.]))
    """
    gradient = Gradient(function, argnum, False, with_value=False)
    return SparseJacobian(gradient, argnum, "forward", is_symmetric=True)
