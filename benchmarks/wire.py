"""Messages between the driver and a worker: pickles over the worker's standard pipes.

Both ends are this project's own processes. A worker keeps its standard output to itself: what the
libraries print goes to standard error, so that it cannot get between two messages.
"""

from __future__ import annotations

import os
import pickle
import sys
from typing import Any, BinaryIO


class Wire:
    """Two streams that carry pickled objects, one at a time."""

    def __init__(self, source: BinaryIO, sink: BinaryIO) -> None:
        self._source, self._sink = source, sink

    def send(self, message: Any) -> None:
        """Write one object."""
        pickle.dump(message, self._sink, protocol=5)
        self._sink.flush()

    def receive(self) -> Any:
        """Read one object; EOFError when the other end is gone."""
        return pickle.load(self._source)


def of_worker() -> Wire:
    """Take over this process's standard streams; later prints go to standard error."""
    source = os.fdopen(os.dup(0), "rb")
    sink = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    return Wire(source, sink)
