"""What an optimizer is: `Optimizer`, learning rates, and the check of params.

State is a dict of pytrees; ``step`` in it counts the updates done, as an ``i64`` scalar, so that it
stays exact and is the same for params of any dtype. Only optimizers that read it keep it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from diffc import tree
from diffc.errors import DtypeError, UsageError
from diffc.trace import is_float

Params = Any
Grads = Any
State = dict[str, Any]
Schedule = Callable[[Any], Any]
LearningRate = float | Schedule


class Optimizer(NamedTuple):
    """An optimizer: two pure functions.

    Attributes:
        init: ``init(params) -> state``, the state before the first update.
        update: ``update(grads, state, params) -> (params, state)``, one step.
    """

    init: Callable[[Params], State]
    update: Callable[[Grads, State, Params], tuple[Params, State]]


def zeros_like(params: Params) -> Any:
    """Zeros of the shapes and dtypes of ``params``.

    Raises:
        DtypeError: a leaf holds no floats; the message names its path.
    """
    for path, leaf in tree.flatten_with_paths(params, "params")[0]:
        dtype = leaf.dtype if hasattr(leaf, "dtype") else np.result_type(leaf)
        if not is_float(dtype):
            raise DtypeError(
                f"{path} is of dtype {dtype}; only floats are optimized",
                hint="keep integers out of params, or convert them: x.astype(np.float32)",
            )
    return tree.map(np.zeros_like, params)


def first_step() -> np.ndarray[Any, Any]:
    """The count of updates before the first one."""
    return np.zeros((), np.int64)


def checked(name: str, value: float, low: float, high: float) -> float:
    """A setting within ``low <= value < high``.

    Raises:
        UsageError: it lies outside.
    """
    if not low <= value < high:
        raise UsageError(f"{name} is {value}, needs {low} <= {name} < {high}")
    return float(value)


def rate_of(learning_rate: LearningRate) -> Schedule:
    """The learning rate as a function of the step."""
    if callable(learning_rate):
        return learning_rate
    constant = checked("learning_rate", learning_rate, 0.0, float("inf"))
    return lambda step: constant


def in_dtype(scalar: Any, like: Any) -> Any:
    """A scalar in the dtype of an array, so that a product of both stays in that dtype.

    Python numbers are weak and stay as they are; ``np.float64``, a ``float`` too, is not weak.
    """
    return scalar if type(scalar) in (float, int) else scalar.astype(like.dtype)
