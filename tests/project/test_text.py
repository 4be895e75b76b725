"""What no file of the project may contain."""

import re
from pathlib import Path

import pytest

from tests.project.imports import ROOT, sources

_TEXT = {".py", ".md", ".toml", ".yaml", ".yml", ".txt", ".json", ".html", ""}
_FOLDERS = ("diffc", "tests", "benchmarks", "docs", "tools", "examples", ".ci")

# Written so that no pattern matches its own line here.
UNFINISHED = re.compile(r"\b(TODO|FIXME|XXX)(?!\|)\b")
MACHINE_PATH = re.compile(r"(?<![\w.])/(?:root|work|home|Users)/\w")
IGNORE = re.compile(r"#\s*(?:type:\s*ignore|noqa)(?:\[[\w, -]*\]|:\s*[A-Z]+\d+(?:,\s*[A-Z]+\d+)*)?")


def project_files() -> list[Path]:
    own = [path for path in ROOT.iterdir() if path.is_file() and path.name != ".git"]
    files = [path for path in own if path.suffix in _TEXT]
    for folder in _FOLDERS:
        files += [
            path
            for path in (ROOT / folder).rglob("*")
            if path.is_file() and path.suffix in _TEXT and "__pycache__" not in path.parts
        ]
    return sorted(files)


def hits(pattern: re.Pattern[str], paths: list[Path]) -> list[str]:
    return [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in paths
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
        if pattern.search(line)
    ]


def test_nothing_is_left_for_later():
    others = [path for path in sources("diffc", "tests", "benchmarks") if path != Path(__file__)]
    assert hits(UNFINISHED, others) == []


def test_no_path_of_a_machine():
    others = [path for path in project_files() if path != Path(__file__)]
    own = re.compile("|".join(re.escape(str(path)) for path in {ROOT, Path.home()}) + r"(?=/|\b)")
    assert hits(MACHINE_PATH, others) == []
    assert hits(own, others) == []


def has_reason(line: str, end: int) -> bool:
    """Whether something readable follows the ignore that ends at `end`."""
    return re.search(r"\w{2}", line[end:]) is not None


def test_an_ignore_carries_its_reason():
    bare = []
    for path in sources("diffc"):
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
            found = IGNORE.search(line)
            if found is not None and not has_reason(line, found.end()):
                bare.append(f"{path.relative_to(ROOT)}:{number}")
    assert bare == []


@pytest.mark.parametrize(
    ("pattern", "line", "matches"),
    [
        (UNFINISHED, "x = 1  # TODO: more", True),
        (UNFINISHED, "the methodology", False),
        (MACHINE_PATH, "open('/home/someone/x')", True),
        (MACHINE_PATH, "see docs/home/page", False),
        (IGNORE, "x = f()  # type: ignore[arg-type]", True),
        (IGNORE, "import a  # noqa: E402, F401", True),
        (IGNORE, "# ignore case", False),
    ],
)
def test_the_patterns(pattern, line, matches):
    assert (pattern.search(line) is not None) is matches


@pytest.mark.parametrize(
    ("line", "answer"),
    [
        ("f()  # type: ignore[arg-type]", False),
        ("f()  # type: ignore[arg-type]  # stubs lack it", True),
        ("import a  # noqa: E402", False),
        ("import a  # noqa: E402 after the path is set", True),
    ],
)
def test_a_reason_is_seen(line, answer):
    found = IGNORE.search(line)
    assert found is not None
    assert has_reason(line, found.end()) is answer
