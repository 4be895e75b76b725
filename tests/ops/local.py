"""The derivative of one use of an op, straight from its fact: the least jvp, for tests."""

from __future__ import annotations

from typing import Any

import numpy as np

from diffc.ir.aval import Aval
from diffc.ir.graph import Builder, Graph, literal
from diffc.ops.declare import Linear, Linearized, Partials, Routes, plain
from diffc.ops.interpret import evaluate
from diffc.ops.term import GraphTerm, select
from tests.ops.samples import Sample

Array = np.ndarray[Any, Any]


def run(sample: Sample) -> list[Array]:
    """The results of the op, by the interpreter."""
    builder = Builder("f")
    inputs = [builder.input(like) for like in sample.avals]
    results = builder.emit(sample.op, inputs, sample.params, sample.regions)
    return evaluate(builder.build(results), sample.arrays)


def jvp(sample: Sample, tangents: list[Array | None]) -> Array:
    """The tangent of the op's only result; None as a tangent is zero."""
    op, params = sample.op, sample.params
    builder = Builder("jvp")
    xs = [GraphTerm(builder, builder.input(like)) for like in sample.avals]
    given: list[Array] = list(sample.arrays)
    dots: list[GraphTerm | None] = []
    for like, tangent in zip(sample.avals, tangents, strict=True):
        dots.append(None if tangent is None else GraphTerm(builder, builder.input(like)))
        if tangent is not None:
            given.append(tangent)
    (result,) = builder.emit(op, [x.operand for x in xs], params)
    out = GraphTerm(builder, result)
    fact = op.fact(params)
    total = GraphTerm(builder, literal(0, out.aval))
    if isinstance(fact, Partials):
        for partial, dot in zip(fact.formula(*xs, out, **params), dots, strict=True):
            total = total if dot is None else total + dot * plain(partial)
    elif isinstance(fact, Routes):
        for routes, dot in zip(fact.formula(*xs, out, **params), dots, strict=True):
            if routes is None or dot is None:
                continue
            for condition, factor in routes:
                total = total + select(condition, dot * factor, 0)
            if fact.ties is not None:
                total = total + select(fact.ties(*xs, out, **params), dot * 0.5, 0)
    elif isinstance(fact, Linear):
        places = range(len(xs)) if fact.operands is None else fact.operands
        zeros = [GraphTerm(builder, literal(0, x.aval)) for x in xs]
        if fact.jointly:
            replaced = [(dots[k] or zeros[k]) if k in places else x for k, x in enumerate(xs)]
            total = _emit(builder, sample, replaced)
        else:
            for k in places:
                if dots[k] is not None:
                    total = total + _emit(builder, sample, [*xs[:k], dots[k], *xs[k + 1 :]])
    elif isinstance(fact, Linearized):
        total = fact.jvp(tuple(xs), tuple(dots), out, params)
    else:
        raise AssertionError(f"no tangent from {fact}")
    (tangent,) = evaluate(builder.build([total.operand]), given)
    return tangent


def _emit(builder: Builder, sample: Sample, terms: list[Any]) -> GraphTerm:
    (value,) = builder.emit(sample.op, [term.operand for term in terms], sample.params)
    return GraphTerm(builder, value)


def transposed(sample: Sample, ct: Array, index: int) -> Array:
    """The cotangent of operand ``index`` of a linear op."""
    graph, read = _transpose(sample, index)
    (array,) = evaluate(graph, [ct, *(sample.arrays[k] for k in read)])
    return array


def transposed_aval(sample: Sample, index: int) -> Aval:
    """The aval of that cotangent; no arrays are needed."""
    return _transpose(sample, index)[0].output_avals[0]


def _transpose(sample: Sample, index: int) -> tuple[Graph, list[int]]:
    """The graph from the cotangent, and the operands at the positions given with it."""
    fact = sample.op.fact(sample.params)
    assert isinstance(fact, Linear)
    places = tuple(range(len(sample.avals))) if fact.operands is None else fact.operands
    hidden = places if fact.jointly else (index,)
    (out,) = sample.op.infer(sample.avals, sample.params, ())
    builder = Builder("transpose")
    term = GraphTerm(builder, builder.input(out))
    operands: list[GraphTerm | None] = []
    read = []
    for k, like in enumerate(sample.avals):
        if k in hidden:
            operands.append(None)
        else:
            operands.append(GraphTerm(builder, builder.input(like)))
            read.append(k)
    found = fact.transpose(term, tuple(operands), sample.avals, sample.params, index)
    return builder.build([found.operand]), read
