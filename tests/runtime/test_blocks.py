"""Memory of large outputs: used again, owned by its arrays, bounded."""

import gc

import numpy as np
import pytest

import diffc
from diffc.runtime import blocks

pytestmark = pytest.mark.skipif(blocks.allocator() is None, reason="the system has no allocator")

LARGE = blocks.POOLED_FROM


@pytest.fixture(autouse=True)
def _no_block_is_kept():
    gc.collect()
    blocks.trim()
    yield
    blocks.trim()


def address(array):
    return array.__array_interface__["data"][0]


def make(size):
    with blocks.pooled(size):
        return np.empty(size, np.uint8)


def test_a_freed_block_is_used_again():
    first = make(LARGE)
    at = address(first)
    assert first.flags.owndata and at % 64 == 0
    second = make(LARGE)
    assert address(second) != at
    del first
    assert blocks.held() == LARGE
    assert address(make(LARGE)) == at
    del second
    assert blocks.held() == 2 * LARGE
    assert blocks.trim() == 2 * LARGE and blocks.held() == 0


def test_a_block_is_not_used_for_much_less():
    del_me = make(4 * LARGE)
    del del_me
    kept = make(LARGE)
    assert blocks.held() == 4 * LARGE
    near = make(4 * LARGE - LARGE // 4)
    assert blocks.held() == 0
    del kept, near


def test_small_arrays_are_freed_at_once():
    with blocks.pooled(LARGE):
        array = np.empty(LARGE - 64, np.uint8)
    array[:] = 1
    del array
    assert blocks.held() == 0


def test_what_is_kept_is_bounded():
    count = 5
    size = blocks.LIMIT // 4
    arrays = [make(size) for _ in range(count)]
    addresses = [address(array) for array in arrays]
    while arrays:
        del arrays[0]
    assert blocks.held() == 4 * size
    again = [make(size) for _ in range(4)]
    assert {address(array) for array in again} == set(addresses[1:])  # the oldest went
    del again
    array = make(blocks.LIMIT + 64)
    del array
    assert blocks.held() == 4 * size


def test_more_blocks_than_slots():
    arrays = [make(LARGE) for _ in range(blocks.SLOTS + 3)]
    del arrays
    assert blocks.held() == blocks.SLOTS * LARGE


def test_arrays_can_grow_shrink_and_be_cleared():
    array = make(LARGE)
    array[:] = np.arange(LARGE, dtype=np.uint64).astype(np.uint8)
    want = array.copy()
    array.resize(3 * LARGE, refcheck=False)
    np.testing.assert_array_equal(array[:LARGE], want)
    assert not array[LARGE:].any()
    array.resize(10, refcheck=False)
    np.testing.assert_array_equal(array, want[:10])
    dirty = make(LARGE)
    dirty[:] = 7
    del dirty
    with blocks.pooled(LARGE):
        assert not np.zeros(LARGE, np.uint8).any()
        assert np.empty((0, 3)).size == 0


def test_others_keep_their_allocator():
    from numpy._core.multiarray import get_handler_name

    inside = make(LARGE)
    outside = np.empty(LARGE, np.uint8)
    assert get_handler_name(inside) == "diffc_blocks"
    assert get_handler_name(outside) == "default_allocator"
    with pytest.raises(KeyError), blocks.pooled(LARGE):
        raise KeyError
    assert get_handler_name(np.empty(LARGE, np.uint8)) == "default_allocator"


@pytest.mark.parametrize("slow", [False, True])
def test_outputs_of_programs(slow):
    def f(x):
        return x * 2.0, np.sum(x)

    x = np.arange(float(LARGE))
    run = diffc.jit(f)
    given = x[::-1][::-1] if slow else x
    y, total = run(given)
    at = address(y)
    np.testing.assert_array_equal(y, x * 2)
    del y
    again, _ = run(given)
    assert address(again) == at
    np.testing.assert_array_equal(again, x * 2)
    np.testing.assert_array_equal(np.sum(x), total)
    other, _ = run(given)
    assert address(other) != at


def test_no_memory_at_all():
    with pytest.raises(MemoryError), blocks.pooled(LARGE):
        np.empty(1 << 60, np.uint8)
