import contextlib
import gc
import sys
import threading
import weakref

import numpy as np
import pytest

from diffc.errors import ExecutionError
from diffc.runtime import abi
from diffc.runtime.entry import native_entry
from diffc.runtime.entry_code import entry_text
from diffc.runtime.executable import StatusMessage
from tests.runtime.entries import Entry, step_program
from tests.runtime.programs import (
    F64,
    arena_program,
    status_program,
    sum_program,
)

pytestmark = pytest.mark.skipif(bool(abi.unsupported()), reason=abi.unsupported())

A = np.arange(3.0)


def resident_kilobytes():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4


def test_reference_counts_and_memory_stay_flat():
    tree = {k: np.full(16, 1.0) for k in "abcdef"}
    spec = dict(zip(tree, range(6), strict=True))
    program = sum_program((16,), 6, 2, arena_bytes=4096)
    entry = Entry(program, (spec,), {"x": (0, None), "y": [1]})
    program.pool.give(program.pool.take())
    step = Entry(step_program(16, 6, [0, 1], [2]), (spec,), [0, {"k": 1}])
    failing = Entry(status_program(messages=[StatusMessage("no")]), ((0,),), [0])
    one = np.array(1.0)
    odd = {**tree, "z": one}
    late = {**tree, "f": None}
    watched = [*tree.values(), tree, F64, None.__class__, one, np.ndarray, entry.slow.__func__]

    def many(count):
        for _ in range(count):
            entry(tree)
            step(tree)
        for _ in range(count // 10):
            entry(odd)
            entry(late)
            entry(tree, x=1)
            with contextlib.suppress(ExecutionError):
                failing((one,))
        entry.calls.clear()

    many(1000)
    gc.collect()
    counts = [sys.getrefcount(x) for x in watched]
    many(5000)
    gc.collect()
    before = resident_kilobytes() if sys.platform == "linux" else 0
    many(50000)
    gc.collect()
    assert [sys.getrefcount(x) for x in watched] == counts
    if sys.platform == "linux":
        assert resident_kilobytes() - before < 1000


def test_threads_call_at_once():
    """Enough work for the GIL to be released: each call needs an arena of its own."""
    program = arena_program(20000, work=1 << 20)
    entry = Entry(program, ([0],), 0, lambda x: program.run(x)[0])
    wrong = []

    def work(value):
        x = np.array(float(value))
        wrong.extend(value for _ in range(100) if entry([x]) != 20000.0 * value)

    threads = [threading.Thread(target=work, args=(k,)) for k in range(1, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert len(program.pool.free) * 160000 == program.resident
    assert 1 <= len(program.pool.free) <= 4
    assert len(entry.calls) <= 100


def test_containers_may_change_during_a_call():
    size = 1 << 16
    entry = Entry(sum_program((size,), 3, work=1 << 20), ({"a": [0, 1], "b": 2},), 0)
    values = {"a": [np.ones(size), np.ones(size)], "b": np.ones(size)}
    stop = threading.Event()

    def change():
        while not stop.is_set():
            values["a"][0] = np.ones(size)
            values["b"] = np.ones(size)
            values["a"] = [np.ones(size), np.ones(size)]

    thread = threading.Thread(target=change)
    thread.start()
    try:
        for _ in range(300):
            result = entry(values)
            assert result[0] == result[-1] == 3
            assert np.all(result == 3)
    finally:
        stop.set()
        thread.join()


class Evil:
    """A key that collides with a string and destroys the containers when it is compared."""

    def __init__(self, like, victims):
        self.hash = hash(like)
        self.victims = victims

    def __hash__(self):
        return self.hash

    def __eq__(self, other):
        for victim in self.victims:
            victim.clear()
        gc.collect()
        return False


def test_a_key_that_destroys_the_containers():
    entry = Entry(sum_program((3,), 3), ([{"a": 0}, {"b": 1}, 2],), 0)
    for _ in range(50):
        outer = [{"a": np.ones(3)}, {}, np.ones(3)]
        outer[1][Evil("b", [outer[0], outer])] = np.ones(3)
        assert entry(outer) == "slow"
    inside = Entry(sum_program((3,), 3), ({"a": 0, "b": 1, "c": 2},), 0)
    for _ in range(50):
        table = {"a": np.ones(3)}
        table[Evil("b", [table])] = np.ones(3)
        table["c"] = np.ones(3)
        assert inside(table) == "slow"


class Broken(Evil):
    __hash__ = Evil.__hash__

    def __eq__(self, other):
        raise ValueError("broken key")


def test_a_key_whose_comparison_raises():
    entry = Entry(sum_program((3,), 1), ({"a": 0},), 0)
    table = {}
    table[Broken("a", [])] = A
    assert entry(table) == "slow"


def test_entry_and_program_live_and_die_together():
    program = sum_program((123,), 2)  # a text that no other test holds
    entry = native_entry(program, (0, 1), 0, lambda *args: None)
    gone, library = weakref.ref(program), weakref.ref(program.library)
    del program
    gc.collect()
    assert np.all(entry(np.ones(123), np.ones(123)) == 2)
    assert gone() is not None
    del entry
    gc.collect()
    assert gone() is None
    assert library() is None


def test_as_the_call_of_a_class():
    """How a jitted function uses it: calls of the instance reach the builtin directly."""
    entry = native_entry(sum_program((3,), 2), (0, 1), 0, lambda *args, **kwargs: (args, kwargs))
    jitted = type("jitted", (), {"__call__": entry})()
    assert jitted(A, A).tolist() == [0, 2, 4]
    assert jitted(1, 2, k=3) == ((1, 2), {"k": 3})


def test_the_code_holds_no_address():
    text = entry_text()
    assert "{" + "TYPE}" not in text
    assert not any(str(id(x)) in text for x in (np.ndarray, F64, dict, None))
    assert not any(str(address) in text for address in abi.function_addresses().values())


def test_cycles_are_collected():
    """The collector may take apart what an entry needs before the entry itself goes."""
    program = sum_program((3,), 2)

    class Jitted:
        def slow(self, *args):
            return "slow"

    gone = []
    for _ in range(200):
        jitted = Jitted()
        jitted.entry = native_entry(program, (0, 1), 0, jitted.slow)
        jitted.more = [jitted, jitted.entry, {"entry": jitted.entry}]
        gone.append(weakref.ref(jitted))
        assert jitted.entry(1, 2) == "slow"
        del jitted
        if len(gone) % 20 == 0:
            gc.collect()
            junk = [np.full(size, -1) for size in range(1, 60) for _ in range(20)]
            assert len(junk) == 1180
    assert all(ref() is None for ref in gone)
