"""Which functions are converted: the user's own, and what they call, each once.

A call in converted code goes through :func:`callee`, which gives the converted form of a function
of the user's modules, and forms of Python's builtins that take traced values. Library functions,
diffc's and NumPy's among them, are called as they are; functions given to diffc's are converted.
"""

from __future__ import annotations

import copy
import functools
import inspect
import operator
from collections.abc import Callable, Iterable
from types import BuiltinFunctionType, FunctionType, MethodType
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from diffc.convert.choose import contains, is_traced, merged, truth
from diffc.convert.rewrite import RUN
from diffc.convert.run import Run
from diffc.convert.source import rewritten
from diffc.convert.steps import as_steps, enumerated, traced_range, zipped
from diffc.errors import TraceError, UsageError
from diffc.gradient import Gradient
from diffc.jitted import Jitted
from diffc.trace import Tracer, line
from diffc.trace.rebind import is_library
from diffc.trace.table import FUNCTIONS
from diffc.transformed import Transformed

Function = Callable[..., Any]

_CONVERTED: WeakKeyDictionary[FunctionType, FunctionType] = WeakKeyDictionary()


def converted(function: Function) -> Function:
    """The function with its control flow converted, for ``jit(control_flow=True)``.

    Raises:
        TraceError: its source is not at hand, or it is a generator.
        UsageError: it is no function of the user's.
    """
    found = _convert(function)
    if found is None:
        raise UsageError(
            f"control_flow=True converts functions that are written in Python, found {function!r}",
            location=line(),
            hint="leave it out, or wrap the function in one of your own",
        )
    result: Function = found
    return result


def _convert(function: Any) -> Any:
    """A converted form of something callable; None if there is none."""
    kind = type(function)
    if kind is FunctionType:
        return None if is_library(function.__code__) else _plain(function)
    if kind is MethodType:
        inner = _convert(function.__func__)
        return None if inner is None else MethodType(inner, function.__self__)
    if kind is functools.partial:
        inner = _convert(function.func)
        if inner is None:
            return None
        return functools.partial(inner, *function.args, **function.keywords)
    if isinstance(function, Gradient | Transformed):
        inner = _convert(function.inner)
        if inner is None:
            return None
        clone = copy.copy(function)
        clone.inner = inner
        return clone
    call = inspect.getattr_static(kind, "__call__", None)
    if type(call) is FunctionType and not isinstance(function, Jitted):
        inner = _convert(call)
        return None if inner is None else MethodType(inner, function)
    return None


def _plain(function: FunctionType) -> FunctionType:
    if RUN in function.__code__.co_freevars:  # converted already, maybe with what is around it
        return function
    found = _CONVERTED.get(function)
    if found is None:
        found = rewritten(function, Run)
        _CONVERTED[function] = found
    if found.__defaults__ is not function.__defaults__:  # rebound for this trace
        found.__defaults__ = function.__defaults__
    return found


def callee(function: Any) -> Any:
    """What a call in converted code calls."""
    kind = type(function)
    if kind is FunctionType:
        if not is_library(function.__code__):
            return _or_itself(function)
        return _given(function) if _is_ours(function) else function
    if kind is MethodType or kind is functools.partial:
        return _or_itself(function)
    if kind is type or kind is BuiltinFunctionType:
        return _BUILTINS.get(function, function)
    if kind in _KNOWN:
        return function
    return _or_itself(function)


def _or_itself(function: Any) -> Any:
    try:
        found = _convert(function)
    except TraceError:  # no source, or a generator: Python's own
        return function
    return function if found is None else found


def _is_ours(function: FunctionType) -> bool:
    return function.__module__ == "diffc" or function.__module__.startswith("diffc.api")


def _given(function: Function) -> Function:
    """A function of diffc's that converts the functions it is given."""

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        args = tuple(_or_itself(a) if type(a) is FunctionType else a for a in args)
        named = {k: _or_itself(v) if type(v) is FunctionType else v for k, v in kwargs.items()}
        return function(*args, **named)

    return call


# --- Python's builtins on traced values -------------------------------------------------------


def _extreme(original: Function, is_better: Function) -> Function:
    def call(*args: Any, **kwargs: Any) -> Any:
        items = list(args[0]) if len(args) == 1 else list(args)
        if kwargs or not any(map(is_traced, items)):
            return original(*args, **kwargs)
        best = items[0]
        for item in items[1:]:
            best = merged(is_better(item, best), item, best)
        return best

    return call


def _over(original: Function, combine: Function, empty: bool) -> Function:
    def call(items: Iterable[Any]) -> Any:
        result: Any = empty
        for item in items:
            found = truth(item)
            if not isinstance(found, Tracer):
                if found is not empty:
                    return not empty
                continue
            result = found if result is empty else combine(result, found)
        return result

    return call


def _bool(value: Any = False) -> Any:
    return truth(value)


def _number(original: type, dtype: Any) -> Function:
    def call(*args: Any, **kwargs: Any) -> Any:
        if len(args) != 1 or kwargs or not is_traced(args[0]) or args[0].size != 1:
            return original(*args, **kwargs)
        return FUNCTIONS["astype"](FUNCTIONS["reshape"](args[0], ()), dtype)

    return call


def _reversed(items: Any) -> Any:
    steps = as_steps(items)
    return reversed(items) if steps is None else steps.reversed()


_BUILTINS: dict[Any, Any] = {
    range: traced_range,
    enumerate: enumerated,
    zip: zipped,
    reversed: _reversed,
    min: _extreme(min, operator.lt),
    max: _extreme(max, operator.gt),
    all: _over(all, operator.and_, True),
    any: _over(any, operator.or_, False),
    bool: _bool,
    int: _number(int, np.int64),
    float: _number(float, np.float64),
    operator.contains: lambda items, item: contains(item, items),
}
_KNOWN = frozenset({type(np.sin), type(np.sum), Tracer, Jitted})
