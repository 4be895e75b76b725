"""Elements picked from views, at indices that are checked."""

import numpy as np
import pytest

import diffc
from diffc.errors import ExecutionError

VIEWS = {
    "reshape": lambda x: np.reshape(x, (4, 6)),
    "transpose": lambda x: np.transpose(np.reshape(x, (6, 4))),
    "slice": lambda x: np.reshape(x, (4, 6))[:, 1:4],
    "merged": lambda x: np.reshape(np.reshape(x, (2, 2, 6)) * 2.0, (4, 6)) - x[:4, None],
    "broadcast": lambda x: np.broadcast_to(x[:6], (4, 6)),
}


@pytest.mark.parametrize("name", VIEWS)
@pytest.mark.parametrize("pick", ["rows", "one_per_row"])
def test_what_is_picked_from_a_view(name, pick):
    x, at = np.arange(24.0), np.array([2, 0, 1, 2])

    def f(x, at):
        view = VIEWS[name](x)
        return (view[at] if pick == "rows" else view[np.arange(4), at]) * 2

    np.testing.assert_array_equal(diffc.jit(f)(x, at), f(x, at))
    with pytest.raises(ExecutionError, match="out of bounds"):
        diffc.jit(f)(x, np.array([0, 1, 2, 60]))
