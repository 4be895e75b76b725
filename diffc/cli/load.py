"""``FILE.py:FUNCTION``: the function that a command is about, loaded by the file's path.

While the file runs, its own folder is on ``sys.path``, as for a script; it is not run as
``__main__``.
"""

from __future__ import annotations

import importlib.util
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from diffc.api import value_and_grad
from diffc.errors import UsageError
from diffc.jitted import Jitted

MODULE = "diffc_cli_file"


def load(target: str) -> Any:
    """The object that ``FILE.py:FUNCTION`` names; FUNCTION may be dotted.

    Raises:
        UsageError: there is no such file or function, or the file can't be run.
    """
    file, colon, name = target.rpartition(":")
    if not colon or not file or not name:
        raise UsageError(f"{target!r} names no function", hint="write FILE.py:FUNCTION")
    found: Any = load_file(Path(file))
    seen = file
    for part in name.split("."):
        if not hasattr(found, part):
            raise UsageError(f"{seen} has no {part!r}", hint=_near(found))
        found = getattr(found, part)
        seen += f":{part}" if seen == file else f".{part}"
    if not callable(found):
        raise UsageError(f"{seen} is a {type(found).__name__}, not a function")
    return found


def load_file(path: Path) -> Any:
    """The module of a Python file.

    Raises:
        UsageError: there is no such file, or running it fails.
    """
    if not path.is_file():
        raise UsageError(f"there is no file {path}")
    spec = importlib.util.spec_from_file_location(MODULE, path)
    if spec is None or spec.loader is None:
        raise UsageError(f"{path} is not a Python file", hint="write FILE.py:FUNCTION")
    module = importlib.util.module_from_spec(spec)
    folder = str(path.resolve().parent)
    sys.path.insert(0, folder)
    sys.modules[MODULE] = module
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        where = user_line(error)
        raise UsageError(f"{path} can't be run: {describe(error)}", location=where) from error
    finally:
        sys.path.remove(folder)
    return module


def gradient_of(function: Any, argnums: int | tuple[int, ...] | None) -> Callable[..., Any]:
    """What is compiled: the function, or its value and gradient."""
    if argnums is None:
        return function  # type: ignore[no-any-return]  # the caller knows that it is callable
    return value_and_grad(plain(function), argnums)


def plain(function: Any) -> Any:
    """What a jitted function compiles, so that it is differentiated without a call between."""
    is_bare = isinstance(function, Jitted) and not (
        function.static_argnums or function.static_argnames
    )
    return function.function if is_bare else function


def parse_argnums(text: str | None) -> int | tuple[int, ...] | None:
    """``"0"`` as 0, ``"0,1"`` as (0, 1).

    Raises:
        UsageError: anything else.
    """
    if text is None:
        return None
    try:
        numbers = tuple(int(part) for part in text.split(",") if part.strip())
    except ValueError:
        numbers = ()
    if not numbers:
        raise UsageError(f"--grad takes positions of arguments such as 0 or 0,1; found {text!r}")
    if len(set(numbers)) != len(numbers):
        raise UsageError(f"--grad names an argument twice: {text!r}")
    return numbers[0] if len(numbers) == 1 and "," not in text else numbers


def describe(error: BaseException) -> str:
    """The kind of an error and the first line of its message."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def user_line(error: BaseException) -> str | None:
    """The innermost line outside diffc and its libraries that an error went through."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}:{error.lineno}"
    ours = str(Path(__file__).resolve().parent.parent)
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        is_library = "site-packages" in frame.filename or frame.filename.startswith("<")
        if not frame.filename.startswith(ours) and not is_library:
            return f"{frame.filename}:{frame.lineno}"
    return None


def _near(found: Any) -> str | None:
    names = [
        name
        for name, value in vars(found).items()
        if callable(value) and not name.startswith("_") and not isinstance(value, type)
    ]
    return f"it has {', '.join(names[:12])}" if names else None


__all__ = ["describe", "gradient_of", "load", "parse_argnums", "plain", "user_line"]
