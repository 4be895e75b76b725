"""Inputs survive the file and have their dtypes; definitions run on another namespace."""

import numpy as np
import pytest

from benchmarks import inputs, workloads
from benchmarks.workloads import WORKLOADS


@pytest.mark.parametrize("name", ["digits", "w8_scalar", "transformer"])
def test_inputs_survive_the_file(name, tmp_path):
    params, batches = inputs.draw(name, seed=3)
    inputs.save(tmp_path / "inputs.npz", params, batches)
    loaded_params, loaded_batches = inputs.load(tmp_path / "inputs.npz")
    assert len(loaded_batches) == len(batches)
    for one, other in zip([params, *batches], [loaded_params, *loaded_batches], strict=True):
        assert list(one) == list(other)
        for k, a in one.items():
            assert type(other[k]) is type(a)
            np.testing.assert_array_equal(other[k], a)
            assert np.asarray(other[k]).dtype == np.asarray(a).dtype


def test_digits_is_an_epoch_of_28_steps_without_repetition():
    _, batches = inputs.draw("digits")
    assert len(batches) == 28
    assert {b["x"].shape for b in batches} == {(64, 64)}
    assert {(b["x"].dtype.name, b["y"].dtype.name) for b in batches} == {("float32", "int32")}


@pytest.mark.parametrize("name", list(WORKLOADS))
def test_params_have_the_dtype_of_the_workload(name):
    params, _ = inputs.draw(name)
    dtypes = {np.asarray(a).dtype.name for a in params.values()}
    assert dtypes == {WORKLOADS[name].dtype}


def test_definitions_run_on_another_namespace():
    class Counting:
        calls = 0

        def __getattr__(self, name):
            Counting.calls += 1
            return getattr(np, name)

    module = workloads.definitions(Counting(), relu=lambda x: 0.0 * x)
    params, batches = inputs.draw("digits")
    objective = workloads.objective_of(module, WORKLOADS["digits"])
    value = objective(params, batches[0])
    assert Counting.calls > 0
    assert value == pytest.approx(np.log(10.0), rel=1e-2)  # all logits near zero: relu was replaced
    assert workloads.np is np
