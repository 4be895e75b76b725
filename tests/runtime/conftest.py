"""The runtime's tests leave the user's object cache alone."""

import pytest

from diffc.runtime import build


@pytest.fixture(autouse=True, scope="session")
def cache_directory(tmp_path_factory):
    """A cache directory of the test run."""
    directory = tmp_path_factory.mktemp("objects")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DIFFC_CACHE_DIR", str(directory))
        patch.delenv("DIFFC_CACHE", raising=False)
        build.object_cache.cache_clear()
        yield directory
        build.object_cache.cache_clear()


@pytest.fixture(autouse=True)
def no_guard(monkeypatch):
    monkeypatch.delenv("DIFFC_GUARD", raising=False)
