"""Convolution and pooling against direct loops, and their gradients against differences."""

import itertools
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import scipy.signal
from hypothesis import given, settings
from hypothesis import strategies as st

import diffc
from diffc import nn
from diffc.errors import ShapeError, UsageError
from diffc.runtime.target import host

RNG = np.random.default_rng(5)
ROOT = Path(__file__).parents[2]


def drawn(*shape, dtype="f8"):
    return RNG.standard_normal(shape).astype(dtype)


def pairs_of(padding, dims, spans, strides):
    if padding == "valid":
        return [(0, 0)] * len(dims)
    if padding == "same":
        total = [max((-(-n // s) - 1) * s + k - n, 0)
                 for n, k, s in zip(dims, spans, strides, strict=True)]  # fmt: skip
        return [(t // 2, t - t // 2) for t in total]
    return [(padding, padding)] * len(dims)


def pieces(x, sizes, strides, padding, dilations, fill):
    """Positions and windows of an array with channels last, padded with ``fill``."""
    spans = [(k - 1) * d + 1 for k, d in zip(sizes, dilations, strict=True)]
    pairs = pairs_of(padding, x.shape[1:-1], spans, strides)
    x = np.pad(x, [(0, 0), *pairs, (0, 0)], constant_values=fill)
    counts = [(n - k) // s + 1 for n, k, s in zip(x.shape[1:-1], spans, strides, strict=True)]
    for position in itertools.product(*map(range, counts)):
        where = tuple(
            slice(p * s, p * s + k, d)
            for p, s, k, d in zip(position, strides, spans, dilations, strict=True)
        )
        yield counts, position, x[(slice(None), *where)]


def direct_conv(x, w, strides, padding, dilations, groups):
    """By loops over positions, groups and output channels; channels last."""
    y = None
    inside, outputs = w.shape[-2], w.shape[-1]
    for counts, position, piece in pieces(x, w.shape[:-2], strides, padding, dilations, 0.0):
        if y is None:
            y = np.zeros((x.shape[0], *counts, outputs))
        for out in range(outputs):
            group = out // (outputs // groups)
            part = piece[..., group * inside : (group + 1) * inside]
            axes = tuple(range(1, part.ndim))
            y[(slice(None), *position, out)] = np.sum(part * w[..., out], axis=axes)
    return y


def direct_pool(x, sizes, strides, padding, dilations, reduce, fill):
    y = None
    for counts, position, piece in pieces(x, sizes, strides, padding, dilations, fill):
        if y is None:
            y = np.zeros((x.shape[0], *counts, x.shape[-1]))
        y[(slice(None), *position)] = reduce(piece, axis=tuple(range(1, x.ndim - 1)))
    return y


def channels_first(x):
    return np.moveaxis(x, -1, 1)


def weights_first(w):
    return np.moveaxis(w, (-1, -2), (0, 1))


LETTERS = {1: "W", 2: "HW", 3: "DHW"}


@st.composite
def problems(draw):
    """Shapes and settings of a convolution that fits."""
    count = draw(st.sampled_from([1, 2, 2, 3]))
    groups = draw(st.sampled_from([1, 1, 2, 3]))
    inside, each = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    ones = st.integers(1, 2)
    sizes = [draw(st.integers(1, 3)) for _ in range(count)]
    strides, dilations = [draw(ones) for _ in range(count)], [draw(ones) for _ in range(count)]
    padding = draw(st.sampled_from(["valid", "same", 1]))
    spans = [(k - 1) * d + 1 for k, d in zip(sizes, dilations, strict=True)]
    dims = [span + draw(st.integers(0, 3)) for span in spans]
    x = drawn(draw(st.integers(1, 2)), *dims, inside * groups)
    w = drawn(*sizes, inside, each * groups)
    return x, w, {"stride": tuple(strides), "padding": padding, "dilation": tuple(dilations),
                      "groups": groups}  # fmt: skip


@settings(max_examples=25, deadline=None)
@given(problems(), st.booleans())
def test_conv_is_what_the_loops_say(problem, is_first):
    x, w, given_ = problem
    wanted = direct_conv(x, w, given_["stride"], given_["padding"], given_["dilation"],
                         given_["groups"])  # fmt: skip
    letters = LETTERS[x.ndim - 2]
    layout = f"N{letters}C"
    if is_first:
        x, w, wanted = channels_first(x), weights_first(w), channels_first(wanted)
        layout = f"NC{letters}"
    for f in (nn.conv, diffc.jit(lambda x, w: nn.conv(x, w, **given_, layout=layout))):
        found = f(x, w, **given_, layout=layout) if f is nn.conv else f(x, w)
        np.testing.assert_allclose(found, wanted, rtol=1e-12, atol=1e-12)


@settings(max_examples=12, deadline=None)
@given(problems(), st.booleans())
def test_gradients_of_conv(problem, is_first):
    """The convolution is linear in each operand: <u, conv(x, w)> = <x, grad_x> = <w, grad_w>."""
    x, w, given_ = problem
    layout = f"N{LETTERS[x.ndim - 2]}C"
    if is_first:
        x, w, layout = channels_first(x), weights_first(w), f"NC{LETTERS[x.ndim - 2]}"
    y = nn.conv(x, w, **given_, layout=layout)
    u = drawn(*y.shape)

    def product(x, w):
        return np.sum(u * nn.conv(x, w, **given_, layout=layout))

    by_x, by_w = diffc.grad(product, (0, 1))(x, w)
    x_dot, w_dot = drawn(*x.shape), drawn(*w.shape)
    np.testing.assert_allclose(np.sum(by_x * x_dot), product(x_dot, w), rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(np.sum(by_w * w_dot), product(x, w_dot), rtol=1e-9, atol=1e-9)


def test_weights_beyond_the_cache_run_in_blocks_of_columns():
    x, w = drawn(7, 9, 9, 256, dtype="f4"), drawn(3, 3, 256, 256, dtype="f4")
    step = diffc.jit(nn.conv)
    if host().vector_bytes == 64:
        assert "run in 4" in step.stages(x, w).stage("tile").text
    windows = np.lib.stride_tricks.sliding_window_view(x, (3, 3), (1, 2))
    wanted = np.tensordot(windows, w.astype("f8"), ((4, 5, 3), (0, 1, 2)))
    np.testing.assert_allclose(step(x, w), wanted, rtol=1e-4, atol=1e-3)


def test_conv_against_scipy():
    x, w = drawn(9, 11), drawn(3, 4)
    found = nn.conv(x[None, :, :, None], w[:, :, None, None])[0, :, :, 0]
    np.testing.assert_allclose(found, scipy.signal.correlate2d(x, w, "valid"), rtol=1e-12)


@settings(max_examples=15, deadline=None)
@given(st.data())
def test_pools_are_what_the_loops_say(data):
    count = data.draw(st.sampled_from([1, 2]))
    sizes = tuple(data.draw(st.integers(1, 3)) for _ in range(count))
    strides = sizes if data.draw(st.booleans()) else tuple(
        data.draw(st.integers(1, 3)) for _ in range(count)
    )  # fmt: skip
    dilations = tuple(data.draw(st.integers(1, 2)) for _ in range(count))
    padding = data.draw(st.sampled_from(["valid", 1, "same"]))
    if padding == 1 and 1 in sizes:  # a window of padding alone has no mean
        padding = "valid"
    spans = [(k - 1) * d + 1 for k, d in zip(sizes, dilations, strict=True)]
    x = drawn(2, *(span + data.draw(st.integers(0, 4)) for span in spans), 3)
    given_ = {"stride": strides, "padding": padding, "dilation": dilations}
    layout = f"N{LETTERS[count]}C"
    most = direct_pool(x, sizes, strides, padding, dilations, np.max, -np.inf)
    total = direct_pool(x, sizes, strides, padding, dilations, np.sum, 0.0)
    inside = direct_pool(np.ones_like(x), sizes, strides, padding, dilations, np.sum, 0.0)
    for pool, wanted in ((nn.max_pool, most), (nn.avg_pool, total / inside)):

        def f(x, pool=pool):
            return pool(x, sizes, **given_, layout=layout)

        np.testing.assert_allclose(f(x), wanted, rtol=1e-12, atol=1e-13)
        np.testing.assert_allclose(diffc.jit(f)(x), wanted, rtol=1e-12, atol=1e-13)
        y = pool(channels_first(x), sizes, **given_, layout=f"NC{LETTERS[count]}")
        np.testing.assert_allclose(y, channels_first(wanted), rtol=1e-12, atol=1e-13)


def test_gradient_of_overlapping_max_pool():
    x = drawn(1, 7, 1)
    found = diffc.grad(lambda x: np.sum(nn.max_pool(x, 3, stride=2, layout="NWC")))(x)
    wanted = np.zeros(7)
    for start in (0, 2, 4):
        wanted[start + np.argmax(x[0, start : start + 3, 0])] += 1
    np.testing.assert_array_equal(found[0, :, 0], wanted)


def test_gradients_write_no_patches():
    """Windows, and what is computed from them, live in accesses only."""

    def loss(x, w):
        y = nn.conv(x, w, stride=2, padding="same", groups=2)
        return np.sum(nn.avg_pool(nn.max_pool(y, 3, stride=1) ** 2, 2, stride=1))

    x, w = drawn(2, 13, 14, 6, dtype="f4"), drawn(5, 5, 3, 8, dtype="f4")
    step = diffc.value_and_grad(loss, (0, 1))
    named = step.stages(x, w).stage("plan").text.partition("temporaries")[2].splitlines()[0]
    assert "f32" in named
    assert all(shape.count(",") <= 4 for shape in re.findall(r"\[[\d,]+\]", named)), named


@pytest.mark.parametrize("layout", ["NHWC", "NCHW"])
def test_kernels_stay_within_their_arrays(layout):
    """With guard pages around every value; a process of its own, which reads the environment."""
    program = f"""
import numpy as np, diffc
from diffc import nn
rng = np.random.default_rng(0)
def loss(x, w):
    y = nn.conv(x, w, stride=(1, 2), padding="same", dilation=(2, 1), layout={layout!r})
    return np.sum(nn.max_pool(y, 3, stride=2, padding=1, layout={layout!r}) ** 2)
shapes = ((2, 9, 11, 3), (3, 3, 3, 5)) if {layout!r} == "NHWC" else ((2, 3, 9, 11), (5, 3, 3, 3))
args = [rng.standard_normal(shape).astype("f4") for shape in shapes]
value, (by_x, by_w) = diffc.jit(diffc.value_and_grad(loss, (0, 1)))(*args)
assert np.isclose(value, loss(*args), rtol=1e-4)
assert np.isfinite(by_x).all() and np.isfinite(by_w).all()
"""
    environment = {**os.environ, "DIFFC_GUARD": "1"}
    subprocess.run([sys.executable, "-c", program], check=True, env=environment, cwd=ROOT)


def test_pool_of_integers_pads_with_the_least():
    x = np.array([-3, -5], "i4").reshape(1, 2, 1)
    found = nn.max_pool(x, 2, stride=1, padding=1, layout="NWC")
    np.testing.assert_array_equal(found.ravel(), [-3, -3, -5])


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda: nn.conv(drawn(1, 4, 4, 2), drawn(3, 3, 3, 1)), ShapeError, "channels"),
        (lambda: nn.conv(drawn(1, 2, 2, 1), drawn(3, 3, 1, 1)), ShapeError, "does not fit"),
        (lambda: nn.conv(drawn(1, 4, 4, 1), drawn(3, 1, 1)), ShapeError, "axes"),
        (lambda: nn.conv(drawn(1, 4, 4, 1), drawn(3, 3, 1, 1), stride=0), ShapeError, "stride"),
        (lambda: nn.conv(drawn(1, 4, 4, 1), drawn(3, 3, 1, 1), layout="HWNC"), UsageError, "N"),
        (lambda: nn.conv(drawn(1, 4, 4, 1), drawn(3, 3, 1, 1), padding="full"), UsageError, "full"),
        (lambda: nn.conv(drawn(1, 4, 4, 3), drawn(3, 3, 1, 4), groups=3), ShapeError, "groups"),
        (lambda: nn.max_pool(drawn(1, 4, 4, 1), (2, 2, 2)), ShapeError, "size"),
        (lambda: nn.max_pool(drawn(4, 4), 2), ShapeError, "axes"),
        (lambda: nn.avg_pool(drawn(1, 4, 4, 1), 2, padding=(1, -1)), ShapeError, "padding"),
    ],
)
def test_what_does_not_fit_is_said(call, error, text):
    with pytest.raises(error, match=text):
        call()
