"""The installed package: its markers, its version, and how little an import costs."""

import re
import subprocess
import sys
import tomllib

import diffc
from tests.project.imports import PACKAGE, ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def test_types_are_shipped():
    assert (PACKAGE / "py.typed").is_file()


def test_version_is_written_once():
    assert diffc.__version__ == PROJECT["version"]


def test_changelog_knows_the_version():
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.search(rf"^## {re.escape(PROJECT['version'])}\b", changelog, re.MULTILINE)


def test_needs_only_three_libraries():
    names = {re.split(r"[<>=\[ ]", need)[0] for need in PROJECT["dependencies"]}
    assert names == {"numpy", "llvmlite", "sympy"}


def test_import_loads_no_heavy_library():
    heavy = ["sympy", "mpmath", "llvmlite", "scipy", "sklearn", "matplotlib", "rich"]
    code = f"import diffc, sys; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_licence_is_whole():
    text = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert "Apache License" in text
    assert "END OF TERMS AND CONDITIONS" in text
