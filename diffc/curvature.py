"""What a function does near a point: minimum, maximum, saddle, and how badly it is conditioned.

All follows from the eigenvalues of the Hessian, which are computed by NumPy's ``eigvalsh`` outside
of any trace.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from diffc import tree
from diffc.errors import DtypeError, TraceError, UsageError
from diffc.gradient import Gradient
from diffc.ir.aval import DTYPES, dtype_name
from diffc.jacobians import hessian
from diffc.leaves import abstract_leaf, as_leaf
from diffc.trace import active, limits, line, promote
from diffc.trace.run import parameter_names

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True)
class Critical:
    """A point, and what the first two derivatives say of it; see :func:`diffc.critical`.

    Attributes:
        kind: ``"minimum"``, ``"maximum"``, ``"saddle"``; ``"degenerate"`` where the gradient is
            zero and second derivatives do not decide; ``"slope"`` where the gradient is not zero.
        definiteness: of the Hessian: ``"positive definite"``, ``"negative definite"``,
            ``"indefinite"``, ``"positive semidefinite"``, ``"negative semidefinite"``, ``"zero"``.
        condition: of the Hessian: the largest of its eigenvalues by the least, by size; inf if one
            is zero.
        value: of the function.
        gradient: with the structure of the argument.
        eigenvalues: of the Hessian, ascending.
        eigenvectors: in their columns; entries in the order of the argument's elements.
        names: of the argument's elements: ``w[0]``, ``w[1]``, ...
    """

    kind: str
    definiteness: str
    condition: float
    value: float
    gradient: Any
    eigenvalues: Array
    eigenvectors: Array
    names: tuple[str, ...]

    def __str__(self) -> str:
        slopes = np.concatenate([np.ravel(g) for g in tree.leaves(self.gradient)] or [np.zeros(0)])
        known = {"slope": "no critical point", "degenerate": "a degenerate critical point"}
        lines = [
            f"{known.get(self.kind, f'a {self.kind}')}: the Hessian is {self.definiteness}",
            f"value        {self.value + 0.0:.10g}",
            f"gradient     {_listed(slopes)}, of norm {np.linalg.norm(slopes):.6g}",
            f"eigenvalues  {_listed(self.eigenvalues)}",
            f"condition    {self.condition:.6g}",
        ]
        if self.kind == "saddle":
            lines.append(f"falls along  {self._direction(0)}")
            lines.append(f"rises along  {self._direction(-1)}")
        return "\n".join(lines)

    def _direction(self, which: int) -> str:
        """An eigenvector by the names of its largest entries."""
        vector = self.eigenvectors[:, which]
        vector = vector * np.sign(vector[np.argmax(np.abs(vector))])
        order = np.argsort(-np.abs(vector), kind="stable")[:_SHOWN]
        parts = [f"{vector[i]:.3g} {self.names[i]}" for i in order if abs(vector[i]) > _NEGLIGIBLE]
        return " + ".join(parts).replace("+ -", "- ")


#: of a vector so many entries are printed
_SHOWN = 6
_NEGLIGIBLE = 1e-6


def _listed(numbers: Array) -> str:
    """Numbers in a row; of many, the first and last."""
    texts = [f"{x:.6g}" for x in numbers + 0.0]  # no -0
    if len(texts) > 2 * _SHOWN:
        texts = [*texts[:_SHOWN], "...", *texts[-_SHOWN:]]
    return "(" + ", ".join(texts) + ")"


def critical(
    function: Callable[..., Any], *args: Any, argnum: int = 0, tol: float | None = None
) -> Critical:
    """What ``function`` does near ``args``: whether there is a minimum, a maximum or a saddle.

    Args:
        function: gives one float scalar.
        args: where to look; pytrees of arrays and numbers.
        argnum: the position of the argument that the derivatives are by; of floats.
        tol: the gradient counts as zero where moving the argument by this much, relative to its
            size (at least 1), can make it zero (default: the square root of the dtype's epsilon).

    Returns:
        A :class:`diffc.curvature.Critical`: ``kind``, ``definiteness``, ``condition``, ``value``,
        ``gradient``, ``eigenvalues``, ``eigenvectors``; printed, a report. Of n elements it takes
        n directional derivatives of the gradient, and the eigenvalues of an n by n matrix.

    Raises:
        DtypeError: the argument does not hold floats only.
        ShapeError: ``function`` doesn't give one scalar.
        TraceError: within a trace, where there are no values.

    Example:
        >>> import numpy as np, diffc
        >>> print(diffc.critical(lambda x: x[0] ** 2 - x[1] ** 2, np.zeros(2)))
        a saddle: the Hessian is indefinite
        value        0
        gradient     (0, 0), of norm 0
        eigenvalues  (-2, 2)
        condition    1
        falls along  1 x[1]
        rises along  1 x[0]
    """
    if active():
        raise TraceError(
            "critical looks at values, and a trace has none",
            location=line(),
            hint="call it outside jit; diffc.hessian and diffc.hvp can be traced",
        )
    if not -len(args) <= argnum < len(args):
        raise UsageError(
            f"argnum of critical names argument {argnum}, but there are {len(args)}",
            location=line(),
        )
    at = argnum % len(args)
    origin = getattr(function, "origin", function)
    flat = _Flat(args[at], parameter_names(origin, len(args))[at])

    def of_vector(vector: Any, *rest: Any) -> Any:
        return function(*rest[:at], flat.unpacked(vector), *rest[at:])

    of_vector.origin = origin  # type: ignore[attr-defined]  # whose names messages give
    rest = [arg for k, arg in enumerate(args) if k != at]
    value, slope = Gradient(of_vector, 0, False, with_value=True)(flat.point, *rest)
    second = np.asarray(hessian(of_vector)(flat.point, *rest), np.float64)
    values, vectors = np.linalg.eigh((second + second.T) / 2)
    definiteness = _definiteness(values, flat.eps)
    reach = (flat.eps**0.5 if tol is None else tol) * max(float(np.linalg.norm(flat.point)), 1.0)
    is_flat = np.linalg.norm(slope) <= reach * float(np.max(np.abs(values), initial=1.0))
    return Critical(
        _KINDS[definiteness] if is_flat else "slope",
        definiteness,
        _condition(values, flat.eps),
        float(value),
        flat.unpacked(slope),
        values,
        vectors,
        flat.names,
    )


class _Flat:
    """A pytree of floats as one vector.

    Attributes:
        point: the vector.
        names: of its elements.
        eps: the largest epsilon of the leaves' dtypes.
    """

    def __init__(self, value: Any, label: str) -> None:
        leaves, self.structure = tree.flatten(value)
        paths = self.structure.paths(label)
        pairs = list(zip(leaves, paths, strict=True))
        self.arrays = [_as_floats(leaf, path) for leaf, path in pairs]
        dtypes = {dtype_name(array.dtype) for array in self.arrays}
        dtype = DTYPES[promote.common(tuple(dtypes or {"f64"}))]
        self.point = np.concatenate(
            [np.zeros(0, dtype), *(array.ravel().astype(dtype) for array in self.arrays)]
        )
        self.eps = max((float(limits(array.dtype).eps) for array in self.arrays), default=1.0)
        self.names = tuple(
            path + ("".join(f"[{k}]" for k in place))
            for array, path in zip(self.arrays, paths, strict=True)
            for place in np.ndindex(array.shape)
        )

    def unpacked(self, vector: Any) -> Any:
        """The pytree whose elements are those of the vector; traced, if the vector is."""
        parts, start = [], 0
        for array in self.arrays:
            part = np.reshape(vector[start : start + array.size], array.shape)
            parts.append(part.astype(array.dtype))
            start += array.size
        return self.structure.build(parts)


def _as_floats(leaf: Any, path: str) -> Array:
    found = abstract_leaf(as_leaf(leaf, path), path).aval
    if not found.is_float:
        raise DtypeError(
            f"{path} of critical is {found}; only floats have second derivatives",
            location=line(),
            hint="pass floats (2.0, x.astype(float)), or name another argument by argnum",
        )
    return np.asarray(leaf, found.numpy)


_KINDS = {
    "positive definite": "minimum",
    "negative definite": "maximum",
    "indefinite": "saddle",
    "positive semidefinite": "degenerate",
    "negative semidefinite": "degenerate",
    "zero": "degenerate",
}


def _signs(values: Array, eps: float) -> Sequence[int]:
    """How many eigenvalues are negative, zero up to rounding, and positive."""
    limit = len(values) * eps * float(np.max(np.abs(values), initial=0.0))
    below, above = int(np.sum(values < -limit)), int(np.sum(values > limit))
    return below, len(values) - below - above, above


def _definiteness(values: Array, eps: float) -> str:
    below, zero, above = _signs(values, eps)
    if below and above:
        return "indefinite"
    if not below and not above:
        return "zero"
    sign = "negative" if below else "positive"
    return f"{sign} {'semidefinite' if zero else 'definite'}"


def _condition(values: Array, eps: float) -> float:
    if not len(values) or _signs(values, eps)[1]:
        return float("inf")
    sizes = np.abs(values)
    return float(sizes.max() / sizes.min())
