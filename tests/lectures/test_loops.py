"""Lectures on deep compositions and shortest paths: loops that are one region, however deep."""

import numpy as np
import pytest

import diffc
from diffc.train import gradient_profile

DEPTH = 50


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def draws(seed, names, dtype=np.float64):
    rng = np.random.default_rng(seed)
    return {name: rng.normal(0, 0.1, DEPTH).astype(dtype) for name in names}


def layers(x, params):
    """All activations of a chain of scalar sigmoid layers."""

    def layer(z, p):
        z = sigmoid(p["w"] * z + p["b"])
        return z, z

    return diffc.scan(layer, x, params)


def last(x, params):
    return layers(x, params)[0]


@pytest.mark.parametrize(("seed", "z"), [(0, 0.4810641962), (1, 0.5188213574), (2, 0.4924440157)])
def test_s12_activations_of_fifty_sigmoid_layers(seed, z):
    assert float(diffc.jit(last)(1.0, draws(seed, "wb"))) == pytest.approx(z, abs=1e-10)


def test_s12_gradients_vanish_in_fifty_sigmoid_layers():
    found = gradient_profile({"b": diffc.grad(last, 1)(1.0, draws(0, "wb"))["b"]}, stacked=True)
    expected = {50: 2.496e-1, 45: 5.155e-9, 40: 2.588e-17, 1: 4.27e-93}
    for layer, value in expected.items():
        assert found[layer - 1].norm == pytest.approx(value, rel=1e-3)
    assert found.cut_off == ()
    decay = (found[49].norm / found[0].norm) ** (1 / 49)
    assert decay == pytest.approx(1 / 0.02, rel=0.5)


@pytest.mark.parametrize(("seed", "layer"), [(0, 25), (1, 27), (2, 24)])
def test_s12_single_precision_loses_the_gradients_of_the_first_half(seed, layer):
    found = diffc.grad(last, 1)(np.float32(1), draws(seed, "wb", np.float32))["b"]
    assert found.dtype == np.float32
    assert not found[:layer].any() and found[layer:].all()
    profile = gradient_profile([found], stacked=True)
    assert profile.cut_off == tuple(str(k + 1) for k in range(layer))
    assert [line for line in str(profile).splitlines() if line.endswith("zero")] == (
        str(profile).splitlines()[1 : layer + 1]
    )


@pytest.mark.parametrize(
    ("seed", "dtype", "layer"),
    [
        (0, np.float32, 5),
        (0, np.float64, 10),
        (1, np.float32, 6),
        (1, np.float64, 11),
        (2, np.float32, 6),
        (2, np.float64, 11),
    ],
)
def test_s12_deep_activations_forget_the_input(seed, dtype, layer):
    run = diffc.jit(lambda x, params: layers(x, params)[1])
    params = draws(seed, "wb", dtype)
    found = [run(dtype(x), params) for x in (-100, 0, 100)]
    # the last bits of exp are another system's own: up to one layer later
    np.testing.assert_array_equal(found[0][layer:], found[1][layer:])
    np.testing.assert_array_equal(found[1][layer:], found[2][layer:])
    assert len({float(z[layer - 3]) for z in found}) > 1


@pytest.mark.parametrize(("seed", "slope"), [(0, 0.98819), (1, 0.99637), (2, 0.98701)])
def test_s15_residual_blocks_keep_the_gradient(seed, slope):
    params = draws(seed, "wvbc")

    def profile(x, offsets):
        """dz50/dz for each depth: each layer adds an offset of zero."""

        def block(z, p):
            p, offset = p
            z = z + p["v"] * sigmoid(p["w"] * z + p["c"]) + p["b"]
            return z + offset, None

        return diffc.scan(block, x, (params, offsets))[0]

    by_x, by_layer = diffc.grad(profile, (0, 1))(1.0, np.zeros(DEPTH))
    assert float(by_x) == pytest.approx(slope, abs=5e-6)
    least, most = np.round(np.abs(by_layer).min(), 3), np.round(np.abs(by_layer).max(), 3)
    assert least >= 0.978 and most <= 1.002


# --- shortest paths ---------------------------------------------------------------------------


def values(costs, goal, steps):
    """``V = c + min of the four neighbours``, and 0 at the goal."""

    def step(_, v):
        wide = np.pad(v, 1, constant_values=np.inf)
        near = [wide[:-2, 1:-1], wide[2:, 1:-1], wide[1:-1, :-2], wide[1:-1, 2:]]
        v = costs + np.minimum(np.minimum(near[0], near[1]), np.minimum(near[2], near[3]))
        v[goal] = 0
        return v

    return diffc.fori_loop(0, steps, step, np.zeros(costs.shape))


@pytest.mark.parametrize(
    ("size", "steps", "is_done"),
    [(20, 10, False), (20, 20, False), (20, 50, True), (26, 50, True)],
)
def test_s19_distances_on_a_grid(size, steps, is_done):
    goal = (size - 1, size - 1)
    found = diffc.jit(lambda c: values(c, goal, steps))(np.ones((size, size)))
    rows, columns = np.indices((size, size))
    distance = 2 * (size - 1) - rows - columns
    np.testing.assert_array_equal(found, np.minimum(steps, distance))
    assert (steps >= distance.max()) == is_done


PATH = [(0, 0), (0, 1), (0, 2), (0, 3), (1, 3), (2, 3), (3, 3), (3, 4), (4, 4), (5, 4)]


@pytest.mark.parametrize("steps", [50, np.int64(50)], ids=["scan", "while"])
def test_s19_the_gradient_of_a_shortest_path_is_the_path(steps):
    costs = np.random.default_rng(0).uniform(0.5, 1.5, (6, 6))

    def loss(c, steps):
        return values(c, (5, 5), steps)[0, 0]

    if steps == 50 and not isinstance(steps, np.integer):
        value, found = diffc.value_and_grad(lambda c: loss(c, 50))(costs)
    else:
        value, found = diffc.value_and_grad(loss)(costs, int(steps))
    assert float(value) == pytest.approx(9.0807816, abs=1e-7)
    path = np.zeros((6, 6))
    path[tuple(zip(*PATH, strict=True))] = 1
    np.testing.assert_array_equal(found, path)
    assert float(np.sum(path * costs)) == pytest.approx(float(value), rel=1e-14)


# --- depth separation -------------------------------------------------------------------------


def triangle(x):
    return np.where(x < 0.5, 2 * x, 2 - 2 * x)


def folded(x, count):
    return diffc.fori_loop(0, count, lambda _, x: triangle(x), x)


@pytest.mark.parametrize("count", [1, 2, 5, 10])
def test_s18_folding_a_triangle_doubles_the_pieces(count):
    slope = diffc.grad(lambda x: folded(x, count))
    assert float(slope(2.0 ** -(count + 2))) == 2**count
    # by the traced bound: a while, and its reverse
    traced = diffc.grad(lambda x, n: folded(x, n))
    assert float(traced(2.0 ** -(count + 2), count)) == 2**count
    middles = (np.arange(2**12) + 0.5) / 2**12
    slopes = diffc.jit(diffc.vmap(slope))(middles)
    assert set(np.abs(slopes)) == {2.0**count}
    assert 1 + np.count_nonzero(np.diff(np.sign(slopes))) == 2**count
