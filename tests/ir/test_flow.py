"""Minimum cuts of small networks, against all cuts."""

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffc.ir.flow import Network

EDGES = st.lists(
    st.tuples(st.integers(0, 5), st.integers(0, 5), st.integers(0, 9)), min_size=1, max_size=16
)


def built(edges):
    network = Network()
    nodes = [network.node() for _ in range(6)]
    for start, end, capacity in edges:
        network.edge(nodes[start], nodes[end], float(capacity))
    return network


def value_of(edges, side):
    return sum(c for start, end, c in edges if start in side and end not in side)


@given(EDGES)
def test_the_cut_is_minimal(edges):
    side = built(edges).source_side(0, 5)
    assert 0 in side and 5 not in side
    others = [{0, *inner} for n in range(5) for inner in itertools.combinations(range(1, 5), n)]
    assert value_of(edges, side) == min(value_of(edges, other) for other in others)


def test_no_finite_cut():
    network = built([])
    network.edge(0, 1, math.inf)
    network.edge(1, 5, math.inf)
    with pytest.raises(ValueError, match="no finite cut"):
        network.source_side(0, 5)
