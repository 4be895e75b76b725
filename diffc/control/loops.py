"""``while_loop`` and ``fori_loop``."""

from __future__ import annotations

import operator
from functools import partial
from typing import Any

import numpy as np

from diffc.control.outside import run_outside
from diffc.control.region import (
    Carry,
    Function,
    flat,
    kind_of,
    need_arguments,
    need_function,
    operand_of,
    refuse_writes,
    region_of,
    results_of,
    settle,
    trace_region,
)
from diffc.control.scan import emit_scan
from diffc.errors import DtypeError, ShapeError, UsageError
from diffc.ir.aval import GROWING, aval
from diffc.leaves import abstract_leaf, as_leaf
from diffc.ops.branching import LEAST_SLOTS, default_slots
from diffc.trace import Abstract, Traced, Tracer, active, emit, line
from diffc.trace.loops import checked_store, default_store


def while_loop(
    cond_fun: Function,
    body_fun: Function,
    init: Any,
    *,
    slots: int | None = None,
    store: str | None = None,
) -> Any:
    """Runs ``carry = body_fun(carry)`` for as long as ``cond_fun(carry)`` holds, natively.

    It has derivatives in both modes, of any order, and needs no bound. Reverse mode keeps some of
    the carries that the loop passes through (``slots`` of them, however many trips there are) and
    computes those between again; or, with ``store="grow"``, all that it needs of each trip, and
    computes nothing again. That takes memory which nobody knows before the run: ``memory()`` says
    how many bytes a trip.

    Args:
        cond_fun: takes the carry, gives one boolean.
        body_fun: takes the carry, gives one of the same structure, shapes and dtypes. The carry is
            the loop's own: it may be written in place, and ``init`` stays as it is.
        init: the first carry, a pytree of arrays and numbers.
        slots: how many carries reverse mode keeps; more of them need memory, fewer take time.
            By default as many as fit in a megabyte, at least 16 and at most 128.
        store: ``"slots"`` or ``"grow"``; by default what ``jit(store=...)`` says, else
            ``"slots"``.

    Returns:
        The last carry.

    Raises:
        ShapeError: the carry changes its structure, shape or dtype.
        DtypeError: ``cond_fun`` doesn't give one boolean.
        UsageError: a function writes to an array from outside.
        ExecutionError: (from the call) there is no memory for what ``store="grow"`` keeps.

    Example:
        >>> import numpy as np, diffc
        >>> def root(a):  # Newton's method
        ...     close = lambda x: np.abs(x * x - a) > 1e-12
        ...     return diffc.while_loop(close, lambda x: (x + a / x) / 2, a)
        >>> float(np.round(diffc.grad(root)(4.0), 10))
        0.25
    """
    for function, name in ((cond_fun, "test"), (body_fun, "body")):
        need_function(function, f"the {name} of while_loop")
        need_arguments(function, 1, f"the {name} of while_loop", "the carry")
    store = _checked(store, slots, "while_loop")
    leaves, structure = flat(init, "init")
    if not active():
        call = partial(while_loop, slots=slots, store=store)
        return run_outside(call, [cond_fun, body_fun], init)
    carry = Carry(leaves, structure)

    def trace(given: list[Abstract]) -> Traced:
        def run_body(*found: Tracer) -> Any:
            return body_fun(structure.build(found))

        return trace_region(body_fun, run_body, given, carry.paths)

    def run_test(*found: Tracer) -> Any:
        return cond_fun(structure.build(found))

    body, given, initial = settle("while_loop", carry, trace, lambda out: out)
    test = trace_region(cond_fun, run_test, given, carry.paths)
    _need_test(test)
    return structure.build(_emit_while(test, body, given, initial, _slots(given, slots, store)))


def _slots(given: list[Abstract], slots: int | None, store: str) -> int | None:
    """The number of checkpoints; None where all is kept."""
    if store == "grow":
        return None
    return default_slots(g.aval for g in given) if slots is None else slots


def _emit_while(
    test: Traced, body: Traced, given: list[Abstract], initial: list[Any], slots: int | None
) -> list[Tracer]:
    avals = [g.aval for g in given]
    results = emit(
        "while",
        *map(operand_of, test.captured),
        *map(operand_of, body.captured),
        *initial,
        regions=(region_of(test, [aval("bool")]), region_of(body, avals)),
        tests=len(test.captured),
        consts=len(body.captured),
        slots=slots,
    )
    return results_of(results, [g.weak for g in given])


def _checked(store: str | None, slots: int | None, what: str) -> str:
    """The store that a loop uses; raises where store and slots make no sense."""
    if store is None:
        store = default_store() if slots is None else "slots"
    checked_store(store, what)
    if slots is None:
        return store
    if store == "grow":
        raise UsageError(
            f"{what} with store='grow' keeps all that it needs; slots={slots!r} says otherwise",
            location=line(),
            hint="leave out one of them",
        )
    if not isinstance(slots, int) or slots < LEAST_SLOTS:
        raise UsageError(
            f"slots of {what} is {slots!r}; needs an int, at least {LEAST_SLOTS}",
            location=line(),
        )
    return store


def _need_test(test: Traced) -> None:
    """Raises unless the test gives one boolean and writes nothing."""
    refuse_writes(test, "the test of while_loop", "do it in the body, and return it")
    avals = test.graph.output_avals[: test.num_results]
    if avals == (aval("bool"),):
        return
    if len(avals) != 1:
        hint = "return the test alone: what else is computed belongs into the body"
    elif not avals[0].shape:
        hint = "compare (x > 0); the test is the first function, the body the second"
    else:
        hint = "compare (x > 0), and reduce arrays with np.any or np.all"
    found = str(avals[0]) if len(avals) == 1 else f"{len(avals)} arrays"
    raise DtypeError(
        f"the test of while_loop gives {found}; needs one boolean", location=line(), hint=hint
    )


def fori_loop(
    lower: Any,
    upper: Any,
    body_fun: Function,
    init: Any,
    *,
    slots: int | None = None,
    store: str | None = None,
) -> Any:
    """Runs ``carry = body_fun(i, carry)`` for ``i`` from ``lower`` up to but not ``upper``.

    With Python ints as bounds this is a :func:`diffc.scan`, whose reverse mode keeps what it needs
    of each step; so it is, with traced bounds, for ``store="grow"``, in memory that the run takes
    as soon as it knows the bounds. Else it is a :func:`diffc.while_loop`.

    Args:
        lower: the first index, an integer.
        upper: the index after the last one; if it is not above ``lower``, there are no steps.
        body_fun: takes the index and the carry; as the body of :func:`diffc.while_loop`.
        init: the first carry, a pytree of arrays and numbers.
        slots: as for :func:`diffc.while_loop`, for traced bounds.
        store: the same.

    Returns:
        The last carry.

    Raises:
        DtypeError: a bound is no integer.
        ShapeError, UsageError, ExecutionError: as :func:`diffc.while_loop`.

    Example:
        >>> import numpy as np, diffc
        >>> diffc.fori_loop(0, 10, lambda i, total: total + i, 0)
        array(45)
    """
    need_function(body_fun, "the body of fori_loop")
    need_arguments(body_fun, 2, "the body of fori_loop", "the index and the carry")
    store = _checked(store, slots, "fori_loop")
    lower, upper = _bound(lower, "lower"), _bound(upper, "upper")
    leaves, structure = flat(init, "init")
    if not active():
        static = isinstance(lower, int) and isinstance(upper, int)
        if static:
            return run_outside(lambda f, init: fori_loop(lower, upper, f, init), [body_fun], init)

        def counted(f: Function, lower: Any, upper: Any, init: Any) -> Any:
            return fori_loop(lower, upper, f, init, slots=slots, store=store)

        return run_outside(counted, [body_fun], lower, upper, init)
    carry = Carry([lower, *leaves], structure, own=("i",))

    def run_body(i: Any, *found: Tracer) -> Any:
        return i + 1, body_fun(i, structure.build(found))

    def trace(given: list[Abstract]) -> Traced:
        return trace_region(body_fun, run_body, given, carry.paths)

    part = lambda out: out.children[1]  # noqa: E731  # the user's carry
    if isinstance(lower, int) and isinstance(upper, int):
        steps = max(upper - lower, 0)
        results, _ = emit_scan("fori_loop", carry, trace, part, [], steps)
        return structure.build(results[1:])
    if store == "grow":
        count = _difference(lower, upper)
        results, _ = emit_scan("fori_loop", carry, trace, part, [], GROWING, count=count)
        return structure.build(results[1:])
    body, given, initial = settle("fori_loop", carry, trace, part)

    def run_test(i: Any, *found: Tracer) -> Any:
        return i < upper

    test = trace_region(run_test, run_test, given, carry.paths)
    slots = _slots(given, slots, store)
    return structure.build(_emit_while(test, body, given, initial, slots)[1:])


def _difference(lower: Any, upper: Any) -> Tracer:
    """How far the upper bound is from the lower one, an i64; negative where it is below."""
    first, last = (emit("convert", bound, dtype="i64")[0] for bound in (lower, upper))
    return emit("sub", last, first)[0]


def _bound(bound: Any, name: str) -> Any:
    """A bound as a Python int or an integer array without axes."""
    if isinstance(bound, np.integer):
        bound = operator.index(bound)
    leaf = as_leaf(bound, f"the {name} bound of fori_loop")
    found = abstract_leaf(leaf, f"the {name} bound of fori_loop").aval
    if kind_of(found) != "int":
        raise DtypeError(
            f"the {name} bound of fori_loop is {found}; needs an integer",
            location=line(),
            hint="convert it with int() or astype(int)",
        )
    if found.shape:
        raise ShapeError(
            f"the {name} bound of fori_loop is {found}; needs one integer", location=line()
        )
    return leaf
