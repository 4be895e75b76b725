"""Ways to misuse control flow, and what users read then: the whole text, with their own line."""

import pathlib
from typing import NamedTuple

import numpy as np
import pytest

import diffc
from diffc.errors import DiffcError

HERE = pathlib.Path(__file__)
X = np.arange(3.0)
OUTER = np.zeros(3)


def line_of(marker):
    lines = enumerate(HERE.read_text().splitlines(), 1)
    (found,) = (n for n, text in lines if text.endswith(f"  # {marker}"))
    return f"{HERE}:{found}"


class Case(NamedTuple):
    function: object
    args: tuple
    error: str
    message: str
    marker: str
    hint: str | None


def predicate(x):
    return diffc.cond(x, np.sin, np.cos, x)  # predicate


def number_as_predicate(x):
    return diffc.cond(np.sum(x), np.sin, np.cos, x)  # number


def structures(x):
    return diffc.cond(x[0] > 0, lambda: {"a": x, "b": x}, lambda: {"a": x, "c": x})  # structures


def shapes(x):
    p = {"w": x}
    return diffc.cond(x[0] > 0, lambda: p, lambda: {"w": p["w"][:2]})  # shapes


def dtypes(x):
    return diffc.cond(x[0] > 0, lambda: (x, 1), lambda: (x, x[0].astype(np.float32)))  # dtypes


def too_wide(x):
    return diffc.switch(np.int32(1), [lambda: 0.5, lambda: np.int32(3)])  # wide


def in_place(x):
    def double():
        x[:] = x * 2
        return x

    return diffc.cond(x[0] > 0, double, lambda: x)  # in place


def operand_in_place(x):
    def double(y):
        y[0] = 1.0
        return y

    return diffc.switch(0, [lambda y: y, double], x)  # operand


def float_index(x):
    return diffc.switch(x[0], [np.sin, np.cos], x)  # index


def no_branches(x):
    return diffc.switch(0, [], x)  # no branches


def no_function(x):
    return diffc.cond(True, x, np.cos)  # no function


def carry_shape(x):
    return diffc.while_loop(lambda c: c["n"] < 3, grown, {"n": 0, "x": x})  # carry shape


def grown(c):
    return {"n": c["n"] + 1, "x": np.append(c["x"], 1.0)}


def carry_dtype(x):
    start = (x, np.float32(0))
    return diffc.while_loop(lambda c: c[1] < 3, lambda c: (c[0], c[1] + c[0][0]), start)  # dtype


def carry_structure(x):
    return diffc.while_loop(lambda c: c[0] < 3, lambda c: (c[0] + 1, c[1], x), (0, x))  # tree


def array_test(x):
    return diffc.while_loop(lambda c: c < 3, lambda c: c + 1, x)  # test


def two_tests(x):
    return diffc.while_loop(lambda c: (c < 3, c), lambda c: c + 1, x[0])  # two


def writing_body(x):
    total = np.zeros(3)

    def body(i, c):
        total[0] = c
        return c + 1

    return diffc.fori_loop(0, 3, body, x[0])  # writing


def writing_captured(x):
    def body(i, c):
        OUTER[0] = c  # captured
        return c + 1

    return diffc.fori_loop(0, 3, body, x[0])


def writing_test(x):
    def test(c):
        c[0] += 1
        return c[0] < 3

    return diffc.while_loop(test, lambda c: c, x)  # writing test


def float_bound(x):
    return diffc.fori_loop(0, x[0], lambda i, c: c, x)  # bound


def array_bound(x):
    return diffc.fori_loop(np.arange(3), 4, lambda i, c: c, x)  # array bound


def growing(x):
    return diffc.while_loop(lambda c: c < 3, lambda c: c + 1, x[0], store="grow")  # grow


def few_slots(x):
    return diffc.while_loop(lambda c: c < 3, lambda c: c + 1, x[0], slots=1)  # slots


def uneven(x):
    return diffc.map(lambda r: r[0] + r[1], (x, x[:2]))  # uneven


def scalar_map(x):
    return diffc.map(lambda r: r, {"a": x[0]})  # scalar map


def narrowing(x):
    return diffc.associative_scan(lambda a, b: np.sum(a + b), x)  # narrowing


def wrong_axis(x):
    return diffc.associative_scan(np.add, {"a": x}, axis=1)  # axis


def branch_on_value(x):
    return diffc.fori_loop(0, 3, lambda i, c: c if c > 0 else -c, x[0])  # python if


def leaking(x):
    kept = []
    diffc.fori_loop(0, 3, lambda i, c: kept.append(c) or c, x[0])
    return kept[0] + 1  # leak


COMPARE = "compare (x > 0), and reduce arrays with np.any or np.all"
ONE_BOOLEAN = COMPARE + "; to choose for each element use np.where"
SAME = "all branches give the same shapes and dtypes; convert with astype"
START = "start from an array of the shape and dtype that the step returns"
CARRY = "return the new array as part of the carry"

CASES = {
    "predicate": Case(
        predicate,
        (X,),
        "DtypeError",
        "the predicate of cond is f64[3]; needs one boolean",
        "predicate",
        ONE_BOOLEAN,
    ),
    "number": Case(
        number_as_predicate,
        (X,),
        "DtypeError",
        "the predicate of cond is f64[]; needs one boolean",
        "number",
        ONE_BOOLEAN,
    ),
    "structures": Case(
        structures,
        (X,),
        "ShapeError",
        "the false branch and the true branch of cond give different structures: at result: "
        "expected a dict with keys 'a', 'c', found a dict with keys 'a', 'b'",
        "structures",
        "return the same containers from all branches",
    ),
    "shapes": Case(
        shapes,
        (X,),
        "ShapeError",
        "result['w'] of cond is f64[2] from the false branch and f64[3] from the true branch",
        "shapes",
        SAME,
    ),
    "wide": Case(
        too_wide,
        (X,),
        "ShapeError",
        "result of switch is i32[] from branch 1 and f64[] from branch 0",
        "wide",
        SAME,
    ),
    "in place": Case(
        in_place,
        (X,),
        "UsageError",
        "the true branch of cond writes to an array that is not its own",
        "in place",
        "return the new array instead",
    ),
    "operand": Case(
        operand_in_place,
        (X,),
        "UsageError",
        "branch 1 of switch writes to an array that is not its own",
        "operand",
        "return the new array instead",
    ),
    "index": Case(
        float_index,
        (X,),
        "DtypeError",
        "the index of switch is f64[]; needs one integer",
        "index",
        "convert it with astype(int), or use diffc.cond for a boolean",
    ),
    "no branches": Case(
        no_branches,
        (X,),
        "UsageError",
        "switch needs a sequence of functions, found []",
        "no branches",
        None,
    ),
    "no function": Case(
        no_function,
        (X,),
        "UsageError",
        "the true branch of cond is a Tracer, not a function",
        "no function",
        None,
    ),
    "carry shape": Case(
        carry_shape,
        (X,),
        "ShapeError",
        "carry['x'] of while_loop starts as f64[3] and comes back as f64[4]",
        "carry shape",
        START,
    ),
    "dtype": Case(
        carry_dtype,
        (X,),
        "ShapeError",
        "carry[1] of while_loop starts as f32[] and comes back as f64[]",
        "dtype",
        START,
    ),
    "tree": Case(
        carry_structure,
        (X,),
        "ShapeError",
        "the carry of while_loop changes its structure: at carry: expected a tuple of length 2, "
        "found a tuple of length 3",
        "tree",
        None,
    ),
    "test": Case(
        array_test,
        (X,),
        "DtypeError",
        "the test of while_loop gives bool[3]; needs one boolean",
        "test",
        COMPARE,
    ),
    "two": Case(
        two_tests,
        (X,),
        "DtypeError",
        "the test of while_loop gives 2 arrays; needs one boolean",
        "two",
        COMPARE,
    ),
    "writing": Case(
        writing_body,
        (X,),
        "UsageError",
        "the body of fori_loop writes to an array that is not its own",
        "writing",
        CARRY,
    ),
    "writing test": Case(
        writing_test,
        (X,),
        "UsageError",
        "the test of while_loop writes to an array that is not its own",
        "writing test",
        "do it in the body, and return it",
    ),
    "bound": Case(
        float_bound,
        (X,),
        "DtypeError",
        "the upper bound of fori_loop is f64[]; needs an integer",
        "bound",
        "convert it with int() or astype(int)",
    ),
    "array bound": Case(
        array_bound,
        (X,),
        "ShapeError",
        "the lower bound of fori_loop is i64[3]; needs one integer",
        "array bound",
        None,
    ),
    "grow": Case(
        growing,
        (X,),
        "UsageError",
        "while_loop can't keep all carries yet (store='grow')",
        "grow",
        "leave out store: reverse mode then computes carries again from some of them "
        "(slots=...); or use diffc.scan where the number of steps is known",
    ),
    "slots": Case(
        few_slots,
        (X,),
        "UsageError",
        "slots of while_loop is 1; needs an int, at least 2",
        "slots",
        None,
    ),
    "uneven": Case(
        uneven,
        (X,),
        "ShapeError",
        "map runs 3 steps, but xs[1] has leading length 2",
        "uneven",
        None,
    ),
    "scalar map": Case(
        scalar_map,
        (X,),
        "ShapeError",
        "xs['a'] is a scalar; map runs over a leading axis",
        "scalar map",
        None,
    ),
    "narrowing": Case(
        narrowing,
        (X,),
        "ShapeError",
        "result of the function of associative_scan is f64[] for elements f64[1]",
        "narrowing",
        "it combines blocks of elements one by one, and keeps shapes and dtypes",
    ),
    "axis": Case(
        wrong_axis,
        (X,),
        "ShapeError",
        "associative_scan names axis 1 of elems['a'], which has 1 axes",
        "axis",
        None,
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_text(name):
    case = CASES[name]
    with pytest.raises(DiffcError) as caught:
        diffc.jit(case.function)(*case.args)
    lines = [case.message, f"  at {line_of(case.marker)}"]
    if case.hint is not None:
        lines.append(f"  hint: {case.hint}")
    assert str(caught.value) == "\n".join(lines)
    assert type(caught.value).__name__ == case.error


def test_dtypes_that_fit_are_no_error():
    found = diffc.jit(dtypes)(X)
    assert found[1].dtype == np.float32


@pytest.mark.parametrize(
    ("function", "marker", "words"),
    [
        (writing_captured, "captured", "captured array"),
        (branch_on_value, "python if", "has no value yet"),
        (leaking, "leak", "leaked out of the trace"),
    ],
)
def test_errors_of_the_trace_name_the_line_within(function, marker, words):
    with pytest.raises(DiffcError, match=words) as caught:
        diffc.jit(function)(X)
    assert caught.value.location == line_of(marker)


@pytest.mark.parametrize("name", ["predicate", "carry shape", "test", "operand"])
def test_the_same_outside_jit(name):
    case = CASES[name]
    with pytest.raises(DiffcError, match=r"needs one boolean|starts as|not its own") as caught:
        case.function(*case.args)
    assert caught.value.location == line_of(case.marker)
