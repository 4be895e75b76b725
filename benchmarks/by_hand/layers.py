"""Layers alone: results and gradients by their inputs."""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.by_hand import blocks


def cross_entropy_alone(p: dict, b: dict) -> tuple[Any, dict]:
    value, by_z = blocks.cross_entropy(p["z"], b["y"])
    return value, {"z": by_z}


def layer_norm_alone(p: dict, b: dict) -> tuple[np.ndarray, dict]:
    y, residuals = blocks.layer_norm(p["x"], p["gain"], p["shift"])
    by_x, by_gain, by_shift = blocks.layer_norm_backward(b["ct"], residuals)
    return y, {"x": by_x, "gain": by_gain, "shift": by_shift}


def attention_alone(p: dict, b: dict) -> tuple[np.ndarray, dict]:
    y, residuals = blocks.attention(p["q"], p["k"], p["v"])
    return y, dict(zip("qkv", blocks.attention_backward(b["ct"], residuals), strict=True))
