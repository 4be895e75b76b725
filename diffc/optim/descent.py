"""Gradient descent, plain and with momentum."""

from __future__ import annotations

from typing import Any, Literal

from diffc import tree
from diffc.errors import UsageError
from diffc.optim.optimizer import (
    Grads,
    LearningRate,
    Optimizer,
    Params,
    State,
    checked,
    first_step,
    in_dtype,
    rate_of,
    zeros_like,
)

Convention = Literal["sum", "average", "velocity"]
_CONVENTIONS = ("sum", "average", "velocity")


def sgd(learning_rate: LearningRate) -> Optimizer:
    """Gradient descent: ``p = p - lr g``.

    Args:
        learning_rate: a number, or a function of the step.

    Example:
        >>> import numpy as np
        >>> optimizer = sgd(0.5)
        >>> p = np.array([4.0])
        >>> optimizer.update(p, optimizer.init(p), p)[0]
        array([2.])
    """
    rate = rate_of(learning_rate)

    def init(params: Params) -> State:
        zeros_like(params)
        return {"step": first_step()} if callable(learning_rate) else {}

    def update(grads: Grads, state: State, params: Params) -> tuple[Params, State]:
        lr = rate(state.get("step", 0))
        new = tree.map(lambda p, g: p - in_dtype(lr, g) * g, params, grads)
        return new, _advanced(state)

    return Optimizer(init, update)


def momentum(
    learning_rate: LearningRate,
    mu: float = 0.9,
    *,
    convention: Convention = "sum",
    nesterov: bool = False,
) -> Optimizer:
    """Gradient descent with momentum, in the convention that a paper or a library means.

    ============  ===========================  ============
    convention    velocity                     params
    ============  ===========================  ============
    ``sum``       ``v = mu v + g``             ``p - lr v``
    ``average``   ``v = mu v + (1 - mu) g``    ``p - lr v``
    ``velocity``  ``v = mu v - lr g``          ``p + v``
    ============  ===========================  ============

    ``sum`` is Polyak's heavy ball as most libraries have it; ``velocity`` gives the same params
    while the learning rate is constant; ``average`` is slower by ``1 - mu``. With ``nesterov`` the
    params move by the velocity one step ahead: in ``sum``, ``p - lr (g + mu v)``.

    Args:
        learning_rate: a number, or a function of the step.
        mu: how much of the velocity remains; ``0 <= mu < 1``.
        convention: see the table.
        nesterov: Nesterov's step (Sutskever et al. 2013, in the shifted variable, so that the
            params are where gradients are taken).

    Raises:
        UsageError: ``mu`` or ``convention`` is none of these.
    """
    rate = rate_of(learning_rate)
    checked("mu", mu, 0.0, 1.0)
    if convention not in _CONVENTIONS:
        raise UsageError(
            f"no convention of momentum is named {convention!r}",
            hint=f"conventions: {', '.join(_CONVENTIONS)}",
        )

    def init(params: Params) -> State:
        state: State = {"velocity": zeros_like(params)}
        return state | {"step": first_step()} if callable(learning_rate) else state

    def update(grads: Grads, state: State, params: Params) -> tuple[Params, State]:
        lr = rate(state.get("step", 0))

        def pull(g: Any) -> Any:
            if convention == "velocity":
                return -in_dtype(lr, g) * g
            return (1.0 - mu) * g if convention == "average" else g

        def moved(p: Any, v: Any, g: Any) -> Any:
            ahead = mu * v + pull(g) if nesterov else v
            return p + ahead if convention == "velocity" else p - in_dtype(lr, g) * ahead

        velocity = tree.map(lambda v, g: mu * v + pull(g), state["velocity"], grads)
        new = tree.map(moved, params, velocity, grads)
        return new, _advanced(state) | {"velocity": velocity}

    return Optimizer(init, update)


def _advanced(state: State) -> State:
    return state | {"step": state["step"] + 1} if "step" in state else state
