"""The reference page of the command line: what its parsers say, and what commands print.

The examples run in an empty folder with the file that the page shows. Errors of checks depend on
the machine, so they are shown as dots.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import re
import shlex
import tempfile
from pathlib import Path

from diffc.cli.main import main, parser
from diffc.ir.aval import DTYPES

HEAD = """\
# The command line

Installing diffc installs the command `diffc`; `python -m diffc.cli` is the same.

Exit statuses: 0, all is well; 1, a check of `verify` failed; 2, the command, the file, the
arguments or the function is wrong. An error is one message on stderr that names what was found, the
line of your code and what to write instead; `diffc --traceback COMMAND ...` raises it.

## Functions

`FILE.py:FUNCTION` loads the file by its path (its folder is on `sys.path` meanwhile; it does not
run as `__main__`). FUNCTION may be dotted (`m.py:Model.loss`), and may be jitted or a gradient
already.

## Arguments

`--args` takes one item for each positional argument, separated by blanks:

| item | argument |
| --- | --- |
| `f32[64,10]` | an array of one of the dtypes {dtypes}; `f32[]` has no axes |
| `float`, `int`, `bool` | a Python scalar, which promotes weakly |
| `{w: f32[3], b: f32[]}` | a dict; keys are names, quoted texts or integers |
| `[f32[3], float]` | a list |
| `(f32[3], None)` | a tuple, and None |

The examples below are about this file, `m.py`:

```python
{file}```
"""

FILE = """\
import numpy as np


def y(x1, x2):
    return 5 * x1 + np.sin(x2 + np.pi)


def loss(w, x):
    return np.sum(np.tanh(x @ w)) / 8


def saddle(x):
    return x[0] ** 2 - x[1] ** 2
"""

DTYPE_NAMES = " ".join(f"`{name}`" for name in DTYPES)

EXAMPLES = {
    "dump": (
        'diffc dump m.py:loss --args "f32[10,7] f32[64,10]" --grad 0 --stage optimize',
        'diffc dump m.py:loss --args "f32[10,7] f32[64,10]" --stage plan',
        'diffc dump m.py:loss --args "f32[10,7] f32[64,9]" --stage trace',
    ),
    "verify": ('diffc verify m.py:y --args "float float"',),
    "inspect": ('diffc inspect m.py:saddle --critical --at "[0, 0]"',),
    "version": (),
    "demo": (),
}

NOTES = {
    "dump": """\
`--stage` names one of the stages of [the pipeline](stages.md). With `--grad` the function is
`diffc.value_and_grad` by these arguments. Below the text of `optimize` stand the
[rewrite rules](rules.md) that fired, also those that fired before the gradient was taken. Graphs
print in a form that parses back.
""",
    "verify": """\
Inputs are drawn: from the normal distribution, or, where results are not finite, positive ones or
such between 0 and 1, and then it says so. Each line is one check, with one of three verdicts:

- **proved**: SymPy shows it for all inputs (where functions with kinks are smooth). Floats that
  stand for 0.1 or pi are taken as these.
- **checked**: it held at the drawn inputs, to the error that is shown; formulas that SymPy does not
  decide are compared to 50 digits.
- **failed**: it did not.

Compiled values are compared with the function run in plain NumPy and with the reference
interpreter; gradients with the interpreter before and after the rewrites, and with central
differences in double precision. Functions of up to 12 scalar inputs are unfolded to SymPy and
differentiated there too.
""",
    "inspect": """\
The gradient counts as zero where a small change of the argument (`--tol`, relative to its size) can
make it zero. The condition is the largest eigenvalue of the Hessian by the least, by size: gradient
descent takes a number of steps in proportion to it. In Python it is `diffc.critical`.
""",
    "version": "",
    "demo": "",
}


def command_line_page(notice: str) -> str:
    """The page; ``notice`` says where it comes from."""
    parts = [notice, HEAD.replace("{file}", FILE).replace("{dtypes}", DTYPE_NAMES)]
    for name, command in commands().items():
        parts.append(f"## diffc {name}\n\n{command.description}\n")
        rows = [row(action) for action in command._actions if action.dest != "help"]
        if rows:
            parts.append("| argument | meaning |\n| --- | --- |\n" + "".join(rows))
        if NOTES[name]:
            parts.append(NOTES[name])
        parts += [f"```console\n$ {line}\n{output(line)}```\n" for line in EXAMPLES[name]]
    return "\n".join(parts)


def commands() -> dict[str, argparse.ArgumentParser]:
    """The subcommands' parsers by name."""
    for action in parser()._actions:
        if isinstance(action, argparse._SubParsersAction):
            return {name: action.choices[name] for name in EXAMPLES} | dict(action.choices)
    raise AssertionError("the command line has no subcommands")


def row(action: argparse.Action) -> str:
    """A line of the table: how an argument is written, and its help."""
    metavar = "" if action.metavar is None else str(action.metavar)
    names = " ".join(action.option_strings)
    shown = f"{', '.join(action.option_strings)} {metavar}".strip() if names else metavar
    default = "" if action.default in (None, 0) else str(action.default)
    meaning = (action.help or "").replace("%(default)s", default).replace("|", "\\|")
    return f"| `{shown}` | {meaning} |\n"


def output(line: str) -> str:
    """What a command prints, errors included."""
    printed = io.StringIO()
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        try:
            Path("m.py").write_text(FILE, encoding="utf-8")
            with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
                main(shlex.split(line)[1:])
        finally:
            os.chdir(before)
        text = printed.getvalue().replace(str(Path(folder).resolve()) + os.sep, "")
    return re.sub(r"(checked  )\d\.\de[-+]\d\d", r"\1   …   ", text)
