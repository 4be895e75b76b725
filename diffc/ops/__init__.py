"""The ops, declared once each with all facets, by families; importing this fills the registry."""

from diffc.ops import (  # noqa: F401  # imported for their declarations
    arithmetic,
    branching,
    comparison,
    contraction,
    control,
    custom,
    elementary,
    generate,
    indexing,
    movement,
    ordering,
    reduction,
    solving,
    windows,
)
from diffc.ops.declare import Op
from diffc.ops.registry import every_op, find, table

__all__ = ["Op", "every_op", "find", "table"]
