"""Make `.venv-bench`: an environment of its own with diffc and the peers.

Runs under any Python 3.11 or newer and needs only the standard library. An environment that holds
what `requirements.txt` asks for is left as it is (a stamp file says which text was installed);
diffc is installed in editable form as soon as the project has a `pyproject.toml`.
"""

from __future__ import annotations

import subprocess
import sys
import venv
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
ENVIRONMENT = ROOT / ".venv-bench"
REQUIREMENTS = HERE / "requirements.txt"


def python() -> Path:
    """Return the interpreter of the benchmark environment."""
    scripts = "Scripts" if sys.platform == "win32" else "bin"
    return ENVIRONMENT / scripts / ("python.exe" if sys.platform == "win32" else "python")


def install(*arguments: str) -> None:
    """Run pip in the benchmark environment; raise if it fails."""
    subprocess.run([str(python()), "-m", "pip", "install", "--quiet", *arguments], check=True)


def is_current(stamp: Path, text: str) -> bool:
    """Say whether a stamp file holds this text."""
    return stamp.is_file() and stamp.read_text() == text


def main() -> None:
    """Create the environment if missing, then install what is missing in it."""
    if not python().is_file():
        venv.create(ENVIRONMENT, with_pip=True)
    peers, project = ENVIRONMENT / "peers.stamp", ENVIRONMENT / "project.stamp"
    wanted = REQUIREMENTS.read_text()
    if not is_current(peers, wanted):
        install("-r", str(REQUIREMENTS))
        peers.write_text(wanted)
    settings = ROOT / "pyproject.toml"
    if settings.is_file() and not is_current(project, settings.read_text()):
        install("-e", str(ROOT))
        project.write_text(settings.read_text())
    print(python())


if __name__ == "__main__":
    main()
