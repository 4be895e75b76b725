"""NumPy code on floats of 16 bits: compiled, what the interpreter says; derivatives too."""

import os
import subprocess
import sys

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import diffc
from diffc import nn, optim
from diffc.ir.aval import is_float
from diffc.runtime.pool import use_threads
from tests.programs.compare import agree, same

HALVES = [np.dtype(ml_dtypes.bfloat16), np.dtype(np.float16)]
halves = pytest.mark.parametrize("dtype", HALVES, ids=str)


def drawn(dtype, *shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def check(function, *args):
    """Compiled results: in dtype, shape and bits (but for long sums) the interpreter's."""
    compiled = diffc.jit(function)
    program = compiled.compile(*args)
    found = compiled(*args)
    found = [np.asarray(x) for x in (found if isinstance(found, tuple) else (found,))]
    graph = program.stage("transform").value
    assert [x.dtype for x in found] == [value.aval.numpy for value in graph.outputs]
    agree(found, graph, list(args))
    assert program.executable.entry_kind == "native" or os.environ.get("DIFFC_GUARD")
    return found


@halves
@pytest.mark.parametrize("n", [0, 1, 3, 16, 37, 1000])
def test_vectors(dtype, n):
    def f(x, y):
        chosen = np.where(x > y, x, -y)
        return (
            np.exp(x) * 2.0 + 1, x / y, x @ y, np.sum(x), np.cumsum(x), np.sort(x), np.argsort(x),
            np.maximum(x, y), chosen, x.astype(np.int32), np.tanh(x)[::-1], x == y, abs(-x), x**2,
            x + np.float32(1), x.astype(np.float64), np.concatenate([x, y]), np.clip(x, 0, 1),
            np.where(np.isfinite(x), x, 0), np.arange(n).astype(dtype), np.round(x), x % y,
        )  # fmt: skip

    check(f, drawn(dtype, n), drawn(dtype, n, seed=1))


@halves
@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (7, 33), (64, 100), (5, 3000)])
def test_rows_and_columns(dtype, shape):
    def f(x, w):
        e = np.exp(x - np.max(x, 1, keepdims=True))
        return (
            np.sum(x, 0), np.sum(x, 1), np.mean(x, 1), np.max(x, 0), np.argmax(x, 1), np.min(x),
            np.argmin(x, 0), np.prod(x, 0), e / np.sum(e, 1, keepdims=True), x.T @ x, x @ w, x.T,
            np.cumsum(x, 0), np.maximum.accumulate(x, 1), np.var(x, 1), x[:, ::-1], np.sort(x, 0),
        )  # fmt: skip

    check(f, drawn(dtype, *shape), drawn(dtype, shape[1], 9, seed=1))


@halves
def test_sums_are_kept_in_f32(dtype):
    """A running sum in 16 bits would stop at 256 or 2048."""
    x = np.ones((5, 3000), dtype)
    want = np.asarray(3000).astype(dtype)
    for found in diffc.jit(lambda x: (x.sum(1), x.T.sum(0), x.mean(1) * 3000, x @ x[0]))(x):
        assert (found == want).all()


@halves
def test_every_nan_stays_one(dtype):
    """Of whatever bits; rounding must not carry them into infinity or zero."""
    bits = np.arange(1 << 16, dtype=np.uint16).view(dtype)
    nans = bits[np.isnan(bits)]
    count = nans.size // 32 * 32
    x = nans[:count].reshape(32, -1)
    ones = np.ones_like(x)

    def f(x, y):
        chosen = np.maximum(x, y), np.minimum(y, x), np.where(y > 0, x, y), np.sort(x, 1)
        sums = x @ y.T, y @ x.T, np.sum(x, 0), np.sum(x, 1), np.cumsum(x, 1), x * 2 - x, -x
        others = np.exp(x), np.tanh(x), np.sqrt(x), x**2, y / x, np.arctan2(y, x), np.sign(x)
        return *chosen, *sums, *others, np.floor(x), x.astype(np.float64).astype(dtype)

    for number, found in enumerate(diffc.jit(f)(x, ones)):
        assert np.isnan(found).all(), number
    assert not np.isnan(diffc.jit(lambda x: x @ x.T)(ones)).any()
    infinite = np.full_like(x, np.inf)
    assert np.isnan(diffc.jit(lambda x, y: x @ y.T)(infinite, np.zeros_like(x))).all()


@halves
def test_indices_loops_and_branches(dtype):
    def f(x, table, at, n):
        rows = table[at]
        spread = np.zeros_like(table)
        spread[at] += x
        last, steps = diffc.scan(lambda c, row: (c * row + 1, c), x[0], x)
        root = diffc.while_loop(lambda c: c[0] < n, lambda c: (c[0] + 1, c[1] * 0.5), (0, x[1]))[1]
        way = diffc.cond(n > 2, lambda x: x + 1, lambda x: x * 2, x)
        return rows, spread, last, steps, root, way

    at = np.array([0, 2, 2, 1, 0, 6, 3])
    check(f, drawn(dtype, 7, 5), drawn(dtype, 7, 5, seed=1), at, np.asarray(3))


@halves
def test_cotangents_have_the_dtype_of_their_primal(dtype):
    def loss(w, x):
        hidden = np.tanh(x @ w["a"].astype(dtype) + w["b"].astype(dtype))
        return np.mean((hidden @ hidden.T).astype(np.float32) ** 2) + np.sum(x * 2)

    w = {"a": drawn("f4", 5, 8), "b": drawn("f4", 8, seed=2)}
    slope = diffc.jit(diffc.grad(loss, argnums=(0, 1)))
    x = drawn(dtype, 6, 5)
    by_w, by_x = slope(w, x)
    assert by_w["a"].dtype == by_w["b"].dtype == np.float32
    assert by_x.dtype == dtype
    wide = diffc.grad(lambda w, x: loss_in_f32(w, x), argnums=(0, 1))(w, x.astype(np.float32))
    for found, want in zip((by_w["a"], by_w["b"], by_x), (*wide[0].values(), wide[1]), strict=True):
        scale = np.max(np.abs(want))
        off = 0.05 if dtype != np.float16 else 0.01
        np.testing.assert_allclose(found.astype(np.float32), want, atol=off * scale)


def loss_in_f32(w, x):
    hidden = np.tanh(x @ w["a"] + w["b"])
    return np.mean((hidden @ hidden.T) ** 2) + np.sum(x * 2)


@halves
def test_reverse_and_forward_agree(dtype):
    def f(x):
        return np.sum(np.sort(x) * np.exp(x) / (1 + x * x)) + x[2] * np.max(x)

    x = drawn(dtype, 37)
    reverse = diffc.grad(f)(x)
    forward = diffc.jacfwd(f)(x)
    assert reverse.dtype == forward.dtype == dtype
    both = (reverse.astype(np.float32), forward.astype(np.float32))
    np.testing.assert_allclose(*both, rtol=0.1, atol=0.1)


PARTS = st.floats(-100, 100, width=16) | st.sampled_from([np.nan, np.inf, -np.inf, -0.0, 1e-7])


@halves
@settings(max_examples=25)
@given(st.lists(st.tuples(PARTS, PARTS), max_size=40))
def test_drawn_values(dtype, pairs):
    x, y = np.array(pairs).reshape(-1, 2).T.astype(dtype)
    x, y = np.ascontiguousarray(x), np.ascontiguousarray(y)
    wide = chain(*(v.astype(np.float32) for v in (x, y)))
    for found, want in zip(CHAIN(x, y), wide, strict=True):
        with np.errstate(all="ignore"):
            want = np.asarray(want).astype(found.dtype)
        same(np.asarray(found), want)


def chain(x, y):
    """Each is one rounding away from f32."""
    with np.errstate(all="ignore"):
        return x + y, x * y, x / y, np.sqrt(x), np.where(x < y, x, y), x >= y, -x


CHAIN = diffc.jit(chain)


@halves
def test_threads_give_the_same_bits(dtype):
    def f(x, w):
        return x @ w, np.sum(np.exp(x), 0), np.sum(x), np.tanh(x)

    args = drawn(dtype, 700, 512), drawn(dtype, 512, 300, seed=1)
    results = []
    for count in (1, 2):
        with use_threads(count):
            results.append(diffc.jit(f)(*args))
    for one, two in zip(*results, strict=True):
        assert one.tobytes() == two.tobytes()


STEP = """
import sys
import ml_dtypes
import numpy as np
import diffc
f = diffc.jit(lambda x, c: (x @ x.T * c + np.float32(1), np.exp(x), x.sum(1)))
x = np.linspace(-2, 2, 60).reshape(4, 15).astype(sys.argv[1])
found = f(x, np.asarray(0.5).astype(x.dtype))
print([y.dtype.name for y in found], [y.tobytes().hex() for y in found])
"""


@halves
def test_objects_from_the_cache_give_the_same(dtype, tmp_path):
    env = {**os.environ, "DIFFC_CACHE_DIR": str(tmp_path)}
    command = [sys.executable, "-c", STEP, dtype.name]
    runs = [
        subprocess.run(command, env=env, capture_output=True, check=True, text=True).stdout
        for _ in range(2)
    ]
    assert runs[0] == runs[1]
    assert any(tmp_path.rglob("*"))


@halves
def test_scalars_constants_and_captured_arrays(dtype):
    table, number = drawn(dtype, 4, 3), dtype.type(0.1)

    def f(x):
        return x * number + table, np.zeros(3, dtype) + x, np.array([0.1, 3, -0.0], dtype) * x

    check(lambda x: f(x)[1:], drawn(dtype, 3, seed=2))
    found = diffc.jit(f)(drawn(dtype, 3, seed=2))
    want = f(drawn(dtype, 3, seed=2))
    for one, other in zip(found, want, strict=True):
        same(one, other)


@halves
def test_other_layouts(dtype):
    x = drawn(dtype, 6, 8)
    f = diffc.jit(lambda x: np.exp(x) + 1)
    plain = f(np.ascontiguousarray(x[::2, ::-1]))
    same(f(x[::2, ::-1]), plain)
    same(f(np.asfortranarray(x)), f(x))


@halves
def test_training_with_f32_params(dtype):
    """Activations of 16 bits, params and their updates of 32; losses are scaled up and back."""
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((64, 10)).astype("f4"), rng.standard_normal((64, 1)).astype("f4")
    params = {"a": 0.3 * drawn("f4", 10, 32), "b": 0.3 * drawn("f4", 32, 1, seed=1)}
    optimizer, scale = optim.adam(0.01), 1024.0

    def loss(params, x, y):
        low = {name: w.astype(dtype) for name, w in params.items()}
        out = np.tanh(x.astype(dtype) @ low["a"]) @ low["b"]
        return scale * np.mean((out.astype(np.float32) - y) ** 2)

    @diffc.jit
    def step(params, state):
        value, slopes = diffc.value_and_grad(loss)(params, x, y)
        slopes = {name: slope / scale for name, slope in slopes.items()}
        params, state = optimizer.update(slopes, state, params)
        return value / scale, params, state

    state, losses = optimizer.init(params), []
    for _ in range(60):
        value, params, state = step(params, state)
        losses.append(float(value))
    assert all(w.dtype == np.float32 for w in params.values())
    assert losses[-1] < 0.5 * losses[0]


@halves
def test_optimizers_take_them(dtype):
    params = {"w": drawn(dtype, 4), "b": np.zeros((), dtype)}
    optimizer = optim.adam(0.01)
    found, _ = diffc.jit(optimizer.update)(params, optimizer.init(params), params)
    assert all(leaf.dtype == dtype for leaf in found.values())
    assert is_float(found["w"].dtype)


@halves
def test_pools_and_convolutions(dtype):
    x, kernel = drawn(dtype, 2, 9, 9, 3), drawn(dtype, 3, 3, 3, 4, seed=1)

    def f(x, kernel):
        return nn.max_pool(nn.conv(x, kernel), 2), nn.avg_pool(x, 3)

    check(f, x, kernel)
    slope = diffc.grad(lambda k, x: np.sum(f(x, k)[0].astype(np.float32)))(kernel, x)
    assert slope.dtype == dtype


def test_both_together_are_f32():
    x, y = drawn(HALVES[0], 5), drawn(HALVES[1], 5)
    assert diffc.jit(lambda x, y: x * y)(x, y).dtype == np.float32


@halves
def test_verified(dtype):
    from diffc.symbolic.verify import verify

    report = verify(lambda x: np.sum(np.tanh(x) * x), [drawn(dtype, 5)])
    assert report.is_good, str(report)
