"""What the machine can do at most: multiply-adds and bytes a second, by loops of nothing else.

Written as LLVM text, so that no compiler is in the way: independent chains of fused multiply-adds
in registers, and loops that load, store or copy vectors. Several threads run the same loop at once.
"""

from __future__ import annotations

import ctypes
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from diffc.codegen.targets import Target
from diffc.runtime import build
from diffc.runtime.target import host

#: Enough chains to hide the latency of a multiply-add; more would not fit 16 registers.
CHAINS = 12
#: Bytes that fill no cache.
LARGE = 256 * 1024 * 1024
ROUNDS = 15
SECONDS = 0.02
KINDS = {"float32": ("float", 4), "float64": ("double", 8)}


@dataclass(frozen=True)
class Peaks:
    """The fastest of some rounds.

    Attributes:
        flops: Floating-point operations a second, by dtype; a multiply-add counts as two.
        bandwidth: Bytes a second that loads, stores and copies (both counted) move, by what they do
            and the bytes of a thread's array.
        threads: How many ran at once.
    """

    flops: dict[str, float]
    bandwidth: dict[tuple[str, int], float]
    threads: int

    @property
    def memory(self) -> float:
        """The most bytes a second between processor and memory."""
        return max(rate for (_, size), rate in self.bandwidth.items() if size == LARGE)


def text(target: Target) -> str:
    """Return LLVM text: for each loop a function of two addresses, a count and how often."""
    parts = [_chains(target, kind, target.vector_bytes // size) for kind, size in KINDS.values()]
    lanes = target.vector_bytes // 4
    parts += [_stream(target, lanes, name) for name in ("load", "store", "copy")]
    fma: list[str] = []
    for kind, size in KINDS.values():
        v, name = _v(kind, target.vector_bytes // size), _m(kind, target.vector_bytes // size)
        fma.append(f"declare {v} @llvm.fma.{name}({v}, {v}, {v})")
    return "\n".join([*parts, *fma]) + "\n"


def _v(kind: str, lanes: int) -> str:
    return f"<{lanes} x {kind}>"


def _m(kind: str, lanes: int) -> str:
    return f"v{lanes}f{32 if kind == 'float' else 64}"


def _loop(target: Target, name: str, step: int, phis: list[str], body: list[str], end: str) -> str:
    """Return a function that goes `%times` times through indices below `%n`."""
    return "\n".join([
        f"define void @{name}(ptr %a, ptr %b, i64 %n, i64 %times) {target.attributes} {{",
        "start:", "  br label %entry", "entry:",
        "  %time = phi i64 [ 0, %start ], [ %later, %exit ]", "  br label %loop", "loop:",
        "  %i = phi i64 [ 0, %entry ], [ %next, %loop ]",
        *phis, *body,
        f"  %next = add nuw nsw i64 %i, {step}",
        "  %more = icmp slt i64 %next, %n",
        "  br i1 %more, label %loop, label %exit", "exit:", end,
        "  %later = add nuw nsw i64 %time, 1",
        "  %again = icmp slt i64 %later, %times",
        "  br i1 %again, label %entry, label %done", "done:", "  ret void", "}",
    ])  # fmt: skip


def _chains(target: Target, kind: str, lanes: int) -> str:
    """Multiply-adds that don't wait for each other; `n` is how many trips."""
    v, phis, body = _v(kind, lanes), [], []
    for k in range(CHAINS):
        phis.append(f"  %s{k} = phi {v} [ zeroinitializer, %entry ], [ %t{k}, %loop ]")
        if target.has_fma:
            args = f"{v} %s{k}, {v} %x, {v} %x"
            body.append(f"  %t{k} = call {v} @llvm.fma.{_m(kind, lanes)}({args})")
        else:
            body += [f"  %m{k} = fmul {v} %s{k}, %x", f"  %t{k} = fadd {v} %m{k}, %x"]
    sums = [f"  %e0 = fadd {v} %t0, %t1"]
    sums += [f"  %e{k - 1} = fadd {v} %e{k - 2}, %t{k}" for k in range(2, CHAINS)]
    end = "\n".join([*sums, f"  store {v} %e{CHAINS - 2}, ptr %b, align 1"])
    made = _loop(target, f"flops_{kind}", 1, phis, body, end)
    return made.replace("start:\n", f"start:\n  %x = load {v}, ptr %a, align 1\n", 1)


def _stream(target: Target, lanes: int, name: str) -> str:
    """Loads, stores or copies of four vectors a trip; `n` is how many numbers."""
    v, phis, body, end = _v("i32", lanes), [], [], ""
    for k in range(4):
        body.append(f"  %j{k} = add nuw nsw i64 %i, {k * lanes}")
        body.append(f"  %p{k} = getelementptr i32, ptr %a, i64 %j{k}")
        if name != "store":
            body.append(f"  %v{k} = load {v}, ptr %p{k}, align {4 * lanes}")
        if name == "load":
            phis.append(f"  %s{k} = phi {v} [ zeroinitializer, %entry ], [ %t{k}, %loop ]")
            body.append(f"  %t{k} = or {v} %s{k}, %v{k}")
            end += f"  %e{k} = or {v} %t{k}, {f'%e{k - 1}' if k else 'zeroinitializer'}\n"
            continue
        if name == "copy":
            body.append(f"  %q{k} = getelementptr i32, ptr %b, i64 %j{k}")
        place, value = (f"%q{k}", f"%v{k}") if name == "copy" else (f"%p{k}", "zeroinitializer")
        body.append(f"  store {v} {value}, ptr {place}, align {4 * lanes}")
    if name == "load":
        end += f"  store {v} %e3, ptr %b, align 1"
    return _loop(target, name, 4 * lanes, phis, body, end)


def measure(threads: int) -> Peaks:
    """Measure what so many threads reach at once."""
    target = host()
    names = [*(f"flops_{kind}" for kind, _ in KINDS.values()), "load", "store", "copy"]
    library = build.build(text(target), tuple(names), target)
    signature = ctypes.CFUNCTYPE(
        None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64
    )
    call = {name: signature(library.address(name)) for name in names}
    size = LARGE // threads
    room = [np.full(2 * size + 128, 1, np.uint8) for _ in range(threads)]
    starts = [array.ctypes.data + -array.ctypes.data % 64 for array in room]
    flops: dict[str, float] = {}
    bandwidth: dict[tuple[str, int], float] = {}
    with ThreadPoolExecutor(threads) as workers:

        def rate(name: str, each: float, nbytes: int, count: int) -> float:
            """Units a second of all threads: `each` per count, `count` counts a call."""

            def timed(times: int) -> float:
                began = time.perf_counter()
                list(workers.map(lambda a: call[name](a, a + nbytes, count, times), starts))
                return time.perf_counter() - began

            times = 1
            while timed(times) < SECONDS:
                times *= 2
            best = min(timed(times) for _ in range(ROUNDS))
            return threads * each * count * times / best

        for dtype, (kind, item) in KINDS.items():
            per_trip = 2.0 * CHAINS * (target.vector_bytes // item)
            flops[dtype] = rate(f"flops_{kind}", per_trip, 64, 1 << 20)
        for nbytes in (target.l1_bytes // 4, target.l2_bytes // 4, LARGE):
            inside = nbytes if nbytes < LARGE else size
            for name in ("load", "store", "copy"):
                moved = 8.0 if name == "copy" else 4.0
                bandwidth[name, nbytes] = rate(name, moved, inside, inside // 4)
    return Peaks(flops, bandwidth, threads)
