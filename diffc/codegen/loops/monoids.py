"""What folds join with: the op of each monoid, and what its empty fold is.

Sums of floats start from +0.0, so an empty sum and a sum of -0.0 are +0.0, as in NumPy.
"""

from __future__ import annotations

from collections.abc import Mapping

from diffc.codegen.targets import FLOATS, ITEM_BYTES

__all__ = ["OPS", "identity", "neutral"]

#: The scalar op that joins a value to what was folded before it; positions have none.
OPS: Mapping[str, str] = {
    "sum": "add",
    "prod": "mul",
    "max": "maximum",
    "min": "minimum",
    "any": "bitwise_or",
    "all": "bitwise_and",
}


def identity(monoid: str, dtype: str) -> bool | int | float:
    """What folds to itself with any value: the result of an empty fold."""
    if monoid in ("sum", "prod"):
        number = 0 if monoid == "sum" else 1
        return float(number) if dtype in FLOATS else number
    if monoid in ("any", "all"):
        return monoid == "all"
    is_max = monoid in ("max", "argmax")
    if dtype in FLOATS:
        return float("-inf") if is_max else float("inf")
    if dtype == "bool":
        return not is_max
    width = 8 * ITEM_BYTES[dtype]
    if dtype[0] == "i":
        half: int = 1 << (width - 1)
        return -half if is_max else half - 1
    return 0 if is_max else (1 << width) - 1


def neutral(monoid: str, dtype: str) -> bool | int | float:
    """What leaves every value as it is, -0.0 too: where a cumulative fold starts."""
    return -0.0 if monoid == "sum" and dtype in FLOATS else identity(monoid, dtype)
