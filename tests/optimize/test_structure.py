"""Structural rewrites: what they replace is what they put there, on drawn graphs and at edges."""

import itertools
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import diffc
from diffc.ir.aval import aval
from diffc.ir.graph import Builder, literal
from diffc.ir.text import parse
from diffc.ops.interpret import evaluate
from diffc.ops.registry import find, table
from diffc.optimize import optimize
from diffc.optimize.structure import STRUCTURE
from diffc.optimize.whole import GRAPH_RULES
from diffc.trace import trace
from tests.cases.reader import files, read

RNG = np.random.default_rng(11)


def emit(builder, op, *operands, **params):
    return builder.emit(find(op), operands, params)[0]


def shapes_like(size):
    """Ways to write a size as a shape."""
    return [s for n in (1, 2, 3) for s in itertools.product((1, 2, 3, 4, 6), repeat=n)
            if np.prod(s) == size]  # fmt: skip


def draw_step(data, builder, x):
    """One movement, unary op, or reduction of nothing on a drawn value."""
    shape, rank = x.aval.shape, x.aval.ndim
    kind = data.draw(st.sampled_from(
        ["reshape", "transpose", "broadcast", "slice", "pad", "reverse", "concat", "sum", "exp",
         "neg", "div"]
    ))  # fmt: skip
    if kind == "reshape":
        return emit(builder, kind, x, shape=data.draw(st.sampled_from(shapes_like(x.aval.size))))
    if kind == "transpose":
        return emit(builder, kind, x, perm=tuple(data.draw(st.permutations(range(rank)))))
    if kind == "broadcast":
        if rank == 3 or data.draw(st.booleans()):
            return emit(builder, kind, x, shape=shape, axes=tuple(range(rank)))
        place = data.draw(st.integers(0, rank))
        axes = tuple(k for k in range(rank + 1) if k != place)
        return emit(builder, kind, x, shape=(*shape[:place], 2, *shape[place:]), axes=axes)
    if kind == "slice":
        step = tuple(data.draw(st.sampled_from([1, 1, 2])) for _ in shape)
        return emit(builder, kind, x, start=(0,) * rank, stop=shape, step=step)
    if kind == "pad":
        low = tuple(data.draw(st.sampled_from([0, 0, 1])) for _ in shape)
        zero = literal(0, x.aval.with_shape(()))
        return emit(builder, kind, x, zero, low=low, high=(0,) * rank, interior=(0,) * rank)
    if kind == "reverse":
        return emit(
            builder, kind, x, axes=tuple(k for k in range(rank) if data.draw(st.booleans()))
        )
    if kind == "concat":
        return emit(builder, kind, x, axis=0) if rank else x
    if kind == "sum":
        return emit(builder, kind, x, axes=())
    if kind == "div":
        value = data.draw(st.sampled_from([1.0, 2.0, 0.25, 3.0, -4.0, 1e6]))
        return emit(builder, kind, x, literal(value, x.aval))
    return emit(builder, kind, x)


@given(st.data())
def test_drawn_graphs_keep_their_meaning(data):
    builder = Builder("drawn")
    shape = data.draw(st.sampled_from([(), (1,), (4,), (2, 3), (1, 4), (2, 1, 3)]))
    x = builder.input(aval("f32", shape), "x")
    values = [x]
    for _ in range(data.draw(st.integers(1, 6))):
        values.append(draw_step(data, builder, data.draw(st.sampled_from(values))))
    graph = builder.build(values[-2:])
    optimized = optimize(graph)
    assert optimize(optimized) is optimized
    array = RNG.normal(size=shape).astype(np.float32)
    for found, expected in zip(evaluate(optimized, [array]), evaluate(graph, [array]), strict=True):
        np.testing.assert_array_equal(found, expected)


def positions(graph):
    return [eqn.op.name for eqn in graph.eqns]


# --- sums of exponentials ---------------------------------------------------------------------


def softmax(x, axis, keep):
    e = np.exp(x)
    return e / e.sum(axis=axis, keepdims=keep)


def log_softmax(x, axis, keep):
    s = x - x.max(axis=axis, keepdims=True)
    return s - np.log(np.exp(s).sum(axis=axis, keepdims=keep))


def shifted_softmax(x, axis, keep):
    return softmax(x - x.max(axis=axis, keepdims=True), axis, keep)


def difference(f, x, step=1e-6):
    found = np.zeros_like(x)
    for index in np.ndindex(x.shape):
        unit = np.zeros_like(x)
        unit[index] = step
        found[index] = (f(x + unit) - f(x - unit)) / (2 * step)
    return found


@pytest.mark.parametrize("f", [softmax, log_softmax, shifted_softmax])
@pytest.mark.parametrize("keep", [True, False])
@pytest.mark.parametrize(
    ("shape", "axis"),
    [((3, 3), 0), ((3, 3), 1), ((3, 3), (0, 1)), ((1, 3), 0), ((3, 1), 1), ((2, 2, 2), 1),
     ((2, 2, 2), (0, 2)), ((4,), 0)],
)  # fmt: skip
def test_rows_are_normalized_by_whatever_sum_the_code_takes(f, keep, shape, axis):
    # without keepdims a square array is divided by the sums of other rows
    x = 2 * RNG.normal(size=shape)
    weights = np.arange(x.size, dtype=float).reshape(shape)
    try:
        expected = f(x, axis, keep)
    except ValueError:
        return  # these shapes don't broadcast
    if expected.shape != shape:
        return
    found = diffc.jit(lambda x: f(x, axis, keep))(x)
    np.testing.assert_allclose(found, expected, rtol=1e-12)

    def loss(x):
        return np.sum(f(x, axis, keep) * weights)

    np.testing.assert_allclose(diffc.grad(loss)(x), difference(loss, x), rtol=1e-5, atol=1e-7)


def test_the_usual_softmax_is_stable():
    x = np.array([[1000.0, 1001.0, -1000.0], [0.0, -5000.0, 1.0]], np.float32)
    for axis, keep in ((1, True), (-1, True)):
        found = diffc.jit(lambda x, axis=axis, keep=keep: softmax(x, axis, keep))(x)
        assert np.isfinite(found).all()
        np.testing.assert_allclose(found.sum(axis=1), 1, rtol=1e-6)
    logs = diffc.jit(lambda x: np.log(np.exp(x).sum(axis=1)))(x)
    np.testing.assert_allclose(logs, [1001.3133, 1.3132616], rtol=1e-6)


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
def test_special_values_come_through_as_in_numpy(value):
    x = np.array([[value, 1.0, 2.0], [value, value, value], [1.0, 2.0, 3.0]])
    with np.errstate(all="ignore"):
        expected = np.log(np.exp(x).sum(axis=1))
    found = diffc.jit(lambda x: np.log(np.exp(x).sum(axis=1)))(x)
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_a_shifted_softmax_is_not_shifted_again():
    graph = trace(lambda x: shifted_softmax(x, 1, True), [np.zeros((3, 4))]).graph
    assert positions(optimize(graph)).count("max") == 1


# --- scatters ---------------------------------------------------------------------------------


def scatter_graph(n, c, index, rows="i64"):
    builder = Builder("scatter")
    u = builder.input(aval("f32", (n,)), "u")
    y = builder.input(aval(index, (n,)), "y")
    counter = emit(builder, "iota", dtype=rows, shape=(n,), axis=0)
    zeros = literal(0, aval("f32", (n, c)))
    settings = {"axes": (0, 1), "mode": "drop", "combine": "add"}
    return builder.build([emit(builder, "scatter", zeros, u, counter, y, **settings)])


@pytest.mark.parametrize(
    ("n", "c", "index", "rows", "fires"),
    [
        (3, 4, "i64", "i64", True),
        (3, 256, "u8", "i64", True),
        (3, 257, "u8", "i64", False),  # counting columns in u8 would wrap
        (3, 128, "i8", "i32", True),
        (3, 129, "i8", "i32", False),
        (200, 4, "i64", "i8", False),  # the counter of rows wraps
        (1, 1, "i64", "i64", True),
        (3, 0, "i64", "i64", True),
    ],
)
def test_scatter_is_a_choice_where_counting_does_not_wrap(n, c, index, rows, fires):
    graph = scatter_graph(n, c, index, rows)
    optimized = optimize(graph, only=["scatter_one_per_row"])
    assert ("scatter" not in positions(optimized)) is fires
    u = RNG.normal(size=n).astype(np.float32)
    y = np.asarray(RNG.integers(0, 127, n)).astype(graph.inputs[1].aval.numpy)
    for found, expected in zip(evaluate(optimized, [u, y]), evaluate(graph, [u, y]), strict=True):
        np.testing.assert_array_equal(found, expected)


# --- the table --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", STRUCTURE)
def test_structure_has_its_reason_and_known_ops(name):
    structure = STRUCTURE[name]
    assert structure.why
    for root in structure.roots:
        assert find(root).name == root


def test_every_structure_fires_somewhere():
    fired = Counter()
    for path in files():
        for case in read(path)[1]:
            if case.run.startswith("optimize") and case.error is None:
                optimize(parse(case.text, table()), fired=fired)
    for f in (softmax, log_softmax, shifted_softmax):
        graph = trace(lambda x, f=f: f(x, 1, True), [np.zeros((3, 4))]).graph
        optimize(graph, fired=fired)
    builder = Builder("one")
    x = builder.input(aval("f32", (2,)), "x")
    padded = emit(builder, "pad", x, literal(0, aval("f32")), low=(0,), high=(0,), interior=(0,))
    optimize(builder.build([emit(builder, "concat", padded, axis=0)]), fired=fired)
    assert {*STRUCTURE, *GRAPH_RULES} - {name for name, count in fired.items() if count} == set()


def test_rules_for_whole_graphs_have_their_reason():
    assert all(rule.why for rule in GRAPH_RULES.values())
