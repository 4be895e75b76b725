"""``vmap``: a function of one as a function of a batch, by batching its graph."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from diffc import tree
from diffc.errors import ShapeError, UsageError
from diffc.leaves import abstract_leaf, as_leaf
from diffc.trace import Abstract, Tracer, current, emit, inline, line
from diffc.trace.run import name_of, parameter_names
from diffc.transformed import Function, Transformed, trace_inner
from diffc.transforms import batch

Axes = Any  #: an int, None, or a tree of these that is a prefix of what it stands for


class Vectorized(Transformed):
    """``vmap(f)``; see :func:`diffc.vmap`.

    Attributes:
        in_axes: which axis of each argument is mapped.
        out_axes: where the mapped axis stands in each result.
        axis_size: the length of the mapped axes, where it is given.
    """

    title = "vmap"

    def __init__(
        self, inner: Function, in_axes: Axes, out_axes: Axes, axis_size: int | None = None
    ) -> None:
        super().__init__(inner)
        self.in_axes = tuple(in_axes) if isinstance(in_axes, list) else in_axes
        self.out_axes = out_axes
        self.axis_size = axis_size

    def apply(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """Traces the function on one element, batches the graph, and runs it on all."""
        found, _ = tree.flatten((args, dict(kwargs)))
        leaves = [as_leaf(leaf) for leaf in found]
        paths = _paths(self.origin, args, kwargs)
        axes = self._axes_of(leaves, paths, args, kwargs)
        size = _common_size(leaves, paths, axes, self.axis_size)
        moved = [
            leaf if axis is None else _moved(leaf, axis, 0)
            for leaf, axis in zip(leaves, axes, strict=True)
        ]
        ones = [
            abstract_leaf(leaf) if axis is None else _one(leaf)
            for leaf, axis in zip(moved, axes, strict=True)
        ]
        inner = trace_inner(self.inner, args, kwargs, ones)
        mask = [axis is not None for axis in axes] + [False] * len(inner.hidden)
        out_axes = self._out_axes(inner.traced.out_tree)
        wanted = [axis is not None for axis in out_axes]
        made = batch(inner.graph, mask, size, wanted)
        current().note(made.notes)
        results = inline(made.graph, [*moved, *inner.hidden])
        outs = inner.traced.out_tree.paths("result")
        placed = [
            _placed(result, path, axis, is_batched)
            for result, path, axis, is_batched in zip(
                results, outs, out_axes, made.outputs, strict=True
            )
        ]
        return inner.traced.out_tree.build(placed)

    def _axes_of(
        self,
        leaves: Sequence[Any],
        paths: Sequence[str],
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
    ) -> list[int | None]:
        """The mapped axis of each leaf, non-negative; keyword arguments are mapped on axis 0."""
        in_axes = self.in_axes
        if isinstance(in_axes, tuple) and len(in_axes) != len(args):
            raise UsageError(
                f"in_axes has {len(in_axes)} entries for {len(args)} positional arguments",
                location=line(),
                hint="give one axis (or None) for each argument, or one for all",
            )
        try:
            spread = tree.spread(in_axes, tree.structure(args), "args")
        except UsageError as error:
            raise UsageError(
                f"in_axes is {error.message}", location=line(), hint=error.hint
            ) from None
        spread += [0] * (len(leaves) - len(spread))
        return [
            _axis(axis, len(abstract_leaf(leaf).aval.shape), "in_axes", path)
            for axis, leaf, path in zip(spread, leaves, paths, strict=True)
        ]

    def _out_axes(self, out_tree: tree.TreeDef) -> list[Any]:
        try:
            return tree.spread(self.out_axes, out_tree, "result")
        except UsageError as error:
            raise UsageError(
                f"out_axes is {error.message}", location=line(), hint=error.hint
            ) from None

    def __repr__(self) -> str:
        return f"<vmap {name_of(self.origin)}: in_axes={self.in_axes}, out_axes={self.out_axes}>"


def _axis(axis: Any, ndim: int, what: str, path: str) -> int | None:
    """An axis counted from the front; None stays."""
    if axis is None:
        return None
    if not isinstance(axis, int) or isinstance(axis, bool):
        raise UsageError(f"{what} for {path} is {axis!r}, needs an int or None", location=line())
    if not ndim:
        raise ShapeError(
            f"{path} is a scalar, which has no axis {axis} to map",
            location=line(),
            hint=f"say {what}=None for it",
        )
    if not -ndim <= axis < ndim:
        raise ShapeError(
            f"{what} names axis {axis} of {path}, which has {ndim} axes", location=line()
        )
    return axis % ndim


def _common_size(
    leaves: Sequence[Any],
    paths: Sequence[str],
    axes: Sequence[int | None],
    axis_size: int | None,
) -> int:
    """The one length of all mapped axes."""
    first = None if axis_size is None else (axis_size, f"axis_size is {axis_size}")
    for leaf, path, axis in zip(leaves, paths, axes, strict=True):
        if axis is None:
            continue
        length = int(abstract_leaf(leaf).aval.shape[axis])  # type: ignore[arg-type]  # ints here
        place = f"{path} has {length} on axis {axis}"
        if first is None:
            first = length, place
        elif first[0] != length:
            raise ShapeError(
                f"vmap needs one length of all mapped axes, but {first[1]} and {place}",
                location=line(),
            )
    if first is None:
        raise UsageError(
            "vmap has nothing to map: in_axes is None for all arguments",
            location=line(),
            hint="name an axis of at least one argument, or give axis_size",
        )
    return first[0]


def _one(leaf: Any) -> Abstract:
    """What is known of one element of a batch; NumPy gives elements of vectors as scalars."""
    aval = abstract_leaf(leaf).aval
    return Abstract(aval.with_shape(aval.shape[1:]), scalar=aval.ndim == 1)


def _moved(leaf: Any, source: int, target: int) -> Any:
    """The array with one axis moved."""
    if source == target:
        return leaf
    order = [k for k in range(abstract_leaf(leaf).aval.ndim) if k != source]
    order.insert(target, source)
    (moved,) = emit("transpose", leaf, perm=tuple(order))
    return moved


def _placed(result: Tracer, path: str, axis: Any, is_batched: bool) -> Any:
    if axis is None:
        if is_batched:
            raise UsageError(
                f"out_axes is None for {path}, which differs along the mapped axis",
                location=line(),
                hint="name the axis where the mapped one shall stand",
            )
        return result
    target = _axis(axis, result.aval.ndim, "out_axes", path)
    assert target is not None
    return _moved(result, 0, target)


def _paths(origin: Function, args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[str]:
    """How messages name the leaves of the arguments."""
    found: list[str] = []
    for label, arg in zip(parameter_names(origin, len(args)), args, strict=True):
        found += tree.structure(arg).paths(label)
    for name in sorted(kwargs):
        found += tree.structure(kwargs[name]).paths(name)
    return found
