"""Golden messages: what users read when they misuse something, to the letter.

A file is a heading and cases::

    # case: NAME
    CODE
    # error:
    TYPE: MESSAGE

The code is run as ``user.py``, which has imported numpy as np and diffc. A message has the line of
the mistake, so line numbers are those within the code.
"""

import linecache
import re
from pathlib import Path

import numpy as np
import pytest

import diffc
from diffc.errors import DiffcError
from tests.cases.test_cases import is_named

FOLDER = Path(__file__).parent
_CASE = re.compile(r"# case: (\w+)\n(.*?)\n# error:\n(.*?)(?=\n\n# case: |\n\Z)", re.DOTALL)


def read(path):
    """The heading, and code and message by name."""
    text = path.read_text(encoding="utf-8")
    heading = text.partition("\n\n# case: ")[0]
    return heading, {name: (code, error) for name, code, error in _CASE.findall(text)}


FILES = sorted(FOLDER.glob("*.txt"))
CASES = [
    pytest.param(code, error, id=f"{path.stem}:{name}")
    for path in FILES
    for name, (code, error) in read(path)[1].items()
]


def message(code, folder):
    """The type and text of the error that the code ends with."""
    user = folder / "user.py"
    user.write_text(code, encoding="utf-8")
    linecache.checkcache(str(user))
    names = {"np": np, "diffc": diffc, "__name__": "user", "__file__": str(user)}
    with pytest.raises(DiffcError) as caught:
        exec(compile(code, str(user), "exec"), names)
    found = f"{type(caught.value).__name__}: {caught.value}"
    return found.replace(f"{folder}/", "")


@pytest.mark.parametrize(("code", "error"), CASES)
def test_the_whole_message(code, error, tmp_path):
    found = message(code, tmp_path)
    assert found == error
    place = re.search(r"^  at user\.py:(\d+)$", found, re.MULTILINE)
    assert place, "it names no line of the user's"
    assert 0 < int(place[1]) <= len(code.splitlines())
    assert "Tracer" not in found and "<locals>" not in found, "it speaks of diffc's inside"


#: without `jit` these are no mistakes, or others
ONLY_COMPILED = ("python_", "converted_", "branch_writes_an_array_from_outside", "values_leave",
                 "body_writes_an_array_from_outside", "scan_of_a_traced_length", "traced_slots",
                 "branches_are_values")  # fmt: skip


@pytest.mark.parametrize(("code", "error"), [c for c in CASES if "@diffc.jit\n" in c.values[0]])
def test_the_same_outside_jit(code, error, request, tmp_path):
    name = request.node.callspec.id.partition(":")[2]
    if name.startswith(ONLY_COMPILED):
        pytest.skip("not the same outside jit")
    assert message(code.replace("@diffc.jit\n", "@(lambda f: f)\n"), tmp_path) == error


def test_named_files_are_rewritten(request, tmp_path):
    for path in FILES:
        if is_named(request.config, path):
            heading, cases = read(path)
            parts = [
                f"# case: {name}\n{code}\n# error:\n{message(code, tmp_path)}"
                for name, (code, _) in cases.items()
            ]
            path.write_text("\n\n".join([heading, *parts]) + "\n", encoding="utf-8")


def test_there_are_many():
    for path in FILES:
        text = path.read_text(encoding="utf-8")
        assert len(read(path)[1]) == text.count("# case: ") >= 10
