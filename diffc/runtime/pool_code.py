"""The code of the thread pool: a region is dealt out in chunks by 64-bit tickets.

The text stands in the `.ll` files beside this module, with names in braces for what is defined
here. Emitted programs call `diffc_parallel_for(function, context, site, limit)`; a site is a place
in a program, with the words `SITE`.

A region is a round. The caller takes the lock (whoever finds it taken runs alone: nested regions,
other threads), writes down function, context and units, then issues a ticket to each party (itself
and the workers it asks): the round, its first chunk, the end of its chunks. Chunks of a party are
neighbours, the same in each region of as many units, so what a core has in its caches stays of use.
A party claims its chunks by compare-and-swap from the front, then those of others from the back. A
worker that comes late, from any earlier round, finds nothing to claim and touches nothing. The
caller works too, and waits for finished chunks, not for threads.

Workers spin for a while between rounds, then sleep until the round changes; a caller counts the
sleepers after it has changed the round, a worker looks at the round after it has been counted, so
no wake-up is lost. The caller waits in the same way, and judges each region: where the machine has
no cores to spare, regions run alone for a while. All waiting goes through `wait` and `wake`, by
futex on Linux, by mutex and condition variable on macOS; elsewhere regions run in the caller.
"""

import platform
import sys
from pathlib import Path

__all__ = ["MAX_THREADS", "PARALLEL_FOR", "STATE", "pool_text", "unsupported"]

PARALLEL_FOR = "diffc_parallel_for"
MAX_THREADS = 64
#: Chunks for each thread, where the work is enough for that many.
CHUNKS = 4
#: Of a worker; only what is touched takes memory.
STACK_BYTES = 8 << 20
#: Spinning threads yield their core at each step that has these bits.
YIELD_MASK = 63
#: Short regions run alone now and then, so that it is known how long that takes: many in a row,
#: since what a core finds in its caches depends on the regions before. A region is short up to so
#: many ticks of the clock, and regions are near up to so many between them.
SAMPLE_MASK = (1 << 14) - 1
SAMPLE_FIRST = 64
SAMPLE_RUNS = 512
SHORT = {"x86_64": 1 << 20, "aarch64": 1 << 14}
NEAR = {"x86_64": 1 << 18, "aarch64": 1 << 12}
#: How regions are judged, in powers of two: what is known fades by a part of 64 with each; after
#: the time of 4 was lost, they run alone for the time of 16, at most for 4096.
FADING = 6
MOST_LOST = 2
REST = 4
MOST_LEVEL = 8

# Offsets; what is written by different threads at the same time lies 64 bytes apart.
STATE = {
    "ROUND": 64,
    "QUIT": 68,
    "PARTIES": 72,
    "SLEEPERS": 80,  # a set of parties, by bits
    "DONE": 128,
    "CALLER_SLEEPS": 132,
    "FUNCTION": 192,
    "CONTEXT": 200,
    "UNITS": 208,
    "COUNT": 216,
    "LOCK": 256,
    "WORKERS": 260,
    "THREADS": 264,
    "WORKER_SPINS": 272,
    "CALLER_SPINS": 280,
    "REGIONS": 288,
    "BALANCE": 296,
    "LEVEL": 304,
    "ALONE_UNTIL": 312,
    "SEEN": 328,
    "LAST_END": 336,
    "LAST_MODE": 344,
    "STEADY": 320,  # whether regions are dealt out whatever was learnt about them
    "HANDLES": 384,
    "TICKETS": 384 + 8 * MAX_THREADS,
    "STATE_BYTES": 384 + 16 * MAX_THREADS,
}
# A site: what the program says of a region, and what is learnt about it, in words.
SITE = {
    "SITE_UNITS": 0,
    "SITE_GRAIN": 8,
    "SITE_MOST": 16,
    "SITE_ALONE": 24,
    "SITE_LAST": 32,
    "SITE_SPAN": 40,
}
FUTEX_WAIT, FUTEX_WAKE = 9 | 128, 10 | 128  # by sets of sleepers, within the process
SYS_FUTEX = {"x86_64": 202, "aarch64": 98}
# What a thread does while it waits for another, and how it reads a clock that all cores share.
PRIMITIVES = {
    "x86_64": "declare void @llvm.x86.sse2.pause()\n"
    "define internal void @pause() alwaysinline {\n"
    "  call void @llvm.x86.sse2.pause()\n  ret void\n}\n"
    "declare i64 @llvm.readcyclecounter()\n"
    "define internal i64 @clock() alwaysinline {\n"
    "  %t = call i64 @llvm.readcyclecounter()\n  ret i64 %t\n}\n",
    "aarch64": "declare void @llvm.aarch64.hint(i32)\n"
    "define internal void @pause() alwaysinline {\n"
    "  call void @llvm.aarch64.hint(i32 1)\n  ret void\n}\n"
    "declare i64 @llvm.readsteadycounter()\n"
    "define internal i64 @clock() alwaysinline {\n"
    "  %t = call i64 @llvm.readsteadycounter()\n  ret i64 %t\n}\n",
}
ARCHITECTURES = {"amd64": "x86_64", "arm64": "aarch64"}


def unsupported() -> str:
    """Why regions run in the calling thread on this system; empty where there is a pool."""
    if sys.platform not in ("linux", "darwin"):
        return f"no thread pool on {sys.platform}"
    if _architecture() not in PRIMITIVES:
        return f"no thread pool on {platform.machine()}"
    return ""


def _architecture() -> str:
    machine = platform.machine().lower()
    return ARCHITECTURES.get(machine, machine)


def pool_text(waiting: str = "") -> str:
    """The module for this system.

    Args:
        waiting: `futex` or `condition`; by default what the system has.
    """
    is_linux = sys.platform == "linux"
    parts = ["pool_serial.ll"]
    names: dict[str, object] = {"PARALLEL_FOR": PARALLEL_FOR, **SITE}
    primitives = ""
    if not unsupported():
        waiting = waiting or ("futex" if is_linux else "condition")
        parts = ["pool.ll", "pool_judge.ll", "pool_threads.ll", f"pool_{waiting}.ll"]
        primitives = PRIMITIVES[_architecture()]
        names |= STATE
        names |= {
            "CHUNKS": CHUNKS,
            "YIELD_MASK": YIELD_MASK,
            "SAMPLE_MASK": SAMPLE_MASK,
            "SAMPLE_FIRST": SAMPLE_FIRST,
            "SAMPLE_RUNS": SAMPLE_RUNS,
            "SHORT": SHORT[_architecture()],
            "NEAR": NEAR[_architecture()],
            "FADING": FADING,
            "MOST_LOST": MOST_LOST,
            "REST": REST,
            "MOST_LEVEL": MOST_LEVEL,
            "STACK_BYTES": STACK_BYTES,
            "SIG_SETMASK": 2 if is_linux else 3,
            "FUTEX_WAIT": FUTEX_WAIT,
            "FUTEX_WAKE": FUTEX_WAKE,
            "SYS_FUTEX": SYS_FUTEX[_architecture()],
        }
    text = primitives + "".join(Path(__file__).with_name(part).read_text("utf-8") for part in parts)
    for name, value in names.items():
        text = text.replace(f"{{{name}}}", str(value))
    return text
