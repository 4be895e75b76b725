import numpy as np
import pytest

from diffc import train
from diffc.errors import UsageError


def test_columns_and_file(tmp_path):
    log = train.Log("epoch", "loss")
    log.add(loss=0.5, epoch=1)
    log.add(epoch=2, loss=float("nan"))
    assert len(log) == 2
    assert log["epoch"].tolist() == [1, 2]
    log.save(tmp_path / "log.csv")
    assert (tmp_path / "log.csv").read_text() == "epoch,loss\n1,0.5\n2,nan\n"


def test_wrong_rows():
    log = train.Log("epoch", "loss")
    with pytest.raises(UsageError, match="a row has epoch, loss; found epoch"):
        log.add(epoch=1)
    with pytest.raises(UsageError, match="no column is named 'speed'"):
        log["speed"]
    assert len(log) == 0
    assert log["loss"].shape == (0,)


def test_accuracy():
    scores = np.array([[1.0, 1.0, 0.0], [0.0, 0.0, 2.0], [3.0, 4.0, 3.0]])
    assert train.accuracy(scores, np.array([0, 2, 0])) == pytest.approx(2 / 3)  # first wins a tie
