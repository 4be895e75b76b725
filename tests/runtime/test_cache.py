import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from diffc.runtime.cache import SCRATCH, SUFFIX, ObjectCache, default_directory

KEY = "ab" * 32


def files(directory):
    return sorted(path.name for path in directory.iterdir())


def test_round_trip_through_the_disk(tmp_path):
    cache = ObjectCache(tmp_path / "new" / "directory")
    assert cache.get(KEY) is None
    cache.put(KEY, b"content")
    again = ObjectCache(tmp_path / "new" / "directory")
    assert again.get(KEY) == b"content"
    assert (again.hits, again.misses) == (1, 0)
    assert files(tmp_path / "new" / "directory") == [KEY + SUFFIX]


def test_made_once(tmp_path):
    cache = ObjectCache(tmp_path)
    made = []

    def make():
        made.append(1)
        return b"x"

    assert [cache.get_or_make(KEY, make) for _ in range(3)] == [b"x"] * 3
    assert ObjectCache(tmp_path).get_or_make(KEY, make) == b"x"
    assert len(made) == 1


@pytest.mark.parametrize(
    "damage",
    [
        lambda raw: raw[:-1],
        lambda raw: raw[:10],
        lambda raw: b"",
        lambda raw: raw[:-1] + bytes([raw[-1] ^ 1]),
        lambda raw: b"another format\n" + raw,
        lambda raw: raw + b"more",
    ],
    ids=["truncated", "header", "empty", "bit", "magic", "longer"],
)
def test_damaged_files_are_absent_and_written_anew(tmp_path, damage):
    ObjectCache(tmp_path).put(KEY, b"content" * 100)
    path = tmp_path / (KEY + SUFFIX)
    whole = path.read_bytes()
    path.write_bytes(damage(whole))
    cache = ObjectCache(tmp_path)
    assert cache.get(KEY) is None
    assert cache.get_or_make(KEY, lambda: b"content" * 100) == b"content" * 100
    assert path.read_bytes() == whole


def test_an_unusable_directory_costs_one_warning(tmp_path):
    (tmp_path / "file").write_text("no directory")
    cache = ObjectCache(tmp_path / "file" / "below")
    with pytest.warns(RuntimeWarning, match="not usable") as caught:
        for k in range(3):
            cache.put(f"{k:064}", b"x")
    assert len(caught) == 1
    assert cache.get(f"{1:064}") == b"x"


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() == 0, reason="root may write anywhere")
def test_a_directory_without_permission_is_read_only(tmp_path):
    ObjectCache(tmp_path).put(KEY, b"x")
    tmp_path.chmod(0o500)
    try:
        cache = ObjectCache(tmp_path)
        assert cache.get(KEY) == b"x"
        with pytest.warns(RuntimeWarning, match="not usable"):
            cache.put("0" * 64, b"y")
    finally:
        tmp_path.chmod(0o700)


def test_files_of_other_users_are_not_loaded(tmp_path, monkeypatch):
    ObjectCache(tmp_path).put(KEY, b"x")
    if sys.platform == "win32":
        pytest.skip("files have no user id")
    monkeypatch.setattr(os, "getuid", lambda: os.stat(tmp_path).st_uid + 4321)
    cache = ObjectCache(tmp_path)
    if os.stat(tmp_path).st_uid == 0:
        assert cache.get(KEY) == b"x"  # root's files are trusted
    else:
        with pytest.warns(RuntimeWarning, match="another user"):
            assert cache.get(KEY) is None


def test_the_directory_is_bounded_by_last_use(tmp_path):
    cache = ObjectCache(tmp_path, disk_bytes=10 * 1100)
    for k in range(20):
        cache.put(f"{k:064}", bytes(1000))
        os.utime(tmp_path / f"{k:064}{SUFFIX}", (1000 + k, 1000 + k))
    (tmp_path / ".left-over.diffc-new").write_bytes(bytes(1000))
    os.utime(tmp_path / ".left-over.diffc-new", (1, 1))
    (tmp_path / "not ours").write_bytes(bytes(100000))
    assert ObjectCache(tmp_path).get(f"{0:064}") is not None  # used just now
    cache.evict()
    left = files(tmp_path)
    assert "not ours" in left
    assert ".left-over.diffc-new" not in left
    assert f"{0:064}{SUFFIX}" in left
    assert f"{1:064}{SUFFIX}" not in left
    assert f"{19:064}{SUFFIX}" in left
    assert sum((tmp_path / name).stat().st_size for name in left if name != "not ours") <= 11000


def test_writing_evicts(tmp_path):
    cache = ObjectCache(tmp_path, disk_bytes=5000)
    for k in range(100):
        cache.put(f"{k:064}", bytes(1000))
    assert len(files(tmp_path)) < 40


def test_memory_is_bounded(tmp_path):
    cache = ObjectCache(None, memory_bytes=5000)
    for k in range(100):
        cache.put(f"{k:064}", bytes(1000))
    assert cache.get(f"{99:064}") == bytes(1000)
    assert cache.get(f"{0:064}") is None
    assert cache._held <= 5000
    cache.put(f"{99:064}", bytes(10))
    assert cache._held == sum(len(content) for content in cache._memory.values())


def test_forget(tmp_path):
    cache = ObjectCache(tmp_path)
    cache.put(KEY, b"x")
    cache.forget(KEY)
    assert cache.get(KEY) is None
    assert files(tmp_path) == []


def test_the_environment_chooses(monkeypatch, tmp_path):
    monkeypatch.setenv("DIFFC_CACHE_DIR", str(tmp_path))
    assert default_directory() == tmp_path
    monkeypatch.setenv("DIFFC_CACHE", "0")
    assert default_directory() is None
    monkeypatch.delenv("DIFFC_CACHE")
    monkeypatch.delenv("DIFFC_CACHE_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    if sys.platform == "linux":
        assert default_directory() == tmp_path / "diffc"
    monkeypatch.setattr(Path, "home", lambda: tmp_path / "home")
    monkeypatch.setenv("XDG_CACHE_HOME", "not/absolute")
    if sys.platform == "linux":
        assert default_directory() == tmp_path / "home" / ".cache" / "diffc"


WORKER = """
import sys
from pathlib import Path
from diffc.runtime.cache import ObjectCache
cache = ObjectCache(Path(sys.argv[1]), disk_bytes=20000)
for round in range(60):
    for k in range(8):
        content = bytes([k]) * 3000
        cache._memory.clear()
        found = cache.get(f"{k:064}")
        assert found is None or found == content, k
        cache.put(f"{k:064}", content)
    cache.evict()
"""


def test_processes_share_a_directory(tmp_path):
    workers = [
        subprocess.Popen([sys.executable, "-W", "error", "-c", WORKER, str(tmp_path)])
        for _ in range(3)
    ]
    assert [worker.wait(timeout=120) for worker in workers] == [0, 0, 0]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for k in range(8):
            found = ObjectCache(tmp_path).get(f"{k:064}")
            assert found is None or found == bytes([k]) * 3000
    assert not [name for name in files(tmp_path) if name.endswith(SCRATCH)]
