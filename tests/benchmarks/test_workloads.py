"""Inputs survive the file and have their dtypes; definitions run on another namespace."""

import numpy as np
import pytest

from benchmarks import inputs, objectives, peers, workloads
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
    params, batches = inputs.draw(name)
    dtypes = {np.asarray(a).dtype.name for a in params.values()}
    assert dtypes == {WORKLOADS[name].dtype}
    drawn = {a.dtype.name for b in batches for a in b.values()}
    assert drawn <= {"int32", WORKLOADS[name].dtype}


@pytest.mark.parametrize("name", list(WORKLOADS))
def test_every_workload_has_code_at_its_size(name):
    """Large arrays are tiled in ways of their own, which small ones never meet."""
    params, batches = inputs.draw(name)
    peer = peers.load("diffc")(name, WORKLOADS[name], params, batches)
    if peer.optimizer is None:
        stages = peer.gradient.stages(params, batches[0])
    else:
        stages = peer.step.stages(peer.params, peer.state, batches[0])
    assert stages.stage("emit").text


@pytest.mark.parametrize("name", [k for k, w in WORKLOADS.items() if w.kind == "pullback"])
def test_a_pullback_has_a_cotangent_of_its_result(name):
    params, (batch,) = inputs.draw(name)
    if name == "attention_2048":
        params, batch = ({k: a[..., :9, :] for k, a in d.items()} for d in (params, batch))
    result = WORKLOADS[name].objective(params, batch)
    assert (result.shape, result.dtype) == (batch["ct"].shape, batch["ct"].dtype)


def test_a_loop_is_what_the_libraries_call_scan():
    def step(carry, each):
        x, y = each
        return carry + x, (carry * y).sum()

    xs = np.arange(6.0).reshape(3, 2), np.ones((3, 2))
    carry, ys = objectives.scan(step, np.zeros(2), xs)
    np.testing.assert_array_equal(carry, [6.0, 9.0])
    np.testing.assert_array_equal(ys, [0.0, 1.0, 6.0])
    assert objectives.scan(lambda c, _: (c + 1, None), 0, None, length=4) == (4, None)


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
    assert objectives.np is np
