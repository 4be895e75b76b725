"""What of the machine a benchmark process uses: cores, library threads, memory.

Affinity and environment are set before any numeric library is imported, as most of them read both
once, when they start.
"""

from __future__ import annotations

import os
import resource
import sys
from pathlib import Path

STATUS = Path("/proc/self/status")
CLEAR_REFS = Path("/proc/self/clear_refs")
MIB = 1024.0 * 1024.0


def choose_cores(threads: int) -> list[int]:
    """Return the cores to pin to: the last ones this process may use.

    Raises:
        ValueError: If the process may use fewer cores than threads are asked for.
    """
    cores = usable_cores()
    if not 1 <= threads <= len(cores):
        raise ValueError(f"{threads} threads asked for, {len(cores)} cores usable")
    return cores[-threads:]


def usable_cores() -> list[int]:
    """Return the cores this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def pin(cores: list[int]) -> None:
    """Restrict this process to the cores, where the system can."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, cores)


def environment(threads: int, caches: Path) -> dict[str, str]:
    """Return this environment with the thread counts set and all code caches under `caches`."""
    count = str(threads)
    names = ("OMP", "MKL", "OPENBLAS", "NUMEXPR", "VECLIB_MAXIMUM", "DIFFC")
    eigen = "true" if threads > 1 else "false"
    return os.environ | {
        **{f"{name}_NUM_THREADS": count for name in names},
        "XLA_FLAGS": f"--xla_cpu_multi_thread_eigen={eigen} intra_op_parallelism_threads={count}",
        "JAX_PLATFORMS": "cpu",
        "TORCHINDUCTOR_COMPILE_THREADS": "1",
        "TORCHINDUCTOR_CACHE_DIR": str(caches / "inductor"),
        "XDG_CACHE_HOME": str(caches),
        "DIFFC_CACHE_DIR": str(caches / "diffc"),
        "PYTHONHASHSEED": "0",
    }


def status_field(name: str) -> float | None:
    """Return a field of this process's status in MiB; None where the system has none."""
    if not STATUS.exists():
        return None
    for line in STATUS.read_text().splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1]) / 1024.0
    return None


def resident() -> float:
    """Return the resident memory of this process in MiB (elsewhere than on Linux: its peak)."""
    value = status_field("VmRSS")
    return process_peak() if value is None else value


def peak() -> float:
    """Return the peak of resident memory since `reset_peak` in MiB."""
    value = status_field("VmHWM")
    return process_peak() if value is None else value


def process_peak() -> float:
    """Return the peak over the life of the process in MiB."""
    value = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return value / MIB if sys.platform == "darwin" else value / 1024.0


def reset_peak() -> None:
    """Start a new peak at the memory now resident, where the system can."""
    if CLEAR_REFS.exists():
        CLEAR_REFS.write_text("5")
