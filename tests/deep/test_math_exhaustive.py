"""Every f32 argument of every elementary function of one operand, on this machine's target.

On its lesser targets every 17th. Minutes of CPU for each function; the drawn tests are in
tests/codegen/emit/test_math.py.
"""

import numpy as np
import pytest

from diffc.codegen.emit.math import FUNCTIONS
from diffc.codegen.targets import Target
from tests.codegen.emit.native_math import HOST, NUMPY, RUNNABLE, native, ulps_f32

BLOCK = 2**24
UNARY = [name for name, function in FUNCTIONS.items() if function.arity == 1]


def worst_error(name: str, target: Target, stride: int = 1) -> tuple[float, np.float32]:
    """Largest error in ulp over all arguments (or each `stride`-th), and where it is."""
    function = native(name, "f32", target.lanes("f32"), target)
    worst, place = 0.0, np.float32(0)
    for start in range(0, 2**32, BLOCK * stride):
        stop = min(start + BLOCK * stride, 2**32)
        x = np.arange(start, stop, stride, dtype=np.uint64).astype(np.uint32).view(np.float32)
        with np.errstate(all="ignore"):
            want = NUMPY[name](x.astype(np.float64))
        error = ulps_f32(function(x), want)
        index = int(np.argmax(error))
        if error[index] > worst:
            worst, place = float(error[index]), x[index]
    return worst, place


@pytest.mark.parametrize("target", RUNNABLE, ids=lambda t: t.name)
@pytest.mark.parametrize("name", UNARY)
def test_every_f32(name: str, target: Target) -> None:
    worst, place = worst_error(name, target, 1 if target == HOST else 17)
    assert worst <= FUNCTIONS[name].ulps("f32", target.has_fma), place
