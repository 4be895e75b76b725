"""Settings for the whole test-suite."""

import pytest
from hypothesis import settings

from diffc.runtime import build

# Drawn tests find the same examples on every machine; `make deep` draws new ones, and more.
settings.register_profile("every-day", derandomize=True, deadline=None, max_examples=60)
settings.register_profile("deep", deadline=None, max_examples=2000)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--deep", action="store_true", help="also run tests/deep, and draw more")
    parser.addoption(
        "--update-golden",
        action="append",
        default=[],
        metavar="FILE",
        help="rewrite this case file with today's output (repeatable)",
    )


def pytest_configure(config: pytest.Config) -> None:
    settings.load_profile("deep" if config.getoption("--deep") else "every-day")


def pytest_ignore_collect(collection_path, config: pytest.Config) -> bool | None:
    """Leaves out tests/deep unless asked for: it takes longer than CI has."""
    is_deep = collection_path == config.rootpath / "tests" / "deep"
    return True if is_deep and not config.getoption("--deep") else None


@pytest.fixture(autouse=True, scope="session")
def cache_directory(tmp_path_factory):
    """A cache of objects of the test run's own: the user's is left alone."""
    directory = tmp_path_factory.mktemp("objects")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DIFFC_CACHE_DIR", str(directory))
        patch.delenv("DIFFC_CACHE", raising=False)
        build.object_cache.cache_clear()
        yield directory
        build.object_cache.cache_clear()
