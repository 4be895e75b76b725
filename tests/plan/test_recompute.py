"""What is kept for the backward pass, what is computed again, and who takes over donated memory."""

import numpy as np

import diffc
from diffc.plan.donate import match_donations
from diffc.plan.program import Kernel

GELU = np.sqrt(2 / np.pi)


def layer(w, x):
    z = x @ w
    h = 0.5 * z * (1 + np.tanh(GELU * (z + 0.044715 * (z * z * z))))
    return np.sum(h @ w.T)


def kernels(function, *args):
    program = diffc.jit(function).stages(*args, until="plan").stage("plan").value
    return [node for node in program.nodes if isinstance(node, Kernel)]


def test_a_gelu_keeps_little_of_its_layer():
    w, x = np.ones((32, 32), np.float32), np.ones((64, 32), np.float32)
    found = kernels(diffc.grad(layer), w, x)
    contractions = [k for k in found if any(e.op.name == "contract" for e in k.graph.eqns)]
    kept = [b for b in contractions[0].writes if b.aval.shape == (64, 32)]
    assert 1 <= len(kept) <= 3


def test_what_is_dear_is_kept():
    def f(x):
        y = np.tanh(x @ x)
        return np.sum((y @ x) * y)

    x = np.ones((48, 48))
    for kernel in kernels(diffc.grad(f), x):
        tanhs = [eqn for eqn in kernel.graph.eqns if eqn.op.name == "tanh"]
        folds = [eqn for eqn in kernel.graph.eqns if eqn.op.name == "contract"]
        assert not tanhs or folds, "tanh is computed where its contraction ends, nowhere else"


def test_an_empty_axis_has_no_price():
    def f(x, y):
        z = np.any(x > 0, axis=1)
        return np.concatenate([z, y > 0]), z

    first, second = diffc.jit(f)(np.ones((0, 3)), np.ones(2))
    np.testing.assert_array_equal(first, [True, True])
    assert second.shape == (0,)


def test_the_updated_value_takes_over_its_own_memory():
    def step(t, x):
        return np.sum(x), t + 1

    args = np.zeros((), np.float64), np.ones(3)
    graph = diffc.jit(step).stages(*args, until="optimize").graph
    assert match_donations(graph, {0}, 2) == {1: 0}
    assert match_donations(graph, set(), 2) == {}


def test_what_may_fail_runs_before_arguments_are_written():
    def step(w, i):
        new = w * 2
        return new, np.sum(w[i])

    jitted = diffc.jit(step, donate_argnums=0)
    w, i = np.arange(4.0), np.array([1, 9])
    try:
        jitted(w, i)
    except diffc.ExecutionError:
        np.testing.assert_array_equal(w, np.arange(4.0))
    else:
        raise AssertionError("an index out of bounds was not reported")
