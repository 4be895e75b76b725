"""A file with functions, and the command line run on it."""

from types import SimpleNamespace

import pytest

from diffc.cli.main import main

FUNCTIONS = """
import numpy as np

import diffc
import neighbour

def y(x1, x2):
    return 5 * x1 + np.sin(x2 + np.pi)

def loss(x, w):
    return np.sum(np.tanh(x @ w))

def dense(p, x):
    return np.mean(np.maximum(x @ p["w"] + p["b"], 0.0) ** 2)

def softmax(x):
    e = np.exp(x)
    return -np.log((e / e.sum())[0])

def branches(x):
    if x > 0:
        return x
    return -x

def buggy(x):
    return {}["key"]

def gauss(x):
    return np.sum(np.exp(-x * x) * 0.1)

def saddle(x):
    return x[0] ** 2 - x[1] ** 2

def bowl(p):
    return np.sum(p["w"] ** 2) / 2 + 50 * (p["b"] - 1) ** 2

def identity(x):
    return x

jitted = diffc.jit(gauss)
slope = diffc.grad(gauss)
batched = diffc.vmap(lambda p, x: diffc.cond(p, np.sin, np.cos, x))

class Model:
    @staticmethod
    def call(x):
        return neighbour.twice(x)

number = 3
"""


@pytest.fixture
def files(tmp_path, monkeypatch):
    """A folder with ``m.py`` and what it imports; the working folder is another one."""
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "m.py").write_text(FUNCTIONS)
    (tmp_path / "code" / "neighbour.py").write_text("def twice(x):\n    return x + x\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def cli(files, capsys):
    """``cli("dump", ...)``: exit status, what was printed, and errors."""

    def run(*argv):
        capsys.readouterr()
        status = main(list(argv))
        printed = capsys.readouterr()
        return SimpleNamespace(status=status, out=printed.out, err=printed.err)

    return run
