"""Drawn programs: Python, the converted graph, compiled code and concrete traces agree."""

from __future__ import annotations

import random
import warnings

import numpy as np
import pytest

import diffc
from diffc.convert import converted
from diffc.ops.interpret import evaluate
from diffc.trace import trace
from tests.convert.drawn import Drawn, function_of

STEP = 1e-6


def drawn(seed, size=4):
    """A program and arguments."""
    rng = random.Random(seed)
    text = Drawn(rng.randint).program(size)
    x = np.array([rng.uniform(-3, 3) for _ in range(3)])
    return text, (x, rng.uniform(-2, 2), rng.randint(0, 3))


def called(function, args):
    """Python's own result; arrays are copied."""
    x, a, n = args
    with np.errstate(all="ignore"):
        return [np.asarray(part) for part in function(x.copy(), a, n)]


@pytest.mark.parametrize("seed", range(60))
def test_the_graph_is_the_program(seed):
    text, args = drawn(seed)
    function = function_of(text)
    expected = called(function, args)
    traced = trace(converted(function), args)
    leaves = [np.asarray(leaf) for leaf in args]
    found = evaluate(traced.graph, leaves + [c.current() for c in traced.captured])
    for a, b in zip(found, expected, strict=False):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12, err_msg=text)


def total(function):
    """The program as a function of one scalar result."""

    def scalar(x, a, n):
        y, b = function(x * 1.0, a, n)
        return np.sum(y * np.array([1.0, -0.5, 2.0])) + b

    return scalar


def slope(function, args):
    """Differences along a fixed direction, agreeing on both sides; nan at a jump of the program."""
    x, a, n = args
    along = np.array([0.3, -0.7, 0.5])

    def at(t):
        y, b = called(function, (x + t * along, a + 0.4 * t, n))
        return np.sum(y * np.array([1.0, -0.5, 2.0])) + b

    left, right = (at(0) - at(-STEP)) / STEP, (at(STEP) - at(0)) / STEP
    wide = (at(2 * STEP) - at(-2 * STEP)) / (4 * STEP)
    if max(abs(left - right), abs(wide - left)) > 1e-3 * (1 + abs(left)):
        return float("nan")
    return left


@pytest.mark.parametrize("seed", range(100, 112))
def test_compiled_values_and_gradients(seed):
    text, args = drawn(seed, size=3)
    function = function_of(text)
    jitted = diffc.jit(function, control_flow=True)
    for a, b in zip(jitted(args[0].copy(), *args[1:]), called(function, args), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9, err_msg=text)
    expected = slope(function, args)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # programs may not depend on an argument
        plain = diffc.grad(total(function), argnums=(0, 1))(*args)
        staged = diffc.grad(total(jitted), argnums=(0, 1))(*args)
    along = (np.array([0.3, -0.7, 0.5]), 0.4)
    for gradient in (plain, staged):
        found = sum(np.sum(g * d) for g, d in zip(gradient, along, strict=True))
        if np.isfinite(expected):
            np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3, err_msg=text)
    for a, b in zip(plain, staged, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9, err_msg=text)
