"""How converted functions are held against Python's own run of them."""

from __future__ import annotations

import copy

import numpy as np
import pytest

import diffc
from diffc import tree


def compare(function, *args):
    """Asserts that the converted, compiled function does what Python does, writes included."""
    own, given = copy.deepcopy(args), copy.deepcopy(args)
    with np.errstate(all="ignore"):
        expected = function(*own)
    result = diffc.jit(function, control_flow=True)(*given)
    want, want_tree = tree.flatten((expected, own))
    got, got_tree = tree.flatten((result, given))
    assert got_tree is want_tree
    for a, b in zip(got, want, strict=True):
        assert np.shape(a) == np.shape(b)
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12)


@pytest.fixture(scope="session")
def check():
    return compare
