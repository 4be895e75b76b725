"""TreeDef: the structure of a tree without its leaves.

Invariants: tree definitions are interned, so two equal ones that are alive are one object, and
comparing or hashing them costs what it costs for a pointer. They are never changed once built.
Nothing here recurses, so the depth of a tree is not bound by Python's stack.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Iterable, Iterator
from typing import Any
from weakref import WeakValueDictionary

from diffc.errors import UsageError
from diffc.tree.nodes import NodeKind, find_kind


class TreeDef:
    """The structure of a tree: its containers and their keys, with a place for each leaf.

    Made by `diffc.tree.flatten` and `structure`; compared by `==`, hashable, printable. The
    definition of a leaf is `LEAF`.

    Attributes:
        kind: What is known about the container type; None for a leaf.
        aux: The keys of a dict, the static fields of a dataclass, …
        children: The definitions of the children.
        num_leaves: How many leaves the tree has.
        is_flat: Whether it is one container whose children are all leaves.
        is_plain: Whether all containers are exactly dict, list, tuple or None.
    """

    __slots__ = (
        "__weakref__",
        "_fold_order",
        "aux",
        "children",
        "is_flat",
        "is_plain",
        "kind",
        "num_leaves",
    )

    kind: NodeKind | None
    aux: Any
    children: tuple[TreeDef, ...]
    num_leaves: int
    is_flat: bool
    is_plain: bool
    _fold_order: tuple[TreeDef, ...] | None

    def __init__(self, kind: NodeKind | None, aux: Any, children: tuple[TreeDef, ...]) -> None:
        self.kind = kind
        self.aux = aux
        self.children = children
        self._fold_order = None
        if kind is None:
            self.num_leaves = 1
            self.is_flat = False
            self.is_plain = True
        else:
            self.num_leaves = sum([child.num_leaves for child in children])
            self.is_flat = all(child.kind is None for child in children)
            self.is_plain = kind.is_plain and all(child.is_plain for child in children)

    def fold(
        self, leaves: Iterator[Any], combine: Callable[[NodeKind, Any, list[Any]], Any]
    ) -> Any:
        """Replaces leaves from left to right by `leaves`, then containers from the inside out."""
        if self._fold_order is None:
            self._fold_order = tuple(_postorder(self))
        values: list[Any] = []
        for tree in self._fold_order:
            kind = tree.kind
            if kind is None:
                values.append(next(leaves))
                continue
            start = len(values) - len(tree.children)
            values[start:] = [combine(kind, tree.aux, values[start:])]
        return values[0]

    def paths(self, root: str = "") -> list[str]:
        """The path of each leaf, in order, such as `params['w'][0].bias` for root `params`."""
        found: list[str] = []
        pending = [(self, root)]
        while pending:
            tree, path = pending.pop()
            if tree.kind is None:
                found.append(path)
                continue
            steps = steps_of(tree)
            for i in reversed(range(len(steps))):
                pending.append((tree.children[i], path + steps[i]))
        return found

    def spec(self) -> Any:
        """The tree as plain containers around the leaves' numbers, for native code.

        `{'b': x, 'w': [y, z]}` gives `{'b': 0, 'w': [1, 2]}`. None when a container is not exactly
        dict, list, tuple or None; as the spec of the tree `None` is None too, ask `is_plain` first.
        """
        if not self.is_plain:
            return None
        return self.build(range(self.num_leaves))

    def build(self, leaves: Iterable[Any]) -> Any:
        """The tree with these leaves, of which there must be `num_leaves`."""
        if self.is_flat:
            assert self.kind is not None
            return self.kind.unflatten(self.aux, list(leaves))
        return self.fold(iter(leaves), _build)

    def __repr__(self) -> str:
        return f"TreeDef({self.fold(iter(['*'] * self.num_leaves), _text)})"

    def __reduce__(self) -> str | tuple[Any, ...]:
        if self.kind is None:
            return "LEAF"
        return _restore, (self.kind.cls, self.aux, self.children)


LEAF = TreeDef(None, None, ())
"""The definition of a tree that is one leaf."""

_interned: WeakValueDictionary[Hashable, TreeDef] = WeakValueDictionary()
_interning = threading.RLock()  # re-entered when a collected object's __del__ flattens


def node(kind: NodeKind, aux: Any, children: tuple[TreeDef, ...]) -> TreeDef:
    """The one tree definition with this container and these children.

    Raises:
        TypeError: `aux` is not hashable.
    """
    key = (kind, typed(aux) if kind.has_static else aux, children)
    found = _interned.get(key)
    if found is not None:
        return found
    with _interning:
        return _interned.setdefault(key, TreeDef(kind, aux, children))


def typed(value: Any) -> Hashable:
    """A key that tells apart values that Python calls equal: 1, 1.0 and True; 0.0 and -0.0.

    It also finds nan equal to itself, as a static field that holds it must not change the
    structure from call to call.
    """
    if isinstance(value, tuple):
        return type(value), tuple([typed(item) for item in value])
    if isinstance(value, float):
        return type(value), value.hex()
    return type(value), value


def steps_of(tree: TreeDef) -> list[str]:
    """The path steps to the children of a container, as many as there are children.

    Raises:
        UsageError: A registered `steps` function gives another number of them.
    """
    assert tree.kind is not None
    steps = tree.kind.steps(tree.aux, len(tree.children))
    if len(steps) != len(tree.children):
        raise UsageError(
            f"{tree.kind.cls.__qualname__} has {len(tree.children)} children, "
            f"but its registered steps name {len(steps)}",
            hint="let `steps` of register_node give one step per child",
        )
    return steps


#: what a leaf is called where it may be anything
LEAF_NAME = "a leaf"


def describe(tree: TreeDef, leaf: str = LEAF_NAME) -> str:
    """One container in words, for messages: `a dict with keys 'b', 'w'`, `a list of length 2`."""
    kind = tree.kind
    if kind is None:
        return leaf
    if kind.cls is type(None):
        return "None"
    name = kind.cls.__qualname__
    if issubclass(kind.cls, dict):
        keys = [step[1:-1] for step in steps_of(tree)]
        return f"a {name} with keys {', '.join(keys)}" if keys else f"an empty {name}"
    if kind.cls in (list, tuple):
        return f"a {name} of length {len(tree.children)}"
    return f"a {name} {_text(kind, tree.aux, ['*'] * len(tree.children))}"


def explain_mismatch(
    expected: TreeDef, found: TreeDef, root: str = "", leaf: str = LEAF_NAME
) -> str | None:
    """The first place where two structures differ, with what stands there; None if nowhere.

    ``leaf`` is what a leaf is called.
    """
    differs = first_mismatch(expected, found, root, leaf)
    if differs is None:
        return None
    place, wanted, given = differs
    return f"at {place or 'the root'}: expected {wanted}, found {given}"


def first_mismatch(
    expected: TreeDef, found: TreeDef, root: str = "", leaf: str = LEAF_NAME
) -> tuple[str, str, str] | None:
    """The first path at which two structures differ, and what stands there in each, in words."""
    pending = [(expected, found, root)]
    while pending:
        left, right, path = pending.pop()
        if left is right:
            continue
        if (left.kind, len(left.children)) == (right.kind, len(right.children)) and (
            left.kind is None or typed(left.aux) == typed(right.aux)
        ):
            steps = steps_of(left)
            for i in reversed(range(len(steps))):
                pending.append((left.children[i], right.children[i], path + steps[i]))
            continue
        return path, describe(left, leaf), describe(right, leaf)
    return None


def _postorder(tree: TreeDef) -> list[TreeDef]:
    """All definitions in a tree, children before their parent, from left to right."""
    order: list[TreeDef] = []
    pending = [tree]
    while pending:  # parents before children, from right to left: the order wanted, backwards
        latest = pending.pop()
        order.append(latest)
        pending.extend(latest.children)
    order.reverse()
    return order


def _build(kind: NodeKind, aux: Any, children: list[Any]) -> Any:
    return kind.unflatten(aux, children)


def _text(kind: NodeKind, aux: Any, children: list[str]) -> str:
    """One container as text around its children's texts, close to what Python would print."""
    if kind.cls is type(None):
        return "None"
    if kind.cls is list:
        return f"[{', '.join(children)}]"
    if kind.cls is tuple:
        return f"({children[0]},)" if len(children) == 1 else f"({', '.join(children)})"
    steps = kind.steps(aux, len(children))
    if issubclass(kind.cls, dict):
        pairs = zip(steps, children, strict=True)
        text = "{" + ", ".join(f"{step[1:-1]}: {child}" for step, child in pairs) + "}"
        return text if kind.cls is dict else f"{kind.cls.__qualname__}({text})"
    named = [
        f"{step[1:]}={child}" if step.startswith(".") else child
        for step, child in zip(steps, children, strict=True)
    ]
    if kind.has_static and aux is not None:
        named.append(f"static={aux!r}")
    return f"{kind.cls.__qualname__}({', '.join(named)})"


def _restore(cls: type, aux: Any, children: tuple[TreeDef, ...]) -> TreeDef:
    kind = find_kind(cls)
    if kind is None:
        raise UsageError(
            f"a stored tree structure has a {cls.__qualname__}, which is no container here",
            hint="call register_node for it before loading",
        )
    return node(kind, aux, children)
