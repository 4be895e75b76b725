"""The command ``diffc``: subcommands, errors, exit statuses.

Exit status 0: all is well; 1: a check failed; 2: the command, the file or the function is wrong.
Errors are one message on stderr, never a traceback unless ``--traceback`` asks for it.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from diffc.cli import demo, dump, inspect, verify, version
from diffc.cli.load import describe, user_line
from diffc.errors import DiffcError, UsageError

USAGE = 2


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        """Prints the error and leaves with the status of a wrong command."""
        self.exit(USAGE, f"diffc: error: {message} (see {self.prog} --help)\n")


def parser() -> argparse.ArgumentParser:
    """The command line."""
    top = Parser(prog="diffc", description="Compiles NumPy code, and its derivatives.")
    top.add_argument("--traceback", action="store_true", help="show the traceback of an error")
    commands = top.add_subparsers(metavar="COMMAND", required=True)
    for command in (demo, dump, inspect, verify, version):
        command.add(commands)
    return top


def _text(error: DiffcError) -> str:
    """The error's message; in one line where it is about the command itself."""
    if error.location is None and isinstance(error, UsageError):
        return error.message + (f" ({error.hint})" if error.hint else "")
    return str(error)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit status."""
    try:
        options = parser().parse_args(argv)
    except SystemExit as leave:
        return leave.code if isinstance(leave.code, int) else 0
    try:
        status: int = options.run(options)
        sys.stdout.flush()
        return status
    except BrokenPipeError:  # `diffc dump ... | head` has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except DiffcError as error:
        if options.traceback:
            raise
        print(f"diffc: error: {_text(error)}", file=sys.stderr)
        return USAGE
    except Exception as error:
        if options.traceback:
            raise
        where = user_line(error)
        place = f"\n  at {where}" if where else ""
        print(f"diffc: error: {describe(error)}{place}", file=sys.stderr)
        return USAGE


if __name__ == "__main__":
    sys.exit(main())
