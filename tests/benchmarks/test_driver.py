"""Whole runs with the peers that need no other library, in processes of their own."""

import json

import pytest

from benchmarks import cold, driver, peers, report
from benchmarks.__main__ import main
from benchmarks.workloads import WORKLOADS


@pytest.fixture
def settings():
    return driver.Settings(rounds=2, chunk_seconds=0.002)


def quiet(line):
    """Drop a line of progress."""


def test_numpy_agrees_with_itself_and_is_timed(settings):
    (result,) = driver.run_workload("lecture_net_f64", ["numpy"], settings, quiet)
    assert result.problem == ""
    assert result.verdict.gradient < 1e-12
    assert len(result.seconds) == 2
    assert all(s > 0.0 for s in result.seconds)
    assert result.started["peak_mib"] > 0.0
    assert "1.00*" in report.text([[result]], "numpy")


def test_a_missing_library_and_a_failure_are_reported_not_timed(settings, monkeypatch):
    absent = peers.Entry("with_nothing", "Nothing", (), "a module that does not exist")
    monkeypatch.setitem(peers.PEERS, "absent", absent)
    (result,) = driver.run_workload("w8_scalar", ["absent"], settings, quiet)
    # The worker's table has no such peer: it fails there, and says with what.
    assert result.problem.startswith("failed: ")
    assert "KeyError: 'absent'" in result.problem
    assert result.seconds == []
    assert "failed" in report.text([[result]], "numpy")


def test_a_peer_that_disagrees_is_not_timed(settings, monkeypatch):
    monkeypatch.setitem(driver.check.TOLERANCE, "float64", -1.0)
    (result,) = driver.run_workload("lecture_net_f64", ["numpy"], settings, quiet)
    assert result.problem.startswith("disagrees: value off by")
    assert result.seconds == []


def test_command_line_writes_json(tmp_path, capsys):
    path = tmp_path / "figures.json"
    arguments = ["run", "--workloads", "w8_scalar", "--peers", "numpy", "--baseline", "numpy"]
    main([*arguments, "--rounds", "1", "--chunk-ms", "1", "--json", str(path)])
    (record,) = json.loads(path.read_text())["results"]
    assert (record["workload"], record["peer"]) == ("w8_scalar", "numpy")
    assert record["ratio"]["median"] == 1.0
    assert "w8_scalar" in capsys.readouterr().out


def test_cold_start_of_numpy(settings):
    records = cold.measure(["numpy"], 1, settings, quiet)
    assert records["numpy"]["problem"] == ""
    assert 0.0 < min(records["numpy"]["first"]) < 60.0
    assert "numpy" in cold.text(records)


def test_peers_name_workloads_that_exist(capsys):
    for entry in peers.PEERS.values():
        assert set(entry.workloads) <= WORKLOADS.keys()
    main(["list"])
    shown = capsys.readouterr().out
    assert all(name in shown for name in [*WORKLOADS, *peers.PEERS])
