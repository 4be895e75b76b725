"""What control_flow=True can't turn: the message, the user's line, and the repair."""

from __future__ import annotations

import pathlib

import ml_dtypes
import numpy as np
import pytest

import diffc
from diffc.errors import TraceError, UsageError

X = np.array([1.0, 2.0, 3.0])
LINES = pathlib.Path(__file__).read_text().splitlines()
COUNT = 0


def line_of(mark):
    return next(i for i, line in enumerate(LINES, 1) if line.endswith(f"# {mark}"))


def refused(function, *args, error=TraceError):
    with pytest.raises(error) as info:
        diffc.jit(function, control_flow=True)(*args)
    return info.value


def check(error, message, mark, hint):
    assert error.message == message
    assert error.location == f"{__file__}:{line_of(mark)}"
    assert hint in error.hint


def test_a_variable_of_one_branch():
    def f(x):
        if x > 0:  # one
            y = 1.0
        return y  # one used

    check(
        refused(f, 1.0),
        f"the variable 'y' may have no value here: the `if` in {__file__}:{line_of('one')} gives "
        "it none where its condition is false",
        "one used",
        f"give 'y' a value before the `if` in line {line_of('one')}",
    )


def test_a_variable_of_the_loop():
    def f(x):
        while x > 0:  # loop
            t = x * 2
            x = x - 1
        return t + 1  # loop used

    check(
        refused(f, 1.0),
        f"the variable 't' may have no value here: the loop in {__file__}:{line_of('loop')} gives "
        "it one only if it makes a trip",
        "loop used",
        "before the `while`",
    )


def test_a_variable_that_a_trip_reads_first():
    def f(x):
        while x > 0:
            x = x - t  # noqa: F821  # first
            t = x  # noqa: F841
        return x

    error = refused(f, 1.0)
    assert error.message.startswith("the variable 't' may have no value here")
    assert error.location == f"{__file__}:{line_of('first')}"


def test_a_variable_that_never_has_a_value_is_pythons_error():
    def f(x, flag=False):
        if flag:
            y = 1.0
        return y if x > 0 else x

    with pytest.raises(NameError, match="'y'"):
        diffc.jit(f, control_flow=True)(1.0)


def test_shapes_and_dtypes_of_branches():
    def f(x):
        if x > 0:  # shapes
            y = np.zeros(3)
        else:
            y = np.zeros(2)
        return y

    check(
        refused(f, 1.0),
        "y is f64[3] where the condition is true, and f64[2] where it is false",
        "shapes",
        "one shape, dtype and structure",
    )

    def g(x):
        return x.sum() if x[0] > 0 else x.astype(np.float32).sum()

    assert "is f64[] where the condition is true, and f32[]" in refused(g, X).message


def test_objects_of_branches():
    def f(x):
        name = "a"
        if x > 0:
            name = "b"
        return x if name == "a" else -x

    message = refused(f, 1.0).message
    assert message == "name is 'b' where the condition is true, and 'a' where it is false"


def test_returned_structures():
    def f(x):
        if x > 0:
            return x
        return x, 1

    def g(x):
        if x > 0:
            return x

    assert "result differs between the branches of the `if`" in refused(f, 1.0).message
    assert "a value on one path and None on the other" in refused(g, 1.0).message


def test_carried_values_keep_their_kind():
    def f(n):
        total = 0
        for _ in range(n):  # kind
            total = total + np.ones(3)
        return total

    check(
        refused(f, 3),
        "total is a Python int before the loop, and f64[3] after a trip",
        "kind",
        "np.zeros",
    )

    def g(x):
        p = (x, x)
        while x > 0:
            p = (x,)
            x = x - 1
        return p

    assert "p changes its structure in a trip of the loop" in refused(g, 1.0).message


def test_lists_dicts_and_sets_in_loops():
    def f(x):
        out = []
        while x > 0:  # list
            out.append(x)  # list changed
            x = x - 1
        return x

    line = line_of("list")
    check(
        refused(f, 1.0),
        f"a traced value steers the `while` in line {line}, which changes the list 'out' in place",
        "list changed",
        "np.zeros",
    )

    def g(x):
        found = {}
        if x > 0:
            found["x"] = x
        return x

    assert "changes the dict 'found' in place" in refused(g, 1.0).message


def test_raise():
    def f(x):
        if x < 0:  # raise
            raise ValueError("negative")  # raised
        return x

    line = line_of("raise")
    check(
        refused(f, 1.0),
        f"a traced value steers the `if` in line {line}, which contains a `raise`: whether it "
        "happens is known only at run time",
        "raised",
        "return a flag",
    )

    def fine(x, n=3):
        if n < 0:
            raise ValueError("negative")
        return x if x > 0 else -x

    assert diffc.jit(fine, control_flow=True)(-1.0) == 1.0


def test_attributes_and_outer_variables():
    class Box:
        value = 0.0

    def f(x):
        box = Box()
        if x > 0:
            box.value = x  # attribute
        return x

    def g(x):
        global COUNT
        if x > 0:
            COUNT = x  # global
        return x

    def h(x):
        total = 0.0

        def add(v):
            nonlocal total
            if v > 0:
                total = total + v  # nonlocal

        add(x)
        return total

    error = refused(f, 1.0)
    assert error.message.endswith("contains an assignment to the attribute `box.value`")
    assert error.location.endswith(f":{line_of('attribute')}")
    for function, mark in ((g, "global"), (h, "nonlocal")):
        error = refused(function, 1.0)
        assert "which is a variable of an outer scope" in error.message
        assert error.location.endswith(f":{line_of(mark)}")
    assert COUNT == 0


@pytest.mark.parametrize("x", [1.0, -1.0])
def test_jumps_out_of_with_and_try(x):
    def f(x):
        with np.errstate(all="ignore"):
            if x > 0:  # with
                return x  # leaves with
        return -x

    def g(x):
        for i in range(3):
            try:
                if x > i:  # try
                    break  # leaves try
            finally:
                pass
        return x

    check(
        refused(f, x),
        f"a traced value steers this `if`, but `return` in line {line_of('leaves with')} leaves a "
        "`with`, `try` or `match`",
        "with",
        "into a function of its own",
    )
    error = refused(g, x)
    assert f"`break` in line {line_of('leaves try')} leaves" in error.message
    assert error.location.endswith(f":{line_of('try')}")


def test_a_walrus_in_a_test():
    def f(x):
        while (y := x * 2) < 10:
            x = x + 1
        return y

    error = refused(f, 1.0)
    assert "assigns with `:=`" in error.message and "before the loop" in error.hint


def test_traced_ranges_elsewhere():
    error = refused(lambda n: [i for i in range(n)], 3)  # noqa: C416
    assert "can only be run over by a `for` statement" in error.message


@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16])
def test_a_range_ends_at_an_integer(dtype):
    def f(n):
        total = 0
        for i in range(n):
            total = total + i
        return total

    error = refused(f, np.asarray(3.5, dtype), error=TypeError)
    assert "and no integer" in str(error)


def test_sizes_and_lists_by_counters():
    def f(x):
        functions = [np.sin, np.cos]
        i = 0
        while x < 1:
            x = functions[i](x)
            i += 1
        return x

    assert "a Python int (index, range or shape)" in refused(f, 0.5).message


def test_what_is_not_converted_at_all():
    def generator(x):
        yield x

    assert "generator" in refused(generator, 1.0).message
    assert "source is not at hand" in refused(eval("lambda x: x"), 1.0).message
    error = refused(np.sin, 1.0, error=UsageError)
    assert "written in Python" in error.message


def test_helpers_without_source_or_with_yield_are_pythons():
    helper = eval("lambda v: v * 2")

    def numbers(n):
        yield from range(n)

    def f(x):
        for k in numbers(2):
            if x > k:
                x = helper(x)
        return x

    assert diffc.jit(f, control_flow=True)(0.75) == 3.0


# --- arrays that may be one -------------------------------------------------------------------


def test_a_write_to_what_may_be_an_argument():
    def f(x):
        y = x * 1
        if x[0] > 0:  # alias
            y = x
        y[0] = 3.0  # alias written
        return y

    check(
        refused(f, X.copy()),
        "an array is written that may be one with another: the statement at "
        f"{__file__}:{line_of('alias')} gives both names one array on some paths",
        "alias written",
        "x.copy()",
    )


def test_a_read_of_what_may_have_been_written():
    def f(x):
        a = x * 1
        y = x * 2
        if x[0] > 0:
            y = a
        y[0] = 3.0
        return a + y  # stale

    error = refused(f, X)
    assert error.message.startswith("an array is read that may be one with another")
    assert error.location.endswith(f":{line_of('stale')}")

    def g(x):
        a = x * 1
        y = x * 2
        if x[0] > 0:
            y = a
        a[0] = 3.0
        return y  # stale too

    assert refused(g, X).message.startswith("an array is read that may be one")


def test_loops_over_names_of_one_array():
    def f(x, n):
        y = x
        for i in range(n):
            x[i] = 0.0
            y = y * 2
        return y

    assert "is assigned in the loop, and the array that it is before" in refused(f, X, 2).message

    def g(x, n):
        a, b = x * 1, x * 2
        for i in range(n):
            b[i] = 3.0
            b = a
        return a

    assert refused(g, X, 2).message.startswith("an array is read that may be one")


def test_arrays_of_their_own_are_written(check_value=np.testing.assert_array_equal):
    def f(x, n):
        out = np.zeros(3)
        if x[0] > 0:
            out = out + 1
        out[0] = 5.0
        for i in range(n):
            out[i] += 1
            out = out * 2
        return out

    for x in (X, -X):
        check_value(diffc.jit(f, control_flow=True)(x, 2), f(x, 2))
