"""Calls are trimmed by what all calls of a callee need together; the callee stays one."""

import numpy as np

import diffc
from diffc.ir.aval import aval
from diffc.ir.graph import Builder, graphs_of
from diffc.ops.interpret import evaluate
from diffc.ops.registry import find
from diffc.ops.term import GraphTerm
from diffc.optimize import optimize

ROW = aval("f64", (3,))


def block():
    """(x, m) -> (sin(x) * m, m + 1, m)"""
    builder = Builder("block")
    x, m = (GraphTerm(builder, builder.input(ROW, name)) for name in "xm")
    return builder.build([(x.call("sin") * m).operand, (m + 1).operand, m.operand])


def chained(count, outputs):
    callee, builder = block(), Builder("f")
    x, m = (builder.input(ROW, name) for name in "xm")
    for _ in range(count):
        x, m, same = builder.emit(find("call"), (x, m), {}, (callee,))
    return builder.build([(x, m, same)[k] for k in outputs])


def callees(graph):
    return [eqn.regions[0] for eqn in graph.eqns if eqn.op.name == "call"]


def test_what_any_call_needs_all_give():
    graph = chained(5, [0])
    made = optimize(graph, only=["unused_in_calls"])
    assert len(set(map(id, callees(made)))) == 1
    assert [len(callee.outputs) for callee in callees(made)] == [2] * 5  # m feeds the next block
    arrays = [np.arange(3.0), np.ones(3)]
    for x, y in zip(evaluate(graph, arrays), evaluate(made, arrays), strict=True):
        np.testing.assert_array_equal(x, y)
    assert optimize(made, only=["unused_in_calls"]) is made


def test_a_part_alone():
    made = optimize(chained(5, [1]), only=["unused_in_calls"])
    (callee,) = set(callees(made))
    assert [eqn.op.name for eqn in callee.eqns] == ["add"]
    assert len(callee.inputs) == 1


def test_the_same_trimmed_callee_within_regions():
    inner = diffc.jit(lambda x: (np.sin(x) @ x, np.cos(x)))

    def f(x):
        first = diffc.scan(lambda c, r: (c + inner(r)[0], None), 0.0, np.stack([x, x]))[0]
        return first + inner(x)[0]

    graph = diffc.jit(f).stages(np.ones(3), until="trace").stage("trace").value
    made = optimize(graph, only=["unused_in_calls"])
    found = {
        id(r) for g in graphs_of(made) for e in g.eqns if e.op.name == "call" for r in e.regions
    }
    assert len(found) == 1
