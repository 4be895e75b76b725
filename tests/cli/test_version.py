"""``diffc version`` and the command line as a whole."""

import platform
import subprocess
import sys

import numpy as np

import diffc
from diffc.runtime import pool
from diffc.runtime.target import host


def test_versions_cpu_and_target(cli):
    done = cli("version")
    assert done.status == 0
    found = dict(line.split(maxsplit=1) for line in done.out.splitlines())
    assert found["diffc"] == diffc.__version__
    assert found["python"] == platform.python_version()
    assert found["numpy"] == np.__version__
    assert found["llvmlite"].count(".") == found["llvm"].count(".") == 2
    assert found["target"].startswith(host().name)
    assert found["threads"].startswith(f"{pool.threads()} (")
    assert set(found) == {
        "diffc", "python", "numpy", "llvmlite", "llvm", "sympy", "cpu", "target", "features",
        "threads",
    }  # fmt: skip


def test_help(cli):
    done = cli("--help")
    assert done.status == 0
    for command in ("dump", "verify", "version", "demo"):
        assert f"\n    {command}" in done.out


def test_only_verify_loads_sympy():
    code = "from diffc.cli.main import main; import sys; main(['version']); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "sympy" not in done.stdout.splitlines()[-1].split()
