"""``np.linalg`` on traced arrays: solve, inv, det, slogdet, cholesky; and triangular systems.

Values come from elimination, in native loops or, of small matrices, number by number; derivatives
from linear systems again. All take stacks of matrices. A singular matrix, or one that is not
positive definite, gives inf or nan, where NumPy raises ``LinAlgError``.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from math import prod
from typing import Any

import numpy

from diffc.control.outside import run_outside
from diffc.custom import CustomJvp
from diffc.errors import DtypeError, ShapeError
from diffc.ir.aval import HALVES
from diffc.linear import elimination
from diffc.linear.solve import linear_solve
from diffc.trace import Tracer, active, emit, line
from diffc.trace.arguments import tracer
from diffc.trace.namespace import stand_in
from diffc.trace.table import FUNCTIONS, implements
from diffc.vectorized import Vectorized

np: Any = stand_in(numpy)
Function = Callable[..., Any]


def _matrix(a: Any, what: str, is_square: bool = True) -> Tracer:
    """A stack of float matrices."""
    x = tracer(a, what)
    if x.aval.dtype in HALVES:
        raise DtypeError(
            f"{what} of {x.aval}: NumPy has no linear algebra in half precision",
            location=line(),
            hint="convert it: a.astype(np.float32)",
        )
    if not x.aval.is_float:
        (x,) = emit("convert", x, dtype="f64")
    shape = x.aval.shape
    if len(shape) < 2 or (is_square and shape[-1] != shape[-2]):
        kind = "square matrices" if is_square else "matrices"
        raise ShapeError(f"{what} needs {kind} in the last two axes, not {x.aval}", location=line())
    return x


def _stacked(core: Function, *arrays: Any) -> Any:
    """``core`` on each of a stack: matrices are the last two axes, the others broadcast."""
    leads = [array.shape[:-2] for array in arrays]
    lead = numpy.broadcast_shapes(*leads)
    if not lead:
        return core(*arrays)
    flat = []
    for array in arrays:
        wide = np.broadcast_to(array, (*lead, *array.shape[-2:]))
        flat.append(np.reshape(wide, (prod(lead), *array.shape[-2:])))
    found = Vectorized(core, 0, 0)(*flat)
    if isinstance(found, tuple):
        return tuple(np.reshape(each, (*lead, *each.shape[1:])) for each in found)
    return np.reshape(found, (*lead, *found.shape[1:]))


# --- general systems --------------------------------------------------------------------------


def _solve(a: Any, b: Any) -> Any:
    """One system with several right-hand sides; the factors serve derivatives too."""
    if b.shape[0] == 0 or b.shape[1] == 0:
        return b
    (plain,) = emit("stop_gradient", a)
    factors = elimination.factor(plain)
    return linear_solve(
        lambda x: a @ x,
        b,
        lambda _, r: factors.solve(r),
        transpose_solve=lambda _, r: factors.solve_transposed(r),
    )


@implements("linalg.solve")
def solve(a: Any, b: Any) -> Any:
    """The solution of ``a x = b``; ``b`` is one vector, or matrices of columns."""
    x, y = _matrix(a, "np.linalg.solve"), tracer(b, "np.linalg.solve")
    is_vector = y.ndim == 1
    y = _matrix(y[:, None] if is_vector else y, "np.linalg.solve", is_square=False)
    dtype = numpy.result_type(x.dtype, y.dtype)
    x, y = x.astype(dtype), y.astype(dtype)
    if x.shape[-1] != y.shape[-2]:
        raise ShapeError(f"np.linalg.solve: {x.aval} and {y.aval} do not fit", location=line())
    found = _stacked(_solve, x, y)
    return found[..., 0] if is_vector else found


@implements("linalg.inv")
def inv(a: Any) -> Any:
    """The inverse of each matrix."""
    x = _matrix(a, "np.linalg.inv")
    return _stacked(_solve, x, np.eye(x.shape[-1], dtype=x.dtype))


def _determinant(a: Any) -> tuple[Any, Any]:
    """The sign of a determinant, and the logarithm of its size."""
    diagonal, sign = _diagonal(a)
    return sign * np.prod(np.sign(diagonal)), np.sum(np.log(np.abs(diagonal)))


def _diagonal(a: Any) -> tuple[Any, Any]:
    """Numbers whose product is the determinant but for a sign, and that sign."""
    if a.shape[0] == 0:
        return np.ones(0, a.dtype), np.ones((), a.dtype)
    factors = elimination.factor(a)
    sign = 1 - 2 * (factors.flips() % 2)
    return factors.diagonal(), np.asarray(sign).astype(a.dtype)


_SLOGDET = CustomJvp(_determinant)


@_SLOGDET.defjvp
def _slogdet_rule(primals: Any, tangents: Any) -> Any:
    """``d log|det a| = tr(a^-1 da)``."""
    (a,), (a_dot,) = primals, tangents
    return _SLOGDET(a), (None, np.sum(np.transpose(_inverse(a)) * a_dot))


def _inverse(a: Any) -> Any:
    return _solve(a, np.eye(a.shape[0], dtype=a.dtype))


@implements("linalg.slogdet")
def slogdet(a: Any) -> Any:
    """The sign of each determinant, and the logarithm of its size."""
    sign, size = _stacked(lambda x: _SLOGDET(x), _matrix(a, "np.linalg.slogdet"))
    return _RESULT(sign, size)


_RESULT: Any = type(numpy.linalg.slogdet(numpy.eye(1)))


def _det_value(a: Any) -> Any:
    diagonal, sign = _diagonal(a)
    return sign * np.prod(diagonal)


_DET = CustomJvp(_det_value)


@_DET.defjvp
def _det_rule(primals: Any, tangents: Any) -> Any:
    """Jacobi's formula: ``d det a = det a tr(a^-1 da)``."""
    (a,), (a_dot,) = primals, tangents
    found = _DET(a)
    return found, np.sum(found * np.transpose(_inverse(a)) * a_dot)


@implements("linalg.det")
def det(a: Any) -> Any:
    """The determinant of each matrix."""
    return _stacked(lambda x: _DET(x), _matrix(a, "np.linalg.det"))


# --- triangular systems -----------------------------------------------------------------------


def _triangular(a: Any, b: Any, lower: bool, unit: bool) -> Any:
    if b.shape[0] == 0 or b.shape[1] == 0:
        return b
    own = np.tril(a, -1 if unit else 0) if lower else np.triu(a, 1 if unit else 0)
    if unit:
        own = own + np.eye(a.shape[0], dtype=a.dtype)
    (plain,) = emit("stop_gradient", own)
    return linear_solve(
        lambda x: own @ x,
        b,
        lambda _, r: elimination.substitute(plain, r, lower),
        transpose_solve=lambda _, r: elimination.substitute(plain.T, r, not lower),
    )


def triangular(a: Any, b: Any, lower: bool, unit: bool) -> Any:
    """As :func:`triangular_solve`, within a trace."""
    what = "triangular_solve"
    x, y = _matrix(a, what), tracer(b, what)
    is_vector = y.ndim == 1
    y = _matrix(y[:, None] if is_vector else y, what, is_square=False)
    dtype = numpy.result_type(x.dtype, y.dtype)
    x, y = x.astype(dtype), y.astype(dtype)
    if x.shape[-1] != y.shape[-2]:
        raise ShapeError(f"{what}: {x.aval} and {y.aval} do not fit", location=line())
    found = _stacked(lambda x, y: _triangular(x, y, lower, unit), x, y)
    return found[..., 0] if is_vector else found


# --- Cholesky ---------------------------------------------------------------------------------


def _cholesky_value(a: Any) -> Any:
    return elimination.cholesky_factor(a) if a.shape[0] else a


_CHOLESKY = CustomJvp(_cholesky_value)


@_CHOLESKY.defjvp
def _cholesky_rule(primals: Any, tangents: Any) -> Any:
    """``dL = L P(L^-1 da L^-T)``; P halves the diagonal of the lower triangle (Smith, 1995)."""
    (a,), (a_dot,) = primals, tangents
    lower = _CHOLESKY(a)
    if not a.shape[0]:
        return lower, a_dot
    # NumPy reads the lower triangle; what it stands for is symmetric.
    below = np.tril(a_dot, -1)
    a_dot = below + np.transpose(below) + np.eye(a.shape[0], dtype=a.dtype) * a_dot
    inner = _triangular(lower, a_dot, True, False)
    inner = _triangular(lower, np.transpose(inner), True, False)
    half = np.tril(inner, -1) + 0.5 * np.eye(a.shape[0], dtype=a.dtype) * inner
    return lower, lower @ half


@implements("linalg.cholesky")
def cholesky(a: Any, /, *, upper: bool = False) -> Any:
    """The triangular factor L with ``L L.T = a``, or its transpose; reads one triangle."""
    x = _matrix(a, "np.linalg.cholesky")
    if upper:
        found = _stacked(lambda x: _CHOLESKY(np.transpose(x)), x)
        return np.swapaxes(found, -1, -2)
    return _stacked(lambda x: _CHOLESKY(x), x)


# --- made of these ----------------------------------------------------------------------------

_POWER = FUNCTIONS["linalg.matrix_power"]


def matrix_power(a: Any, n: int) -> Any:
    """A matrix to a known power; negative ones by its inverse."""
    return _POWER(inv(a), -n) if n < 0 else _POWER(a, n)


FUNCTIONS["linalg.matrix_power"] = matrix_power


def triangular_solve(a: Any, b: Any, *, lower: bool = True, unit: bool = False) -> Any:
    """Solves ``a x = b`` for triangular matrices, by substitution.

    Args:
        a: matrices in the last two axes; only one triangle is read.
        b: one vector, or matrices of columns; stacks broadcast.
        lower: whether ``a`` is lower triangular, else upper.
        unit: whether its diagonal is taken for ones, and not read.

    Returns:
        The solution, like ``b``; inf or nan where the diagonal is 0.

    Raises:
        ShapeError: the matrices are not square, or don't fit.

    Example:
        >>> import numpy as np, diffc
        >>> diffc.triangular_solve(np.array([[2.0, 0.0], [1.0, 1.0]]), np.array([2.0, 3.0]))
        array([1., 2.])
    """
    if not active():
        return run_outside(partial(triangular, lower=lower, unit=unit), [], a, b)
    return triangular(a, b, lower, unit)
