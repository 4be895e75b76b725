"""A checked gather reads its operand from memory, whatever the operand is."""

import numpy as np
import pytest

import diffc


@pytest.mark.parametrize("start", [np.zeros, np.ones])
def test_of_a_constant(start):
    @diffc.jit
    def place(y, u):
        z = start((3, 4))
        z[np.arange(3), y] += u
        return z

    expected = start((3, 4))
    expected[np.arange(3), [1, 2, 0]] += 2
    np.testing.assert_array_equal(place(np.array([1, 2, 0]), np.full(3, 2.0)), expected)
    with pytest.raises(diffc.ExecutionError, match="out of bounds"):
        place(np.array([1, 2, 4]), np.full(3, 2.0))


def test_of_a_computed_value():
    pick = diffc.jit(lambda x, i: np.exp(x)[i] + x[i])
    x = np.linspace(0, 1, 5)
    np.testing.assert_allclose(pick(x, 3), np.exp(x[3]) + x[3], rtol=1e-15)
    with pytest.raises(diffc.ExecutionError, match="out of bounds"):
        pick(x, 5)
