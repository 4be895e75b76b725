"""The only home of `llvmlite.binding`: LLVM text to object code, and object code into the process.

llvmlite is imported at the first call, never when this module is imported. LLVM's context is not
thread-safe, so one lock guards every use. Text reaches us with its vectors explicit: the
pass pipeline only cleans up, and the loop and SLP vectorizers stay off, so that no summation is
ever reordered here. Floating-point flags are those of the text.

What is cached, and under which key, is the business of `cache` and `build`.
"""

import functools
import itertools
import platform
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from diffc.errors import InternalError

if TYPE_CHECKING:
    from diffc.codegen.targets import Target

__all__ = ["Linked", "emit_assembly", "emit_object", "host_cpu", "link", "llvm_version"]

CODEGEN_LEVEL = 2
# Above this many characters the clean-up passes are left out: they cost a tenth of code generation
# and the gain shrinks with the size of the kernels.
CLEANUP_LIMIT = 2_000_000
CLEANUP_PASSES = ("sroa", "instruction_combine", "simplify_cfg")

_LOCK = threading.RLock()
_NAMES = itertools.count()


@functools.cache
def _binding() -> Any:
    """`llvmlite.binding`, imported and initialized once."""
    with _LOCK:
        import llvmlite.binding as binding

        binding.initialize_native_target()
        binding.initialize_native_asmprinter()
        return binding


@contextmanager
def _llvm() -> Iterator[Any]:
    """Exclusive use of LLVM."""
    with _LOCK:
        yield _binding()


def llvm_version() -> str:
    """LLVM's version together with that of its binding, as it goes into cache keys."""
    with _llvm() as binding:
        import llvmlite

        version = ".".join(str(part) for part in binding.llvm_version_info)
        return f"llvm {version} llvmlite {llvmlite.__version__}"


def host_cpu() -> tuple[str, dict[str, bool], str]:
    """What LLVM says about this machine: CPU name, features, architecture."""
    with _llvm() as binding:
        features = dict(binding.get_host_cpu_features())
        return binding.get_host_cpu_name(), features, platform.machine()


def triple() -> str:
    """The triple of this process."""
    with _llvm() as binding:
        return str(binding.get_process_triple())


@functools.cache
def _machine(cpu: str, features: str, jit: bool = True) -> Any:
    """The target machine for one CPU and feature string."""
    with _llvm() as binding:
        try:
            target = binding.Target.from_triple(triple())
            return target.create_target_machine(
                cpu=cpu,
                features=features,
                opt=CODEGEN_LEVEL,
                reloc="pic",
                codemodel="small",
                jit=jit,
            )
        except RuntimeError as error:
            raise InternalError(f"LLVM has no code generation for {triple()}: {error}") from error


@functools.cache
def _engine() -> Any:
    """The one linker of this process; it lives until the process ends.

    JITLink puts all sections of an object next to each other; the older linker may spread them
    wider than the small code model reaches. On Windows only the older one is complete.
    """
    with _llvm() as binding:
        machine = binding.Target.from_triple(triple()).create_target_machine(
            opt=CODEGEN_LEVEL, reloc="pic", codemodel="small", jit=True
        )
        return binding.create_lljit_compiler(machine, use_jit_link=sys.platform != "win32")


def _parse(binding: Any, text: str, machine: Any) -> Any:
    """A verified module for `machine`; an `InternalError` quotes what LLVM objects to."""
    try:
        module = binding.parse_assembly(text)
        module.triple = machine.triple
        module.data_layout = str(machine.target_data)
        module.verify()
    except RuntimeError as error:
        raise InternalError(
            f"LLVM rejects the emitted text: {error}",
            hint="this is a bug in diffc; `diffc dump --stage emit` prints the text",
        ) from error
    return module


def _clean_up(binding: Any, module: Any, machine: Any, text: str) -> None:
    """Runs the light pass pipeline in place."""
    passes = list(CLEANUP_PASSES) if len(text) <= CLEANUP_LIMIT else []
    if "alwaysinline" in text:
        passes.insert(0, "always_inliner")
    if not passes:
        return
    options = binding.create_pipeline_tuning_options(speed_level=1)
    options.loop_vectorization = False
    options.slp_vectorization = False
    options.loop_unrolling = False
    options.loop_interleaving = False
    builder = binding.create_pass_builder(machine, options)
    manager = binding.create_new_module_pass_manager()
    for name in passes:
        getattr(manager, f"add_{name}_pass")()
    manager.run(module, builder)


def emit_object(text: str, target: "Target") -> bytes:
    """Object code of a module.

    Args:
        text: LLVM text without triple and data layout.
        target: The machine to generate code for; it must be of this process's architecture.

    Raises:
        InternalError: LLVM rejects the text.
    """
    with _llvm() as binding:
        machine = _machine(target.cpu, target.features)
        module = _parse(binding, text, machine)
        _clean_up(binding, module, machine, text)
        return bytes(machine.emit_object(module))


def emit_assembly(text: str, target: "Target") -> str:
    """The assembly that `emit_object` encodes."""
    with _llvm() as binding:
        machine = _machine(target.cpu, target.features)
        module = _parse(binding, text, machine)
        _clean_up(binding, module, machine, text)
        return str(machine.emit_assembly(module))


class Linked:
    """Object code in the memory of this process; freed with the last reference to it.

    Attributes:
        addresses: Address of each exported symbol.
    """

    __slots__ = ("__weakref__", "_tracker", "addresses")

    def __init__(self, tracker: Any, addresses: Mapping[str, int]) -> None:
        self._tracker = tracker
        self.addresses = dict(addresses)


def link(code: bytes, exports: Sequence[str], imports: Mapping[str, int]) -> Linked:
    """Loads object code.

    Args:
        code: What `emit_object` gave, now or in an earlier process.
        exports: Symbols whose addresses are wanted.
        imports: Address of each undefined symbol; what is missing is looked up in the process.

    Raises:
        InternalError: A symbol is undefined, or the object is damaged.
    """
    with _llvm() as binding:
        builder = binding.JITLibraryBuilder().add_object_img(code)
        for name in exports:
            builder.export_symbol(name)
        for name, address in imports.items():
            builder.import_symbol(name, address)
        builder.add_current_process()
        try:
            tracker = builder.link(_engine(), f"diffc_{next(_NAMES)}")
        except RuntimeError as error:
            raise InternalError(f"cannot link compiled code: {error}") from error
        return Linked(tracker, {name: int(tracker[name]) for name in exports})
