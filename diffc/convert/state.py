"""The variables of a converted statement, and what traced regions make of them.

A value is taken apart as a pytree. Its leaves are arrays and numbers, which become operands and
results of regions, or anything else, which must be the same on all paths.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from diffc.convert.jumps import RETURNED
from diffc.convert.site import Site, Undefined
from diffc.ir.aval import Aval
from diffc.ir.graph import Builder, Graph, Literal, Operand, literal
from diffc.ops.registry import find
from diffc.trace import Captured, Traced, Tracer, promote
from diffc.trace.context import Shared
from diffc.trace.tracer import wrap, wrap_array

Get = Callable[[], tuple[Any, ...]]
Set = Callable[[tuple[Any, ...]], None]

_CONTAINERS = (list, dict, set)
_KEYS: dict[str, type[Any]] = {"bool": bool, "i64": int, "f64": float}


class State:
    """The variables that a statement assigns: to be read and set from outside.

    ``get`` gives their values and then those of the mutated ones; ``put`` takes the former.
    """

    def __init__(self, site: Site, get: Get, put: Set) -> None:
        self.site = site
        self.get = get
        self.put = put

    def read(self) -> list[Any]:
        """The values; a named ``Undefined`` for a variable without one."""
        found = self.get()[: len(self.site.names)]
        return [
            Undefined(name) if type(value) is Undefined and not value.name else value
            for name, value in zip(self.site.names, found, strict=True)
        ]

    def has_mutated_containers(self) -> bool:
        """Whether the statement changes a list, dict or set in place."""
        return self._mutated() is not None

    def _mutated(self) -> tuple[str, int, Any] | None:
        values = self.get()[len(self.site.names) :]
        for (name, line), value in zip(self.site.mutated, values, strict=True):
            if type(value) in _CONTAINERS:
                return name, line, value
        return None

    def check(self) -> None:
        """Raises if a traced value can't steer the statement."""
        self.site.check()
        found = self._mutated()
        if found is not None:
            name, line, value = found
            kind = type(value).__name__
            raise self.site.error(
                f"a traced value steers the `{self.site.kind}` in line {self.site.line}, which "
                f"changes the {kind} {name!r} in place",
                f"write into an array made before it ({name} = np.zeros(...); {name}[i] = ...), "
                "or use diffc.scan, which stacks results",
                line,
            )

    def with_counter(self, box: list[Any]) -> State:
        """The same with the loop's counter as one more variable."""
        count = len(self.site.names)
        site = self.site._replace(
            names=(*self.site.names, "the counter"), live=(*self.site.live, True)
        )

        def get() -> tuple[Any, ...]:
            found = self.get()
            return (*found[:count], box[0], *found[count:])

        def put(values: tuple[Any, ...]) -> None:
            self.put(tuple(values[:-1]))
            box[0] = values[-1]

        return State(site, get, put)


def is_dynamic(leaf: Any) -> bool:
    """Whether a leaf is an array or a number."""
    return isinstance(leaf, Tracer | np.ndarray | np.generic | bool | int | float)


def is_returned(name: str) -> bool:
    """Whether a variable holds what is returned: a flag says whether it has a value."""
    return name.startswith(RETURNED)


def label(name: str) -> str:
    """How errors call a variable."""
    return "result" if is_returned(name) else name


def common(left: tuple[Aval, bool], right: tuple[Aval, bool]) -> tuple[Aval, bool] | None:
    """The aval and weakness that hold both values exactly; None if there is none.

    Python's numbers adapt; arrays of different dtypes or shapes don't.
    """
    (a, is_weak_a), (b, is_weak_b) = left, right
    if a is b:
        return a, is_weak_a and is_weak_b
    if a.shape != b.shape or not (is_weak_a or is_weak_b):
        return None
    keys = tuple(_KEYS[x.dtype] if is_weak else x.dtype for x, is_weak in (left, right))
    dtype = promote.common(keys)
    return a.with_dtype(dtype), is_weak_a and is_weak_b


def cast(builder: Builder, operand: Operand, wanted: Aval) -> Operand:
    """The operand with another dtype."""
    if operand.aval is wanted:
        return operand
    if isinstance(operand, Literal):
        return literal(np.array(operand.value, operand.aval.numpy).astype(wanted.numpy)[()], wanted)
    return builder.emit(find("convert"), (operand,), {"dtype": wanted.dtype})[0]


class Hidden:
    """What regions use of the trace around: arrays and tracers, each once."""

    def __init__(self) -> None:
        self.operands: list[Any] = []
        self._at: dict[int, int] = {}

    def position(self, captured: Captured) -> int:
        """Where an operand of a trace stands among all."""
        thing = captured.array if captured.tracer is None else captured.tracer
        key = id(thing._cell) if isinstance(thing, Tracer) else id(thing)
        return self._add(key, thing)

    def cell(self, target: Tracer) -> int:
        """Where the value of an outer array stands."""
        return self._add(id(target._cell), target)

    def _add(self, key: int, thing: Any) -> int:
        if key not in self._at:
            self._at[key] = len(self.operands)
            self.operands.append(thing)
        return self._at[key]

    def avals(self) -> list[Aval]:
        """Avals of all."""
        from diffc.ir.aval import aval_of

        return [x._cell.value.aval if isinstance(x, Tracer) else aval_of(x) for x in self.operands]


def inlined(builder: Builder, traced: Traced, given: Sequence[Operand]) -> list[Operand]:
    """A trace's outputs, its graph built into a region."""
    return list(builder.inline(traced.graph, given))


def wrapped(operand: Operand, *, weak: bool, is_scalar: bool) -> Tracer:
    """A result as an array or scalar of the current trace."""
    if operand.aval.shape or is_scalar:
        return wrap(operand, weak=weak)
    return wrap_array(operand)


def share(result: Tracer, others: Sequence[Any], site: Site, refuses: bool = False) -> None:
    """Notes that a result may be one array with others, which outlive the regions."""
    if result.scalar:
        return
    cells = {id(o._cell): o._cell for o in others if isinstance(o, Tracer) and not o.scalar}
    sources = [(cell, cell.value) for cell in cells.values() if cell.trace.alive]
    if sources or refuses:
        result._cell.shared = Shared(site.where, sources, refuses)


def build(builder: Builder, outputs: Sequence[Operand]) -> Graph:
    """The region's graph without what it doesn't need."""
    from diffc.ir.graph import prune

    return prune(builder.build(outputs))


def mismatch(site: Site, name: str, left: Any, right: Any, where: tuple[str, str]) -> Exception:
    """The error for a variable that differs between paths."""
    return site.error(
        f"{label(name)} is {left} {where[0]}, and {right} {where[1]}",
        "give it one shape, dtype and structure on all paths (np.zeros(...), x.astype(...))",
    )


def spell(aval: Aval, weak: bool) -> str:
    """An aval for errors: a Python number by its type."""
    return f"a Python {_KEYS[aval.dtype].__name__}" if weak and aval.dtype in _KEYS else str(aval)
