"""Whole checks: what passes passes by every way, and a wrong derivative is found by each."""

import time

import numpy as np
import pytest

import diffc
from diffc.errors import DiffcError, UsageError
from diffc.ir.aval import aval
from diffc.ir.graph import Graph
from diffc.ops.declare import Partials
from diffc.ops.interpret import evaluate
from diffc.ops.registry import find
from diffc.symbolic.differences import difference_error
from diffc.symbolic.samples import draws
from diffc.symbolic.verify import error_of, verify
from diffc.symbolic.widen import widen
from diffc.trace import Abstract, trace

C = np.array([1.0, -2.0, 0.5])


def array(dtype, *shape):
    return Abstract(aval(dtype, shape))


FLOAT = Abstract(aval("f64"), True, True)


def relu(x, y):
    return np.sum(np.maximum(x, 0) * C + np.where(y > x, y**2, np.abs(y)))


def frozen(x):
    return np.sum(x * diffc.stop_gradient(np.sin(x)))


def loop(x, first):
    last, ys = diffc.scan(lambda c, v: (np.tanh(c * v), c), first, x)
    return last + np.sum(ys)


def written(x):
    x[0] = x[1] * 2
    return np.sum(x * x)


def normalized(x):
    centered = x - x.mean()
    return np.sum((centered / np.sqrt((centered**2).mean() + 1e-5)) ** 3)


CASES = {
    "relu": (relu, [array("f64", 3), array("f64", 3)]),
    "power": (lambda x, y: x**y, [FLOAT, FLOAT]),
    "frozen": (frozen, [array("f64", 3)]),
    "loop": (loop, [array("f64", 3), FLOAT]),
    "written": (written, [array("f64", 4)]),
    "picked": (lambda x, i: np.sum(x[i] ** 2), [array("f32", 5), array("i64", 3)]),
    "captured": (lambda x: np.sum(x * C), [array("f64", 3)]),
    "steps": (lambda x: np.sum(x * np.floor(x) + x % 0.7), [array("f64", 3)]),
    "extrema": (lambda x: np.max(x) + np.min(x * 2), [array("f64", 3)]),
    "empty": (lambda x: np.sum(x * x), [array("f64", 0)]),
    "half": (lambda x: np.sum(x * x), [array("f16", 5)]),
    "brain": (lambda x: np.sum(x * x), [array("bf16", 5)]),
    "pytree": (lambda p: np.sum(p["w"] * p["b"][0]), [{"w": array("f64", 2), "b": [FLOAT]}]),
    "constant": (lambda x: 0.0 * np.sum(x), [array("f64", 2)]),
}


@pytest.mark.parametrize("name", CASES)
def test_right_gradients_pass(name):
    report = verify(*CASES[name])
    assert report.is_good, report
    proved = {check.name for check in report.checks if check.verdict == "proved"}
    if name not in ("empty",):
        assert {"gradient: transform = SymPy", "gradient: optimize = SymPy"} <= proved, report


def test_roundings_of_constants_are_checked_not_proved():
    report = verify(normalized, [array("f64", 3)])
    assert report.is_good
    verdicts = {check.name: check.verdict for check in report.checks}
    assert verdicts["gradient: transform = SymPy"] in ("proved", "checked")


def test_a_layer_of_several_rows_is_decided_at_once():
    def loss(w, x, y):
        return np.mean((np.tanh(x @ w) - y) ** 2)

    started = time.process_time()
    report = verify(loss, [array("f64", 2), array("f64", 3, 2), array("f64", 3)])
    assert report.is_good
    assert time.process_time() - started < 30  # without end where SymPy simplifies the products


def test_sorting_is_left_to_numbers():
    report = verify(lambda x: np.sum(np.sort(x) * C), [array("f64", 3)])
    assert report.is_good
    assert any("sort has no formula" in note for note in report.notes)
    assert {check.verdict for check in report.checks} == {"checked"}


def test_a_wrong_derivative_is_found():
    op = find("sin")
    right = op.derivative
    object.__setattr__(op, "derivative", Partials(lambda x, out: (x.call("cos") + 1e-3,)))
    try:
        report = verify(lambda x: np.sum(np.sin(x) * x), [array("f64", 3)])
    finally:
        object.__setattr__(op, "derivative", right)
    failed = {check.name for check in report.checks if check.verdict == "failed"}
    assert failed == {
        "gradient: finite differences",
        "gradient: transform = SymPy",
        "gradient: optimize = SymPy",
    }


def test_a_wrong_value_is_found():
    def unlike_numpy(x):
        return np.sum(x) if isinstance(x, np.ndarray) and type(x) is np.ndarray else np.sum(x * 2)

    report = verify(unlike_numpy, [array("f64", 3)])
    wrong = [check.name for check in report.checks if check.verdict == "failed"]
    assert wrong == ["value: compiled = NumPy"]


def test_requests_that_make_no_sense():
    with pytest.raises(UsageError, match="there is no argument -3; there are 2"):
        verify(relu, [array("f64", 3)] * 2, argnums=-3)
    with pytest.raises(DiffcError, match="returns f64"):
        verify(lambda x: x, [array("f64", 3)], argnums=0)


def test_negative_and_unsorted_argnums():
    report = verify(relu, [array("f64", 3), array("f64", 3)], argnums=(-1, 0))
    assert report.is_good


# --- parts ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("found", "expected", "error"),
    [
        ([1.0, 2.0], [1.0, 2.0], 0.0),
        ([1.0, 2.5], [1.0, 2.0], 0.25),
        ([np.nan, 1.0], [np.nan, 1.0], 0.0),
        ([np.inf], [np.inf], 0.0),
        ([np.inf], [1.0], np.inf),
        ([np.nan], [1.0], np.inf),
        ([1.0], [np.nan], np.inf),
        ([1.0], [-np.inf], np.inf),
        ([0.5], [0.0], 0.5),
        ([], [], 0.0),
    ],
)
def test_errors_of_arrays(found, expected, error):
    assert error_of([np.array(found)], [np.array(expected)]) == error


def test_errors_of_integers_and_shapes():
    assert error_of([np.array([1, 2])], [np.array([1, 2])]) == 0
    assert error_of([np.array([1, 3])], [np.array([1, 2])]) == np.inf
    assert error_of([np.array([1.0])], [np.array(1.0)]) == np.inf


def test_widened_graphs_are_double():
    def f(x, n):
        carry, _ = diffc.scan(lambda c, v: (c * v + np.float32(0.1), None), x[0], x)
        return np.sum(np.where(n > 2, x, 0) + np.arange(3, dtype=np.float32)) + carry

    graph = trace(f, [array("f32", 3), array("i64", 3)]).graph
    wide = widen(graph)
    assert [str(a) for a in (*wide.input_avals, *wide.output_avals)] == [
        "f64[3]", "i64[3]", "f64[]",
    ]  # fmt: skip
    x, n = np.array([0.5, 0.25, 3.0]), np.array([1, 2, 3])
    (narrow,) = evaluate(graph, [x.astype(np.float32), n])
    (found,) = evaluate(wide, [x, n])
    assert found == pytest.approx(float(narrow), rel=1e-6)
    assert found != narrow
    assert isinstance(wide, Graph)


def test_differences_see_small_errors():
    graph = trace(lambda x: np.sum(x**3), [array("f64", 4)]).graph
    x = np.array([0.5, 1.0, -2.0, 3.0])
    rng = np.random.default_rng(0)
    right = difference_error(graph, [x], {0: 3 * x**2}, rng)
    wrong = difference_error(graph, [x], {0: 3 * x**2 + np.array([0, 1e-3, 0, 0])}, rng)
    assert right[0] < 1e-9
    assert wrong[0] > 1e-5
    assert right[1] == "every coordinate"


def test_draws_keep_structure_and_kinds():
    args = [{"w": array("f32", 2), "n": array("u8", 3), "on": array("bool", 2)}, FLOAT]
    names = []
    for name, (first, second) in draws(args, 3):
        names.append(name)
        assert first["w"].dtype == np.float32
        assert first["n"].dtype == np.uint8
        assert first["on"].dtype == np.bool_
        assert type(second) is float
    assert names == ["normal", "normal", "positive", "in (0, 1)", "in (0, 1)"]
    first = next(draws(args, 3))[1][1]
    assert first == next(draws(args, 3))[1][1]
    assert first != next(draws(args, 4))[1][1]
