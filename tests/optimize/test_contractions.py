"""Rewrites around contractions, and masks by indices: the same values on drawn graphs."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import diffc
from diffc.ir.aval import aval
from diffc.ir.graph import Builder, literal
from diffc.ir.index import Var
from diffc.ops.interpret import evaluate
from diffc.ops.registry import find
from diffc.optimize import optimize
from diffc.optimize.predicates import predicate
from diffc.trace import trace

RNG = np.random.default_rng(21)


def emit(builder, op, *operands, **params):
    return builder.emit(find(op), operands, params)[0]


def names(graph):
    return [eqn.op.name for eqn in graph.eqns]


@settings(max_examples=80, deadline=None)
@given(st.data())
def test_contractions_of_quotients_keep_their_values(data):
    letters = "hijc"
    dims = {c: data.draw(st.sampled_from([1, 2, 3])) for c in letters}
    left = data.draw(st.permutations("hij"))
    right = data.draw(st.permutations("hjc"))
    result = data.draw(st.permutations("hic"))
    builder = Builder("f")
    shape = tuple(dims[c] for c in left)
    scores = builder.input(aval("f64", shape))
    v = builder.input(aval("f64", tuple(dims[c] for c in right)))
    axes = tuple(sorted(data.draw(st.sets(st.integers(0, 2)))))
    divisor = builder.input(aval("f64", tuple(shape[axis] for axis in axes)))
    wide = emit(builder, "broadcast", divisor, axes=axes, shape=shape)
    summed = left.index("j")
    largest = emit(builder, "max", scores, axes=(summed,))
    others = tuple(axis for axis in range(3) if axis != summed)
    spread = emit(builder, "broadcast", largest, axes=others, shape=shape)
    e = emit(builder, "exp", emit(builder, "sub", scores, spread))
    quotient = emit(builder, "div", e, wide)
    sides, spec = [quotient, v], f"{''.join(left)},{''.join(right)}->{''.join(result)}"
    if data.draw(st.booleans()):
        sides, spec = sides[::-1], f"{''.join(right)},{''.join(left)}->{''.join(result)}"
    graph = builder.build([emit(builder, "contract", *sides, spec=spec)])
    new = optimize(graph, only=["quotient_of_contract"])
    arrays = [RNG.uniform(0.5, 2, value.aval.shape) for value in graph.inputs]
    (found,), (wanted,) = evaluate(new, arrays), evaluate(graph, arrays)
    np.testing.assert_allclose(found, wanted, rtol=1e-14)
    moves = dims["j"] > 1 and left.index("j") in axes
    fits = dims["c"] <= dims["j"]
    assert (names(new)[-1] == "div") is (fits and not moves)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_transposed_contractions_keep_their_values(data):
    dims = {c: data.draw(st.sampled_from([1, 2, 3])) for c in "hijc"}
    result = data.draw(st.permutations("hic"))
    builder = Builder("f")
    x, y = (builder.input(aval("f64", tuple(dims[c] for c in group))) for group in ("hij", "hjc"))
    value = emit(builder, "contract", x, y, spec=f"hij,hjc->{''.join(result)}")
    for _ in range(data.draw(st.integers(1, 3))):
        if data.draw(st.booleans()):
            order = data.draw(st.permutations(range(value.aval.ndim)))
            value = emit(builder, "transpose", value, perm=tuple(order))
        else:
            place = data.draw(st.integers(0, value.aval.ndim))
            shape = (*value.aval.shape[:place], 1, *value.aval.shape[place:])
            value = emit(builder, "reshape", value, shape=shape)
    graph = builder.build([value])
    new = optimize(graph, only=["transpose_of_contract"])
    arrays = [RNG.normal(size=value.aval.shape) for value in graph.inputs]
    (found,), (wanted,) = evaluate(new, arrays), evaluate(graph, arrays)
    np.testing.assert_allclose(found, wanted, rtol=1e-14)


# --- masks ------------------------------------------------------------------------------------


@st.composite
def masks(draw):
    """A mask of comparisons of positions, moved around, and its graph."""
    shape = draw(st.sampled_from([(3, 4), (4, 4), (5, 2), (1, 3), (3, 1), (2, 0)]))
    dtype = draw(st.sampled_from(["i8", "i32", "i64", "u16"]))
    builder = Builder("f")

    def position():
        axis = draw(st.integers(0, 1))
        found = emit(builder, "iota", dtype=dtype, shape=shape, axis=axis)
        kind = draw(st.sampled_from(["plain", "add", "sub", "convert", "other"]))
        if kind in ("add", "sub"):
            number = literal(draw(st.integers(0, 3)), found.aval)
            return emit(builder, kind, found, number)
        if kind == "convert":
            wide = emit(builder, "convert", found, dtype="i64")
            return emit(builder, "convert", wide, dtype=dtype)
        if kind == "other":
            return emit(builder, "sub", found, position())
        return found

    def mask(depth):
        kind = draw(st.sampled_from(["compare", "compare", "and", "not"])) if depth else "compare"
        if kind == "and":
            return emit(builder, "bitwise_and", mask(depth - 1), mask(depth - 1))
        if kind == "not":
            return emit(builder, "bitwise_not", mask(depth - 1))
        op = draw(st.sampled_from(["le", "lt", "ge", "gt", "eq", "ne"]))
        return emit(builder, op, position(), position())

    value = mask(2)
    if draw(st.booleans()):
        value = emit(builder, "transpose", value, perm=(1, 0))
    if draw(st.booleans()):
        value = emit(builder, "broadcast", value, axes=(1, 2), shape=(2, *value.aval.shape))
    axes = tuple(sorted(draw(st.sets(st.integers(0, value.aval.ndim - 1), min_size=1))))
    return builder, value, axes


@settings(max_examples=300, deadline=None)
@given(masks())
def test_masks_are_what_their_conditions_say(drawn):
    builder, value, axes = drawn
    graph = builder.build([value, emit(builder, "any", value, axes=axes)])
    array, rows = evaluate(graph, [])
    indices = tuple(Var(f"i{k}", n) for k, n in enumerate(value.aval.shape))
    guard = predicate(value, indices)
    if guard is not None:
        found = guard.evaluate(dict(zip(indices, np.indices(array.shape), strict=True)))
        np.testing.assert_array_equal(np.broadcast_to(found, array.shape), array)
    new = optimize(graph, only=["any_of_indices"])
    np.testing.assert_array_equal(evaluate(new, [])[1], rows)


def band(n, width):
    i, j = np.arange(n)[:, None], np.arange(n)
    return (i >= j) & (i < j + width)


@pytest.mark.parametrize(
    "mask",
    [
        lambda n: np.tril(np.ones((n, n), bool)),
        lambda n: np.tril(np.ones((n, n))) != 0,
        lambda n: ~(np.triu(np.ones((n, n)), 1) == 1),
        lambda n: np.arange(n)[:, None] >= np.arange(n),
        lambda n: band(n, 3),
    ],
)
def test_rows_of_usual_masks_are_known_not_to_be_empty(mask):
    graph = optimize(trace(lambda: np.any(mask(7), axis=1), []).graph)
    assert names(graph) == []
    assert graph.outputs[0].value is True


def test_softmax_weights_are_divided_after_the_sum():
    def attend(s, v):
        e = np.exp(s - np.max(s, axis=-1, keepdims=True))
        return (e / np.sum(e, axis=-1, keepdims=True)) @ v

    s, v = RNG.normal(size=(2, 5, 7)), RNG.normal(size=(2, 7, 3))
    graph = optimize(trace(attend, [s, v]).graph)
    (division,) = (eqn for eqn in graph.eqns if eqn.op.name == "div")
    assert division.result.aval.shape == (2, 5, 3)
    np.testing.assert_allclose(diffc.jit(attend)(s, v), attend(s, v), rtol=1e-13)
