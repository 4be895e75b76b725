"""vjp is the adjoint of jvp, and jvp is what finite differences see: every op, and programs."""

import numpy as np
import pytest

import diffc.ops
from diffc.errors import UsageError
from diffc.ir.aval import aval
from diffc.ir.check import check
from diffc.ir.graph import Builder
from diffc.ir.text import parse, print_graph
from diffc.ops.declare import Undefined, Zero
from diffc.ops.interpret import evaluate
from diffc.ops.term import GraphTerm
from diffc.transforms import jvp, linearize, transpose, vjp
from tests.ops.samples import samples


def graph_of(sample):
    builder = Builder(sample.op.name)
    inputs = [builder.input(a) for a in sample.avals]
    return builder.build(builder.emit(sample.op, inputs, sample.params, sample.regions))


def differentiable_samples():
    for op in diffc.ops.every_op():
        for sample in samples(op, dtypes=("f64",)):
            fact = op.fact(sample.params)
            if isinstance(fact, (Zero, Undefined)) or not any(a.is_float for a in sample.avals):
                continue
            yield pytest.param(sample, id=str(sample))


def inner(left, right):
    return sum(float(np.vdot(a, b)) for a, b in zip(left, right, strict=True))


def drawn(rng, avals):
    return [np.asarray(rng.integers(-3, 4, a.shape) / 4).astype(a.numpy) for a in avals]


@pytest.mark.parametrize("sample", list(differentiable_samples()))
def test_vjp_is_the_adjoint_of_jvp(sample):
    graph = graph_of(sample)
    active = [a.is_float for a in sample.avals]
    forward, backward = jvp(graph, active), vjp(graph, active)
    for made in (forward.graph, backward.graph):
        check(made)
        assert print_graph(parse(print_graph(made), diffc.ops.table())) == print_graph(made)
    assert forward.active_outputs == backward.active_outputs
    rng = np.random.default_rng(0)
    dots = drawn(rng, [a for a, is_active in zip(sample.avals, active, strict=True) if is_active])
    outs = [a for a, is_on in zip(graph.output_avals, forward.active_outputs, strict=True) if is_on]
    cts = drawn(rng, outs)
    count = len(graph.outputs)
    primal = evaluate(graph, list(sample.arrays))
    pushed = evaluate(forward.graph, [*sample.arrays, *dots])
    pulled = evaluate(backward.graph, [*sample.arrays, *cts])
    for a, b, c in zip(primal, pushed, pulled, strict=False):
        np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(a, c)
    left, right = inner(cts, pushed[count:]), inner(pulled[count:], dots)
    rough = any(a.dtype in ("bf16", "f16", "f32") for a in graph.output_avals)
    tolerance = 1e-2 if rough else 1e-9
    assert left == pytest.approx(right, rel=tolerance, abs=tolerance)


def chain(builder, x, w):
    """A program with fan-out, a reduction, a contraction and a choice."""
    x, w = GraphTerm(builder, x), GraphTerm(builder, w)
    h = x.call("contract", w, spec="ij,jk->ik").call("tanh")
    s = h.call("sum", axes=(1,)).call("broadcast", shape=h.aval.shape, axes=(0,))
    y = (h > 0).call("select", h * s, h.call("exp"))
    return y.call("sum", axes=(0, 1)).operand


def chain_graph():
    builder = Builder("chain")
    x, w = builder.input(aval("f64", (3, 4)), "x"), builder.input(aval("f64", (4, 2)), "w")
    return builder.build([chain(builder, x, w)])


def gradient(graph, position=0):
    """The graph of the gradient of a scalar graph by one input."""
    active = [i == position for i in range(len(graph.inputs))]
    made = vjp(graph, active)
    builder = Builder(f"{graph.name}_grad")
    inputs = [builder.input(v.aval, v.name) for v in graph.inputs]
    one = GraphTerm(builder, inputs[0]).call("sum", axes=tuple(range(inputs[0].aval.ndim))).lift(1)
    return builder.build(builder.inline(made.graph, [*inputs, one.operand])[1:])


def test_gradient_is_what_finite_differences_see():
    graph = chain_graph()
    rng = np.random.default_rng(1)
    x, w = rng.standard_normal((3, 4)), rng.standard_normal((4, 2))
    (found,) = evaluate(gradient(graph), [x, w])
    for i in np.ndindex(x.shape):
        step = np.zeros_like(x)
        step[i] = 1e-6
        high, low = evaluate(graph, [x + step, w])[0], evaluate(graph, [x - step, w])[0]
        assert found[i] == pytest.approx((high - low) / 2e-6, rel=1e-6, abs=1e-8)


def test_second_derivatives_agree_in_all_orders():
    graph = chain_graph()
    rng = np.random.default_rng(2)
    x, w = rng.standard_normal((3, 4)), rng.standard_normal((4, 2))
    v = rng.standard_normal(x.shape)
    grad = gradient(graph)
    forward_over_reverse = jvp(grad, [True, False]).graph
    reverse_over_reverse = vjp(grad, [True, False]).graph
    hv = evaluate(forward_over_reverse, [x, w, v])[1]
    vh = evaluate(reverse_over_reverse, [x, w, v])[1]
    reverse_over_forward = vjp(jvp(graph, [True, False]).graph, [True, False, False])
    both = evaluate(reverse_over_forward.graph, [x, w, v, np.float64(0), np.float64(1)])[2]
    np.testing.assert_allclose(hv, vh, rtol=1e-10)
    np.testing.assert_allclose(hv, both, rtol=1e-10)
    step = 1e-6
    near = [evaluate(grad, [x + s * step * v, w])[0] for s in (1, -1)]
    np.testing.assert_allclose(hv, (near[0] - near[1]) / (2 * step), rtol=1e-5, atol=1e-8)


SCAN = """
func @f(w: f64[3,3], h: f64[3], xs: f64[5,3]) -> (f64[3], f64[5,3]) {
  %0: f64[3], %1: f64[5,3] = scan(w, h, xs, consts=1, carry=1, length=5, reverse=REVERSE) {
    func @body(w: f64[3,3], h: f64[3], x: f64[3]) -> (f64[3], f64[3]) {
      %0: f64[3] = contract(w, h, spec="ij,j->i")
      %1: f64[3] = add(%0, x)
      %2: f64[3] = tanh(%1)
      %3: f64[3] = mul(%2, x)
      return %2, %3
    }
  }
  return %0, %1
}
"""


@pytest.mark.parametrize("reverse", ["true", "false"])
@pytest.mark.parametrize("active", [(1, 1, 1), (1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 0, 1)])
def test_scan_in_all_modes(reverse, active):
    graph = parse(SCAN.replace("REVERSE", reverse), diffc.ops.table())
    mask = [bool(a) for a in active]
    rng = np.random.default_rng(3)
    arrays = drawn(rng, graph.input_avals)
    dots = drawn(rng, [a for a, is_on in zip(graph.input_avals, mask, strict=True) if is_on])
    cts = drawn(rng, graph.output_avals)
    forward, backward, halves = jvp(graph, mask), vjp(graph, mask), linearize(graph, mask)
    for made in (forward.graph, backward.graph, halves.primal, halves.linear):
        check(made)
    pushed = evaluate(forward.graph, [*arrays, *dots])[2:]
    step = 1e-6
    spread = iter(dots)
    moves = [
        next(spread) if is_on else np.zeros_like(x) for x, is_on in zip(arrays, mask, strict=True)
    ]
    ends = [
        evaluate(graph, [x + s * step * d for x, d in zip(arrays, moves, strict=True)])
        for s in (1, -1)
    ]
    for dot, high, low in zip(pushed, *ends, strict=True):
        np.testing.assert_allclose(dot, (high - low) / (2 * step), rtol=1e-5, atol=1e-8)
    pulled = evaluate(backward.graph, [*arrays, *cts])[2:]
    assert inner(cts, pushed) == pytest.approx(inner(pulled, dots), rel=1e-9)
    residuals = evaluate(halves.primal, arrays)[2:]
    linear = evaluate(halves.linear, [*residuals, *dots])
    for a, b in zip(linear, pushed, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12)
    second = jvp(backward.graph, [*mask, False, False])
    check(second.graph)


def test_a_scan_is_differentiated_into_one_loop():
    graph = parse(SCAN.replace("REVERSE", "false"), diffc.ops.table())
    made = jvp(graph, [True, True, True]).graph
    assert [eqn.op.name for eqn in made.eqns].count("scan") == 1


NAN_FREE = {
    "sqrt": "func @f(x: f64[3]) -> (f64[]) {\n  %0: bool[3] = gt(x, 0.0:f64[3])\n"
    "  %1: f64[3] = sqrt(x)\n  %2: f64[3] = select(%0, %1, 0.0:f64[3])\n"
    "  %3: f64[] = sum(%2, axes=[0])\n  return %3\n}",
    "relu_log": "func @f(x: f64[3]) -> (f64[]) {\n  %0: f64[3] = log(x)\n"
    "  %1: f64[3] = maximum(%0, 0.0:f64[3])\n  %2: f64[] = sum(%1, axes=[0])\n  return %2\n}",
    "slice": "func @f(x: f64[3]) -> (f64[]) {\n  %0: f64[3] = log(x)\n"
    "  %1: f64[1] = slice(%0, start=[2], stop=[3], step=[1])\n"
    "  %2: f64[] = sum(%1, axes=[0])\n  return %2\n}",
    "through_reshape": "func @f(x: f64[3]) -> (f64[]) {\n  %0: f64[3] = sqrt(x)\n"
    "  %1: f64[3,1] = reshape(%0, shape=[3, 1])\n  %2: f64[3,2] = concat(%1, %1, axis=1)\n"
    "  %3: bool[3] = gt(x, 0.0:f64[3])\n  %4: bool[3,2] = broadcast(%3, axes=[0], shape=[3, 2])\n"
    "  %5: f64[3,2] = select(%4, %2, 0.0:f64[3,2])\n  %6: f64[] = sum(%5, axes=[0, 1])\n"
    "  return %6\n}",
}


@pytest.mark.parametrize("name", NAN_FREE)
def test_a_branch_that_was_not_taken_contributes_nothing(name):
    graph = parse(NAN_FREE[name], diffc.ops.table())
    x = np.array([-1.0, 0.0, 4.0])
    (_, found) = evaluate(vjp(graph, [True]).graph, [x, np.float64(1)])
    assert np.isfinite(found).all() and found[0] == found[1] == 0 and found[2] != 0
    for i in range(3):
        dot = np.eye(3)[i]
        pushed = evaluate(jvp(graph, [True]).graph, [x, dot])[1]
        assert i == 0 or pushed == found[i] or (i == 1 and not np.isfinite(pushed))


def test_an_honest_nan_stays():
    text = (
        "func @f(x: f64[]) -> (f64[]) {\n  %0: f64[] = sqrt(x)\n  %1: f64[] = mul(%0, %0)\n"
        "  return %1\n}"
    )
    graph = parse(text, diffc.ops.table())
    assert np.isnan(evaluate(vjp(graph, [True]).graph, [np.float64(0), np.float64(1)])[1])


def test_kinks():
    text = (
        "func @f(x: f64[], y: f64[]) -> (f64[], f64[]) {\n  %0: f64[] = maximum(x, y)\n"
        "  %1: f64[] = maximum(x, 0.0:f64[])\n  return %0, %1\n}"
    )
    graph = parse(text, diffc.ops.table())
    zero, one = np.float64(0), np.float64(1)
    made = vjp(graph, [True, True]).graph
    assert [float(v) for v in evaluate(made, [zero, zero, one, zero])[2:]] == [0.5, 0.5]
    assert [float(v) for v in evaluate(made, [zero, zero, zero, one])[2:]] == [0, 0]


def test_transposing_what_no_output_needs_gives_zero():
    text = "func @f(x: f64[3], y: f64[2]) -> (f64[3]) {\n  %0: f64[3] = neg(x)\n  return %0\n}"
    graph = parse(text, diffc.ops.table())
    turned = transpose(graph, [True, True])
    cts = evaluate(turned, [np.ones(3)])
    np.testing.assert_array_equal(cts[0], -np.ones(3))
    np.testing.assert_array_equal(cts[1], np.zeros(2))


def test_what_has_no_derivative_says_why():
    undefined = [op for op in diffc.ops.every_op() if isinstance(op.derivative, Undefined)]
    for op in undefined:
        for sample in samples(op, dtypes=("f64",))[:1]:
            with pytest.raises(UsageError, match=op.name):
                jvp(graph_of(sample), [a.is_float for a in sample.avals])


def test_cotangents_name_what_they_belong_to():
    made = vjp(chain_graph(), [True, True]).graph
    assert any(result.of is not None for eqn in made.eqns for result in eqn.results)
