"""Properties of drawn programs: passes keep the meaning, native code is what the interpreter says.

A failure shrinks to the seed and the least number of equations; ``Drawer(seed).graph(count)`` with
``operands_for(graph.input_avals, seed, ...)`` gives it again.
"""

import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

import diffc.ops
from diffc.ir.check import check
from diffc.ir.graph import is_same, prune
from diffc.ir.text import parse, print_graph
from diffc.ops.interpret import evaluate
from diffc.optimize import optimize, rule
from diffc.optimize.driver import TABLE, default_rules
from diffc.programs import GraphProgram
from diffc.transforms import jvp, linearize, vjp
from tests.programs.compare import agree, allowance, same
from tests.programs.drawn import Drawer, is_differentiable, operands_for

seeds = st.integers(0, 2**32 - 1)
counts = st.integers(1, 40)
EXACT = tuple(n for n in default_rules() if n not in TABLE or TABLE[n].exactness == rule.EXACT)


def fewer(share: float):
    """A part of the profile's number of examples, for properties that cost more."""
    return settings(max_examples=max(10, int(settings().max_examples * share)))


def drawn(seed, count, smooth=False, special=False):
    graph = Drawer(seed, smooth).graph(count)
    return graph, operands_for(graph.input_avals, seed, special)


# --- text and optimize ------------------------------------------------------------------------


@given(seeds, counts)
def test_text_parses_back(seed, count):
    graph, _ = drawn(seed, count)
    check(graph)
    text = print_graph(graph)
    parsed = parse(text, diffc.ops.table())
    assert print_graph(parsed) == text
    assert is_same(prune(parsed), prune(graph))


@given(seeds, counts)
def test_optimize_is_idempotent_and_checked(seed, count):
    graph, _ = drawn(seed, count)
    once = optimize(graph)
    check(once, "optimize")
    again = optimize(parse(print_graph(once), diffc.ops.table()))
    assert print_graph(again) == print_graph(once)


@example(seed=20215, count=33, special=False)  # NumPy's arctan differs by the strides
@given(seeds, counts, st.booleans())
def test_exact_rules_keep_every_bit(seed, count, special):
    graph, arrays = drawn(seed, count, special=special)
    expected = evaluate(graph, arrays)
    for x, y in zip(evaluate(optimize(graph, only=EXACT), arrays), expected, strict=True):
        same(x, y)


@given(seeds, counts)
def test_rules_keep_the_meaning(seed, count):
    graph, arrays = drawn(seed, count, smooth=True)
    expected = evaluate(graph, arrays)
    better = optimize(graph)
    found = evaluate(better, arrays)
    bounds = zip(allowance(graph, arrays, expected), allowance(better, arrays, found), strict=True)
    for x, y, (first, second) in zip(found, expected, bounds, strict=True):
        assert (x.dtype, x.shape) == (y.dtype, y.shape)
        allowed = np.zeros(y.shape)
        for spread in (first, second):
            allowed = allowed if spread is None else allowed + spread
        fine = (np.abs(x - y) <= 4 * allowed + 1e-9 * np.abs(y) + 1e-12) | ~np.isfinite(allowed)
        assert fine.all(), f"{x[~fine]} is not {y[~fine]}"


# --- native code ------------------------------------------------------------------------------


@example(seed=138, count=30, special=True)  # dynamic slices of a constant
@example(seed=961, count=30, special=False)  # an outer product with zeros of both signs
@given(seeds, counts, st.booleans())
def test_compiled_is_interpreted(seed, count, special):
    graph, arrays = drawn(seed, count, special=special)
    program = GraphProgram(graph, "drawn")
    agree(program(arrays), program.compilation.graph, arrays)


@fewer(0.5)
@given(seeds, counts)
def test_compiled_is_interpreted_in_guard_mode(seed, count):
    graph, arrays = drawn(seed, count)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DIFFC_GUARD", "1")
        program = GraphProgram(graph, "guarded")
        agree(program(arrays), program.compilation.graph, arrays)


@fewer(0.5)
@given(seeds, counts)
def test_compiled_is_interpreted_with_short_blocks(seed, count):
    """Sums of columns in several blocks, the last one shorter."""
    graph, arrays = drawn(seed, count)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("diffc.codegen.lower.columns.block_rows", lambda columns: 2)
        program = GraphProgram(graph, "blocks")
        agree(program(arrays), program.compilation.graph, arrays)


@fewer(0.5)
@given(seeds, st.integers(1, 25))
def test_compiled_gradients_are_interpreted_ones(seed, count):
    graph, arrays = drawn(seed, count)
    active = [a.is_float for a in graph.input_avals]
    assume(any(active) and is_differentiable(graph))
    made = optimize(vjp(optimize(graph), active).graph)
    arrays += operands_for(made.input_avals[len(arrays) :], seed + 1)
    program = GraphProgram(made, "gradient")
    agree(program(arrays), program.compilation.graph, arrays)


@fewer(0.3)
@given(seeds, counts)
def test_same_bits_from_run_to_run(seed, count):
    graph, arrays = drawn(seed, count, special=True)
    program, again = GraphProgram(graph, "once"), GraphProgram(graph, "twice")
    first = program(arrays)
    for other in (program(arrays), again(arrays)):
        for x, y in zip(first, other, strict=True):
            assert x.tobytes() == y.tobytes()


# --- derivatives ------------------------------------------------------------------------------


def inner(left, right):
    return sum(float(np.vdot(a, b)) for a, b in zip(left, right, strict=True))


def sizes(left, right):
    return sum(float(np.vdot(np.abs(a), np.abs(b))) for a, b in zip(left, right, strict=True))


@given(seeds, st.integers(1, 25))
def test_vjp_is_the_adjoint_of_jvp(seed, count):
    graph, arrays = drawn(seed, count, smooth=True)
    active = [True] * len(arrays)
    forward, backward = jvp(graph, active), vjp(graph, active)
    check(forward.graph)
    check(backward.graph)
    dots = operands_for(graph.input_avals, seed + 1)
    outs = [a for a, on in zip(graph.output_avals, forward.active_outputs, strict=True) if on]
    cts = operands_for(outs, seed + 2)
    pushed = evaluate(forward.graph, [*arrays, *dots])[len(graph.outputs) :]
    pulled = evaluate(backward.graph, [*arrays, *cts])[len(graph.outputs) :]
    left, right = inner(cts, pushed), inner(pulled, dots)
    scale = sizes(cts, pushed) + sizes(pulled, dots)
    assume(np.isfinite(scale) and scale < 1e12)
    assert abs(left - right) <= 1e-8 * scale + 1e-12
    halves = linearize(graph, active)
    residuals = evaluate(halves.primal, arrays)[len(graph.outputs) :]
    for a, b in zip(evaluate(halves.linear, [*residuals, *dots]), pushed, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-7, atol=1e-9 * scale)


@given(seeds, st.integers(1, 25))
def test_jvp_is_what_finite_differences_see(seed, count):
    graph, arrays = drawn(seed, count, smooth=True)
    dots = operands_for(graph.input_avals, seed + 1)
    made = jvp(graph, [True] * len(arrays))
    pushed = iter(evaluate(made.graph, [*arrays, *dots])[len(graph.outputs) :])

    def slope(step):
        ends = [
            evaluate(graph, [x + s * step * d for x, d in zip(arrays, dots, strict=True)])
            for s in (1, -1)
        ]
        return [(high - low) / (2 * step) for high, low in zip(*ends, strict=True)]

    values = evaluate(graph, arrays)
    for value, coarse, fine, on in zip(
        values, slope(2e-5), slope(1e-5), made.active_outputs, strict=True
    ):
        best = (4 * fine - coarse) / 3
        found = next(pushed) if on else np.zeros_like(best)
        error = np.abs(coarse - fine) + 1e-9 * np.abs(value) + 1e-6 * np.abs(best) + 1e-8
        clear = np.isfinite(best) & (np.abs(coarse - fine) < 1e-2 * (1 + np.abs(best)))
        wrong = clear & (np.abs(found - best) > 10 * error)
        assert not wrong.any(), f"{found[wrong]} is not {best[wrong]}"
