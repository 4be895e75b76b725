"""Sine and cosine of one argument share the reduction, and give the bits they give alone."""

import numpy as np
import pytest

import diffc

SPECIAL = [0.0, -0.0, np.inf, -np.inf, np.nan, 1e9, 1e30, -3e22, 1e-40]


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("count", [1, 5, 200])
def test_together_and_alone(dtype, count):
    x = np.resize([*SPECIAL, *np.random.default_rng(0).standard_normal(50) * 9], count)
    with np.errstate(over="ignore"):
        x = x.astype(dtype)

    def f(x):
        chosen = np.where(x > 0, np.cos(x) * np.sin(x), np.cos(x))
        return np.sin(x), np.cos(x), np.sum(np.sin(x) + np.cos(x)), chosen

    sine, cosine, total, chosen = diffc.jit(f)(x)
    assert sine.tobytes() == diffc.jit(np.sin)(x).tobytes()
    assert cosine.tobytes() == diffc.jit(np.cos)(x).tobytes()
    assert np.isnan(total) or np.isfinite(total)
    with np.errstate(invalid="ignore"):
        np.testing.assert_array_equal(chosen, np.where(x > 0, cosine * sine, cosine))


def test_the_far_reduction_is_called_once():
    text = diffc.jit(lambda x: np.sin(x) * np.cos(x)).compile(np.ones(64)).stage("emit").text
    assert text.count("call void @diffc.reduce_half_pi.f64(") == 1
