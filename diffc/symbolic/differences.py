"""Finite differences in double precision, by the reference interpreter.

Central differences of the widened graph, along each coordinate where there are few, else along
drawn directions. Of two step sizes the better one counts: a kink or rounding spoils at most one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from diffc.ir.graph import Graph
from diffc.ops.interpret import evaluate
from diffc.symbolic.widen import widen

Array = np.ndarray[Any, Any]

#: up to so many inputs, every coordinate is a direction
EVERY_COORDINATE_UP_TO = 24
DIRECTIONS = 8
STEPS = (6e-6, 3e-4)


def difference_error(
    graph: Graph, inputs: Sequence[Array], gradients: dict[int, Array], rng: np.random.Generator
) -> tuple[float, str]:
    """The error of gradients against differences of a graph's first output.

    Args:
        graph: its first output is a float scalar.
        inputs: arrays for all inputs.
        gradients: by the positions of inputs.
        rng: draws directions.

    Returns:
        The greatest relative error over the directions (relative to the gradient's largest
        directional derivative, absolute where that is 0), and how directions were chosen.
    """
    wide = widen(graph)
    base = [array.astype(v.aval.numpy) for array, v in zip(inputs, wide.inputs, strict=True)]
    directions, how = _directions(gradients, rng)
    slopes = np.array([_dot(gradients, direction) for direction in directions])
    errors = []
    for step in STEPS:
        found = np.array([_difference(wide, base, direction, step) for direction in directions])
        errors.append(np.abs(found - slopes))
    best = float(np.max(np.minimum(*errors), initial=0))  # nan stays nan
    scale = float(np.max(np.abs(slopes), initial=0))
    return (best / scale if scale else best), how


def _directions(
    gradients: dict[int, Array], rng: np.random.Generator
) -> tuple[list[dict[int, Array]], str]:
    count = sum(array.size for array in gradients.values())
    found = []
    if count <= EVERY_COORDINATE_UP_TO:
        for position, array in gradients.items():
            for index in np.ndindex(array.shape):
                unit = np.zeros(array.shape)
                unit[index] = 1
                found.append({position: unit})
        return found, "every coordinate"
    for _ in range(DIRECTIONS):
        drawn = {position: rng.normal(size=array.shape) for position, array in gradients.items()}
        length = np.sqrt(sum(float(np.sum(array * array)) for array in drawn.values()))
        found.append({position: array / length for position, array in drawn.items()})
    return found, f"{DIRECTIONS} directions"


def _dot(gradients: dict[int, Array], direction: dict[int, Array]) -> float:
    return sum(
        float(np.sum(gradients[position].astype(np.float64) * array))
        for position, array in direction.items()
    )


def _difference(
    graph: Graph, base: Sequence[Array], direction: dict[int, Array], step: float
) -> float:
    values = []
    for sign in (1, -1):
        moved = [
            array + sign * step * direction[k] if k in direction else array
            for k, array in enumerate(base)
        ]
        values.append(float(evaluate(graph, moved)[0]))
    return (values[0] - values[1]) / (2 * step)
