"""``x[mask]`` for a mask whose values are not known: the chosen elements, but not how many.

A :class:`Selected` keeps the whole array and its mask. Elementwise operations on it work on the
whole array; reductions leave the other elements out; storing it where it came from chooses by
``select``. So ``x[m] *= 2``, ``a[m] = b[m] + 1`` and ``x[m].mean()`` trace; what needs the number
of elements as a shape is an error.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

import numpy as np

from diffc.errors import TraceError
from diffc.ir.graph import Operand
from diffc.trace import operands as o
from diffc.trace.location import line
from diffc.trace.table import FUNCTIONS, UFUNC_METHODS
from diffc.trace.tracer import _BINARY_OPERATORS, _UNARY_OPERATORS, Tracer, read, wrap


class Selected:
    """The elements of ``whole`` where ``mask`` holds.

    Attributes:
        whole: all elements, a value of its own.
        mask: a condition over the leading axes of ``whole``.
    """

    __slots__ = ("mask", "whole")
    __array_priority__ = 2000.0
    __hash__ = None  # type: ignore[assignment]  # as ndarrays

    def __init__(self, whole: Tracer, mask: Tracer) -> None:
        self.whole = whole
        self.mask = mask

    @property
    def dtype(self) -> np.dtype[Any]:
        """NumPy dtype."""
        return self.whole.dtype

    @property
    def size(self) -> Any:
        """The number of elements, as a traced scalar."""
        rest = self.whole.size // self.mask.size if self.mask.size else 0
        return FUNCTIONS["sum"](self.mask) * rest

    def __repr__(self) -> str:
        return f"<traced {self.whole.aval} where {self.mask.aval}>"

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **kwargs: Any) -> Any:
        if method != "__call__" or kwargs:
            raise shape_unknown(self.mask)
        return apply(lambda *xs: UFUNC_METHODS["__call__"](ufunc, xs, {}), inputs)

    def __array_function__(self, func: Any, types: Any, args: Any, kwargs: Any) -> Any:
        name = func.__name__
        if name in _REDUCTIONS and args and args[0] is self and len(args) == 1 and not kwargs:
            return getattr(self, name)()
        raise shape_unknown(self.mask)

    def __getattr__(self, name: str) -> NoReturn:
        raise shape_unknown(self.mask)

    def astype(self, dtype: Any) -> Selected:
        """Another dtype."""
        return Selected(self.whole.astype(dtype), self.mask)

    def copy(self) -> Selected:
        """Itself: it never changes."""
        return self


def shape_unknown(mask: Tracer) -> TraceError:
    """The error where the number of chosen elements would be a shape."""
    return TraceError(
        f"selecting elements by a mask {mask.aval} gives a shape that depends on values",
        location=line(),
        hint="use np.where(mask, x, 0), or np.flatnonzero(mask) outside the traced function; "
        "elementwise operations, sum, mean, min, max and assignment by the same mask do work",
    )


def apply(function: Callable[..., Any], inputs: tuple[Any, ...]) -> Any:
    """An elementwise function on chosen elements, scalars, and rows.

    Raises:
        TraceError: the masks differ, or an operand would have to have their number of elements.
    """
    selected = [x for x in inputs if isinstance(x, Selected)]
    first = selected[0]
    rank = first.whole.ndim - first.mask.ndim
    values = []
    for x in inputs:
        if isinstance(x, Selected):
            if read(x.mask) is not read(first.mask):
                raise TraceError(
                    "two selections by different masks",
                    location=line(),
                    hint="compute the mask once, or use np.where",
                )
            values.append(x.whole)
        elif np.ndim(x) <= rank:
            values.append(x)
        else:
            raise shape_unknown(first.mask)
    found = function(*values)
    if isinstance(found, tuple):
        return tuple(Selected(one, first.mask) for one in found)
    return Selected(found, first.mask)


def wide_mask(mask: Tracer, whole: Tracer) -> Operand:
    """The mask over all axes."""
    return o.spread(read(mask), whole.shape, tuple(range(mask.ndim)))


def _reduction(name: str) -> Callable[..., Any]:
    def method(self: Selected) -> Any:
        where = wrap(wide_mask(self.mask, self.whole))
        whole = self.whole
        if name in ("max", "min"):
            worst = _worst(whole, name)
            return FUNCTIONS[name](wrap(o.select(read(where), read(whole), worst)))
        return FUNCTIONS[name](whole, where=where)

    method.__name__ = name
    method.__doc__ = f"As ``np.{name}`` over the chosen elements."
    return method


def _worst(x: Tracer, name: str) -> Operand:
    dtype = x.dtype
    if x.aval.is_float:
        value: Any = -np.inf if name == "max" else np.inf
    elif dtype.kind == "b":
        value = name == "min"
    else:
        info = np.iinfo(dtype)
        value = int(info.min if name == "max" else info.max)
    return o.fill(value, x.aval.dtype, x.shape)


_REDUCTIONS = ("sum", "prod", "mean", "var", "std", "max", "min", "any", "all")


def _operator(ufunc: np.ufunc, *, reflected: bool) -> Callable[..., Any]:
    def method(self: Selected, other: Any) -> Any:
        inputs = (other, self) if reflected else (self, other)
        return apply(lambda *xs: FUNCTIONS["__operator__"](ufunc, *xs), inputs)

    return method


def _refuse(self: Selected, *_: Any) -> NoReturn:
    raise shape_unknown(self.mask)


_REFUSED = (
    "len",
    "iter",
    "getitem",
    "setitem",
    "matmul",
    "rmatmul",
    "array",
    "bool",
    "float",
    "int",
)


def _install() -> None:
    for name in _REFUSED:
        setattr(Selected, f"__{name}__", _refuse)
    for name in _REDUCTIONS:
        setattr(Selected, name, _reduction(name))
    for name, ufunc in _BINARY_OPERATORS.items():
        if ufunc is np.matmul:
            continue
        setattr(Selected, f"__{name}__", _operator(ufunc, reflected=False))
        setattr(Selected, f"__r{name}__", _operator(ufunc, reflected=True))
    for name, ufunc in _UNARY_OPERATORS.items():
        setattr(Selected, f"__{name}__", _unary(ufunc))


def _unary(ufunc: np.ufunc) -> Callable[[Selected], Any]:
    return lambda self: apply(lambda x: FUNCTIONS["__operator__"](ufunc, x), (self,))


_install()
