"""Three transforms after each other, on every program of control flow; all of it compiled."""

import itertools

import pytest

from tests.transforms.test_compositions import PROGRAMS, STEPS, compose


@pytest.mark.parametrize("name", PROGRAMS)
@pytest.mark.parametrize("steps", list(itertools.product(STEPS, repeat=3)), ids="-".join)
def test_three_steps(name, steps):
    compose(name, steps)
