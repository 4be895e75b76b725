"""Errors say what, where, and what to do, and are the built-in kinds that callers catch."""

import pickle

import pytest

from diffc import errors
from diffc.errors import (
    DiffcError,
    DtypeError,
    ExecutionError,
    InternalError,
    ShapeError,
    TraceError,
    UsageError,
)


@pytest.mark.parametrize(
    ("error", "builtin"),
    [
        (ShapeError, ValueError),
        (DtypeError, TypeError),
        (TraceError, TypeError),
        (UsageError, ValueError),
        (ExecutionError, RuntimeError),
        (InternalError, Exception),
    ],
)
def test_kinds(error, builtin):
    assert issubclass(error, DiffcError)
    assert issubclass(error, builtin)


def test_an_internal_error_is_not_the_users():
    assert not issubclass(InternalError, ValueError | TypeError | RuntimeError)


@pytest.mark.parametrize(
    ("location", "hint", "text"),
    [
        (None, None, "no"),
        ("m.py:7", None, "no\n  at m.py:7"),
        (None, "do", "no\n  hint: do"),
        ("m.py:7", "do\nso", "no\n  at m.py:7\n  hint: do\n        so"),
    ],
)
def test_layout(location, hint, text):
    assert str(DiffcError("no", location=location, hint=hint)) == text


def test_the_innermost_location_wins():
    error = ShapeError("no")
    assert error.at("inner.py:1") is error
    assert error.at("outer.py:2").location == "inner.py:1"


def test_an_unknown_location_can_still_be_filled_in():
    assert ShapeError("no").at(None).at("m.py:3").location == "m.py:3"


def test_pickling_keeps_all_parts():
    error = pickle.loads(pickle.dumps(TraceError("no", location="m.py:7", hint="do")))
    assert type(error) is TraceError
    assert str(error) == "no\n  at m.py:7\n  hint: do"


def test_all_classes_are_diffc_errors():
    classes = [item for item in vars(errors).values() if isinstance(item, type)]
    public = [cls for cls in classes if cls.__module__ == errors.__name__]
    assert len(public) >= 7
    assert all(issubclass(cls, DiffcError) != issubclass(cls, Warning) for cls in public)
