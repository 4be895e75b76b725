"""Arrays that a traced function reaches by name: seen by the trace also without a tracer nearby.

While a function is traced, arrays in its globals and closure cells are replaced by a view of the
same memory, of the class below. In the tracing thread every operation on it is traced, with the
array as a hidden operand; in other threads it is what it always was. So ``table[i]`` and ``2 * w``
are read anew at each call, and ``w[0] = 1`` in a traced function is an error instead of a write at
trace time only.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from diffc.trace.context import active


class CapturedArray(np.ndarray[Any, Any]):
    """A view of an array made outside, which traces what is done to it."""

    _plain: np.ndarray[Any, Any] | None = None

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **kwargs: Any) -> Any:
        if active():
            from diffc.trace.table import UFUNC_METHODS

            return UFUNC_METHODS[method](ufunc, inputs, kwargs)
        inputs = tuple(plain(x) if isinstance(x, CapturedArray) else x for x in inputs)
        if "out" in kwargs:
            kwargs["out"] = tuple(
                plain(x) if isinstance(x, CapturedArray) else x for x in kwargs["out"]
            )
        return getattr(ufunc, method)(*inputs, **kwargs)

    def __array_function__(
        self, func: Callable[..., Any], types: Any, args: Any, kwargs: Any
    ) -> Any:
        if active():
            from diffc.trace.table import dispatch

            return dispatch(func, args, kwargs)
        return super().__array_function__(func, types, args, kwargs)


def plain(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The array that a stand-in stands for; any other array itself."""
    if isinstance(array, CapturedArray):
        return array._plain if array._plain is not None else array.view(np.ndarray)
    return array


#: what a class of arrays overrides that computes otherwise
_COMPUTES = ("__mul__", "__array_ufunc__", "__array_function__")


def is_ordinary(array: np.ndarray[Any, Any]) -> bool:
    """Whether an array computes as arrays do: no `np.matrix`, and no masked array."""
    kind = type(plain(array))
    return kind is np.ndarray or all(
        getattr(kind, name) is getattr(np.ndarray, name) for name in _COMPUTES
    )


def stand_in(array: np.ndarray[Any, Any]) -> CapturedArray:
    """The stand-in of an array."""
    found = array.view(CapturedArray)
    found._plain = array
    return found


def _traced(name: str, original: Callable[..., Any]) -> Callable[..., Any]:
    def method(self: CapturedArray, *args: Any, **kwargs: Any) -> Any:
        if active():
            from diffc.trace.arguments import capture

            return getattr(capture(self), name)(*args, **kwargs)
        return getattr(plain(self), name)(*args, **kwargs)

    method.__name__ = name
    method.__doc__ = original.__doc__
    return method


def _property(name: str) -> property:
    def attribute(self: CapturedArray) -> Any:
        if active():
            from diffc.trace.arguments import capture

            return getattr(capture(self), name)
        return getattr(plain(self), name)

    return property(attribute)


_METHODS = [
    "__getitem__", "__setitem__", "__iter__", "__bool__", "__int__", "__float__", "__index__",
    "__contains__", "all", "any", "argmax", "argmin", "argsort", "astype", "clip", "copy",
    "cumprod", "cumsum", "diagonal", "dot", "fill", "flatten", "item", "max", "mean", "min",
    "prod", "ravel", "repeat", "reshape", "round", "sort", "squeeze", "std", "sum", "swapaxes",
    "take", "tolist", "trace", "transpose", "var",
]  # fmt: skip

for _name in _METHODS:
    setattr(CapturedArray, _name, _traced(_name, getattr(np.ndarray, _name)))
for _name in ("T", "mT"):
    setattr(CapturedArray, _name, _property(_name))
