"""The traced namespace: stand-ins for NumPy's functions and modules.

Without an active trace in the calling thread a stand-in is what it stands for. Within one, creation
functions give traced arrays, functions on traced or captured arrays are traced, and what has no
traced meaning is an error; calls on plain numbers alone are NumPy's, their arrays become constants
of the program.
"""

from __future__ import annotations

from collections.abc import Callable
from types import BuiltinMethodType, ModuleType
from typing import Any

import numpy as np

from diffc.errors import TraceError
from diffc.trace.arguments import has_tracer, lifted
from diffc.trace.context import active
from diffc.trace.location import line
from diffc.trace.table import FUNCTIONS, UFUNC_METHODS, dispatch, name_of, unknown
from diffc.trace.tracer import Tracer

_CREATORS = frozenset({
    "zeros", "empty", "ones", "full", "eye", "identity", "arange", "tri", "indices",
    "fromfunction", "diag_indices",
})  # fmt: skip
_STATIC = frozenset({
    "result_type", "promote_types", "can_cast", "issubdtype", "isdtype", "isscalar", "iterable",
    "broadcast_shapes", "seterr", "geterr", "seterrcall", "geterrcall", "set_printoptions",
    "get_printoptions", "min_scalar_type", "common_type", "mintypecode", "typename",
    "show_config", "einsum_path", "info", "ravel_multi_index", "unravel_index",
    "format_float_positional", "format_float_scientific", "base_repr", "binary_repr",
})  # fmt: skip


class TracedFunction:
    """A NumPy function or ufunc, traced where a trace is active.

    Attributes:
        original: the function itself.
        name: how users write it, without ``np.``.
    """

    def __init__(self, original: Callable[..., Any], name: str) -> None:
        self.original = self.__wrapped__ = original
        self.name = name
        self.__name__ = getattr(original, "__name__", name)
        self.__doc__ = original.__doc__

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The function itself, or its traced meaning where a trace is active."""
        if not active():
            return self.original(*args, **kwargs)
        return call_traced(self.original, self.name, args, kwargs)

    def __getattr__(self, attribute: str) -> Any:
        return getattr(self.original, attribute)

    def __repr__(self) -> str:
        return f"<traced np.{self.name}>"

    def __eq__(self, other: object) -> bool:
        return other is self or other is self.original

    def __hash__(self) -> int:
        return hash(self.original)

    def __reduce__(self) -> tuple[Any, ...]:
        return stand_in, (self.original,)


def call_traced(original: Any, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """A NumPy call under an active trace.

    Raises:
        TraceError: an array is involved, and the function has no traced meaning.
    """
    on_arrays = any(map(has_tracer, args)) or any(map(has_tracer, kwargs.values()))
    if isinstance(original, np.ufunc):
        if on_arrays:
            return UFUNC_METHODS["__call__"](original, args, dict(kwargs))
        return lifted(original(*args, **kwargs))
    if name in _CREATORS or (on_arrays and name not in _STATIC):
        return dispatch(original, args, kwargs)
    return lifted(original(*args, **kwargs))


class TracedModule:
    """``numpy``, ``numpy.linalg`` or ``numpy.fft``, with stand-ins for their functions."""

    def __init__(self, original: ModuleType) -> None:
        self.__dict__["_original"] = original

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._original, name)
        if not active():
            return found
        return stand_in(found) or found

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._original, name, value)

    def __dir__(self) -> list[str]:
        return dir(self._original)

    def __repr__(self) -> str:
        return f"<traced {self._original.__name__}>"


class NoRandom:
    """``np.random`` and its generators: an error within a trace, themselves outside."""

    def __init__(self, original: Any, name: str) -> None:
        self._original = original
        self._name = name

    def __getattr__(self, attribute: str) -> Any:
        if active():
            raise TraceError(
                f"{self._name}.{attribute} within a traced function would draw once, when it is "
                "traced",
                location=line(),
                hint="use diffc.random with a key that is an argument, or draw outside and pass "
                "the array",
            )
        return getattr(self._original, attribute)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Draws, outside of traces."""
        return self.__getattr__("__call__")(*args, **kwargs)


class Joiner:
    """``np.r_`` and ``np.c_``: within a trace, arrays and numbers joined; slices are positions.

    Raises:
        TraceError: within a trace, a directive in a string.
    """

    def __init__(self, original: Any, name: str) -> None:
        self._original = original
        self._name = name

    def __getitem__(self, key: Any) -> Any:
        items = key if isinstance(key, tuple) else (key,)
        if not active() or not any(map(has_tracer, items)):
            found = self._original[key]
            return lifted(found) if active() else found
        if any(isinstance(item, str) for item in items):
            raise unknown(f"{self._name}['...']")
        items = tuple(self._original[x] if isinstance(x, slice) else x for x in items)
        if self._name == "c_":
            return FUNCTIONS["column_stack"]([FUNCTIONS["atleast_1d"](x) for x in items])
        return FUNCTIONS["concatenate"]([FUNCTIONS["atleast_1d"](x) for x in items])


class _ArrayType(type):
    """Tracers count as ``np.ndarray`` for ``isinstance`` within a trace."""

    def __instancecheck__(cls, instance: Any) -> bool:
        if isinstance(instance, np.ndarray):
            return True
        return active() and isinstance(instance, Tracer) and not instance.scalar

    def __subclasscheck__(cls, subclass: type) -> bool:
        return issubclass(subclass, np.ndarray) or (active() and issubclass(subclass, Tracer))

    def __getattr__(cls, name: str) -> Any:
        return getattr(np.ndarray, name)

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        if active():
            raise unknown("ndarray(...)")
        return np.ndarray(*args, **kwargs)


class NdArray(metaclass=_ArrayType):
    """Stands for ``np.ndarray``."""


_MODULES: dict[ModuleType, TracedModule] = {
    module: TracedModule(module) for module in (np, np.linalg, np.fft)
}
_MODULES_IDS = {id(module): proxy for module, proxy in _MODULES.items()}
_FUNCTIONS: dict[int, TracedFunction] = {}
_RANDOM = NoRandom(np.random, "np.random")
_JOINERS = {id(np.r_): Joiner(np.r_, "r_"), id(np.c_): Joiner(np.c_, "c_")}
STAND_INS = (TracedFunction, TracedModule, NoRandom, Joiner)


def _functions() -> dict[int, TracedFunction]:
    """Stand-ins by the id of what they stand for (NumPy's functions live for ever)."""
    if not _FUNCTIONS:
        for module in (np, np.linalg, np.fft):
            for name, found in vars(module).items():  # dir() would import what NumPy loads lazily
                public = not name.startswith("_") and callable(found)
                if public and not isinstance(found, (type, ModuleType)):
                    _FUNCTIONS.setdefault(id(found), TracedFunction(found, name_of(found)))
    return _FUNCTIONS


def stand_in(thing: Any) -> Any:
    """What stands for a part of NumPy during a trace; None for anything else."""
    if thing is np.random:
        return _RANDOM
    if thing is np.ndarray:
        return NdArray
    number = id(thing)
    found = _MODULES_IDS.get(number) or _functions().get(number) or _JOINERS.get(number)
    if found is not None:
        return found
    if isinstance(thing, (np.random.Generator, np.random.RandomState)):
        return NoRandom(thing, f"a np.random.{type(thing).__name__}")
    if isinstance(thing, BuiltinMethodType) and isinstance(thing.__self__, np.random.RandomState):
        return NoRandom(thing, f"np.random.{thing.__name__}")
    return None


def traced_names() -> tuple[str, ...]:
    """Names of all NumPy functions that can be traced, ufuncs included."""
    from diffc.trace.formulas import FORMULAS

    plain = {name for name in FUNCTIONS if _is_function(name)}
    return tuple(sorted(plain | {ufunc.__name__ for ufunc in FORMULAS}))


def _is_function(name: str) -> bool:
    """Whether NumPy has a function of this (dotted) name."""
    found: Any = np
    for part in name.split("."):
        found = getattr(found, part, None)
    return (
        callable(found) and not name.endswith((".accumulate", ".reduce")) and "ndarray." not in name
    )
