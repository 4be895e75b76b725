"""Pages whose Python blocks run, and whose text blocks are what these print.

The blocks of a page run in order in one namespace, in an empty folder. Directly after a block that
prints stands its output, as a ``text`` block. Output that depends on the machine stands in a block
of the kind ``text differs``: it is shown as it was once, and not compared.

In locations a page is the file, and its lines are those of the page.
"""

from __future__ import annotations

import contextlib
import io
import linecache
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"

BLOCK = re.compile(
    r"^```python\n(?P<code>.*?)^```\n"
    r"(?:\n?^```text(?P<differs> differs)?\n(?P<output>.*?)^```\n)?",
    re.MULTILINE | re.DOTALL,
)


def pages() -> list[Path]:
    """All pages that are written by hand, the README first."""
    found = sorted(path for path in DOCS.rglob("*.md") if path.parent != DOCS / "reference")
    return [ROOT / "README.md", *found]


def regenerated(page: Path) -> str:
    """The text of a page with its outputs as they are now.

    Raises:
        Exception: whatever a block raises, with a note that names the page.
    """
    text = page.read_text(encoding="utf-8")
    namespace: dict[str, object] = {"__name__": page.stem}
    parts, end = [], 0
    with _empty_folder():
        for block in BLOCK.finditer(text):
            parts.append(text[end : block.start()])
            line = "".join(parts).count("\n") + 1  # of the fence, in the page as it will be
            parts.append(_block(page, line, block, namespace))
            end = block.end()
    return "".join([*parts, text[end:]])


def _show_source(name: str, line: int, source: str) -> None:
    """Makes a block's source known, below that of the blocks before it in the page."""
    found = source.splitlines(keepends=True)
    before = linecache.cache.get(name, (0, None, [], name))[2]
    lines = [*before[:line], *found[min(len(before), line) :]]
    linecache.cache[name] = (len(lines), None, lines, name)


def _block(page: Path, line: int, block: re.Match[str], namespace: dict[str, object]) -> str:
    name = page.relative_to(ROOT).as_posix()
    printed = io.StringIO()
    try:
        source = "\n" * line + block["code"]
        code = compile(source, name, "exec")
        _show_source(name, line, source)
        with contextlib.redirect_stdout(printed):
            exec(code, namespace)
    except BaseException as error:
        error.add_note(f"in {name}, in the block at line {line}")
        raise
    output = printed.getvalue()
    source = f"```python\n{block['code']}```\n"
    if block["differs"]:
        return f"{source}\n```text differs\n{block['output']}```\n"
    if not output:
        return source
    # Trailing spaces don't survive editors.
    clean = "\n".join(line.rstrip() for line in output.rstrip("\n").split("\n"))
    return f"{source}\n```text\n{clean}\n```\n"


@contextlib.contextmanager
def _empty_folder() -> Iterator[None]:
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        try:
            yield
        finally:
            os.chdir(before)
