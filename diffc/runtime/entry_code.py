"""The code of the native entry: one function for all signatures, which reads a plan.

The entry is a CPython function (`METH_FASTCALL | METH_KEYWORDS`) whose `self` is a NumPy array of
64-bit words, the plan that `entry_plan` lays out. It is compiled once and shared by all programs;
a signature costs no compilation. The text stands in the `.ll` files beside this module, with
names in braces for the words that are defined here, so that layout and code cannot differ.

A call goes through these steps. A miss in the first two leaves to the Python slow path with the
same arguments, and nothing was changed by then:

1. checks: containers, arrays (type, dtype, dimensions, flags), Python scalars. What was reached
   through a container is owned from then on: another thread may change the container, and so may
   the comparison of a foreign dict key. For that reason containers are read item by item.
2. memory that is written may overlap no other operand; an arena is popped from the pool.
3. outputs are allocated; the program runs, without the GIL where it has much to do.
4. the arena goes back, a non-zero status is raised, the result is built on a stack of references.

Arrays, and the containers that are owned, are never immortal; so their counts are changed in place.
"""

from pathlib import Path

from diffc.runtime import abi

__all__ = ["ENTRY_SYMBOL", "entry_text"]

ENTRY_SYMBOL = "diffc_entry"
PARTS = ("entry_checks.ll", "entry_calls.ll")

# Words of the plan's header. `*_AT` are places in the scratch words of a call.
HEADER = (
    "NARGS",
    "SLOW",  # the Python slow path
    "RAISE",  # raises what a status stands for
    "PROGRAM",
    "THREADS",  # how many threads the program may use
    "POOL",  # the list of free arenas, or 0
    "ALLOCATOR",  # that of large outputs, or 0
    "RELEASES",  # whether the GIL is released
    "ARRAY_TYPE",
    "NONE",
    "TRUE",
    "FALSE",
    "CHECKS",
    "CHECK_COUNT",
    "OUTPUTS",
    "OUTPUT_COUNT",
    "RESULTS",
    "RESULT_COUNT",
    "WRITTEN",
    "WRITTEN_COUNT",
    "SIZES",
    "OPERAND_COUNT",
    "SLOTS",  # operands, in whole vectors
    "SCRATCH_WORDS",
    "LEAVES_AT",
    "SCALARS_AT",
    "ADDRESSES_AT",  # of the outputs
    "FRESH_AT",
    "CONTAINERS_AT",
    "HELD_AT",
    "STACK_AT",
)
# Words of one check: where the object comes from, and what it must be.
CHECK = ("FETCH", "SOURCE", "PLACE", "KIND", "EXPECTED", "INDEX", "OWNED", "LENGTH")
FETCHES = ("argument", "tuple", "list", "dict", "constant")
KINDS = ("array", "none", "float", "int", "bool", "container")
# What an array must be: dtype, ndim and required flags in one word, then the dimensions.
ARRAY = ("DESCR", "NDIM_FLAGS", "DIMS")
OUTPUT = ("OUT_DESCR", "OUT_NDIM", "OUT_DIMS", "OUT_ALIAS")
RESULT = ("CODE", "ARGUMENT", "KEYS")
# A fresh output is moved into the result at its last occurrence, and shared at the others.
RESULT_CODES = ("fresh", "moved", "alias", "none", "tuple", "list", "dict")
LANES = 8

_OBJECT_OFFSETS = (
    "TYPE",
    "SIZE",
    "LIST_ITEMS",
    "TUPLE_ITEMS",
    "FLOAT_VALUE",
    "ARRAY_DATA",
    "ARRAY_NDIM",
    "ARRAY_DIMS",
    "ARRAY_DESCR",
    "ARRAY_FLAGS",
)


def entry_text() -> str:
    """The module: it depends on the layouts of `abi` and of the plan, and on nothing else."""
    names = {name: getattr(abi, name) for name in _OBJECT_OFFSETS}
    for words in (HEADER, CHECK, ARRAY, OUTPUT, RESULT):
        names |= {name: place for place, name in enumerate(words)}
    for stem, choices in (("fetch", FETCHES), ("kind", KINDS), ("result", RESULT_CODES)):
        names |= {f"{stem}_{name}": place for place, name in enumerate(choices)}
    names |= {
        "LANES": LANES,
        "CHECK_WORDS": len(CHECK),
        "OUTPUT_WORDS": len(OUTPUT),
        "RESULT_WORDS": len(RESULT),
    }
    text = "".join(Path(__file__).with_name(part).read_text("utf-8") for part in PARTS)
    for name, value in names.items():
        text = text.replace(f"{{{name}}}", str(value))
    return text
