import gc
import sys

import numpy as np
import pytest

from diffc.errors import ExecutionError, InternalError
from diffc.runtime import abi
from diffc.runtime.build import build
from diffc.runtime.executable import Executable, InputSpec, OutputSpec, StatusMessage, Writeback
from diffc.runtime.target import host
from tests.runtime.entries import Entry, step_program
from tests.runtime.programs import (
    F64,
    arena_program,
    reverse_text,
    status_program,
    sum_program,
    sum_text,
)

pytestmark = pytest.mark.skipif(bool(abi.unsupported()), reason=abi.unsupported())

A = np.arange(3.0)


@pytest.mark.parametrize("is_inside", [False, True])
def test_donation_returns_the_same_object(is_inside):
    spec, wrap = ([0, 1], list) if is_inside else (0, None)
    program = step_program(3, 2, [0])
    entry = Entry(program, (spec,) if is_inside else (0, 1), {"w": 0})
    w, g = np.ones(3), np.full(3, 0.25)
    args = (wrap([w, g]),) if is_inside else (w, g)
    before = sys.getrefcount(w)
    for step in range(1, 4):
        result = entry.fast(*args)
        assert result["w"] is w
        assert w.tolist() == [1 - 0.25 * step] * 3
    del result
    assert sys.getrefcount(w) == before


def test_writeback_is_not_returned():
    entry = Entry(step_program(3, 2, [], [0]), (0, 1), None)
    w = np.ones(3)
    assert entry.fast(w, np.full(3, 0.25)) is None
    assert w.tolist() == [0.75] * 3


def test_written_arrays_must_be_writeable():
    for program in (step_program(3, 2, [0]), step_program(3, 2, [], [0])):
        entry = Entry(program, (0, 1), None)
        frozen = np.ones(3)
        frozen.flags.writeable = False
        assert entry(frozen, A) == "slow"
        assert frozen.tolist() == [1, 1, 1]
        entry.fast(np.ones(3), frozen)


@pytest.mark.parametrize("shift", range(-6, 7))
def test_overlap_with_written_memory_goes_to_the_slow_path(shift):
    memory = np.arange(20.0)
    program = Executable(
        build(reverse_text(5), ("program",), host()),
        "program",
        [InputSpec(F64, (5,))] * 2,
        [OutputSpec(F64, (5,), 0)],
    )
    entry = Entry(program, (0, 1), 0)
    w, x = memory[7:12], memory[7 + shift : 12 + shift]
    expected = x[::-1] + 1
    result = entry(w, x)
    if abs(shift) < 5:
        assert result == "slow"
        assert np.array_equal(memory, np.arange(20.0))
    else:
        assert result is w
        assert np.array_equal(w, expected)


@pytest.mark.parametrize("count", [2, 5, 9, 17, 40])
def test_overlap_among_many(count):
    """From some pairs on the check is a loop over vectors: it must find each single overlap."""
    entry = Entry(step_program(3, count, range(count - 1)), (list(range(count)),), None)
    memory = np.zeros(3 * count + 3)
    packed = [memory[3 * k : 3 * k + 3] for k in range(count)]
    entry.fast(packed)
    for k in range(count):
        for j in {0, 1, k // 2, count - 2, count - 1} - {k}:
            if 0 <= j < count:
                changed = list(packed)
                changed[k] = packed[j]
                assert entry(changed) == "slow", (k, j)
    for k in range(count - 1):
        shifted = list(packed)
        shifted[k] = memory[3 * k + 1 : 3 * k + 4]
        assert entry(shifted) == "slow", k
    assert entry.fast(packed) is None


def test_empty_and_scalar_operands_overlap_nothing():
    text = "define i64 @program(ptr %i, ptr %o, ptr %a) {\n ret i64 0\n}\n"
    empty, scalar = InputSpec(F64, (0,)), InputSpec(F64, (), "float")
    full = InputSpec(F64, (3,))
    for more in (1, 30):
        program = Executable(
            build(text, ("program",), host()),
            "program",
            [full, *[empty] * more, scalar],
            [],
            writebacks=[Writeback(0), Writeback(1)],
        )
        entry = Entry(program, ([*range(more + 2)],), None)
        none = np.zeros(0)
        entry.fast([np.ones(3), *[none] * more, 1.0])


def test_captured_arrays():
    captured = np.ones(3)
    entry = Entry(sum_program((3,), 1, captured=[captured]), (0,), 0)
    assert entry.fast(A).tolist() == [1, 2, 3]
    captured[:] = 10
    assert entry.fast(A).tolist() == [10, 11, 12]
    alive = sys.getrefcount(captured)
    for _ in range(100):
        entry.fast(A)
    assert sys.getrefcount(captured) == alive


def test_captured_written_memory_overlap():
    memory = np.arange(8.0)
    program = Executable(
        build(reverse_text(5), ("program",), host()),
        "program",
        [InputSpec(F64, (5,))],
        [OutputSpec(F64, (5,), 0)],
        captured=[memory[2:7]],
    )
    entry = Entry(program, (0,), 0)
    assert entry(memory[:5]) == "slow"
    entry.fast(np.zeros(5))


def test_arena_comes_from_the_pool():
    program = arena_program(100)
    entry = Entry(program, (0,), 0, lambda x: program.run([x])[0])
    x = np.array(2.0)
    assert entry(x) == 200  # the first call makes the arena
    assert len(entry.calls) == 1
    for _ in range(1000):
        assert entry.fast(x) == 200
    assert program.resident == 800
    assert len(program.pool.free) == 1
    lone = [np.zeros(1)]
    counts = [sys.getrefcount(owner[0]) for owner in (program.pool.free, lone)]
    assert counts[0] == counts[1]


def test_status_is_raised():
    program = status_program(
        messages=[StatusMessage("singular", "user.py:3"), StatusMessage("index")], arena_bytes=64
    )
    entry = Entry(program, ([0],), (0,), lambda x: program.run(x))
    x = np.zeros(())
    entry([x])
    count = sys.getrefcount(x)
    assert entry.fast([x])[0] == 0
    for value, text in ((1, "singular"), (2, "index")):
        x[()] = value
        for _ in range(10):
            with pytest.raises(ExecutionError, match=text) as caught:
                entry.fast([x])
            assert caught.value.location == ("user.py:3" if value == 1 else None)
    del caught
    x[()] = 3
    with pytest.raises(InternalError, match="status 3"):
        entry.fast([x])
    assert sys.getrefcount(x) == count
    assert len(program.pool.free) == 1


def test_failing_allocation_leaves_everything_as_it_was():
    """A 256 TiB output cannot be had: the program must not run, nothing may leak."""
    library = build(sum_text(3, 1, 1), ("program",), host())
    outs = [OutputSpec(F64, (3,)), OutputSpec(F64, (1000,)), OutputSpec(F64, (1 << 45,))]
    program = Executable(library, "program", [InputSpec(F64, (3,))], outs, arena_bytes=64)
    program.pool.give(program.pool.take())
    entry = Entry(program, ({"a": 0},), (0, 1, 2))
    x = np.ones(3)
    gc.collect()  # arrays that other tests left in cycles count too
    count, dtype_count = sys.getrefcount(x), sys.getrefcount(F64)
    for _ in range(100):
        with pytest.raises(MemoryError):
            entry.fast({"a": x})
    assert sys.getrefcount(x) == count
    assert abs(sys.getrefcount(F64) - dtype_count) < 5
    assert len(program.pool.free) == 1
