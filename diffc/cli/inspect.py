"""``diffc inspect``: what a function does at a point.

``--critical`` tells minima, maxima and saddles by the eigenvalues of the Hessian.
"""

from __future__ import annotations

import ast
from typing import Any

import numpy as np

from diffc.api import critical
from diffc.cli.load import load, plain
from diffc.errors import UsageError

HINT = 'write one Python literal for each argument: --at "[0.0, 1.0]" --at 2.5'


def run(options: Any) -> int:
    """The subcommand; see ``add``."""
    if not options.critical:
        raise UsageError("say what to look at: --critical")
    function = plain(load(options.target))
    args = [parse_value(text, k == options.by) for k, text in enumerate(options.at)]
    if not 0 <= options.by < len(args):
        raise UsageError(f"--by names argument {options.by}; --at gives {len(args)}")
    print(critical(function, *args, argnum=options.by, tol=options.tol))
    return 0


def add(commands: Any) -> None:
    """Adds the subcommand to the command line."""
    parser = commands.add_parser(
        "inspect",
        help="say what a function does at a point",
        description="Says what FILE.py:FUNCTION, which gives one number, does at a point.",
    )
    parser.add_argument("target", metavar="FILE.py:FUNCTION", help="the function")
    parser.add_argument(
        "--critical",
        action="store_true",
        help="gradient, eigenvalues and condition of the Hessian: a minimum, maximum or saddle?",
    )
    parser.add_argument(
        "--at",
        action="append",
        required=True,
        metavar="VALUE",
        help='an argument: a number, "[[1, 2], [3, 4]]", "{\'w\': [0, 0]}" (repeatable, in order)',
    )
    parser.add_argument(
        "--by", type=int, default=0, metavar="N", help="derivatives by this argument (from 0)"
    )
    parser.add_argument(
        "--tol", type=float, metavar="R", help="relative change that may zero the gradient"
    )
    parser.set_defaults(run=run)


def parse_value(text: str, is_float: bool) -> Any:
    """An argument from its text: lists are arrays, tuples and dicts are containers.

    Args:
        text: a Python literal.
        is_float: whether integers are taken for floats.

    Raises:
        UsageError: it is no literal of numbers.
    """
    try:
        return _value(ast.literal_eval(text), is_float)
    except (ValueError, TypeError, SyntaxError):
        problem = f"--at takes numbers and lists of numbers; found {text!r}"
        raise UsageError(problem, hint=HINT) from None


def _value(found: Any, is_float: bool) -> Any:
    if isinstance(found, dict):
        return {key: _value(value, is_float) for key, value in found.items()}
    if isinstance(found, tuple):
        return tuple(_value(value, is_float) for value in found)
    array = np.asarray(found)
    if array.dtype.kind not in "biuf":
        raise ValueError(found)
    if is_float or array.dtype.kind == "f":
        array = array.astype(np.float64)
    return array if isinstance(found, list) else array.item()
