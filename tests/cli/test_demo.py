"""The demo: what it prints, what it leaves, in a pipe, in a terminal, and without its extra."""

import os
import pty
import re
import subprocess
import sys

import numpy as np
import pytest

from diffc.cli import demo, demo_model
from diffc.cli.main import main
from diffc.pipeline import STAGES
from diffc.train import accuracy
from tests.project.imports import ROOT

pytest.importorskip("sklearn")
pytest.importorskip("matplotlib")
pytest.importorskip("rich")


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """The whole demo, once, in a pipe: its output and its folder."""
    folder = tmp_path_factory.mktemp("demo") / "out"
    done = subprocess.run(
        [sys.executable, "-m", "diffc.cli", "demo", "--out", str(folder)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=os.environ | {"PYTHONIOENCODING": "utf-8"},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout, folder


def test_it_learns(ran):
    output, folder = ran
    found = float(re.search(r"held-out accuracy +([\d.]+)%", output)[1])
    assert found >= 97.0
    weights = np.load(folder / "weights.npz")
    data = demo_model.load(np.random.default_rng(demo.SEED))
    scores = demo_model.scores(weights, data.held_images)  # plain NumPy
    assert 100 * accuracy(scores, data.held_labels) == pytest.approx(found, abs=0.3)


def test_a_pipe_gets_lines(ran):
    output, _ = ran
    assert "\x1b" not in output
    assert "\r" not in output
    assert len(re.findall(r"^epoch +\d+/40  loss [\d.]+  accuracy [\d.]+%$", output, re.M)) == 40


def test_it_says_where_things_lie(ran):
    output, folder = ran
    for name in ("curve.png", "weights.npz", "log.csv", "stages"):
        assert str(folder / name) in output
        assert (folder / name).exists()
    assert re.search(r"time per step +[\d.]+ µs", output)
    assert re.search(r"planned peak memory +[\d.]+ KiB", output)


def test_files(ran):
    _, folder = ran
    assert (folder / "curve.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    lines = (folder / "log.csv").read_text().splitlines()
    assert lines[0] == "epoch,loss,accuracy"
    assert len(lines) == 41
    shapes = {name: array.shape for name, array in np.load(folder / "weights.npz").items()}
    assert shapes["w0"] == (64, 256) and shapes["b2"] == (10,)


def test_every_stage_is_written(ran):
    _, folder = ran
    names = [f"{i:02d}-{name}.txt" for i, name in enumerate(STAGES, start=1)]
    assert sorted(path.name for path in (folder / "stages").iterdir()) == names
    texts = {path.name: path.read_text() for path in (folder / "stages").iterdir()}
    assert all(len(text) > 100 for text in texts.values())
    assert "demo_model.py:" in texts["01-trace.txt"]  # the lines of the model
    assert texts["01-trace.txt"].startswith("func @step(")
    assert "define" in texts["09-emit.txt"]


def test_it_is_one_native_call_in_place():
    """Params and state are donated: their memory holds the results."""
    rng = np.random.default_rng(0)
    params = demo_model.initial_params(rng)
    step, optimizer = demo_model.make_step()
    state = optimizer.init(params)
    x, y = rng.random((64, 64), np.float32), rng.integers(0, 10, 64).astype(np.int32)
    before = params["w1"].copy()
    _, new, _ = step(params, state, x, y)
    assert new["w1"].ctypes.data == params["w1"].ctypes.data
    assert not np.array_equal(new["w1"], before)


def test_the_step_is_what_numpy_says():
    """One step against gradients by hand (in f64) and Adam's first step, lr·sign(g)."""
    rng = np.random.default_rng(0)
    params = demo_model.initial_params(rng)
    x, y = rng.random((64, 64), np.float32), rng.integers(0, 10, 64).astype(np.int32)
    w = {k: a.astype(np.float64) for k, a in params.items()}
    h0 = np.maximum(x @ w["w0"] + w["b0"], 0)
    h1 = np.maximum(h0 @ w["w1"] + w["b1"], 0)
    z = h1 @ w["w2"] + w["b2"]
    p = np.exp(z - z.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    value = -np.mean(np.log(p[np.arange(64), y]))
    p[np.arange(64), y] -= 1
    gradient = h1.T @ (p / 64)
    step, optimizer = demo_model.make_step()
    loss, new, state = step({k: a.copy() for k, a in params.items()}, optimizer.init(params), x, y)
    assert float(loss) == pytest.approx(value, rel=1e-5)
    assert np.allclose(state["m"]["w2"], 0.1 * gradient, rtol=1e-4, atol=1e-8)
    moved = new["w2"] - params["w2"]
    clear = np.abs(gradient) > 1e-4
    assert np.allclose(moved[clear], -1e-3 * np.sign(gradient[clear]), rtol=1e-3)


def test_a_terminal_gets_a_bar(tmp_path):
    """In a pseudo-terminal there is one bar that moves, with loss and accuracy."""
    command = [sys.executable, "-m", "diffc.cli", "demo", "--epochs", "2", "--out", str(tmp_path)]
    env = os.environ | {"TERM": "xterm-256color", "COLUMNS": "120", "PYTHONIOENCODING": "utf-8"}
    leader, follower = pty.openpty()
    with subprocess.Popen(command, stdout=follower, stderr=follower, cwd=ROOT, env=env) as child:
        os.close(follower)
        chunks = []
        while True:
            try:
                chunk = os.read(leader, 1 << 16)
            except OSError:  # the other end is closed
                break
            if not chunk:
                break
            chunks.append(chunk)
    os.close(leader)
    shown = b"".join(chunks).decode()
    assert child.returncode == 0, shown
    assert "\x1b[" in shown
    assert re.search(r"epoch 2/2 .*44/44.* loss [\d.]+ accuracy [\d.]+%", _plain(shown))


def _plain(text):
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", text)


def test_without_the_extra(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(demo, "_is_installed", lambda module: module == "rich")
    assert main(["demo", "--out", str(tmp_path / "never")]) == 2
    output, errors = capsys.readouterr()
    assert output == ""
    assert errors.count("\n") == 1
    assert "needs scikit-learn, matplotlib: pip install diffc[demo]" in errors
    assert not (tmp_path / "never").exists()


def test_a_folder_that_cannot_be(capsys, tmp_path):
    (tmp_path / "file").write_text("")
    assert main(["demo", "--out", str(tmp_path / "file")]) == 2
    errors = capsys.readouterr().err
    assert errors.count("\n") == 1
    assert "can't be made" in errors


@pytest.mark.parametrize("wrong", [["--epochs", "0"], ["--seed", "-1"], ["--epochs", "x"]])
def test_wrong_numbers(wrong, capsys):
    assert main(["demo", *wrong]) == 2
    assert capsys.readouterr().err.count("\n") == 1
