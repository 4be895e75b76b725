"""Case files: the text of an IR, what is run on it, and what must come out.

A file is a heading (comment lines) and cases::

    # case: NAME
    # run: optimize --only RULE[,RULE] | transform TRANSFORM INPUT[,INPUT] | plan | lower | emit
    func @f(...) ...
    # expect:
    TEXT

A TRANSFORM is ``jvp``, ``vjp``, ``linearize`` (gives two graphs, and comes last), ``transpose``,
``batch ... --size N``, ``taylor ... --order N`` or ``checkpoint ... --policy P``; its numbers are
compared with what it means (``meaning.py``). Several steps are joined by ``|``. Instead of
``# expect:`` there may be ``# unchanged``. At the end of a line of the input ``# error: TEXT`` says
that the run fails there with this message; lines ``# has: TEXT`` and ``# lacks: TEXT`` speak of
the output; ``# value: @f([1, 2]) == [1, 4]`` of the numbers, which the interpreter and compiled
code must both give (several results as a tuple).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

FOLDER = Path(__file__).parent
_DIRECTIVE = re.compile(r"# (run|expect|unchanged|has|lacks|value)\b:? ?(.*)")


@dataclass
class Case:
    """One case of a file."""

    file: Path
    line: int
    name: str
    run: str = ""
    text: str = ""
    expect: str | None = None
    unchanged: bool = False
    has: list[str] = field(default_factory=list)
    lacks: list[str] = field(default_factory=list)
    values: list[str] = field(default_factory=list)

    @property
    def error(self) -> tuple[int, str] | None:
        """The line (of the input's text) at which the run fails, and the message."""
        for number, line in enumerate(self.text.splitlines(), 1):
            if "# error: " in line:
                return number, line.partition("# error: ")[2].strip()
        return None

    def __str__(self) -> str:
        return f"{self.file.relative_to(FOLDER).with_suffix('')}:{self.name}"


def files() -> list[Path]:
    """All case files."""
    return sorted(FOLDER.rglob("*.txt"))


def read(path: Path) -> tuple[str, list[Case]]:
    """The heading and the cases of a file."""
    heading: list[str] = []
    cases: list[Case] = []
    part = "heading"
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if line.startswith("# case: "):
            cases.append(Case(path, number, line.removeprefix("# case: ").strip()))
            part = "text"
        elif part == "heading":
            heading.append(line)
        elif found := _DIRECTIVE.fullmatch(line):
            part = _direct(cases[-1], *found.groups(), part)
        elif part == "expect":
            cases[-1].expect = (cases[-1].expect or "") + line + "\n"
        else:
            cases[-1].text += line + "\n"
    for case in cases:
        case.text = case.text.strip("\n") + "\n"
        if case.expect is not None:
            case.expect = case.expect.strip("\n") + "\n"
    return "\n".join(heading).strip("\n"), cases


def _direct(case: Case, word: str, rest: str, part: str) -> str:
    if word == "run":
        case.run = rest.strip()
    elif word == "expect":
        case.expect = ""
        return "expect"
    elif word == "unchanged":
        case.unchanged = True
    elif word == "value":
        case.values.append(rest.strip())
    else:
        getattr(case, word).append(rest.strip())
    return "text" if part == "heading" else part


def write(path: Path, heading: str, cases: list[Case]) -> None:
    """Writes a file; ``read`` reads the same back."""
    parts = [heading] if heading else []
    parts += [_text(case) for case in cases]
    path.write_text("\n\n".join(parts) + "\n", encoding="utf-8")


def _text(case: Case) -> str:
    lines = [f"# case: {case.name}", f"# run: {case.run}", case.text.rstrip("\n")]
    lines += [f"# has: {text}" for text in case.has]
    lines += [f"# lacks: {text}" for text in case.lacks]
    lines += [f"# value: {text}" for text in case.values]
    if case.unchanged:
        lines.append("# unchanged")
    elif case.expect is not None:
        lines += ["# expect:", case.expect.rstrip("\n")]
    return "\n".join(lines)
