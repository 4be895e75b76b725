"""How many threads this process may keep busy: affinity, cores, and the limits of a container.

Threads of one core share its units, so cores are counted, not hardware threads. A control group's
quota of 150 % stands for two threads: the kernel deals it out.
"""

import math
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from diffc.errors import UsageError

__all__ = ["VARIABLE", "Budget", "budget"]

VARIABLE = "DIFFC_NUM_THREADS"
GROUPS = Path("/sys/fs/cgroup")
CPUS = Path("/sys/devices/system/cpu")


class Budget:
    """A number of threads, and where it comes from.

    Attributes:
        threads: The number, at least 1.
        reason: A few words: `2 cores`, `DIFFC_NUM_THREADS`, ...
    """

    __slots__ = ("reason", "threads")

    def __init__(self, threads: int, reason: str) -> None:
        self.threads = threads
        self.reason = reason


def budget(most: int) -> Budget:
    """The default number of threads of this process, at most `most`.

    Raises:
        UsageError: `DIFFC_NUM_THREADS` is not a positive integer.
    """
    said = os.environ.get(VARIABLE, "").strip()
    if said:
        if not said.isdecimal() or int(said) < 1:
            raise UsageError(
                f"{VARIABLE}={said} is no number of threads",
                hint=f"set {VARIABLE} to 1 or more, or leave it unset",
            )
        return Budget(min(int(said), most), VARIABLE)
    cores = _cores()
    found = Budget(cores, f"{cores} core{'s' * (cores != 1)}")
    quota = _quota()
    if quota is not None and quota < found.threads:
        found = Budget(quota, "the quota of the control group")
    if most < found.threads:
        found = Budget(most, f"at most {most}")
    return found


def _cores() -> int:
    """Cores that this process may run on."""
    if not hasattr(os, "sched_getaffinity"):
        return os.cpu_count() or 1
    allowed = sorted(os.sched_getaffinity(0))
    found = {_core(number) for number in allowed}
    return max(1, len(found))


def _core(number: int) -> tuple[str, ...]:
    """What names the core of a hardware thread."""
    topology = CPUS / f"cpu{number}" / "topology"
    parts = [_read(topology / name) for name in ("physical_package_id", "core_id")]
    return tuple(parts) if all(parts) else (str(number),)


def _read(path: Path) -> str:
    """The text of a small file, empty where there is none."""
    try:
        return path.read_text("ascii").strip()
    except (OSError, UnicodeDecodeError):
        return ""


def _quota() -> int | None:
    """Threads that the quotas of this process's control groups keep busy; None: no quota."""
    if sys.platform != "linux":
        return None
    found = list(_quotas())
    return max(1, math.ceil(min(found))) if found else None


def _quotas() -> Iterator[float]:
    """The quotas of the control groups around this process, in cores; both versions."""
    for line in _read(Path("/proc/self/cgroup")).splitlines():
        _, controllers, place = ([*line.split(":", 2), "", ""])[:3]
        if not controllers:
            roots = [GROUPS, GROUPS / "unified"]
        elif "cpu" in controllers.split(","):
            roots = [GROUPS / controllers, GROUPS / "cpu"]
        else:
            continue
        for root in roots:
            inner = root / place.lstrip("/")
            for group in (inner, *inner.parents):
                if not group.is_relative_to(root):
                    break
                yield from _group_quota(group)


def _group_quota(group: Path) -> Iterator[float]:
    words = _read(group / "cpu.max").split() or [
        _read(group / "cpu.cfs_quota_us"),
        _read(group / "cpu.cfs_period_us"),
    ]
    if len(words) == 2 and all(word.isdecimal() for word in words) and int(words[1]):
        yield int(words[0]) / int(words[1])
