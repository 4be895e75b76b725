"""``linear_solve``: linear systems known by their products, with implicit derivatives.

The method is a function that is traced into the program; its steps are never differentiated. What
it closes over (factors, preconditioners) becomes an operand of the op ``linear_solve``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from diffc import tree
from diffc.control.outside import run_outside
from diffc.control.region import (
    flat,
    need_function,
    operand_of,
    refuse_writes,
    region_of,
    trace_region,
)
from diffc.errors import DtypeError, ShapeError, UsageError
from diffc.leaves import abstract_leaf
from diffc.linear.methods import METHODS
from diffc.trace import Abstract, Traced, active, emit, inline, line
from diffc.transforms import explain_nonlinear, transpose

Function = Callable[..., Any]


def linear_solve(
    matvec: Function,
    b: Any,
    solve: str | Function | None = None,
    *,
    transpose_solve: Function | None = None,
    symmetric: bool = False,
) -> Any:
    """Solves ``matvec(x) = b``; its derivatives are solves too, whatever the method does.

    Args:
        matvec: a linear function from a pytree like ``b`` to one like it; it may read any arrays
            from outside, and derivatives by these are right.
        b: a pytree of floats.
        solve: "dense" (elimination on the matrix that ``matvec`` stands for), "cg" (conjugate
            gradients, for symmetric positive definite systems), "bicgstab", or a function
            ``solve(matvec, b)``. By default "cg" for what is symmetric, else "dense".
        transpose_solve: the same for the transposed system, which reverse mode solves; by default
            ``solve`` with the transposed function.
        symmetric: whether ``matvec`` is its own transpose.

    Returns:
        The solution, like ``b``.

    Raises:
        UsageError: ``matvec`` is not linear; says which line.
        ShapeError: it doesn't give what ``b`` is like.
        DtypeError: ``b`` holds integers.

    Example:
        >>> import numpy as np, diffc
        >>> def f(d):
        ...     return np.sum(diffc.linear_solve(lambda x: d * x, np.array([1.0, 4.0])))
        >>> diffc.value_and_grad(f)(np.array([1.0, 2.0]))
        (array(3.), array([-1., -1.]))
    """
    need_function(matvec, "the matvec of linear_solve")
    chosen = solve if solve is not None else "cg" if symmetric else "dense"
    method = METHODS.get(chosen) if isinstance(chosen, str) else chosen
    if not callable(method):
        raise UsageError(
            f"linear_solve knows no method {solve!r}",
            location=line(),
            hint=f"use one of {', '.join(METHODS)}, or a function solve(matvec, b)",
        )
    if not active():
        call = partial(
            linear_solve, solve=method, transpose_solve=transpose_solve, symmetric=symmetric
        )
        return run_outside(call, [matvec], b)
    system = _System(matvec, b)
    forward = system.region(method, matvec)
    if symmetric:
        backward = system.region(transpose_solve or method, matvec)
    else:
        backward = system.region(transpose_solve or method, system.transposed)
    parts = (system.products, forward, backward)
    results = emit(
        "linear_solve",
        *(operand_of(c) for part in parts for c in part.captured),
        *system.leaves,
        regions=tuple(region_of(part, system.avals) for part in parts),
        products=len(system.products.captured),
        forward=len(forward.captured),
        backward=len(backward.captured),
    )
    return system.structure.build(results)


class _System:
    """The products of a system, traced on unknowns like the right-hand side."""

    def __init__(self, matvec: Function, b: Any) -> None:
        self.given, self.structure = flat(b, "b")
        self.avals = [abstract_leaf(leaf).aval for leaf in self.given]
        for path, aval in zip(self.structure.paths("b"), self.avals, strict=True):
            if not aval.is_float:
                raise DtypeError(
                    f"{path} of linear_solve is {aval}; needs floats",
                    location=line(),
                    hint="convert it: b.astype(float)",
                )
        self.leaves = [
            leaf if not abstract_leaf(leaf).weak else emit("convert", leaf, dtype=aval.dtype)[0]
            for leaf, aval in zip(self.given, self.avals, strict=True)
        ]
        self.products = self._traced(matvec, lambda *x: matvec(self.structure.build(x)), "x")
        graph = region_of(self.products, self.avals)
        count = len(self.products.captured)
        problem = explain_nonlinear(graph, [i >= count for i in range(len(graph.inputs))])
        if problem is not None:
            raise UsageError(
                f"the matvec of linear_solve is not linear: {problem}",
                location=line(),
                hint="what is added to the products belongs into b",
            )
        self._turned = transpose(graph, [i >= count for i in range(len(graph.inputs))])

    def transposed(self, x: Any) -> Any:
        """The products of the transposed system."""
        hidden = [operand_of(c) for c in self.products.captured]
        return self.structure.build(inline(self._turned, [*hidden, *tree.leaves(x)]))

    def region(self, method: Function, products: Function) -> Traced:
        """A method of solution as a function of the right-hand side."""
        return self._traced(method, lambda *b: method(products, self.structure.build(b)), "b")

    def _traced(self, function: Function, run: Function, name: str) -> Traced:
        abstracts = [Abstract(aval) for aval in self.avals]
        traced = trace_region(function, run, abstracts, self.structure.paths(name))
        what = f"{getattr(function, '__name__', 'the method')} of linear_solve"
        refuse_writes(traced, what, "return new arrays instead")
        _need_like(traced, self.structure, self.avals, what)
        return traced


def _need_like(traced: Traced, structure: tree.TreeDef, avals: Sequence[Any], what: str) -> None:
    if traced.out_tree is not structure:
        problem = tree.explain_mismatch(structure, traced.out_tree, "result")
        raise ShapeError(f"{what} gives what is not like b: {problem}", location=line())
    for found, aval in zip(traced.graph.output_avals, avals, strict=False):
        if found is not aval:
            raise ShapeError(f"{what} gives {found}; needs {aval}, like b", location=line())
