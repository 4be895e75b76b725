"""Sorting a row: a stable bottom-up merge sort, as an internal function per dtype and length.

Keys and their positions move together between two halves of a workspace. Each pass merges runs in
one branch-free loop over the places of the result. NaN comes last; equal keys keep their order.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from diffc.codegen.emit.registers import FLOATS, is_signed
from diffc.codegen.emit.text import LLVM_TYPES, FunctionText, ModuleText
from diffc.codegen.loops.nodes import Sort
from diffc.codegen.targets import ITEM_BYTES
from diffc.errors import InternalError
from diffc.ir.index import coefficient, ravel

if TYPE_CHECKING:
    from diffc.codegen.emit.kernel import KernelWriter

__all__ = ["write_sort"]


def write_sort(writer: KernelWriter, stmt: Sort) -> None:
    """Writes a `Sort`: a call of the function for its dtype and length."""
    length = stmt.var.extent
    assert isinstance(length, int), f"{stmt.var} has no fixed extent"
    if length == 0:
        return
    frame, fn = writer.frame, writer.frame.fn
    if frame.lanes is not None:
        raise InternalError("rows are sorted one by one")
    name = _function(fn.module, stmt.keys.dtype, length, stmt.positions, frame.target.attributes)
    places: list[tuple[str, str]] = []
    with frame.level():
        frame.bind(stmt.var, 0)
        for buffer in (stmt.keys, stmt.buffer):
            offset = ravel(stmt.indices, buffer.shape)
            stride = coefficient(offset, stmt.var)
            if not isinstance(stride, int):
                raise InternalError(f"the row {offset} has no stride")
            places += [("ptr", frame.pointer(buffer, offset)), ("i64", str(stride))]
        work = ("ptr", writer.workspace)
        fn.call("void", name, *places, work, declare=False)


def _function(module: ModuleText, dtype: str, length: int, positions: bool, attributes: str) -> str:
    """The function that sorts rows, defined at its first use."""
    stem = f"{'argsort' if positions else 'sort'}_{dtype}_{length}"
    if module.fresh_name(stem) != stem:
        return stem
    parameters = [
        ("ptr readonly", "%keys"),
        ("i64", "%key_stride"),
        ("ptr", "%result"),
        ("i64", "%result_stride"),
        ("ptr noalias", "%work"),
    ]
    fn = module.function(
        stem, "void", parameters, attributes=f"noinline {attributes}", internal=True
    )
    kind, itemsize = LLVM_TYPES[dtype], ITEM_BYTES[dtype]
    # positions of both halves first, then their keys: all are aligned
    places = ["%work", fn.gep("%work", 8 * length)]
    keys = [fn.gep("%work", 16 * length + half * itemsize * length) for half in (0, 1)]
    with fn.loop(length) as loop:
        at = fn.index("%keys", kind, fn.value(f"mul nsw i64 {loop.index}, %key_stride"))
        _move(fn, at, fn.index(keys[0], kind, loop.index), kind, itemsize)
        fn.store("i64", loop.index, fn.index(places[0], "i64", loop.index), 8)
    source = keys[0], places[0]
    passes = (length - 1).bit_length()
    if passes:
        carried = [("i64", "1")]
        carried += [("ptr", text) for text in (keys[0], places[0], keys[1], places[1])]
        with fn.loop(passes, carried) as loop:
            width, key_from, place_from, key_to, place_to = loop.carried
            _merge(fn, dtype, length, width, (key_from, place_from), (key_to, place_to))
            doubled = fn.value(f"shl i64 {width}, 1")
            loop.next = [doubled, key_to, place_to, key_from, place_from]
        source = loop.results[1], loop.results[2]
    if positions:
        kind, itemsize = "i64", 8
    with fn.loop(length) as loop:
        to = fn.index("%result", kind, fn.value(f"mul nsw i64 {loop.index}, %result_stride"))
        _move(fn, fn.index(source[positions], kind, loop.index), to, kind, itemsize)
    fn.ret()
    return stem


def _move(fn: FunctionText, source: str, target: str, kind: str, align: int) -> None:
    fn.store(kind, fn.load(kind, source, align), target, align)


def _merge(
    fn: FunctionText,
    dtype: str,
    length: int,
    width: str,
    source: tuple[str, str],
    target: tuple[str, str],
) -> None:
    """One pass: pairs of sorted runs of `width` become runs of twice that."""
    kind, itemsize = LLVM_TYPES[dtype], ITEM_BYTES[dtype]

    def least(a: str, b: str) -> str:
        return fn.call("i64", "llvm.umin.i64", ("i64", a), ("i64", b))

    span = fn.value(f"shl i64 {width}, 1")
    inside = fn.value(f"sub i64 {span}, 1")
    with fn.loop(length, [("i64", "0"), ("i64", "0")]) as loop:
        left, right = loop.carried
        offset = fn.value(f"and i64 {loop.index}, {inside}")
        low = fn.value(f"sub i64 {loop.index}, {offset}")
        middle = least(fn.value(f"add i64 {low}, {width}"), str(length))
        high = least(fn.value(f"add i64 {low}, {span}"), str(length))
        starts = fn.value(f"icmp eq i64 {offset}, 0")
        left = fn.value(f"select i1 {starts}, i64 {low}, i64 {left}")
        right = fn.value(f"select i1 {starts}, i64 {middle}, i64 {right}")
        last = str(length - 1)
        a = fn.load(kind, fn.index(source[0], kind, least(left, last)), itemsize)
        b = fn.load(kind, fn.index(source[0], kind, least(right, last)), itemsize)
        left_empty = fn.value(f"icmp uge i64 {left}, {middle}")
        wins = fn.value(f"or i1 {left_empty}, {_is_less(fn, dtype, b, a)}")
        right_full = fn.value(f"icmp ult i64 {right}, {high}")
        takes_right = fn.value(f"and i1 {right_full}, {wins}")
        taken = fn.value(f"select i1 {takes_right}, i64 {right}, i64 {left}")
        key = fn.value(f"select i1 {takes_right}, {kind} {b}, {kind} {a}")
        fn.store(kind, key, fn.index(target[0], kind, loop.index), itemsize)
        _move(
            fn,
            fn.index(source[1], "i64", taken),
            fn.index(target[1], "i64", loop.index),
            "i64",
            8,
        )
        step = fn.value(f"zext i1 {takes_right} to i64")
        right_next = fn.value(f"add i64 {right}, {step}")
        left_next = fn.value(f"add i64 {left}, {fn.value(f'xor i64 {step}, 1')}")
        loop.next = [left_next, right_next]


def _is_less(fn: FunctionText, dtype: str, a: str, b: str) -> str:
    kind = LLVM_TYPES[dtype]
    if dtype not in FLOATS:
        return fn.value(f"icmp {'s' if is_signed(dtype) else 'u'}lt {kind} {a}, {b}")
    below = fn.value(f"fcmp olt {kind} {a}, {b}")
    number = fn.value(f"fcmp ord {kind} {a}, {a}")
    nan = fn.value(f"fcmp uno {kind} {b}, {b}")
    before_nan = fn.value(f"and i1 {number}, {nan}")
    return fn.value(f"or i1 {below}, {before_nan}")
