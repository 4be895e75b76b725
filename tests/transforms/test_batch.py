"""A batched graph does what a Python loop does: every op, every mask, programs, loops."""

import itertools

import numpy as np
import pytest

import diffc.ops
from diffc.ir.aval import aval, limits
from diffc.ir.check import check
from diffc.ir.graph import Builder, literal
from diffc.ir.text import parse, print_graph
from diffc.ops.interpret import evaluate
from diffc.ops.term import GraphTerm
from diffc.transforms import batch, jvp, vjp
from tests.ops.samples import CASES, fill, samples
from tests.transforms.test_transforms import SCAN, graph_of

#: f16 rounds where f32 and f64 don't; integers wrap; booleans have ops of their own.
DTYPES = ("bool", "i32", "u8", "bf16", "f16", "f64")
SIZE = 3


def every_sample():
    for op in diffc.ops.every_op():
        for sample in samples(op, dtypes=DTYPES):
            if sample.avals:
                yield pytest.param(sample, id=str(sample))


def masks(count):
    """All masks of few operands; of many, those with one or all but one batched, and all."""
    if count <= 4:
        return [m for m in itertools.product((False, True), repeat=count) if any(m)]
    one = [tuple(k == i for k in range(count)) for i in range(count)]
    rest = [tuple(not on for on in mask) for mask in one]
    return [*one, *rest, (True,) * count]


def draws(sample, size):
    """Operands of the sample, drawn anew for each element of the batch."""
    draw = next((case.draw for case in CASES if case.op == sample.op.name), None)
    return [fill(sample, draw, seed=seed).arrays for seed in range(size)]


def loop(graph, arrays, mask, size):
    """The graph for one element after the other, results stacked."""
    runs = [
        evaluate(graph, [x[i] if on else x for x, on in zip(arrays, mask, strict=True)])
        for i in range(size)
    ]
    return [np.stack(results) for results in zip(*runs, strict=True)]


def agree(found, expected, exact=True):
    assert found.dtype == expected.dtype and found.shape == expected.shape
    if exact:
        np.testing.assert_array_equal(found, expected)
    else:
        eps = float(limits(found.dtype).eps)
        np.testing.assert_allclose(found, expected, rtol=32 * eps, atol=32 * eps)


@pytest.mark.parametrize("sample", list(every_sample()))
def test_batched_is_a_loop(sample):
    graph = graph_of(sample)
    drawn = draws(sample, SIZE)
    for mask in masks(len(sample.avals)):
        columns = zip(*drawn, strict=True)
        arrays = [
            np.stack(column) if on else column[0] for column, on in zip(columns, mask, strict=True)
        ]
        made = batch(graph, mask, SIZE)
        check(made.graph)
        assert print_graph(parse(print_graph(made.graph), diffc.ops.table())) == print_graph(
            made.graph
        )
        assert made.inputs == mask and any(made.outputs)
        found = evaluate(made.graph, arrays)
        expected = loop(graph, arrays, mask, SIZE)
        # NumPy adds up in another order, and takes other elementary functions, on other shapes
        is_exact = sample.op.is_movement or not graph.outputs[0].aval.is_float
        for x, y, on in zip(found, expected, made.outputs, strict=True):
            agree(x if on else np.stack([x] * SIZE), y, is_exact)


@pytest.mark.parametrize("op", list(diffc.ops.every_op()), ids=lambda op: op.name)
def test_an_empty_batch(op):
    for sample in samples(op, dtypes=("f64", "u32"))[:2]:
        if not sample.avals:
            continue
        made = batch(graph_of(sample), [True] * len(sample.avals), 0)
        arrays = [np.zeros((0, *a.shape), a.numpy) for a in sample.avals]
        for result, on in zip(evaluate(made.graph, arrays), made.outputs, strict=True):
            assert not on or result.shape[0] == 0


@pytest.mark.parametrize("reverse", ["true", "false"])
@pytest.mark.parametrize("mask", [m for m in itertools.product((0, 1), repeat=3) if any(m)])
def test_scans(reverse, mask):
    graph = parse(SCAN.replace("REVERSE", reverse), diffc.ops.table())
    rng = np.random.default_rng(0)
    arrays = [
        rng.standard_normal((SIZE, *a.shape) if on else a.shape)
        for a, on in zip(graph.input_avals, mask, strict=True)
    ]
    made = batch(graph, list(map(bool, mask)), SIZE)
    check(made.graph)
    assert made.outputs == (True, True)
    for x, y in zip(evaluate(made.graph, arrays), loop(graph, arrays, mask, SIZE), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-13)


def carried():
    """A scan of which one carry never meets the batch, and one only in the second step."""
    text = """
func @f(a: f64[], b: f64[], c: f64[], xs: f64[4]) -> (f64[], f64[], f64[], f64[4]) {
  %0: f64[], %1: f64[], %2: f64[], %3: f64[4] = scan(a, b, c, xs, consts=0, carry=3, length=4, \
reverse=false) {
    func @body(a: f64[], b: f64[], c: f64[], x: f64[]) -> (f64[], f64[], f64[], f64[]) {
      %0: f64[] = add(b, x)
      %1: f64[] = add(c, 1.0:f64[])
      %2: f64[] = mul(c, x)
      return %0, b, %1, %2
    }
  }
  return %0, %1, %2, %3
}
"""
    return parse(text, diffc.ops.table())


def test_carries_are_batched_by_fixpoint():
    graph = carried()
    made = batch(graph, [False, True, False, False], 2)
    check(made.graph)
    assert made.outputs == (True, True, False, False)
    arrays = [1.0, np.array([2.0, 3.0]), 0.5, np.arange(4.0)]
    found = evaluate(made.graph, arrays)
    for i in range(2):
        one = evaluate(graph, [1.0, arrays[1][i], 0.5, np.arange(4.0)])
        for x, y, on in zip(found, one, made.outputs, strict=True):
            np.testing.assert_array_equal(x[i] if on else x, y)


def test_what_is_not_batched_stays_as_it_is():
    builder = Builder("f")
    x, w = (GraphTerm(builder, builder.input(aval("f64", (3,)), name)) for name in "xw")
    graph = builder.build([(x + w.call("exp")).operand, w.call("exp").operand])
    made = batch(graph, [True, False], 5)
    assert made.outputs == (True, False)
    assert made.graph.outputs[1].aval is aval("f64", (3,))
    wanted = batch(graph, [True, False], 5, [False, True])
    assert wanted.outputs == (True, True)
    assert wanted.graph.outputs[1].aval is aval("f64", (5, 3))
    assert batch(graph, [True, False], 5) is made


def test_literals_stay_literals():
    builder = Builder("f")
    x = GraphTerm(builder, builder.input(aval("f64", (3,)), "x"))
    made = batch(builder.build([(x * 2).operand]), [True], 4)
    assert [eqn.op.name for eqn in made.graph.eqns] == ["mul"]
    assert made.graph.eqns[0].operands[1] is literal(2, aval("f64", (4, 3)))


def test_random_bits_of_each_key_are_those_of_a_loop():
    builder = Builder("f")
    key = builder.input(aval("u32", (2,)), "key")
    graph = builder.build(builder.emit(diffc.ops.find("random_bits"), [key], {"shape": (5, 3)}))
    keys = np.arange(14, dtype=np.uint32).reshape(7, 2) * np.uint32(2654435761)
    (found,) = evaluate(batch(graph, [True], 7).graph, [keys])
    for i in range(7):
        np.testing.assert_array_equal(found[i], evaluate(graph, [keys[i]])[0])


@pytest.mark.parametrize("reverse", ["true", "false"])
def test_batching_and_differentiating_commute(reverse):
    graph = parse(SCAN.replace("REVERSE", reverse), diffc.ops.table())
    rng = np.random.default_rng(1)
    primals = [rng.standard_normal((SIZE, *a.shape)) for a in graph.input_avals]
    cts = [rng.standard_normal((SIZE, *a.shape)) for a in graph.output_avals]
    back = vjp(graph, [True] * 3).graph
    one = batch(back, [True] * 5, SIZE).graph
    other = vjp(batch(graph, [True] * 3, SIZE).graph, [True] * 3).graph
    expected = loop(back, [*primals, *cts], [True] * 5, SIZE)
    for a, b, c in zip(
        evaluate(one, [*primals, *cts]), evaluate(other, [*primals, *cts]), expected, strict=True
    ):
        np.testing.assert_allclose(a, c, rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose(b, c, rtol=1e-12, atol=1e-12)
    forward = batch(jvp(graph, [True] * 3).graph, [False] * 3 + [True] * 3, SIZE)
    check(forward.graph)
    assert forward.outputs == (False, False, True, True)
