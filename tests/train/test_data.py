import numpy as np
import pytest

from diffc import train
from diffc.errors import ShapeError, UsageError


def test_batches_cover_all_rows_once():
    data = {"x": np.arange(20).reshape(10, 2), "y": np.arange(10)}
    batches = list(train.minibatches(data, 3, np.random.default_rng(0), keep_rest=True))
    assert [len(b["y"]) for b in batches] == [3, 3, 3, 1]
    assert sorted(np.concatenate([b["y"] for b in batches])) == list(range(10))
    assert all(np.array_equal(b["x"][:, 0], 2 * b["y"]) for b in batches)


def test_the_rest_is_left_out():
    batches = list(train.minibatches(np.arange(10), 4))
    assert [b.tolist() for b in batches] == [[0, 1, 2, 3], [4, 5, 6, 7]]


def test_order_is_drawn_anew_from_the_generator():
    rng = np.random.default_rng(3)
    first, second = (np.concatenate(list(train.minibatches(np.arange(64), 8, rng))) for _ in "ab")
    again = np.concatenate(list(train.minibatches(np.arange(64), 8, np.random.default_rng(3))))
    assert not np.array_equal(first, second)
    assert np.array_equal(first, again)


@pytest.mark.parametrize("size", [1, 5, 6])
def test_sizes_at_the_edge(size):
    batches = list(train.minibatches(np.arange(5), size, keep_rest=True))
    assert np.array_equal(np.concatenate(batches), np.arange(5))


def test_wrong_batches():
    with pytest.raises(ShapeError, match=r"data\['x'\] has 3, data\['y'\] has 4"):
        train.minibatches({"x": np.zeros(3), "y": np.zeros(4)}, 2)
    with pytest.raises(UsageError, match="size is 0"):
        train.minibatches(np.arange(3), 0)
    with pytest.raises(UsageError, match="no batch of 4 rows fits into 3"):
        train.minibatches(np.arange(3), 4)
    assert list(train.minibatches(np.arange(0), 4, keep_rest=True)) == []


def test_split_keeps_the_shares():
    labels = np.repeat([0, 1, 2], [100, 50, 5])
    fit, held = train.stratified_split(labels, 0.2, np.random.default_rng(0))
    assert np.bincount(labels[held]).tolist() == [20, 10, 1]
    assert sorted(np.concatenate([fit, held])) == list(range(155))
    other = train.stratified_split(labels, 0.2, np.random.default_rng(1))[1]
    assert not np.array_equal(held, other)


@pytest.mark.parametrize(("share", "count"), [(0.0, 0), (1.0, 4)])
def test_split_at_the_edge(share, count):
    fit, held = train.stratified_split(np.zeros(4, int), share, np.random.default_rng(0))
    assert (len(fit), len(held)) == (4 - count, count)


def test_no_share():
    with pytest.raises(UsageError, match="between 0 and 1"):
        train.stratified_split(np.zeros(4, int), 20, np.random.default_rng(0))
