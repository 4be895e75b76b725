"""What a CPU has, as data: vector width, registers, features and cache sizes.

A `Target` is everything that code generation may know about the machine. It is a plain value:
equal targets give equal code. `select` turns what LLVM reports about a host into a target; this
module asks nobody itself, so that code for one machine can be generated on another.
"""

from collections.abc import Mapping
from dataclasses import dataclass

__all__ = [
    "ARM_NEON",
    "FLOATS",
    "HALVES",
    "ITEM_BYTES",
    "X86_AVX2",
    "X86_AVX512",
    "X86_SSE2",
    "Target",
    "register_bytes",
    "select",
]

ITEM_BYTES: Mapping[str, int] = {
    "bool": 1,
    "i8": 1,
    "u8": 1,
    "i16": 2,
    "u16": 2,
    "bf16": 2,
    "f16": 2,
    "i32": 4,
    "u32": 4,
    "f32": 4,
    "i64": 8,
    "u64": 8,
    "f64": 8,
}


# Floats of 16 bits: computed in f32, each result rounded once; sums are kept in f32.
HALVES = frozenset({"bf16", "f16"})
FLOATS = HALVES | {"f32", "f64"}


def register_bytes(dtype: str) -> int:
    """Bytes that a number of `dtype` takes in a register where it is computed with."""
    return 4 if dtype in HALVES else ITEM_BYTES[dtype]


@dataclass(frozen=True, slots=True)
class Target:
    """One kind of CPU.

    Attributes:
        name: Short name, used in cache keys and dumps.
        family: Architecture of the target triple (`x86_64`, `aarch64`).
        cpu: CPU name for LLVM.
        features: Feature string for LLVM (`+avx2,+fma`).
        vector_bytes: Width of a vector register.
        vector_registers: Number of vector registers.
        has_fma: Whether fused multiply-add is an instruction (`llvm.fma` is a slow call otherwise).
        has_avx512: Whether the 512-bit instructions (scalef, getexp, getmant, masks) exist.
        masked_memory: Whether masked loads and stores are native for 4 and 8 byte elements.
        l1_bytes: Data cache of the first level, one core.
        l2_bytes: Cache of the second level, one core.
        l3_bytes: Part of the third level that one core has for itself where all work.
        stream_bytes: Kernels on so many bytes store large results past the caches, which would
            lose them before anyone reads them (0: none do). A line is then not read before it is
            written.
    """

    name: str
    family: str
    cpu: str
    features: str
    vector_bytes: int
    vector_registers: int
    has_fma: bool
    has_avx512: bool
    masked_memory: bool
    l1_bytes: int = 32 * 1024
    l2_bytes: int = 512 * 1024
    l3_bytes: int = 4 * 1024 * 1024
    stream_bytes: int = 0

    @property
    def attributes(self) -> str:
        """Function attributes that keep LLVM at exactly this vector width.

        On AVX-512 both widths must be said: preferring 256 bits splits 512-bit values and spills.
        Elsewhere the widest legal vector is what LLVM takes by itself.
        """
        if not self.has_avx512:
            return "nounwind"
        bits = 8 * self.vector_bytes
        return f'nounwind "prefer-vector-width"="{bits}" "min-legal-vector-width"="{bits}"'

    def can_mask(self, item_bytes: int) -> bool:
        """Whether loads and stores of some lanes are native for elements of a size."""
        return self.masked_memory and (item_bytes >= 4 or self.has_avx512)

    def lanes(self, dtype: str) -> int:
        """Elements of `dtype` in one vector register."""
        return self.vector_bytes // ITEM_BYTES[dtype]


X86_SSE2 = Target(
    name="x86-sse2",
    family="x86_64",
    cpu="x86-64",
    features="",
    vector_bytes=16,
    vector_registers=16,
    has_fma=False,
    has_avx512=False,
    masked_memory=False,
)

X86_AVX2 = Target(
    name="x86-avx2",
    family="x86_64",
    cpu="x86-64-v3",
    features="",
    vector_bytes=32,
    vector_registers=16,
    has_fma=True,
    has_avx512=False,
    masked_memory=True,
    stream_bytes=32 * 1024 * 1024,
)

X86_AVX512 = Target(
    name="x86-avx512",
    family="x86_64",
    cpu="x86-64-v4",
    features="",
    vector_bytes=64,
    vector_registers=32,
    has_fma=True,
    has_avx512=True,
    masked_memory=True,
    l2_bytes=1024 * 1024,
    stream_bytes=32 * 1024 * 1024,
)

ARM_NEON = Target(
    name="arm-neon",
    family="aarch64",
    cpu="generic",
    features="+neon",
    vector_bytes=16,
    vector_registers=32,
    has_fma=True,
    has_avx512=False,
    masked_memory=False,
    l1_bytes=64 * 1024,
    l2_bytes=1024 * 1024,
)

# What LLVM must report before a target may be chosen, widest first.
X86_REQUIRED: tuple[tuple[Target, tuple[str, ...]], ...] = (
    (
        X86_AVX512,
        ("avx512f", "avx512cd", "avx512bw", "avx512dq", "avx512vl", "avx2", "fma", "f16c"),
    ),
    (X86_AVX2, ("avx2", "fma", "bmi", "bmi2", "f16c", "lzcnt", "movbe")),
)
X86_ARCHITECTURES = frozenset({"x86_64", "amd64", "x86-64"})
ARM_ARCHITECTURES = frozenset({"aarch64", "arm64"})


def select(cpu_name: str, features: Mapping[str, bool], arch: str) -> Target:
    """The best target that a machine can run.

    The code is generated for the feature level, not for the exact CPU, so that equal levels
    share cached objects; `cpu_name` only guards against an empty report.

    Args:
        cpu_name: What LLVM calls the host CPU.
        features: Feature name to presence, as LLVM reports it.
        arch: Machine architecture, as in `platform.machine()` or a target triple.

    Raises:
        ValueError: The architecture has no target.
    """
    family = arch.lower()
    if family in ARM_ARCHITECTURES:
        return ARM_NEON
    if family not in X86_ARCHITECTURES:
        raise ValueError(
            f"no code generation for architecture {arch!r} (CPU {cpu_name!r}); "
            f"known: {', '.join(sorted(X86_ARCHITECTURES | ARM_ARCHITECTURES))}"
        )
    for target, required in X86_REQUIRED:
        if all(features.get(feature, False) for feature in required):
            return target
    return X86_SSE2
