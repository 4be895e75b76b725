"""The runtime's tests decide themselves about guard mode."""

import pytest


@pytest.fixture(autouse=True)
def no_guard(monkeypatch):
    monkeypatch.delenv("DIFFC_GUARD", raising=False)
