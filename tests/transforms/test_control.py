"""Derivatives of cond and while: graphs, residuals, checkpoints."""

import math

import numpy as np
import pytest

import diffc.ops
from diffc.errors import InternalError
from diffc.ir.aval import aval
from diffc.ir.check import check
from diffc.ir.graph import Builder, graphs_of
from diffc.ir.text import parse, print_graph
from diffc.ops.interpret import by_numpy, evaluate
from diffc.ops.term import GraphTerm
from diffc.transforms import jvp, linearize, transpose, vjp
from diffc.transforms.checkpoints import Loop, checkpointed, distance

COND = """
func @f(i: INDEX[], w: f64[3], x: f64[3]) -> (f64[3], f64[], f64[3]) {
  %0: f64[3], %1: f64[], %2: f64[3] = cond(i, w, x) {
    func @products(w: f64[3], x: f64[3]) -> (f64[3], f64[], f64[3]) {
      %0: f64[3] = mul(w, x)
      %1: f64[3] = sin(%0)
      %2: f64[3] = mul(%1, x)
      %3: f64[] = sum(%2, axes=[0])
      return %1, %3, w
    }
    func @constant(w: f64[3], x: f64[3]) -> (f64[3], f64[], f64[3]) {
      return 1.0:f64[3], 2.0:f64[], w
    }
    func @roots(w: f64[3], x: f64[3]) -> (f64[3], f64[], f64[3]) {
      %0: f64[3] = exp(x)
      %1: f64[3] = mul(%0, w)
      %2: f64[] = sum(%1, axes=[0])
      %3: f64[] = exp(%2)
      return %0, %3, %1
    }
  }
  return %0, %1, %2
}
"""

WHILE = """
func @f(limit: f64[], w: f64[3], n: i64[], x: f64[3], y: f64[3]) -> (i64[], f64[3], f64[3]) {
  %0: i64[], %1: f64[3], %2: f64[3] = while(limit, w, n, x, y, consts=1, slots=SLOTS, tests=1) {
    func @test(limit: f64[], n: i64[], x: f64[3], y: f64[3]) -> (bool[]) {
      %0: f64[3] = mul(x, x)
      %1: f64[] = sum(%0, axes=[0])
      %2: bool[] = lt(%1, limit)
      return %2
    }
    func @body(w: f64[3], n: i64[], x: f64[3], y: f64[3]) -> (i64[], f64[3], f64[3]) {
      %0: i64[] = add(n, 1:i64[])
      %1: f64[3] = mul(w, y)
      %2: f64[3] = tanh(%1)
      %3: f64[3] = add(x, %2)
      %4: f64[3] = sin(x)
      %5: f64[3] = add(y, %4)
      return %0, %3, %5
    }
  }
  return %0, %1, %2
}
"""


def graph_of(text, **replaced):
    for old, new in replaced.items():
        text = text.replace(old, str(new))
    graph = parse(text, diffc.ops.table())
    assert parse(print_graph(graph), diffc.ops.table()) is not None
    return graph


def inner(left, right):
    return sum(float(np.vdot(a, b)) for a, b in zip(left, right, strict=True))


def slopes(graph, arrays, moves, step=1e-6):
    """Central differences of all outputs; ``moves``: one for each array, or None."""
    ends = []
    for sign in (1, -1):
        moved = [
            x if move is None else x + sign * step * move
            for x, move in zip(arrays, moves, strict=True)
        ]
        ends.append(evaluate(graph, moved))
    return [
        (high.astype(float) - low.astype(float)) / (2 * step)
        for high, low in zip(*ends, strict=True)
    ]


def verify_forward(graph, arrays, mask, rng, rtol=1e-5):
    """jvp against finite differences; gives the moves, the tangents, and where they are."""
    made = jvp(graph, mask)
    check(made.graph)
    moves = [
        rng.standard_normal(x.shape) if on else None for x, on in zip(arrays, mask, strict=True)
    ]
    dots = [move for move in moves if move is not None]
    pushed = evaluate(made.graph, [*arrays, *dots])[len(graph.outputs) :]
    found = [
        s for s, on in zip(slopes(graph, arrays, moves), made.active_outputs, strict=True) if on
    ]
    for dot, slope in zip(pushed, found, strict=True):
        np.testing.assert_allclose(dot, slope, rtol=rtol, atol=1e-6)
    return dots, pushed, made.active_outputs


def verify(graph, arrays, mask):
    """jvp, vjp, linearize, and the jvp of the vjp."""
    rng = np.random.default_rng(5)
    dots, pushed, active = verify_forward(graph, arrays, mask, rng)
    backward, halves = vjp(graph, mask).graph, linearize(graph, mask)
    for made in (backward, halves.primal, halves.linear):
        check(made)
    count = len(graph.outputs)
    cts = [
        np.asarray(rng.standard_normal(a.shape))
        for a, on in zip(graph.output_avals, active, strict=True)
        if on
    ]
    pulled = evaluate(backward, [*arrays, *cts])
    for value, again in zip(evaluate(graph, arrays), pulled, strict=False):
        np.testing.assert_array_equal(value, again)
    assert inner(cts, pushed) == pytest.approx(inner(pulled[count:], dots), rel=1e-9)
    kept = evaluate(halves.primal, arrays)[count:]
    for dot, again in zip(pushed, evaluate(halves.linear, [*kept, *dots]), strict=True):
        np.testing.assert_allclose(dot, again, rtol=1e-10, atol=1e-14)
    verify_forward(backward, [*arrays, *cts], [*mask, *(True for _ in cts)], rng, rtol=1e-4)


@pytest.mark.parametrize("active", [(1, 1), (1, 0), (0, 1)])
@pytest.mark.parametrize("index", [-3, 0, 1, 2, 9])
def test_cond(index, active):
    graph = graph_of(COND, INDEX="i32")
    rng = np.random.default_rng(0)
    arrays = [np.asarray(index, np.int32), rng.standard_normal(3), rng.standard_normal(3)]
    verify(graph, arrays, [False, *map(bool, active)])


@pytest.mark.parametrize("index", [False, True])
def test_cond_of_a_bool(index):
    graph = graph_of(COND, INDEX="bool")
    rng = np.random.default_rng(1)
    verify(graph, [np.asarray(index), *rng.standard_normal((2, 3))], [False, True, True])


def test_branches_share_the_slots_of_their_residuals():
    graph = graph_of(COND, INDEX="i32")
    primal = linearize(graph, [False, True, True]).primal
    (eqn,) = [eqn for eqn in primal.eqns if eqn.op.name == "cond"]
    kept = [str(result.aval) for result in eqn.results[3:]]
    assert len(kept) <= 2  # inputs and results are at hand; the constant branch keeps nothing
    assert all(len(region.outputs) == len(eqn.results) for region in eqn.regions)


def test_a_constant_branch_gives_zeros():
    graph = graph_of(COND, INDEX="i32")
    x = np.ones(3)
    cts = [np.ones(3), np.float64(1), np.zeros(3)]
    found = evaluate(vjp(graph, [False, True, True]).graph, [np.int32(1), x, x, *cts])
    np.testing.assert_array_equal(found[3], np.zeros(3))
    np.testing.assert_array_equal(found[4], np.zeros(3))


def test_the_branch_that_was_not_taken_gives_no_nan():
    text = """
func @f(i: bool[], x: f64[]) -> (f64[]) {
  %0: f64[] = cond(i, x) {
    func @zero(x: f64[]) -> (f64[]) {
      %0: f64[] = mul(x, 0.0:f64[])
      return %0
    }
    func @root(x: f64[]) -> (f64[]) {
      %0: f64[] = sqrt(x)
      return %0
    }
  }
  return %0
}
"""
    backward = vjp(graph_of(text), [False, True]).graph
    for x in (0.0, -1.0):
        found = evaluate(backward, [np.asarray(False), np.float64(x), np.float64(1)])
        assert float(found[1]) == 0.0
    assert np.isinf(evaluate(backward, [np.asarray(True), np.float64(0), np.float64(1)])[1])


@pytest.mark.parametrize("active", [(1, 1, 1), (1, 0, 0), (0, 1, 0), (0, 0, 1), (0, 1, 1)])
@pytest.mark.parametrize("limit", [0.0, 0.5, 30.0], ids=["none", "few", "many"])
def test_while(limit, active):
    graph = graph_of(WHILE, SLOTS=4)
    rng = np.random.default_rng(2)
    arrays = [np.float64(limit), *rng.uniform(0.1, 0.4, (3, 3))]
    arrays.insert(2, np.int64(0))
    w, x, y = map(bool, active)
    steps = int(evaluate(graph, arrays)[0])
    assert (limit == 0 and steps == 0) or steps > 0
    verify(graph, arrays, [False, w, False, x, y])


@pytest.mark.parametrize("slots", [2, 3, 5, 16, 128])
def test_while_with_any_number_of_slots(slots):
    graph = graph_of(WHILE, SLOTS=slots)
    arrays = [np.float64(40), np.full(3, 0.3), np.int64(7), np.full(3, 0.1), np.full(3, 0.2)]
    cts = [np.ones(3), np.arange(3.0)]
    found = evaluate(vjp(graph, [False, True, False, True, True]).graph, [*arrays, *cts])
    reference = graph_of(WHILE, SLOTS=8)
    expected = evaluate(vjp(reference, [False, True, False, True, True]).graph, [*arrays, *cts])
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_vjp_runs_the_loop_forward_once():
    graph = graph_of(WHILE, SLOTS=4)
    made = vjp(graph, [False, True, False, True, True]).graph
    loops = [eqn.regions[1].name for eqn in made.eqns if eqn.op.name == "while"]
    assert sorted(loops) == ["body_checkpointed", "body_reversed"]


def test_a_linearization_keeps_nothing_but_operands():
    halves = linearize(graph_of(WHILE, SLOTS=4), [False, True, False, True, True])
    assert all(value in halves.primal.inputs for value in halves.primal.outputs[3:])


def test_no_linear_while_may_test_its_tangents():
    graph = graph_of(WHILE, SLOTS=4)
    with pytest.raises(InternalError, match="reads what is linear"):
        transpose(graph, [False, False, False, True, False])


def test_where_no_tangent_goes_the_loop_stays():
    made = jvp(graph_of(WHILE, SLOTS=4), [True, False, False, False, False])
    assert not any(made.active_outputs)
    assert [eqn.op.name for eqn in made.graph.eqns].count("while") == 1


# --- checkpoints ------------------------------------------------------------------------------


def least_steps(length, slots, known):
    """Forward steps that undoing ``length`` steps takes, with the first carry in a slot."""
    if length <= 1:
        return 0
    if slots == 1:
        return length * (length - 1) // 2
    key = length, slots
    if key not in known:
        known[key] = min(
            m + least_steps(m, slots, known) + least_steps(length - m, slots - 1, known)
            for m in range(1, length)
        )
    return known[key]


def taken_steps(length, slots):
    if length <= 1:
        return 0
    m = distance(slots, length)
    assert 1 <= m < length
    return m + taken_steps(m, slots) + taken_steps(length - m, max(slots - 1, 1))


@pytest.mark.parametrize(
    ("length", "slots", "steps"),
    [
        (10, 1, 45),
        (10, 2, 20),
        (10, 3, 15),
        (10, 5, 13),
        (50, 1, 1225),
        (50, 3, 180),
        (50, 5, 122),
        (50, 10, 88),
        (50, 49, 49),
    ],
)
def test_the_rule_takes_the_least_steps(length, slots, steps):
    assert taken_steps(length, slots) == least_steps(length, slots, {}) == steps


def test_the_rule_is_optimal_for_all_short_loops():
    known = {}
    for length in range(1, 40):
        for slots in range(1, 12):
            assert taken_steps(length, slots) == least_steps(length, slots, known)


def counting_loop(slots):
    builder = Builder("test")
    limit, n = builder.input(aval("i64"), "limit"), builder.input(aval("i64"), "n")
    test = builder.build([(GraphTerm(builder, n) < GraphTerm(builder, limit)).operand])
    builder = Builder("body")
    n = builder.input(aval("i64"), "n")
    body = builder.build([(GraphTerm(builder, n) + 1).operand])
    builder = Builder("loop")
    limit, n = builder.input(aval("i64"), "limit"), builder.input(aval("i64"), "n")
    loop = Loop(test, body, (limit,), (), (n,), slots)
    kept = checkpointed(builder, loop)
    return loop, builder.build([kept.steps, kept.count, kept.stride, *kept.slots, *kept.carry])


@pytest.mark.parametrize("slots", [2, 4, 7, 16])
@pytest.mark.parametrize("steps", [0, 1, 2, 3, 4, 5, 8, 9, 31, 32, 33, 100])
def test_checkpoints_stand_at_every_stride(slots, steps):
    loop, graph = counting_loop(slots)
    found, count, stride, kept, last = evaluate(graph, [np.int64(steps + 10), np.int64(10)])
    assert (int(found), int(last)) == (steps, steps + 10)
    count, stride = int(count), int(stride)
    assert math.log2(stride).is_integer()
    assert count == -(-steps // stride) <= loop.first_rows
    np.testing.assert_array_equal(kept[:count], 10 + stride * np.arange(count))


@pytest.mark.parametrize("steps", [1, 7, 30, 100])
def test_how_often_a_step_is_run(steps):
    """The body's work in a vjp stays within the binomial bound."""
    slots = 6
    graph = graph_of(WHILE, SLOTS=slots)
    ran = 0

    def compute(eqn, arrays):
        nonlocal ran
        ran += eqn.op.name == "tanh"
        return by_numpy(eqn, arrays)

    w, x, y = np.zeros(3), np.zeros(3), np.zeros(3)
    made = vjp(graph, [False, True, False, True, True]).graph
    for inner_graph in graphs_of(made):
        check(inner_graph)
    # the loop ends when the sum of squares of x reaches the limit: x grows by tanh(w y)
    w[:], y[:] = 0.5, 1.0
    limit = None
    for _ in range(steps):
        x, y = x + np.tanh(w * y), y + np.sin(x)
        limit = float(np.sum(x * x)) - 1e-9
    start = [np.float64(limit), w, np.int64(0), np.zeros(3), np.ones(3)]
    found = evaluate(graph, start)
    assert int(found[0]) <= steps
    total = int(found[0])
    evaluate(made, [*start, np.ones(3), np.ones(3)], compute)
    repeats = next(r for r in range(100) if math.comb(slots // 2 + r, r) >= total)
    assert total <= ran <= (repeats + 3) * total + slots
