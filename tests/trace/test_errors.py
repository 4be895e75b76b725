"""What users read when code can't be traced: the text, their own line, and the repair."""

from __future__ import annotations

import collections
import math
import pathlib
import threading

import numpy as np
import pytest

from diffc.errors import DtypeError, ShapeError, TraceError
from diffc.trace import ValueNeeded, trace

X = np.arange(6.0).reshape(2, 3)
W = np.ones((3, 2))
HERE = pathlib.Path(__file__)


def line_of(text):
    lines = HERE.read_text().splitlines()
    return f"{__file__}:{next(i for i, line in enumerate(lines, 1) if text in line)}"


def raised(function, *args, error=TraceError):
    with pytest.raises(error) as info:
        trace(function, args)
    return info.value


def check_text(error, message, marker):
    assert str(error).splitlines()[0] == message
    assert error.location == line_of(marker)
    assert error.hint


def test_branch():
    def f(x):
        if x.sum() > 0:  # branch
            return x
        return -x

    error = raised(f, X, error=ValueNeeded)
    made = line_of("# branch")
    check_text(
        error,
        f"the traced array bool[], made by gt at {made}, has no value yet, but the code asks for "
        "a truth value (if, while, and, or, not, min, max)",
        "# branch",
    )
    assert "np.where" in error.hint and "static_argnums" in error.hint


def test_float():
    def f(x):
        return math.exp(x)  # float

    check_text(
        raised(f, 1.0, error=ValueNeeded),
        "the traced array 'x' f64[] has no value yet, but the code asks for a Python float "
        "(float(), math.*)",
        "# float",
    )


def test_size():
    def f(x, n):
        return x + np.zeros(n)  # size

    check_text(
        raised(f, X, 3, error=ValueNeeded),
        "the traced array 'n' i64[] has no value yet, but the code asks for a Python int "
        "(index, range or shape)",
        "# size",
    )


def test_size_within_a_tuple():
    raised(lambda x, n: x + np.zeros((n, 3)), X, 2, error=ValueNeeded)
    raised(lambda x, n: x.reshape(n, -1), X, 2, error=ValueNeeded)
    assert "no shape" in str(raised(lambda x: np.zeros("a"), X))


def test_item_and_list():
    assert ".item()" in str(raised(lambda x: x[0, 0].item(), X))
    assert ".tolist()" in str(raised(lambda x: x.tolist(), X))


def test_shapes():
    def f(x, w):
        return x + w  # shapes

    check_text(
        raised(f, X, W, error=ShapeError),
        "np.add: shapes (2, 3) and (3, 2) do not broadcast (3 against 2)",
        "# shapes",
    )


def test_matmul_shapes():
    def f(x):
        return x @ x  # product

    error = raised(f, X, error=ShapeError)
    assert str(error).startswith("np.matmul: f64[2,3] and f64[2,3] do not fit")
    assert error.location == line_of("# product")


def test_unknown_function():
    def f(x):
        return np.linalg.svd(x)  # unknown

    check_text(raised(f, X), "np.linalg.svd can't be traced", "# unknown")


def test_unknown_ufunc_and_method():
    assert "np.nextafter can't be traced" in str(raised(lambda x: np.nextafter(x, x), X))
    assert "np.add.reduceat" in str(raised(lambda x: np.add.reduceat(x, [0]), X))


def test_unknown_keyword():
    assert "np.tile" not in str(raised(lambda x: np.pad(x, 1, mode="linear_ramp"), X))
    assert "np.sum(..., like=...)" in str(raised(lambda x: np.sum(x, like=X), X))


def test_wrong_arguments():
    error = raised(lambda x: np.mean(x, 0, None, None, True), X)
    assert "np.mean" in str(error) and "positional" in str(error) and "keyword" in error.hint
    with pytest.raises(TypeError):
        trace(lambda x: np.tile(x, "a"), [X])


def test_unknown_function_on_a_captured_array():
    assert "np.linalg.svd can't be traced" in str(raised(lambda x: np.linalg.svd(W), X))


def test_captured_write():
    def f(x):
        W[0] = 3.0  # captured
        return x @ W

    check_text(
        raised(f, X),
        "in-place write to a captured array: it was made outside the traced function",
        "# captured",
    )
    np.testing.assert_array_equal(W, np.ones((3, 2)))


@pytest.mark.parametrize(
    "write",
    [
        lambda x: W.fill(0),
        lambda x: np.add(x.T, 1, out=W),
        lambda x: np.add.at(W, 0, x[0, :2]),
        lambda x: W.T.__setitem__(0, 1),
        lambda x: W.__iadd__(x.T),
        lambda x: np.copyto(W, x.T),
    ],
)
def test_other_captured_writes(write):
    assert "captured array" in str(raised(write, X))
    np.testing.assert_array_equal(W, np.ones((3, 2)))


def test_write_into_an_array_that_no_name_reaches():
    hidden = collections.deque([np.zeros(3)])

    def f(x):
        hidden[0][0] = x[0, 0]  # hidden
        return x

    error = raised(f, X)
    assert error.location == line_of("# hidden")
    assert "inside the function" in error.hint


def test_random():
    def f(x):
        return x + np.random.normal(size=3)  # random

    check_text(
        raised(f, X),
        "np.random.normal within a traced function would draw once, when it is traced",
        "# random",
    )


def test_generator():
    rng = np.random.default_rng(0)
    error = raised(lambda x: x + rng.normal(), X)
    assert "Generator.normal" in str(error) and "diffc.random" in error.hint


LEAKS = []


def test_leak():
    def f(x):
        LEAKS.append(x * 2)  # leak
        return x

    trace(f, [X])
    made = line_of("# leak")
    with pytest.raises(TraceError) as info:
        LEAKS[0] + 1
    assert "outside the trace that made it" in str(info.value)

    def g(x):
        return x + LEAKS[0]  # leaked

    error = raised(g, X)
    assert str(error).startswith(
        f"the traced array f64[2,3], made at {made}, leaked out of the trace"
    )
    assert error.location == line_of("# leaked")


def test_tracer_in_another_thread():
    errors = []

    def f(x):
        def other():
            try:
                x + 1
            except TraceError as error:
                errors.append(str(error))

        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
        return x

    trace(f, [X])
    assert len(errors) == 1


def test_mask():
    error = raised(lambda x: x[x > 1].reshape(2), X)
    assert "gives a shape that depends on values" in str(error) and "np.where" in error.hint
    for use in [len, np.sort, list, lambda s: np.sum(s, axis=0), lambda s: s + X, lambda s: s @ s]:
        assert "mask" in str(raised(lambda x, use=use: use(x[x > 1]), X))
    assert "masks" in str(raised(lambda x: x[x > 1] + x[x > 2], X))
    assert "Selected" in str(raised(lambda x: x[x > 1], X))
    assert "not known" in str(raised(lambda x: np.nonzero(x), X))
    assert "number depends on values" in str(raised(lambda x: np.where(x > 1), X))


def test_index_errors():
    for key in [2, (0, 3), (0, 0, 0), [5], [[-3]]]:
        error = raised(lambda x, key=key: x[key], X, error=ShapeError)
        assert isinstance(error, IndexError)
    assert "float" in str(raised(lambda x: x[1.0], X))


def test_in_place_dtype():
    def f(n, x):
        n += x  # in place
        return n

    error = raised(f, np.arange(3), X[0], error=DtypeError)
    assert error.location == line_of("# in place")


def test_in_place_shape():
    def f(v, x):
        v += x
        return v

    assert "does not fit" in str(raised(f, X[0].copy(), X, error=ShapeError))


def test_literal_that_does_not_fit():
    error = raised(lambda x: x + 300, np.zeros(2, np.uint8), error=DtypeError)
    assert "300" in str(error)
    assert trace(lambda x: x < 300, [np.zeros(2, np.uint8)]).graph.outputs[0].value is True


def test_bool_subtract():
    assert "boolean subtract" in str(raised(lambda x: x - x, X > 1, error=DtypeError))


def test_negative_integer_power():
    assert "negative power" in str(raised(lambda x: x**-1, np.arange(3), error=DtypeError))


def test_complex():
    raised(lambda x: x, X.astype(complex), error=DtypeError)
    raised(lambda x: np.zeros(2, complex), X, error=DtypeError)


def test_result_that_is_no_array():
    assert "result['a'] is a str" in str(raised(lambda x: {"a": "text"}, X))


def test_ambiguous_truth():
    assert "np.any" in raised(lambda x: 1 if x > 0 else 0, X).hint


def test_static_python_just_works(check):
    def f(x):
        n = np.arange(3)
        total = np.zeros(3)
        for i in np.arange(int(np.sum(n)) // 3 * 3):
            if n[i] > 0 or np.all(n >= 0):
                total = total + float(n[i]) * x[0, i]
        shape = np.array(x.shape)
        return total.reshape(int(np.prod(shape[1:])), 1), x[0, np.argmax(n)], x[:, n > 0]

    check(f, X)


def test_concrete_values():
    def f(x, y):
        while y < 100:
            y = y * 2
        return x if x.sum() > 3 else y

    traced = trace(f, [X, 3.0], concrete=True)
    assert traced.graph.outputs[0] is traced.graph.inputs[0]
    with pytest.raises(ValueNeeded):
        trace(f, [X, 3.0])


def test_positions_and_levels_that_do_not_exist():
    for position in (4, -4):
        error = raised(lambda x, p=position: np.insert(x, p, 0.0), np.arange(3.0), error=IndexError)
        assert f"position {position} is out of bounds" in str(error)
    error = raised(lambda x: np.quantile(x, 50), X, error=ValueError)
    assert "levels are from 0 to 1" in str(error)
    error = raised(lambda x: np.linalg.norm(x, "fro"), np.arange(3.0))
    assert "is of matrices" in str(error)
