"""Values that are known by an equation: roots, fixed points, minimizers.

The solver is traced into the program like any code, but never differentiated: derivatives of all
orders come from the equation at the solution, by the implicit function theorem. With
``f(x, theta) = 0``: ``x_dot = -(df/dx)^-1 (df/dtheta) theta_dot``, one linear system for each
direction, forward or backward.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy

from diffc import linearized, tree
from diffc.control import while_loop
from diffc.control.outside import run_outside
from diffc.control.region import (
    flat,
    need_function,
    operand_of,
    refuse_writes,
    region_of,
    trace_region,
)
from diffc.custom import CustomJvp
from diffc.errors import DtypeError, ShapeError
from diffc.gradient import Gradient
from diffc.leaves import abstract_leaf
from diffc.linear import dense, linear_solve
from diffc.linear.methods import ravel
from diffc.trace import Abstract, active, emit, inline, line
from diffc.trace.namespace import stand_in

np: Any = stand_in(numpy)
Function = Callable[..., Any]

#: how often a step is halved before it is taken anyway
_HALVINGS = 30


def root(
    f: Function,
    x0: Any,
    solve: Function | None = None,
    *,
    linear: str | Function = "dense",
    symmetric: bool = False,
    tol: float | None = None,
    max_steps: int = 100,
) -> Any:
    """The solution of ``f(x) = 0`` that a solver finds from ``x0``.

    Args:
        f: from a pytree of floats to one like it. It may read any arrays from outside: derivatives
            of the solution by these follow from the equation. ``x0`` has derivative zero.
        x0: where the solver begins.
        solve: ``solve(f, x0)``; by default Newton's method with steps that are halved until they
            help, for systems small enough to hold their matrix.
        linear: how derivatives solve their linear systems; see :func:`diffc.linear_solve`.
        symmetric: whether the derivative of ``f`` by x is symmetric.
        tol: the default solver stops when no element of ``f(x)`` is larger; by default some units
            of the last place of 1.
        max_steps: the default solver stops after so many steps.

    Returns:
        The solution, like ``x0``. Whether it is one, only ``f`` can tell.

    Raises:
        DtypeError: ``x0`` holds integers.
        ShapeError: ``f`` doesn't give what ``x0`` is like.

    Example:
        >>> import numpy as np, diffc
        >>> def cube_root(a):
        ...     return diffc.root(lambda x: x ** 3 - a, 1.0)
        >>> np.round(diffc.value_and_grad(cube_root)(8.0), 12)
        array([2.        , 0.08333333])
    """
    need_function(f, "the function of root")
    if solve is None:
        method: Function = lambda f, x0: newton(f, x0, tol=tol, max_steps=max_steps)  # noqa: E731  # one of two
    else:
        need_function(solve, "the solver of root")
        method = solve
    if not active():
        call = partial(root, solve=method, linear=linear, symmetric=symmetric)
        return run_outside(call, [f], x0)
    return _implicit(f, x0, method, linear, symmetric, "root", lambda f: f)


def fixed_point(
    f: Function,
    x0: Any,
    solve: Function | None = None,
    *,
    linear: str | Function = "dense",
    tol: float | None = None,
    max_steps: int = 1000,
) -> Any:
    """The solution of ``x = f(x)`` that iteration from ``x0`` finds.

    Arguments and result as for :func:`diffc.root`; ``solve(f, x0)`` gets this ``f``. The default
    solver applies ``f`` until no element changes by more than ``tol``, relative to 1 and to itself.

    Example:
        >>> import numpy as np, diffc
        >>> def square_root(a):
        ...     return diffc.fixed_point(lambda x: (x + a / x) / 2, 1.0)
        >>> np.round(diffc.value_and_grad(square_root)(4.0), 12)
        array([2.  , 0.25])
    """
    need_function(f, "the function of fixed_point")
    if solve is None:
        method: Function = lambda f, x0: iterate(f, x0, tol=tol, max_steps=max_steps)  # noqa: E731  # one of two
    else:
        need_function(solve, "the solver of fixed_point")
        method = solve
    if not active():
        return run_outside(partial(fixed_point, solve=method, linear=linear), [f], x0)

    def gap(f: Function) -> Function:
        return lambda x: tree.map(lambda a, b: a - b, x, f(x))

    return _implicit(f, x0, method, linear, False, "fixed_point", gap)


def argmin(
    f: Function,
    x0: Any,
    solve: Function | None = None,
    *,
    linear: str | Function = "dense",
    tol: float | None = None,
    max_steps: int = 100,
) -> Any:
    """The minimizer of a smooth scalar function that a solver finds from ``x0``.

    Arguments and result as for :func:`diffc.root`: derivatives follow from the gradient being zero
    there. ``solve(f, x0)`` gets the function itself; the default one is Newton's method, with the
    gradient's direction where the Hessian is not positive definite, and steps that are halved until
    the function falls.

    Example:
        >>> import numpy as np, diffc
        >>> def mean(a):
        ...     return diffc.argmin(lambda x: np.sum((x - a) ** 2), 0.0)
        >>> diffc.value_and_grad(lambda a: mean(a) + 0.0)(np.array([1.0, 3.0]))
        (array(2.), array([0.5, 0.5]))
    """
    need_function(f, "the function of argmin")
    if solve is not None:
        need_function(solve, "the solver of argmin")
    if not active():
        call = partial(argmin, solve=solve, linear=linear, tol=tol, max_steps=max_steps)
        return run_outside(call, [f], x0)

    def method(f: Function, x0: Any) -> Any:
        return descend(f, x0, tol=tol, max_steps=max_steps) if solve is None else solve(f, x0)

    def slope(f: Function) -> Function:
        return Gradient(f, 0, False, with_value=False)

    return _implicit(f, x0, method, linear, True, "argmin", slope)


def _implicit(
    f: Function,
    x0: Any,
    method: Function,
    linear: str | Function,
    symmetric: bool,
    what: str,
    equation: Function,
) -> Any:
    """The solution as a function of what ``f`` reads from outside, with its derivative rule.

    ``method(f, x0)`` finds the solution, at which ``equation(f)`` is zero.
    """
    leaves, structure = flat(x0, "x0")
    avals = [abstract_leaf(leaf).aval for leaf in leaves]
    for path, aval in zip(structure.paths("x0"), avals, strict=True):
        if not aval.is_float:
            raise DtypeError(
                f"{path} of {what} is {aval}; needs floats",
                location=line(),
                hint="start from floats: x0.astype(float)",
            )
    paths = structure.paths("x")
    traced = trace_region(f, lambda *x: f(structure.build(x)), [Abstract(a) for a in avals], paths)
    refuse_writes(traced, f"the function of {what}", "return new arrays instead")
    out_tree = traced.out_tree
    found = traced.graph.output_avals[: traced.num_results]
    if what == "argmin":
        is_right = [a.shape for a in found] == [()] and found[0].is_float
    else:
        is_right = out_tree is structure and found == tuple(avals)
    if not is_right:
        needs = "one float" if what == "argmin" else f"{', '.join(map(str, avals))}, like x0"
        raise ShapeError(
            f"the function of {what} gives {', '.join(map(str, found))}; needs {needs}",
            location=line(),
        )
    graph = region_of(traced, found)

    def bound(theta: Any) -> Function:
        """``f``, reading ``theta`` from outside."""
        return lambda x: out_tree.build(inline(graph, [*theta, *tree.leaves(x)]))

    def solved(theta: Any, x0: Any) -> Any:
        return method(bound(theta), x0)

    solved.__name__ = what
    custom = CustomJvp(solved)

    @custom.defjvp
    def rule(primals: Any, tangents: Any) -> Any:
        theta, x0 = primals
        x = custom(theta, x0)
        moving = [i for i, dot in enumerate(tangents[0]) if dot is not None]
        if not moving:
            return x, tree.map(lambda leaf: None, x)

        def by_theta(*given: Any) -> Any:
            merged = list(theta)
            for i, value in zip(moving, given, strict=True):
                merged[i] = value
            return equation(bound(merged))(x)

        dots = tuple(tangents[0][i] for i in moving)
        _, moved = linearized.jvp(by_theta, tuple(theta[i] for i in moving), dots)

        def products(v: Any) -> Any:
            return linearized.jvp(equation(bound(theta)), (x,), (v,))[1]

        x_dot = linear_solve(products, moved, linear, symmetric=symmetric)
        return x, tree.map(lambda leaf: -leaf, x_dot)

    start = [
        emit("convert", leaf, dtype=aval.dtype)[0] if abstract_leaf(leaf).weak else leaf
        for leaf, aval in zip(leaves, avals, strict=True)
    ]
    return custom([operand_of(c) for c in traced.captured], structure.build(start))


# --- solvers ----------------------------------------------------------------------------------


def _default_tol(x: Any) -> float:
    return 64 * float(numpy.finfo(x.dtype).eps)


def _greatest(x: Any) -> Any:
    return np.max(np.abs(x), initial=0.0)


def newton(f: Function, x0: Any, *, tol: float | None = None, max_steps: int = 100) -> Any:
    """Newton's method for ``f(x) = 0``; a step is halved until the residual shrinks."""
    x, back = ravel(x0)
    tol = _default_tol(x) if tol is None else tol

    def residual(x: Any) -> Any:
        return ravel(f(back(x)))[0]

    def go_on(carry: Any) -> Any:
        _, r, i = carry
        return (_greatest(r) > tol) & (i < max_steps)

    def step(carry: Any) -> Any:
        x, r, i = carry
        full = dense(lambda v: linearized.jvp(residual, (x,), (v,))[1], r)
        x = _halved(lambda t: x - t * full, lambda y: np.sum(residual(y) ** 2), np.sum(r * r))
        return x, residual(x), i + 1

    return back(while_loop(go_on, step, (x, residual(x), 0))[0])


def _halved(at: Function, cost: Function, least: Any) -> Any:
    """``at(t)`` for the first t of 1, 1/2, 1/4, ... where the cost is below ``least``."""

    def go_on(carry: Any) -> Any:
        _, found, i = carry
        return ~(found < least) & (i < _HALVINGS)

    def shorter(carry: Any) -> Any:
        t, _, i = carry
        t = t / 2
        return t, cost(at(t)), i + 1

    one = np.ones_like(least)
    return at(while_loop(go_on, shorter, (one, cost(at(one)), 0))[0])


def iterate(f: Function, x0: Any, *, tol: float | None = None, max_steps: int = 1000) -> Any:
    """Applies ``f`` until nothing changes any more."""
    x, back = ravel(x0)
    tol = _default_tol(x) if tol is None else tol

    def go_on(carry: Any) -> Any:
        x, before, i = carry
        moved = np.any(~(np.abs(x - before) <= tol * (1 + np.abs(x))))
        return moved & (i < max_steps)

    def step(carry: Any) -> Any:
        x, _, i = carry
        return ravel(f(back(x)))[0], x, i + 1

    return back(while_loop(go_on, step, (ravel(f(back(x)))[0], x, 1))[0])


def descend(f: Function, x0: Any, *, tol: float | None = None, max_steps: int = 100) -> Any:
    """Newton's method for the minimum of ``f``; a step is halved until ``f`` falls."""
    x, back = ravel(x0)
    tol = _default_tol(x) if tol is None else tol

    def value(x: Any) -> Any:
        return f(back(x))

    slope = Gradient(value, 0, False, with_value=False)

    def go_on(carry: Any) -> Any:
        _, g, moved, i = carry
        return (_greatest(g) > tol) & moved & (i < max_steps)

    def step(carry: Any) -> Any:
        x, g, _, i = carry
        full = dense(lambda v: linearized.jvp(slope, (x,), (v,))[1], g)
        falls = np.sum(full * g) > 0
        way = np.where(falls, full, g)
        now = value(x)
        # Near the minimum the value can't tell any more; the gradient can.
        slack = np.abs(now) * _default_tol(x)
        new = _halved(lambda t: x - t * way, value, now + slack)
        return new, slope(new), np.any(new != x), i + 1

    return back(while_loop(go_on, step, (x, slope(x), True, 0))[0])
