"""Contractions whose last axis is a batch: depthwise convolutions, products of rows."""

import numpy as np
import pytest

from diffc.codegen.loops.nodes import Contract, Reduce
from diffc.codegen.loops.walk import statements
from diffc.codegen.lower import Messages, lower
from diffc.ir.aval import aval
from diffc.ir.graph import Builder
from diffc.ops.interpret import evaluate
from diffc.ops.registry import find
from diffc.programs import GraphProgram

RNG = np.random.default_rng(2)


def graph_of(spec, dtype, *shapes):
    builder = Builder("f")
    x, y = (builder.input(aval(dtype, shape)) for shape in shapes)
    return builder.build([builder.emit(find("contract"), (x, y), {"spec": spec})[0]])


@pytest.mark.parametrize(
    ("spec", "left", "right", "is_reduced"),
    [
        ("kc,nkc->nc", (3, 19), (4, 3, 19), True),
        ("nkc,kc->nc", (4, 3, 19), (3, 19), True),
        ("kc,kc->c", (3, 19), (3, 19), True),
        ("ck,ck->c", (19, 3), (19, 3), False),  # lanes along k
        ("ck,nkc->nc", (19, 3), (4, 3, 19), False),
        ("nkc,mkc->nmc", (4, 3, 19), (5, 3, 19), False),  # both are reused
        ("nk,km->nm", (4, 3), (3, 19), False),
        ("ckn,ck->cn", (2, 3, 19), (2, 3), False),
        ("nkc,kc->nc", (4, 3, 1), (3, 1), False),
    ],
)
@pytest.mark.parametrize("dtype", ["f32", "bf16", "f16", "i32"])
def test_vectors_run_along_the_batch(spec, left, right, is_reduced, dtype):
    graph = graph_of(spec, dtype, left, right)
    kinds = [type(stmt) for stmt in statements(lower(graph, "k", Messages()).body)]
    assert (Reduce in kinds, Contract in kinds) == (is_reduced, not is_reduced)
    given = [RNG.integers(-4, 5, shape).astype(aval(dtype, ()).numpy) for shape in (left, right)]
    (found,), (wanted,) = GraphProgram(graph, "f")(given), evaluate(graph, given)
    np.testing.assert_array_equal(found, wanted)
