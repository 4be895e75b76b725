"""Transforms compose: each after each, on every op of control flow and on loops within branches.

The programs are those of the case files. What each step must mean is compared in numbers.
``tests/deep`` takes three steps, and compiles what comes out.
"""

import itertools

import pytest

from diffc.ir.check import check
from diffc.ir.graph import graphs_of
from diffc.ir.text import parse, print_graph
from diffc.ops.registry import table
from tests.cases import meaning
from tests.cases.reader import FOLDER, read
from tests.cases.steps import MEANINGS, TRANSFORMS

STEPS = ("jvp", "vjp", "batch", "taylor")
OPTIONS = {"--size": "2", "--order": "2"}


def programs():
    """Each program of the case files once, by name."""
    found = {}
    for file in ("jvp", "nested"):
        for case in read(FOLDER / "transforms" / f"{file}.txt")[1]:
            if " {\n    func @" in case.text and case.text not in found.values():
                found[case.name.removeprefix("jvp_of_")] = case.text
    return found


PROGRAMS = programs()


def compose(name, steps):
    """Takes the steps one after the other, and compares each with its meaning."""
    graph = parse(PROGRAMS[name], table())
    for step in steps:
        mask = [step == "batch" or a.is_float for a in graph.input_avals]
        made = TRANSFORMS[step](graph, mask, OPTIONS)
        check(made.graph)
        text = print_graph(made.graph)
        if not any(eqn.op.name == "custom" for each in graphs_of(made.graph) for eqn in each.eqns):
            assert print_graph(parse(text, table())) == text
        MEANINGS[step](graph, mask, made)
        graph = made.graph


def test_there_are_programs():
    assert len(PROGRAMS) >= 24


@pytest.mark.parametrize("name", PROGRAMS)
@pytest.mark.parametrize("steps", list(itertools.product(STEPS, repeat=2)), ids="-".join)
def test_two_steps(name, steps):
    token = meaning.IS_COMPILED.set(False)
    try:
        compose(name, steps)
    finally:
        meaning.IS_COMPILED.reset(token)
