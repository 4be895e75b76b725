"""Gradients layer by layer: where they vanish, explode or underflow."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from diffc import tree
from diffc.errors import DtypeError, ShapeError, UsageError
from diffc.trace import is_float, limits
from diffc.tree.treedef import steps_of

#: of the longest bar
_WIDTH = 40


@dataclass(frozen=True, slots=True)
class Layer:
    """The gradient of one layer.

    Attributes:
        name: its key, position or path.
        norm: the Euclidean norm, computed so that it neither overflows nor underflows.
        largest: the largest element, by size.
        zeros: which part of the elements is exactly zero.
        mark: ``"zero"``: all elements are; ``"subnormal"``: none is as large as the least normal
            number of its dtype, so that digits are lost; ``"not finite"``; or ``""``.
    """

    name: str
    norm: float
    largest: float
    zeros: float
    mark: str


class Profile(tuple[Layer, ...]):
    """The layers in order; as text, a table with a bar for each decade of the norm."""

    __slots__ = ()

    @property
    def cut_off(self) -> tuple[str, ...]:
        """Names of the layers that get no gradient."""
        return tuple(layer.name for layer in self if layer.mark == "zero")

    def __str__(self) -> str:
        sizes = [layer.norm for layer in self if 0 < layer.norm < np.inf]
        high, low = np.log10([max(sizes), min(sizes)]) if sizes else (0.0, 0.0)
        width = max([5, *(len(layer.name) for layer in self)])
        lines = [f"{'layer':{width}}  norm       zeros"]
        for layer in self:
            bar = ""
            if 0 < layer.norm < np.inf:
                share = (np.log10(layer.norm) - low) / (high - low) if high > low else 1.0
                bar = "#" * max(1, round(_WIDTH * share))
            row = f"{layer.name:{width}}  {layer.norm:<9.3g}  {layer.zeros:5.0%}"
            lines.append(f"{row}  {bar} {layer.mark}".rstrip())
        return "\n".join(lines)


def gradient_profile(gradients: Any, *, stacked: bool = False) -> Profile:
    """Norms of a gradient layer by layer, with marks where it underflows.

    Args:
        gradients: a container of one pytree for each layer (a list, or a dict by name); or, with
            ``stacked``, a pytree of arrays whose leading axis counts the layers, as
            :func:`diffc.scan` takes them.
        stacked: see there; layers are called 1, 2, ...

    Raises:
        ShapeError: stacked arrays differ in their number of layers.
        UsageError: there are no layers.
        DtypeError: a leaf holds no floats.

    Example:
        >>> import numpy as np
        >>> print(gradient_profile({"first": np.float32([0.0, 0.0]), "last": np.ones(4)}))
        layer  norm       zeros
        first  0           100%   zero
        last   2             0%  ########################################
    """
    if stacked:
        return _stacked(gradients)
    structure = tree.structure(gradients)
    if not structure.children:
        raise UsageError(
            "gradient_profile takes a container with one entry for each layer",
            hint="for arrays with an axis of layers say stacked=True",
        )
    found, start = [], 0
    leaves = tree.leaves(gradients)
    for child, name in zip(structure.children, steps_of(structure), strict=True):
        own = leaves[start : start + child.num_leaves]
        start += child.num_leaves
        found.append(_layer(name.strip("[].'\""), own))
    return Profile(found)


def _stacked(gradients: Any) -> Profile:
    leaves = [np.asarray(leaf) for leaf in tree.leaves(gradients)]
    counts = {leaf.shape[0] if leaf.ndim else None for leaf in leaves}
    if len(counts) != 1 or None in counts:
        shapes = ", ".join(str(leaf.shape) for leaf in leaves) or "nothing"
        raise ShapeError(f"stacked layers need one leading axis; found {shapes}")
    (count,) = counts
    return Profile(_layer(str(k + 1), [leaf[k] for leaf in leaves]) for k in range(count or 0))


def _layer(name: str, leaves: list[Any]) -> Layer:
    arrays = [np.asarray(leaf) for leaf in leaves]
    for array in arrays:
        if not is_float(array.dtype):
            raise DtypeError(f"the gradient of layer {name} holds {array.dtype}; needs floats")
    flat = np.concatenate([np.zeros(0), *(np.abs(a.astype(np.float64)).ravel() for a in arrays)])
    largest = float(np.max(flat, initial=0.0))
    normal = max((float(limits(array.dtype).tiny) for array in arrays), default=0.0)
    mark = ""
    if not np.isfinite(flat).all():
        mark = "not finite"
    elif largest == 0:
        mark = "zero"
    elif largest < normal:
        mark = "subnormal"
    scale = largest if 0 < largest < np.inf else 1.0
    norm = largest * float(np.linalg.norm(flat / scale)) if mark != "not finite" else largest
    zeros = float(np.mean(flat == 0)) if flat.size else 1.0
    return Layer(name, norm, largest, zeros, mark)
