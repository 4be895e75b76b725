"""Rewrites of whole graphs: the table.

They look at sums of several equations and at who uses what, so they are functions on graphs beside
the rules for single equations. ``driver`` runs them when no such rule applies.

Those that make convolutions change the order of a summation. They are on although they are not
exact: the order within a contraction is diffc's choice, and the bound that holds for it (``n *
eps`` times the sum of the absolute products) holds for the sum of contractions that is replaced,
with the same ``n``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from diffc.ir.graph import Graph
from diffc.optimize.calls import CALLS, unused_in_calls
from diffc.optimize.masks import mask_of_maximum
from diffc.optimize.quotients import quotient_of_contract
from diffc.optimize.regions import (
    branch_of_literal,
    constant_carries,
    literal_operands,
    unused_in_regions,
)
from diffc.optimize.shifts import sum_of_shifts
from diffc.optimize.sorted import sort_of_argsort
from diffc.optimize.spread import spread_of_contract
from diffc.optimize.trips import contract_after_scan, contract_before_scan
from diffc.optimize.turned import transpose_of_contract


@dataclass(frozen=True, slots=True)
class GraphRule:
    """A rewrite of a whole graph; ``apply`` returns the same graph where there is nothing to do.

    ``roots`` are the ops that it starts from: a graph without any of them is not looked at.
    """

    apply: Callable[[Graph], Graph]
    roots: frozenset[str]
    why: str
    is_on: bool = True


def _rule(apply: Callable[[Graph], Graph], *roots: str, why: str) -> GraphRule:
    return GraphRule(apply, frozenset(roots), why)


GRAPH_RULES: dict[str, GraphRule] = {
    "branch_of_literal": _rule(
        branch_of_literal, "cond", why="flags that are known when compiling"
    ),
    "unused_in_regions": _rule(
        unused_in_regions, "cond", "scan", "while", why="loops of which only some results count"
    ),
    "unused_in_calls": _rule(
        unused_in_calls, *CALLS, why="gradients of blocks by what is not asked for, and their masks"
    ),
    "constant_carries": _rule(
        constant_carries, "scan", "while", why="parameters carried beside a state"
    ),
    "literal_operands": _rule(
        literal_operands, "cond", "scan", "while", why="zeros that tangents and sums start from"
    ),
    "contract_before_scan": _rule(
        contract_before_scan, "scan", why="recurrent layers: what does not depend on the state"
    ),
    "contract_after_scan": _rule(
        contract_after_scan, "scan", why="gradients by weights that every step of a loop uses"
    ),
    "sum_of_shifts": _rule(
        sum_of_shifts, "add", why="convolutions written as sums of shifted slices"
    ),
    "spread_of_contract": _rule(
        spread_of_contract, "overlap_add", why="gradients of convolutions by their data"
    ),
    "quotient_of_contract": _rule(
        quotient_of_contract,
        "div",
        why="weights that are divided by their sum: attention, mixtures",
    ),
    "transpose_of_contract": _rule(
        transpose_of_contract,
        "transpose",
        why="gradients by operands that are turned around: keys, weights",
    ),
    "sort_of_argsort": _rule(
        sort_of_argsort, "sort", why="sorted values whose derivative asks where they come from"
    ),
    "mask_of_maximum": _rule(
        mask_of_maximum,
        "maximum",
        why="the backward pass of relu reads the result that is kept anyway",
    ),
}
