"""Loops whose number of trips is known at run time only, and the stores that they fill and read.

A ``Cycle`` fills its stores as it goes: when they are full, they grow to twice the size, or to what
memory an earlier run has left. A ``Sweep`` knows at its start how many rows it will write. Between
trips, carries that do not stay in place swap their two places.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from diffc.codegen.emit.call import Call, copy_bytes
from diffc.codegen.emit.memory import STATUS_LIMIT
from diffc.codegen.emit.text import UNLIKELY, FunctionText
from diffc.codegen.loops.module import ROWS_AT, Address, Cycle, Routine, Sweep

__all__ = ["write_cycle", "write_sweep"]

#: bytes of the first room for a store, and least and most rows of it
_FIRST_BYTES, _FEW_ROWS, _MANY_ROWS = 1024, 4, 64

#: calls a routine on pointers
Invoke = Callable[[Routine, Sequence[str]], None]
#: a store: its pointer, and the bytes of a row
Store = tuple[str, int]


def write_cycle(call: Call, step: Cycle, invoke: Invoke) -> None:
    """Tests and calls the body in turn."""
    fn = call.fn
    final = [call.pointer(at) for at in step.final]
    spare = [call.pointer(at) for at in step.spare]
    flag, arena = call.pointer(step.flag), call.pointer(step.arena)
    test_arena = call.pointer(step.test_arena)
    _start(call, step)
    tests = [call.pointer(at) for at in step.tests]
    constants = [call.pointer(at) for at in step.constants]
    stores = _stores(call, step.stores)
    _clear(fn, stores)
    head, inside, after = map(fn.fresh_label, ("test", "again", "done"))
    latch = fn.fresh_label("latch")
    before = fn.block
    fn.jump(head)
    fn.label(head)
    now, later = _swapped(fn, step, final, spare, before, latch)
    row, room, following, grown = (fn.fresh(n) for n in ("row", "room", "next", "grown"))
    if stores:
        fn.emit(f"{row} = phi i64 [ 0, %{before} ], [ {following}, %{latch} ]")
        fn.emit(f"{room} = phi i64 [ 0, %{before} ], [ {grown}, %{latch} ]")
    invoke(step.test, [*tests, *now, flag, test_arena])
    is_true = fn.value(f"icmp ne i8 {fn.load('i8', flag, 1)}, 0")
    fn.branch(fn.value(f"and i1 {is_true}, {_is_fine(call)}"), inside, after)
    fn.label(inside)
    if stores:
        _make_room(fn, call.status, step, stores, (row, room, grown), after)
    rows = [fn.gep(fn.load("ptr", store, 8), fn.scaled(row, nbytes)) for store, nbytes in stores]
    invoke(step.body, [*constants, *now, *later, *rows, arena])
    if stores:
        fn.emit(f"{following} = add nuw nsw i64 {row}, 1")
    fn.jump(latch)
    fn.label(latch)
    fn.jump(head)
    fn.label(after)
    _finish(fn, step, now, final)
    _keep(fn, call.status, stores, row, step.status)


def _make_room(
    fn: FunctionText,
    state: str,
    step: Cycle,
    stores: Sequence[Store],
    names: tuple[str, str, str],
    after: str,
) -> None:
    """Grows the memory of stores that are full; leaves the loop where there is none.

    The runtime may give more than is asked for; there is room for as many rows as all stores have.
    """
    row, room, grown = names
    full, failed, ready = map(fn.fresh_label, ("full", "failed", "ready"))
    before = fn.block
    weights = f"!prof {fn.module.metadata(UNLIKELY)}"
    is_full = fn.value(f"icmp eq i64 {row}, {room}")
    fn.emit(f"br i1 {is_full}, label %{full}, label %{ready}, {weights}")
    fn.label(full)
    if step.grows_by_one:
        more = fn.value(f"add nuw nsw i64 {room}, 1")
    else:
        widest = max(nbytes for _, nbytes in stores)
        first = min(max(_FIRST_BYTES // max(widest, 1), _FEW_ROWS), _MANY_ROWS)
        twice = fn.value(f"shl nuw nsw i64 {room}, 1")
        more = fn.call("i64", "llvm.umax.i64", ("i64", twice), ("i64", str(first)))
    rows: list[str] = []
    for store, nbytes in stores:
        if nbytes:
            size = fn.scaled(more, nbytes)
            given = fn.call("i64", "diffc_store_grow", ("ptr", store), ("i64", size))
            rows.append(fn.value(f"udiv i64 {given}, {nbytes}"))
    least = more
    if rows:
        least = rows[0]
        for each in rows[1:]:
            least = fn.call("i64", "llvm.umin.i64", ("i64", least), ("i64", each))
    last = fn.block
    fn.branch(fn.value(f"icmp ne i64 {least}, 0"), ready, failed)
    fn.label(failed)
    code = STATUS_LIMIT - step.status
    fn.value(f"atomicrmw umax ptr {state}, i64 {code} monotonic, align 8")
    fn.jump(after)
    fn.label(ready)
    fn.emit(f"{grown} = phi i64 [ {room}, %{before} ], [ {least}, %{last} ]")


def write_sweep(call: Call, step: Sweep, invoke: Invoke) -> None:
    """Calls the body as often as the count says, over rows of stores."""
    fn = call.fn
    final = [call.pointer(at) for at in step.final]
    spare = [call.pointer(at) for at in step.spare]
    constants = [call.pointer(at) for at in step.constants]
    arena, zeros = call.pointer(step.arena), call.pointer(step.zeros)
    count = fn.load("i64", call.pointer(step.count), 8)
    count = fn.call("i64", "llvm.smax.i64", ("i64", count), ("i64", "0"))
    _start(call, step)
    stores = _stores(call, step.stores)
    slices: list[tuple[str, str]] = []
    for k, (store, nbytes) in enumerate(_stores(call, step.slices)):
        rows, stride, count = _rows(fn, store, nbytes, count, zeros if k in step.bare else "")
        slices.append((rows, stride))
    _clear(fn, stores)
    for store, nbytes in stores:
        count = _made(call, step, store, nbytes, count)
    head, inside, after = map(fn.fresh_label, ("trip", "again", "done"))
    latch = fn.fresh_label("latch")
    before = fn.block
    fn.jump(head)
    fn.label(head)
    now, later = _swapped(fn, step, final, spare, before, latch)
    trip, following = fn.fresh("trip"), fn.fresh("next")
    fn.emit(f"{trip} = phi i64 [ 0, %{before} ], [ {following}, %{latch} ]")
    is_more = fn.value(f"icmp slt i64 {trip}, {count}")
    fn.branch(fn.value(f"and i1 {is_more}, {_is_fine(call)}"), inside, after)
    fn.label(inside)
    fn.emit(f"{following} = add nuw nsw i64 {trip}, 1")
    row = fn.value(f"sub nsw i64 {count}, {following}") if step.reverse else trip
    read = [fn.gep(at, fn.value(f"mul i64 {row}, {stride}")) for at, stride in slices]
    written = [fn.gep(fn.load("ptr", store, 8), fn.scaled(row, nbytes)) for store, nbytes in stores]
    invoke(step.routine, [*constants, *now, *read, *later, *written, arena])
    fn.jump(latch)
    fn.label(latch)
    fn.jump(head)
    fn.label(after)
    _finish(fn, step, now, final)
    _keep(fn, call.status, stores, count, step.status)


def _rows(
    fn: FunctionText, store: str, nbytes: int, count: str, zeros: str
) -> tuple[str, str, str]:
    """Where a store's rows begin, bytes from one to the next, and for how many steps they do.

    Where ``zeros`` is given, a store that has no memory is read as that row, which is cleared.
    """
    rows = fn.load("ptr", store, 8)
    if not nbytes:
        return rows, "0", count
    held = fn.load("i64", fn.gep(store, ROWS_AT), 8)
    least = fn.call("i64", "llvm.smin.i64", ("i64", held), ("i64", count))
    if not zeros:
        return rows, str(nbytes), least
    is_none = fn.value(f"icmp eq ptr {rows}, null")
    with fn.when(is_none, [("ptr", rows), ("i64", least)], unlikely=True) as arm:
        size = ("i64", str(nbytes))
        fn.call("void", "llvm.memset.p0.i64", ("ptr", zeros), ("i8", "0"), size, ("i1", "false"))
        arm.values = [zeros, count]
    stride = fn.value(f"select i1 {is_none}, i64 0, i64 {nbytes}")
    return arm.merged[0], stride, arm.merged[1]


def _made(call: Call, step: Sweep, store: str, nbytes: int, count: str) -> str:
    """Room for all rows of a store; no steps where there is none."""
    if not nbytes:
        return count
    given = ("ptr", call.status), ("ptr", store), ("i64", count), ("i64", str(nbytes))
    code = ("i64", str(STATUS_LIMIT - step.status))
    made = call.fn.call("i1", "diffc_store_make", *given, code)
    return call.fn.value(f"select i1 {made}, i64 {count}, i64 0")


# --- what both have in common -----------------------------------------------------------------


def _is_fine(call: Call) -> str:
    """Whether no error has been met: a loop ends at the first one."""
    return call.fn.value(f"icmp eq i64 {call.fn.load('i64', call.status, 8)}, 0")


def _stores(call: Call, stores: Sequence[tuple[Address, int]]) -> list[Store]:
    return [(call.pointer(at), nbytes) for at, nbytes in stores]


def _clear(fn: FunctionText, stores: Sequence[Store]) -> None:
    """Stores without memory and rows."""
    for store, _ in stores:
        fn.store("ptr", "null", store, 8)
        fn.store("i64", "0", fn.gep(store, ROWS_AT), 8)


def _keep(fn: FunctionText, state: str, stores: Sequence[Store], rows: str, status: int) -> None:
    """Stores with so many rows: their memory is freed later."""
    for store, nbytes in stores:
        places = ("ptr", state), ("ptr", store), ("i64", rows)
        numbers = ("i64", str(nbytes)), ("i64", str(STATUS_LIMIT - status))
        fn.call("void", "diffc_store_keep", *places, *numbers)


def _start(call: Call, step: Cycle | Sweep) -> None:
    """Copies initial carries to their final places."""
    for target, source, nbytes in zip(step.final, step.initial, step.carry_bytes, strict=True):
        if target != source and nbytes:
            copy_bytes(call.fn, call.pointer(target), call.pointer(source), nbytes)


def _moving(step: Cycle | Sweep) -> list[int]:
    """The carries that alternate between two places."""
    return [k for k, at in enumerate(step.spare) if at != step.final[k]]


def _swapped(
    fn: FunctionText,
    step: Cycle | Sweep,
    final: Sequence[str],
    spare: Sequence[str],
    before: str,
    latch: str,
) -> tuple[list[str], list[str]]:
    """Where each carry is in this trip, and where it goes."""
    now, later = list(final), list(spare)
    for k in _moving(step):
        now[k], later[k] = fn.fresh("now"), fn.fresh("later")
        for mine, other, start in ((now[k], later[k], final[k]), (later[k], now[k], spare[k])):
            fn.emit(f"{mine} = phi ptr [ {start}, %{before} ], [ {other}, %{latch} ]")
    return now, later


def _finish(
    fn: FunctionText, step: Cycle | Sweep, now: Sequence[str], final: Sequence[str]
) -> None:
    """Copies carries to their final places that ended in the other one."""
    for k in _moving(step):
        with fn.when(fn.value(f"icmp ne ptr {now[k]}, {final[k]}")):
            copy_bytes(fn, final[k], now[k], step.carry_bytes[k])
