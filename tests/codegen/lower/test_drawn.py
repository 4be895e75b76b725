"""Every kernel of drawn graphs, one by one."""

import numpy as np
import pytest

import diffc.ops  # noqa: F401  (fills the registry)
from diffc.codegen.lower import Messages, lower
from diffc.ops.interpret import evaluate
from diffc.plan.plan import plan
from diffc.plan.program import Kernel
from tests.codegen.drawn import Draw
from tests.codegen.lower.evaluate import run


@pytest.mark.parametrize("seed", range(150))
def test_drawn_graphs(seed):
    program = plan(Draw(seed + 1000, depth=0).graph(18))
    for node in program.nodes:
        if isinstance(node, Kernel):
            rng = np.random.default_rng(seed)
            avals = node.graph.input_avals
            arrays = [np.array(rng.integers(-4, 5, a.shape)).astype(a.numpy) for a in avals]
            found = run(lower(node.graph, "k", Messages()), arrays)
            for got, want in zip(found, evaluate(node.graph, arrays), strict=True):
                np.testing.assert_array_equal(got.reshape(want.shape), want)
