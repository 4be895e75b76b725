"""Trees taken apart into leaves and structure, and put together again.

Leaves come in one order, left to right, dict items by sorted key (by insertion where keys cannot be
sorted, and always in an OrderedDict). Nothing here recurses; a tree that contains itself is an
error.
"""

from collections.abc import Callable, Iterable
from typing import Any

from diffc.errors import UsageError
from diffc.tree.nodes import KINDS, NodeKind, find_kind
from diffc.tree.treedef import LEAF, TreeDef, explain_mismatch, node

_DEEPEST = 10_000
_UNSEEN = object()


def flatten(tree: Any, is_leaf: Callable[[Any], bool] | None = None) -> tuple[list[Any], TreeDef]:
    """Splits a tree into the list of its leaves and its structure.

    Args:
        tree: Any nesting of containers.
        is_leaf: Containers for which it is true are left whole, as leaves.

    Raises:
        UsageError: The tree contains itself, or a static field is not hashable.

    Example:
        >>> flatten({"w": [1.0, 2.0], "b": None})
        ([1.0, 2.0], TreeDef({'b': None, 'w': [*, *]}))
    """
    leaves: list[Any] = []
    open_nodes: list[tuple[NodeKind, Any, Any, list[TreeDef]]] = []
    known = KINDS.get
    kind: NodeKind | None = None  # of the container being read; None at the root
    aux: Any = None
    children = iter((tree,))
    defs: list[TreeDef] = []
    while True:
        for child in children:
            child_kind: Any = known(type(child), _UNSEEN)
            if child_kind is _UNSEEN:
                child_kind = find_kind(type(child))
            if child_kind is None or (is_leaf is not None and is_leaf(child)):
                leaves.append(child)
                defs.append(LEAF)
                continue
            if len(open_nodes) == _DEEPEST:
                raise UsageError(
                    f"a tree is nested more than {_DEEPEST} containers deep",
                    hint="does a container contain itself?",
                )
            open_nodes.append((kind, aux, children, defs))  # type: ignore[arg-type]  # None: root
            kind = child_kind
            inner, aux = child_kind.flatten(child)
            children = iter(inner)
            defs = []
            break
        else:
            if kind is None:
                return leaves, defs[0]
            done = _close(kind, aux, defs)
            kind, aux, children, defs = open_nodes.pop()
            defs.append(done)


def _close(kind: NodeKind, aux: Any, defs: list[TreeDef]) -> TreeDef:
    try:
        return node(kind, aux, tuple(defs))
    except TypeError as error:
        raise UsageError(
            f"the static part of a {kind.cls.__qualname__} is not hashable: {aux!r}",
            hint="static fields and `aux` must be hashable: use a tuple for a list, or let arrays "
            "be leaves",
        ) from error


def flatten_with_paths(tree: Any, root: str = "") -> tuple[list[tuple[str, Any]], TreeDef]:
    """As `flatten`, with the path of each leaf beside it.

    Example:
        >>> flatten_with_paths({"w": [1.0, 2.0]}, "params")[0]
        [("params['w'][0]", 1.0), ("params['w'][1]", 2.0)]
    """
    found, treedef = flatten(tree)
    return list(zip(treedef.paths(root), found, strict=True)), treedef


def leaves(tree: Any) -> list[Any]:
    """The leaves of a tree, in order."""
    return flatten(tree)[0]


def structure(tree: Any) -> TreeDef:
    """The structure of a tree."""
    return flatten(tree)[1]


def unflatten(treedef: TreeDef, leaves: Iterable[Any]) -> Any:
    """Builds the tree with this structure and these leaves; the inverse of `flatten`.

    Raises:
        UsageError: There are more or fewer leaves than the structure has places.
    """
    leaves = list(leaves)
    if len(leaves) != treedef.num_leaves:
        raise UsageError(
            f"the structure {treedef} has {treedef.num_leaves} leaves, but {len(leaves)} were given"
        )
    return treedef.build(leaves)


def map(f: Callable[..., Any], tree: Any, *rest: Any) -> Any:
    """The tree of `f(leaf, ...)`, with the corresponding leaves of further trees as arguments.

    Args:
        f: Takes one leaf of each tree.
        tree: The tree whose structure the result has.
        *rest: Trees of the same structure.

    Raises:
        UsageError: A further tree has another structure; the message names the first difference.

    Example:
        >>> map(lambda w, g: w - g, {"w": 3.0}, {"w": 1.0})
        {'w': 2.0}
    """
    first, treedef = flatten(tree)
    columns = [first]
    for number, other in enumerate(rest, start=2):
        column, found = flatten(other)
        if found is not treedef:
            raise UsageError(
                f"tree {number} differs from tree 1 {explain_mismatch(treedef, found, 'tree')}",
                hint="give all trees the same containers, keys and lengths",
            )
        columns.append(column)
    return unflatten(treedef, [f(*row) for row in zip(*columns, strict=True)])
