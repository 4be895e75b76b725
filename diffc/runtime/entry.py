"""The native entry: a builtin function for one signature that runs a program directly.

Called with arguments exactly as described (types, dtypes, dimensions, contiguous and aligned
memory), it checks, allocates, runs and returns without a line of Python; anything else goes to the
slow path with the same arguments. `Executable.entry_kind` says whether there is one, and
`Executable.entry_reason` why not: other interpreters, free-threaded builds, guard mode, structures
other than exact `dict`, `list` and `tuple`.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from diffc.errors import InternalError
from diffc.runtime import abi, guard
from diffc.runtime.build import Library, build
from diffc.runtime.entry_code import ENTRY_SYMBOL, entry_text
from diffc.runtime.entry_plan import MAX_WORDS, Plan
from diffc.runtime.executable import Executable
from diffc.runtime.target import host

__all__ = ["native_entry"]

NATIVE_DTYPES = frozenset("?bBhHiIlLqQefd")
USER_DTYPE = 2  # what NumPy says of dtypes that other packages register: each is one object


def native_entry(
    executable: Executable,
    args_spec: Sequence[Any],
    out_spec: Any,
    slow: Callable[..., Any],
) -> Callable[..., Any]:
    """A callable for one signature; sets the executable's `entry_kind` and `entry_reason`.

    Args:
        executable: The program.
        args_spec: One spec per positional argument: the index of an input, None, or a dict, list
            or tuple of specs. Each input occurs exactly once.
        out_spec: The same for the result, with indices of outputs.
        slow: Called with the same arguments when they are not exactly as the specs say.

    Returns:
        A builtin function, or `slow` itself where there is no native entry.

    Raises:
        InternalError: The specs do not fit the program.
    """
    _check(executable, args_spec, out_spec)
    reason = _reason(executable, args_spec, out_spec)
    executable.entry_reason = reason
    if reason:
        executable.entry_kind = "python"
        return slow
    plan = Plan(executable, args_spec, out_spec, slow)
    if plan.scratch_words > MAX_WORDS:
        executable.entry_reason = f"{plan.scratch_words} words of scratch are too many"
        executable.entry_kind = "python"
        return slow
    library = _entry_library()
    executable.entry_kind = "native"
    return abi.make_function(  # type: ignore[no-any-return]  # a builtin function
        executable.symbol, library.address(ENTRY_SYMBOL), plan.header, library, plan.alive
    )


@functools.cache
def _entry_library() -> Library:
    """The entry's code, the same for all signatures."""
    return build(entry_text(), (ENTRY_SYMBOL,), host(), abi.function_addresses())


def _check(executable: Executable, args_spec: Sequence[Any], out_spec: Any) -> None:
    inputs = sorted(_indices(tuple(args_spec)))
    if inputs != list(range(len(executable.inputs))):
        raise InternalError(f"the arguments hold inputs {inputs} of {len(executable.inputs)}")
    if not set(_indices(out_spec)) <= set(range(len(executable.outputs))):
        raise InternalError(f"the result names outputs beyond {len(executable.outputs)}")


def _indices(spec: Any) -> list[int]:
    """The leaves of a spec; also of containers that have no native form."""
    if spec is None:
        return []
    if type(spec) is int:
        return [spec]
    if not isinstance(spec, dict | list | tuple):
        raise InternalError(f"a {type(spec).__name__} is no part of a spec")
    parts = spec.values() if isinstance(spec, dict) else spec
    return [index for part in parts for index in _indices(part)]


def _reason(executable: Executable, args_spec: Sequence[Any], out_spec: Any) -> str:
    """Why there can be no native entry; empty when there can."""
    if guard.is_enabled():
        return "guard mode copies every operand"
    missing = abi.unsupported()
    if missing:
        return missing
    for spec in (*args_spec, out_spec):
        name = _foreign(spec)
        if name:
            return f"{name} has no native form"
    dtypes = [i.dtype for i in executable.all_inputs] + [o.dtype for o in executable.outputs]
    for dtype in dtypes:
        is_known = dtype.char in NATIVE_DTYPES or dtype.isbuiltin == USER_DTYPE
        if not (dtype.isnative and is_known):
            return f"dtype {dtype} has no native form"
    for position, array in enumerate(executable.captured):
        if type(array) is not np.ndarray:
            return f"captured array {position} is a {type(array).__name__}"
        if not (array.flags.c_contiguous and array.flags.aligned and array.dtype.isnative):
            return f"captured array {position} is not contiguous, aligned and of native byte order"
    return ""


def _foreign(spec: Any) -> str:
    """What in a spec the native entry cannot check; empty when there is nothing."""
    if spec is None or type(spec) is int:
        return ""
    if type(spec) not in (dict, list, tuple):
        return f"a {type(spec).__name__}"
    if type(spec) is dict:
        for key in spec:
            if type(key) not in (str, int):
                return f"a dict key of type {type(key).__name__}"
    for part in spec.values() if type(spec) is dict else spec:
        name = _foreign(part)
        if name:
            return name
    return ""
