"""A prefix gives one value to each leaf below it."""

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffc import tree
from diffc.errors import UsageError


@dataclass
class Layer:
    w: Any
    size: Any = field(default=1, metadata={"static": True})


FULL = tree.structure(([1, 2], {"b": 3, "a": (4, None)}))


@pytest.mark.parametrize(
    ("prefix", "values"),
    [
        (0, [0, 0, 0, 0]),
        (None, [None] * 4),
        ((0, 1), [0, 0, 1, 1]),
        ((0, None), [0, 0, None, None]),
        (([5, None], {"a": 6, "b": 7}), [5, None, 6, 7]),
        (([5, 5], {"a": (6, 9), "b": 7}), [5, 5, 6, 7]),  # the 9 covers no leaf
    ],
)
def test_spread(prefix, values):
    assert tree.spread(prefix, FULL) == values


@pytest.mark.parametrize(
    ("prefix", "message"),
    [
        ([0, 1], "at in_axes: expected a single value or a tuple of length 2, found a list"),
        ((0, 1, 2), "at in_axes: expected .* length 2, found a tuple of length 3"),
        (([0], 1), r"at in_axes\[0\]: expected .* list of length 2, found a list of length 1"),
        ((0, {"a": 0}), r"at in_axes\[1\]: expected .* keys 'a', 'b', found a dict with keys 'a'"),
        (([(1,), 0], 0), r"at in_axes\[0\]\[0\]: expected .* a leaf, found a tuple of length 1"),
        ((0, OrderedDict(a=0, b=0)), r"at in_axes\[1\]: .* found a OrderedDict with keys"),
    ],
)
def test_what_is_no_prefix(prefix, message):
    with pytest.raises(UsageError, match=message):
        tree.spread(prefix, FULL, "in_axes")


def test_static_fields_must_agree():
    full = tree.structure(Layer([1, 2], size=2))
    assert tree.spread(Layer(0, size=2), full) == [0, 0]
    with pytest.raises(UsageError, match="not a prefix at the root"):
        tree.spread(Layer(0, size=2.0), full)


@given(st.recursive(st.integers(), lambda inner: st.lists(inner, max_size=3), max_leaves=12))
def test_a_tree_is_a_prefix_of_itself(value):
    assert tree.spread(value, tree.structure(value)) == tree.leaves(value)
