"""CPython and NumPy as emitted code sees them: addresses of functions, layouts of objects.

The native entry reads a few fields of Python objects directly. Every offset it uses stands here,
and `unsupported` compares each with what the running interpreter does, once per process; where one
differs, or where there is no GIL, there is no native entry. Sources: CPython's `Include/cpython`
(`object.h`, `listobject.h`, `tupleobject.h`, `dictobject.h`, `floatobject.h`), NumPy's
`ndarraytypes.h` (`PyArrayObject_fields`) and `numpy_api.py` (slots of `PyArray_API`).
"""

import ctypes
import functools
import importlib
import struct
import sys
import sysconfig
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["function_addresses", "make_function", "unsupported"]

TYPE = 8
FLOAT_VALUE = 16
SIZE = 16  # of a list, tuple or dict
LIST_ITEMS = 24
TUPLE_ITEMS = 24
ARRAY_DATA = 16
ARRAY_NDIM = 24
ARRAY_DIMS = 32
ARRAY_DESCR = 56
ARRAY_FLAGS = 64

C_CONTIGUOUS = 0x1
ALIGNED = 0x100
WRITEABLE = 0x400

METH_KEYWORDS = 0x2
METH_FASTCALL = 0x80

PYTHON_FUNCTIONS = (
    "Py_IncRef",
    "Py_DecRef",
    "PyEval_SaveThread",
    "PyEval_RestoreThread",
    "PyObject_Vectorcall",
    "PyTuple_New",
    "PyList_New",
    "PyList_Append",
    "PyDict_New",
    "PyDict_SetItem",
    "PyDict_GetItemWithError",
    "PyLong_AsLongLongAndOverflow",
    "PyLong_FromLongLong",
    "PyErr_Clear",
)
NEW_FROM_DESCR = "diffc_PyArray_NewFromDescr"
API_ARRAY_TYPE = 2
API_NEW_FROM_DESCR = 94
SET_HANDLER = "diffc_PyDataMem_SetHandler"
API_SET_HANDLER = 304


def _array_api() -> "ctypes._Pointer[ctypes.c_void_p]":
    """NumPy's table of C functions."""
    umath: Any = importlib.import_module("numpy._core._multiarray_umath")
    get_pointer = ctypes.pythonapi.PyCapsule_GetPointer
    get_pointer.restype = ctypes.c_void_p
    get_pointer.argtypes = [ctypes.py_object, ctypes.c_char_p]
    address = get_pointer(umath._ARRAY_API, None)
    return ctypes.cast(address, ctypes.POINTER(ctypes.c_void_p))


@functools.cache
def function_addresses() -> dict[str, int]:
    """Address of each function that emitted code calls, by the symbol it uses."""
    addresses = {}
    for name in PYTHON_FUNCTIONS:
        address = ctypes.cast(getattr(ctypes.pythonapi, name), ctypes.c_void_p).value
        assert address is not None
        addresses[name] = address
    new_from_descr: Any = _array_api()[API_NEW_FROM_DESCR]
    addresses[NEW_FROM_DESCR] = int(new_from_descr)
    set_handler: Any = _array_api()[API_SET_HANDLER]
    addresses[SET_HANDLER] = int(set_handler)
    return addresses


@functools.cache
def unsupported() -> str:
    """Why emitted code cannot work on this interpreter's objects; empty when it can."""
    if sys.implementation.name != "cpython":
        return f"the interpreter is {sys.implementation.name}, not CPython"
    if struct.calcsize("P") != 8 or sys.byteorder != "little":
        return "only 64-bit little-endian machines have a native entry"
    if sysconfig.get_config_var("Py_GIL_DISABLED"):
        return "free-threaded builds have no native entry"
    for name in PYTHON_FUNCTIONS:
        if not hasattr(ctypes.pythonapi, name):
            return f"this CPython does not export {name}"
    table = _array_api()
    if table[API_ARRAY_TYPE] != id(np.ndarray) or not table[API_NEW_FROM_DESCR]:
        return "NumPy's function table has another order"
    if not _is_object_layout_known():
        return "CPython's objects have another layout"
    if not _is_array_layout_known():
        return "NumPy's arrays have another layout"
    return ""


def _word(owner: object, offset: int) -> int:
    return ctypes.c_uint64.from_address(id(owner) + offset).value


def _half(owner: object, offset: int) -> int:
    return ctypes.c_uint32.from_address(id(owner) + offset).value


def _is_object_layout_known() -> bool:
    first, second = object(), object()
    items, row, table = [first, second], (first, second, first), {"a": first, "b": second}
    value = 1234.5
    count = _half(first, 0)
    more = [first, first]
    counted = _half(first, 0) == count + len(more)
    return (
        counted
        and _word(items, TYPE) == id(list)
        and _word(items, SIZE) == 2
        and ctypes.c_uint64.from_address(_word(items, LIST_ITEMS) + 8).value == id(second)
        and _word(row, TYPE) == id(tuple)
        and _word(row, SIZE) == 3
        and _word(row, TUPLE_ITEMS + 8) == id(second)
        and _word(table, TYPE) == id(dict)
        and _word(table, SIZE) == 2
        and _word(value, TYPE) == id(float)
        and ctypes.c_double.from_address(id(value) + FLOAT_VALUE).value == value
    )


def _is_array_layout_known() -> bool:
    base = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    frozen = base.copy()
    frozen.flags.writeable = False
    unaligned = np.zeros(9, dtype=np.uint8)[1:].view(np.int64)
    samples: tuple[NDArray[Any], ...] = (
        base,
        base.T,
        base[:, ::2],
        frozen,
        np.zeros(()),
        unaligned,
    )
    for array in samples:
        flags = _half(array, ARRAY_FLAGS)
        if (
            _word(array, TYPE) != id(np.ndarray)
            or _word(array, ARRAY_DATA) != array.ctypes.data
            or _half(array, ARRAY_NDIM) != array.ndim
            or _word(array, ARRAY_DESCR) != id(array.dtype)
            or bool(flags & C_CONTIGUOUS) != array.flags.c_contiguous
            or bool(flags & ALIGNED) != array.flags.aligned
            or bool(flags & WRITEABLE) != array.flags.writeable
        ):
            return False
        dims = _word(array, ARRAY_DIMS)
        for axis, size in enumerate(array.shape):
            if ctypes.c_int64.from_address(dims + 8 * axis).value != size:
                return False
    return True


class Keep:
    """What a builtin function needs alive; it holds it as its `__module__`."""

    __slots__ = ("parts",)

    def __init__(self, *parts: object) -> None:
        self.parts = parts


def make_function(name: str, address: int, words: NDArray[np.int64], *alive: object) -> Any:
    """A builtin function over native code with the `METH_FASTCALL | METH_KEYWORDS` convention.

    The function's `PyMethodDef` lies behind the words that the code gets as `self`, in one array:
    CPython reads it until it lets go of `self`, also when the garbage collector has taken apart
    everything else.

    Args:
        name: Its `__name__`.
        address: The code.
        words: What the code finds in the array that it gets as `self`.
        alive: Objects that must live as long as the function may be called.
    """
    label = np.frombuffer(name.encode().ljust(8 * (len(name.encode()) // 8 + 1), b"\0"), np.int64)
    owner = np.concatenate([words, np.zeros(4, np.int64), label])
    definition = owner.ctypes.data + words.nbytes
    flags = METH_FASTCALL | METH_KEYWORDS
    owner[words.size : words.size + 3] = definition + 32, address, flags
    owner.flags.writeable = False
    new = ctypes.pythonapi.PyCFunction_NewEx
    new.restype = ctypes.py_object
    new.argtypes = [ctypes.c_void_p, ctypes.py_object, ctypes.py_object]
    return new(definition, owner, Keep(*alive))
