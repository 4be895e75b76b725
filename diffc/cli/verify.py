"""``diffc verify``: holds a function's compiled value and gradient against everything else known.

What is compared with what is the business of ``diffc.symbolic.verify``; this prints it as a table.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from diffc.cli.args_text import parse_args
from diffc.cli.load import load, parse_argnums, plain
from diffc.errors import UsageError

if TYPE_CHECKING:
    from diffc.symbolic.verify import Report

FAILED = 1


def run(options: Any) -> int:
    """The subcommand; see ``add``."""
    from diffc.symbolic.verify import verify  # SymPy takes a third of a second to import

    if options.rtol is not None and not options.rtol > 0:
        raise UsageError(f"--rtol is {options.rtol}; it must be above 0")
    report = verify(
        plain(load(options.target)),
        parse_args(options.args),
        argnums=parse_argnums(options.grad),
        seed=options.seed,
        rtol=options.rtol,
    )
    print(text(report), end="")
    return 0 if report.is_good else FAILED


def add(commands: Any) -> None:
    """Adds the subcommand to the command line."""
    parser = commands.add_parser(
        "verify",
        help="prove or check a function's value and gradient",
        description="Compares the compiled value and gradient of FILE.py:FUNCTION with NumPy, the "
        "reference interpreter, finite differences and, for small functions, SymPy.",
    )
    parser.add_argument("target", metavar="FILE.py:FUNCTION", help="the function")
    parser.add_argument(
        "--args", required=True, metavar="TEXT", help='arguments: "f32[64,10] {w: f32[3]} float"'
    )
    parser.add_argument(
        "--grad", metavar="0,1", help="by these arguments (default: all that hold floats only)"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="draws other inputs")
    parser.add_argument(
        "--rtol", type=float, metavar="R", help="limit of relative errors against the interpreter"
    )
    parser.set_defaults(run=run)


def text(report: Report) -> str:
    """The table of checks, the notes, the gradient as formulas and a last line."""
    rows = [("check", "verdict", "error", "detail")]
    for check in report.checks:
        error = "" if check.error is None else f"{check.error:.1e}"
        rows.append((check.name, check.verdict, error, check.detail))
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    lines = [
        "  ".join([*(cell.ljust(w) for cell, w in zip(row, widths, strict=False)), row[3]]).rstrip()
        for row in rows
    ]
    lines += [f"note: {note}" for note in report.notes]
    lines += [f"gradient by {name}: {formula}" for name, formula in report.gradient]
    counts = [
        f"{sum(check.verdict == verdict for check in report.checks)} {verdict}"
        for verdict in ("proved", "checked", "failed")
    ]
    return "\n".join([*lines, ", ".join(counts)]) + "\n"
