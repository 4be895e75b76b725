"""Measures of a model's answers."""

from __future__ import annotations

from typing import Any

import numpy as np


def accuracy(scores: np.ndarray[Any, Any], labels: np.ndarray[Any, Any]) -> float:
    """The share of rows whose highest score is that of their label; the first wins a tie.

    Args:
        scores: one row of scores per example, ``[rows, classes]``.
        labels: the true classes, ``[rows]``.

    Example:
        >>> accuracy(np.array([[0.1, 0.9], [0.8, 0.2]]), np.array([1, 1]))
        0.5
    """
    return float(np.mean(np.argmax(scores, axis=1) == labels))
