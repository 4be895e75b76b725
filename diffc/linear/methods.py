"""Methods that solve linear systems known by their products: on pytrees, traced.

Each is ``method(matvec, b)``. The iterative ones stop when the residual has fallen to ``tol`` times
the right-hand side, or after ``max_steps``; they don't say which.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy

from diffc import tree
from diffc.control import while_loop
from diffc.linear.elimination import factor
from diffc.trace.namespace import stand_in
from diffc.vectorized import Vectorized

np: Any = stand_in(numpy)
Function = Callable[..., Any]


def ravel(x: Any) -> tuple[Any, Function]:
    """All leaves of a pytree as one vector, and the way back."""
    leaves, structure = tree.flatten(x)
    leaves = [np.asarray(leaf) for leaf in leaves]

    def back(flat: Any) -> Any:
        found, at = [], 0
        for leaf in leaves:
            found.append(np.reshape(flat[at : at + leaf.size], leaf.shape).astype(leaf.dtype))
            at += leaf.size
        return structure.build(found)

    if not leaves:
        return np.zeros(0), back
    return np.concatenate([np.ravel(leaf) for leaf in leaves]), back


def matrix_of(matvec: Function, like: Any) -> Any:
    """The matrix of a linear function on pytrees such as ``like``."""
    flat, back = ravel(like)

    def products(unit: Any) -> Any:
        return ravel(matvec(back(unit)))[0]

    return Vectorized(products, 0, 1)(np.eye(flat.shape[0], dtype=flat.dtype))


def dense(matvec: Function, b: Any) -> Any:
    """Elimination with pivots on the whole matrix, which takes a product for each unknown."""
    flat, back = ravel(b)
    if flat.shape[0] == 0:
        return b
    return back(factor(matrix_of(matvec, b)).solve(flat[:, None])[:, 0])


def _default_tol(dtype: Any) -> float:
    return float(numpy.finfo(dtype).eps) * 4


def cg(matvec: Function, b: Any, *, tol: float | None = None, max_steps: int | None = None) -> Any:
    """Conjugate gradients (Hestenes and Stiefel, 1952), for symmetric positive definite systems."""
    flat, back = ravel(b)
    if flat.shape[0] == 0:
        return b
    least = (_default_tol(flat.dtype) if tol is None else tol) ** 2 * np.sum(flat * flat)
    steps = 10 * flat.shape[0] + 20 if max_steps is None else max_steps

    def go_on(carry: Any) -> Any:
        _, _, _, size, i = carry
        return (size > least) & (i < steps)

    def step(carry: Any) -> Any:
        x, r, p, size, i = carry
        image = ravel(matvec(back(p)))[0]
        pace = size / np.sum(p * image)
        x, r = x + pace * p, r - pace * image
        new = np.sum(r * r)
        return x, r, r + new / size * p, new, i + 1

    start = (np.zeros_like(flat), flat, flat, np.sum(flat * flat), 0)
    return back(while_loop(go_on, step, start)[0])


def bicgstab(
    matvec: Function, b: Any, *, tol: float | None = None, max_steps: int | None = None
) -> Any:
    """Stabilized biconjugate gradients (van der Vorst, 1992), for any regular system."""
    flat, back = ravel(b)
    if flat.shape[0] == 0:
        return b
    least = (_default_tol(flat.dtype) if tol is None else tol) ** 2 * np.sum(flat * flat)
    steps = 10 * flat.shape[0] + 20 if max_steps is None else max_steps

    def product(p: Any) -> Any:
        return ravel(matvec(back(p)))[0]

    def go_on(carry: Any) -> Any:
        _, r, _, _, i = carry
        return (np.sum(r * r) > least) & (i < steps)

    def step(carry: Any) -> Any:
        x, r, p, rho, i = carry
        v = product(p)
        alpha = rho / np.sum(flat * v)
        s = r - alpha * v
        t = product(s)
        scale = np.sum(t * t)
        omega = np.where(scale > 0, np.sum(t * s) / np.where(scale > 0, scale, 1.0), 0.0)
        x = x + alpha * p + omega * s
        r = s - omega * t
        new = np.sum(flat * r)
        done = np.sum(r * r) <= least
        ratio = np.where(done, 0.0, new / np.where(done, 1.0, rho) * alpha)
        beta = np.where(done, 0.0, ratio / np.where(done, 1.0, omega))
        return x, r, r + beta * (p - omega * v), new, i + 1

    start = (np.zeros_like(flat), flat, flat, np.sum(flat * flat), 0)
    return back(while_loop(go_on, step, start)[0])


METHODS: dict[str, Function] = {"dense": dense, "cg": cg, "bicgstab": bicgstab}
