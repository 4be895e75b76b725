"""The user's line: the innermost frame outside diffc and NumPy.

Walking the frames costs well under a microsecond; what is known of a code object, and the location
of one of its instructions, is remembered.
"""

from __future__ import annotations

import contextlib
import functools
import os
import sys
from types import CodeType, FrameType

import numpy as np

from diffc import version
from diffc.ir.graph import Location

_OURS = tuple(
    os.path.dirname(os.path.abspath(module.__file__ or "")) + os.sep for module in (version, np)
)
#: what only passes calls on, to cached properties and context managers
_BETWEEN = tuple(os.path.abspath(module.__file__ or "") for module in (functools, contextlib))
#: model code that is shipped with diffc and traced as if the user had written it.
_AS_USER = ("_model.py",)
_MANY = 1 << 16
# Code objects of two files may be equal, so the name of the file is part of the key.
_IS_OURS: dict[str, bool] = {}
_LOCATIONS: dict[tuple[str, CodeType, int], Location] = {}


def is_internal(code: CodeType) -> bool:
    """Whether the code belongs to diffc or NumPy, is generated, or stands between (functools)."""
    name = code.co_filename
    found = _IS_OURS.get(name)
    if found is None:
        found = name.startswith((*_OURS, "<frozen ")) or os.path.abspath(name) in _BETWEEN
        _IS_OURS[name] = found = found and not name.endswith(_AS_USER)
    return found


def here() -> Location | None:
    """Location of the user's innermost frame; None when there is none."""
    frame: FrameType | None = sys._getframe(1)
    known = _IS_OURS.get
    while frame is not None:
        code = frame.f_code
        if not (known(code.co_filename) or is_internal(code)):
            key = (code.co_filename, code, frame.f_lasti)
            found = _LOCATIONS.get(key)
            if found is None:
                if len(_LOCATIONS) > _MANY:
                    _LOCATIONS.clear()
                    _IS_OURS.clear()
                found = Location(code.co_filename, frame.f_lineno, code.co_qualname)
                _LOCATIONS[key] = found
            return found
        frame = frame.f_back
    return None


def line() -> str | None:
    """The user's line as ``file:line``, for errors."""
    found = here()
    return None if found is None else str(found)
