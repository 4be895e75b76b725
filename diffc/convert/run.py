"""What converted code calls: each method decides whether Python or the graph does the work.

One :class:`Run` belongs to one converted function and knows its statements. Where a truth value or
a bound is known, statements run as Python's; where it is traced, they become regions.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from diffc.convert import choose
from diffc.convert.branches import staged_cond, staged_if
from diffc.convert.choose import Later, truth
from diffc.convert.cycles import staged_scan, staged_while
from diffc.convert.site import Site, Undefined
from diffc.convert.state import State
from diffc.convert.steps import Steps, as_steps
from diffc.trace import Tracer, line

Part = Callable[[], None]
Body = Callable[[Any], None]
Get = Callable[[], tuple[Any, ...]]
Set = Callable[[tuple[Any, ...]], None]


class Run:
    """The decisions of one converted function.

    Attributes:
        sites: its statements, by the numbers that the code uses.
    """

    def __init__(self, sites: tuple[Site, ...]) -> None:
        self.sites = sites

    # --- values -------------------------------------------------------------------------------

    @staticmethod
    def read(value: Any) -> Any:
        """A variable's value.

        Raises:
            TraceError: it has none on some path.
        """
        if value.__class__ is Undefined:
            value.complain(line())
        return value

    @staticmethod
    def values(*variables: Later) -> tuple[Any, ...]:
        """What variables hold; an ``Undefined`` for those that hold nothing."""
        return tuple(map(_value, variables))

    @staticmethod
    def of(function: Any) -> Any:
        """What a call calls."""
        from diffc.convert.functions import callee

        return callee(function)

    # --- expressions --------------------------------------------------------------------------

    not_ = staticmethod(choose.not_)
    compare = staticmethod(choose.compare)

    @staticmethod
    def and_(first: Any, *later: Later) -> Any:
        """``first and ...``."""
        return _fold(first, later, is_and=True)

    @staticmethod
    def or_(first: Any, *later: Later) -> Any:
        """``first or ...``."""
        return _fold(first, later, is_and=False)

    def either(self, site: int, pred: Any, then: Later, other: Later) -> Any:
        """``then() if pred else other()``."""
        found = truth(pred)
        if not isinstance(found, Tracer):
            return then() if found else other()
        return staged_cond(found, then, other, self.sites[site])

    def known(self, site: int, pred: Any) -> bool:
        """A truth value that must be known."""
        found = truth(pred)
        if isinstance(found, Tracer):
            self.sites[site].check()
        return bool(found)

    def items(self, site: int, items: Any) -> Any:
        """What a loop runs over that must be Python's own."""
        steps = as_steps(items)
        if steps is not None and steps.is_traced:
            self.sites[site].check()
        return items

    # --- statements ---------------------------------------------------------------------------

    def if_(self, site: int, pred: Any, then: Part, other: Part, get: Get, put: Set) -> None:
        """An ``if``."""
        found = truth(pred)
        if isinstance(found, Tracer):
            staged_if(found, then, other, State(self.sites[site], get, put))
        elif found:
            then()
        else:
            other()

    def while_(self, site: int, test: Later, body: Part, get: Get, put: Set) -> None:
        """A ``while``: trips are Python's as long as the test is known."""
        while True:
            found = truth(test())
            if isinstance(found, Tracer):
                return staged_while(test, body, State(self.sites[site], get, put))
            if not found:
                return None
            body()

    def for_(
        self, site: int, items: Any, stop: Later | None, body: Body, get: Get, put: Set
    ) -> None:
        """A ``for``: over a traced range or an array, a loop of the graph."""
        steps = as_steps(items)
        state = State(self.sites[site], get, put)
        if steps is None:
            return self._python(items, stop, body, state)
        if isinstance(steps.length, int) and steps.length == 0:
            return None
        if steps.rows is not None and state.has_mutated_containers():
            return self._python(items, stop, body, state)  # of known length: trips one by one
        if stop is None and isinstance(steps.length, int):
            return staged_scan(steps, body, state)
        return self._counted(steps, stop, body, state)

    def _python(self, items: Any, stop: Later | None, body: Body, state: State) -> None:
        """Trips one by one; from where a traced value may stop the loop, guarded by it."""
        ended: bool | Tracer = False
        for i, item in enumerate(items):
            if isinstance(ended, Tracer):
                if isinstance(items, range):
                    rest = Steps.of_range(items[i:])
                    return self._counted(rest, stop, body, state)
                self._guarded(ended, item, body, state)
            else:
                body(item)
            if stop is not None:
                ended = truth(stop())
                if ended is True:
                    return None
        return None

    def _guarded(self, ended: Tracer, item: Any, body: Body, state: State) -> None:
        staged_if(ended, _nothing, lambda: body(item), state)

    def _counted(self, steps: Steps, stop: Later | None, body: Body, state: State) -> None:
        """A loop with a counter, which a traced value may stop."""
        box: list[Any] = [0]

        def test() -> Any:
            inside = box[0] < steps.length
            if stop is None:
                return inside
            return _fold(choose.not_(stop()), (lambda: inside,), is_and=True)

        def trip() -> None:
            body(steps.item(box[0]))
            box[0] = box[0] + 1

        staged_while(test, trip, state.with_counter(box))


def _fold(first: Any, later: tuple[Later, ...], *, is_and: bool) -> Any:
    result = first
    for operand in later:
        result = choose.both(result, operand, is_and=is_and)
    return result


def _value(variable: Later) -> Any:
    try:
        return variable()
    except NameError:
        return Undefined("")


def _nothing() -> None:
    """A branch that does nothing."""
