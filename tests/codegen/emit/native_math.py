"""Compile elementary functions for the tests, and references to hold them against."""

import ctypes
import functools
import re
from collections.abc import Callable

import llvmlite.binding as llvm
import mpmath as mp
import numpy as np
from scipy import special

from diffc.codegen.emit.math import FUNCTIONS, VectorMath
from diffc.codegen.emit.text import ModuleText
from diffc.codegen.targets import ARM_NEON, X86_AVX2, X86_AVX512, X86_SSE2, Target, select

llvm.initialize_all_targets()
llvm.initialize_all_asmprinters()

Native = Callable[..., np.ndarray]
HOST = select(
    llvm.get_host_cpu_name(),
    dict(llvm.get_host_cpu_features()),
    llvm.get_process_triple().split("-")[0],
)
RUNNABLE = (ARM_NEON,) if HOST is ARM_NEON else (
    (X86_SSE2, X86_AVX2, X86_AVX512)[: 1 + (X86_SSE2, X86_AVX2, X86_AVX512).index(HOST)]
)  # fmt: skip
TYPES = {"f32": np.float32, "f64": np.float64}
TRIPLES = {"x86_64": "x86_64-unknown-linux-gnu", "aarch64": "aarch64-unknown-linux-gnu"}


def module_of(names: list[str], dtype: str, lanes: int, target: Target) -> ModuleText:
    """A module with `void NAME(ptr inputs..., ptr output, i64 count)` for each function."""
    module = ModuleText()
    for name in names:
        arity = FUNCTIONS[name].arity
        inputs = [("ptr", f"%p{i}") for i in range(arity)]
        fn = module.function(
            name, "void", [*inputs, ("ptr", "%out"), ("i64", "%n")], attributes=target.attributes
        )
        emit = VectorMath(fn, dtype, lanes, target)
        with fn.loop("%n", step=lanes) as loop:
            places = [fn.index(pointer, emit.scalar, loop.index) for _, pointer in inputs]
            operands = [fn.load(emit.kind, place, emit.bytes) for place in places]
            result = emit.call(name, *operands)
            fn.store(emit.kind, result, fn.index("%out", emit.scalar, loop.index), emit.bytes)
        fn.ret()
    return module


def machine_of(target: Target, *, code_model: str = "jitdefault") -> llvm.TargetMachine:
    triple = TRIPLES[target.family]
    return llvm.Target.from_triple(triple).create_target_machine(
        cpu=target.cpu, features=target.features, opt=2, codemodel=code_model
    )


def assembly(module: ModuleText, target: Target) -> str:
    parsed = llvm.parse_assembly(module.text())
    parsed.verify()
    parsed.triple = TRIPLES[target.family]
    return machine_of(target, code_model="small").emit_assembly(parsed)


def called_symbols(text: str, target: Target) -> set[str]:
    """What the assembly calls or jumps to outside its own labels."""
    pattern = r"\s(?:callq?|jmpq?)\s+(\S+)" if target.family == "x86_64" else r"\s(?:bl?)\s+(\S+)"
    names = {name.removesuffix("@PLT") for name in re.findall(pattern, text)}
    return {name for name in names if not name.startswith(".L")}


@functools.cache
def library(dtype: str, lanes: int, target: Target) -> tuple[object, dict[str, int]]:
    """All functions compiled for this machine, and their addresses."""
    module = module_of(list(FUNCTIONS), dtype, lanes, target)
    parsed = llvm.parse_assembly(module.text())
    parsed.verify()
    parsed.triple = llvm.get_process_triple()
    machine = llvm.Target.from_default_triple().create_target_machine(
        cpu=target.cpu, features=target.features, opt=2, jit=True
    )
    engine = llvm.create_mcjit_compiler(parsed, machine)
    engine.finalize_object()
    return engine, {name: engine.get_function_address(name) for name in FUNCTIONS}


def native(name: str, dtype: str, lanes: int, target: Target) -> Native:
    """The compiled function on arrays of one dimension; short tails are padded with ones."""
    kind = TYPES[dtype]
    address = library(dtype, lanes, target)[1][name]
    entry = ctypes.CFUNCTYPE(
        None, *[ctypes.c_void_p] * (FUNCTIONS[name].arity + 1), ctypes.c_int64
    )(address)

    def run(*operands: np.ndarray) -> np.ndarray:
        count = len(operands[0])
        size = -(-count // lanes) * lanes
        padded = [np.ones(size, kind) for _ in operands]
        for area, operand in zip(padded, operands, strict=True):
            area[:count] = operand
        out = np.empty(size, kind)
        entry(*[area.ctypes.data for area in padded], out.ctypes.data, size)
        return out[:count]

    return run


def _logistic(x: np.ndarray) -> np.ndarray:
    e = np.exp(-np.abs(x))
    return np.where(x >= 0, 1.0, e) / (1 + e)


NUMPY: dict[str, Callable[..., np.ndarray]] = {
    "logistic": _logistic,
    "erf": special.erf,
    "pow": np.power,
} | {name: getattr(np, name) for name in FUNCTIONS if hasattr(np, name) and name != "pow"}

EXACT: dict[str, Callable[..., mp.mpf]] = {
    "exp2": lambda x: mp.mpf(2) ** x,
    "log2": lambda x: mp.log(x) / mp.log(2),
    "logistic": lambda x: 1 / (1 + mp.exp(-x)),
    "arctan": mp.atan,
    "arctan2": mp.atan2,
    "arcsin": mp.asin,
    "arccos": mp.acos,
    "pow": mp.power,
}


def exact(name: str, *operands: float) -> mp.mpf:
    """The value to 170 bits."""
    with mp.workprec(170):
        function = EXACT.get(name) or getattr(mp, name)
        return function(*[mp.mpf(float(operand)) for operand in operands])


def ulps_f32(got: np.ndarray, want: np.ndarray) -> np.ndarray:
    """Errors in units in the last place of f32, of values against f64 ones.

    Where both are NaN, or the rounded values agree, the error is at most one half.
    """
    with np.errstate(all="ignore"):
        rounded = want.astype(np.float32)
        unit = np.spacing(np.minimum(np.abs(rounded), np.finfo(np.float32).max)).astype(float)
        error = np.abs(got.astype(float) - want) / unit
        agree = (np.isnan(got) & np.isnan(want)) | (got == rounded)
    error[agree] = np.minimum(np.nan_to_num(error[agree], posinf=0.5), 0.5)
    return np.where(np.isnan(error), np.inf, error)
