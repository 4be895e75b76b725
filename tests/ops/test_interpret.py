"""The reference interpreter: regions, dtypes, literals, lifetimes."""

import sys
import warnings

import numpy as np
import pytest
import sympy

import diffc.ops
from diffc.errors import ExecutionError, InternalError, UsageError
from diffc.ir.aval import aval
from diffc.ir.graph import Builder, literal
from diffc.ops.declare import Op
from diffc.ops.interpret import by_numpy, evaluate

F32 = aval("f32", (2,))


def emit(builder, name, *operands, regions=(), **params):
    results = builder.emit(diffc.ops.find(name), operands, params, regions)
    return results[0] if len(results) == 1 else results


def double():
    builder = Builder("double")
    x = builder.input(F32, "x")
    return builder.build([emit(builder, "add", x, x)])


def test_literals_and_inputs_may_be_outputs():
    builder = Builder()
    x = builder.input(F32, "x")
    graph = builder.build([x, literal(-0.0, F32), x])
    given = np.array([1, np.nan], np.float32)
    first, zeros, second = evaluate(graph, [given])
    assert np.signbit(zeros).all()
    np.testing.assert_array_equal(first, given)
    first[:] = 7  # results are new arrays
    np.testing.assert_array_equal(second, given)


def test_scalars_stay_arrays_of_their_dtype():
    builder = Builder()
    x = builder.input(aval("f16"), "x")
    (result,) = evaluate(builder.build([emit(builder, "exp", x)]), [np.float16(1)])
    assert isinstance(result, np.ndarray)
    assert (result.dtype, result.shape) == (np.float16, ())


def test_f16_sums_run_in_f32():
    builder = Builder()
    x = builder.input(aval("f16", (4096,)), "x")
    (result,) = evaluate(builder.build([emit(builder, "sum", x, axes=(0,))]), [np.ones(4096, "f2")])
    assert result == 4096  # in f16 the sum would stop at 2048


def test_no_warnings():
    builder = Builder()
    x = builder.input(F32, "x")
    log = emit(builder, "log", x)
    graph = builder.build([emit(builder, "div", log, emit(builder, "sub", x, x))])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        evaluate(graph, [np.array([-1, 0], np.float32)])


def test_calls_nest_deeper_than_python_recurses():
    graph = double()
    depth = sys.getrecursionlimit() + 50
    for level in range(depth):
        builder = Builder(f"level{level}")
        x = builder.input(F32, "x")
        half = emit(builder, "mul", x, literal(0.5, F32))
        graph = builder.build([emit(builder, "call", half, regions=(graph,))])
    (result,) = evaluate(graph, [np.zeros(2, np.float32)])
    np.testing.assert_array_equal(result, 0)


def cumulative(reverse):
    body = Builder("body")
    total, x = body.input(aval("f32"), "total"), body.input(aval("f32"), "x")
    new = emit(body, "add", total, x)
    builder = Builder()
    start, xs = builder.input(aval("f32"), "start"), builder.input(aval("f32", (3,)), "xs")
    params = {"consts": 0, "carry": 1, "length": 3, "reverse": reverse}
    region = body.build([new, total])
    return builder.build(emit(builder, "scan", start, xs, regions=(region,), **params))


@pytest.mark.parametrize(("reverse", "before"), [(False, [10, 11, 13]), (True, [15, 13, 10])])
def test_scan_stacks_in_the_order_of_xs(reverse, before):
    xs = np.array([1, 2, 3], np.float32)
    final, ys = evaluate(cumulative(reverse), [np.float32(10), xs])
    assert final == 16
    np.testing.assert_array_equal(ys, before)


def test_symbols_go_through_regions():
    xs = np.array(sympy.symbols("a b c"), object)
    start = np.array(sympy.Symbol("s"), object)
    final, ys = evaluate(cumulative(True), [start, xs])
    a, b, c, s = sympy.symbols("a b c s")
    assert final.item() == a + b + c + s
    assert ys.tolist() == [b + c + s, c + s, s]


def test_elementwise_symbols_need_a_compute():
    builder = Builder()
    x = builder.input(aval("f32", (2, 3)), "x")
    graph = builder.build([emit(builder, "sum", emit(builder, "tanh", x), axes=(1,))])
    seen = []

    def compute(eqn, arrays):
        seen.append(eqn.op.name)
        if eqn.op.is_elementwise:
            return np.vectorize(sympy.tanh, otypes=[object])(*arrays)
        return by_numpy(eqn, arrays)

    symbols = np.array(sympy.symbols("a:6"), object).reshape(2, 3)
    (found,) = evaluate(graph, [symbols], compute)
    assert found.tolist() == [sum(map(sympy.tanh, row)) for row in symbols]
    assert seen == ["tanh", "sum"]


def test_wrong_inputs_are_named():
    with pytest.raises(UsageError, match=r"input x of @double is f32\[2\], found float64\[2\]"):
        evaluate(double(), [np.zeros(2)])
    with pytest.raises(UsageError, match="takes 1 inputs, found 2"):
        evaluate(double(), [np.zeros(2), np.zeros(2)])


def test_a_facet_must_keep_the_dtype():
    add = diffc.ops.find("add")
    facets = {name: getattr(add, name) for name in Op.__slots__}
    wrong = Op(**{**facets, "numpy": lambda x, y: (x + y).astype(np.float64)})
    builder = Builder()
    x = builder.input(F32, "x")
    (result,) = builder.emit(wrong, (x, x))
    with pytest.raises(InternalError, match=r"numpy facet of add gives f64\[2\], not f32\[2\]"):
        evaluate(builder.build([result]), [np.zeros(2, np.float32)])


def test_checked_indices():
    builder = Builder()
    x, i = builder.input(F32, "x"), builder.input(aval("i64", (1,)), "i")
    graph = builder.build([emit(builder, "gather", x, i, axes=(0,), mode="check")])
    assert evaluate(graph, [np.arange(2, dtype="f4"), np.array([1])])[0] == 1
    for wrong in (2, -1):
        with pytest.raises(ExecutionError, match="out of bounds"):
            evaluate(graph, [np.zeros(2, "f4"), np.array([wrong])])


def test_arrays_die_after_their_last_use():
    import weakref

    held = []
    neg = diffc.ops.find("neg")

    def spying(x):
        held.append(weakref.ref(x))
        alive = [ref for ref in held if ref() is not None]
        assert len(alive) <= 2  # this operand, and the input
        return -x

    facets = {name: getattr(neg, name) for name in Op.__slots__}
    spy = Op(**{**facets, "numpy": spying})
    builder = Builder()
    value = builder.input(F32, "x")
    for _ in range(20):
        (value,) = builder.emit(spy, (value,))
    evaluate(builder.build([value]), [np.ones(2, np.float32)])
    assert len(held) == 20
