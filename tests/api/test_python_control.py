"""Python's own control flow under transforms, outside ``jit``."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest

import diffc
from diffc.concrete import COMPILED_FROM, MOST_PATHS
from diffc.trace import ValueNeeded


@pytest.fixture(autouse=True)
def strict():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def pieces(x):
    return x**2 if x > 0 else -x


def collatz_like(x):
    steps = 0
    while x < 100.0:
        x = x * x + 1.0
        steps += 1
        if steps == 5:
            break
    return x * steps


def test_a_branch():
    slope = diffc.grad(pieces)
    for x, expected in [(3.0, 6.0), (-2.0, -1.0), (1.5, 3.0), (0.0, -1.0), (-0.0, -1.0)] * 2:
        assert slope(x) == expected
    assert slope(float("nan")) == -1.0


def test_repeated_paths_are_compiled():
    slope = diffc.grad(pieces)
    for _ in range(COMPILED_FROM + 1):
        slope(3.0)
    slope(-1.0)
    (paths,) = slope.jitted._paths.values()
    found = sorted(path.compiled is not None for path in paths._found.values())
    assert found == [False, True]


def test_interpreted_and_compiled_agree():
    both = diffc.value_and_grad(collatz_like)
    first = both(1.1)
    for _ in range(COMPILED_FROM + 1):
        again = both(1.1)
        assert type(again[0]) is type(first[0]) is np.ndarray
        np.testing.assert_allclose(again, first, rtol=1e-15)


def test_the_number_of_paths_kept_is_bounded():
    def f(x, n):
        total = x
        for _ in range(n):
            total = total * 1.01
        return total if total > 0 else -total

    slope = diffc.grad(f)
    for n in range(MOST_PATHS + 3):
        slope(1.0, n)
    (paths,) = slope.jitted._paths.values()
    assert len(paths) == MOST_PATHS


def test_signatures_decide_for_themselves():
    def f(x):
        if x.ndim == 0:
            return x * 2
        return x.sum() if x[0] > 0 else -x.sum()

    slope = diffc.grad(f)
    assert slope(1.0) == 2.0
    np.testing.assert_array_equal(slope(np.ones(2)), [1.0, 1.0])
    np.testing.assert_array_equal(slope(-np.ones(2)), [-1.0, -1.0])
    assert slope(1.0) == 2.0
    assert len(slope.jitted._paths) == 1


def test_second_derivatives_and_nesting():
    second = diffc.grad(diffc.grad(collatz_like))
    h = 1e-5
    first = diffc.grad(collatz_like)
    np.testing.assert_allclose(second(1.3), (first(1.3 + h) - first(1.3 - h)) / (2 * h), rtol=1e-6)

    def outer(x):
        slope = diffc.grad(pieces)(x)
        return slope * x if slope > 1 else slope

    assert diffc.grad(outer)(3.0) == 12.0
    assert diffc.grad(outer)(0.25) == 2.0


def test_jvp_vjp_linearize():
    def f(x):
        i = 0
        while x.sum() < 10:
            x = x * 1.5
            i += 1
        return x * x if x[0] > 2 else x, i

    x, one = np.array([1.0, 2.0]), np.ones(2)
    for _ in range(COMPILED_FROM + 1):
        (out, i), (dot, _) = diffc.jvp(f, (x,), (one,))
        np.testing.assert_allclose(dot, 2 * out / x)
        assert i == 3
        (out, _), pull = diffc.vjp(f, x)
        np.testing.assert_allclose(pull((one, 0))[0], 2 * out / x)
        (out, _), push = diffc.linearize(f, x)
        np.testing.assert_allclose(push(one)[0], 2 * out / x)
    small = np.array([3.0, 30.0])
    np.testing.assert_allclose(diffc.vjp(f, small)[1]((one, 0))[0], 2 * small)
    small = np.array([1.0, 30.0])
    np.testing.assert_allclose(diffc.vjp(f, small)[1]((one, 0))[0], one)


def test_captured_arrays_are_those_of_today():
    table = np.array([2.0, 3.0])

    def f(x):
        return x * table[0] if x > 0 else x * table[1]

    slope = diffc.grad(f)
    for k in range(5):
        table = np.array([2.0 + k, 3.0])
        assert slope(1.0) == 2.0 + k
        table[0] = 9.0
        assert slope(1.0) == 9.0
        assert slope(-1.0) == 3.0


def test_containers_aux_and_argnums():
    def f(params, flag):
        value = params["a"] * 2 if flag > 0 else params["b"] * 3
        return value, {"chosen": flag}

    slope = diffc.grad(f, has_aux=True)
    gradient, aux = slope({"a": 1.0, "b": 1.0}, 1)
    assert (gradient["a"], gradient["b"], aux["chosen"]) == (2.0, 0.0, 1)
    gradient, aux = slope({"a": 1.0, "b": 1.0}, -1)
    assert (gradient["a"], gradient["b"], aux["chosen"]) == (0.0, 3.0, -1)


def test_indexing_lists_and_ranges():
    functions = [np.sin, np.cos, np.exp]

    def f(x, i, n):
        for _ in range(n):
            x = functions[i](x)
        return x

    slope = diffc.grad(f)
    np.testing.assert_allclose(slope(0.5, 0, 1), math.cos(0.5))
    np.testing.assert_allclose(slope(0.5, 2, 2), math.exp(0.5) * math.exp(math.exp(0.5)))
    assert slope(0.5, 1, 0) == 1.0


def test_under_jit_the_error_stays():
    for function in (diffc.jit(pieces), diffc.jit(diffc.grad(pieces))):
        with pytest.raises(ValueNeeded) as info:
            function(1.0)
        assert "control_flow=True" in info.value.hint and "np.where" in info.value.hint
        assert f"{__file__}:24" in str(info.value)


def test_a_jitted_function_within_stays_abstract():
    inner = diffc.jit(pieces)
    with pytest.raises(ValueNeeded):
        diffc.grad(lambda x: inner(x) if x > 0 else x)(1.0)
    assert diffc.grad(lambda x: inner(x) if x > 0 else x)(-1.0) == 1.0


def test_vmap_has_no_values_of_elements():
    with pytest.raises(ValueNeeded):
        diffc.vmap(pieces)(np.ones(3))


def test_errors_of_the_function_come_through():
    def f(x):
        if x > 1:
            raise KeyError("mine")
        return x

    slope = diffc.grad(f)
    assert slope(0.5) == 1.0
    with pytest.raises(KeyError, match="mine"):
        slope(2.0)
    assert slope(0.5) == 1.0


def test_a_float_taken_out_is_warned_of():
    def f(x):
        return math.exp(x) * x  # taken out

    with pytest.warns(diffc.DetachedValueWarning, match="depends on x") as found:
        assert diffc.grad(f)(1.0) == math.e
    assert found[0].filename == __file__

    def quiet(x):
        shown = f"{x:.3f}" + str(float(diffc.stop_gradient(x))) + str(int(x))
        return x * 2 if shown and x > 0 else x

    assert diffc.grad(quiet)(1.0) == 2.0

    def by_other(x, y):
        return x * float(y)

    assert diffc.grad(by_other)(1.0, 3.0) == 3.0


def test_a_float_taken_out_of_an_inner_function_is_warned_of():
    def f(x):
        return diffc.grad(lambda y: y * float(x))(1.0) + x

    with pytest.warns(diffc.DetachedValueWarning, match="depends on x"):
        assert diffc.grad(f)(2.0) == 1.0


# --- models with thresholds -------------------------------------------------------------------

W, X = np.array([1.0, -2.0]), np.array([0.5, 0.1])


def test_a_perceptron_has_a_structurally_zero_gradient():
    def perceptron(w, x):
        return np.where(w @ x > 0, 1.0, 0.0)  # threshold

    def line_of(text):
        with open(__file__) as file:
            return next(i for i, line in enumerate(file, 1) if text in line)

    with pytest.warns(diffc.StructuralZeroWarning) as found:
        gradient = diffc.grad(perceptron)(W, X)
    np.testing.assert_array_equal(gradient, [0.0, 0.0])
    text = str(found[0].message)
    assert text.startswith("gradient is structurally zero with respect to w: it reaches the result")
    assert f"gt at {__file__}:{line_of('# threshold')}," in text
    assert found[0].filename == __file__


def test_rounding_is_structurally_zero_and_smooth_parts_are_not():
    with pytest.warns(diffc.StructuralZeroWarning, match="floor at .*, round at "):
        diffc.grad(lambda x: np.sum(np.floor(x)) + np.sum(np.round(x)))(X)
    diffc.grad(lambda x: np.sum(np.floor(x) * x))(X)
    diffc.grad(lambda x: np.sum(np.where(x > 0, x, 0.0)))(X)


def test_what_is_meant_is_not_warned_of():
    diffc.grad(lambda x, y: np.sum(diffc.stop_gradient(y) * x), argnums=(0, 1))(X, W)
    diffc.grad(lambda x, unused: np.sum(x), argnums=(0, 1))(X, W)
    diffc.grad(lambda x: diffc.grad(lambda y: np.sum(y))(x)[0] + np.sum(x))(X)


def test_thresholds_within_regions_are_named():
    inner = diffc.jit(lambda w, x: np.sign(w @ x))

    def f(w, x):
        return inner(w, x) * 2

    with pytest.warns(diffc.StructuralZeroWarning, match=r"only through sign at .*\.py"):
        diffc.grad(f)(W, X)

    def steps(w, x):
        return diffc.scan(lambda c, row: (c + np.floor(row * w).sum(), None), 0.0, x)[0]

    with pytest.warns(diffc.StructuralZeroWarning, match=r"only through floor at .*\.py"):
        diffc.grad(steps)(W, np.ones((3, 2)))
