"""The derivative of a quotient where its reciprocal overflows, and at nan, inf and zeros."""

import numpy as np
import pytest

import diffc
from diffc.ops.interpret import evaluate

DTYPES = [np.float32, np.float64]


def special_triples(dtype):
    """Cotangent, numerator and denominator: all triples of special values."""
    info = np.finfo(dtype)
    values = [np.nan, np.inf, -np.inf, 0.0, -0.0, 1.5, -3.0, info.tiny, info.max]
    values += [info.smallest_subnormal, -info.smallest_subnormal, info.tiny / 8]
    values = np.array(values, dtype)
    return [each.ravel() for each in np.meshgrid(values, values, values, indexing="ij")]


def run_both(transform, args):
    """What compiled code gives, then the interpreter on the graph as it was differentiated."""
    jitted = diffc.jit(transform)
    graph = jitted.stages(*args, until="transform").stage("transform").value
    return jitted(*args), evaluate(graph, list(args))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("by_rows", [False, True])
def test_cotangents_are_those_of_plain_divisions(dtype, by_rows):
    ct, a, b = special_triples(dtype)
    if by_rows:  # one denominator for a row
        ct, a = ct.reshape(12, 12, 12).transpose(2, 0, 1), a.reshape(12, 12, 12).transpose(2, 0, 1)
        b = b.reshape(12, 12, 12).transpose(2, 0, 1)
        ct, a, b = (np.ascontiguousarray(each).reshape(12, 144) for each in (ct, a, b))

    def pulled(ct, a, b):
        denominator = np.broadcast_to(b[:, :1], a.shape) if by_rows else b
        _, back = diffc.vjp(lambda a, b: a / b, a, denominator)
        return back(ct)

    with np.errstate(all="ignore"):
        references = ct / b, -ct * ((a / b) / b)
    for by_a, by_b in run_both(pulled, (ct, a, b)):
        np.testing.assert_array_equal(by_a, references[0])
        np.testing.assert_array_equal(by_b, references[1])


@pytest.mark.parametrize("dtype", DTYPES)
def test_tangents_are_those_of_plain_divisions(dtype):
    dot, a, b = special_triples(dtype)

    def pushed(dot, a, b):
        by_a = diffc.jvp(lambda a: a / b, (a,), (dot,))[1]
        return by_a, diffc.jvp(lambda b: a / b, (b,), (dot,))[1]

    with np.errstate(all="ignore"):
        references = dot / b, -dot * ((a / b) / b)
    for found in run_both(pushed, (dot, a, b)):
        for each, reference in zip(found, references, strict=True):
            np.testing.assert_array_equal(each, reference)


def test_zeros_and_subnormals_give_no_nan():
    zeros, subnormal = np.zeros(3, np.float32), np.full(3, 1e-40, np.float32)
    for ct, a in ((zeros, zeros), (np.ones(3, np.float32), zeros)):
        _, back = diffc.vjp(lambda a, b: a / b, a, subnormal)
        by_a, by_b = back(ct)
        assert not np.isnan(by_a).any()
        np.testing.assert_array_equal(by_b, zeros)
