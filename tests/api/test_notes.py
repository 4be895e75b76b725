"""Where a batch takes several ways at once, the compiled program says so, and nothing else does."""

import pathlib
import warnings

import numpy as np
import pytest

import diffc

HERE = pathlib.Path(__file__)
X = np.array([-1.0, 2.0, 3.0])
P = np.array([True, False, True])


def line_of(marker):
    lines = enumerate(HERE.read_text().splitlines(), 1)
    (found,) = (n for n, text in lines if text.endswith(f"  # {marker}"))
    return f"{HERE}:{found}"


def branch(p, x):
    return diffc.cond(p, np.sin, np.cos, x)  # cond


def three(k, x):
    return diffc.switch(k, [np.sin, np.cos, np.tan], x)  # switch


def halved(x):
    return diffc.while_loop(lambda x: x > 1, lambda x: x / 2, x)  # while


BRANCHES = "all {} branches of this choice are computed, as what chooses differs within the batch"
LOOP = "this loop runs until the last element of the batch is done, as its test differs within it"


def notes(f, *args):
    return diffc.jit(f).compile(*args).notes


def test_a_batched_predicate_is_noted():
    (note,) = notes(diffc.vmap(branch), P, X)
    assert note.message == BRANCHES.format(2)
    assert str(note.location) == line_of("cond")
    assert str(note) == f"{note.location}: {note.message}"


def test_a_batched_index_is_noted():
    (note,) = notes(diffc.vmap(three), np.arange(3), X)
    assert note.message == BRANCHES.format(3)
    assert str(note.location) == line_of("switch")


def test_a_batched_test_is_noted():
    (note,) = notes(diffc.vmap(halved), X)
    assert note.message == LOOP
    assert str(note.location) == line_of("while")


@pytest.mark.parametrize("axes", [(None, 0), (None, None, 0)])
def test_one_way_for_all_is_not_noted(axes):
    if len(axes) == 2:
        assert notes(diffc.vmap(branch, in_axes=axes), True, X) == ()
    else:
        looped = lambda n, m, x: diffc.fori_loop(0, n, lambda i, x: x * m, x)  # noqa: E731  # short
        assert notes(diffc.vmap(looped, in_axes=axes), 3, 2.0, X) == ()


def in_scan(ps, x):
    return diffc.scan(lambda c, p: (diffc.vmap(branch)(p, c), None), x, ps)[0]


NESTED = {
    "gradient of a batch": (lambda p, x: diffc.grad(summed)(x, p), (P, X)),
    "batch of a gradient": (diffc.vmap(diffc.grad(lambda x, p: branch(p, x))), (X, P)),
    "batch of a call": (diffc.vmap(diffc.jit(branch)), (P, X)),
    "batch of a loop": (diffc.vmap(lambda p, x: repeated(p, x)), (P, X)),
    "within a loop": (in_scan, (np.stack([P, ~P]), X)),
    "within a call": (lambda p, x: BATCHED(p, x) * BATCHED(~p, x), (P, X)),
    "of a batch": (diffc.vmap(diffc.vmap(branch)), (P[None], X[None])),
    "of one axis": (diffc.vmap(diffc.vmap(branch, (None, 0)), (0, None)), (P, X)),
}
BATCHED = diffc.jit(diffc.vmap(branch))


def summed(x, p):
    return np.sum(diffc.vmap(branch)(p, x))


def repeated(p, x):
    return diffc.fori_loop(0, 3, lambda i, x: branch(p, x), x)


@pytest.mark.parametrize("name", NESTED)
def test_once_however_it_is_used(name):
    function, args = NESTED[name]
    (note,) = notes(function, *args)
    assert str(note.location) == line_of("cond")
    (again,) = notes(function, *args)
    assert again == note


def test_a_note_belongs_to_one_program():
    """What another function notes, and what is remembered of it, stays there."""
    notes(diffc.vmap(branch), P, X)
    assert notes(lambda x: diffc.cond(x[0] > 0, np.sin, np.cos, x), X) == ()


def test_python_branches_are_noted():
    @diffc.jit(control_flow=True)
    def f(x):
        if x > 0:  # python if
            return x * 2
        return -x

    (note,) = notes(diffc.vmap(f), X)
    assert str(note.location) == line_of("python if")


def test_the_text_of_the_stages_says_it():
    compiled = diffc.vmap(branch).compile(P, X)
    text = f"# note: {line_of('cond')}: {BRANCHES.format(2)}\n"
    for stage in ("trace", "outline", "transform", "optimize"):
        assert compiled.stage(stage).text.endswith(text)
    assert "# note" not in diffc.jit(branch).compile(True, X).stage("optimize").text


def test_nothing_is_printed_or_warned_of(capsys):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        diffc.vmap(branch)(P, X)
        diffc.vmap(halved)(X)
    assert capsys.readouterr() == ("", "")
