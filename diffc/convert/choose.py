"""Truth values that may be traced, and expressions chosen by them."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import numpy as np

from diffc.convert.branches import staged_cond
from diffc.convert.site import Site
from diffc.trace import Tracer, active, emit, trace_flat
from diffc.trace.arguments import tracer
from diffc.trace.context import current
from diffc.trace.run import inline
from diffc.trace.table import FUNCTIONS
from diffc.trace.tracer import read

Later = Callable[[], Any]


def is_traced(value: Any) -> bool:
    """Whether a value is an array of the trace whose value is not known."""
    if isinstance(value, Tracer):
        return current().ask(read(value)) is None
    if isinstance(value, np.ndarray) and active() and type(value) is not np.ndarray:
        return current().ask(read(tracer(value))) is None
    return False


def truth(value: Any) -> bool | Tracer:
    """Python's truth of a value; a traced ``bool`` where that is not known.

    Raises:
        TraceError: an array of several elements has no truth value.
    """
    if not is_traced(value):
        return bool(value)
    found = tracer(value)
    if found.size != 1:
        return bool(found)  # raises, and says why
    if found.shape:
        found = FUNCTIONS["reshape"](found, ())
    if found.aval.dtype != "bool":
        (found,) = emit("ne", found, _zero(found))
    return found


def _zero(like: Tracer) -> Any:
    from diffc.trace import operands as o

    return o.fill(0, like.aval.dtype)


def not_(value: Any) -> bool | Tracer:
    """``not value``."""
    found = truth(value)
    if isinstance(found, Tracer):
        (result,) = emit("bitwise_not", found)
        return result
    return not found


def both(first: Any, later: Later, *, is_and: bool) -> Any:
    """``first and later()``, or ``first or later()``."""
    known = truth(first)
    if not isinstance(known, Tracer):
        return later() if known is is_and else first
    if isinstance(first, bool) or first.dtype == np.bool_:
        second = _without_effects(later)
        if second is not None:
            (result,) = emit("bitwise_and" if is_and else "bitwise_or", known, second)
            return result
    parts = (later, lambda: first) if is_and else (lambda: first, later)
    return staged_cond(known, *parts, _EXPRESSION)


_EXPRESSION = Site("expression", "", 0, (), (), "", (), ())


def _without_effects(later: Later) -> Any:
    """A ``bool`` that may be computed though it is not needed; None if it may not, or is none."""
    traced = trace_flat(later, [], name="operand")
    outputs = traced.graph.outputs
    is_bool = len(outputs) == 1 and outputs[0].aval.dtype == "bool" and not outputs[0].aval.shape
    is_plain = not traced.effects and not traced.out_tree.children
    total = all(not e.regions and e.params.get("mode") != "check" for e in traced.graph.eqns)
    if not (is_bool and is_plain and total):
        return None
    hidden = [c.array if c.tracer is None else c.tracer for c in traced.captured]
    (result,) = inline(traced.graph, hidden)
    return result


def compare(words: tuple[str, ...], first: Any, *later: Later) -> Any:
    """``a < b <= c``: each operand computed once, and only if it decides."""
    left, result = first, None
    for i, (word, other) in enumerate(zip(words, later, strict=True)):
        if result is None:
            right = other()
            result = _COMPARE[word](left, right)
            left = right
        else:
            return _rest(result, left, words[i:], later[i:])
    return result


def _rest(result: Any, left: Any, words: tuple[str, ...], later: tuple[Later, ...]) -> Any:
    return both(result, lambda: compare(words, left, *later), is_and=True)


def contains(item: Any, items: Any) -> bool | Tracer:
    """``item in items``."""
    if isinstance(items, Tracer) and is_traced(items == item):
        return truth(FUNCTIONS["any"](items == item))
    if isinstance(items, list | tuple) and (is_traced(item) or any(map(is_traced, items))):
        found: bool | Tracer = False
        for other in items:
            same = other is item or truth(other == item)
            if same is True:
                return True
            if isinstance(same, Tracer):
                found = emit("bitwise_or", found, same)[0] if found is not False else same
        return found
    return item in items


def merged(pred: Any, then: Any, other: Any) -> Any:
    """``then if pred else other``, both known already."""
    found = truth(pred)
    if not isinstance(found, Tracer):
        return then if found else other
    return staged_cond(found, lambda: then, lambda: other, _EXPRESSION)


_COMPARE: dict[str, Callable[[Any, Any], Any]] = {
    **{
        word: getattr(operator, word)
        for word in ["eq", "ne", "lt", "le", "gt", "ge", "is_", "is_not"]
    },
    "in_": contains,
    "not_in": lambda item, items: not_(contains(item, items)),
}
