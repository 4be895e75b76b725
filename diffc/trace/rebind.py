"""Names rebound while a function is traced.

The globals and closure cells through which user code reaches NumPy point at stand-ins (see
``namespace``), those that hold arrays at views that trace (see ``captured``). What is reached is
found by walking the function: its code's names, closures, defaults, methods and attributes, and
from there the functions of the user's modules, their objects and containers. Library modules are
left alone. Places in lists and tuples are only watched: where an array was, the next call looks.

Bindings are counted, so that concurrent and nested traces share them; the last one restores.
"""

from __future__ import annotations

import functools
import os
import site
import sysconfig
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import CellType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any, NamedTuple

import numpy as np

from diffc import version
from diffc.ir.aval import NAMES
from diffc.trace.captured import CapturedArray
from diffc.trace.captured import stand_in as array_stand_in
from diffc.trace.namespace import STAND_INS, NdArray, stand_in

_LIBRARY_ROOTS = tuple(
    os.path.abspath(path) + os.sep
    for path in {
        *(sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")),
        *site.getsitepackages(),
        os.path.dirname(version.__file__),
    }
    if path
)
_MAX_ITEMS = 4096


class Place(NamedTuple):
    """Where a name is bound: a dict and a key, a closure cell and its name, or a default."""

    holder: Any
    key: Any

    def __repr__(self) -> str:
        return f"<place {self.key!r}>"

    @property
    def ident(self) -> tuple[int, Any]:
        """Identity of the place."""
        return id(self.holder), self.key

    def get(self) -> Any:
        """What is bound there now."""
        if isinstance(self.holder, CellType):
            return self.holder.cell_contents
        if isinstance(self.holder, FunctionType):
            return (self.holder.__defaults__ or ())[self.key]
        return self.holder[self.key]

    def set(self, value: Any) -> None:
        """Binds something else."""
        if isinstance(self.holder, CellType):
            self.holder.cell_contents = value
        elif isinstance(self.holder, FunctionType):
            defaults = list(self.holder.__defaults__ or ())
            defaults[self.key] = value
            self.holder.__defaults__ = tuple(defaults)
        else:
            self.holder[self.key] = value


class _Binding:
    __slots__ = ("count", "original", "place", "replaced")

    def __init__(self, place: Place, original: Any, replaced: Any) -> None:
        self.place = place
        self.original = original
        self.replaced = replaced
        self.count = 0


_LOCK = threading.RLock()
_BOUND: dict[tuple[int, Any], _Binding] = {}


def is_library(code: CodeType) -> bool:
    """Whether code belongs to an installed library, the standard library or diffc."""
    name = code.co_filename
    return name.startswith("<frozen") or name.startswith(_LIBRARY_ROOTS)


def _is_user_module(module: ModuleType) -> bool:
    path = getattr(module, "__file__", None)
    return path is not None and not os.path.abspath(path).startswith(_LIBRARY_ROOTS)


def _names(code: CodeType) -> set[str]:
    """Names of globals and attributes in the code and the code within it."""
    found: set[str] = set()
    stack = [code]
    while stack:
        current = stack.pop()
        found.update(current.co_names)
        stack.extend(const for const in current.co_consts if isinstance(const, CodeType))
    return found


class _Walk:
    """Everything that a function reaches: places to rebind, and where arrays are."""

    def __init__(self) -> None:
        self.places: list[Place] = []
        self.watched: dict[int, Place] = {}
        self._seen: set[Any] = set()
        self._stack: list[tuple[Any, frozenset[str]]] = []

    def run(self, function: Any) -> None:
        """Finds the places reached from ``function``."""
        self._push(function, frozenset())
        while self._stack:
            self._visit(*self._stack.pop())

    def _push(self, thing: Any, names: frozenset[str]) -> None:
        if isinstance(thing, (str, bytes, int, float, complex, np.ndarray, np.generic, type(None))):
            return
        key = (id(thing), names if isinstance(thing, ModuleType) else None)
        if key not in self._seen:
            self._seen.add(key)
            self._stack.append((thing, names))

    def _place(self, place: Place, names: frozenset[str]) -> None:
        """A bound name: to be replaced, or to be followed."""
        with _LOCK:
            binding = _BOUND.get(place.ident)
        if binding is not None:
            self.places.append(place)
            return
        try:
            thing = place.get()
        except (KeyError, ValueError, IndexError):  # unbound cell or deleted global
            return
        if _replaceable(thing):
            if place.ident not in self._seen:
                self._seen.add(place.ident)
                self.places.append(place)
        else:
            self._push(thing, names)

    def _visit(self, thing: Any, names: frozenset[str]) -> None:
        if isinstance(thing, FunctionType):
            self._function(thing)
        elif isinstance(thing, MethodType):
            self._push(thing.__func__, names)
            self._push(thing.__self__, names)
        elif isinstance(thing, functools.partial):
            for part in (thing.func, *thing.args, *thing.keywords.values()):
                self._push(part, names)
        elif isinstance(thing, ModuleType):
            if _is_user_module(thing):
                for name in names:
                    if name in thing.__dict__:
                        self._place(Place(thing.__dict__, name), names)
        elif isinstance(thing, type):
            if _is_user_class(thing):
                for member in list(vars(thing).values()):
                    self._push(_function_of(member), names)
                for base in thing.__mro__[1:]:
                    self._push(base, names)
        elif isinstance(thing, (list, tuple)):
            for i, item in enumerate(thing[:_MAX_ITEMS]):
                if isinstance(item, np.ndarray):
                    self.watched[id(item)] = Place(thing, i)
                self._push(item, names)
        elif isinstance(thing, (set, frozenset)):
            for item in list(thing)[:_MAX_ITEMS]:
                self._push(item, names)
        elif type(thing) is dict:
            self._items(thing, names)
        else:
            self._object(thing, names)

    def _items(self, holder: dict[Any, Any], names: frozenset[str]) -> None:
        for key in list(holder)[:_MAX_ITEMS]:
            self._place(Place(holder, key), names)

    def _object(self, thing: Any, names: frozenset[str]) -> None:
        if _is_user_class(type(thing)):
            self._push(type(thing), names)
            self._items(getattr(thing, "__dict__", {}), names)
        elif callable(thing):  # functools.cache, diffc.jit and their like
            wrapped = getattr(thing, "__dict__", {}).get("__wrapped__")
            if wrapped is not None:
                self._push(wrapped, names)

    def _function(self, function: FunctionType) -> None:
        wrapped = getattr(function, "__wrapped__", None)
        if wrapped is not None:
            self._push(wrapped, frozenset())
        cells = list(zip(function.__code__.co_freevars, function.__closure__ or (), strict=True))
        if is_library(function.__code__):  # a decorator of a library around the user's function
            for name, cell in cells:
                if isinstance(_content(cell), FunctionType | MethodType | functools.partial):
                    self._place(Place(cell, name), frozenset())
            return
        names = frozenset(_names(function.__code__))
        for name, cell in cells:
            self._place(Place(cell, name), names)
        for name in names:
            if name in function.__globals__:
                self._place(Place(function.__globals__, name), names)
        for i in range(len(function.__defaults__ or ())):
            self._place(Place(function, i), names)
        if function.__kwdefaults__:
            for name in function.__kwdefaults__:
                self._place(Place(function.__kwdefaults__, name), names)


def _content(cell: CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # not bound yet
        return None


def _function_of(member: Any) -> Any:
    if isinstance(member, (staticmethod, classmethod)):
        return member.__func__
    if isinstance(member, property):
        return member.fget
    if isinstance(member, functools.cached_property):
        return member.func
    return member if isinstance(member, (FunctionType, type)) else None


def _is_user_class(cls: type) -> bool:
    import sys

    module = sys.modules.get(cls.__module__)
    if cls.__module__ == "builtins":
        return False
    return module is None or getattr(module, "__file__", None) is None or _is_user_module(module)


def _replaceable(thing: Any) -> bool:
    if isinstance(thing, np.ndarray):
        return type(thing) is np.ndarray and thing.dtype in NAMES
    return not isinstance(thing, STAND_INS) and thing is not NdArray and stand_in(thing) is not None


def _replacement(thing: Any) -> Any:
    return array_stand_in(thing) if isinstance(thing, np.ndarray) else stand_in(thing)


@contextmanager
def rebound(function: Any) -> Iterator[dict[int, Place]]:
    """Rebinds what ``function`` reaches, for the time of the block.

    Yields:
        Where each reached array is bound, by the id of the array.
    """
    with _LOCK:
        held: list[_Binding] = []
        walk = _Walk()
        walk.run(function)
        for place in walk.places:
            binding = _BOUND.get(place.ident)
            if binding is None:
                original = place.get()
                if not _replaceable(original):
                    continue
                binding = _BOUND[place.ident] = _Binding(place, original, _replacement(original))
                place.set(binding.replaced)
            binding.count += 1
            held.append(binding)
    try:
        yield walk.watched | {
            id(binding.original): binding.place
            for binding in held
            if isinstance(binding.original, np.ndarray)
        }
    finally:
        with _LOCK:
            for binding in held:
                binding.count -= 1
                if binding.count:
                    continue
                del _BOUND[binding.place.ident]
                try:
                    now = binding.place.get()
                except (KeyError, ValueError, IndexError):  # the user's code deleted it
                    continue
                if now is binding.replaced:  # else the user's code bound something else
                    binding.place.set(binding.original)


def bound_now(place: Place) -> Any:
    """What a place holds today, behind a stand-in of a trace that is running.

    Raises:
        LookupError: nothing is bound there any more.
    """
    try:
        found = place.get()
    except (KeyError, ValueError, IndexError):
        raise LookupError(str(place.key)) from None
    if isinstance(found, CapturedArray):
        return found._plain
    return found
