"""Runs kernels for tests: compiled, between unreadable pages, against the interpreter."""

import ctypes
import mmap
from math import prod

import numpy as np

from diffc.codegen.emit.kernel import write_kernel
from diffc.codegen.emit.memory import STATUS_LIMIT
from diffc.codegen.emit.text import ModuleText
from diffc.codegen.loops import interpret
from diffc.codegen.loops.module import is_shared
from diffc.codegen.loops.nodes import Apply, Buffer, Const, Kernel
from diffc.codegen.loops.scratch import scratch_in_arena
from diffc.codegen.targets import ITEM_BYTES
from diffc.codegen.tile import tile
from diffc.ir.aval import is_float, limits, wide
from diffc.runtime import build, pool
from diffc.runtime.target import host

HOST = host()
PAGE = mmap.PAGESIZE
LIBC = ctypes.CDLL(None, use_errno=True)


class Guarded:
    """Bytes that start right after, or end right before, an unreadable page."""

    def __init__(self, nbytes: int, at_end: bool) -> None:
        room = max(1, -(-nbytes // PAGE)) * PAGE
        self.map = mmap.mmap(-1, room + 2 * PAGE)
        self.view = np.frombuffer(self.map, np.uint8)
        base = self.view.ctypes.data
        self.pages = [base, base + PAGE + room]
        for page in self.pages:
            assert LIBC.mprotect(ctypes.c_void_p(page), ctypes.c_size_t(PAGE), 0) == 0
        start = PAGE + (room - nbytes if at_end else 0)
        self.bytes = self.view[start : start + nbytes]

    def release(self) -> None:
        for page in self.pages:
            LIBC.mprotect(ctypes.c_void_p(page), ctypes.c_size_t(PAGE), 3)


def compiled(kernel: Kernel, target=HOST, tiled: bool = True, aliased: bool = False):
    """A function of the arrays of all parameters that returns the status."""
    if tiled:
        kernel = tile(kernel, target)
    module = ModuleText()
    write_kernel(module, kernel, "kernel", target, is_aliased=aliased, is_internal=False)
    imports = pool.imports() if is_shared(kernel) else None
    library = build.build(module.text(), ("kernel",), target, imports)
    arena = [
        np.zeros(prod(buffer.shape) * ITEM_BYTES[buffer.dtype] + 64, np.uint8)
        for buffer in scratch_in_arena(kernel)
    ]
    count = len(kernel.params) + len(arena) + 1
    function = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * count)(library.address("kernel"))

    def call(*arrays: np.ndarray) -> int:
        status = (ctypes.c_int64 * 2)()  # the slot, and how many threads may share the kernel
        pointers = [array.ctypes.data for array in arrays]
        pointers += [array.ctypes.data + -array.ctypes.data % 64 for array in arena]
        function(*pointers, ctypes.addressof(status))
        assert library is not None
        return STATUS_LIMIT - status[0] if status[0] else 0

    return call


def guarded_call(function, arrays: list[np.ndarray], at_end: bool) -> tuple[int, list[np.ndarray]]:
    """Calls with copies of arrays between unreadable pages; returns the copies afterwards."""
    held = [Guarded(array.nbytes, at_end) for array in arrays]
    try:
        placed = []
        for guard, array in zip(held, arrays, strict=True):
            copy = guard.bytes.view(array.dtype).reshape(array.shape)
            copy[...] = array
            placed.append(copy)
        status = function(*placed)
        return status, [copy.copy() for copy in placed]
    finally:
        for guard in held:
            guard.release()


def same_bits(got: np.ndarray, want: np.ndarray, name: str = "") -> None:
    """Equal bits; any NaN equals any other."""
    assert got.dtype == want.dtype
    if is_float(got.dtype):
        nan = np.isnan(want)
        np.testing.assert_array_equal(np.isnan(got), nan, err_msg=name)
        got, want = np.where(nan, 0, got), np.where(nan, 0, want)
        np.testing.assert_array_equal(np.signbit(got), np.signbit(want), err_msg=name)
    np.testing.assert_array_equal(got, want, err_msg=name)


def check(kernel: Kernel, *inputs: np.ndarray, target=HOST, tiled: bool = True, close=None) -> int:
    """Compares compiled code with the interpreter; inputs fill `in` and `mut` parameters."""
    given = iter(inputs)
    arrays = []
    for buffer in kernel.params:
        if buffer.mode == "out":
            arrays.append(np.zeros(buffer.shape, interpret.DTYPES[buffer.dtype]))
        else:
            array = np.asarray(next(given))
            assert array.shape == buffer.shape
            assert array.dtype == interpret.DTYPES[buffer.dtype]
            arrays.append(array)
    want = [array.copy() for array in arrays]
    status = interpret.run(kernel, dict(zip(kernel.params, want, strict=True)), target)
    function = compiled(kernel, target, tiled)
    for at_end in (True, False):
        got_status, got = guarded_call(function, arrays, at_end)
        assert got_status == status
        for buffer, left, right in zip(kernel.params, got, want, strict=True):
            if close is None:
                same_bits(left, right, buffer.name)
            else:
                left, right = (x.astype(wide(x.dtype)) for x in (left, right))
                np.testing.assert_allclose(left, right, err_msg=buffer.name, **close)
    return status


SPECIAL = {
    "f": [0.0, -0.0, 1.0, -1.0, 0.5, -2.5, 3.5, 1e30, -1e30, 5e-8, np.inf, -np.inf, np.nan],
}


def samples(dtype: str, count: int, seed: int = 0) -> np.ndarray:
    """Values of a dtype: special ones first, then drawn ones."""
    kind, rng = interpret.DTYPES[dtype], np.random.default_rng(seed)
    if kind.kind == "b":
        return rng.integers(0, 2, count).astype(bool)
    if is_float(kind):
        info = limits(kind)
        extra = [info.max, info.tiny, info.smallest_subnormal, -info.smallest_subnormal]
        with np.errstate(over="ignore"):
            special = np.array([*SPECIAL["f"], *extra]).astype(kind)
        drawn = (rng.standard_normal(count) * 4).astype(kind)
    else:
        ends = np.iinfo(kind)
        special = np.array([0, 1, 2, 7, ends.max, ends.min, ends.max - 1], kind)
        if kind.kind == "i":
            special = np.append(special, np.array([-1, -2, -7], kind))
        drawn = rng.integers(-9 if kind.kind == "i" else 0, 9, count).astype(kind)
    values = np.concatenate([special, drawn])
    return rng.permutation(values)[:count] if seed else np.resize(values, count)


def apply(name: str, dtype: str, *args):
    """An `Apply`."""
    return Apply(dtype, name, args)


def const(value, dtype: str = "f32") -> Const:
    """A `Const`."""
    return Const(dtype, value)


def buffer(name: str, dtype: str, shape: tuple[int, ...], mode: str = "in") -> Buffer:
    """A `Buffer`."""
    return Buffer(name, dtype, shape, mode)
