"""Comparisons of positions in 32 bits say what those in 64 bits do."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import diffc
from diffc.codegen.loops.nodes import Apply, Const, IndexValue, Load
from diffc.codegen.loops.walk import expressions
from diffc.codegen.lower.narrow import COMPARISONS, compared
from diffc.ir.index import Var
from tests.codegen.emit.kernels import buffer

I, J = Var("i", 10), Var("j", 1000)
EDGES = (-(2**63), -(2**32), -(2**31) - 1, -1, 0, 1, 499, 998, 999, 1000, 1001, 2**31, 2**63 - 1)


def numbers(found) -> dict[str, set[str]]:
    dtypes: dict[str, set[str]] = {}
    for node in expressions((found,)):
        if isinstance(node, Apply):
            dtypes.setdefault(node.name, set()).update(arg.dtype for arg in node.args)
    return dtypes


def test_positions_with_a_number_of_the_row():
    label = Load(buffer("y", "i64", (10,)), (I,))
    found = compared("eq", IndexValue("i64", J), label)
    assert found is not None
    assert numbers(found) == {
        "eq": {"i32"},
        "convert": {"i64"},
        "minimum": {"i64"},
        "maximum": {"i64"},
    }
    assert compared("eq", label, IndexValue("i64", J)) is not None


def test_positions_with_positions():
    found = compared("ge", IndexValue("i64", I), IndexValue("i64", J + 5))
    assert found is not None and numbers(found) == {"ge": {"i32"}}


def test_what_stays_wide():
    position, y = IndexValue("i64", J), buffer("y", "i64", (1000,))
    assert compared("eq", position, Load(y, (J,))) is None, "it differs from lane to lane"
    large = IndexValue("i64", 2**31 * J)
    assert compared("eq", large, Const("i64", 3)) is None
    assert compared("eq", Const("i64", 2), Const("i64", 3)) is None
    assert compared("lt", Load(y, (I,)), Const("i64", 3)) is None, "no position"
    wraps = Apply("i64", "add", (IndexValue("i64", 2**30 * J), Const("i64", 2**31 - 1)))
    assert compared("lt", wraps, Const("i64", 3)) is None


def test_sums_and_conversions_of_positions():
    y = Load(buffer("y", "i32", (10,)), (I,))
    wide = Apply("i64", "convert", (y,))
    found = compared("lt", Apply("i64", "sub", (IndexValue("i64", J), Const("i64", 7))), wide)
    assert found is not None and numbers(found) == {"lt": {"i32"}, "sub": {"i32"}}


@pytest.mark.parametrize("name", sorted(COMPARISONS))
def test_compiled_comparisons(name):
    order = {"eq": np.equal, "ne": np.not_equal, "lt": np.less}
    order |= {"le": np.less_equal, "gt": np.greater, "ge": np.greater_equal}
    y = np.array(EDGES)

    def by_row(y):
        return order[name](np.arange(1000), y[:, None])

    def turned(y):
        return order[name](y[:, None], np.arange(1000) - 500)

    for function in (by_row, turned):
        np.testing.assert_array_equal(diffc.jit(function)(y), function(y))


@given(st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=5), st.integers(1, 70))
def test_masks_of_any_numbers(numbers, length):
    y, x = np.array(numbers), np.arange(1.0, length + 1)

    def masked(y, x):
        return np.where(np.arange(length) < y[:, None], x, 0.0).sum(1)

    np.testing.assert_array_equal(diffc.jit(masked)(y, x), masked(y, x))
