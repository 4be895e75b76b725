"""The reference page of kinks: each convention, with the gradient that diffc gives there."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

import diffc

HEAD = """\
# Derivatives at kinks

Where a function has no derivative, diffc gives a fixed convention, the same forward (`jvp`),
backward (`grad`) and in Taylor mode (`jet`), within loops, branches and batches. The gradients in
the table are what `diffc.grad` of the sum gives at that point, computed when this page was made.

`diffc.kinks` chooses others, for a function or a part of one:

    @diffc.kinks(relu=1)                 # or within a function: with diffc.kinks(relu=1):
    def loss(x): ...

The choice is traced into the graph, as a `select` between two formulas of equal value, so it can be
seen there and holds wherever the graph goes. Values never change, but for the sign of a zero.

"""

TAIL = """
- `relu`, `abs` and `sqrt` take any finite slope (`sqrt` also `inf`); `tie` one of `split`, `first`,
  `all`; `norm` is 0 or nan.
- `relu` is about a number in the code. Where both operands are arrays, equal elements are a `tie`,
  also if only one of them is differentiated.
- `norm` is about Euclidean lengths, in `np.linalg.norm` and `np.std`: at length 0 they count as
  constant, so that second derivatives are 0 there too.
- `sort` is stable: of equal elements the first one keeps its place, and its derivative.
- `sign`, `floor`, `ceil`, `round`, `trunc`, comparisons and `argmax` have derivative 0 everywhere.
- A branch that is not taken contributes exactly nothing: `np.where(x > 0, np.sqrt(x), 0)` has the
  gradient 0 at 0. Where this ends, [the limits](../limits.md) say.
"""

ONES, ZEROS = np.ones(2), np.zeros(2)

# text of the function, point, choices to show beside the default
ROWS: tuple[tuple[str, Any, tuple[dict[str, Any], ...]], ...] = (
    ("np.maximum(x, 0)", 0.0, ({"relu": 1}, {"relu": 0.5})),
    ("np.minimum(x, 2)", 2.0, ({"relu": 1},)),
    ("np.clip(x, -1, 2)", np.array([-1.0, 2.0]), ({"relu": 1},)),
    ("np.abs(x)", 0.0, ({"abs": 1},)),
    ("np.maximum(x[0], x[1])", ONES, ({"tie": "first"}, {"tie": "all"})),
    ("np.max(x)", ONES, ({"tie": "first"}, {"tie": "all"})),
    ("np.sort(x) * np.array([1, 10])", ONES, ()),
    ("np.sqrt(x)", 0.0, ({"sqrt": 0},)),
    ("x ** 1.5", 0.0, ()),
    ("x ** (1 / 3)", 0.0, ()),
    ("x ** 0", 0.0, ()),
    ("np.power(0.0, x)", 2.0, ()),
    ("np.linalg.norm(x)", ZEROS, ({"norm": float("nan")},)),
    ("np.std(x)", ONES, ({"norm": float("nan")},)),
    ("np.hypot(x[0], x[1])", ZEROS, ()),
    ("np.prod(x)", ZEROS, ()),
)


@functools.cache
def kinks_page(notice: str) -> str:
    """The page: a table of functions, points and gradients."""
    lines = [notice + HEAD + "| function | at x = | gradient | otherwise |", "| --- " * 4 + "|"]
    for text, point, choices in ROWS:
        function = eval(f"lambda x: np.sum({text})", {"np": np})
        others = []
        for choice in choices:
            ((key, value),) = choice.items()
            gradient = diffc.grad(diffc.kinks(**choice)(function))(point)
            others.append(f"`{key}={value!r}`: {_text(gradient)}")
        found = _text(diffc.grad(function)(point))
        lines.append(f"| `{text}` | {_text(point)} | {found} | {'; '.join(others)} |")
    return "\n".join(lines) + "\n" + TAIL


def _text(array: Any) -> str:
    array = np.asarray(array)
    numbers = [f"{x:.4g}" for x in np.ravel(array).tolist()]
    return f"[{', '.join(numbers)}]" if array.ndim else numbers[0]
