"""Object code kept in memory and on disk, under the hash of everything that it depends on.

A file holds a header, the SHA-256 of its content, and the content; what does not match is treated
as absent and written anew. Files are written under another name and renamed, so that processes
which share the directory see whole files only. Where the directory cannot be used, everything works
without it, after one warning.

Environment: `DIFFC_CACHE_DIR` names the directory, `DIFFC_CACHE=0` leaves the disk alone,
`DIFFC_CACHE_MB` bounds its size (256).
"""

import contextlib
import hashlib
import os
import secrets
import sys
import threading
import time
import warnings
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

__all__ = ["ObjectCache", "default_directory"]

MAGIC = b"diffc object 1\n"
DIGEST_BYTES = hashlib.sha256().digest_size
SUFFIX = ".diffc"
SCRATCH = ".diffc-new"
DISK_MB = 256
MEMORY_BYTES = 64 * 2**20
# The directory's size is looked at once in this many writes, the first included.
EVICT_EVERY = 32


def default_directory() -> Path | None:
    """Where objects are kept by default; None when the environment switches the disk off."""
    if os.environ.get("DIFFC_CACHE", "1").strip().lower() in {"0", "off", "no", "false"}:
        return None
    chosen = os.environ.get("DIFFC_CACHE_DIR")
    if chosen:
        return Path(chosen).expanduser()
    try:
        home = Path.home()
    except RuntimeError:  # no home directory can be determined
        return None
    if sys.platform == "darwin":
        return home / "Library" / "Caches" / "diffc"
    if sys.platform == "win32":
        local = os.environ.get("LOCALAPPDATA")
        return (Path(local) if local else home / "AppData" / "Local") / "diffc" / "cache"
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base and Path(base).is_absolute() else home / ".cache") / "diffc"


def default_disk_bytes() -> int:
    """The bound on the directory's size."""
    text = os.environ.get("DIFFC_CACHE_MB", "")
    return (int(text) if text.isdecimal() else DISK_MB) * 2**20


class ObjectCache:
    """Bytes by key, in memory first, then on disk.

    Args:
        directory: Where files live; None keeps everything in memory only.
        disk_bytes: The directory is trimmed to this size, oldest use first.
        memory_bytes: The same for memory.
    """

    def __init__(
        self,
        directory: Path | None,
        disk_bytes: int | None = None,
        memory_bytes: int = MEMORY_BYTES,
    ) -> None:
        self.directory = directory
        self.disk_bytes = default_disk_bytes() if disk_bytes is None else disk_bytes
        self.memory_bytes = memory_bytes
        self.hits = 0
        self.misses = 0
        self._memory: OrderedDict[str, bytes] = OrderedDict()
        self._held = 0
        self._writes = 0
        self._warned = False
        self._lock = threading.Lock()

    def get_or_make(self, key: str, make: Callable[[], bytes]) -> bytes:
        """The bytes under `key`; `make` is called, and its result kept, when there are none.

        Two threads that miss at once may both call `make`; either result is good.
        """
        content = self.get(key)
        if content is None:
            content = make()
            self.put(key, content)
        return content

    def get(self, key: str) -> bytes | None:
        """The bytes under `key`, or None."""
        with self._lock:
            content = self._memory.get(key)
            if content is not None:
                self._memory.move_to_end(key)
                self.hits += 1
                return content
        content = self._read(key)
        with self._lock:
            if content is None:
                self.misses += 1
            else:
                self.hits += 1
        if content is not None:
            self._remember(key, content)
        return content

    def put(self, key: str, content: bytes) -> None:
        """Keeps `content` under `key`."""
        self._remember(key, content)
        self._write(key, content)

    def forget(self, key: str) -> None:
        """Drops what is kept under `key`, so that it is made again."""
        with self._lock:
            old = self._memory.pop(key, None)
            if old is not None:
                self._held -= len(old)
        if self.directory is not None:
            _unlink(self._path(self.directory, key))

    def _remember(self, key: str, content: bytes) -> None:
        with self._lock:
            old = self._memory.pop(key, None)
            self._held += len(content) - (0 if old is None else len(old))
            self._memory[key] = content
            while self._held > self.memory_bytes and len(self._memory) > 1:
                _, dropped = self._memory.popitem(last=False)
                self._held -= len(dropped)

    @staticmethod
    def _path(directory: Path, key: str) -> Path:
        return directory / f"{key}{SUFFIX}"

    def _read(self, key: str) -> bytes | None:
        """The content of a file that is whole and ours; None otherwise."""
        if self.directory is None:
            return None
        path = self._path(self.directory, key)
        try:
            with path.open("rb") as file:
                if not _is_trusted(os.fstat(file.fileno())):
                    self._warn(f"{path} belongs to another user and is not loaded")
                    return None
                raw = file.read()
        except FileNotFoundError:
            return None
        except OSError as error:
            self._warn(str(error))
            return None
        start = len(MAGIC) + DIGEST_BYTES
        content = raw[start:]
        if raw[:start] != MAGIC + hashlib.sha256(content).digest():
            return None
        # The age by which files are evicted is that of the last use; a directory that we may read
        # but not write is its owner's to evict.
        with contextlib.suppress(OSError):
            os.utime(path)
        return content

    def _write(self, key: str, content: bytes) -> None:
        directory = self.directory
        if directory is None:
            return
        scratch = directory / f".{key[:16]}-{os.getpid()}-{secrets.token_hex(4)}{SCRATCH}"
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            try:
                scratch.write_bytes(MAGIC + hashlib.sha256(content).digest() + content)
                os.replace(scratch, self._path(directory, key))
            except OSError:
                _unlink(scratch)
                raise
        except OSError as error:
            self._warn(str(error))
            return
        with self._lock:
            look = self._writes % EVICT_EVERY == 0
            self._writes += 1
        if look:
            self.evict()

    def evict(self) -> None:
        """Trims the directory to its bound, files that were used longest ago first."""
        if self.directory is None:
            return
        found: list[tuple[float, int, str]] = []
        try:
            with os.scandir(self.directory) as entries:
                for entry in entries:
                    status = entry.stat(follow_symlinks=False)
                    # Another process may be about to rename a fresh scratch file.
                    is_left = entry.name.endswith(SCRATCH) and status.st_mtime < time.time() - 3600
                    if entry.name.endswith(SUFFIX) or is_left:
                        found.append((status.st_mtime, status.st_size, entry.path))
        except OSError:
            return  # another process may be removing the same files; the next write looks again
        total = sum(size for _, size, _ in found)
        for _, size, path in sorted(found):
            if total <= self.disk_bytes:
                return
            _unlink(Path(path))
            total -= size

    def _warn(self, reason: str) -> None:
        """Says once that the disk is not used as it should be."""
        with self._lock:
            if self._warned:
                return
            self._warned = True
        warnings.warn(
            f"diffc's object cache on disk is not usable: {reason}; "
            "compiled code is kept in memory (DIFFC_CACHE_DIR names another directory, "
            "DIFFC_CACHE=0 switches the disk off)",
            RuntimeWarning,
            stacklevel=2,
        )


def _is_trusted(status: os.stat_result) -> bool:
    """Whether a file may be loaded as code: it is the user's own, or root's."""
    if sys.platform == "win32":
        return True
    user = os.getuid()
    return user == 0 or status.st_uid in (0, user)


def _unlink(path: Path) -> None:
    """Removes a file; what is open on Windows, or not ours, stays for its owner to evict."""
    with contextlib.suppress(OSError):
        path.unlink(missing_ok=True)
