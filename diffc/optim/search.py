"""Random search: the baseline that needs no derivatives."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from diffc import random, tree
from diffc.api import scan
from diffc.errors import UsageError
from diffc.optim.optimizer import LearningRate, Params, in_dtype, rate_of, zeros_like


def random_search(
    f: Callable[[Params], Any],
    params: Params,
    key: Any,
    steps: int = 1000,
    scale: LearningRate = 1.0,
) -> tuple[Params, Any]:
    """Takes random steps, and goes back from those that don't make ``f`` smaller.

    In each step a normal number of standard deviation ``scale`` is added to every element. With d
    elements about 1 / sqrt(d) of a step goes along the gradient, and one of two goes the right way:
    what a gradient would tell is drawn again and again.

    Args:
        f: gives one number; smaller is better.
        params: where to start, a pytree of floats.
        key: of :mod:`diffc.random`.
        steps: how many; one call of ``f`` each, and one before.
        scale: a number, or a function of the step.

    Returns:
        The best params, and what ``f`` gives there. Inside a jitted function it compiles into one
        loop.

    Example:
        >>> import numpy as np, diffc
        >>> bowl = lambda p: np.sum(p * p)
        >>> p, value = random_search(bowl, np.ones(2), diffc.random.key(0), 300, scale=0.3)
        >>> bool(value < 0.01)
        True
    """
    if not isinstance(steps, int) or steps < 0:
        raise UsageError(f"steps of random_search is {steps!r}; needs an int, at least 0")
    zeros_like(params)  # says which leaf holds no floats
    rate = rate_of(scale)
    leaves, structure = tree.flatten(params)
    if not leaves:
        return params, f(params)

    def step(state: Any, given: Any) -> Any:
        best, value = state
        count, keys = given
        size = rate(count)
        parts = [
            p + in_dtype(size, p) * random.normal(keys[k], np.shape(p), p.dtype)
            for k, p in enumerate(tree.leaves(best))
        ]
        tried = structure.build(parts)
        found = f(tried)
        is_better = found < value
        kept = tree.map(lambda new, old: np.where(is_better, new, old), tried, best)
        return (kept, np.where(is_better, found, value)), None

    keys = random.split(key, steps * len(leaves))
    given = np.arange(steps), np.reshape(keys, (steps, len(leaves), 2))
    (best, value), _ = scan(step, (params, f(params)), given)
    return best, value
