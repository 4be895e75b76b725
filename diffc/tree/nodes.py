"""The kinds of containers: how each is taken apart and put together again.

Invariants: a type's kind never depends on the object; `unflatten(aux, children)` gives an object
that flattens to the same `aux` and children; `aux` is hashable. An exact type is looked up, so a
subclass of a registered class is a leaf until it is registered itself.
"""

import dataclasses
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from operator import attrgetter
from typing import Any

from diffc.errors import UsageError


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class NodeKind:
    """What diffc.tree knows about one container type; compared by identity."""

    cls: type
    flatten: Callable[[Any], tuple[Iterable[Any], Hashable]]
    """The object's children, and what else must be known to build it again."""
    unflatten: Callable[[Any, list[Any]], Any]
    """Builds the object from `aux` and its children."""
    steps: Callable[[Any, int], list[str]]
    """One path step per child, from `aux` and the number of children."""
    has_static: bool = False
    """Whether `aux` holds user values, whose types then count (1 is not 1.0 nor True)."""
    is_plain: bool = False
    """Whether native code knows the type: exactly dict, list, tuple or None."""


def _indices(_aux: Any, count: int) -> list[str]:
    return [f"[{i}]" for i in range(count)]


def _items(keys: tuple[Any, ...], _count: int) -> list[str]:
    return [f"[{key!r}]" for key in keys]


def _flatten_sequence(obj: Any) -> tuple[Iterable[Any], None]:
    return obj, None


def _sorted_keys(obj: dict[Any, Any]) -> tuple[Any, ...]:
    try:
        return tuple(sorted(obj))
    except TypeError:  # keys of different types: the order of insertion is all there is
        return tuple(obj)


def _flatten_dict(obj: dict[Any, Any]) -> tuple[Iterable[Any], Hashable]:
    keys = _sorted_keys(obj)
    return [obj[key] for key in keys], keys


def _flatten_ordered_dict(obj: OrderedDict[Any, Any]) -> tuple[Iterable[Any], Hashable]:
    return obj.values(), tuple(obj)


def _flatten_defaultdict(obj: defaultdict[Any, Any]) -> tuple[Iterable[Any], Hashable]:
    keys = _sorted_keys(obj)
    return [obj[key] for key in keys], (obj.default_factory, keys)


_BUILT_IN = (
    NodeKind(
        dict,
        _flatten_dict,
        lambda keys, children: dict(zip(keys, children, strict=True)),
        _items,
        is_plain=True,
    ),
    NodeKind(list, _flatten_sequence, lambda _, children: children, _indices, is_plain=True),
    NodeKind(
        tuple, _flatten_sequence, lambda _, children: tuple(children), _indices, is_plain=True
    ),
    NodeKind(
        type(None), lambda _: ((), None), lambda _aux, _children: None, _indices, is_plain=True
    ),
    NodeKind(
        OrderedDict,
        _flatten_ordered_dict,
        lambda keys, children: OrderedDict(zip(keys, children, strict=True)),
        _items,
    ),
    NodeKind(
        defaultdict,
        _flatten_defaultdict,
        lambda aux, children: defaultdict(aux[0], zip(aux[1], children, strict=True)),
        lambda aux, count: _items(aux[1], count),
    ),
)

KINDS: dict[type, NodeKind | None] = {kind.cls: kind for kind in _BUILT_IN}
"""The kind of every type met so far; None marks the types of leaves."""

_REGISTERED: set[type] = {kind.cls for kind in _BUILT_IN}


def find_kind(cls: type) -> NodeKind | None:
    """The kind of a type; None for the type of a leaf. Remembers the answer in `KINDS`."""
    if cls in KINDS:
        return KINDS[cls]
    kind = None
    if issubclass(cls, tuple) and hasattr(cls, "_fields") and hasattr(cls, "_make"):
        kind = _namedtuple_kind(cls)
    elif dataclasses.is_dataclass(cls):
        kind = _dataclass_kind(cls)
    return KINDS.setdefault(cls, kind)


def _namedtuple_kind(cls: Any) -> NodeKind:
    steps = [f".{name}" for name in cls._fields]
    return NodeKind(
        cls, _flatten_sequence, lambda _, children: cls._make(children), lambda _aux, _count: steps
    )


def _dataclass_kind(cls: Any) -> NodeKind:
    """Fields are children, those with `metadata={"static": True}` part of the structure.

    Objects are built without `__init__` and `__post_init__`: these ran when the user built the
    original, and need not understand tracers.
    """
    fields = dataclasses.fields(cls)
    static = tuple(field.name for field in fields if field.metadata.get("static", False))
    dynamic = tuple(field.name for field in fields if field.name not in static)
    steps = [f".{name}" for name in dynamic]
    children_of, static_of = _getter(dynamic), _getter(static)

    def unflatten(aux: Any, children: list[Any]) -> Any:
        obj = cls.__new__(cls)
        for name, value in zip(static, aux, strict=True):
            object.__setattr__(obj, name, value)  # a frozen class refuses the usual way
        for name, value in zip(dynamic, children, strict=True):
            object.__setattr__(obj, name, value)
        return obj

    return NodeKind(
        cls,
        lambda obj: (children_of(obj), static_of(obj)),
        unflatten,
        lambda _aux, _count: steps,
        has_static=bool(static),
    )


def _getter(names: tuple[str, ...]) -> Callable[[Any], tuple[Any, ...]]:
    """The values of the attributes `names`, always as a tuple."""
    if not names:
        return lambda _: ()
    if len(names) == 1:
        (name,) = names
        return lambda obj: (getattr(obj, name),)
    return attrgetter(*names)


def register_node(
    cls: type,
    flatten: Callable[[Any], tuple[Iterable[Any], Hashable]],
    unflatten: Callable[[Any, list[Any]], Any],
    *,
    steps: Callable[[Any], Sequence[str]] | None = None,
) -> None:
    """Makes instances of exactly `cls` containers.

    Args:
        cls: The class; each can be registered once.
        flatten: Takes an instance to `(children, aux)`; `aux` is hashable, None if not needed.
        unflatten: Takes `aux` and the list of children back to an instance.
        steps: Takes `aux` to one path step per child, such as `".bias"`; indices if not given.

    Raises:
        UsageError: `cls` is no class, or already a registered container.

    Example:
        >>> class Pair:
        ...     def __init__(self, a, b):
        ...         self.a, self.b = a, b
        >>> register_node(Pair, lambda p: ((p.a, p.b), None), lambda aux, xs: Pair(*xs))
    """
    if not isinstance(cls, type):
        raise UsageError(
            f"register_node needs a class, not {cls!r}", hint="pass the class of the containers"
        )
    if cls in _REGISTERED:
        raise UsageError(
            f"{cls.__qualname__} is already registered as a container",
            hint="register each class once, next to its definition",
        )
    path_steps = _indices if steps is None else (lambda aux, _count: list(steps(aux)))
    _REGISTERED.add(cls)
    KINDS[cls] = NodeKind(cls, flatten, unflatten, path_steps, has_static=True)
