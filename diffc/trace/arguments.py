"""Arguments of NumPy functions: what users pass for an array, brought to operands.

Arrays made outside are captured by reference; Python numbers stay weak until their dtype is
decided; NumPy scalars are literals; lists are stacked.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from diffc.errors import DtypeError, TraceError
from diffc.ir.aval import DTYPES, NAMES, as_dtype, dtype_name
from diffc.ir.graph import Operand
from diffc.ir.index import Expr
from diffc.trace import operands as o
from diffc.trace import promote
from diffc.trace.captured import is_ordinary, plain
from diffc.trace.context import Cell, current
from diffc.trace.location import line
from diffc.trace.operands import Shape
from diffc.trace.promote import Key
from diffc.trace.tracer import Tracer, dtype_key, read, wrap_array

#: what to do about an array of a class that computes otherwise
ORDINARY = "use np.asarray(x), and what is lost by that (a mask, a unit) as an array of its own"


class Arg:
    """One argument before its dtype is decided.

    Attributes:
        key: how promotion sees it.
        shape: its shape.
        source: a tracer, or a Python or NumPy scalar.
    """

    __slots__ = ("key", "shape", "source")

    def __init__(self, key: Key, shape: Shape, source: Any) -> None:
        self.key = key
        self.shape = shape
        self.source = source

    def to(self, dtype: str, shape: Shape | None = None) -> Operand:
        """The operand with this dtype, broadcast to ``shape``."""
        source = self.source
        if isinstance(source, Tracer):
            value = o.cast(read(source), dtype)
            return value if shape is None else o.broadcast(value, shape)
        if isinstance(source, np.generic) and source.dtype != DTYPES[dtype]:
            source = as_dtype(np.asarray(source), dtype)[()]
        return o.fill(source, dtype, shape or ())

    @property
    def tracer(self) -> Tracer:
        """The argument as a tracer."""
        if isinstance(self.source, Tracer):
            return self.source
        value = self.to(default_dtype(self.key))
        return Tracer(
            Cell(current(), value), value.aval, weak=isinstance(self.key, type), scalar=True
        )


def default_dtype(key: Key) -> str:
    """The dtype that a key has by itself."""
    return key if isinstance(key, str) else promote.WEAK[key]


def argument(x: Any) -> Arg | None:
    """What ``x`` is as an argument; None if it is no array and nothing like one."""
    kind = type(x)
    if kind is Tracer:
        return Arg(dtype_key(x), x.aval.shape, x)
    if kind is float or kind is int or kind is bool:
        return Arg(kind, (), x)
    if isinstance(x, np.generic):
        try:
            return Arg(dtype_name(x.dtype), (), x)
        except ValueError as error:
            raise DtypeError(str(error), location=line()) from None
    if isinstance(x, np.ndarray):
        captured = capture(x)
        return Arg(captured.aval.dtype, captured.aval.shape, captured)
    if isinstance(x, (list, tuple)):
        stacked = array_of(x)
        return Arg(stacked.aval.dtype, stacked.aval.shape, stacked)
    if isinstance(x, int):
        return Arg(int, (), int(x))
    if isinstance(x, float):
        return Arg(float, (), float(x))
    if isinstance(x, Expr):
        return Arg(int, (), dimension(x))
    return None


def dimension(dim: Expr) -> Tracer:
    """A symbolic dimension as a number: as many ones summed."""
    value = o.reduce("sum", o.fill(1, "i64", (dim,)), (0,))
    return Tracer(Cell(current(), value), value.aval, weak=True, scalar=True)


def arg(x: Any, what: str = "argument") -> Arg:
    """As :func:`argument`, with an error for what is no array.

    Raises:
        TraceError: ``x`` is nothing like an array.
    """
    found = argument(x)
    if found is None:
        raise TraceError(f"{what}: {type(x).__name__} is no array: {x!r}", location=line())
    return found


def tracer(x: Any, what: str = "argument") -> Tracer:
    """``x`` as a tracer."""
    return x if type(x) is Tracer else arg(x, what).tracer


def operand(x: Any, what: str = "argument") -> Operand:
    """``x`` as an operand."""
    return read(x if type(x) is Tracer else arg(x, what).tracer)


def capture(array: np.ndarray[Any, Any]) -> Tracer:
    """The tracer of an array made outside; it is read at each call, and never written."""
    found = plain(array)
    if not is_ordinary(found):
        raise TraceError(
            f"a {type(found).__name__} of shape {found.shape} does not compute as arrays do",
            location=line(),
            hint=ORDINARY,
        )
    cell = current().capture(found)
    return Tracer(cell, cell.value.aval)


def operands(xs: Sequence[Any], what: str) -> list[Operand]:
    """Arguments as arrays (numbers are not weak) of their common dtype, shapes as they are."""
    args = [arg(x, what) for x in xs]
    dtype = promote.common(tuple(default_dtype(a.key) for a in args))
    return [a.to(dtype) for a in args]


def broadcast_operands(xs: Sequence[Any], what: str) -> list[Operand]:
    """Arguments converted to their common dtype and broadcast to their common shape."""
    args = [arg(x, what) for x in xs]
    dtype = promote.common(tuple(a.key for a in args))
    shape = o.common_shape([a.shape for a in args], what)
    return [a.to(dtype, shape) for a in args]


def mask_operand(x: Any, shape: Shape | None = None) -> Operand:
    """A condition: bool, broadcast to ``shape``."""
    return arg(x, "condition").to("bool", shape)


def array_of(x: Any, dtype: str | None = None) -> Tracer:
    """The array of a nested list that may hold tracers.

    Raises:
        TraceError: it holds something else, or is ragged.
    """
    if not has_tracer(x):
        try:
            array = np.array(x, None if dtype is None else DTYPES[dtype])
        except ValueError as error:
            raise TraceError(f"np.array: {error}", location=line()) from None
        return wrap_array(o.constant(array))
    args = [arg(item, "np.array") for item in x]
    found = dtype or promote.common(tuple(default_dtype(a.key) for a in args))
    shape = args[0].shape
    if any(a.shape != shape for a in args):
        listed = " and ".join(sorted({o.text_of_shape(a.shape) for a in args}))
        raise TraceError(
            f"np.array of elements with different shapes {listed}",
            location=line(),
            hint="give all elements of the list one shape, or use np.concatenate",
        )
    rows = [o.reshape(a.to(found), (1, *shape)) for a in args]
    return wrap_array(o.concat(rows, 0))


def has_tracer(x: Any) -> bool:
    """Whether nested lists or tuples hold a tracer or an array (which is captured, not copied)."""
    if isinstance(x, (Tracer, np.ndarray)):
        return True
    return isinstance(x, (list, tuple)) and any(has_tracer(item) for item in x)


class NotKnown(Exception):  # noqa: N818  # an answer, not a failure
    """A value depends on an input."""


def known(x: Any) -> Any:
    """Nested arguments with each tracer replaced by its value.

    Raises:
        NotKnown: one depends on an input, or an array is captured.
    """
    if isinstance(x, Tracer):
        found = current().ask(read(x), static=True)
        if found is None:
            raise NotKnown
        return found[()] if x.scalar else found.copy()
    if isinstance(x, np.ndarray):
        raise NotKnown
    if isinstance(x, (list, tuple)):
        return type(x)(map(known, x))
    return x


def lifted(result: Any) -> Any:
    """NumPy's result as arrays of the trace, where it is of diffc's dtypes."""
    if isinstance(result, np.ndarray):
        if result.dtype.newbyteorder("=") not in NAMES:
            return result
        return wrap_array(o.constant(result))
    if isinstance(result, (tuple, list)) and any(isinstance(x, np.ndarray) for x in result):
        return type(result)(map(lifted, result))
    return result


def evaluated(function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """NumPy's own result, if the arguments depend on no input.

    Raises:
        NotKnown: they do.
    """
    values = tuple(map(known, args))
    named = {key: known(value) for key, value in kwargs.items()}
    return lifted(function(*values, **named))
