"""What users read: the whole text, with their own line."""

import pathlib
from typing import NamedTuple

import numpy as np
import pytest

import diffc
from diffc.errors import DiffcError, TraceError, UsageError

X = np.arange(6.0).reshape(2, 3)
W = np.ones((3, 2))
HERE = pathlib.Path(__file__)
LEAKED = []


def line_of(marker):
    lines = enumerate(HERE.read_text().splitlines(), 1)
    (found,) = (n for n, text in lines if text.endswith(f"  # {marker}"))
    return f"{HERE}:{found}"


def shape_mismatch(x):
    return x + W  # add


def product_mismatch(x):
    return x @ X  # product


def branch(x):
    if np.sum(x) > 0:  # branch
        return x
    return -x


def loop(x):
    while x[0, 0] < 3:  # while
        x = x + 1
    return x


def python_float(x):
    return np.full(3, float(x[0, 0]))  # float


def unknown(x):
    return np.linalg.svd(x)  # unknown


def captured_write(x):
    W[0] = 3.0  # write
    return x @ W


def numpy_random(x):
    return x + np.random.normal(size=3)  # random


def leak(x):
    LEAKED.append(x * 2)  # leak
    return x


def use_leaked(x):
    return x + LEAKED[-1]  # leaked


def mask(x):
    return x[x > 1] @ x[x > 1]  # mask


def reshape(x):
    return x.reshape(4, 2)  # reshape


def take(x, i):
    return x[:, i]  # take


def size(x, n):
    return x + np.zeros(n)  # size


def identity(x):
    return x


def mean_square(x):
    return np.mean(x * x)


def scan_shape(x):
    return diffc.scan(lambda c, r: (c[:1], r), np.zeros(3), x)  # scan


def text_result(x):
    return {"a": [x, "text"]}


CASES = {
    "add": (diffc.jit(shape_mismatch), (X,)),
    "product": (diffc.jit(product_mismatch), (X,)),
    "branch": (diffc.jit(branch), (X,)),
    "while": (diffc.jit(loop), (X,)),
    "float": (diffc.jit(python_float), (X,)),
    "unknown": (diffc.jit(unknown), (X,)),
    "write": (diffc.jit(captured_write), (X,)),
    "random": (diffc.jit(numpy_random), (X,)),
    "mask": (diffc.jit(mask), (X,)),
    "reshape": (diffc.jit(reshape), (X,)),
    "size": (diffc.jit(size), (X, 3)),
    "scan": (diffc.jit(scan_shape), (X,)),
    "integers": (diffc.grad(mean_square), (np.arange(3),)),
    "tree": (diffc.grad(lambda p: p["a"][0]), ({"a": [3]},)),
    "no scalar": (diffc.grad(identity), (X,)),
    "no float": (diffc.grad(lambda x: np.argmax(x)), (X[0],)),
    "argnums": (diffc.grad(mean_square, 2), (X,)),
    "bounds": (diffc.jit(take), (X, np.array([0, 3]))),
    "complex": (diffc.jit(identity), (X.astype(complex),)),
    "text": (diffc.jit(identity), ("text",)),
    "texts": (diffc.jit(identity), (np.array(["a"]),)),
    "result": (diffc.jit(text_result), (X,)),
}

REDUCE = "reduce it with np.sum or np.mean, or use diffc.vjp"
KNOWN = "diffc knows bool, i8, i16, i32, i64, u8, u16, u32, u64, bf16, f16, f32, f64"
FLOATS = "pass floats (2.0, x.astype(float)), or leave it out of argnums"
STATIC = "pass an array, or make it static: jit(f, static_argnums=...)"
CONTROL = (
    "choose between arrays with np.where(condition, a, b); make a Python number that decides a "
    "static argument (static_argnums); for control flow on traced values use "
    "@diffc.jit(control_flow=True), or diffc.cond, diffc.while_loop and diffc.scan"
)

#: type, message, marker of the user's line ("call": the line that calls), hint
TEXTS = {
    "add": (
        "ShapeError",
        "np.add: shapes (2, 3) and (3, 2) do not broadcast (3 against 2)",
        "add",
        "axes are matched from the last; of each pair both are equal, or one is 1",
    ),
    "product": (
        "ShapeError",
        "np.matmul: f64[2,3] and f64[2,3] do not fit: the last axis of the first has 3, "
        "the rows of the second are 2",
        "product",
        None,
    ),
    "branch": (
        "ValueNeeded",
        "the traced array bool[], made by gt at {at}, has no value yet, but the code asks for "
        "a truth value (if, while, and, or, not, min, max)",
        "branch",
        CONTROL,
    ),
    "while": (
        "ValueNeeded",
        "the traced array bool[], made by lt at {at}, has no value yet, but the code asks for "
        "a truth value (if, while, and, or, not, min, max)",
        "while",
        CONTROL,
    ),
    "float": (
        "ValueNeeded",
        "the traced array f64[], made by reshape at {at}, has no value yet, but the code asks "
        "for a Python float (float(), math.*)",
        "float",
        "use the functions of np instead of math or float(): np.exp(x), x.astype(np.float64); "
        "an array that is written to must be made inside the function, or be an argument",
    ),
    "unknown": (
        "TraceError",
        "np.linalg.svd can't be traced",
        "unknown",
        "write it with other functions of np, or call it outside the traced function; "
        "diffc.numpy lists what can be traced",
    ),
    "write": (
        "TraceError",
        "in-place write to a captured array: it was made outside the traced function",
        "write",
        "pass the array as an argument (then the write is done), or write into a copy",
    ),
    "random": (
        "TraceError",
        "np.random.normal within a traced function would draw once, when it is traced",
        "random",
        "use diffc.random with a key that is an argument, or draw outside and pass the array",
    ),
    "mask": (
        "TraceError",
        "selecting elements by a mask bool[2,3] gives a shape that depends on values",
        "mask",
        "use np.where(mask, x, 0), or np.flatnonzero(mask) outside the traced function; "
        "elementwise operations, sum, mean, min, max and assignment by the same mask do work",
    ),
    "reshape": (
        "ShapeError",
        "cannot reshape f64[2,3] with 6 elements into (4, 2)",
        "reshape",
        None,
    ),
    "size": (
        "ValueNeeded",
        "the traced array 'n' i64[] has no value yet, but the code asks for a Python int "
        "(index, range or shape)",
        "size",
        "sizes must not depend on traced values: pass them as static arguments "
        "(static_argnums); loop over traced bounds with @diffc.jit(control_flow=True) or "
        "diffc.fori_loop; index arrays made outside with np.take(a, i)",
    ),
    "scan": (
        "ShapeError",
        "carry of a scan starts as f64[3] and comes back as f64[1]",
        "scan",
        "start from an array of the shape and dtype that the step returns",
    ),
    "integers": (
        "DtypeError",
        "a gradient by x is asked for, which is i64[3]; only floats have gradients",
        "call",
        FLOATS,
    ),
    "tree": (
        "DtypeError",
        "a gradient by p['a'][0] is asked for, which is i64[]; only floats have gradients",
        "call",
        FLOATS,
    ),
    "no scalar": (
        "ShapeError",
        "grad needs a function of one float scalar; identity returns f64[2,3]",
        "call",
        REDUCE,
    ),
    "no float": (
        "ShapeError",
        "grad needs a function of one float scalar; lambda returns i64[]",
        "call",
        REDUCE,
    ),
    "argnums": (
        "UsageError",
        "argnums of grad names argument 2, but there are 1",
        "call",
        "argnums counts positional arguments from 0; argnames takes names",
    ),
    "bounds": (
        "ExecutionError",
        "gather: index out of bounds of f64[2,3]: axis 1 needs 0 <= index < 3",
        "take",
        None,
    ),
    "complex": ("DtypeError", f"x: dtype complex128 is not supported; {KNOWN}", "call", None),
    "text": ("UsageError", "x is a str, neither an array nor a number: 'text'", "call", STATIC),
    "texts": ("DtypeError", f"x: dtype <U1 is not supported; {KNOWN}", "call", None),
    "result": (
        "TraceError",
        "result['a'][1] is a str, neither an array nor a number: 'text'",
        "call",
        "return arrays, numbers, and containers of them",
    ),
}


def text_of(message, marker, hint):
    at = line_of(marker)
    text = f"{message.format(at=at)}\n  at {at}"
    return text if hint is None else f"{text}\n  hint: {hint}"


def test_there_is_a_text_for_each_case():
    assert TEXTS.keys() == CASES.keys()


@pytest.mark.parametrize("name", CASES)
def test_text(name):
    function, args = CASES[name]
    kind, message, marker, hint = TEXTS[name]
    with pytest.raises(DiffcError) as info:
        function(*args)  # call
    assert str(info.value) == text_of(message, marker, hint)
    assert type(info.value).__name__ == kind


def test_nested_arguments_are_named():
    with pytest.raises(DiffcError, match=r"^p\['a'\]\[1\] is a set, neither"):
        diffc.jit(lambda p, *rest: p)({"a": [1.0, {2}]})
    with pytest.raises(DiffcError, match=r"^key\.x: dtype complex64"):
        diffc.jit(lambda *, key: key)(key=Pair(np.ones(2, np.complex64), 1.0))


class Pair(NamedTuple):
    x: object
    y: object


def test_a_leaked_tracer_names_where_it_was_made():
    diffc.jit(leak)(X)
    with pytest.raises(DiffcError) as info:
        diffc.jit(use_leaked)(X)
    assert str(info.value) == (
        f"the traced array f64[2,3], made at {line_of('leak')}, leaked out of the trace of "
        f"'leak', which has ended\n  at {line_of('leaked')}\n  hint: return it from the function "
        "instead of storing it in a global, list or attribute"
    )


def test_errors_are_those_that_numpy_raises_too():
    with pytest.raises(ValueError, match="broadcast"):
        diffc.jit(shape_mismatch)(X)
    with pytest.raises(IndexError):
        diffc.jit(lambda x: x[5])(X)
    np.testing.assert_array_equal(W, np.ones((3, 2)))  # nobody wrote to it


@pytest.mark.filterwarnings("ignore:the matrix subclass")
@pytest.mark.parametrize("kind", [np.matrix, np.ma.masked_array])
def test_arrays_that_compute_otherwise(kind):
    """Their products and sums would silently be those of plain arrays."""
    own = kind(np.eye(2))
    with pytest.raises(UsageError, match="does not compute as arrays do"):
        diffc.jit(lambda x: x * x)(own)
    with pytest.raises(TraceError, match="does not compute as arrays do"):
        diffc.jit(lambda x: np.sum(own) * x)(2.0)
    np.testing.assert_array_equal(diffc.jit(lambda x: x * x)(np.asarray(own)), np.eye(2))


def test_integers_beyond_64_bits():
    function = diffc.jit(lambda x: x * 2)
    for _ in range(2):
        with pytest.raises(UsageError, match="argument 0 is a number that int64 can't hold"):
            function(2**63)
    assert function(2**62 - 1) == 2**63 - 2
