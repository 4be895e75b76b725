"""``diffc inspect --critical``: minima, maxima and saddles of functions from a file."""

import pytest

SADDLE = """\
a saddle: the Hessian is indefinite
value        0
gradient     (0, 0), of norm 0
eigenvalues  (-2, 2)
condition    1
falls along  1 x[1]
rises along  1 x[0]
"""


def test_a_saddle_is_named(cli):
    done = cli("inspect", "code/m.py:saddle", "--critical", "--at", "[0, 0]")
    assert (done.status, done.out, done.err) == (0, SADDLE, "")


def test_other_points_and_arguments(cli):
    done = cli("inspect", "code/m.py:saddle", "--critical", "--at", "[1.0, 0]")
    assert done.out.startswith("no critical point: the Hessian is indefinite\nvalue        1\n")
    done = cli("inspect", "code/m.py:y", "--critical", "--at", "2", "--at", "0.5", "--by", "1")
    assert "gradient     (-0.877583), of norm 0.877583" in done.out
    done = cli("inspect", "code/m.py:bowl", "--critical", "--at", "{'w': [[0, 0]], 'b': 1}")
    assert done.out.startswith("a minimum: the Hessian is positive definite")
    assert "condition    100" in done.out


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (("saddle", "--at", "[0, 0]"), "say what to look at: --critical"),
        (("saddle", "--critical", "--at", "[0, x]"), "--at takes numbers and lists of numbers"),
        (("saddle", "--critical", "--at", "'0'"), "--at takes numbers and lists of numbers"),
        (("saddle", "--critical", "--at", "[[0], [0, 1]]"), "--at takes numbers and lists"),
        (("saddle", "--critical"), "the following arguments are required: --at"),
        (("y", "--critical", "--at", "0", "--at", "1", "--by", "2"), "--by names argument 2; --at"),
        (("nope", "--critical", "--at", "0"), "code/m.py has no 'nope'"),
        (("identity", "--critical", "--at", "[0, 0]"), "grad needs a function of one float scalar"),
    ],
)
def test_what_is_wrong_is_said(cli, argv, message):
    done = cli("inspect", f"code/m.py:{argv[0]}", *argv[1:])
    assert done.status == 2
    assert done.out == ""
    assert done.err.startswith(f"diffc: error: {message}")
