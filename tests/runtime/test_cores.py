"""How many threads a process may keep busy: the environment, cores, quotas of containers."""

import os
from pathlib import Path

import pytest

from diffc.errors import UsageError
from diffc.runtime import cores

pytestmark = pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="not Linux")


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A machine of eight hardware threads, two on each core, in no container."""
    monkeypatch.delenv(cores.VARIABLE, raising=False)
    monkeypatch.setattr(cores, "GROUPS", tmp_path / "groups")
    monkeypatch.setattr(cores, "CPUS", tmp_path / "cpus")
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)))
    for number in range(8):
        topology = tmp_path / "cpus" / f"cpu{number}" / "topology"
        topology.mkdir(parents=True)
        (topology / "physical_package_id").write_text("0\n")
        (topology / "core_id").write_text(f"{number % 4}\n")
    files = {}
    read = cores._read

    def fake(path: Path) -> str:
        return files[str(path)] if str(path) in files else read(path)

    files["/proc/self/cgroup"] = ""
    monkeypatch.setattr(cores, "_read", fake)
    return files


def found(most=64):
    budget = cores.budget(most)
    return budget.threads, budget.reason


def test_threads_of_a_core_count_once(machine):
    assert found() == (4, "4 cores")


def test_affinity(machine, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {1, 5})
    assert found() == (1, "1 core")


def test_unknown_topology(machine, monkeypatch):
    monkeypatch.setattr(cores, "CPUS", Path("/nowhere"))
    assert found() == (8, "8 cores")


def test_most(machine):
    assert found(most=3) == (3, "at most 3")


@pytest.mark.parametrize(
    ("quota", "threads"),
    [("max 100000", 4), ("200000 100000", 2), ("150000 100000", 2), ("1000 100000", 1)],
)
def test_quota_of_version_2(machine, quota, threads):
    machine["/proc/self/cgroup"] = "0::/box/inner\n"
    machine[str(cores.GROUPS / "box" / "cpu.max")] = quota
    assert found()[0] == threads


def test_the_least_quota_on_the_way_up(machine):
    machine["/proc/self/cgroup"] = "0::/box/inner\n"
    machine[str(cores.GROUPS / "box" / "inner" / "cpu.max")] = "300000 100000"
    machine[str(cores.GROUPS / "cpu.max")] = "200000 100000"
    assert found() == (2, "the quota of the control group")


@pytest.mark.parametrize(("quota", "threads"), [("-1", 4), ("300000", 3), ("", 4), ("junk", 4)])
def test_quota_of_version_1(machine, quota, threads):
    machine["/proc/self/cgroup"] = "4:memory:/box\n3:cpu,cpuacct:/box\n"
    group = cores.GROUPS / "cpu,cpuacct" / "box"
    machine[str(group / "cpu.cfs_quota_us")] = quota
    machine[str(group / "cpu.cfs_period_us")] = "100000"
    assert found()[0] == threads


@pytest.mark.parametrize(("text", "threads"), [("1", 1), (" 7 ", 7), ("1000", 64), ("", 4)])
def test_the_variable(machine, monkeypatch, text, threads):
    monkeypatch.setenv(cores.VARIABLE, text)
    assert found()[0] == threads


@pytest.mark.parametrize("text", ["0", "-2", "two", "1.5"])
def test_a_wrong_variable(machine, monkeypatch, text):
    monkeypatch.setenv(cores.VARIABLE, text)
    with pytest.raises(UsageError, match="DIFFC_NUM_THREADS"):
        cores.budget(64)


def test_this_machine():
    assert 1 <= cores.budget(64).threads <= 64
