"""Threads share whatever can be shared, however little work it is: a fixture for tests."""

import importlib
from contextlib import contextmanager

import pytest

from diffc.runtime import pool, pool_code

#: the function of the same name hides the module
MODULE = importlib.import_module("diffc.codegen.tile.shares")

needs_pool = pytest.mark.skipif(bool(pool_code.unsupported()), reason="no pool on this system")


@pytest.fixture
def steady():
    """The pool deals out regions whether that pays or not."""
    pool.pool().set_steady(True)
    yield
    pool.pool().set_steady(False)


@pytest.fixture
def shared_anyway(monkeypatch, steady):
    """Every nest with two units is shared, in the smallest shares; the pool deals all of them out.

    Gives a function of the kind `with only_large(): ...`, within which nothing small is shared.
    """
    least, grain = MODULE.LEAST_CYCLES, MODULE.SHARE_CYCLES
    monkeypatch.setattr(MODULE, "LEAST_CYCLES", 0)
    monkeypatch.setattr(MODULE, "SHARE_CYCLES", 0)

    @contextmanager
    def only_large():
        with monkeypatch.context() as inner:
            inner.setattr(MODULE, "LEAST_CYCLES", least)
            inner.setattr(MODULE, "SHARE_CYCLES", grain)
            yield

    return only_large
