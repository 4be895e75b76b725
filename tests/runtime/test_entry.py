import gc
import sys

import numpy as np
import pytest

from diffc.errors import InternalError
from diffc.runtime import abi
from diffc.runtime.build import build
from diffc.runtime.entry import native_entry
from diffc.runtime.executable import Executable, InputSpec, OutputSpec
from diffc.runtime.target import host
from tests.runtime.entries import Entry
from tests.runtime.programs import (
    F64,
    sum_program,
)

pytestmark = pytest.mark.skipif(bool(abi.unsupported()), reason=abi.unsupported())


class Sub(np.ndarray):
    pass


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
    ids=lambda value: type(value).__name__,
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


def test_too_many_operands_for_the_stack():
    text = "define i64 @program(ptr %i, ptr %o, ptr %a) {\n ret i64 0\n}\n"
    spec = InputSpec(F64, (1,))
    for count, kind in ((500, "native"), (20000, "python")):
        library = build(text, ("program",), host())
        program = Executable(library, "program", [spec] * count, [])
        entry = native_entry(program, (list(range(count)),), None, lambda *args: "slow")
        assert program.entry_kind == kind
        assert entry([A[:1]] * count) == (None if kind == "native" else "slow")
    assert "too many" in program.entry_reason
