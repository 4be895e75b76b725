"""The text builder: what its loops, guarded blocks and literals mean to LLVM."""

import ctypes
import math

import llvmlite.binding as llvm
import numpy as np
import pytest

from diffc.codegen.emit.text import (
    FunctionText,
    ModuleText,
    constant,
    float_literal,
    intrinsic_suffix,
    round_to,
    vector_type,
)

llvm.initialize_native_target()
llvm.initialize_native_asmprinter()


def run(module: ModuleText, *arguments: int) -> int:
    """Compile, and call `i64 @f(i64...)`."""
    parsed = llvm.parse_assembly(module.text())
    parsed.verify()
    machine = llvm.Target.from_default_triple().create_target_machine(jit=True)
    engine = llvm.create_mcjit_compiler(parsed, machine)
    engine.finalize_object()
    kind = ctypes.CFUNCTYPE(ctypes.c_int64, *[ctypes.c_int64] * len(arguments))
    return int(kind(engine.get_function_address("f"))(*arguments))


def function(*names: str) -> tuple[ModuleText, FunctionText]:
    module = ModuleText()
    return module, module.function("f", "i64", [("i64", name) for name in names])


@pytest.mark.parametrize(("start", "stop", "step"), [(0, 5, 1), (2, 3, 1), (0, 7, 3), (1, 13, 4)])
def test_loop_runs_over_its_range(start: int, stop: int, step: int) -> None:
    module, fn = function("%n")
    with fn.loop("%n", [("i64", "0")], start=start, step=step) as loop:
        shifted = fn.value(f"mul i64 {loop.carried[0]}, 17")
        loop.next = [fn.value(f"add i64 {shifted}, {loop.index}")]
    fn.ret("i64", loop.results[0])
    want = 0
    for index in range(start, stop, step):
        want = want * 17 + index
    assert run(module, stop) == want


@pytest.mark.parametrize("stop", [-3, 0, 2, 3, 6])
def test_loop_that_may_be_empty(stop: int) -> None:
    module, fn = function("%n")
    with fn.loop("%n", [("i64", "40")], start=2, may_be_empty=True) as loop:
        loop.next = [fn.value(f"add i64 {loop.carried[0]}, {loop.index}")]
    fn.ret("i64", loop.results[0])
    assert run(module, stop) == 40 + sum(range(2, stop))


def test_nested_loops_and_guarded_blocks() -> None:
    module, fn = function("%n")
    with fn.loop("%n", [("i64", "0")]) as outer:
        with fn.loop(3, [("i64", outer.carried[0])]) as inner:
            total = fn.value(f"add i64 {inner.carried[0]}, 1")
            odd = fn.value(f"trunc i64 {outer.index} to i1")
            with fn.when(odd, [("i64", total)], unlikely=True) as arm:
                arm.values = [fn.value(f"add i64 {total}, 100")]
            inner.next = arm.merged
        outer.next = inner.results
    fn.ret("i64", outer.results[0])
    assert run(module, 5) == 15 + 2 * 300


def test_stack_areas_are_shared_by_key_and_aligned() -> None:
    module, fn = function("%n")
    with fn.loop("%n") as loop:
        first, again = fn.stack("a", 8), fn.stack("a", 128)
        other = fn.stack("b", 8)
        fn.store("i64", loop.index, first, 8)
        fn.store("i64", "7", other, 8)
    assert first == again != other
    address = fn.value(f"ptrtoint ptr {first} to i64")
    low = fn.value(f"and i64 {address}, 63")
    value = fn.load("i64", first, 8)
    fn.ret("i64", fn.value(f"add i64 {fn.value(f'mul i64 {low}, 1000')}, {value}"))
    assert run(module, 4) == 3
    assert module.text().count("alloca [128 x i8]") == 1


def test_unset_results_are_errors() -> None:
    _, fn = function("%n")
    with pytest.raises(ValueError, match="carries 1"), fn.loop("%n", [("i64", "0")]):
        pass
    with pytest.raises(ValueError, match="yields 1"), fn.when("true", [("i64", "0")]):
        pass


def test_names_are_defined_once() -> None:
    module, _ = function()
    with pytest.raises(ValueError, match="@f"):
        module.function("f", "void", [])
    assert module.fresh_name("f") == "f_1"
    assert module.add_global("g", "constant i8 1") == module.add_global("g", "constant i8 1")
    with pytest.raises(ValueError, match="@g"):
        module.add_global("g", "constant i8 2")


@pytest.mark.parametrize("value", [0.0, -0.0, 0.1, 1e-45, 1e-320, 3.4e38, 1e39, math.inf, -math.pi])
@pytest.mark.parametrize("scalar", ["half", "float", "double"])
def test_literals_are_the_rounded_value(value: float, scalar: str) -> None:
    kind = {"half": np.float16, "float": np.float32, "double": np.float64}[scalar]
    with np.errstate(over="ignore"):
        want = kind(value)
    assert round_to(value, scalar) == float(want)
    module, fn = function()
    bits = fn.value(
        f"bitcast {scalar} {float_literal(value, scalar)} to i{8 * np.dtype(kind).itemsize}"
    )
    wide = bits if scalar == "double" else fn.value(f"zext i{8 * kind().itemsize} {bits} to i64")
    fn.ret("i64", wide)
    stored = int(want.view({2: np.uint16, 4: np.uint32, 8: np.uint64}[kind().itemsize]))
    assert run(module) & (2**64 - 1) == stored


def test_one_lane_is_a_scalar() -> None:
    assert vector_type("float", 1) == "float"
    assert intrinsic_suffix("double", 1) == "f64"
    assert constant(3, "i32", 1) == "3"
    assert vector_type("float", 8) == "<8 x float>"
    assert intrinsic_suffix("i64", 4) == "v4i64"
    assert constant(True, "i1", 2) == "splat (i1 1)"
