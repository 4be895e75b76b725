"""NumPy's namespace, traced where a trace is active: ``import diffc.numpy as np``.

Outside any trace every name is NumPy's own meaning on ndarrays. Code that imports NumPy itself is
traced too (see ``diffc.trace``); this module is for code that prefers to say so. ``TRACED`` lists
the functions that can be traced.
"""

from __future__ import annotations

from typing import Any

import numpy as _numpy

import diffc.trace  # noqa: F401  # fills the tables
from diffc.trace.namespace import stand_in as _stand_in
from diffc.trace.namespace import traced_names as _traced_names

TRACED: tuple[str, ...] = _traced_names()


def __getattr__(name: str) -> Any:
    found = getattr(_numpy, name)
    return _stand_in(found) or found


def __dir__() -> list[str]:
    return sorted({*dir(_numpy), "TRACED"})
