"""Every op within every border, and within two: derivatives as those by hand."""

import pytest

from tests.programs.borders import BORDERS
from tests.programs.test_borders import OPS, as_by_hand, graph_of, uses


@pytest.mark.parametrize("name", BORDERS)
@pytest.mark.parametrize("op", OPS, ids=lambda op: op.name)
def test_every_op_within_every_border(op, name):
    others, found = list(BORDERS), list(uses(op))
    for k, sample in enumerate(found[:: max(1, len(found) // 4)]):
        outer = others[(others.index(name) + k) % len(others)]
        as_by_hand(graph_of(sample), [name], sample.arrays, k)
        as_by_hand(graph_of(sample), [name, outer], sample.arrays, k)
