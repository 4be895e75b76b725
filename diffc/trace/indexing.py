"""Indexing: ``x[key]`` and ``x[key] = value`` by NumPy's rules.

A key is split into its basic part (slices, integers, new axes), which is a view, and its arrays,
which gather and scatter. Indices that the trace knows are checked here; the others are checked at
run time. Masks choose by ``select``; taking elements by a mask whose values are not known is an
error, since the shape would depend on them.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from diffc.errors import ShapeError, TraceError
from diffc.ir.aval import SIGNED
from diffc.ir.graph import Operand
from diffc.ir.index import Dim
from diffc.trace import operands as o
from diffc.trace.arguments import arg, array_of, tracer
from diffc.trace.context import current
from diffc.trace.location import line
from diffc.trace.masked import Selected, shape_unknown, wide_mask
from diffc.trace.operands import Shape
from diffc.trace.table import FUNCTIONS, implements
from diffc.trace.tracer import Tracer, copy_of, read, view, wrap, write
from diffc.trace.views import Part, Picked


class OutOfBoundsError(ShapeError, IndexError):
    """An index that no element has; an IndexError, as in NumPy."""


class Key(NamedTuple):
    """A key taken apart.

    Attributes:
        part: the basic part, whose view ``rest`` of the key refers to; None if it changes nothing.
        shape: shape of that view.
        axes: axes of the view that arrays (or traced integers) index.
        arrays: those, one per axis.
        first: where the arrays' own axes go in the result.
        full: whether integers consumed every axis: then the result is a scalar.
    """

    part: Part | None
    shape: Shape
    axes: tuple[int, ...]
    arrays: tuple[Tracer, ...]
    first: int
    full: bool


def _is_mask(item: Any) -> bool:
    if isinstance(item, (Tracer, np.ndarray)):
        return bool(item.dtype == np.bool_)
    return isinstance(item, list) and bool(item) and isinstance(item[0], (bool, np.bool_))


def _items(shape: Shape, key: Any) -> list[Any]:
    """The key's items, one per axis of the array or ``None``; known masks become integer arrays."""
    items: list[Any] = []
    used = 0
    dots = -1
    for item in key if isinstance(key, tuple) else (key,):
        if item is Ellipsis:
            if dots >= 0:
                raise ShapeError("an index can only have a single ellipsis", location=line())
            dots = len(items)
        elif isinstance(item, (bool, np.bool_)):
            raise TraceError(
                "indexing by a single bool can't be traced",
                location=line(),
                hint="use np.where, or x[None] for a new axis",
            )
        elif _is_mask(item):
            found = _positions(item, shape[used : used + np.ndim(item)])
            items.extend(found)
            used += len(found)
        else:
            items.append(item)
            used += item is not None
    if used > len(shape):
        raise OutOfBoundsError(
            f"too many indices: {used} for an array of {len(shape)} dimensions", location=line()
        )
    rest = [slice(None)] * (len(shape) - used)
    return items + rest if dots < 0 else items[:dots] + rest + items[dots:]


def _positions(mask: Any, shape: Shape) -> list[Any]:
    """The integer arrays of a mask whose values are known.

    Raises:
        TraceError: they are not.
    """
    known = tracer(mask)
    found = current().ask(read(known), static=True)
    if found is None:
        raise shape_unknown(known)
    if found.shape != shape:
        raise ShapeError(
            f"a mask of shape {found.shape} for axes of shape {o.text_of_shape(shape)}",
            location=line(),
        )
    return list(np.nonzero(found))


def parse(shape: Shape, key: Any) -> Key:
    """Takes a key apart.

    Raises:
        ShapeError: too many indices, or one that is out of bounds.
        TraceError: an item that can't be traced.
    """
    starts: list[Dim] = []
    stops: list[Dim] = []
    steps: list[int] = []
    flips: list[int] = []
    view_shape: list[Dim] = []
    origin: list[int | None] = []
    axes: list[int] = []
    arrays: list[Tracer] = []
    places: list[int] = []  # positions in the key of arrays and integers
    before: list[int] = []  # axes of the result before each array
    integers = 0
    items = _items(shape, key)
    for place, item in enumerate(items):
        axis = len(starts)
        if item is None:
            view_shape.append(1)
            origin.append(None)
            continue
        dim = shape[axis]
        if isinstance(item, slice):
            lo, hi, step, flip = _range(item, dim)
            starts.append(lo)
            stops.append(hi)
            steps.append(step)
            if flip:
                flips.append(axis)
            view_shape.append(-((lo - hi) // step))
            origin.append(axis)
            continue
        found = _index(item)
        places.append(place)
        if isinstance(found, int):
            position = _in_bounds(found, dim, axis)
            starts.append(position)
            stops.append(position + 1)
            steps.append(1)
            integers += 1
            before.append(len(view_shape))
            continue
        starts.append(0)
        stops.append(dim)
        steps.append(1)
        axes.append(len(view_shape))
        arrays.append(found)
        before.append(len(view_shape) - len(axes) + 1)
        view_shape.append(dim)
        origin.append(axis)
    part = Part(
        tuple(starts), tuple(stops), tuple(steps), tuple(flips), tuple(view_shape), tuple(origin)
    )
    trivial = part.shape == shape and not flips and not any(starts) and set(steps) <= {1}
    adjacent = not places or places[-1] - places[0] == len(places) - 1
    first = before[0] if places and adjacent else 0
    full = len(places) == len(shape) and len(items) == len(shape) and bool(shape)
    return Key(None if trivial else part, part.shape, tuple(axes), tuple(arrays), first, full)


def _index(item: Any) -> int | Tracer:
    """An integer item that is known, or an integer array."""
    if isinstance(item, int):
        return item
    if isinstance(item, np.integer):
        return int(item)
    if isinstance(item, (list, tuple)):
        item = array_of(item, None if len(item) else "i64")
    if isinstance(item, (Tracer, np.ndarray)):
        found = tracer(item)
        if found.aval.dtype[0] in "iu":
            if not found.shape:
                known = current().ask(read(found), static=True)
                return found if known is None else int(known)
            return found
        kind = f"an array {found.aval}"
    else:
        kind = f"{type(item).__name__} {item!r}"
    raise TraceError(
        f"an index is {kind}; only integers, slices, None, ..., integer arrays and masks index",
        location=line(),
        hint="convert positions with .astype(np.int64)",
    )


def _in_bounds(index: int, dim: Dim, axis: int) -> Dim:
    if not isinstance(dim, int):
        return index if index >= 0 else dim + index
    if not -dim <= index < dim:
        raise OutOfBoundsError(
            f"index {index} is out of bounds for axis {axis} with size {dim}", location=line()
        )
    return index % dim


def _range(item: slice, dim: Dim) -> tuple[Dim, Dim, int, bool]:
    """Start, stop and positive step of a slice, and whether it runs backwards.

    Raises:
        TraceError: a bound that only a known size can resolve.
    """
    if isinstance(dim, int):
        found = range(dim)[item]
        size, step = len(found), found.step
        if step > 0:
            low = found.start
            return low, low + (size - 1) * step + 1 if size else low, step if size else 1, False
        low = found[-1] if size else 0
        return low, found.start + 1 if size else low, -step if size else 1, size > 1
    if item.start is None and item.stop is None and item.step in (None, 1, -1):
        return 0, dim, 1, item.step == -1
    raise TraceError(
        f"a slice with bounds on the symbolic dimension {dim}",
        location=line(),
        hint="only full slices can be taken of symbolic dimensions",
    )


def _normalized(arrays: tuple[Tracer, ...], dims: list[Dim]) -> tuple[tuple[Operand, ...], bool]:
    """Index arrays made non-negative and broadcast; and whether all are known to be in bounds."""
    shape = o.common_shape([a.shape for a in arrays], "index arrays")
    found = []
    safe = True
    for array, dim in zip(arrays, dims, strict=True):
        value = read(array)
        known = current().ask(value, static=True)
        low, high = None, None
        if known is not None and isinstance(dim, int):
            low, high = (int(known.min()), int(known.max())) if known.size else (0, 0)
            if known.size and not -dim <= low <= high < dim:
                bad = low if low < -dim else high
                raise OutOfBoundsError(
                    f"index {bad} is out of bounds for an axis of size {dim}", location=line()
                )
        else:
            safe = False
        dtype = value.aval.dtype
        if dtype in SIGNED and (low is None or low < 0):
            if dtype in ("i8", "i16"):
                value = o.cast(value, "i64")
            value = _wrap_around(value, dim)
        found.append(o.broadcast(value, shape))
    return tuple(found), safe


def _wrap_around(value: Operand, dim: Dim) -> Operand:
    aval = value.aval
    zero = o.fill(0, aval.dtype, aval.shape)
    shifted = o.emit("add", value, o.fill(dim, aval.dtype, aval.shape))
    return o.select(o.emit("lt", value, zero), shifted, value)


def gather(x: Operand, axes: tuple[int, ...], arrays: tuple[Tracer, ...], first: int) -> Operand:
    """Elements at arrays of positions along ``axes``; the arrays' axes go to ``first``."""
    indices, safe = _normalized(arrays, [x.aval.shape[axis] for axis in axes])
    mode = "clip" if safe else "check"
    found = o.emit("gather", x, *indices, axes=axes, mode=mode)
    count = indices[0].aval.ndim
    order = list(range(count, found.aval.ndim))
    order[first:first] = range(count)
    return o.transpose(found, tuple(order))


@implements("__getitem__")
def getitem(x: Tracer, key: Any) -> Any:
    """``x[key]``: a view for basic keys, else a copy."""
    if _is_mask(key) and current().ask(read(tracer(key)), static=True) is None:
        _check_mask(x, tracer(key))
        return Selected(copy_of(x), copy_of(tracer(key)))
    found = parse(x.shape, key)
    seen = _basic(x, found)
    if not found.arrays:
        return wrap(read(seen)) if found.full else seen
    if all(not array.shape for array in found.arrays):
        indices, _ = _normalized(found.arrays, [found.shape[axis] for axis in found.axes])
        lens = Picked(found.axes, indices)
        rest = tuple(dim for axis, dim in enumerate(found.shape) if axis not in found.axes)
        picked = view(seen, lens, rest)
        return wrap(read(picked)) if found.full else picked
    return wrap(gather(read(seen), found.axes, found.arrays, found.first))


def _basic(x: Tracer, key: Key) -> Tracer:
    return x if key.part is None else view(x, key.part, key.shape)


@implements("__setitem__")
def setitem(x: Tracer, key: Any, value: Any) -> None:
    """``x[key] = value``.

    Raises:
        ShapeError: the value does not fit.
        DtypeError: its dtype can't be cast.
    """
    if x.scalar:
        raise TraceError("a scalar does not support item assignment", location=line())
    if _is_mask(key) and current().ask(read(tracer(key)), static=True) is None:
        _set_by_mask(x, tracer(key), value)
        return
    found = parse(x.shape, key)
    if not found.arrays:
        target = _basic(x, found)
        if not _is_same_view(target, value):
            write(target, _fitted(value, target.aval.dtype, target.shape))
        return
    _scatter(_basic(x, found), found, value, "set")


def _is_same_view(target: Tracer, value: Any) -> bool:
    """Whether ``x[key] += y`` puts back what was already written through the view."""
    while type(value) is Tracer and target._cell is value._cell:
        if target is value:
            return True
        left, right = target._lens, value._lens
        if left is None or right is None or left.key != right.key:
            return left is right
        assert target._parent is not None and value._parent is not None
        target, value = target._parent, value._parent
    return False


def _fitted(value: Any, dtype: str, shape: Shape) -> Operand:
    """A value to be stored, cast and broadcast as item assignment does."""
    found = arg(value, "assigned value")
    own = found.shape
    while len(own) > len(shape) and own[0] == 1:
        own = own[1:]
    both = o.common_shape([shape, own], "assignment")
    if both != shape:
        raise ShapeError(
            f"a value of shape {o.text_of_shape(found.shape)} does not fit into "
            f"{o.text_of_shape(shape)}",
            location=line(),
        )
    return o.broadcast(o.reshape(found.to(dtype), own), shape)


def _check_mask(x: Tracer, mask: Tracer) -> None:
    if mask.shape != x.shape[: mask.ndim]:
        raise ShapeError(
            f"a mask of shape {o.text_of_shape(mask.shape)} for an array of shape "
            f"{o.text_of_shape(x.shape)}",
            location=line(),
        )


def _set_by_mask(x: Tracer, mask: Tracer, value: Any) -> None:
    _check_mask(x, mask)
    wide = wide_mask(mask, x)
    rest = x.shape[mask.ndim :]
    if isinstance(value, Selected):
        if read(value.mask) is not read(mask):
            raise TraceError(
                "assigning what one mask selects where another one does",
                location=line(),
                hint="compute the mask once, before both",
            )
        write(x, o.select(wide, _fitted(value.whole, x.aval.dtype, x.shape), read(x)))
        return
    found = arg(value, "assigned value")
    if len(found.shape) > len(rest) and found.shape[: len(found.shape) - len(rest)] != (1,):
        raise TraceError(
            f"assigning an array of shape {o.text_of_shape(found.shape)} by a mask whose values "
            "are not known",
            location=line(),
            hint="use x[...] = np.where(mask, value, x) with a value of the shape of x",
        )
    new = o.broadcast(_fitted(value, x.aval.dtype, rest), x.shape)
    write(x, o.select(wide, new, read(x)))


def _scatter(target: Tracer, key: Key, value: Any, combine: str) -> None:
    indices, safe = _normalized(key.arrays, [key.shape[axis] for axis in key.axes])
    count = indices[0].aval.ndim
    rest = tuple(dim for axis, dim in enumerate(key.shape) if axis not in key.axes)
    shape = (*rest[: key.first], *indices[0].aval.shape, *rest[key.first :])
    new = _fitted(value, target.aval.dtype, shape)
    places = list(range(key.first, key.first + count))
    places += [i for i in range(len(shape)) if i not in places]
    base = read(target)
    updates = o.transpose(new, tuple(places))
    mode = "drop" if safe else "check"
    found = o.emit("scatter", base, updates, *indices, axes=key.axes, mode=mode, combine=combine)
    write(target, found)


@implements("__scatter__")
def scatter(x: Tracer, key: Any, value: Any, combine: str) -> None:
    """``np.add.at`` and its like: combines in place, each repeated index counts."""
    found = parse(x.shape, key)
    target = _basic(x, found)
    if found.arrays:
        _scatter(target, found, value, combine)
        return
    ufunc = {"add": np.add, "mul": np.multiply, "max": np.maximum, "min": np.minimum}[combine]
    new = FUNCTIONS["__operator__"](ufunc, target, value)
    write(target, _fitted(new, target.aval.dtype, target.shape))
