"""Whole-graph rewrites that make convolutions of what amounts to them: the table.

They look at sums of several equations and at who uses what, so they are functions on graphs beside
the rules for single equations. ``driver`` runs them when no such rule applies.

Both change the order of a summation. They are on although they are not exact: the order within a
contraction is diffc's choice, and the bound that holds for it (``n * eps`` times the sum of the
absolute products) holds for the sum of contractions that is replaced, with the same ``n``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from diffc.ir.graph import Graph
from diffc.optimize.shifts import sum_of_shifts
from diffc.optimize.spread import spread_of_contract


@dataclass(frozen=True, slots=True)
class GraphRule:
    """A rewrite of a whole graph; ``apply`` returns the same graph where there is nothing to do."""

    apply: Callable[[Graph], Graph]
    why: str
    is_on: bool = True


GRAPH_RULES: dict[str, GraphRule] = {
    "sum_of_shifts": GraphRule(sum_of_shifts, "convolutions written as sums of shifted slices"),
    "spread_of_contract": GraphRule(spread_of_contract, "gradients of convolutions by their data"),
}
