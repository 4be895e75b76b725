"""Outlining finds equal blocks, keeps the meaning, and leaves everything else alone."""

from collections import Counter

import numpy as np
import pytest

import diffc
from diffc import tree
from diffc.ir.check import check
from diffc.ir.graph import graphs_of
from diffc.ops.interpret import evaluate
from diffc.optimize import Outlined, compact, outline


def block(h, p):
    c = h - np.mean(h, axis=-1, keepdims=True)
    u = np.tanh(c / np.sqrt(np.mean(c * c, axis=-1, keepdims=True) + 1e-5) @ p["a"] + p["b"])
    return h + u @ p["c"]


def chain(params, x):
    h = np.exp(x)
    for p in params:
        h = block(h, p)
    return np.sum(np.log(1 + h * h))


def weights(count, width=3):
    rng = np.random.default_rng(count)
    return [
        {
            "a": rng.normal(size=(width, 4)),
            "b": rng.normal(size=4),
            "c": rng.normal(size=(4, width)),
        }
        for _ in range(count)
    ]


def traced(function, *args):
    return diffc.jit(function).stages(*args, until="trace").stage("trace").value


def graph_of(function, *args):
    from diffc.optimize import optimize

    return optimize(traced(function, *args))


def leaves_of(*args):
    return tree.leaves((args, {}))


@pytest.mark.parametrize("count", [4, 5, 20])
def test_equal_blocks_become_calls_of_one_graph(count):
    args = weights(count), np.ones((2, 3))
    graph = graph_of(chain, *args)
    report: list[Outlined] = []
    new = check(outline(graph, report))
    (made,) = report
    assert count - 1 <= made.count <= count
    calls = [eqn for eqn in new.eqns if eqn.op.name == "call"]
    assert len(calls) == made.count
    assert len({id(eqn.regions[0]) for eqn in calls}) == 1
    assert len(list(graphs_of(new))) == 2
    (before,) = evaluate(graph, leaves_of(*args))
    (after,) = evaluate(new, leaves_of(*args))
    assert before == after


def test_short_chains_and_unequal_blocks_are_left_alone():
    graph = graph_of(chain, weights(3), np.ones((2, 3)))
    assert outline(graph) is graph

    def uneven(params, x):
        h = x
        for i, p in enumerate(params):
            h = block(h, p) * (1.5 + i)
        return np.sum(h)

    args = weights(8), np.ones((2, 3))
    graph = graph_of(uneven, *args)
    new = check(outline(graph))
    assert evaluate(graph, leaves_of(*args)) == evaluate(new, leaves_of(*args))


def test_updates_that_fuse_are_no_blocks():
    def update(params, grads):
        return [
            p - 0.1 * (0.9 * g + g * g) / (np.sqrt(g * g) + 1e-8)
            for p, g in zip(params, grads, strict=False)
        ]

    given = [np.ones(3) * i for i in range(10)]
    graph = graph_of(update, given, given)
    assert outline(graph) is graph


def test_shared_operands_stay_shared():
    shared = weights(1)[0]

    def tied(p, x):
        h = x
        for _ in range(10):
            h = block(h, p)
        return np.sum(h)

    args = shared, np.ones((2, 3))
    graph = graph_of(tied, *args)
    report: list[Outlined] = []
    new = check(outline(graph, report))
    assert report[0].inputs == 4
    np.testing.assert_allclose(
        evaluate(new, leaves_of(*args)), evaluate(graph, leaves_of(*args)), rtol=0
    )


def test_values_that_later_blocks_read_escape():
    def dense(params, x):
        kept = [x]
        for p in params:
            kept.append(block(kept[-1] + 0.5 * kept[max(len(kept) - 3, 0)], p))
        return sum(np.sum(h) for h in kept)

    args = weights(12), np.ones((2, 3))
    graph = graph_of(dense, *args)
    new = check(outline(graph))
    np.testing.assert_array_equal(
        evaluate(new, leaves_of(*args)), evaluate(graph, leaves_of(*args))
    )


def test_gradients_through_outlined_blocks():
    args = weights(9), np.linspace(-1, 1, 6).reshape(2, 3)
    value, grads = diffc.value_and_grad(chain)(*args)
    assert float(value) == pytest.approx(chain(*args))
    step = 1e-6
    for k in (0, 4, 8):
        for name in "abc":
            moved = [dict(p) for p in args[0]]
            at = (0,) * moved[k][name].ndim
            ends = []
            for sign in (1, -1):
                changed = moved[k][name].copy()
                changed[at] += sign * step
                ends.append(
                    chain([*moved[:k], {**moved[k], name: changed}, *moved[k + 1 :]], args[1])
                )
            expected = (ends[0] - ends[1]) / (2 * step)
            assert grads[k][name][at] == pytest.approx(expected, rel=1e-6, abs=1e-9)


def test_second_derivatives_through_outlined_blocks():
    params = weights(6)
    grad = diffc.grad(lambda x: chain(params, x))
    x, v = np.linspace(-1, 1, 6).reshape(2, 3), np.ones((2, 3))
    _, hv = diffc.jvp(grad, (x,), (v,))
    near = [grad(x + s * 1e-6 * v) for s in (1, -1)]
    np.testing.assert_allclose(hv, (near[0] - near[1]) / 2e-6, rtol=1e-5, atol=1e-7)


def test_what_was_outlined_is_reported():
    compiled = diffc.value_and_grad(chain).compile(weights(7), np.ones((2, 3)))
    assert "# outlined @chain_block: " in compiled.stage("optimize").text


@pytest.mark.parametrize("is_computed", [False, True])
def test_blocks_that_read_rows_of_a_stack(is_computed):
    """Rows become operands, also where the stack is a computed value."""

    def f(stacked, x):
        rows = np.exp(stacked) if is_computed else stacked
        h = x
        for i in range(6):
            h = block(h, {"a": rows[i], "b": np.float64(0.5), "c": np.transpose(rows[i])})
        return np.sum(h)

    args = np.random.default_rng(0).normal(size=(6, 3, 4)), np.ones((2, 3))
    graph = graph_of(f, *args)
    new = check(outline(graph))
    calls = [eqn for eqn in new.eqns if eqn.op.name == "call"]
    assert len(calls) >= 5
    assert len({id(eqn.regions[0]) for eqn in calls}) == 1
    assert evaluate(graph, leaves_of(*args)) == evaluate(new, leaves_of(*args))


def test_many_small_blocks_are_calls_and_few_are_not():
    def f(count):
        def g(w, x):
            for _ in range(count):
                x = np.tanh(x @ w) * 0.5
            return np.sum(x)

        return g

    args = np.eye(3), np.ones((2, 3))
    few, many = (graph_of(f(count), *args) for count in (8, 40))
    assert outline(few) is few
    new = check(outline(many))
    assert sum(eqn.op.name == "call" for eqn in new.eqns) >= 39
    assert evaluate(many, leaves_of(*args)) == evaluate(new, leaves_of(*args))


def test_chains_are_outlined_before_the_rules_see_them():
    args = weights(40), np.ones((2, 3))
    graph = traced(chain, *args)
    fired = Counter()
    report: list[Outlined] = []
    graph = check(compact(graph, report=report, fired=fired))
    assert [made.count for made in report] == [40]
    once: Counter[str] = Counter()
    compact(traced(chain, weights(4), args[1]), fired=once)
    assert fired == once, "rules see a block once, however many there are"
    np.testing.assert_array_equal(
        evaluate(graph, leaves_of(*args)), evaluate(graph_of(chain, *args), leaves_of(*args))
    )


def test_terms_of_a_sum_wait_for_the_rules():
    """Sixteen shifted products are blocks of one period, and one convolution."""

    def f(image, weights):
        return sum(
            image[i : i + 8, j : j + 8, :] @ weights[i, j] for i in range(4) for j in range(4)
        )

    image, weights = np.ones((11, 11, 3)), np.ones((4, 4, 3, 5))
    graph = diffc.jit(f).compile(image, weights).stage("optimize").value
    names = [eqn.op.name for eqn in graph.eqns]
    assert names.count("contract") == 1 and "call" not in names
    gradient = diffc.grad(lambda w: np.sum(f(image, w) ** 2)).compile(weights)
    inner = gradient.stage("transform").value
    assert "call" not in [eqn.op.name for eqn in inner.eqns]
