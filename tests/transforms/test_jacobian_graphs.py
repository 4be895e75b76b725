"""Every op: its Jacobian forward is the one backward, and its Hessian is symmetric.

Both are batches of derivative graphs along unit directions, so this also batches what the rules of
derivatives emit.
"""

import numpy as np
import pytest

import diffc.ops
from diffc.ir.check import check
from diffc.ir.graph import Builder
from diffc.ops.declare import Undefined, Zero
from diffc.ops.interpret import evaluate
from diffc.transforms import batch, jvp, vjp
from tests.ops.samples import samples
from tests.transforms.test_transforms import graph_of

MOST = 40  # elements of all operands, and of all results


def size(avals):
    return sum(int(np.prod(a.shape)) for a in avals)


def smooth_samples():
    for op in diffc.ops.every_op():
        for sample in samples(op, dtypes=("f64",)):
            fact = op.fact(sample.params)
            floats = [a for a in sample.avals if a.is_float]
            if not isinstance(fact, (Zero, Undefined)) and 0 < size(floats) <= MOST:
                yield pytest.param(sample, id=str(sample))


def units(avals):
    """For arrays of these avals together: all directions with a single 1, as stacks."""
    total, at, found = size(avals), 0, []
    for a in avals:
        stack = np.zeros((total, *a.shape), a.numpy)
        flat = stack.reshape(total, -1)
        flat[at : at + flat.shape[1]] = np.eye(flat.shape[1])
        at += flat.shape[1]
        found.append(stack)
    return found


def along_units(graph, given, directions, first):
    """Outputs from ``first`` on, for every direction, as one matrix: a row for each direction."""
    count = len(directions[0]) if directions else 0
    mask = [False] * len(given) + [True] * len(directions)
    wanted = [i >= first for i in range(len(graph.outputs))]
    made = batch(graph, mask, count, wanted)
    check(made.graph)
    results = evaluate(made.graph, [*given, *directions])[first:]
    return np.concatenate([r.reshape(count, -1).astype(np.float64) for r in results], 1)


@pytest.mark.parametrize("sample", list(smooth_samples()))
def test_forward_is_backward(sample):
    graph = graph_of(sample)
    active = [a.is_float for a in sample.avals]
    forward, backward = jvp(graph, active), vjp(graph, active)
    outs = [a for a, on in zip(graph.output_avals, backward.active_outputs, strict=True) if on]
    if not outs or size(outs) > MOST or size(outs) == 0:
        return
    count = len(graph.outputs)
    inputs = [a for a, on in zip(sample.avals, active, strict=True) if on]
    columns = along_units(forward.graph, sample.arrays, units(inputs), count)
    rows = along_units(backward.graph, sample.arrays, units(outs), count)
    rough = any(a.dtype in ("bf16", "f16", "f32") for a in graph.output_avals)
    tolerance = 1e-2 if rough else 1e-10
    np.testing.assert_allclose(columns.T, rows, rtol=tolerance, atol=tolerance)


def weighted_gradient(graph, active):
    """Cotangents of the inputs for fixed cotangents of the outputs, drawn."""
    made = vjp(graph, active)
    rng = np.random.default_rng(0)
    builder = Builder("gradient")
    inputs = [builder.input(a) for a in graph.input_avals]
    cts = []
    for value in made.graph.inputs[len(inputs) :]:
        data = np.asarray(rng.standard_normal(value.aval.shape), value.aval.numpy)
        params = {"dtype": value.aval.dtype, "shape": value.aval.shape, "data": data.tobytes()}
        cts += builder.emit(diffc.ops.find("constant"), (), params)
    return builder.build(builder.inline(made.graph, [*inputs, *cts])[len(graph.outputs) :])


@pytest.mark.parametrize("sample", list(smooth_samples()))
def test_hessians_are_symmetric(sample):
    graph = graph_of(sample)
    active = [a.is_float for a in sample.avals]
    inputs = [a for a, on in zip(sample.avals, active, strict=True) if on]
    if any(a.dtype in ("bf16", "f16", "f32") for a in graph.output_avals):
        return
    gradient = weighted_gradient(graph, active)
    made = jvp(gradient, active, [True] * len(gradient.outputs))
    found = along_units(made.graph, sample.arrays, units(inputs), len(gradient.outputs))
    np.testing.assert_allclose(found, found.T, rtol=1e-9, atol=1e-9)
    twice = vjp(gradient, active, made.active_outputs)
    outs = [a for a, on in zip(gradient.output_avals, twice.active_outputs, strict=True) if on]
    if len(outs) == len(gradient.outputs):  # every cotangent depends on some operand
        again = along_units(twice.graph, sample.arrays, units(outs), len(gradient.outputs))
        np.testing.assert_allclose(again, found, rtol=1e-9, atol=1e-9)
