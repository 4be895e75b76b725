"""``diffc verify``: the table, the gradient as a formula, the exit status."""

import re

import pytest
import sympy


def rows(out):
    return {
        match[1]: match[2]
        for match in re.finditer(r"^(\S.*?)  +(proved|checked|failed)\b", out, re.MULTILINE)
    }


NUMBERS = {
    "value: compiled = interpreter": "checked",
    "value: compiled = NumPy": "checked",
    "gradient: compiled = interpreter": "checked",
    "gradient: optimized = transformed": "checked",
    "gradient: finite differences": "checked",
}
FORMULAS = {
    "value: optimized = traced, by SymPy": "proved",
    "gradient: transform = SymPy": "proved",
    "gradient: optimize = SymPy": "proved",
}


@pytest.mark.parametrize("text", ["float float", "f64[] f64[]", "f32[] f64[]"])
def test_a_formula_is_proved(cli, text):
    done = cli("verify", "code/m.py:y", "--args", text)
    assert (done.status, done.err) == (0, "")
    assert rows(done.out) == NUMBERS | FORMULAS
    gradient = dict(re.findall(r"^gradient by (\w+): (.*)$", done.out, re.MULTILINE))
    x2 = sympy.Symbol("x2")
    assert gradient["x1"] == "5"
    assert sympy.simplify(sympy.sympify(gradient["x2"]) - sympy.cos(x2 + sympy.pi)) == 0
    assert done.out.endswith("3 proved, 5 checked, 0 failed\n")


def test_by_one_argument(cli):
    done = cli("verify", "code/m.py:y", "--args", "float float", "--grad", "1")
    assert "gradient by x2: " in done.out
    assert "gradient by x1: " not in done.out


def test_a_naive_softmax_is_proved_after_its_rewrite(cli):
    done = cli("verify", "code/m.py:softmax", "--args", "f32[3]")
    assert rows(done.out) == NUMBERS | FORMULAS


def test_large_functions_are_checked_by_numbers(cli):
    text = "{w: f32[30,20], b: f32[20]} f32[8,30]"
    done = cli("verify", "code/m.py:dense", "--args", text, "--grad", "0")
    assert done.status == 0
    assert rows(done.out) == NUMBERS
    assert "8 directions" in done.out
    assert "note: not compared with SymPy: it has 860 scalar inputs, more than 12" in done.out


def test_jitted_functions_and_gradients(cli):
    assert rows(cli("verify", "code/m.py:jitted", "--args", "f64[2]").out) == NUMBERS | FORMULAS
    done = cli("verify", "code/m.py:slope", "--args", "f64[2]")
    assert rows(done.out) == {
        "value: compiled = interpreter": "checked",
        "value: optimized = traced, by SymPy": "proved",
    }
    assert "note: no gradient: it returns f64[2], not one float scalar" in done.out


def test_inputs_without_floats(cli):
    done = cli("verify", "code/m.py:Model.call", "--args", "i64[3]")
    assert done.status == 0
    assert set(rows(done.out).values()) == {"checked"}


def test_an_impossible_limit_fails(cli, files):
    (files / "hard.py").write_text(
        "import numpy as np\ndef f(x):\n    return np.sum(np.exp(x @ x.T) / 3)\n"
    )
    done = cli("verify", "hard.py:f", "--args", "f32[40,9]", "--rtol", "1e-18")
    assert done.status == 1
    assert "failed" in rows(done.out).values()


def test_no_finite_results_fail(cli, files):
    (files / "never.py").write_text(
        "import numpy as np\ndef f(x):\n    return np.sum(np.log(x) + np.log(-x))\n"
    )
    done = cli("verify", "never.py:f", "--args", "f64[2]")
    assert done.status == 1
    assert rows(done.out)["value: finite"] == "failed"


def test_inputs_are_drawn_where_results_are_finite(cli, files):
    (files / "logs.py").write_text("import numpy as np\ndef f(x):\n    return np.sum(np.log(x))\n")
    done = cli("verify", "logs.py:f", "--args", "f64[4]")
    assert done.status == 0
    assert "note: results were not finite at first; inputs are positive now" in done.out


def test_seeds_draw_other_inputs(cli):
    common = ("verify", "code/m.py:loss", "--args", "f64[3,4] f64[4,5]")
    assert cli(*common).out == cli(*common, "--seed", "0").out
    assert cli(*common).out != cli(*common, "--seed", "1").out


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (("y", "--args", "float float", "--grad", "2"), "there is no argument 2; there are 2"),
        (("y", "--args", "float float", "--rtol", "0"), "--rtol is 0.0; it must be above 0"),
        (("y", "--args", "float float", "--seed", "x"), "argument --seed: invalid int value"),
        (("nope", "--args", ""), "code/m.py has no 'nope'"),
        (("branches", "--args", "f32[]"), "the traced array"),
        (("slope", "--args", "f32[3]", "--grad", "0"), "grad needs a function of one float"),
        (("Model.call", "--args", "i64[]", "--grad", "0"), "a gradient by x is asked for"),
    ],
)
def test_what_is_wrong_is_said(cli, argv, message):
    done = cli("verify", f"code/m.py:{argv[0]}", *argv[1:])
    assert done.status == 2
    assert done.out == ""
    assert done.err.startswith(f"diffc: error: {message}")
