import numpy as np
import pytest

from diffc.errors import ExecutionError, UsageError
from diffc.runtime.memory import ALIGNMENT, MAP_FROM_BYTES, ArenaPool, aligned_block


@pytest.mark.parametrize("size", [1, 63, 64, 65, 4097, MAP_FROM_BYTES - 1, MAP_FROM_BYTES + 1])
def test_blocks_are_aligned_and_writeable(size):
    for _ in range(5):
        block = aligned_block(size)
        assert block.ctypes.data % ALIGNMENT == 0
        assert block.nbytes == size
        block[:] = 255
        assert block[-1] == 255


def test_a_pool_grows_with_concurrent_calls_only():
    pool = ArenaPool(1000)
    assert pool.resident == 0
    for _ in range(10):
        arena = pool.take()
        pool.give(arena)
    assert pool.resident == 1000
    both = pool.take(), pool.take()
    assert both[0].ctypes.data != both[1].ctypes.data
    assert pool.resident == 2000
    for arena in both:
        pool.give(arena)
    assert pool.resident == 2000
    assert pool.trim() == 2000
    assert pool.resident == 0


def test_trim_leaves_arenas_in_use():
    pool = ArenaPool(10)
    arena, other = pool.take(), pool.take()
    pool.give(other)
    assert pool.trim() == 10
    assert pool.resident == 10
    pool.give(arena)
    assert pool.take() is arena


def test_no_arena_for_no_bytes():
    pool = ArenaPool(0)
    assert pool.take() is None
    pool.give(None)
    assert pool.resident == 0
    assert pool.free == []


def test_no_memory_is_said_with_the_size():
    pool = ArenaPool(1 << 60)
    with pytest.raises(ExecutionError, match="1,152,921,504,606,846,976 bytes"):
        pool.take()
    assert pool.resident == 0


def test_negative_sizes_are_refused():
    with pytest.raises(UsageError):
        ArenaPool(-1)


def test_the_small_block_keeps_its_memory():
    blocks = [aligned_block(100) for _ in range(100)]
    for k, block in enumerate(blocks):
        block[:] = k
    assert all(np.all(block == k) for k, block in enumerate(blocks))
