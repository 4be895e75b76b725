"""The examples run, and say what they promise."""

import runpy

import pytest

from tests.project.imports import ROOT


def run(name, capsys):
    runpy.run_path(str(ROOT / "examples" / f"{name}.py"), run_name="__main__")
    return capsys.readouterr().out


def test_xor(capsys):
    output = run("xor", capsys)
    answers = [abs(float(line.split("=")[1])) for line in output.splitlines() if "xor" in line]
    assert [round(answer, 2) for answer in answers] == [0, 1, 1, 0]


def test_lecture_net(capsys):
    output = run("lecture_net", capsys)
    assert "step   0  compiled 24635.893499  by hand 24635.893499" in output
    assert "step 100  compiled 2383.155575  by hand 2383.155575" in output


def test_gradients(capsys):
    output = run("gradients", capsys)
    assert "root, or 0      [0.25 0.  ]" in output
    assert "func @loss_grad(" in output


def test_digits(capsys):
    pytest.importorskip("sklearn")
    output = run("digits", capsys)
    assert float(output.split("accuracy")[-1].strip().rstrip("%")) >= 97.0
