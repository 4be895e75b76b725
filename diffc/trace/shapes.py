"""Functions that move elements: reshaping (views where NumPy gives views), joining, repeating."""

from __future__ import annotations

import itertools
import operator
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from diffc.errors import ShapeError
from diffc.trace import operands as o
from diffc.trace.arguments import operand, operands, tracer
from diffc.trace.location import line
from diffc.trace.operands import Shape
from diffc.trace.table import FUNCTIONS, implements
from diffc.trace.tracer import Tracer, read, view, wrap_array
from diffc.trace.views import Permuted, Reshaped, Strides, reshaped_strides, row_major


def strides_of(x: Tracer) -> Strides | None:
    """Steps in memory along the axes of a view, in elements; None where they are not known."""
    chain = []
    base = x
    while base._lens is not None:
        assert base._parent is not None
        chain.append((base._lens, base._parent.shape))
        base = base._parent
    strides = row_major(base.shape)
    for lens, shape in reversed(chain):
        if strides is None:
            return None
        strides = lens.strides(strides, shape)
    return strides


def reshaped(x: Tracer, shape: Shape) -> Tracer:
    """A view if NumPy's reshape is one, else a copy."""
    if x.scalar:
        return wrap_array(o.reshape(read(x), shape))
    if x._lens is not None and 0 not in x.shape:
        strides = strides_of(x)
        known = all(isinstance(dim, int) for dim in shape)
        if strides is None or not known or reshaped_strides(strides, x.shape, shape) is None:
            return wrap_array(o.reshape(read(x), shape))
    return view(x, Reshaped(shape), shape)


def _full_shape(x: Tracer, shape: Any) -> Shape:
    if isinstance(shape, (tuple, list)):
        dims: list[Any] = list(shape)
    else:
        dims = [shape]
    dims = [operator.index(dim) if hasattr(dim, "__index__") else dim for dim in dims]
    missing = [i for i, dim in enumerate(dims) if dim == -1]
    size = x.size
    if len(missing) > 1:
        raise ShapeError("np.reshape: only one dimension can be -1", location=line())
    if missing:
        known: Any = 1
        for dim in dims:
            known = known if dim == -1 else known * dim
        if known == 0 or size % known != 0:
            raise _bad_reshape(x, dims)
        dims[missing[0]] = size // known
    product: Any = 1
    for dim in dims:
        product = product * dim
    if product != size or any(isinstance(dim, int) and dim < 0 for dim in dims):
        raise _bad_reshape(x, dims)
    return tuple(dims)


def _bad_reshape(x: Tracer, dims: list[Any]) -> ShapeError:
    wanted = o.text_of_shape(tuple(dims))
    return ShapeError(
        f"cannot reshape {x.aval} with {x.size} elements into {wanted}", location=line()
    )


@implements("reshape")
def reshape(
    a: Any, /, shape: Any = None, order: str = "C", *, newshape: Any = None, copy: Any = None
) -> Tracer:
    """Another shape; a view where NumPy gives one."""
    x = tracer(a, "np.reshape")
    dims = _full_shape(x, shape if newshape is None else newshape)
    if order == "F":
        backwards = transpose(x)
        return transpose(reshaped(backwards, dims[::-1]))
    found = reshaped(x, dims)
    return FUNCTIONS["copy"](found) if copy else found


@implements("ravel")
def ravel(a: Any, order: str = "C") -> Tracer:
    """One axis; a view where NumPy gives one."""
    x = tracer(a, "np.ravel")
    return reshape(x, (x.size,), order if order == "F" else "C")


@implements("flatten")
def flatten(a: Any, order: str = "C") -> Tracer:
    """One axis, always a copy."""
    return wrap_array(read(ravel(a, order)))


@implements("transpose", "permute_dims")
def transpose(a: Any, axes: Any = None) -> Tracer:
    """Axes in another order, as a view."""
    x = tracer(a, "np.transpose")
    if axes is None:
        perm = tuple(reversed(range(x.ndim)))
    else:
        listed = tuple(axes) if isinstance(axes, Iterable) else (axes,)
        perm = tuple(o.axis_of(axis, x.ndim) for axis in listed)
        if sorted(perm) != list(range(x.ndim)):
            raise ShapeError(f"axes {listed} don't match {x.aval}", location=line())
    if x.ndim < 2:
        return x
    return view(x, Permuted(perm), tuple(x.shape[i] for i in perm))


@implements("matrix_transpose", "linalg.matrix_transpose")
def matrix_transpose(x: Any, /) -> Tracer:
    """The last two axes exchanged."""
    return swapaxes(x, -1, -2)


@implements("swapaxes")
def swapaxes(a: Any, axis1: Any, axis2: Any) -> Tracer:
    """Two axes exchanged."""
    x = tracer(a, "np.swapaxes")
    first, second = o.axis_of(axis1, x.ndim), o.axis_of(axis2, x.ndim)
    perm = list(range(x.ndim))
    perm[first], perm[second] = second, first
    return transpose(x, perm)


@implements("moveaxis")
def moveaxis(a: Any, source: Any, destination: Any) -> Tracer:
    """Axes moved to other places."""
    x = tracer(a, "np.moveaxis")
    sources = [o.axis_of(s, x.ndim) for s in _listed(source)]
    targets = [o.axis_of(d, x.ndim) for d in _listed(destination)]
    if len(sources) != len(targets):
        raise ShapeError("np.moveaxis: as many destinations as sources", location=line())
    perm = [axis for axis in range(x.ndim) if axis not in sources]
    for target, origin in sorted(zip(targets, sources, strict=True)):
        perm.insert(target, origin)
    return transpose(x, perm)


@implements("rollaxis")
def rollaxis(a: Any, axis: Any, start: Any = 0) -> Tracer:
    """An axis moved before another."""
    x = tracer(a)
    origin = o.axis_of(axis, x.ndim)
    target = int(start) + (x.ndim if start < 0 else 0)
    return moveaxis(x, origin, target - (origin < target))


def _listed(axis: Any) -> list[Any]:
    return list(axis) if isinstance(axis, (tuple, list, range)) else [axis]


@implements("expand_dims")
def expand_dims(a: Any, axis: Any) -> Tracer:
    """New axes of size 1."""
    x = tracer(a, "np.expand_dims")
    listed = _listed(axis)
    rank = x.ndim + len(listed)
    places = o.axes_of(tuple(listed), rank)
    dims = iter(x.shape)
    return reshaped(x, tuple(1 if i in places else next(dims) for i in range(rank)))


@implements("squeeze")
def squeeze(a: Any, axis: Any = None) -> Tracer:
    """Without axes of size 1."""
    x = tracer(a, "np.squeeze")
    if axis is None:
        axes = tuple(i for i, dim in enumerate(x.shape) if dim == 1)
    else:
        axes = o.axes_of(axis, x.ndim)
        if any(x.shape[i] != 1 for i in axes):
            raise ShapeError(f"cannot squeeze axis {axis} of {x.aval}: not 1", location=line())
    return reshaped(x, tuple(dim for i, dim in enumerate(x.shape) if i not in axes))


def _at_least(arrays: tuple[Any, ...], shape_of: Any) -> Any:
    found = [x if x.ndim else wrap_array(read(x)) for x in map(tracer, arrays)]
    results = [reshaped(x, shape_of(x.shape)) for x in found]
    return results[0] if len(results) == 1 else tuple(results)


@implements("atleast_1d")
def atleast_1d(*arys: Any) -> Any:
    """One axis or more."""
    return _at_least(arys, lambda s: s or (1,))


@implements("atleast_2d")
def atleast_2d(*arys: Any) -> Any:
    """Two axes or more."""
    return _at_least(arys, lambda s: (*(1 for _ in range(2 - len(s))), *s))


@implements("atleast_3d")
def atleast_3d(*arys: Any) -> Any:
    """Three axes or more, as NumPy places them."""
    shapes: list[Callable[[Shape], Shape]] = [
        lambda s: (1, 1, 1),
        lambda s: (1, *s, 1),
        lambda s: (*s, 1),
    ]
    return _at_least(arys, lambda s: shapes[len(s)](s) if len(s) < 3 else s)


# --- joining and splitting


def _sequence(arrays: Any, what: str) -> list[Any]:
    found = list(arrays)
    if not found:
        raise ShapeError(f"{what}: nothing to join", location=line())
    return found


@implements("concatenate", "concat")
def concatenate(
    arrays: Any, /, axis: Any = 0, *, dtype: Any = None, casting: str = "same_kind"
) -> Tracer:
    """Arrays one after another along an axis they have."""
    found = operands(_sequence(arrays, "np.concatenate"), "np.concatenate")
    if axis is None:
        found = [o.reshape(x, (x.aval.size,)) for x in found]
        axis = 0
    rank = found[0].aval.ndim
    if rank == 0:
        raise ShapeError("np.concatenate: scalars have no axis to join", location=line())
    place = o.axis_of(axis, rank)
    for x in found[1:]:
        same = [dim for i, dim in enumerate(x.aval.shape) if i != place]
        if x.aval.ndim != rank or same != [
            d for i, d in enumerate(found[0].aval.shape) if i != place
        ]:
            raise ShapeError(
                f"np.concatenate: {found[0].aval} and {x.aval} differ beyond axis {place}",
                location=line(),
            )
    result = wrap_array(o.concat(found, place))
    return result if dtype is None else result.astype(dtype)


@implements("stack")
def stack(arrays: Any, axis: Any = 0, *, dtype: Any = None, casting: str = "same_kind") -> Tracer:
    """Arrays of one shape along a new axis."""
    found = operands(_sequence(arrays, "np.stack"), "np.stack")
    shape = found[0].aval.shape
    if any(x.aval.shape != shape for x in found):
        listed = " and ".join(sorted({o.text_of_shape(x.aval.shape) for x in found}))
        raise ShapeError(f"np.stack: arrays have different shapes {listed}", location=line())
    place = o.axis_of(axis, len(shape) + 1)
    rows = [o.reshape(x, (*shape[:place], 1, *shape[place:])) for x in found]
    result = wrap_array(o.concat(rows, place))
    return result if dtype is None else result.astype(dtype)


@implements("vstack", "row_stack")
def vstack(tup: Any, *, dtype: Any = None, casting: str = "same_kind") -> Tracer:
    """Rows below one another."""
    return concatenate([atleast_2d(x) for x in tup], 0, dtype=dtype)


@implements("hstack")
def hstack(tup: Any, *, dtype: Any = None, casting: str = "same_kind") -> Tracer:
    """Columns beside one another."""
    found = [atleast_1d(x) for x in tup]
    return concatenate(found, 0 if found and found[0].ndim == 1 else 1, dtype=dtype)


@implements("dstack")
def dstack(tup: Any) -> Tracer:
    """Along the third axis."""
    return concatenate([atleast_3d(x) for x in tup], 2)


@implements("column_stack")
def column_stack(tup: Any) -> Tracer:
    """Vectors as columns."""
    found = [tracer(x) for x in tup]
    return concatenate([x if x.ndim > 1 else reshape(x, (-1, 1)) for x in found], 1)


@implements("append")
def append(arr: Any, values: Any, axis: Any = None) -> Tracer:
    """An array with others after it."""
    if axis is None:
        return concatenate([ravel(arr), ravel(values)])
    return concatenate([arr, values], axis)


def _split(ary: Any, parts: Any, axis: Any, *, equal: bool) -> list[Tracer]:
    x = tracer(ary, "np.split")
    place = o.axis_of(axis, x.ndim)
    size: Any = x.shape[place]
    if hasattr(parts, "__index__") and not np.ndim(parts):
        count = operator.index(parts)
        each, extra = divmod(size, count)
        if equal and extra:
            raise ShapeError(
                f"np.split: axis {place} of size {size} is not {count} equal parts",
                location=line(),
                hint="use np.array_split",
            )
        bounds = [0]
        for i in range(count):
            bounds.append(bounds[-1] + each + (i < extra))
    else:
        bounds = [0, *(operator.index(p) for p in parts), size]
    index = [slice(None)] * place
    return [x[(*index, slice(lo, hi))] for lo, hi in itertools.pairwise(bounds)]


@implements("split")
def split(ary: Any, indices_or_sections: Any, axis: Any = 0) -> list[Tracer]:
    """Views of equal parts, or between positions."""
    return _split(ary, indices_or_sections, axis, equal=True)


@implements("array_split")
def array_split(ary: Any, indices_or_sections: Any, axis: Any = 0) -> list[Tracer]:
    """Views of parts as equal as can be."""
    return _split(ary, indices_or_sections, axis, equal=False)


@implements("vsplit")
def vsplit(ary: Any, indices_or_sections: Any) -> list[Tracer]:
    """Parts along the first axis."""
    return split(ary, indices_or_sections, 0)


@implements("hsplit")
def hsplit(ary: Any, indices_or_sections: Any) -> list[Tracer]:
    """Parts along the second axis (the first of vectors)."""
    return split(ary, indices_or_sections, 1 if tracer(ary).ndim > 1 else 0)


@implements("unstack")
def unstack(x: Any, /, *, axis: Any = 0) -> tuple[Tracer, ...]:
    """The parts along an axis."""
    return tuple(moveaxis(x, axis, 0))


# --- turning, repeating


@implements("flip")
def flip(m: Any, axis: Any = None) -> Tracer:
    """Axes turned around, as a view."""
    x = tracer(m, "np.flip")
    axes = o.axes_of(axis, x.ndim)
    found: Tracer = x[
        tuple(slice(None, None, -1) if i in axes else slice(None) for i in range(x.ndim))
    ]
    return found


@implements("fliplr")
def fliplr(m: Any) -> Tracer:
    """The second axis turned around."""
    return flip(m, 1)


@implements("flipud")
def flipud(m: Any) -> Tracer:
    """The first axis turned around."""
    return flip(m, 0)


@implements("rot90")
def rot90(m: Any, k: int = 1, axes: Any = (0, 1)) -> Tracer:
    """A quarter turn, ``k`` times."""
    x = tracer(m)
    first, second = (o.axis_of(axis, x.ndim) for axis in axes)
    turns = k % 4
    if turns == 0:
        return x
    if turns == 2:
        return flip(flip(x, first), second)
    if turns == 1:
        return swapaxes(flip(x, second), first, second)
    return flip(swapaxes(x, first, second), second)


@implements("roll")
def roll(a: Any, shift: Any, axis: Any = None) -> Tracer:
    """Elements moved around cyclically by a known shift."""
    x = tracer(a, "np.roll")
    if axis is None:
        return reshape(roll(ravel(x), shift, 0), x.shape)
    value = read(x)
    shifts, axes = _listed(shift), _listed(axis)
    if len(shifts) == 1:
        shifts = shifts * len(axes)
    if len(axes) == 1:
        axes = axes * len(shifts)
    for by, where in zip(shifts, axes, strict=True):
        place = o.axis_of(where, x.ndim)
        dim: Any = x.shape[place]
        if dim == 0:
            continue
        cut = (-operator.index(by)) % dim
        if cut:
            parts = [o.slice_axis(value, place, cut, dim), o.slice_axis(value, place, 0, cut)]
            value = o.concat(parts, place)
    return wrap_array(value)


@implements("tile")
def tile(A: Any, reps: Any) -> Tracer:
    """Copies side by side along each axis."""
    x = operand(A, "np.tile")
    counts = [operator.index(r) for r in _listed(reps)]
    rank = max(len(counts), x.aval.ndim)
    counts = [1] * (rank - len(counts)) + counts
    dims = (*(1 for _ in range(rank - x.aval.ndim)), *x.aval.shape)
    paired: list[Any] = []
    for count, dim in zip(counts, dims, strict=True):
        paired += [count, dim]
    inner = o.reshape(x, dims)
    wide = o.spread(inner, tuple(paired), tuple(range(1, 2 * rank, 2)))
    return wrap_array(o.reshape(wide, tuple(c * d for c, d in zip(counts, dims, strict=True))))


@implements("repeat")
def repeat(a: Any, repeats: Any, axis: Any = None) -> Tracer:
    """Each element so many times; the numbers must be known."""
    x = tracer(a, "np.repeat")
    if axis is None:
        x, axis = ravel(x), 0
    place = o.axis_of(axis, x.ndim)
    counts = np.asarray(repeats)
    if counts.size == 1:
        count = int(counts.reshape(()))
        shape = x.shape
        wide = (*shape[: place + 1], count, *shape[place + 1 :])
        axes = tuple(i for i in range(len(wide)) if i != place + 1)
        value = o.spread(read(x), wide, axes)
        final = (*shape[:place], shape[place] * count, *shape[place + 1 :])
        return wrap_array(o.reshape(value, final))
    if counts.shape != (x.shape[place],):
        raise ShapeError(
            f"np.repeat: {counts.shape} counts for axis {place} of {x.aval}", location=line()
        )
    positions = np.repeat(np.arange(counts.size), counts)
    return FUNCTIONS["take"](x, positions.tolist(), axis=place)  # type: ignore[no-any-return]  # the table is untyped


@implements("resize")
def resize(a: Any, new_shape: Any) -> Tracer:
    """The elements repeated as often as fills the shape."""
    shape = o.shape_of_arg(new_shape)
    x = ravel(a)
    size: Any = 1
    for dim in shape:
        size = size * dim
    whole: Any = x.size
    if whole == 0:
        return wrap_array(o.fill(0, x.aval.dtype, shape))
    return reshape(tile(x, -(-size // whole))[:size], shape)
