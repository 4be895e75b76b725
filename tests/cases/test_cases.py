"""Runs the case files."""

import ast
import re

import numpy as np
import pytest

from diffc.errors import DiffcError
from diffc.ir.check import check
from diffc.ir.text import parse, print_graph
from diffc.ops.interpret import evaluate
from diffc.ops.registry import every_op, table
from diffc.programs import GraphProgram
from tests.cases.reader import FOLDER, files, read, write
from tests.cases.steps import run

CASES = [case for path in files() for case in read(path)[1]]


def is_named(config, path):
    """Whether ``--update-golden`` names the file."""
    named = {
        (config.invocation_params.dir / name).resolve() for name in config.option.update_golden
    }
    return path.resolve() in named


@pytest.mark.parametrize("case", CASES, ids=str)
def test_case(case, request):
    assert case.run, "say what to # run:"
    if case.error is not None:
        number, message = case.error
        with pytest.raises((DiffcError, KeyError), match=re.escape(message)) as caught:
            run(parse(case.text, table(), "case"), case.run)
        if getattr(caught.value, "location", None):
            assert caught.value.location == f"case:{number}"
        return
    graph = parse(case.text, table(), f"{case.file}:{case.line}")
    assert print_graph(graph) == strip(case.text), "write the input as it is printed"
    found, made = run(graph, case.run, verify=True)
    check(made, case.run)
    for value in case.values:
        check_value(value, made)
        if case.run.startswith("optimize"):
            check_value(value, graph)
    if is_named(request.config, case.file):
        return
    for text in case.has:
        assert text in found
    for text in case.lacks:
        assert text not in found
    if case.unchanged:
        assert found == print_graph(graph)
        assert made is graph
    elif case.expect is not None:
        assert found == case.expect, f"update with --update-golden {case.file}"
    assert case.unchanged or case.expect or case.has or case.lacks or case.values, (
        "expect something"
    )


def strip(text):
    """The text without comments."""
    lines = [re.sub(r"\s*#.*", "", line) for line in text.splitlines()]
    return "\n".join(line for line in lines if line) + "\n"


def check_value(text, graph):
    """``@f([1, 2], 3) == [1, 4]``: by the interpreter, and by compiled code."""
    call, _, answer = text.partition("==")
    name, given = re.fullmatch(r"@(\w+)\((.*)\)\s*", call.strip()).groups()
    assert name == graph.name or graph.name.startswith(f"{name}_"), f"the graph is @{graph.name}"
    arguments = literal(f"({given},)") if given else ()
    expected = literal(answer)
    expected = expected if isinstance(expected, tuple) else (expected,)
    arrays = [
        np.array(argument, value.aval.numpy)
        for argument, value in zip(arguments, graph.inputs, strict=True)
    ]
    for results in (evaluate(graph, arrays), GraphProgram(graph, graph.name)(arrays)):
        for result, wanted in zip(results, expected, strict=True):
            wide = np.array(wanted, np.float64)
            assert result.shape == wide.shape
            np.testing.assert_allclose(result.astype(np.float64), wide, rtol=1e-6)


def literal(text):
    """A Python literal, with nan and inf."""
    named = {"nan": float("nan"), "inf": float("inf")}
    tree = ast.parse(text.strip(), mode="eval")
    return eval(compile(tree, "value", "eval"), {"__builtins__": {}}, named)


def test_named_files_are_rewritten(request):
    for path in files():
        if not is_named(request.config, path):
            continue
        heading, cases = read(path)
        for case in cases:
            if case.error is not None:
                continue
            graph = parse(case.text, table(), str(path))
            found, _ = run(graph, case.run)
            if case.unchanged or case.expect is not None:
                case.unchanged = found == print_graph(graph)
                case.expect = None if case.unchanged else found
        write(path, heading, cases)


def test_names_are_unique_within_a_file():
    for path in files():
        names = [case.name for case in read(path)[1]]
        assert len(names) == len(set(names)), path


def test_files_read_back_as_they_are_written(tmp_path):
    for path in files():
        heading, cases = read(path)
        copy = tmp_path / path.name
        write(copy, heading, cases)
        assert copy.read_text(encoding="utf-8") == path.read_text(encoding="utf-8"), path


def test_cases_are_short():
    """Lines that only close a region don't count."""
    lines = {str(case): [x for x in case.text.splitlines() if x.strip() != "}"] for case in CASES}
    assert [name for name, text in lines.items() if len(text) > 15] == []


REGIONAL = [op.name for op in every_op() if op.is_regional]
#: not linear, so there is nothing to turn around
NO_TRANSPOSE = ("custom",)


@pytest.mark.parametrize("file", ["jvp", "linearize", "transpose", "vjp", "batch", "taylor"])
def test_every_transform_of_every_control_flow(file):
    _, cases = read(FOLDER / "transforms" / f"{file}.txt")
    shown = {name for name in REGIONAL for case in cases if f" = {name}(" in case.text}
    missing = set(REGIONAL) - shown
    assert missing == (set(NO_TRANSPOSE) if file == "transpose" else set())
