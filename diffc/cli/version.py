"""``diffc version``: versions of what results depend on, the CPU and the chosen target."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from diffc.codegen.targets import Target
from diffc.runtime import llvm, pool
from diffc.runtime.target import host
from diffc.version import __version__


def run(options: Any) -> int:
    """The subcommand; see ``add``."""
    print(report(), end="")
    return 0


def add(commands: Any) -> None:
    """Adds the subcommand to the command line."""
    parser = commands.add_parser(
        "version",
        help="print versions, the CPU and the target",
        description="Prints versions of diffc and its libraries, the CPU and the chosen target.",
    )
    parser.set_defaults(run=run)


def report() -> str:
    """The lines that ``diffc version`` prints."""
    target = host()
    words = llvm.llvm_version().split()
    rows = [
        ("diffc", __version__),
        ("python", platform.python_version()),
        ("numpy", _installed("numpy")),
        ("llvmlite", words[-1]),
        ("llvm", words[1]),
        ("sympy", _installed("sympy")),
        ("cpu", cpu_name()),
        ("target", f"{target.name} ({target.family}, {8 * target.vector_bytes}-bit vectors)"),
        ("features", features(target)),
        ("threads", pool.describe()),
    ]
    return "".join(f"{name:<9} {value}\n" for name, value in rows)


def features(target: Target) -> str:
    """What code generation uses of the CPU."""
    named = {
        "avx512": target.has_avx512,
        "fma": target.has_fma,
        "masked-memory": target.masked_memory,
    }
    found = [name for name, present in named.items() if present]
    found += [part for part in target.features.split(",") if part]
    return " ".join([*found, f"cpu={target.cpu}"])


def cpu_name() -> str:
    """The CPU's name as the system gives it."""
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(encoding="utf-8", errors="replace").splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                return value.strip()
    return platform.processor() or platform.machine()


def _installed(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
