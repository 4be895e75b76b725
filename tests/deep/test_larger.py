"""Drawn graphs of larger sizes, around those of vectors, tiles and blocks; threads; guard pages."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from diffc.programs import GraphProgram
from diffc.runtime import pool
from tests.programs import drawn
from tests.programs.compare import agree, same
from tests.shares import needs_pool, shared_anyway, steady

__all__ = ["shared_anyway", "steady"]

pytestmark = needs_pool
SIZES = (
    *(0, 1, 2, 3, 5, 7, 8, 9, 15, 16, 17, 24, 31, 32, 33, 47, 63, 64, 65),
    *(100, 127, 128, 129, 257, 300, 1000),
)
#: of zeros with two signs, NumPy's extrema take either, by their own order
EITHER_ZERO = {"max", "min"}


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 2**32 - 1), st.integers(1, 30), st.booleans())
def test_compiled_is_interpreted_for_any_number_of_threads(shared_anyway, seed, count, is_guarded):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(drawn, "SIZES", SIZES)
        patch.setattr(drawn, "LIMIT", 12_000)
        graph = drawn.Drawer(seed).graph(count)
        if is_guarded:
            patch.setenv("DIFFC_GUARD", "1")
        arrays = drawn.operands_for(graph.input_avals, seed)
        program = GraphProgram(graph, "larger")
        with pool.use_threads(1):
            expected = program(arrays)
        for threads in (2, 4, 3):
            with pool.use_threads(threads):
                for found, wanted in zip(program(arrays), expected, strict=True):
                    same(found, wanted, f"{threads} threads")
    if EITHER_ZERO.isdisjoint(eqn.op.name for eqn in graph.eqns):
        agree(expected, program.compilation.graph, arrays)
