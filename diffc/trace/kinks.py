"""Derivatives at kinks, where users differ about the convention.

The default conventions are facts of the ops (and of ``norm`` here). Any other choice is traced as a
choice between branches: at the kink another formula with the same value and the chosen slope. So
the graph itself records it, and all derivatives of all orders follow it, forward and backward,
within loops and branches. ``docs/reference/kinks.md`` has the table.

Settings belong to the code that runs within ``with kinks(...)``; they are read while it is traced.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar, Token
from dataclasses import dataclass, replace
from typing import Any

from diffc.errors import UsageError
from diffc.ir.graph import Literal, Operand
from diffc.trace import operands as o
from diffc.trace.location import line

TIES = ("split", "first", "all")


@dataclass(frozen=True, slots=True)
class Kinks:
    """What derivatives are at kinks.

    Attributes:
        relu: slope of ``np.maximum(x, c)`` and ``np.minimum(x, c)`` by x where x equals
            c, a number in the code; and so of ``np.clip`` at its bounds.
        abs: slope of ``np.abs`` at 0.
        tie: how equal candidates of a maximum or minimum share: evenly ("split"), the first one
            gets it ("first"), or each one gets all of it ("all").
        sqrt: slope of ``np.sqrt`` at 0: infinite, or a number.
        norm: slope of ``np.linalg.norm``, ``np.std`` (Euclidean lengths) at length 0: 0, or nan.
    """

    relu: float = 0.0
    abs: float = 0.0
    tie: str = "split"
    sqrt: float = math.inf
    norm: float = 0.0


DEFAULTS = Kinks()
_CURRENT: ContextVar[Kinks] = ContextVar("kinks", default=DEFAULTS)


#: choices of a function that runs outside a trace, which nothing has followed yet
_WAITING: ContextVar[dict[str, Any]] = ContextVar("waiting")


def current() -> Kinks:
    """The choices that hold for what is traced now."""
    return _CURRENT.get()


@contextmanager
def waiting(choices: dict[str, Any]) -> Iterator[None]:
    """Runs a function outside a trace: values need no choices, but derivatives within it would."""
    token = _WAITING.set(_WAITING.get({}) | choices)
    try:
        yield
    finally:
        _WAITING.reset(token)


@contextmanager
def adopted() -> Iterator[None]:
    """Makes the choices that wait, for what is traced just once."""
    choices = _WAITING.get({})
    if not choices:
        yield
        return
    waits, token = _WAITING.set({}), enter(choices)
    try:
        yield
    finally:
        leave(token)
        _WAITING.reset(waits)


def refuse_waiting() -> None:
    """Raises if choices wait, which what is compiled already would not follow.

    Raises:
        UsageError: a function with choices differentiates or compiles, outside a trace.
    """
    refuse(_WAITING.get({}))


def refuse(choices: dict[str, Any]) -> None:
    """As :func:`refuse_waiting`, for these choices."""
    if choices:
        raise UsageError(
            "a function under kinks differentiates or runs compiled code outside a trace, which "
            "would not follow its conventions",
            location=line(),
            hint="decorate the function that is differentiated, or compile the whole: jit(f)",
        )


def enter(choices: dict[str, Any]) -> Token[Kinks]:
    """Makes choices for what is traced from now on, beside those made already."""
    return _CURRENT.set(replace(_CURRENT.get(), **choices))


def leave(token: Token[Kinks]) -> None:
    """Takes back what ``enter`` did."""
    _CURRENT.reset(token)


def checked(choices: dict[str, Any]) -> dict[str, Any]:
    """The choices, numbers as floats.

    Raises:
        UsageError: there is no such convention.
    """
    found: dict[str, Any] = {}
    for name, value in choices.items():
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        allowed = {
            "tie": value in TIES,
            "sqrt": is_number and not math.isnan(value) and value != -math.inf,
            "norm": is_number and (value == 0 or math.isnan(value)),
        }.get(name, is_number and math.isfinite(value))
        if not allowed:
            needs = {
                "tie": f"one of {', '.join(TIES)}",
                "sqrt": "inf or a finite number",
                "norm": "0 or nan",
            }.get(name, "a finite number")
            raise UsageError(f"kinks({name}={value!r}): needs {needs}", location=line())
        found[name] = value if name == "tie" else float(value)
    return found


# --- formulas ---------------------------------------------------------------------------------


def _like(x: Operand, value: float) -> Operand:
    return o.fill(value, x.aval.dtype, x.aval.shape)


def _sloped(x: Operand, at: Operand, slope: float) -> Operand:
    """``at + slope * (x - at)``: has the value ``at`` where ``x == at``."""
    step = o.emit("sub", x, at)
    return o.emit("add", at, o.emit("mul", step, _like(x, slope)))


def extremum(name: str, x: Operand, y: Operand) -> Operand:
    """The op ``maximum`` or ``minimum`` with the chosen derivative where the operands are equal."""
    plain: Operand = o.emit(name, x, y)
    if not x.aval.is_float:
        return plain
    chosen = _CURRENT.get()
    constants = [isinstance(operand, Literal) for operand in (x, y)]
    if any(constants):
        if chosen.relu == DEFAULTS.relu or all(constants):
            return plain
        moving, fixed = (y, x) if constants[0] else (x, y)
        tied = _sloped(moving, fixed, chosen.relu)
    elif chosen.tie == "split":
        return plain
    else:
        tied = x if chosen.tie == "first" else o.emit("add", x, _shadow(y))
    return o.select(o.emit("eq", x, y), tied, plain)


def _shadow(x: Operand) -> Operand:
    """Zero, with the derivative of ``x``."""
    finite = o.select(o.emit("is_finite", x), x, _like(x, 0))
    return o.emit("sub", finite, o.emit("stop_gradient", finite))


def reduced_extremum(name: str, x: Operand, axes: tuple[int, ...]) -> Operand:
    """The op ``max`` or ``min`` with the chosen derivative where several elements attain it."""
    tie = _CURRENT.get().tie
    if tie == "split" or not axes or not x.aval.is_float:
        return o.reduce(name, x, axes)
    if tie == "first":
        return _first(name, x, axes)
    found = o.emit("stop_gradient", o.reduce(name, x, axes))
    kept = tuple(axis for axis in range(x.aval.ndim) if axis not in axes)
    attains = o.emit("eq", x, o.spread(found, x.aval.shape, kept))
    shares = o.select(attains, _shadow(x), _like(x, 0))
    return o.emit("add", found, o.reduce("sum", shares, axes))


def _first(name: str, x: Operand, axes: tuple[int, ...]) -> Operand:
    """Picks the element at the op ``argmax`` or ``argmin``."""
    kept = tuple(axis for axis in range(x.aval.ndim) if axis not in axes)
    shape = tuple(x.aval.shape[axis] for axis in kept)
    length = 1
    for axis in axes:
        length = length * x.aval.shape[axis]  # type: ignore[assignment]  # dims multiply
    rows = o.reshape(o.transpose(x, (*kept, *axes)), (*shape, length))
    place = o.emit(f"arg{name}", rows, axis=len(kept))
    indices = [o.iota("i64", shape, axis) for axis in range(len(shape))]
    return o.emit("gather", rows, *indices, place, axes=tuple(range(len(kept) + 1)), mode="clip")


def absolute(x: Operand) -> Operand:
    """The op ``abs`` with the chosen slope at 0."""
    plain: Operand = o.emit("abs", x)
    slope = _CURRENT.get().abs
    if slope == DEFAULTS.abs or not x.aval.is_float:
        return plain
    zero = _like(x, 0)
    return o.select(o.emit("eq", x, zero), _sloped(x, zero, slope), plain)


def root(x: Operand) -> Operand:
    """The op ``sqrt`` with the chosen slope at 0."""
    slope = _CURRENT.get().sqrt
    return o.emit("sqrt", x) if slope == DEFAULTS.sqrt else _root(x, slope)


def length(squares: Operand) -> Operand:
    """The root of a sum of squares, with the chosen slope where all of them are 0."""
    slope = _CURRENT.get().norm
    return o.emit("sqrt", squares) if math.isnan(slope) else _root(squares, slope)


def _root(x: Operand, slope: float) -> Operand:
    zero = _like(x, 0)
    at_zero = zero if slope == 0 else _sloped(x, zero, slope)
    return o.select(o.emit("eq", x, zero), at_zero, o.emit("sqrt", x))
