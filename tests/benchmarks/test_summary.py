"""Figures and tables."""

import pytest

from benchmarks import machine, summary
from benchmarks.table import table


@pytest.mark.parametrize(
    ("call", "per_call", "units"),
    [(0.001, 1, 30), (0.001, 10, 300), (0.5, 1, 1), (0.5, 10, 10), (0.0, 1, 30_000_000)],
)
def test_chunks_are_whole_calls_near_the_target(call, per_call, units):
    assert summary.chunk_units(call, per_call, 0.03) == units


def test_ratios_are_taken_within_rounds():
    # The machine was four times slower in the second round, for both.
    ratio = summary.ratio([2.0, 8.0, 2.0], [1.0, 4.0, 1.0])
    assert ratio == summary.Ratio(2.0, 2.0, 2.0)
    assert summary.ratio([3.0, 1.0, 2.0], [1.0, 1.0, 1.0]) == summary.Ratio(2.0, 1.5, 2.5)
    assert summary.ratio([3.0], [2.0]).median == 1.5


@pytest.mark.parametrize(("one", "other"), [([], []), ([1.0], [1.0, 2.0])])
def test_ratios_need_the_same_rounds(one, other):
    with pytest.raises(ValueError, match="rounds"):
        summary.ratio(one, other)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(2.5, "2.5 s"), (7.031e-3, "7.03 ms"), (3.3e-4, "330 µs"), (2.5e-7, "250 ns"), (0.0, "0 ns")],
)
def test_seconds_have_a_unit(seconds, text):
    assert summary.seconds_text(seconds) == text


def test_table_aligns_columns():
    text = table(["name", "what", "n"], [["a", "long cell", "1"], [], ["bb", "c", "10"]])
    assert text.splitlines() == [
        "name  what        n",
        "----  ---------  --",
        "a     long cell   1",
        "",
        "bb    c          10",
    ]


def test_table_without_rows_and_with_a_ragged_row():
    assert table(["a", "b"], []).splitlines() == ["a  b", "-  -"]
    with pytest.raises(ValueError, match="1 cells"):
        table(["a", "b"], [["x"]])


def test_more_threads_than_cores_are_refused():
    with pytest.raises(ValueError, match="threads"):
        machine.choose_cores(len(machine.usable_cores()) + 1)
    with pytest.raises(ValueError, match="threads"):
        machine.choose_cores(0)
