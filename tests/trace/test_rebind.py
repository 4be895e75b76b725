"""Names rebound while tracing: what is reached, what is left alone, and that all is restored."""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import pathlib
import sys
import threading

import numpy as np
import pytest
from numpy import zeros

import diffc.numpy as dnp
from diffc.ops.interpret import evaluate
from diffc.trace import trace
from diffc.trace.captured import CapturedArray
from diffc.trace.rebind import _BOUND

X = np.array([0.5, -1.0, 2.0])


def _load():
    path = pathlib.Path(__file__).with_name("helpers_module.py")
    spec = importlib.util.spec_from_file_location("diffc_test_helpers", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


helpers = _load()
LAYERS = [helpers.Layer(3), helpers.Layer(3)]
STORE = {"layer": helpers.Layer(3)}


def through_module(x):
    return helpers.ramp(3, x[0]), helpers.softmax(x), helpers.norms(x)


def through_defaults(x):
    return helpers.with_default(x[0])


def through_objects(x):
    h = x
    for layer in LAYERS:
        h = layer(h)
    return STORE["layer"](h), helpers.Layer.twice(x[1]), LAYERS[0].grid * x


def through_decorator(x):
    return helpers.decorated(x[0])


def through_arrays(x):
    return helpers.look_up(3) * x, 2 * helpers.TABLE[:3] + x, x @ helpers.TABLE[:3]


def through_name(x):
    a = zeros(3)
    a[0] = x[0]
    return a


def through_diffc_numpy(x):
    a = dnp.zeros(3)
    a[0] = dnp.sin(x[0])
    return a


def through_inner_function(x):
    def inner(y):
        a = np.zeros(2)
        a[0] = y
        return a

    return [inner(v) for v in x]


def isinstance_of_ndarray(x):
    return x * 2 if isinstance(x, np.ndarray) else None


@pytest.mark.parametrize(
    "function",
    [
        through_module,
        through_defaults,
        through_objects,
        through_decorator,
        through_arrays,
        through_name,
        through_diffc_numpy,
        through_inner_function,
        isinstance_of_ndarray,
        helpers.make_closure()[0],
        functools.partial(helpers.ramp, 3),
        LAYERS[0],
        LAYERS[0].__call__,
    ],
)
def test_reaches(function, check):
    if isinstance(function, functools.partial):
        check(function, 2.0)
    elif getattr(function, "__name__", "") == "inner":
        check(function, X[:2])
    else:
        check(function, X)
    assert not _BOUND
    assert helpers.xp is np and helpers.zeros is zeros is np.zeros
    assert helpers.with_default.__defaults__ == (np.ones,)
    assert type(helpers.TABLE) is np.ndarray


def test_restored_after_an_error():
    def bad(x):
        np.zeros(2)
        raise KeyError("mine")

    with pytest.raises(KeyError):
        trace(bad, [X])
    assert not _BOUND and bad.__globals__["np"] is np


def test_library_functions_are_left_alone(check):
    import scipy.special

    with pytest.raises(TypeError, match="can't be traced"):
        trace(lambda x: scipy.special.gamma(x), [X])
    assert scipy.special.__dict__.get("np") is None or scipy.special.np is np


def test_captured_arrays_are_read_at_each_call():
    function, weights = helpers.make_closure()
    traced = trace(function, [X[:2]])
    (captured,) = traced.captured
    assert captured.array is weights and captured.place.key == "weights"
    assert traced.graph.inputs[-1].name == "weights"
    weights[0] = 50.0
    (out,) = evaluate(traced.graph, [X[:2], captured.current()])
    np.testing.assert_array_equal(out, function(X[:2]))
    assert out[0] == 100.5


def test_captured_arrays_are_resolved_by_name():
    function, _ = helpers.make_closure()
    (captured,) = trace(function, [X[:2]]).captured
    cell = function.__closure__[function.__code__.co_freevars.index("weights")]
    cell.cell_contents = replaced = np.zeros(3)
    assert captured.current() is replaced
    cell.cell_contents = np.zeros(4)
    assert captured.current() is None
    cell.cell_contents = np.zeros(3, np.float32)
    assert captured.current() is None
    cell.cell_contents = "no array"
    assert captured.current() is None


def test_one_hidden_operand_for_each_array():
    w = np.ones(3)
    traced = trace(lambda x: x * w + np.sin(w) + w.sum() + w[0], [X])
    assert len(traced.captured) == 1
    assert traced.captured[0].array is w


def test_unused_captures_are_dropped():
    w = np.ones((5, 2))
    traced = trace(lambda x: x * np.shape(w)[0] + w.shape[1], [X])
    assert not traced.captured


def test_other_threads_see_numpy():
    seen = []
    go, done = threading.Event(), threading.Event()
    table = np.arange(3.0)

    def other():
        go.wait(10)
        array = np.zeros(3)
        array[0] = np.sin(1.0)
        seen.append((type(array), type(np.sum(array)), table[0] + 1, type(table * 2)))
        done.set()

    def function(x):
        go.set()
        assert done.wait(10)
        return np.zeros(3) + x + table

    thread = threading.Thread(target=other)
    thread.start()
    trace(function, [X])
    thread.join()
    assert seen == [(np.ndarray, np.float64, 1.0, np.ndarray)]


def test_concurrent_traces_restore_once():
    barrier = threading.Barrier(4)
    errors = []

    def function(x):
        barrier.wait(10)
        a = np.zeros(3)
        a[:] = x
        barrier.wait(10)
        return a

    def work():
        try:
            trace(function, [X])
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors and not _BOUND
    assert function.__globals__["np"] is np


def test_a_name_that_the_function_binds_itself_is_kept():
    global FLAG
    FLAG = np.ones(2)

    def function(x):
        global FLAG
        FLAG = "mine"
        return x

    trace(function, [X])
    assert FLAG == "mine"


def test_stand_in_behaves_in_its_thread_without_a_trace():
    found = {}

    def function(x):
        found["zeros"] = np.zeros
        found["np"] = np
        return x

    trace(function, [X])
    assert type(found["zeros"](3)) is np.ndarray
    assert found["np"].pi == np.pi and type(found["np"].ones(2)) is np.ndarray
    assert found["zeros"] == np.zeros


def test_captured_array_outside_a_trace_is_the_array():
    from diffc.trace.captured import stand_in

    a = np.arange(4.0)
    b = stand_in(a)
    assert isinstance(b, CapturedArray)
    b[0] = 9
    assert a[0] == 9 and type(b + 1) is np.ndarray and type(b[1:]) is np.ndarray
    assert float(b.sum()) == 15 and type(np.stack([b, b])) is np.ndarray


FLAG = None


class Model:
    def __init__(self):
        self.w = np.array([1.0, 2.0, 3.0])
        self.parts = [np.ones(3), {"deep": np.ones(3) * 2}]

    def __call__(self, x):
        return (2 * self.w + x) * self.parts[0] + self.parts[1]["deep"]


MODEL = Model()


def test_arrays_in_objects_and_containers_are_resolved_again():
    model = Model()

    def function(x):
        return model(x) + MODEL.w[0]

    traced = trace(function, [X])
    assert sorted(map(str, (c.place.key for c in traced.captured))) == ["0", "deep", "w", "w"]

    def call():
        (out,) = evaluate(traced.graph, [X, *(c.current() for c in traced.captured)])
        return out

    np.testing.assert_array_equal(call(), function(X))
    model.w = model.w * 10
    model.parts[0] = np.full(3, 7.0)
    model.parts[1]["deep"] += 1
    MODEL.w[0] = -3
    np.testing.assert_array_equal(call(), function(X))
    assert type(model.w) is np.ndarray and type(model.parts[1]["deep"]) is np.ndarray


def test_a_library_decorator_around_the_users_function(check):
    @contextlib.contextmanager
    def guard():
        yield

    @guard()
    def function(x):
        a = np.zeros(3)
        a[:] = x
        return a

    check(function, X)
