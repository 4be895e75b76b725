"""Compiled programs held against the reference interpreter.

Exact ops must agree bit for bit (one nan is like another). Elementary functions and sums have
bounds, and what follows amplifies them: so the interpreter runs a few times more with each inexact
result moved by its bound, signs drawn; how far the outputs then move, twice, is what is allowed.
A graph of exact ops moves nowhere, so there the comparison is exact.
"""

import numpy as np

from diffc.ir.aval import is_float, limits, wide
from diffc.ir.graph import Builder, Graph
from diffc.ops.interpret import by_numpy, evaluate
from diffc.programs import GraphProgram

#: ulps that NumPy's own elementary functions may be off
NUMPY_ULP = 4.0
RUNS = 8


def one_op_graph(samples, name="ops") -> Graph:
    """One graph that applies each sample to inputs of its own."""
    builder = Builder(name)
    outputs = []
    for sample in samples:
        inputs = [builder.input(a) for a in sample.avals]
        outputs += builder.emit(sample.op, inputs, sample.params, sample.regions)
    return builder.build(outputs)


def arrays_of(samples) -> list:
    return [array for sample in samples for array in sample.arrays]


def compiled(graph: Graph, arrays) -> list[np.ndarray]:
    """What the native program gives."""
    return GraphProgram(graph, graph.name)(arrays)


def same(found, expected, what="") -> None:
    """Bit for bit, but one nan is like another."""
    assert (found.dtype, found.shape) == (expected.dtype, expected.shape), what
    if is_float(found.dtype):
        nans = np.isnan(expected)
        np.testing.assert_array_equal(np.isnan(found), nans, err_msg=what)
        signs = np.signbit(found) == np.signbit(expected)
        assert (signs | nans).all(), f"{what}: signs of {found} and {expected}"
    found, expected = (x.astype(wide(x.dtype)) for x in (found, expected))
    np.testing.assert_array_equal(found, expected, err_msg=what)


# --- how far an op's result may be from the interpreter's -------------------------------------


def terms_of(eqn, arrays):
    """How many terms a sum has, and their sum by size; None for other ops."""
    name, sizes = eqn.op.name, [np.abs(a) if is_float(a.dtype) else a for a in arrays]
    params = eqn.params
    result = eqn.results[0].aval
    if not result.is_float or name not in SUMS:
        return None
    total = eqn.op.numpy(*sizes, **params)
    if name in ("prod", "cumprod"):  # in another order, partial products may leave the range
        safe = np.log2(float(limits(result.numpy).max)) / 2
        far = np.sum(np.abs(np.log2(sizes[0], where=sizes[0] > 0, out=np.ones(sizes[0].shape))))
        total = np.where(far < safe, total, np.inf)  # then nothing is known
    if name == "contract":
        own = eqn.operands[0].aval.size * eqn.operands[1].aval.size
        count = own // max(1, result.size)
    else:
        count = sum(operand.aval.size for operand in eqn.operands)
    return count, np.asarray(total, np.float64)


SUMS = ("sum", "prod", "contract", "cumsum", "cumprod", "overlap_add", "scatter")


def bound(eqn, arrays, result) -> np.ndarray | None:
    """By how much a result may be off, element by element; None for exact ops."""
    if not is_float(result.dtype):
        return None
    if eqn.op.ulp:
        return (eqn.op.ulp + NUMPY_ULP) * np.abs(np.spacing(result)).astype(np.float64)
    if eqn.op.name == "scatter" and eqn.params["combine"] not in ("add", "mul"):
        return None
    terms = terms_of(eqn, arrays)
    if terms is None:
        return None
    count, total = terms
    info = limits(result.dtype)
    return count * (float(info.eps) * total + float(info.smallest_subnormal))


def moved(seed: int):
    """Computes equations with each inexact result moved by its bound, signs drawn."""
    rng = np.random.default_rng(seed)

    def compute(eqn, arrays):
        result = by_numpy(eqn, arrays)
        if isinstance(result, list | tuple):
            return result
        result = np.asarray(result)
        off = bound(eqn, arrays, result)
        if off is None or not off.size:
            return result
        sign = rng.integers(0, 2, result.shape) * 2 - 1
        moved = (result.astype(np.float64) + sign * off).astype(result.dtype)
        if not seed:  # to integers, where floors, comparisons and powers of negative numbers jump
            whole = np.rint(result)
            moved = np.where(np.abs(whole - result) <= off, whole, result)
        moved = np.where(np.isfinite(result), moved, result)
        return np.where(np.isinf(off) & ~np.isnan(result), np.nan, moved).astype(result.dtype)

    return compute


def allowance(graph: Graph, arrays, expected) -> list[np.ndarray | None]:
    """How far each output may be off; None: not at all."""
    spreads = [np.zeros(np.shape(x)) for x in expected]
    for seed in range(RUNS):
        with np.errstate(all="ignore"):
            for k, other in enumerate(evaluate(graph, arrays, moved(seed))):
                apart = np.abs(other.astype(np.float64) - expected[k].astype(np.float64))
                same = (other == expected[k]) | ((other != other) & (expected[k] != expected[k]))
                apart = np.where(same, 0.0, np.where(np.isnan(apart), np.inf, apart))
                spreads[k] = np.maximum(spreads[k], apart)
    allowed: list[np.ndarray | None] = []
    for spread, x in zip(spreads, expected, strict=True):
        wide = np.where(np.isfinite(x), np.abs(x.astype(np.float64)), 0.0)
        slack = 4 * float(limits(x.dtype).eps) * wide if is_float(x.dtype) else 0
        near = spread <= 0.01 * wide  # else a pole or a cancellation: draws tell little
        with np.errstate(over="ignore"):
            allowed.append(np.where(near, 2, 16) * spread + slack if spread.any() else None)
    return allowed


def agree(found, graph: Graph, arrays, what="") -> None:
    """Asserts that compiled outputs are what the interpreter says, within the bounds."""
    expected = evaluate(graph, arrays)
    allowed = allowance(graph, arrays, expected)
    for k, (x, y, spread) in enumerate(zip(found, expected, allowed, strict=True)):
        label = f"{what} output {k} of {graph!r}"
        if spread is None:
            same(x, y, label)
            continue
        assert (x.dtype, x.shape) == (y.dtype, y.shape), label
        with np.errstate(all="ignore"):
            apart = np.abs(x.astype(np.float64) - y.astype(np.float64))
            fine = (x == y) | (apart <= spread) | ((x != x) & (y != y)) | np.isinf(spread)
        assert fine.all(), f"{label}: {x[~fine]} is not {y[~fine]} within {spread[~fine]}"
