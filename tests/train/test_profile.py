"""Gradients layer by layer: norms of any size, and where digits or everything is lost."""

import numpy as np
import pytest

from diffc.errors import DtypeError, ShapeError, UsageError
from diffc.train import gradient_profile


def test_layers_by_name_and_position():
    grads = {"first": {"w": np.full((2, 2), 3.0), "b": np.zeros(4)}, "last": [np.array(-8.0)]}
    first, last = gradient_profile(grads)
    assert (first.name, first.norm, first.largest, first.zeros, first.mark) == (
        ("first", 6.0, 3.0, 0.5, "")
    )
    assert (last.name, last.norm, last.largest, last.zeros) == ("last", 8.0, 8.0, 0.0)
    assert [layer.name for layer in gradient_profile([np.ones(2), np.ones(3)])] == ["0", "1"]


def test_stacked_layers_count_from_one():
    found = gradient_profile({"w": np.ones((3, 2, 2)), "b": np.zeros((3, 5))}, stacked=True)
    assert [layer.name for layer in found] == ["1", "2", "3"]
    assert {(layer.norm, layer.zeros) for layer in found} == {(2.0, 5 / 9)}


@pytest.mark.parametrize("size", [1e-320, 1e-200, 1.0, 1e200])
def test_norms_neither_underflow_nor_overflow(size):
    (layer,) = gradient_profile([np.full(4, size)])
    assert layer.norm == pytest.approx(2 * size, rel=1e-3)
    assert layer.mark == ("subnormal" if size < 1e-308 else "")


@pytest.mark.parametrize(
    ("x", "mark"),
    [
        (np.float32(1e-40), "subnormal"),
        (np.float64(1e-40), ""),
        (np.float32(0), "zero"),
        (np.float64(np.nan), "not finite"),
        (np.float64(np.inf), "not finite"),
        (np.zeros((0, 3)), "zero"),
    ],
)
def test_marks(x, mark):
    profile = gradient_profile([x, np.ones(2)])
    assert [layer.mark for layer in profile] == [mark, ""]
    assert profile.cut_off == (("0",) if mark == "zero" else ())
    assert str(profile).splitlines()[1].endswith(mark)


def test_bars_grow_with_the_logarithm():
    text = str(gradient_profile({"a": np.array(1e-4), "b": np.array(1e-2), "c": np.array(1.0)}))
    assert [line.count("#") for line in text.splitlines()] == [0, 1, 20, 40]


def test_misuse():
    with pytest.raises(UsageError, match="one entry for each layer"):
        gradient_profile(np.ones(3))
    with pytest.raises(UsageError, match="one entry for each layer"):
        gradient_profile([])
    with pytest.raises(ShapeError, match=r"one leading axis; found \(2,\), \(3,\)"):
        gradient_profile([np.ones(2), np.ones(3)], stacked=True)
    with pytest.raises(ShapeError, match="found nothing"):
        gradient_profile({}, stacked=True)
    with pytest.raises(DtypeError, match="layer 0 holds int64"):
        gradient_profile([np.array(1)])
