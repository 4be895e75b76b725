"""Drawn NumPy code, compiled: values as NumPy's, slopes, batches, threads."""

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import diffc
from diffc.runtime import pool
from tests.programs.numpy_code import SIZES, SMALL, Code
from tests.shares import shared_anyway, steady

__all__ = ["shared_anyway", "steady"]

seeds = st.integers(0, 2**32 - 1)
some = settings(max_examples=max(15, settings().max_examples // 4))


def alike(found, expected, code, what=""):
    """The same dtypes, shapes and numbers, up to rounding."""
    for name, x, y in zip(code.outputs, found, expected, strict=True):
        x, y = np.asarray(x), np.asarray(y)
        label = f"{what} {name} of\n{code.text}"
        assert (x.dtype, x.shape) == (y.dtype, y.shape), label
        if y.dtype.kind == "f":
            x, y = x.astype(np.float64), y.astype(np.float64)
            np.testing.assert_allclose(x, y, rtol=0, atol=code.rounding, err_msg=label)
        else:
            np.testing.assert_array_equal(x, y, err_msg=label)


@some
@given(seeds, st.sampled_from([SIZES, SMALL]))
def test_values(seed, sizes):
    code = Code(seed, sizes)
    args = code.arguments.values()
    with np.errstate(all="ignore"):
        expected = code.function(*args)
    alike(diffc.jit(code.function)(*args), expected, code)


@some
@given(seeds)
def test_batches(seed):
    """Each argument has an axis more, or is that of all elements."""
    code = Code(seed, SMALL)
    args = list(code.arguments.values())
    axes = [code.random.choice((0, -1, None)) for _ in args]
    axes[0] = 0
    rows = [[x, *(code.draw(x.shape, x.dtype) for _ in range(2))] for x in args]
    batched = [
        x if axis is None else np.stack(own, axis)
        for x, own, axis in zip(args, rows, axes, strict=True)
    ]
    each = [
        code.function(
            *(x if axis is None else own[k] for x, own, axis in zip(args, rows, axes, strict=True))
        )
        for k in range(3)
    ]
    expected = [np.stack(parts) for parts in zip(*each, strict=True)]
    if any(x.dtype.kind == "f" and not (np.abs(x) < 1e6).all() for x in expected):
        return
    found = diffc.vmap(code.function, in_axes=tuple(axes))(*batched)
    for x, y in zip(found, expected, strict=True):
        assert (x.dtype, x.shape) == (y.dtype, y.shape), code.text
        scale = max(1.0, float(np.abs(y).max(initial=0)) if y.dtype.kind == "f" else 1.0)
        exact = y.dtype.kind != "f"
        np.testing.assert_allclose(
            x, y, rtol=0, atol=0 if exact else 1e2 * scale * code.rounding, err_msg=code.text
        )


@some
@given(seeds)
def test_slopes(seed):
    """Forward and reverse mode agree; what differences see is near, where they agree."""
    code = Code(seed, SMALL)
    chosen = [k for k, x in enumerate(code.arguments.values()) if x.dtype == np.float64]
    if not chosen or code.rounding > 1e-6:
        return
    args, rng = list(code.arguments.values()), code.rng
    weights = [rng.standard_normal(np.shape(code.values[name])) for name in code.outputs]

    def total(*xs):
        outs = zip(code.function(*xs), weights, strict=True)
        return sum(
            (np.sum(y * w) for y, w in outs if y.dtype.kind == "f"), 0.0 * np.sum(xs[chosen[0]])
        )

    def at(*moved):
        full = list(args)
        for k, x in zip(chosen, moved, strict=True):
            full[k] = x
        return total(*full)

    own = [args[k] for k in chosen]
    dots = [rng.standard_normal(x.shape) for x in own]
    cts = diffc.grad(at, argnums=tuple(range(len(own))))(*own)
    _, slope = diffc.jvp(at, tuple(own), tuple(dots))
    parts = [float(np.sum(ct * dot)) for ct, dot in zip(cts, dots, strict=True)]
    scale = 1 + sum(float(np.sum(np.abs(ct * dot))) for ct, dot in zip(cts, dots, strict=True))
    assert abs(float(slope) - sum(parts)) <= 1e-8 * scale, code.text
    seen = []
    with np.errstate(all="ignore"):
        for step in (4e-7, 1e-6, 2e-6):
            ends = [at(*(x + s * d for x, d in zip(own, dots, strict=True))) for s in (step, -step)]
            seen.append(float(ends[0] - ends[1]) / (2 * step))
    if max(seen) - min(seen) <= 1e-5 * scale:  # no kink within
        assert abs(seen[0] - sum(parts)) <= 1e-4 * scale, code.text


@settings(some, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seeds)
def test_threads(shared_anyway, seed):
    code = Code(seed)
    args, function = code.arguments.values(), diffc.jit(code.function)
    with pool.use_threads(1):
        expected = [np.asarray(x).tobytes() for x in function(*args)]
    for count in (2, 4):
        with pool.use_threads(count):
            assert [np.asarray(x).tobytes() for x in function(*args)] == expected, code.text
