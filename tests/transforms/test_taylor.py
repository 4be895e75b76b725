"""Taylor coefficients against derivatives of derivatives: every op, regions, and SymPy."""

import math

import numpy as np
import pytest
import sympy

import diffc.ops
from diffc.errors import UsageError
from diffc.ir.aval import aval
from diffc.ir.check import check
from diffc.ir.graph import Builder, literal
from diffc.ir.text import parse, print_graph
from diffc.ops.declare import Undefined, Zero
from diffc.ops.interpret import evaluate
from diffc.ops.term import GraphTerm
from diffc.transforms import jvp, taylor
from tests.ops.samples import samples
from tests.transforms.test_batch import carried
from tests.transforms.test_transforms import SCAN, graph_of

ORDER = 3


def curve(graph, order):
    """``f(inputs..., coefficients of float inputs..., t) = graph(x + x1 t + x2 t^2 + ...)``."""
    builder = Builder("curve")
    xs = [GraphTerm(builder, builder.input(a)) for a in graph.input_avals]
    rows = [
        [GraphTerm(builder, builder.input(x.aval)) for _ in range(order)] if x.aval.is_float else []
        for x in xs
    ]
    t = GraphTerm(builder, builder.input(aval("f64"), "t"))
    moved = []
    for x, row in zip(xs, rows, strict=True):
        power = None
        for coefficient in row:
            power = t if power is None else power * t
            spread = power.call("broadcast", shape=x.aval.shape, axes=()) if x.aval.shape else power
            x = x + coefficient * spread
        moved.append(x.operand)
    return builder.build(builder.inline(graph, moved))


def derivative(graph):
    """By the last input, with the same inputs; outputs that don't depend on it are zeros."""
    active = [i == len(graph.inputs) - 1 for i in range(len(graph.inputs))]
    wanted = [output.aval.is_float for output in graph.outputs]
    made = jvp(graph, active, wanted)
    builder = Builder("derivative")
    inputs = [builder.input(a) for a in graph.input_avals]
    one = literal(1, inputs[-1].aval)
    return builder.build(builder.inline(made.graph, [*inputs, one])[len(graph.outputs) :])


def expected_coefficients(graph, arrays, coefficients, order):
    """By nested derivatives along the curve, at t = 0; by order, then output."""
    current = curve(graph, order)
    found = []
    for k in range(1, order + 1):
        current = derivative(current)
        values = evaluate(current, [*arrays, *coefficients, np.float64(0)])
        found.append([v / math.factorial(k) for v in values])
    return found


def compare(graph, arrays, order=ORDER, seed=0, rtol=1e-9):
    mask = [a.is_float for a in graph.input_avals]
    made = taylor(graph, mask, order, [output.aval.is_float for output in graph.outputs])
    check(made.graph)
    assert print_graph(parse(print_graph(made.graph), diffc.ops.table())) == print_graph(made.graph)
    rng = np.random.default_rng(seed)
    coefficients = [
        np.asarray(rng.standard_normal(a.shape))
        for a in graph.input_avals
        if a.is_float
        for _ in range(order)
    ]
    results = evaluate(made.graph, [*arrays, *coefficients])
    count = len(graph.outputs)
    for x, y in zip(results[:count], evaluate(graph, arrays), strict=True):
        np.testing.assert_array_equal(x, y)
    expected = expected_coefficients(graph, arrays, coefficients, order)
    floats = sum(output.aval.is_float for output in graph.outputs)
    for n in range(floats):
        for k in range(order):
            np.testing.assert_allclose(
                results[count + n * order + k], expected[k][n], rtol=rtol, atol=rtol
            )


def smooth_samples():
    for op in diffc.ops.every_op():
        if op.name in ("stop_gradient", "custom"):
            continue  # their derivative is not that of their value
        for sample in samples(op, dtypes=("f64",)):
            fact = op.fact(sample.params)
            if isinstance(fact, (Zero, Undefined)) or not any(a.is_float for a in sample.avals):
                continue
            yield pytest.param(sample, id=str(sample))


@pytest.mark.parametrize("sample", list(smooth_samples()))
def test_every_op(sample):
    graph = graph_of(sample)
    rough = {"bf16": 4e-2, "f16": 5e-3, "f32": 1e-5}.get(graph.outputs[0].aval.dtype, 1e-7)
    compare(graph, list(sample.arrays), rtol=rough)


@pytest.mark.parametrize("reverse", ["true", "false"])
def test_scans(reverse):
    graph = parse(SCAN.replace("REVERSE", reverse), diffc.ops.table())
    rng = np.random.default_rng(0)
    compare(graph, [rng.standard_normal(a.shape) / 2 for a in graph.input_avals])


def test_carries_are_active_by_fixpoint():
    graph = carried()
    made = taylor(graph, [False, True, False, False], 2)
    check(made.graph)
    assert made.active_outputs == (True, True, False, False)
    compare(graph, [1.0, 2.0, 0.5, np.arange(4.0)])


def test_unused_coefficients_are_absent():
    builder = Builder("f")
    x, y = (GraphTerm(builder, builder.input(aval("f64", (2,)), name)) for name in "xy")
    graph = builder.build([x.call("floor").operand, (x * y).operand, y.call("exp").operand])
    made = taylor(graph, [True, False], 4)
    assert made.active_outputs == (False, True, False)
    assert [eqn.op.name for eqn in made.graph.eqns].count("exp") == 1
    assert [eqn.op.name for eqn in made.graph.eqns].count("mul") == 5


def test_what_has_no_derivative_says_why():
    op = diffc.ops.find("scatter")
    sample = next(
        s for s in samples(op, dtypes=("f64",)) if s.params["combine"] == "mul" and s.arrays[2].size
    )
    with pytest.raises(UsageError, match="scatter can't be differentiated"):
        taylor(graph_of(sample), [a.is_float for a in sample.avals], 2)


T = sympy.Symbol("t")
#: formulas of one variable, as SymPy and as a function on terms; around a point within the domain
FORMULAS = {
    "x sin 5x": (T * sympy.sin(5 * T), lambda x: x * (x * 5).call("sin"), 0),
    "exp of sin": (sympy.exp(sympy.sin(T)), lambda x: x.call("sin").call("exp"), 0.5),
    "log over sqrt": (
        sympy.log(1 + T) / sympy.sqrt(T),
        lambda x: (x + 1).call("log") / x.call("sqrt"),
        0.75,
    ),
    "tanh": (sympy.tanh(T * T), lambda x: (x * x).call("tanh"), 0.5),
    "power": (T**T, lambda x: x.call("pow", x), 1.5),
    "arctan": (sympy.atan(1 / T), lambda x: (1 / x).call("arctan"), 2),
    "logistic": (1 / (1 + sympy.exp(-T)), lambda x: x.call("logistic"), -0.5),
    "erf": (sympy.erf(T), lambda x: x.call("erf"), 0.25),
    "fifth power": (T**5, lambda x: x.call("integer_pow", exponent=5), 1.25),
    "negative power": (T**-3, lambda x: x.call("integer_pow", exponent=-3), 1.25),
}


@pytest.mark.parametrize("name", FORMULAS)
def test_coefficients_are_those_of_sympy(name):
    formula, function, point = FORMULAS[name]
    order = 6
    builder = Builder("f")
    x = GraphTerm(builder, builder.input(aval("f64"), "x"))
    made = taylor(builder.build([function(x).operand]), [True], order)
    found = evaluate(made.graph, [np.float64(point), np.float64(1), *(np.float64(0),) * 5])
    exact = sympy.nsimplify(point)
    for k in range(order + 1):
        expected = sympy.diff(formula, T, k).subs(T, exact) / sympy.factorial(k)
        assert float(found[k]) == pytest.approx(float(expected), rel=1e-12, abs=1e-13)


def test_high_orders_stay_small():
    """The number of equations grows as a low power of the order, not exponentially."""
    builder = Builder("f")
    x = GraphTerm(builder, builder.input(aval("f64"), "x"))
    graph = builder.build([x.call("tanh").call("pow", x).call("arctan").operand])
    counts = [len(taylor(graph, [True], order).graph.eqns) for order in (4, 8, 16)]
    assert counts[2] < 10 * counts[1] and counts[1] < 10 * counts[0]
