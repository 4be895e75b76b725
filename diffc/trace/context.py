"""Traces, the stack of them in each thread, and the cells that arrays under trace live in.

A :class:`Cell` is what a NumPy array's memory is: it holds the current SSA value, and a write
replaces it. A cell belongs to one trace. An inner trace that meets a cell of an outer one makes a
local cell, whose first value is a hidden input (or the literal itself); a write to it is an effect
that the trace reports, so the outer cell is never touched from within.

Invariants: values held by a cell are operands of its own trace's builder; a trace emits only while
it is on top of its thread's stack; after that its tracers are leaks.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from diffc.errors import DiffcError, DtypeError, InternalError, TraceError
from diffc.ir.aval import Aval, aval_of
from diffc.ir.graph import Builder, Eqn, Graph, Literal, Location, Operand, Value
from diffc.ir.note import Note
from diffc.ops.declare import Zero
from diffc.ops.interpret import results_of
from diffc.ops.registry import find
from diffc.trace.location import here, line

Array = np.ndarray[Any, Any]


class ValueNeeded(TraceError):  # noqa: N818  # a request that a concrete trace can fulfil
    """The code asked for the value of a traced array; a concrete trace can answer."""


class Detached(NamedTuple):
    """A value that left the trace as a plain Python number, with no derivative.

    Attributes:
        value: the value that was asked for.
        wanted: what the code asked for, in words.
        location: the user's line.
    """

    value: Value
    wanted: str
    location: Location | None


class Cell:
    """One array's memory under trace.

    Attributes:
        trace: the trace it belongs to.
        value: the current SSA value.
        written: whether it was written in place.
        written_at: the user's line that wrote first.
        captured: the captured array or outer cell that it stands for, or None.
        name: the user's name for it, or "".
        shared: set where it may be one array with others, on some path of traced control flow.
    """

    __slots__ = ("captured", "name", "shared", "trace", "value", "written", "written_at")

    def __init__(
        self, trace: Trace, value: Operand, name: str = "", captured: Array | Cell | None = None
    ) -> None:
        self.trace = trace
        self.value = value
        self.written = False
        self.written_at: Location | None = None
        self.captured = captured
        self.name = name
        self.shared: Shared | None = None


class Shared:
    """What chosen or carried arrays share with others: in NumPy, writes to one would show in both.

    So a write to one makes the others unreadable, which is an error only where they are read.

    Attributes:
        where: the line of the statement that chose.
        sources: arrays that it may be one with, and their values then.
        refuses: whether writes are errors, as the others can be seen from outside.
        stale: whether one of the others was written.
    """

    __slots__ = ("refuses", "sources", "stale", "where")

    def __init__(self, where: str, sources: list[tuple[Cell, Operand]], refuses: bool) -> None:
        self.where = where
        self.sources = sources
        self.refuses = refuses or any(source.name for source, _ in sources)
        self.stale = False

    def on_read(self) -> None:
        """Raises if an array was written that this one may be."""
        if self.stale or any(source.value is not value for source, value in self.sources):
            raise self._error("an array is read that may be one with another, which was written")

    def on_write(self) -> None:
        """Makes the other arrays unreadable; raises if they can be seen from outside."""
        if self.refuses:
            raise self._error("an array is written that may be one with another")
        for source, _ in self.sources:
            source.shared = stale = Shared(self.where, [], False)
            stale.stale = True

    def _error(self, message: str) -> TraceError:
        return TraceError(
            f"{message}: the statement at {self.where} gives both names one array on some paths",
            location=line(),
            hint="make it an array of its own before that statement: y = x.copy()",
        )


class Trace:
    """One run of a function on tracers.

    Attributes:
        builder: what the equations go to.
        parent: the trace that was on top when this one began, or None.
        hidden: cells of hidden inputs, in the order of the inputs.
        concrete: whether inputs have values, so that the trace may answer questions for values.
        names: names of arrays that may be captured, by the array's id.
        detached: floats that a concrete trace gave away as Python numbers.
        notes: what transforms had to say of the code, within this trace and inner ones.
    """

    __slots__ = (
        "_constants",
        "_known",
        "_local",
        "_outer",
        "_unknown",
        "alive",
        "builder",
        "concrete",
        "detached",
        "hidden",
        "name",
        "names",
        "notes",
        "parent",
    )

    def __init__(self, name: str, parent: Trace | None, *, concrete: bool = False) -> None:
        self.name = name
        self.parent = parent
        self.builder = Builder(name)
        self.alive = True
        self.concrete = concrete
        self.hidden: list[Cell] = []
        self.names: dict[int, str] = {}
        self._known: dict[Value, Array] = {}  # of inputs too, in a concrete trace
        self._constants: dict[Value, Array] = {}  # of what depends on no input
        self._outer: dict[Value, Operand] = {}  # inputs that are values of a concrete parent
        self._unknown: set[Value] = set()  # known to depend on an input: no constants
        self.detached: list[Detached] = []
        self.notes: dict[Note, None] = {}  # an ordered set
        self._local: dict[int, tuple[Any, Cell]] = {}  # id -> (kept alive, local cell)

    def emit(
        self,
        name: str,
        operands: tuple[Operand, ...],
        params: Mapping[str, Any],
        regions: tuple[Graph, ...] = (),
    ) -> tuple[Value, ...]:
        """Appends an equation at the user's line."""
        loc = here()
        try:
            return self.builder.emit(find(name), operands, params, regions, loc)
        except DiffcError as error:
            raise error.at(None if loc is None else str(loc)) from None

    def input(self, aval: Aval, name: str, value: Array | Operand | None = None) -> Value:
        """A new input; ``value`` is what it holds in a concrete trace, or which of the parent's."""
        found = self.builder.input(aval, name)
        if isinstance(value, Value | Literal):
            self._outer[found] = value
        elif value is not None:
            self._known[found] = value
        return found

    def capture(self, array: Array) -> Cell:
        """The cell of an array made outside: a hidden input, one per array object."""
        known = self._local.get(id(array))
        if known is not None:
            return known[1]
        if self.parent is not None:
            cell = self._localize(self.parent.capture(array))
        else:
            try:
                aval = aval_of(array)
            except ValueError as error:
                raise DtypeError(f"captured array: {error}", location=line()) from None
            name = self.names.get(id(array), "captured")
            value = self.input(aval, name, array if self.concrete else None)
            cell = Cell(self, value, name, array)
            self.hidden.append(cell)
        self._local[id(array)] = (array, cell)
        return cell

    def localize(self, cell: Cell) -> Cell:
        """This trace's cell for a cell of its own or of an outer trace.

        Raises:
            TraceError: the cell's trace has ended, or runs in another thread.
        """
        if cell.trace is self:
            return cell
        known = self._local.get(id(cell))
        if known is not None:
            return known[1]
        if self.parent is None or not cell.trace.alive:
            raise leaked(cell)
        local = self._localize(self.parent.localize(cell))
        self._local[id(cell)] = (cell, local)
        return local

    def _localize(self, outer: Cell) -> Cell:
        """A local cell for a cell of the parent."""
        known = self._local.get(id(outer))
        if known is not None:
            return known[1]
        value = outer.value
        if isinstance(value, Value):
            assert self.parent is not None
            name = outer.name or value.name or "captured"
            source = value if self.concrete else None
            local = Cell(self, self.input(value.aval, name, source), outer.name, outer)
            self.hidden.append(local)
        else:
            local = Cell(self, value, outer.name, outer)
        self._local[id(outer)] = (outer, local)
        return local

    def written_outer(self) -> list[tuple[Cell, Cell]]:
        """Cells of the parent that were written here, with the local cells that were."""
        found: dict[int, tuple[Cell, Cell]] = {}
        for _, local in self._local.values():
            if local.written and isinstance(local.captured, Cell):
                found[id(local.captured)] = (local.captured, local)
        return list(found.values())

    def ask(self, operand: Operand, *, static: bool = False) -> Array | None:
        """The value of an operand that depends on no input, or of any one in a concrete trace.

        ``static``: only the former, also in a concrete trace.
        """
        if isinstance(operand, Literal):
            return np.full(operand.aval.shape, operand.value, operand.aval.numpy)
        known = self._constants if static or not self.concrete else self._known
        if operand in known:
            return known[operand]
        order = self._order(operand, known, known is self._constants)
        if order is None:
            return None
        with np.errstate(all="ignore"):
            for eqn in order:
                arrays = [_read(x, known) for x in eqn.operands]
                for value, found in zip(eqn.results, results_of(eqn, arrays), strict=True):
                    known[value] = np.asarray(found)
        return known[operand]

    def _order(self, wanted: Value, known: dict[Value, Array], is_static: bool) -> list[Eqn] | None:
        """Equations to compute for a value, operands first; None if it depends on the unknown."""
        order: list[Eqn] = []
        done: set[Eqn] = set()
        stack: list[tuple[Value, bool]] = [(wanted, False)]
        while stack:
            value, is_ready = stack.pop()
            eqn = value.eqn
            if value in known or eqn in done:
                continue
            if eqn is None or (is_static and value in self._unknown):
                found = None if is_static else self._from_parent(value)
                if found is None:
                    if is_static:
                        self._unknown.add(wanted)
                    return None
                known[value] = found
            elif is_ready:
                done.add(eqn)
                order.append(eqn)
            else:
                stack.append((value, True))
                stack.extend((x, False) for x in eqn.operands if isinstance(x, Value))
        return order

    def _from_parent(self, value: Value) -> Array | None:
        """What an input is in the parent, if that is concrete."""
        outer = self._outer.get(value)
        return None if outer is None or self.parent is None else self.parent.ask(outer)

    def detach(self, operand: Operand, wanted: str) -> None:
        """Notes that a float's value is given away, here and in the traces that it comes from."""
        if not self.concrete or not isinstance(operand, Value) or not operand.aval.is_float:
            return
        self.detached.append(Detached(operand, wanted, here()))
        if self.parent is None or not self._outer:
            return
        for value in sources(operand):
            outer = self._outer.get(value)
            if outer is not None:
                self.parent.detach(outer, wanted)

    def note(self, notes: Iterable[Note]) -> None:
        """Keeps notes, in all the traces around as well; each once."""
        given = dict.fromkeys(notes)
        trace: Trace | None = self
        while trace is not None and given:
            trace.notes.update(given)
            trace = trace.parent


def sources(value: Value) -> set[Value]:
    """The graph inputs that a value depends on, as far as derivatives flow."""
    found: set[Value] = set()
    seen: set[Value] = set()
    stack = [value]
    while stack:
        current_value = stack.pop()
        if current_value in seen or not current_value.aval.is_float:
            continue
        seen.add(current_value)
        eqn = current_value.eqn
        if eqn is None:
            found.add(current_value)
        elif not isinstance(eqn.op.fact(eqn.params), Zero):
            stack.extend(x for x in eqn.operands if isinstance(x, Value))
    return found


def _read(operand: Operand, known: Mapping[Value, Array]) -> Array:
    if isinstance(operand, Literal):
        return np.full(operand.aval.shape, operand.value, operand.aval.numpy)
    return known[operand]


class _Stack(threading.local):
    def __init__(self) -> None:
        self.traces: list[Trace] = []


_STACK = _Stack()


def active() -> bool:
    """Whether a trace is running in this thread."""
    return bool(_STACK.traces)


def current() -> Trace:
    """The innermost trace of this thread.

    Raises:
        TraceError: none is running, so whatever asks has leaked out of its trace.
    """
    traces = _STACK.traces
    if not traces:
        raise TraceError(
            "a traced array is used outside the trace that made it",
            location=line(),
            hint="return it from the function instead of storing it",
        )
    return traces[-1]


def leaked(cell: Cell) -> TraceError:
    """The error for a tracer whose trace has ended or belongs to another thread."""
    name = f" {cell.name!r}" if cell.name else ""
    value = cell.value
    made = value.eqn.loc if isinstance(value, Value) and value.eqn is not None else None
    origin = f", made at {made}," if made is not None else ""
    state = "has ended" if not cell.trace.alive else "runs in another thread"
    return TraceError(
        f"the traced array{name} {value.aval}{origin} leaked out of the trace of "
        f"{cell.trace.name!r}, which {state}",
        location=line(),
        hint="return it from the function instead of storing it in a global, list or attribute",
    )


def run_in(trace: Trace, body: Callable[[], Any]) -> Any:
    """Calls ``body`` with ``trace`` on top of this thread's stack; ends the trace in any case."""
    traces = _STACK.traces
    if trace.parent is not (traces[-1] if traces else None):
        raise InternalError("a trace must be started from the trace that is its parent")
    traces.append(trace)
    try:
        return body()
    except ValueError as error:
        # NumPy's own words where a tracer is stored into an ndarray: the cause says more.
        if isinstance(error.__cause__, DiffcError):
            raise error.__cause__ from None
        raise
    finally:
        traces.pop()
        trace.alive = False


def innermost() -> Trace | None:
    """The innermost trace of this thread, or None."""
    traces = _STACK.traces
    return traces[-1] if traces else None
