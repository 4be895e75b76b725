"""Pytrees: nested Python containers with arrays (or anything else) as their leaves.

Containers are dict, OrderedDict, defaultdict, list, tuple, namedtuples, dataclass instances, None
(which has no leaves) and what `register_node` adds; all other objects are leaves, subclasses of
containers included. `flatten` splits a tree into its leaves and a `TreeDef`; every leaf has a path
such as `params['w'][0].bias`, by which errors name it.

What a leaf may be is left to the callers.
"""

from diffc.tree.flatten import flatten, flatten_with_paths, leaves, map, structure, unflatten
from diffc.tree.nodes import register_node
from diffc.tree.prefix import spread
from diffc.tree.treedef import LEAF, TreeDef, explain_mismatch, first_mismatch

__all__ = [
    "LEAF",
    "TreeDef",
    "explain_mismatch",
    "first_mismatch",
    "flatten",
    "flatten_with_paths",
    "leaves",
    "map",
    "register_node",
    "spread",
    "structure",
    "unflatten",
]
