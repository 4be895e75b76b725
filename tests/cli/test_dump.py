"""``diffc dump``: every stage of a function from a file, and one clear line for what is wrong."""

import os
import subprocess
import sys

import pytest

import diffc.ops
from diffc.ir.text import parse
from diffc.pipeline import STAGES
from tests.cli.conftest import FUNCTIONS
from tests.project.imports import ROOT

SHAPES = "f32[6,10] f32[10,7]"

MARKS = {
    "trace": "func @loss(x: f32[6,10], w: f32[10,7]) -> (f32[]) {",
    "outline": "func @loss(x: f32[6,10], w: f32[10,7]) -> (f32[]) {",
    "transform": "func @loss_grad(x: f32[6,10], w: f32[10,7]) -> (f32[], f32[6,10], f32[10,7]) {",
    "optimize": "# fired: mul_one x1",
    "plan": "program @loss_grad(",
    "lower": "contract(k0 in 10: x[i0, k0], w[k0, i1])",
    "tile": "kernel @k0",
    "allocate": "memory @loss_grad: peak ",
    "emit": "define i64 @diffc_loss(",
    "asm": "diffc_loss:",
}


@pytest.mark.parametrize("stage", STAGES)
def test_every_stage_is_printed(cli, stage):
    done = cli("dump", "code/m.py:loss", "--args", SHAPES, "--grad", "0,1", "--stage", stage)
    assert (done.status, done.err) == (0, "")
    assert MARKS[stage] in done.out
    assert done.out.endswith("\n")


def test_without_grad_it_is_the_function_itself(cli):
    done = cli("dump", "code/m.py:loss", "--args", SHAPES, "--stage", "transform")
    graph = parse(done.out, diffc.ops.table())
    assert [str(aval) for aval in graph.output_avals] == ["f32[]"]


def test_text_parses_back(cli):
    done = cli("dump", "code/m.py:dense", "--args", "{w: f32[3,2], b: f32[2]} f32[8,3]", "--stage",
               "optimize", "--grad", "0")  # fmt: skip
    graph = parse(done.out, diffc.ops.table())
    assert [value.name for value in graph.inputs] == ["p_b", "p_w", "x"]


def test_locations_are_the_users(cli):
    done = cli("dump", "code/m.py:y", "--args", "float f64[]", "--stage", "trace")
    assert "code/m.py:8" in done.out


def test_choices_of_a_batch_are_noted(cli):
    (line,) = (k for k, code in enumerate(FUNCTIONS.splitlines(), 1) if "vmap" in code)
    for stage in ("trace", "outline", "transform", "optimize"):
        done = cli("dump", "code/m.py:batched", "--args", "bool[4] f32[4]", "--stage", stage)
        assert (done.status, done.err) == (0, "")
        assert f"code/m.py:{line}: all 2 branches of this choice are computed" in done.out
        assert parse(done.out, diffc.ops.table()) is not None


def test_only_one_rule(cli):
    common = ("dump", "code/m.py:softmax", "--args", "f32[3]", "--stage", "optimize")
    assert "# fired: softmax x1" in cli(*common).out
    assert " max(" in cli(*common).out
    only = cli(*common, "--only", "mul_one").out
    assert " max(" not in only
    assert "fired" not in only
    both = cli(*common, "--only", "mul_one", "--only", "softmax").out
    assert "# fired: softmax x1" in both


def test_rules_before_the_transform_are_said_to_be(cli):
    done = cli(
        "dump", "code/m.py:softmax", "--args", "f32[3]", "--stage", "optimize", "--grad", "0"
    )
    assert "# fired before the transform: softmax x1" in done.out


@pytest.mark.parametrize(
    ("name", "text", "outputs"),
    [
        ("jitted", "f32[3]", ["f32[]"]),
        ("slope", "f32[3]", ["f32[3]"]),
        ("Model.call", "i64[3]", ["i64[3]"]),
        ("y", "float float", ["f64[]"]),
    ],
)
def test_functions_of_all_kinds(cli, name, text, outputs):
    done = cli("dump", f"code/m.py:{name}", "--args", text, "--stage", "optimize")
    graph = parse(done.out, diffc.ops.table())
    assert [str(aval) for aval in graph.output_avals] == outputs


def test_gradient_of_a_jitted_function_has_no_call(cli):
    done = cli("dump", "code/m.py:jitted", "--args", "f32[3]", "--grad", "0", "--stage", "trace")
    assert "call(" not in done.out


def test_output_goes_to_a_file(cli, files):
    done = cli("dump", "code/m.py:loss", "--args", SHAPES, "--stage", "trace", "-o", "out.txt")
    assert (done.status, done.out) == (0, "")
    assert (files / "out.txt").read_text().startswith("func @loss(")
    done = cli("dump", "code/m.py:loss", "--args", SHAPES, "--stage", "trace", "-o", "no/out.txt")
    assert done.status == 2
    assert done.err == "diffc: error: no/out.txt can't be written: No such file or directory\n"


TRACE = ("--args", "f32[3]", "--stage", "trace")


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (("dump", "code/none.py:f", *TRACE), "there is no file code/none.py"),
        (("dump", "code/m.py", *TRACE), "'code/m.py' names no function (write FILE.py:FUNCTION)"),
        (("dump", "code/m.py:", *TRACE), "'code/m.py:' names no function"),
        (("dump", "code/m.py:nope", *TRACE), "code/m.py has no 'nope' (it has y, loss, dense"),
        (("dump", "code/m.py:Model.nope", *TRACE), "code/m.py:Model has no 'nope' (it has call)"),
        (("dump", "code/m.py:number", *TRACE), "code/m.py:number is a int, not a function"),
        (("dump", "code/m.py:y", "--args", "f32[x]", "--stage", "trace"), "arguments 'f32[x]'"),
        (("dump", "code/m.py:y", "--args", "", "--stage", "opt"), "no stage is named 'opt' ("),
        (("dump", "code/m.py:y", *TRACE, "--only", "zz"), "no rewrite rule is named 'zz' (rules"),
        (("dump", "code/m.py:y", *TRACE, "--grad", "x"), "--grad takes positions"),
        (("dump", "code/m.py:y", *TRACE, "--grad", "0,0"), "--grad names an argument twice"),
        (("dump", "code/m.py:y", *TRACE), "TypeError: y() missing 1 required positional argument"),
        (("dump", "code/m.py:y"), "the following arguments are required: --args, --stage"),
        ((), "the following arguments are required: COMMAND"),
        (("what",), "argument COMMAND: invalid choice: 'what'"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_in_one_line(cli, argv, message):
    done = cli(*argv)
    assert done.status == 2
    assert done.out == ""
    assert done.err.startswith(f"diffc: error: {message}")
    assert done.err.count("\n") == 1


@pytest.mark.parametrize(
    ("target", "text", "message", "line"),
    [
        ("branches", "f32[]", "no value yet, but the code asks for a truth value", "if x > 0:"),
        ("loss", "f32[3] f32[4]", "np.matmul: f32[3] and f32[4] do not fit", "x @ w))"),
        ("buggy", "f32[3]", "KeyError: 'key'", '{}["key"]'),
    ],
)
def test_errors_of_the_function_name_its_line(cli, target, text, message, line):
    done = cli("dump", f"code/m.py:{target}", "--args", text, "--stage", "trace")
    assert done.status == 2
    assert done.err.startswith("diffc: error: ")
    assert message in done.err
    (number,) = (k for k, code in enumerate(FUNCTIONS.splitlines(), 1) if code.endswith(line))
    assert f"m.py:{number}\n" in done.err
    assert "Traceback" not in done.err


def test_traceback_on_request(cli):
    with pytest.raises(KeyError):
        cli("--traceback", "dump", "code/m.py:buggy", "--args", "f32[3]", "--stage", "trace")


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("x = 1 +\n", "SyntaxError: invalid syntax"),
        ("\nraise ValueError('no')\n", "ValueError: no"),
        ("import sys\nsys.exit(3)\n", "SystemExit: 3"),
        ("import missing_module\n", "ModuleNotFoundError: No module named 'missing_module'"),
    ],
)
def test_files_that_do_not_run(cli, files, code, message):
    (files / "broken.py").write_text(code)
    before = list(sys.path)
    done = cli("dump", "broken.py:f", "--args", "", "--stage", "trace")
    assert done.status == 2
    assert done.err.startswith(f"diffc: error: broken.py can't be run: {message}")
    assert "broken.py:" in done.err.splitlines()[1]
    assert sys.path == before


ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT)}


def test_the_command_as_a_process(files):
    command = [sys.executable, "-m", "diffc.cli", "dump", "code/m.py:loss"]
    command += ["--args", SHAPES, "--stage", "optimize"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=ENVIRONMENT)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("func @loss(")


def test_a_reader_that_has_enough(files):
    command = f"{sys.executable} -m diffc.cli dump code/m.py:loss --args '{SHAPES}' --stage asm"
    done = subprocess.run(
        f"{command} | head -1",
        shell=True,
        capture_output=True,
        text=True,
        check=False,
        env=ENVIRONMENT,
    )
    assert done.stderr == ""
