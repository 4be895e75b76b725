"""How diffc stands against the best peer, in text and in Markdown."""

import pytest

from benchmarks import driver, report
from benchmarks.driver import Result
from benchmarks.table import markdown_table

STARTED = {"peak_mib": 1.0, "steady_mib": 1.0, "compile_s": 0.5}


def result(workload, peer, *seconds, problem=""):
    found = Result(workload, peer, problem=problem, started=STARTED)
    found.seconds = list(seconds)
    return found


@pytest.fixture
def groups():
    return [
        [
            result("digits", "diffc", 2.0, 2.0, 2.0),
            result("digits", "diffc_scan", 1.0, 2.0, 1.0),
            result("digits", "numpy", 2.0, 4.0, 2.0),
            result("digits", "jax", 3.0, 3.0, 3.0),
            result("digits", "torch", problem="not installed: torch"),
        ],
        [result("w8", "diffc", 1.0), result("w8", "numpy", 8.0)],
        [result("heat", "diffc", 2.0), result("heat", "jax", 1.0)],
        [result("sort", "diffc", problem="failed: x"), result("sort", "jax", 1.0)],
    ]


def test_the_faster_form_stands_against_the_best_peer(groups):
    place = report.standing(groups[0])
    assert place.own.peer == "diffc_scan"
    assert (place.best, place.ratio, place.fastest) == ("numpy", 2.0, 2.0)
    assert report.standing(groups[3]) is None
    assert report.standing([groups[1][0]]) is None


def test_the_summary_has_the_mean_of_the_named_and_all_that_are_slower(groups):
    mean, title, *slower = report.summarized(groups)
    assert "of 2 of 21 named" in mean
    assert "4.00 by medians" in mean  # of 2 and 8; heat is not a named workload
    assert title.startswith("slower than the best peer:")
    assert slower == ["  heat: jax 0.50, by fastest chunks 0.50"]
    assert report.summarized(groups[:2])[-1] == "slower than the best peer: none"
    assert report.summarized(groups[3:]) == []


def test_text_has_table_summary_and_problems(groups):
    text = report.text(groups, "diffc")
    table, summary, problems = text.split("\n\nbest peer")[0], "best peer", text.splitlines()[-2:]
    assert "digits" in table
    assert summary in text
    assert problems == ["digits: torch: not installed: torch", "sort: diffc: failed: x"]


def test_markdown_has_a_row_for_each_workload_that_was_timed(groups):
    page = report.markdown(groups, driver.Settings())
    rows = [line for line in page.splitlines() if line.startswith("| ")]
    assert rows[0].split(" | ")[-3:] == ["jax", "torch", "numpy |"]
    assert rows[2] == "| digits | epoch of 28 steps | 1 s | 2.00 | 2.00 | 3.00 |  | 2.00 |"
    assert [row.split(" ")[1] for row in rows[2:]] == ["digits", "w8", "heat"]
    assert "- digits: torch: not installed: torch" in page


def test_a_table_in_markdown():
    text = markdown_table(["name", "n"], [["a", "1"]])
    assert text == "| name | n |\n| --- | ---: |\n| a | 1 |"
