import numpy as np
import pytest

from diffc.errors import ExecutionError, InternalError, UsageError
from diffc.runtime.build import build
from diffc.runtime.executable import Executable, InputSpec, OutputSpec, StatusMessage, Writeback
from diffc.runtime.target import host
from tests.runtime.programs import (
    F64,
    arena_program,
    reverse_text,
    status_program,
    step_text,
    sum_program,
)


class Sub(np.ndarray):
    pass


X = np.arange(12.0).reshape(3, 4)
LAYOUTS = {
    "plain": X,
    "fortran": np.asfortranarray(X),
    "strided": np.repeat(X, 2, axis=1)[:, ::2],
    "reversed": X[::-1, ::-1][::-1, ::-1],
    "big endian": X.astype(">f8"),
    "list": X.tolist(),
    "subclass": X.view(Sub),
    "unaligned": np.frombuffer(b"x" + X.tobytes(), dtype=np.uint8)[1:].view(F64).reshape(3, 4),
    "broadcast": np.broadcast_to(X, (2, 3, 4))[1],
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_any_layout_of_the_right_shape(layout):
    (result,) = sum_program((3, 4), 2).run([LAYOUTS[layout], X])
    assert type(result) is np.ndarray
    assert np.array_equal(result, 2 * X)


@pytest.mark.parametrize("shape", [(), (0,), (1,), (3, 0, 2), (7,)])
def test_sizes(shape):
    (result,) = sum_program(shape, 1).run([np.ones(shape)])
    assert result.shape == shape
    assert np.all(result == 1)


@pytest.mark.parametrize(
    ("kind", "dtype", "value"),
    [("float", np.float64, 2.5), ("int", np.int64, -(2**62)), ("bool", np.bool_, True)],
)
def test_python_scalars(kind, dtype, value):
    dtype = np.dtype(dtype)
    llvm_type = {"float": "i64", "int": "i64", "bool": "i8"}[kind]
    text = f"""
define i64 @program(ptr %inputs, ptr %outputs, ptr %arena) {{
  %p = load ptr, ptr %inputs
  %x = load {llvm_type}, ptr %p
  %o = load ptr, ptr %outputs
  store {llvm_type} %x, ptr %o
  ret i64 0
}}
"""
    spec = InputSpec(dtype, (), kind)
    program = Executable(
        build(text, ("program",), host()), "program", [spec], [OutputSpec(dtype, ())]
    )
    (result,) = program.run([value])
    assert result.dtype == dtype
    assert result.shape == ()
    assert result == value


def test_scalar_specs_are_checked():
    with pytest.raises(UsageError, match="float64"):
        InputSpec(np.dtype(np.float32), (), "float")
    with pytest.raises(UsageError):
        InputSpec(F64, (1,), "float")


def test_wrong_calls():
    program = sum_program((3,), 2)
    with pytest.raises(UsageError, match="takes 2 arrays, got 1"):
        program.run([np.ones(3)])
    with pytest.raises(UsageError, match=r"argument 1 has shape \(4,\)"):
        program.run([np.ones(3), np.ones(4)])


def test_captured_arrays_are_read_at_each_call():
    captured = np.ones(3)
    program = sum_program((3,), 1, captured=[captured])
    assert program.run([np.zeros(3)])[0].tolist() == [1, 1, 1]
    captured[1] = 5
    assert program.run([np.zeros(3)])[0].tolist() == [1, 5, 1]


def test_captured_arrays_of_any_layout():
    for captured in (np.ones(6)[::2], np.ones(3, dtype=">f8"), np.ones(3).view(Sub)):
        program = sum_program((3,), 1, captured=[captured])
        assert program.run([np.zeros(3)])[0].tolist() == [1, 1, 1]
        captured[1] = 5
        assert program.run([np.zeros(3)])[0].tolist() == [1, 5, 1]


def step_program(size, inputs, outputs, writebacks=()):
    library = build(step_text(size, inputs), ("program",), host())
    return Executable(
        library,
        "program",
        [InputSpec(F64, (size,))] * inputs,
        [OutputSpec(F64, (size,), alias) for alias in outputs],
        writebacks=[Writeback(index) for index in writebacks],
    )


def test_a_donated_array_is_the_result():
    program = step_program(3, 2, [0])
    w, g = np.ones(3), np.full(3, 0.25)
    assert program.run([w, g])[0] is w
    assert w.tolist() == [0.75] * 3


@pytest.mark.parametrize("layout", ["plain", "strided", "big endian", "subclass", "unaligned"])
def test_donation_and_writing_reach_any_array(layout):
    base = np.zeros(64, dtype=np.uint8)
    w = {
        "plain": np.ones(3),
        "strided": np.ones(6)[::2],
        "big endian": np.ones(3, dtype=">f8"),
        "subclass": np.ones(3).view(Sub),
        "unaligned": base[1:25].view(F64),
    }[layout]
    w[:] = 1
    g = np.full(3, 0.25)
    assert step_program(3, 2, [0]).run([w, g])[0] is w
    assert w.tolist() == [0.75] * 3
    assert step_program(3, 2, [], [0]).run([w, g]) == []
    assert w.tolist() == [0.5] * 3


def test_donated_values_that_cannot_be_reused_are_left_alone():
    frozen = np.ones(3)
    frozen.flags.writeable = False
    for w in (frozen, [1.0, 1.0, 1.0]):
        (result,) = step_program(3, 2, [0]).run([w, np.full(3, 0.25)])
        assert result is not w
        assert result.tolist() == [0.75] * 3
        assert result.flags.writeable
    assert frozen.tolist() == [1, 1, 1]


def test_writing_to_a_read_only_argument_is_an_error():
    frozen = np.ones(3)
    frozen.flags.writeable = False
    with pytest.raises(UsageError, match="argument 0 is read-only"):
        step_program(3, 2, [], [0]).run([frozen, np.ones(3)])


def test_writing_to_a_list_is_lost_without_error():
    values = [1.0, 1.0, 1.0]
    assert step_program(3, 2, [], [0]).run([values, np.ones(3)]) == []


def reverse_program(size, captured=()):
    library = build(reverse_text(size), ("program",), host())
    inputs = [InputSpec(F64, (size,))] * (2 - len(captured))
    out = [OutputSpec(F64, (size,), 0)]
    return Executable(library, "program", inputs, out, captured=captured)


@pytest.mark.parametrize("shift", [0, 1, 3, 6])
def test_overlapping_memory_is_separated(shift):
    size = 5
    memory = np.arange(12.0)
    w, x = memory[:size], memory[shift : shift + size]
    expected = x[::-1] + 1
    assert reverse_program(size).run([w, x])[0] is w
    assert np.array_equal(w, expected)


def test_a_captured_array_in_written_memory_is_separated():
    memory = np.arange(8.0)
    captured = memory[2:7]
    expected = captured[::-1] + 1
    reverse_program(5, captured=[captured]).run([memory[:5]])
    assert np.array_equal(memory[:5], expected)


def test_interleaved_views_do_not_count_as_overlap():
    memory = np.arange(8.0)
    program = step_program(4, 3, [], [0, 1])
    program.run([memory[::2], memory[1::2], np.ones(4)])
    assert memory.tolist() == [-1, 0, 1, 2, 3, 4, 5, 6]


def test_one_array_donated_twice():
    w, g = np.ones(3), np.full(3, 0.25)
    first, second = step_program(3, 3, [0, 1]).run([w, w, g])
    assert first is w
    assert second is not w
    assert first.tolist() == second.tolist() == [0.75] * 3


def test_one_array_written_twice_is_an_error():
    w = np.ones(3)
    with pytest.raises(UsageError, match="arguments 0 and 1 share memory"):
        step_program(3, 3, [], [0, 1]).run([w, w, np.ones(3)])
    assert w.tolist() == [1, 1, 1]


def test_one_array_donated_and_written():
    for outputs, writebacks in (([0], [1]), ([1], [0])):
        w = np.ones(3)
        (result,) = step_program(3, 3, outputs, writebacks).run([w, w, np.full(3, 0.25)])
        assert w.tolist() == [0.75] * 3
        assert result is not w
        assert result.tolist() == [0.75] * 3


def test_arena_is_kept_and_has_the_planned_size():
    program = arena_program(1000)
    assert program.resident == 0
    for x in (1.0, 2.0):
        assert program.run([x])[0] == 1000 * x
    assert program.resident == 8000


def test_status_raises_its_message_and_line():
    program = status_program(messages=[StatusMessage("one"), StatusMessage("two", "user.py:7")])
    assert program.run([0.0])[0] == 0
    with pytest.raises(ExecutionError, match="one"):
        program.run([1.0])
    with pytest.raises(ExecutionError, match="two") as caught:
        program.run([2.0])
    assert caught.value.location == "user.py:7"
    with pytest.raises(InternalError, match="status 3"):
        program.run([3.0])


def test_the_arena_comes_back_after_a_status():
    program = status_program(messages=[StatusMessage("one")], arena_bytes=100)
    for _ in range(5):
        with pytest.raises(ExecutionError):
            program.run([1.0])
    assert program.resident == 100


def test_outputs_without_memory():
    library = build(
        "define i64 @program(ptr %i, ptr %o, ptr %a) {\n ret i64 0\n}\n", ("program",), host()
    )
    program = Executable(library, "program", [], [OutputSpec(F64, (1 << 45,))])
    with pytest.raises(ExecutionError, match="no memory for outputs of"):
        program.run([])


def test_specs_that_contradict_are_internal_errors():
    library = build(step_text(3, 2), ("program",), host())
    ins = [InputSpec(F64, (3,))] * 2

    def make(outputs=(), writebacks=(), inputs=ins):
        return Executable(library, "program", inputs, outputs, writebacks=writebacks)

    with pytest.raises(InternalError, match="two outputs"):
        make([OutputSpec(F64, (3,), 0)] * 2)
    with pytest.raises(InternalError, match="no such input"):
        make(writebacks=[Writeback(2)])
    with pytest.raises(InternalError, match="cannot lie in input 0"):
        make([OutputSpec(F64, (4,), 0)])
    with pytest.raises(InternalError, match="Python scalar"):
        make([OutputSpec(F64, (), 0)], inputs=[InputSpec(F64, (), "float"), *ins])
