"""``diffc.numpy``: NumPy itself outside a trace, the traced meaning within one."""

from __future__ import annotations

import numpy
import pytest

import diffc.numpy as np
from diffc.errors import TraceError
from diffc.trace import Tracer, trace

X = numpy.arange(4.0)


def test_outside_a_trace_it_is_numpy():
    assert type(np.zeros(3)) is numpy.ndarray
    assert type(np.sin(1.0)) is numpy.float64
    assert type(np.linalg.norm(X)) is numpy.float64
    assert np.pi == numpy.pi and np.float32 is numpy.float32 and np.newaxis is None
    assert isinstance(X, np.ndarray) and np.asarray(X) is X
    assert np.add.reduce(X) == 6 and np.add.identity == 0
    assert type(np.random.default_rng(0).normal()) is float
    with pytest.raises(numpy.linalg.LinAlgError):
        np.linalg.inv(numpy.zeros((2, 2)))
    with pytest.raises(AttributeError):
        np.no_such_function  # noqa: B018


def test_within_a_trace_it_traces():
    def f(x):
        made = [np.zeros(2), np.arange(3), np.array([1, 2]), np.sin(x), np.linalg.norm(x)]
        assert all(isinstance(a, Tracer) for a in made)
        assert isinstance(x, np.ndarray)
        assert not isinstance(np.prod((2, 3)), Tracer)
        return made

    trace(f, [X])


def test_every_name_is_there():
    assert set(dir(numpy)) <= set(dir(np))
    assert all(hasattr(np, name.split(".")[0]) for name in np.TRACED)
    assert {"sum", "einsum", "linalg.norm", "exp", "where"} <= set(np.TRACED)
    assert "svd" not in np.TRACED


def test_static_functions_pass():
    def f(x):
        assert np.result_type(x.dtype, np.float32) == numpy.float64
        assert np.broadcast_shapes(x.shape, (2, 1)) == (2, 4)
        with np.errstate(all="ignore"):
            return x / np.finfo(x.dtype).eps

    trace(f, [X])


@pytest.mark.parametrize(
    "call",
    [
        lambda x: np.fft.fft(x),
        lambda x: np.unique(x),
        lambda x: np.linalg.eigh(np.outer(x, x)),
        lambda x: np.random.rand(3) + x,
        lambda x: np.vectorize(lambda v: v)(x),
        lambda x: np.ndarray((3,)),
        lambda x: np.apply_along_axis(sum, 0, x),
    ],
)
def test_what_cannot_be_traced_is_an_error(call):
    with pytest.raises(TraceError):
        trace(call, [X])
