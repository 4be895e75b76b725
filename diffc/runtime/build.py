"""Text to loaded code: object cache, code generation, linking.

Two builds of the same text for the same target share one library as long as it is alive. Addresses
of this process enter as imported symbols, never as constants in the text: so the object code is the
same in each process and can be cached.
"""

import functools
import hashlib
import sys
import threading
import weakref
from collections.abc import Mapping, Sequence

import numpy as np

from diffc.codegen.targets import Target
from diffc.errors import InternalError
from diffc.runtime import llvm
from diffc.runtime.cache import ObjectCache, default_directory
from diffc.version import __version__

__all__ = ["Library", "assembly", "build", "object_cache", "object_key"]

_LIBRARIES: "weakref.WeakValueDictionary[tuple[object, ...], Library]" = (
    weakref.WeakValueDictionary()
)
_LOCK = threading.RLock()


class Library:
    """Code in memory: keep it as long as one of its addresses may be called.

    Attributes:
        key: The hash under which its object code is cached.
    """

    __slots__ = ("__weakref__", "_linked", "key")

    def __init__(self, linked: llvm.Linked, key: str) -> None:
        self._linked = linked
        self.key = key

    def address(self, symbol: str) -> int:
        """Address of an exported symbol.

        Raises:
            KeyError: The symbol was not among those named to `build`.
        """
        return self._linked.addresses[symbol]


@functools.cache
def object_cache() -> ObjectCache:
    """The cache of this process, as the environment says at its first use."""
    return ObjectCache(default_directory())


@functools.cache
def _environment() -> str:
    """What compiled code depends on beside its text and target."""
    abi = getattr(sys, "abiflags", "")
    return "\n".join(
        (
            f"diffc {__version__}",
            llvm.llvm_version(),
            f"passes {llvm.CODEGEN_LEVEL} {llvm.CLEANUP_LIMIT} {llvm.CLEANUP_PASSES}",
            llvm.triple(),
            f"{sys.implementation.cache_tag}{abi} {sys.maxsize}",
            f"numpy {np.__version__}",
        )
    )


def object_key(text: str, target: Target) -> str:
    """The key of a text's object code: equal keys mean equal code."""
    digest = hashlib.sha256()
    for part in (_environment(), target.cpu, target.features, text):
        data = part.encode()
        digest.update(f"{len(data)}\n".encode())
        digest.update(data)
    return digest.hexdigest()


def build(
    text: str,
    symbols: Sequence[str],
    target: Target,
    imports: Mapping[str, int] | None = None,
    cache: ObjectCache | None = None,
) -> Library:
    """Compiles and loads a module, or finds it compiled.

    Args:
        text: LLVM text without triple and data layout.
        symbols: The external definitions whose addresses are wanted.
        target: The machine to generate code for; it must be this one.
        imports: Address of each external declaration that the process does not export itself.
        cache: Where object code is kept; by default the cache of the process.

    Returns:
        The library; its code is unloaded when the last reference goes.

    Raises:
        InternalError: LLVM rejects the text, or a symbol is undefined.
    """
    imports = {} if imports is None else imports
    cache = object_cache() if cache is None else cache
    key = object_key(text, target)
    identity = (key, tuple(symbols), tuple(sorted(imports.items())))
    with _LOCK:
        library = _LIBRARIES.get(identity)
        if library is not None:
            return library
        code = cache.get(key)
        if code is not None:
            try:
                linked = llvm.link(code, symbols, imports)
            except InternalError:
                cache.forget(key)  # the file was whole but of no use: compile once more
                code = None
        if code is None:
            code = llvm.emit_object(text, target)
            linked = llvm.link(code, symbols, imports)
            cache.put(key, code)
        library = Library(linked, key)
        _LIBRARIES[identity] = library
        return library


def assembly(text: str, target: Target) -> str:
    """The assembly of a module, as `build` would load it."""
    return llvm.emit_assembly(text, target)
