"""Whole-graph rewrites of convolutions: same values on drawn shapes, and what they fire on."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import diffc
from diffc.ir.aval import aval
from diffc.ir.graph import Builder
from diffc.ir.text import print_graph
from diffc.ops.interpret import evaluate
from diffc.ops.registry import find
from diffc.ops.windows import positions
from diffc.optimize import optimize
from diffc.trace import trace

RNG = np.random.default_rng(8)


def emit(builder, op, *operands, **params):
    return builder.emit(find(op), operands, params)[0]


def agree(graph, only, *shapes):
    """Optimizes; the values stay (small integers: sums are exact in any order)."""
    new = optimize(graph, only=[only])
    given_ = [RNG.integers(-4, 5, shape).astype("f4") for shape in shapes]
    for found, wanted in zip(evaluate(new, given_), evaluate(graph, given_), strict=True):
        np.testing.assert_array_equal(found, wanted)
    return new


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_spread_of_contract_keeps_the_values(data):
    count = data.draw(st.integers(1, 2))
    small = st.integers(1, 3)
    sizes = tuple(data.draw(st.integers(1, 4)) for _ in range(count))
    strides, dilations = (tuple(data.draw(small) for _ in range(count)) for _ in range(2))
    spans = [(k - 1) * d + 1 for k, d in zip(sizes, dilations, strict=True)]
    dims = tuple(span + data.draw(st.integers(0, 6)) for span in spans)
    places = tuple(positions(*each) for each in zip(dims, sizes, strides, dilations, strict=True))
    builder = Builder("f")
    letters = "pq"[:count], "kl"[:count]
    shapes = (2, *places, 3), (*sizes, 2, 3)
    dz, w = (builder.input(aval("f32", shape)) for shape in shapes)
    spec = f"n{letters[0]}d,{letters[1]}cd->n{letters[0]}c{letters[1]}"
    if data.draw(st.booleans()):
        left, _, rest = spec.partition(",")
        right, _, result = rest.partition("->")
        patches = emit(builder, "contract", w, dz, spec=f"{right},{left}->{result}")
    else:
        patches = emit(builder, "contract", dz, w, spec=spec)
    whole = (2, *dims, 2)
    found = emit(
        builder, "overlap_add", patches, axes=tuple(range(1, count + 1)), sizes=sizes,
        strides=strides, dilations=dilations, shape=whole,
    )  # fmt: skip
    if data.draw(st.booleans()):
        cuts = [sorted(data.draw(st.tuples(*[st.integers(0, n)] * 2))) for n in dims]
        start, stop = (0, *(c[0] for c in cuts), 0), (2, *(c[1] for c in cuts), 2)
        found = emit(builder, "slice", found, start=start, stop=stop, step=(1,) * len(whole))
    new = agree(builder.build([found]), "spread_of_contract", *shapes)
    assert all(eqn.op.name != "overlap_add" for eqn in new.eqns)


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_sum_of_shifts_keeps_the_values(data):
    """Loops over offsets in any order, with steps, on images and rows, with one channel too."""
    count = data.draw(st.integers(1, 2))
    sizes = tuple(data.draw(st.integers(1, 3)) for _ in range(count))
    steps, gaps = (tuple(data.draw(st.integers(1, 2)) for _ in range(count)) for _ in range(2))
    dims = tuple(data.draw(st.integers(2, 3)) for _ in range(count))
    inside, outside = data.draw(st.integers(1, 2)), data.draw(st.integers(2, 3))
    offsets = data.draw(st.permutations(list(np.ndindex(*sizes))))
    whole = [
        (n - 1) * s + (k - 1) * g + 1 for n, s, k, g in zip(dims, steps, sizes, gaps, strict=True)
    ]
    shapes = (2, *whole, inside), (*sizes, inside, outside)

    def f(x, w):
        total = 0
        for offset in offsets:
            where = tuple(
                slice(o * g, o * g + (n - 1) * s + 1, s)
                for o, g, n, s in zip(offset, gaps, dims, steps, strict=True)
            )
            total = total + x[(slice(None), *where)] @ w[offset]
        return total

    graph = optimize(trace(f, [np.zeros(s, "f4") for s in shapes]).graph, without=["sum_of_shifts"])
    new = agree(graph, "sum_of_shifts", *shapes)
    if len(offsets) > 1:
        assert [eqn.op.name for eqn in new.eqns].count("contract") == 1, print_graph(new)
        assert "add" not in {eqn.op.name for eqn in new.eqns}


def test_convolution_of_slices_and_its_gradients_are_three_contractions():
    def f(x, w):
        xp = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
        h = sum(xp[:, i : i + 5, j : j + 6] @ w[i, j] for i in range(3) for j in range(3))
        return np.sum(h * h)

    x, w = RNG.standard_normal((2, 5, 6, 3)), RNG.standard_normal((3, 3, 3, 4))
    step = diffc.jit(diffc.value_and_grad(f, (0, 1)))
    ops = [eqn.op.name for eqn in step.stages(x, w).graph.eqns]
    assert ops.count("contract") == 3
    assert "overlap_add" not in ops
    value, (by_x, by_w) = step(x, w)
    np.testing.assert_allclose(value, f(x, w), rtol=1e-12)
    x_dot, w_dot = RNG.standard_normal(x.shape), RNG.standard_normal(w.shape)
    near = 1e-6
    slope = (f(x + near * x_dot, w + near * w_dot) - f(x - near * x_dot, w - near * w_dot)) / 2e-6
    np.testing.assert_allclose(np.sum(by_x * x_dot) + np.sum(by_w * w_dot), slope, rtol=1e-7)


@pytest.mark.parametrize("name", ["sum_of_shifts", "spread_of_contract"])
def test_graphs_without_windows_are_returned(name):
    graph = trace(lambda x, w: np.tanh(x @ w) + x @ w, [np.zeros((3, 3))] * 2).graph
    assert optimize(graph, only=[name]) is graph
