"""Prefix trees: one value that stands for a whole subtree, as in `in_axes=(0, None)`.

A prefix of a tree has the same containers from the root down, but may stop anywhere; each of its
leaves then counts for all leaves below that place.
"""

from collections.abc import Callable
from typing import Any

from diffc.errors import UsageError
from diffc.tree.flatten import flatten
from diffc.tree.treedef import TreeDef, describe, steps_of, typed


def _is_none(value: Any) -> bool:
    return value is None


def spread(
    prefix: Any,
    treedef: TreeDef,
    root: str = "",
    is_leaf: Callable[[Any], bool] | None = _is_none,
) -> list[Any]:
    """One value per leaf of `treedef`: a leaf of `prefix` is repeated over the subtree below it.

    Args:
        prefix: A tree that agrees with `treedef` from the root down to its own leaves.
        treedef: The structure of the full tree.
        root: What the tree is called in messages.
        is_leaf: Containers of `prefix` to take as values; by default None is a value.

    Raises:
        UsageError: `prefix` has a container where `treedef` has another one or a leaf.

    Example:
        >>> from diffc.tree import structure
        >>> spread((0, None), structure(([1, 2], {"w": 3})))
        [0, 0, None]
    """
    values, short = flatten(prefix, is_leaf)
    remaining = iter(values)
    result: list[Any] = []
    pending = [(short, treedef, root)]
    while pending:
        left, right, path = pending.pop()
        if left.kind is None:
            result.extend([next(remaining)] * right.num_leaves)
            continue
        if (
            left.kind is not right.kind
            or len(left.children) != len(right.children)
            or typed(left.aux) != typed(right.aux)
        ):
            place = path or "the root"
            raise UsageError(
                f"not a prefix at {place}: expected a single value or {describe(right)}, "
                f"found {describe(left)}",
                hint="give one value for the whole subtree, or one tree with its containers",
            )
        steps = steps_of(right)
        for i in reversed(range(len(steps))):
            pending.append((left.children[i], right.children[i], path + steps[i]))
    return result
