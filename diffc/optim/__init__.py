"""Optimizers as pairs of pure functions on pytrees.

Each factory (`sgd`, `momentum`, `adam`, `adamw`) gives an `Optimizer` with

    init(params)                  -> state
    update(grads, state, params)  -> (params, state)

Both are plain NumPy, so a call inside a jitted function compiles into that function: loss,
gradients and update are then one native program. Nothing is changed in place; donate ``params`` and
``state`` to the jitted step, and it is.

A learning rate is a number, or a function of the step that counts from 0 (a schedule).

`random_search` is the baseline that needs no gradient.
"""

from diffc.optim.adaptive import adam, adamw
from diffc.optim.descent import momentum, sgd
from diffc.optim.optimizer import Optimizer, Schedule
from diffc.optim.search import random_search

__all__ = ["Optimizer", "Schedule", "adam", "adamw", "momentum", "random_search", "sgd"]
