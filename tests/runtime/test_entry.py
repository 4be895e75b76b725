import contextlib
import gc
import sys
import threading
import weakref

import numpy as np
import pytest

from diffc.errors import ExecutionError, InternalError
from diffc.runtime import abi
from diffc.runtime.build import build
from diffc.runtime.entry import native_entry
from diffc.runtime.entry_code import entry_text
from diffc.runtime.executable import Executable, InputSpec, OutputSpec, StatusMessage, Writeback
from diffc.runtime.target import host
from tests.runtime.programs import (
    F64,
    arena_program,
    reverse_text,
    status_program,
    step_text,
    sum_program,
    sum_text,
)

pytestmark = pytest.mark.skipif(bool(abi.unsupported()), reason=abi.unsupported())


class Sub(np.ndarray):
    pass


class Entry:
    """A native entry whose slow path counts its calls, and what it is called with."""

    def __init__(self, program, args_spec, out_spec, answer=None):
        self.program = program
        self.calls = []
        self.answer = answer
        self.function = native_entry(program, args_spec, out_spec, self.slow)
        assert program.entry_kind == "native", program.entry_reason

    def slow(self, *args, **kwargs):
        self.calls.append((args, kwargs))
        return "slow" if self.answer is None else self.answer(*args, **kwargs)

    def __call__(self, *args, **kwargs):
        return self.function(*args, **kwargs)

    def fast(self, *args):
        before = len(self.calls)
        result = self.function(*args)
        assert len(self.calls) == before, "the call took the slow path"
        return result


@pytest.fixture(scope="module")
def pair():
    """The sum of two f64[3]."""
    return Entry(sum_program((3,), 2), (0, 1), 0)


A = np.arange(3.0)


def test_arrays_as_described_are_fast(pair):
    result = pair.fast(A, A + 1)
    assert type(result) is np.ndarray
    assert result.dtype == F64
    assert result.tolist() == [1, 3, 5]
    assert result.flags.owndata and result.flags.writeable and result.flags.c_contiguous
    assert pair.function.__name__ == "program"


def test_read_only_inputs_are_fast(pair):
    frozen = A.copy()
    frozen.flags.writeable = False
    assert pair.fast(frozen, A).tolist() == [0, 2, 4]


@pytest.mark.parametrize(
    "other",
    [
        A.astype(np.float32),
        A.astype(np.int64),
        A.astype(">f8"),
        np.arange(6.0)[::2],
        A[:2],
        np.arange(4.0),
        A.reshape(1, 3),
        A.reshape(3, 1),
        np.float64(1.0),
        np.zeros(()),
        A.view(Sub),
        np.frombuffer(b"x" + A.tobytes(), dtype=np.uint8)[1:].view(F64),
        [0.0, 1.0, 2.0],
        (0.0, 1.0, 2.0),
        2.0,
        2,
        True,
        None,
        "text",
        object(),
        np.ndarray,
        np.ma.masked_array(A),
        np.frombuffer(A.tobytes(), dtype=np.dtype("f8", metadata={"x": 1})),
        {"a": A},
    ],
    ids=repr,
)
def test_everything_else_goes_to_the_slow_path(pair, other):
    for args in ((other, A), (A, other)):
        pair.calls.clear()
        assert pair(*args) == "slow"
        ((given, kwargs),) = pair.calls
        assert all(x is y for x, y in zip(given, args, strict=True))
        assert kwargs == {}


def test_other_calls_go_to_the_slow_path(pair):
    for args, kwargs in [
        ((), {}),
        ((A,), {}),
        ((A, A, A), {}),
        ((A,), {"y": A}),
        ((), {"x": A, "y": A}),
        ((A, A), {"z": 1}),
    ]:
        pair.calls.clear()
        assert pair(*args, **kwargs) == "slow"
        assert pair.calls[0][1] == kwargs
        assert len(pair.calls[0][0]) == len(args)


def test_errors_of_the_slow_path_arrive():
    def answer(*args):
        raise TypeError("no such thing")

    entry = Entry(sum_program((3,), 2), (0, 1), 0, answer)
    with pytest.raises(TypeError, match="no such thing"):
        entry("x", A)
    assert entry.fast(A, A).tolist() == [0, 2, 4]


@pytest.mark.parametrize("shape", [(), (0,), (1,), (3, 0, 2), (2, 3, 4), (1,) * 8])
def test_shapes(shape):
    entry = Entry(sum_program(shape, 1), (0,), 0)
    result = entry.fast(np.ones(shape))
    assert type(result) is np.ndarray
    assert result.shape == shape
    assert np.all(result == 1)
    assert entry(np.ones((*shape, 1))) == "slow"


@pytest.mark.parametrize(
    "name", ["bool", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8"]
)
def test_dtypes(name):
    dtype = np.dtype(name)
    bits = 8 * dtype.itemsize
    text = f"""
define i64 @program(ptr %inputs, ptr %outputs, ptr %arena) {{
  %p = load ptr, ptr %inputs
  %x = load i{bits}, ptr %p
  %o = load ptr, ptr %outputs
  store i{bits} %x, ptr %o
  ret i64 0
}}
"""
    program = Executable(
        build(text, ("program",), host()),
        "program",
        [InputSpec(dtype, (1,))],
        [OutputSpec(dtype, (1,))],
    )
    entry = Entry(program, (0,), 0)
    value = np.array([1], dtype)
    assert entry.fast(value).dtype == dtype
    assert entry.fast(value)[0] == 1
    for other in {"bool", "i1", "u1", "i2", "f2", "i4", "f4", "i8", "f8"} - {name}:
        assert entry(np.array([1], other)) == "slow"


class Whole(int):
    pass


@pytest.mark.parametrize(
    ("kind", "good", "bad"),
    [
        (
            "float",
            [0.0, -0.0, float("nan"), float("-inf"), 5e-324],
            [1, True, np.float64(1), np.ones(()), "1", None, [1.0]],
        ),
        (
            "int",
            [0, -1, 2**63 - 1, -(2**63), 10**9],
            [2**63, -(2**63) - 1, 10**30, True, 1.0, np.int64(1), Whole(1), None],
        ),
        ("bool", [True, False], [1, 0, np.True_, None, 1.0]),
    ],
)
def test_python_scalars(kind, good, bad):
    dtype = {"float": F64, "int": np.dtype(np.int64), "bool": np.dtype(np.bool_)}[kind]
    bits = 8 * dtype.itemsize
    text = f"""
define i64 @program(ptr %inputs, ptr %outputs, ptr %arena) {{
  %p = load ptr, ptr %inputs
  %x = load i{bits}, ptr %p
  %o = load ptr, ptr %outputs
  store i{bits} %x, ptr %o
  ret i64 0
}}
"""
    program = Executable(
        build(text, ("program",), host()),
        "program",
        [InputSpec(dtype, (), kind)],
        [OutputSpec(dtype, ())],
    )
    for spec, wrap in ((0, lambda x: x), ({"a": [0]}, lambda x: {"a": [x]})):
        entry = Entry(program, (spec,), 0)
        for value in good:
            result = entry.fast(wrap(value))
            assert result.dtype == dtype
            assert result.shape == ()
            assert result.tobytes() == np.array(value, dtype).tobytes()
        for value in bad:
            assert entry(wrap(value)) == "slow"


def arrays(count):
    return [np.full(3, float(2**k)) for k in range(count)]


def test_nested_arguments():
    spec = ({"w": [0, (1, 2)], "b": {"c": 3}}, None, [], 4)
    entry = Entry(sum_program((3,), 5), spec, 0)
    a, b, c, d, e = arrays(5)
    good = [{"w": [a, (b, c)], "b": {"c": d}}, None, [], e]
    assert entry.fast(*good).tolist() == [31.0] * 3
    assert entry.fast({"b": {"c": d}, "w": [a, (b, c)]}, None, [], e).tolist() == [31.0] * 3
    for other in [
        [{"w": [a, (b, c)], "b": {"c": d}, "z": e}, None, [], e],
        [{"w": [a, (b, c)], "z": {"c": d}}, None, [], e],
        [{"w": [a, [b, c]], "b": {"c": d}}, None, [], e],
        [{"w": (a, (b, c)), "b": {"c": d}}, None, [], e],
        [{"w": [a, (b, c, c)], "b": {"c": d}}, None, [], e],
        [{"w": [a, (b, None)], "b": {"c": d}}, None, [], e],
        [{"w": [a, (b, c)], "b": {"c": 1.0}}, None, [], e],
        [{"w": [a, (b, c)], "b": {}}, None, [], e],
        [{"w": [a, (b, c)], "b": None}, None, [], e],
        [{"w": [a, (b, c)], "b": {"c": d}}, 0, [], e],
        [{"w": [a, (b, c)], "b": {"c": d}}, None, [a], e],
        [{"w": [a, (b, c)], "b": {"c": d}}, None, (), e],
        [{"w": [a, (b, c)], "b": {"c": d}}, None, [], A[:2]],
        [type("D", (dict,), {})(w=[a, (b, c)], b={"c": d}), None, [], e],
    ]:
        assert entry(*other) == "slow"
    entry.calls.clear()
    del good, other
    gc.collect()
    counts = {sys.getrefcount(x) for x in (a, b, c, d, e)}
    assert len(counts) == 1
    assert counts.pop() <= 4  # the name, the tuple, the loop, the argument


def test_integer_keys():
    entry = Entry(sum_program((3,), 2), ({0: 0, 10**6: 1},), {1: 0})
    result = entry.fast({10**6: A, 0: A})
    assert list(result) == [1]
    assert entry({0: A, 10**6 + 1: A}) == "slow"


@pytest.mark.parametrize(
    "spec",
    [
        None,
        0,
        1,
        (0, 1),
        [1, 0],
        {"a": 0, "b": 1},
        {"b": 1, "a": 0},
        (0,),
        [],
        (),
        {},
        ((), [None, {}], 0),
        {"x": [0, {"y": (1, None)}], 3: (0, 0, 1)},
        (0, 0),
    ],
    ids=repr,
)
def test_results(spec):
    entry = Entry(sum_program((3,), 1, 2), (0,), spec)

    def expect(part):
        if part is None:
            return None
        if type(part) is int:
            return [part + 1.0] * 3
        if type(part) is dict:
            return {key: expect(value) for key, value in part.items()}
        return type(part)(expect(value) for value in part)

    def plain(result):
        if isinstance(result, np.ndarray):
            assert sys.getrefcount(result) >= 2
            return result.tolist()
        if type(result) is dict:
            return {key: plain(value) for key, value in result.items()}
        return None if result is None else type(result)(plain(value) for value in result)

    for _ in range(3):
        result = entry.fast(np.ones(3))
        assert plain(result) == expect(spec)
        if type(spec) is dict:
            assert list(result) == list(spec)
    gc.collect()


def test_fresh_results_have_one_owner():
    entry = Entry(sum_program((3,), 1, 2), (0,), (0, [1]))
    first, (second,) = entry.fast(A)
    lone = np.zeros(1)
    counts = [sys.getrefcount(x) for x in (first, second, lone)]
    assert counts[0] == counts[1] == counts[2]


def step_program(size, inputs, outputs=(), writebacks=(), **more):
    library = build(step_text(size, inputs), ("program",), host())
    return Executable(
        library,
        "program",
        [InputSpec(F64, (size,))] * inputs,
        [OutputSpec(F64, (size,), alias) for alias in outputs],
        writebacks=[Writeback(index) for index in writebacks],
        **more,
    )


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
    count, dtype_count = sys.getrefcount(x), sys.getrefcount(F64)
    for _ in range(100):
        with pytest.raises(MemoryError):
            entry.fast({"a": x})
    assert sys.getrefcount(x) == count
    assert abs(sys.getrefcount(F64) - dtype_count) < 5
    assert len(program.pool.free) == 1


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


class Named(tuple):
    pass


@pytest.mark.parametrize(
    ("args_spec", "out_spec", "reason"),
    [
        ((Named((0, 1)),), 0, "Named"),
        ((0, 1), Named((0,)), "Named"),
        (({"a": 0, (1, 2): 1},), 0, "key of type tuple"),
        ((0, 1), {2.5: 0}, "key of type float"),
    ],
)
def test_structures_without_a_native_form(args_spec, out_spec, reason):
    program = sum_program((3,), 2)

    def slow(*args):
        return "slow"

    assert native_entry(program, args_spec, out_spec, slow) is slow
    assert program.entry_kind == "python"
    assert reason in program.entry_reason


def test_unusual_programs_have_no_native_entry(monkeypatch):
    def slow(*args):
        return "slow"

    captured = np.ones(6)[::2]
    program = sum_program((3,), 1, captured=[captured])
    assert native_entry(program, (0,), 0, slow) is slow
    assert "not contiguous" in program.entry_reason
    program = sum_program((3,), 1, captured=[np.ones(3).view(Sub)])
    assert native_entry(program, (0,), 0, slow) is slow
    program = sum_program((3,), 1)
    monkeypatch.setattr(abi, "unsupported", lambda: "another planet")
    assert native_entry(program, (0,), 0, slow) is slow
    assert program.entry_reason == "another planet"


def test_other_layouts_are_noticed(monkeypatch):
    wrong = {
        "ARRAY_DATA": 24,
        "ARRAY_NDIM": 28,
        "ARRAY_DIMS": 40,
        "ARRAY_DESCR": 48,
        "ARRAY_FLAGS": 24,
        "TUPLE_ITEMS": 32,
        "SIZE": 8,
        "FLOAT_VALUE": 8,
        "WRITEABLE": 0x2,
        "ALIGNED": 0x4,
    }
    for name, value in wrong.items():
        with monkeypatch.context() as patch:
            patch.setattr(abi, name, value)
            assert "another layout" in abi.unsupported.__wrapped__(), name
    assert abi.unsupported.__wrapped__() == ""


def test_specs_must_fit_the_program():
    program = sum_program((3,), 2)
    for args_spec in ((0,), (0, 1, 1), (0, 2), (0, 0)):
        with pytest.raises(InternalError, match="hold inputs"):
            native_entry(program, args_spec, 0, print)
    with pytest.raises(InternalError, match="names outputs"):
        native_entry(program, (0, 1), 1, print)
    with pytest.raises(InternalError, match="no part of a spec"):
        native_entry(program, (0, "1"), 0, print)


def test_guard_mode_has_no_native_entry(monkeypatch):
    monkeypatch.setenv("DIFFC_GUARD", "1")
    if sys.platform == "win32":
        pytest.skip("no guard mode")
    program = sum_program((3,), 1)
    assert native_entry(program, (0,), 0, print) is print
    assert "guard" in program.entry_reason
