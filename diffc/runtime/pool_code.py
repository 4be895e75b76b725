"""The code of the thread pool: a region is dealt out in chunks by one 64-bit ticket.

The text stands in the `.ll` files beside this module, with names in braces for what is defined
here. Emitted programs call `diffc_parallel_for(function, context, units, grain, most, limit)`.

A region is a round. The caller takes the lock (whoever finds it taken runs alone: nested regions,
other threads), writes down function, context and units, then publishes the ticket: the round, the
next chunk, the number of chunks. Callers and workers claim a chunk by one compare-and-swap of the
ticket, so a worker that comes late, from any earlier round, finds nothing to claim and touches
nothing. The caller works too, and waits for finished chunks, not for threads.

Workers spin for a while between rounds, then sleep until the round changes; a caller counts the
sleepers after it has changed the round, a worker looks at the round after it has been counted, so
no wake-up is lost. The caller waits in the same way. All waiting goes through `wait` and `wake`,
by futex on Linux, by mutex and condition variable on macOS; elsewhere regions run in the caller.
"""

import platform
import sys
from pathlib import Path

__all__ = ["MAX_THREADS", "PARALLEL_FOR", "STATE", "pool_text", "unsupported"]

PARALLEL_FOR = "diffc_parallel_for"
MAX_THREADS = 64
#: Chunks for each thread, where the work is enough for that many.
CHUNKS = 4
STACK_BYTES = 1 << 20

# Offsets; what is written by different threads at the same time lies 64 bytes apart.
STATE = {
    "TICKET": 0,
    "ROUND": 64,
    "SLEEPERS": 68,
    "QUIT": 72,
    "HELPERS": 76,
    "DONE": 128,
    "CALLER_SLEEPS": 132,
    "FUNCTION": 192,
    "CONTEXT": 200,
    "UNITS": 208,
    "LOCK": 256,
    "WORKERS": 260,
    "THREADS": 264,
    "WORKER_SPINS": 272,
    "CALLER_SPINS": 280,
    "REGIONS": 288,
    "HANDLES": 320,
    "STATE_BYTES": 320 + 8 * MAX_THREADS,
}
SYS_FUTEX = {"x86_64": 202, "aarch64": 98}
PAUSES = {
    "x86_64": "declare void @llvm.x86.sse2.pause()\n"
    "define internal void @pause() alwaysinline {\n"
    "  call void @llvm.x86.sse2.pause()\n  ret void\n}\n",
    "aarch64": "declare void @llvm.aarch64.hint(i32)\n"
    "define internal void @pause() alwaysinline {\n"
    "  call void @llvm.aarch64.hint(i32 1)\n  ret void\n}\n",
}
ARCHITECTURES = {"amd64": "x86_64", "arm64": "aarch64"}


def unsupported() -> str:
    """Why regions run in the calling thread on this system; empty where there is a pool."""
    if sys.platform not in ("linux", "darwin"):
        return f"no thread pool on {sys.platform}"
    if _architecture() not in PAUSES:
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
    names: dict[str, object] = {"PARALLEL_FOR": PARALLEL_FOR}
    pause = ""
    if not unsupported():
        waiting = waiting or ("futex" if is_linux else "condition")
        parts = ["pool.ll", f"pool_{waiting}.ll"]
        pause = PAUSES[_architecture()]
        names |= STATE
        names |= {
            "CHUNKS": CHUNKS,
            "STACK_BYTES": STACK_BYTES,
            "SIG_SETMASK": 2 if is_linux else 3,
            "SYS_FUTEX": SYS_FUTEX[_architecture()],
        }
    text = pause + "".join(Path(__file__).with_name(part).read_text("utf-8") for part in parts)
    for name, value in names.items():
        text = text.replace(f"{{{name}}}", str(value))
    return text
