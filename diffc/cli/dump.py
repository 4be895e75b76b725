"""``diffc dump``: the text of one stage of a function's compilation."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from diffc.api import jit
from diffc.cli.args_text import parse_args
from diffc.cli.load import gradient_of, load, parse_argnums
from diffc.errors import UsageError
from diffc.jitted import Jitted
from diffc.optimize import compact, rule_names
from diffc.pipeline import STAGES, Compilation


def run(options: Any) -> int:
    """The subcommand; see ``add``."""
    text = dump(
        options.target,
        options.args,
        stage=options.stage,
        argnums=parse_argnums(options.grad),
        rules=options.only,
    )
    if options.output is None:
        print(text, end="")
        return 0
    try:
        Path(options.output).write_text(text, encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{options.output} can't be written: {error.strerror}") from None
    return 0


def add(commands: Any) -> None:
    """Adds the subcommand to the command line."""
    parser = commands.add_parser(
        "dump",
        help="print what a stage of the compiler made of a function",
        description="Prints the text of one stage of the compilation of FILE.py:FUNCTION.",
    )
    parser.add_argument("target", metavar="FILE.py:FUNCTION", help="the function")
    parser.add_argument(
        "--args", required=True, metavar="TEXT", help='arguments: "f32[64,10] {w: f32[3]} float"'
    )
    parser.add_argument("--grad", metavar="0,1", help="its value and gradient by these arguments")
    parser.add_argument("--stage", required=True, metavar="NAME", help=" ".join(STAGES))
    parser.add_argument(
        "--only", action="append", metavar="RULE", help="use this rewrite rule only (repeatable)"
    )
    parser.add_argument("-o", "--output", metavar="FILE", help="write to a file")
    parser.set_defaults(run=run)


def dump(
    target: str,
    args_text: str,
    *,
    stage: str,
    argnums: int | tuple[int, ...] | None = None,
    rules: list[str] | None = None,
) -> str:
    """The text of a stage.

    Raises:
        DiffcError: the file, function, arguments, stage or rule is wrong, or it can't be traced.
    """
    if stage not in STAGES:
        raise UsageError(f"no stage is named {stage!r}", hint=f"stages: {', '.join(STAGES)}")
    for name in rules or ():
        if name not in rule_names():
            raise UsageError(
                f"no rewrite rule is named {name!r}", hint=f"rules: {', '.join(rule_names())}"
            )
    args = parse_args(args_text)
    function = gradient_of(load(target), argnums)
    jitted = function if isinstance(function, Jitted) else jit(function)
    compilation = jitted.stages(*args, until=stage, rules=rules)
    text: str = compilation.stage(stage).text
    text = text if text.endswith("\n") else text + "\n"
    return text + fired_text(compilation, rules) if stage == "optimize" else text


def fired_text(compilation: Compilation, rules: list[str] | None) -> str:
    """Comment lines that say which rules fired, before the transform and after it."""
    before, transformed = (compilation.stage(name).value for name in ("outline", "transform"))
    lines = []
    if transformed is not before:
        for name, count in fired_rules(before, rules).items():
            lines.append(f"# fired before the transform: {name} x{count}\n")
    for name, count in fired_rules(transformed, rules).items():
        lines.append(f"# fired: {name} x{count}\n")
    return "".join(lines)


def fired_rules(graph: Any, rules: list[str] | None) -> Counter[str]:
    """How often each rule is applied to a graph; to a region once, however often it is used."""
    fired: Counter[str] = Counter()
    compact(graph, only=rules, fired=fired)
    return fired
