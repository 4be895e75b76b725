"""``while_loop`` and ``fori_loop``."""

from __future__ import annotations

import operator
from typing import Any

import numpy as np

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
    run_outside,
    settle,
    trace_region,
)
from diffc.control.scan import emit_scan
from diffc.errors import DtypeError, ShapeError, UsageError
from diffc.ir.aval import aval
from diffc.leaves import abstract_leaf, as_leaf
from diffc.ops.branching import LEAST_SLOTS, default_slots
from diffc.trace import Abstract, Traced, Tracer, active, emit, line


def while_loop(
    cond_fun: Function,
    body_fun: Function,
    init: Any,
    *,
    slots: int | None = None,
    store: str = "slots",
) -> Any:
    """Runs ``carry = body_fun(carry)`` for as long as ``cond_fun(carry)`` holds, natively.

    It has derivatives in both modes, of any order, and needs no bound. Reverse mode keeps some of
    the carries that the loop passes through (``slots`` of them, however many steps there are) and
    computes those between again.

    Args:
        cond_fun: takes the carry, gives one boolean.
        body_fun: takes the carry, gives one of the same structure, shapes and dtypes. The carry is
            the loop's own: it may be written in place, and ``init`` stays as it is.
        init: the first carry, a pytree of arrays and numbers.
        slots: how many carries reverse mode keeps; more of them need memory, fewer take time.
            By default as many as fit in a megabyte, at least 16 and at most 128.
        store: ``"slots"``. (``"grow"``, to keep all carries, does not exist yet.)

    Returns:
        The last carry.

    Raises:
        ShapeError: the carry changes its structure, shape or dtype.
        DtypeError: ``cond_fun`` doesn't give one boolean.
        UsageError: a function writes to an array from outside.

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
    _need_store(store, slots)
    leaves, structure = flat(init, "init")
    if not active():
        run = lambda init: while_loop(cond_fun, body_fun, init, slots=slots)  # noqa: E731  # what is compiled outside a trace
        return run_outside(run, body_fun, init)
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
    return structure.build(_emit_while(test, body, given, initial, slots))


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
        slots=default_slots(avals) if slots is None else slots,
    )
    return results_of(results, [g.weak for g in given])


def _need_store(store: str, slots: int | None) -> None:
    if store == "grow":
        raise UsageError(
            "while_loop can't keep all carries yet (store='grow')",
            location=line(),
            hint="leave out store: reverse mode then computes carries again from some of them "
            "(slots=...); or use diffc.scan where the number of steps is known",
        )
    if store != "slots":
        raise UsageError(f"while_loop knows store='slots', found {store!r}", location=line())
    if slots is not None and (not isinstance(slots, int) or slots < LEAST_SLOTS):
        raise UsageError(
            f"slots of while_loop is {slots!r}; needs an int, at least {LEAST_SLOTS}",
            location=line(),
        )


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
    lower: Any, upper: Any, body_fun: Function, init: Any, *, slots: int | None = None
) -> Any:
    """Runs ``carry = body_fun(i, carry)`` for ``i`` from ``lower`` up to but not ``upper``.

    With Python ints as bounds this is a :func:`diffc.scan`, whose reverse mode keeps what it needs
    of each step; with traced bounds it is a :func:`diffc.while_loop`.

    Args:
        lower: the first index, an integer.
        upper: the index after the last one; if it is not above ``lower``, there are no steps.
        body_fun: takes the index and the carry; as the body of :func:`diffc.while_loop`.
        init: the first carry, a pytree of arrays and numbers.
        slots: as for :func:`diffc.while_loop`, for traced bounds.

    Returns:
        The last carry.

    Raises:
        DtypeError: a bound is no integer.
        ShapeError, UsageError: as :func:`diffc.while_loop`.

    Example:
        >>> import numpy as np, diffc
        >>> diffc.fori_loop(0, 10, lambda i, total: total + i, 0)
        array(45)
    """
    need_function(body_fun, "the body of fori_loop")
    need_arguments(body_fun, 2, "the body of fori_loop", "the index and the carry")
    _need_store("slots", slots)
    lower, upper = _bound(lower, "lower"), _bound(upper, "upper")
    leaves, structure = flat(init, "init")
    if not active():
        static = isinstance(lower, int) and isinstance(upper, int)
        if static:
            run = lambda init: fori_loop(lower, upper, body_fun, init)  # noqa: E731  # what is compiled outside a trace
            return run_outside(run, body_fun, init)
        traced = lambda lower, upper, init: fori_loop(  # noqa: E731  # what is compiled outside a trace
            lower, upper, body_fun, init, slots=slots
        )
        return run_outside(traced, body_fun, lower, upper, init)
    carry = Carry([lower, *leaves], structure, own=("i",))

    def run_body(i: Any, *found: Tracer) -> Any:
        return i + 1, body_fun(i, structure.build(found))

    def trace(given: list[Abstract]) -> Traced:
        return trace_region(body_fun, run_body, given, carry.paths)

    if isinstance(lower, int) and isinstance(upper, int):
        steps = max(upper - lower, 0)
        results, _ = emit_scan("fori_loop", carry, trace, lambda out: out.children[1], [], steps)
        return structure.build(results[1:])
    body, given, initial = settle("fori_loop", carry, trace, lambda out: out.children[1])

    def run_test(i: Any, *found: Tracer) -> Any:
        return i < upper

    test = trace_region(run_test, run_test, given, carry.paths)
    return structure.build(_emit_while(test, body, given, initial, slots)[1:])


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
