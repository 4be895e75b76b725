"""How traced meaning is held against NumPy's: run the graph, run the function, compare."""

from __future__ import annotations

import copy

import numpy as np
import pytest

from diffc import tree
from diffc.ir.aval import is_float, limits
from diffc.ops.interpret import evaluate
from diffc.trace import trace


def run(function, *args, **options):
    """The function's results and its written arguments, by way of the graph."""
    traced = trace(function, args, **options)
    leaves = [np.asarray(leaf) for leaf in tree.leaves((tuple(args), {}))]
    arrays = leaves + [captured.current() for captured in traced.captured]
    outputs = evaluate(traced.graph, arrays)
    for out, weak in zip(outputs, traced.out_weak, strict=False):
        assert isinstance(out, np.ndarray)
        assert not weak or out.dtype in (np.bool_, np.int64, np.float64)
    result = tree.unflatten(traced.out_tree, outputs[: traced.num_results])
    written = dict(zip(traced.written, outputs[traced.num_results :], strict=True))
    after = [written.get(i, leaf) for i, leaf in enumerate(leaves)]
    return result, after


def compare(function, *args, rtol=None, dtypes=True):
    """Asserts that tracing keeps the meaning of ``function`` on ``args``, writes included."""
    result, after = run(function, *args)
    own = copy.deepcopy(args)
    with np.errstate(all="ignore"):
        expected = function(*own)
    got, found_tree = tree.flatten(result)
    want, wanted_tree = tree.flatten(expected)
    assert found_tree == wanted_tree
    for g, w in zip(
        [*got, *after],
        [*want, *tree.leaves((own, {}))],
        strict=True,
    ):
        w = np.asarray(w)
        assert g.shape == w.shape
        if dtypes:
            assert g.dtype == w.dtype
        if is_float(w.dtype):
            eps = limits(w.dtype).eps
            np.testing.assert_allclose(g, w, rtol=rtol or 64 * eps, atol=rtol or 64 * eps)
        else:
            np.testing.assert_array_equal(g, w)


@pytest.fixture(scope="session")
def check():
    return compare


@pytest.fixture(scope="session")
def run_traced():
    return run
